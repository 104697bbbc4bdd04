"""Parameters of estimators that have been found valid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Parameters of these types that scikit-learn has found valid are not validated again: on 300 rows that would take as
# long as EM. The key has the class, the values and their types.
PLAIN_TYPES = frozenset({bool, int, float, str, type(None)})
MAX_VALID_OPTIONS = 1024
_valid_options: set[tuple[Any, ...]] = set()


def validate_once(kind: type, values: tuple[Any, ...], validate: Callable[[], None]) -> None:
    """Validate the parameters of an estimator, unless the same ones have been found valid.

    Parameters
    ----------
    kind : type
        The class of the estimator.
    values : tuple
        The values of its parameters.
    validate : callable
        Raises an error if they are invalid.
    """
    options = kind, values, tuple(map(type, values))
    if not PLAIN_TYPES.issuperset(options[2]):
        validate()
    elif options not in _valid_options:
        validate()
        if len(_valid_options) == MAX_VALID_OPTIONS:
            _valid_options.clear()
        _valid_options.add(options)
