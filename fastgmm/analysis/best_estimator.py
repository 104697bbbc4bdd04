"""Predictions of a search: those of its best estimator."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted

from fastgmm.estimators.annotations import FloatArray
from fastgmm.estimators.gaussian_mixture import GaussianMixture


class BestEstimator(DensityMixin, BaseEstimator):
    """A search whose prediction methods are those of `best_estimator_`."""

    best_estimator_: GaussianMixture

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Predict the most probable component of each row with the best fit.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to label.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int64
            Components, numbered from 0.

        Raises
        ------
        ValueError
            See `GaussianMixture.predict`.
        """
        return self._best().predict(X)

    def predict_proba(self, X: ArrayLike) -> FloatArray:
        """Compute the responsibilities of the best fit.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows whose responsibilities are computed.

        Returns
        -------
        resp : ndarray of shape (n_samples, n_components)
            Probability of each component given each row.

        Raises
        ------
        ValueError
            See `GaussianMixture.predict_proba`.
        """
        return self._best().predict_proba(X)

    def score_samples(self, X: ArrayLike) -> FloatArray:
        """Compute the log-density of each row under the best fit.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        log_prob : ndarray of shape (n_samples,)
            Log-densities in nats.

        Raises
        ------
        ValueError
            See `GaussianMixture.score_samples`.
        """
        return self._best().score_samples(X)

    def score(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> float:
        """Compute the mean log-density of the rows under the best fit.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score.
        y : None
            Ignored, present for scikit-learn's API.
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts.

        Returns
        -------
        log_likelihood : float
            Mean log-density in nats per row.

        Raises
        ------
        ValueError
            See `GaussianMixture.score`.
        """
        return self._best().score(X, y, sample_weight)

    def _best(self) -> GaussianMixture:
        check_is_fitted(self)
        return self.best_estimator_
