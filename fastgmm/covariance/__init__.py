"""What the covariances of a mixture may be: models, the forms they are stored in, and the registry of both.

Plain NumPy on sufficient statistics. The rows and the kernels know nothing of models, only of the three layouts that
the forms map to: spherical and diagonal forms are read by the diagonal layout, matrices by "full" or "tied".
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
