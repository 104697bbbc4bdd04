"""Information criteria of fitted mixtures: BIC, AIC, ICL."""

from __future__ import annotations

import math

from numpy.typing import ArrayLike

from fastgmm.data.sources import Source
from fastgmm.e_step.scores import log_highest_resp

from .annotations import RowsLike
from .fitted import FittedMixture


class InformationCriteria(FittedMixture):
    """A fitted mixture that counts its free parameters."""

    def bic(self, X: RowsLike, sample_weight: ArrayLike | None = None) -> float:
        """Compute the Bayesian information criterion; lower is better.

        It is ``-2 log L + p log n``, with L the likelihood of the rows, p the number of free parameters and n the sum
        of the weights.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or fastgmm.rows
            Rows of the fit.
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts.

        Returns
        -------
        bic : float
            The criterion, of all rows.

        Raises
        ------
        ValueError
            If rows or weights are not finite, or `X` has another number of features than the model.
        """
        return self._bic(self._to_predict(X, sample_weight))

    def aic(self, X: RowsLike, sample_weight: ArrayLike | None = None) -> float:
        """Compute the Akaike information criterion; lower is better.

        It is ``-2 log L + 2 p``, with L the likelihood of the rows and p the number of free parameters.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or fastgmm.rows
            Rows of the fit.
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts.

        Returns
        -------
        aic : float
            The criterion, of all rows.

        Raises
        ------
        ValueError
            If rows or weights are not finite, or `X` has another number of features than the model.
        """
        return -2 * self._log_likelihood(self._to_predict(X, sample_weight)) + 2 * self._n_parameters()

    def icl(self, X: RowsLike, sample_weight: ArrayLike | None = None) -> float:
        """Compute the integrated completed likelihood; lower is better.

        It is ``BIC - 2 sum_i log max_k r_ik``, with r the responsibilities [1]_. The second term is a penalty for rows
        whose most probable component is uncertain. R's mclust computes the same number with the opposite sign.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or fastgmm.rows
            Rows of the fit.
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts.

        Returns
        -------
        icl : float
            The criterion, of all rows.

        Raises
        ------
        ValueError
            If rows or weights are not finite, or `X` has another number of features than the model.

        References
        ----------
        .. [1] C. Biernacki, G. Celeux and G. Govaert (2000). Assessing a mixture model for clustering with the
           integrated completed likelihood. IEEE Transactions on Pattern Analysis and Machine Intelligence 22.
        """
        source = self._to_predict(X, sample_weight)
        return self._bic(source) - 2 * self._total(log_highest_resp, source)

    def _bic(self, source: Source) -> float:
        return -2 * self._log_likelihood(source) + self._n_parameters() * math.log(source.total_weight)

    def _n_parameters(self) -> int:
        """Return the number of free parameters."""
        parameters = self._parameters()
        return parameters.model.n_parameters(parameters.n_components, parameters.n_features)
