"""Compute golden results and store them in `results.json`.

    cd tests && python -m golden.make             # all cases
    cd tests && python -m golden.make NAME ...    # these cases; the others stay as they are stored

Compute all of them again only for a change that is meant to change numbers, or after an upgrade of NumPy, Numba or the
machine, from code that passed `test_golden.py` before it. A new case is stored by its name, so that the others still
compare with the code that they were computed by.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from .cases import CASES, compute
from .results import FILE, environment, read, write


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases to compute; default: all")
    names = parser.parse_args().names
    unknown = sorted(set(names) - set(CASES))
    if unknown:
        parser.error(f"NAME must be a case of golden/cases.py, got {', '.join(unknown)}.")
    here = environment()
    stored = {}
    if names:
        there, stored = read()
        if there != here:
            parser.error(f"The stored results must be of this environment ({here}), but are of {there}: compute all.")
    for name in names or CASES:
        with tempfile.TemporaryDirectory() as folder:
            stored[name] = compute(name, Path(folder))
    write(here, {name: case for name, case in stored.items() if name in CASES})
    print(f"{len(names or CASES)} of {len(CASES)} cases computed, {FILE.stat().st_size / 1024:.0f} KiB in {FILE}")


if __name__ == "__main__":
    main()
