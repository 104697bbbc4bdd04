"""Rejection of subclasses that override methods which a fit would ignore.

scikit-learn's mixtures call private methods of their own (`_m_step`, `_initialize` ...), and subclasses override them
to change a fit. The fits of fastgmm call none of them.
"""

from __future__ import annotations


def check_hooks(cls: type) -> None:
    """Reject a class that overrides a private method of scikit-learn's mixtures.

    Parameters
    ----------
    cls : type
        A subclass of a mixture estimator. It may override private methods that fastgmm's classes also have, and it may
        inherit methods that scikit-learn's own classes define.

    Raises
    ------
    TypeError
        If a fit would ignore a method. The message names it.
    """
    if _is_ours(cls):  # avoids the import of scikit-learn's mixtures
        return
    ignored = sorted(name for name in _private_methods() if _is_ignored(cls, name))
    if ignored:
        listed = ", ".join(ignored)
        raise TypeError(
            f"{cls.__name__} overrides {listed}, which scikit-learn's mixtures call in fit or predict. fastgmm's "
            "mixtures do not call it, so it would be ignored. Subclass the class of sklearn.mixture instead, or, if "
            "the method is not meant to replace scikit-learn's, give it another name."
        )


def _private_methods() -> set[str]:
    """Return the names of the private methods of scikit-learn's mixtures."""
    from sklearn.mixture import BayesianGaussianMixture, GaussianMixture

    return {
        name
        for cls in (*GaussianMixture.__mro__, *BayesianGaussianMixture.__mro__)
        if _is_scikit_learns(cls)
        for name, value in vars(cls).items()
        if name.startswith("_") and not name.startswith("__") and callable(value)
    }


def _is_ignored(cls: type, name: str) -> bool:
    """Return whether a fit would ignore the class's method of this name."""
    owners = [ancestor for ancestor in cls.__mro__ if name in vars(ancestor)]
    if not owners or any(_is_ours(owner) for owner in owners):
        return False
    return not _is_scikit_learns(owners[0])


def _is_ours(cls: type) -> bool:
    return cls.__module__.split(".")[0] == "fastgmm"


def _is_scikit_learns(cls: type) -> bool:
    return cls.__module__.startswith("sklearn.mixture.")
