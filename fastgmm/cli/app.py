"""The commands of ``python -m fastgmm``: demo, info and warmup."""

# argparse is in the standard library, so `info` and `warmup` work in an installation without any extra.
from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from fastgmm import __version__


def _demo(arguments: argparse.Namespace) -> None:
    from .demo import run_demo

    run_demo(arguments.image, arguments.components, arguments.max_iter, arguments.output)


def _info(arguments: argparse.Namespace) -> None:
    from .environment import describe_environment

    entries = describe_environment()
    width = max(map(len, entries)) + 2
    for name, value in entries.items():
        print(f"{name:{width}}{value}")


def _warmup(arguments: argparse.Namespace) -> None:
    from fastgmm.e_step.compilation import warmup
    from fastgmm.kernels import cache_folder

    print("Compiling, which takes a minute or two the first time ...", flush=True)
    begun = time.perf_counter()
    for name in warmup():
        print(f"ready: {name}")
    seconds, folder = time.perf_counter() - begun, cache_folder()
    if folder is None:
        sys.exit(
            f"All kernels were compiled ({seconds:.1f} s), but not stored: no cache folder can be written to, or "
            "FASTGMM_CACHE=0. Set NUMBA_CACHE_DIR to a folder that can be written to."
        )
    print(f"All kernels are compiled and stored in {folder} ({seconds:.1f} s).")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return int(text)


def _new_file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file in a folder that exists, got {text!r}")
    return path


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m fastgmm", description="Gaussian mixtures on many-core CPUs.")
    parser.add_argument("--version", action="version", version=f"fastgmm {__version__}")
    commands = parser.add_subparsers(required=True, metavar="{demo,info,warmup}")

    demo = commands.add_parser("demo", help="segment a photograph with fastgmm and scikit-learn, and write a picture")
    demo.add_argument("--image", choices=("china.jpg", "flower.jpg"), default="china.jpg")
    demo.add_argument("--components", type=_positive, default=16, metavar="K")
    demo.add_argument("--max-iter", type=_positive, default=30, metavar="N", help="at most N iterations (default: 30)")
    demo.add_argument("--output", type=_new_file, default=Path("fastgmm-demo.png"), metavar="FILE")
    demo.set_defaults(run=_demo)

    info = commands.add_parser("info", help="versions, CPU, threading layer, cache folder")
    info.set_defaults(run=_info)

    warmup = commands.add_parser("warmup", help="compile all kernels for this CPU, Python and Numba")
    warmup.set_defaults(run=_warmup)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run one command.

    Errors that a user can correct are one line on stderr, with exit status 1.
    """
    parser = build_parser()
    parsed = parser.parse_args(arguments)
    try:
        parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output has stopped. Python flushes stdout again at its end, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        parser.exit(128 + signal.SIGINT, f"{parser.prog}: interrupted\n")
    except (ImportError, MemoryError, OSError, ValueError) as error:
        text = " ".join(str(error).split()) or "there is not enough memory"
        parser.exit(1, f"{parser.prog}: error: {text}\n")
