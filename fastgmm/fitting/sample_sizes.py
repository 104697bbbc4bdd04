"""How many rows the samples have that a fit begins with, and short runs."""

from __future__ import annotations

from fastgmm.covariance import get_model
from fastgmm.data.sources import Source

# Rows of the first sample, at the least; of more than `WORTH` times as many a fit begins with a sample. 40,000 patches
# with 3,672 parameters ended 0.02 to 0.05 nats per row lower after a sample of 10,000.
ROWS, ROWS_PER_COMPONENT, ROWS_PER_PARAMETER = 10_000, 256, 10
FEW_ROWS, FEW_ROWS_PER_COMPONENT, FEW_ROWS_PER_PARAMETER = 2_000, 64, 5
# Each sample is so many times as large as the one before, and at most so large a part of the rows, or so many bytes.
# With 8 and 8 in place of 4 and 4 fits of pixels and flights to tol=1e-6 took 1.1 to 2.7 times as many passes.
WORTH, GROWTH, LAST = 8, 4, 4
SAMPLE_BYTES = 32 * 1024 * 1024


def growing(source: Source, n_components: int, covariance_type: str, *, worth: float = WORTH) -> list[int]:
    """How many rows the samples have that a fit begins with; none if there are not `worth` times as many rows.

    The first has enough to fit such a mixture to.
    """
    n_parameters = get_model(covariance_type).n_parameters(n_components, source.n_features)
    sizes: list[int] = []
    n_rows = max(ROWS, ROWS_PER_COMPONENT * n_components, ROWS_PER_PARAMETER * n_parameters)
    while _is_worth(source, n_rows, LAST if sizes else worth):
        sizes.append(n_rows)
        n_rows *= GROWTH
    return sizes


def enough_for_short_runs(n_rows: int, n_features: int, n_components: int, covariance_type: str) -> int:
    """How many of a sample's rows short runs need."""
    n_parameters = get_model(covariance_type).n_parameters(n_components, n_features)
    return min(n_rows, max(FEW_ROWS, FEW_ROWS_PER_COMPONENT * n_components, FEW_ROWS_PER_PARAMETER * n_parameters))


def _is_worth(source: Source, n_rows: int, worth: float) -> bool:
    """Whether there are so many times as many rows, by Kish's number if they have weights, and a sample is small."""
    if n_rows * source.n_features * source.dtype.itemsize > SAMPLE_BYTES:
        return False
    return source.effective_rows >= worth * n_rows
