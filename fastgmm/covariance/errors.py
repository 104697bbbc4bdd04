"""The error that covariances without Cholesky factors raise."""

from __future__ import annotations

from collections.abc import Sequence


class IllDefinedCovarianceError(ValueError):
    """Covariances that are not positive definite or not finite.

    Attributes
    ----------
    components : list of int
        Numbers of the components with such covariances; empty if all components share one covariance.
    overflowed : bool
        Whether the covariances are infinite or NaN because squares of the rows overflow.

    Examples
    --------
    >>> from fastgmm.engine import IllDefinedCovarianceError, MixtureParameters
    >>> try:
    ...     MixtureParameters.create([0.5, 0.5], [[0.0], [1.0]], [1.0, 0.0], "spherical")
    ... except IllDefinedCovarianceError as error:
    ...     print(error, error.components)
    the covariance of component 1 is not positive definite [1]
    """

    def __init__(self, components: Sequence[int], overflowed: bool = False):
        self.components, self.overflowed = [int(k) for k in components], overflowed
        super().__init__(self.describe())

    def __reduce__(self) -> tuple:
        return type(self), (self.components, self.overflowed)  # so that other processes can raise it

    def describe(self) -> str:
        """Return which covariances are ill-defined and why, as a clause."""
        overflow = "finite: squares of the rows overflow, so divide the rows by a power of ten"
        requirement = overflow if self.overflowed else "positive definite"
        if not self.components:
            return f"the covariance that all components share is not {requirement}"
        listed = ", ".join(map(str, self.components[:10])) + (", ..." if len(self.components) > 10 else "")
        if len(self.components) == 1:
            return f"the covariance of component {listed} is not {requirement}"
        return f"the covariances of components {listed} are not {requirement}"
