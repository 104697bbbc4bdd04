"""Subclasses: what fits would ignore is refused, everything else works as with scikit-learn's classes."""

import numpy as np
import pytest
import sklearn.mixture
from sklearn.base import BaseEstimator, clone

import fastgmm
from fastgmm import BayesianGaussianMixture, DaskGaussianMixture, GaussianMixture
from helpers import blobs

X, _ = blobs(n_samples=100)
ESTIMATORS = [GaussianMixture, BayesianGaussianMixture, DaskGaussianMixture]
HOOKS = [
    "_m_step", "_e_step", "_initialize", "_initialize_parameters", "_check_parameters", "_get_parameters",
    "_set_parameters", "_compute_lower_bound", "_estimate_log_prob", "_estimate_log_prob_resp",
    "_estimate_log_weights", "_estimate_weighted_log_prob", "_estimate_weights", "_print_verbose_msg_init_beg",
]  # fmt: skip


def ignored(self, *arguments, **options):
    return None


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("hook", HOOKS)
def test_an_overridden_hook_is_refused_when_the_class_is_defined(estimator, hook):
    with pytest.raises(TypeError, match=f"^Constrained overrides {hook}, .* Subclass the class of sklearn.mixture"):
        type("Constrained", (estimator,), {hook: ignored})


def test_all_ignored_methods_are_named():
    with pytest.raises(TypeError, match=r"^Constrained overrides _e_step, _m_step, which"):

        class Constrained(GaussianMixture):
            def _m_step(self, X, log_resp, xp=None):
                super()._m_step(X, log_resp)

            def _e_step(self, X, xp=None):
                return super()._e_step(X)


def test_hooks_that_come_from_a_mixin_or_an_ancestor_are_found():
    class Mixin:
        _m_step = ignored

    class Theirs(sklearn.mixture.GaussianMixture):
        _m_step = ignored

    for bases in ((Mixin, GaussianMixture), (GaussianMixture, Mixin), (GaussianMixture, Theirs)):
        with pytest.raises(TypeError, match="overrides _m_step"):
            type("Both", bases, {})


def test_methods_that_fits_call_may_be_overridden():
    class Penalised(GaussianMixture):
        def _n_parameters(self):
            return 1000

    class Helped(GaussianMixture):
        """With helpers of its own, whose names are none of scikit-learn's."""

        def _estimate_distances(self):
            return None

        def _m_step_of_mine(self):
            return None

        def fit(self, X, y=None, sample_weight=None):
            return super().fit(np.asarray(X) + 1, y, sample_weight)

    plain = GaussianMixture(2, random_state=0).fit(X)
    assert Penalised(2, random_state=0).fit(X).bic(X) > plain.bic(X) + 900
    np.testing.assert_allclose(Helped(1).fit(X).means_, GaussianMixture(1).fit(X).means_ + 1)


def test_methods_of_scikit_learns_classes_may_be_inherited():
    class Both(GaussianMixture, sklearn.mixture.GaussianMixture):
        pass

    model = Both(2, random_state=0).fit(X)
    assert isinstance(model, sklearn.mixture.GaussianMixture)
    np.testing.assert_array_equal(model.means_, GaussianMixture(2, random_state=0).fit(X).means_)


def test_other_hooks_of_classes_are_called():
    seen = []

    class Registered:
        def __init_subclass__(cls, tag=None, **options):
            super().__init_subclass__(**options)
            seen.append((cls.__name__, tag))

    class Mine(GaussianMixture, Registered, tag="first"):
        pass

    class Other(Registered, GaussianMixture, tag="last"):
        pass

    assert seen == [("Mine", "first"), ("Other", "last")]


class Fixed(GaussianMixture):
    """A subclass with a constructor of its own, as scikit-learn allows."""

    def __init__(self, k=2):
        super().__init__(n_components=k, random_state=0, max_iter=50)
        self.k = k


class Logged(BaseEstimator):
    def describe(self):
        return f"{type(self).__name__} of {len(self.means_)}"


class Mixed(Logged, GaussianMixture):
    pass


def test_subclasses_with_constructors_and_mixins_of_their_own():
    model = clone(Fixed(np.int64(3))).fit(X)
    assert model.get_params() == {"k": 3}
    np.testing.assert_array_equal(model.means_, GaussianMixture(3, random_state=0, max_iter=50).fit(X).means_)
    assert clone(Mixed(2, random_state=0)).fit(X).describe() == "Mixed of 2"


def test_the_check_accepts_every_class_of_the_package():
    for name in ("GaussianMixture", "BayesianGaussianMixture", "DaskGaussianMixture", "DaskBayesianGaussianMixture"):
        type("Mine", (getattr(fastgmm, name),), {})
