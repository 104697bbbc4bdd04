"""Covariance models, and the forms that store covariances.

Everything here is NumPy on sufficient statistics. The rows and the kernels do not depend on the model, only on the
layout of its form: the diagonal layout reads spherical and diagonal forms, "full" and "tied" read matrices.
"""

from .errors import IllDefinedCovarianceError
from .forms import Form
from .models import BASIC_TYPES, COVARIANCE_TYPES, MCLUST_MODELS, CovarianceModel, get_model

__all__ = [
    "BASIC_TYPES",
    "COVARIANCE_TYPES",
    "MCLUST_MODELS",
    "CovarianceModel",
    "Form",
    "IllDefinedCovarianceError",
    "get_model",
]
