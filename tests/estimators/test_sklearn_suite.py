"""scikit-learn's own mixture tests, with fastgmm's classes in place of theirs.

All tests that use only the public API; those of private helpers and of the array API do not apply.
"""

import importlib.util

import pytest

import fastgmm

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

PRIVATE = {
    # of the functions of scikit-learn's M-step and E-step
    "test_suffstat_sk_full",
    "test_suffstat_sk_tied",
    "test_suffstat_sk_diag",
    "test_gaussian_suffstat_sk_spherical",
    "test_compute_log_det_cholesky",
    "test_gaussian_mixture_log_probabilities",
    # call or replace private methods and functions
    "test_gaussian_mixture_precisions_init_diag",
    "test_gaussian_mixture_precisions_init",
    "test_gaussian_mixture_all_init_does_not_estimate_gaussian_parameters",
    # of the Bayesian estimator's private functions
    "test_log_dirichlet_norm",
    "test_log_wishart_norm",
    # initialise by private methods
    "test_compare_covar_type",
    # array API
    "test_gaussian_mixture_array_api_compliance",
    "test_gaussian_mixture_raises_where_array_api_not_implemented",
}


def suite(name):
    """A fresh copy of one of scikit-learn's test modules, with the estimators replaced."""
    spec = importlib.util.find_spec(f"sklearn.mixture.tests.{name}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.GaussianMixture = fastgmm.GaussianMixture
    module.BayesianGaussianMixture = fastgmm.BayesianGaussianMixture
    return {key: value for key, value in vars(module).items() if key.startswith("test_") and key not in PRIVATE}


globals().update(suite("test_gaussian_mixture"))
# Some of their names are those of tests of the other estimator.
bayesian = {
    name.replace("test_", "test_variational_", 1): test for name, test in suite("test_bayesian_mixture").items()
}
globals().update(bayesian)


@pytest.mark.parametrize("test", suite("test_mixture").values(), ids=suite("test_mixture"))
@pytest.mark.parametrize("estimator", [fastgmm.GaussianMixture, fastgmm.BayesianGaussianMixture])
def test_common(test, estimator):
    getattr(test, "__wrapped__", test)(estimator())
