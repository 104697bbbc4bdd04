"""Messages of errors and warnings about fits, scikit-learn's where it has one."""

from __future__ import annotations

ILL_DEFINED = (
    "Fitting the mixture model failed because some components have ill-defined empirical covariance (for instance "
    "caused by singleton or collapsed samples). Try to decrease the number of components, increase reg_covar, or scale "
    "the input data."
)
OUT_OF_RANGE = (
    "The precisions of the fitted components are too large for float64: the rows' variances must be above 1e-307. "
    "Multiply the rows by a power of ten."
)
FLOAT32_HINT = " The numerical accuracy can also be improved by passing float64 data instead of float32."
NOT_CONVERGED = (
    "Best performing initialization did not converge. Try different init parameters, or increase max_iter, tol, or "
    "check for degenerate data."
)
DUPLICATES = (
    "Number of distinct clusters ({n_distinct}) found smaller than n_clusters ({n_components}). Possibly due to "
    "duplicate points in X."
)
INTERRUPTED = "The fit was interrupted. The estimator has the best parameters so far, after {n_iter} passes."
