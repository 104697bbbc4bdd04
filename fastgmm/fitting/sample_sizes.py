"""Sizes of the samples with which a fit begins, and of those for short runs."""

from __future__ import annotations

from fastgmm.covariance import get_model
from fastgmm.data.sources import Source

# The first sample has at least as many rows as each of these demands. After a sample of 10,000 of 40,000 rows, fits
# with 3,672 parameters ended 0.02 to 0.05 nats per row lower.
ROWS = 10_000
ROWS_PER_COMPONENT = 256
ROWS_PER_PARAMETER = 10
# Rows on which short runs compare starts, at least.
SHORT_RUN_ROWS = 2_000
SHORT_RUN_ROWS_PER_COMPONENT = 64
SHORT_RUN_ROWS_PER_PARAMETER = 5
# There are samples only if the source has at least MIN_RATIO times the rows of the first. Each further sample has
# GROWTH times the rows of the one before, while the source has at least MIN_RATIO_OF_LAST times its rows. With 8 and 8
# instead of 4 and 4 for the last two, fits to tol=1e-6 took 1.1 to 2.7 times the passes on two data sets.
MIN_RATIO = 8
GROWTH = 4
MIN_RATIO_OF_LAST = 4
# A sample has at most this many bytes.
SAMPLE_BYTES = 32 * 1024 * 1024


def growing(source: Source, n_components: int, covariance_type: str, *, min_ratio: float = MIN_RATIO) -> list[int]:
    """Return the numbers of rows of the samples with which a fit begins.

    Parameters
    ----------
    source : Source
        All rows. If they have weights, their number is Kish's effective number.
    n_components : int
    covariance_type : str
    min_ratio : float
        The list is empty if the source has fewer than `min_ratio` times the rows of the first sample.

    Returns
    -------
    list of int
        Increasing. The first sample is large enough for a fit of such a mixture.
    """
    n_parameters = get_model(covariance_type).n_parameters(n_components, source.n_features)
    sizes: list[int] = []
    n_rows = max(ROWS, ROWS_PER_COMPONENT * n_components, ROWS_PER_PARAMETER * n_parameters)
    while _saves_time(source, n_rows, MIN_RATIO_OF_LAST if sizes else min_ratio):
        sizes.append(n_rows)
        n_rows *= GROWTH
    return sizes


def enough_for_short_runs(n_rows: int, n_features: int, n_components: int, covariance_type: str) -> int:
    """Return the number of rows that short runs need, at most `n_rows`."""
    n_parameters = get_model(covariance_type).n_parameters(n_components, n_features)
    needed = max(
        SHORT_RUN_ROWS, SHORT_RUN_ROWS_PER_COMPONENT * n_components, SHORT_RUN_ROWS_PER_PARAMETER * n_parameters
    )
    return min(n_rows, needed)


def _saves_time(source: Source, n_rows: int, min_ratio: float) -> bool:
    """Return whether a sample is small, in bytes and relative to all rows."""
    if n_rows * source.n_features * source.dtype.itemsize > SAMPLE_BYTES:
        return False
    return source.effective_rows >= min_ratio * n_rows
