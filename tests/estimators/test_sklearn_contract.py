"""scikit-learn's estimator checks."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastgmm import BayesianGaussianMixture, GaussianMixture, StreamingGaussianMixture
from fastgmm.covariance import BASIC_TYPES

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@parametrize_with_checks(
    [
        *(GaussianMixture(covariance_type=name) for name in (*BASIC_TYPES, "VVE")),
        *(BayesianGaussianMixture(covariance_type=name) for name in BASIC_TYPES),
        *(StreamingGaussianMixture(covariance_type=name) for name in (*BASIC_TYPES, "VVE")),
        StreamingGaussianMixture(init_size=10, batch_size=7, half_life=50),
    ]
)
def test_estimator_checks(estimator, check):
    check(estimator)


# The check of weights shuffles the rows: with two components it needs a start that does not depend on their order.
@parametrize_with_checks(
    [GaussianMixture(2, covariance_type=name, init_params="random", n_jobs=2) for name in BASIC_TYPES]
)
def test_estimator_checks_with_two_components(estimator, check):
    check(estimator)
