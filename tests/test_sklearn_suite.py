"""scikit-learn's own mixture tests, with fastgmm's class in place of theirs.

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
    # array API
    "test_gaussian_mixture_array_api_compliance",
    "test_gaussian_mixture_raises_where_array_api_not_implemented",
}


def suite(name):
    """A fresh copy of one of scikit-learn's test modules, with GaussianMixture replaced."""
    spec = importlib.util.find_spec(f"sklearn.mixture.tests.{name}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.GaussianMixture = fastgmm.GaussianMixture
    return {key: value for key, value in vars(module).items() if key.startswith("test_") and key not in PRIVATE}


globals().update(suite("test_gaussian_mixture"))


@pytest.mark.parametrize("test", suite("test_mixture").values(), ids=suite("test_mixture"))
def test_common(test):
    test.__wrapped__(fastgmm.GaussianMixture()) if hasattr(test, "__wrapped__") else test(fastgmm.GaussianMixture())
