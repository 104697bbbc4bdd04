"""Types of parameters that estimators share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgmm.data.block_source import BlockSource
from fastgmm.mixture.parameters import MixtureParameters

# float64, or float32 where rows and model are.
FloatArray: TypeAlias = NDArray[np.float32 | np.float64]
RowsLike: TypeAlias = ArrayLike | BlockSource
RandomState: TypeAlias = int | np.random.RandomState | None
FilePath: TypeAlias = str | os.PathLike[str]
# Called as callback(n_iter, lower_bound, parameters); a true result stops the fit.
Callback: TypeAlias = Callable[[int, float, MixtureParameters], object]
