"""A naive EM in NumPy, written to be obviously right: float64, one row and one component at a time in the mathematics.

Nothing here imports fastgmm. Covariances are always full matrices, (K, D, D).
"""

import numpy as np
from scipy.special import logsumexp


def log_densities(X, weights, means, covariances):
    """``log w_k + log N(x_n; m_k, Sigma_k)``, shape (N, K)."""
    X = np.asarray(X, dtype=np.float64)
    result = np.empty((len(X), len(weights)))
    for k, (weight, mean, covariance) in enumerate(zip(weights, means, covariances, strict=True)):
        difference = X - mean
        squared_distance = (difference * np.linalg.solve(covariance, difference.T).T).sum(axis=1)
        log_determinant = np.linalg.slogdet(2 * np.pi * covariance)[1]
        result[:, k] = np.log(weight) - 0.5 * (squared_distance + log_determinant)
    return result


def responsibilities(X, weights, means, covariances):
    """``r_nk`` (N, K) and ``log p(x_n)`` (N,)."""
    joint = log_densities(X, weights, means, covariances)
    log_prob_norm = logsumexp(joint, axis=1)
    return np.exp(joint - log_prob_norm[:, np.newaxis]), log_prob_norm


def moments(X, resp, reference, sample_weight=None):
    """Weight sums (K,), first moments (K, D) and scatter (K, D, D) about the reference points."""
    X = np.asarray(X, dtype=np.float64)
    resp = resp * (np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight))[:, np.newaxis]
    first, scatter = [], []
    for k, point in enumerate(reference):
        difference = X - point
        first.append((resp[:, k, np.newaxis] * difference).sum(axis=0))
        scatter.append((resp[:, k, np.newaxis] * difference).T @ difference)
    return resp.sum(axis=0), np.array(first), np.array(scatter)


def m_step(X, resp, covariance_type, reg_covar=1e-6, sample_weight=None):
    """Weights, means and covariances (always (K, D, D)) of highest likelihood."""
    n_features = X.shape[1]
    sums, first, _ = moments(X, resp, np.zeros((resp.shape[1], n_features)), sample_weight)
    means = first / sums[:, np.newaxis]
    scatter = moments(X, resp, means, sample_weight)[2]
    covariances = scatter / sums[:, np.newaxis, np.newaxis]
    if covariance_type == "tied":
        covariances = np.tile(scatter.sum(axis=0) / sums.sum(), (len(sums), 1, 1))
    if covariance_type in ("diag", "spherical"):
        covariances = covariances * np.eye(n_features)
    if covariance_type == "spherical":
        covariances = np.array([np.trace(c) / n_features * np.eye(n_features) for c in covariances])
    return sums / sums.sum(), means, covariances + reg_covar * np.eye(n_features)


def em(X, weights, means, covariances, covariance_type, n_iter, reg_covar=1e-6, sample_weight=None):
    """Parameters after `n_iter` iterations and the mean log-likelihood at each E-step."""
    sample_weight = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight)
    lower_bounds = []
    for _ in range(n_iter):
        resp, log_prob_norm = responsibilities(X, weights, means, covariances)
        lower_bounds.append(np.average(log_prob_norm, weights=sample_weight))
        weights, means, covariances = m_step(X, resp, covariance_type, reg_covar, sample_weight)
    return weights, means, covariances, lower_bounds


def squared_distances(X, points):
    """(N, K)."""
    X = np.asarray(X, dtype=np.float64)
    return np.array([[((x - p) ** 2).sum() for p in points] for x in X]).reshape(len(X), len(points))
