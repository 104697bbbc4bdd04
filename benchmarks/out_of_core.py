"""Compare fits of rows in files with fits of rows in memory: time per pass, peak memory, and results.

    python benchmarks/out_of_core.py folder --rows 12000000

writes the rows, once, to ``.npy`` and Parquet files in the folder. For each number of components it prints the seconds
of an EM iteration in memory, of reading the blocks alone, and of a fit from the file. It also prints the peak of memory
above that of a process that fits few rows, and the largest difference of the means from those in memory. Each fit runs
in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import fastgmm
from benchmarks.common import make_rows

FEATURES = 6
N_PASSES = 12
# Number of rows of the fit that warms a process up.
FEW_ROWS = 10_000


def peak() -> float:
    """Return the peak memory of this process, in MB. (`ru_maxrss` of a new process starts at that of its parent.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def start(n_components: int) -> dict:
    """Return initial parameters that do not depend on the rows."""
    rng = np.random.default_rng(1)
    precisions = np.tile(np.eye(FEATURES) / 4, (n_components, 1, 1))
    means = 2 * rng.normal(size=(n_components, FEATURES))
    return {"weights_init": np.full(n_components, 1 / n_components), "means_init": means, "precisions_init": precisions}


def timed_fit(X, n_components: int, n_passes: int) -> tuple[list[float], np.ndarray]:
    """Return the seconds of each pass but the first, and the final means."""
    times: list[float] = []
    model = fastgmm.GaussianMixture(
        n_components,
        acceleration=None,
        tol=0,
        max_iter=n_passes,
        callback=lambda *_: times.append(time.perf_counter()),
        **start(n_components),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X)
    return list(np.diff(times)), model.means_


def child(kind: str, path: str, n_components: int) -> dict:
    """Make one measurement in this process."""
    fastgmm.GaussianMixture(n_components, max_iter=2, **start(n_components), tol=10).fit(
        make_rows(FEW_ROWS, FEATURES, 8)
    )
    if kind == "memory":
        seconds, means = timed_fit(np.load(path), n_components, N_PASSES)
        return {"seconds": statistics.median(seconds), "means": means.tolist()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        timed_fit(fastgmm.rows(make_rows(FEW_ROWS, FEATURES, 8)), n_components, 2)
        if path.endswith(".parquet"):
            import pyarrow.parquet  # noqa: F401  so that its own memory is not counted
    before, source = peak(), fastgmm.rows(path)
    if kind == "reading":
        seconds = []
        for _ in range(N_PASSES):
            begun = time.perf_counter()
            for _ in source.blocks():
                pass
            seconds.append(time.perf_counter() - begun)
        return {"seconds": statistics.median(seconds)}
    seconds, means = timed_fit(source, n_components, N_PASSES)
    return {"seconds": statistics.median(seconds), "means": means.tolist(), "megabytes": peak() - before}


def measure(kind: str, path: Path, n_components: int) -> dict:
    """Make one measurement in a new process."""
    command = [sys.executable, __file__, "--child", kind, str(path), str(n_components)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def write(folder: Path, n_rows: int) -> dict[str, Path]:
    """Write the files block by block, unless they exist, and return their paths."""
    import pyarrow as pa
    from pyarrow import parquet

    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"rows-{n_rows}.{name}" for name in ("npy", "parquet")}
    if all(path.exists() for path in paths.values()):
        return paths
    names = [f"f{d}" for d in range(FEATURES)]
    schema = pa.schema([(name, pa.float64()) for name in names])
    with paths["npy"].open("wb") as file, parquet.ParquetWriter(paths["parquet"], schema) as writer:
        header = {"descr": "<f8", "fortran_order": False, "shape": (n_rows, FEATURES)}
        np.lib.format.write_array_header_1_0(file, header)
        for i in range(0, n_rows, 1_000_000):
            X = make_rows(min(1_000_000, n_rows - i), FEATURES, 8, seed=0)
            X += np.random.default_rng(i).normal(scale=0.1, size=X.shape)  # other rows of the same mixture
            file.write(X.data)
            writer.write_table(pa.table(dict(zip(names, X.T, strict=True))))
    return paths


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rows", type=int, default=12_000_000)
    parser.add_argument("--components", type=int, nargs="*", default=[8, 64])
    parser.add_argument("--no-memory", action="store_true", help="leave out the fits that need all rows in memory")
    parser.add_argument("--child", nargs=3)
    arguments = parser.parse_args()
    if arguments.child:
        kind, path, n_components = arguments.child
        print(json.dumps(child(kind, path, int(n_components))))
        return
    paths = write(arguments.folder, arguments.rows)
    print(f"{arguments.rows} x {FEATURES}; seconds per pass, median of {N_PASSES - 1}")
    print(f"{'':>10}{'K':>4}{'in memory':>11}{'reading':>9}{'fit':>8}{'over longer':>13}{'MB':>6}{'means apart':>13}")
    for n_components in arguments.components:
        memory = None if arguments.no_memory else measure("memory", paths["npy"], n_components)
        for name, path in paths.items():
            reading, fit = measure("reading", path, n_components), measure("fit", path, n_components)
            longer = max(reading["seconds"], memory["seconds"] if memory else 0.0)
            apart = np.abs(np.array(fit["means"]) - memory["means"]).max() if memory else np.nan
            print(
                f"{name:>10}{n_components:>4}{memory['seconds'] if memory else np.nan:>11.3f}{reading['seconds']:>9.3f}"
                f"{fit['seconds']:>8.3f}{fit['seconds'] / longer:>13.2f}{fit['megabytes']:>6.0f}{apart:>13.1e}"
                f"   {arguments.rows / fit['seconds'] / 1e6:.1f} million rows/s",
                flush=True,
            )


if __name__ == "__main__":
    main()
