"""The error of covariances that have no factors."""

from __future__ import annotations

from collections.abc import Sequence


class IllDefinedCovarianceError(ValueError):
    """Covariances that are not positive definite.

    Attributes
    ----------
    components : list of int
        Whose covariances these are; empty if all components share one.
    overflowed : bool
        Whether they are infinite or NaN because squares of the rows overflow.
    """

    def __init__(self, components: Sequence[int], overflowed: bool = False):
        self.components, self.overflowed = [int(k) for k in components], overflowed
        super().__init__(self.describe())

    def __reduce__(self) -> tuple:
        return type(self), (self.components, self.overflowed)  # to be raised across processes

    def describe(self) -> str:
        """Which covariances, as a phrase."""
        what = "finite: squares of the rows overflow, so divide the rows by a power of ten"
        what = what if self.overflowed else "positive definite"
        if not self.components:
            return f"the covariance that all components share is not {what}"
        listed = ", ".join(map(str, self.components[:10])) + (", ..." if len(self.components) > 10 else "")
        if len(self.components) == 1:
            return f"the covariance of component {listed} is not {what}"
        return f"the covariances of components {listed} are not {what}"
