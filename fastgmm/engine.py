"""EM in parts, for library authors: E-steps, statistics that add, M-steps.

Nothing here needs scikit-learn. An E-step (`accumulate`) turns a block of rows into sufficient statistics. Statistics
of blocks can be added. An M-step (`maximise`) turns them into parameters. This example runs 20 EM iterations over four
blocks of rows:

>>> import numpy as np
>>> from fastgmm.engine import MixtureParameters, accumulate, maximise
>>> rng = np.random.default_rng(0)
>>> blocks = [rng.normal(size=(1000, 2)) + [6.0 * (i % 2), 0.0] for i in range(4)]
>>> parameters = MixtureParameters.create([0.5, 0.5], [[0.0, 0.0], [2.0, 0.0]], np.ones((2, 2)), "diag")
>>> for _ in range(20):
...     statistics = sum(accumulate(parameters, block) for block in blocks)
...     parameters = maximise(statistics, "diag")
>>> parameters.means.round(1) + 0.0
array([[0., 0.],
       [6., 0.]])

Rows are float64 or float32 arrays of shape (n, D). They may be in C or Fortran order, read-only or memory-mapped.
Arithmetic is done in the dtype of the rows, sums over rows in float64. The values of the rows are not checked: a single
NaN makes the log-likelihood NaN.
"""

from __future__ import annotations

from .covariance import IllDefinedCovarianceError
from .e_step.compilation import warmup
from .e_step.complete_rows import accumulate
from .e_step.given_responsibilities import accumulate_labels, accumulate_resp
from .e_step.scores import predict, predict_proba, score_samples
from .initialization.hierarchy import agglomerate
from .m_step.maximum_likelihood import maximise
from .mixture.parameters import MixtureParameters
from .mixture.statistics import SufficientStatistics

__all__ = [
    "IllDefinedCovarianceError",
    "MixtureParameters",
    "SufficientStatistics",
    "accumulate",
    "accumulate_labels",
    "accumulate_resp",
    "agglomerate",
    "maximise",
    "predict",
    "predict_proba",
    "score_samples",
    "warmup",
]
