r"""Multinomial with a softmax link: one linear predictor for each class.

``log p(y | eta) = eta_y - log sum_k exp(eta_k)``. Adding a number to all predictors
changes nothing, so that the expectation under N(mean, V) is one over the K - 1
differences from the last. With three classes it is a product of one-dimensional rules,
as fine as each row needs; with more, an average over quasi-random points, the same for
all rows: with 1024 points an error of some 1e-3 a row where predictors have sds of one
and a half, and less where they have less. The mean of the curvature ``diag(pi) - pi
pi'`` over the points is positive semidefinite whatever the points.
"""

from functools import partial

import numpy as np
from scipy import special

from skvi.inference.quadrature import (
    groups_of_rules,
    product_rule,
    random_rule,
    rule_of,
)
from skvi.likelihoods.base import Expectations, Likelihood

CHUNK = 1 << 19  # cells (rows times points times classes) that are worked on at once


class Softmax(Likelihood):
    """``P(y = k) = exp(eta_k) / sum_l exp(eta_l)``; y holds numbers of classes.

    Parameters
    ----------
    n_classes : int
    n_points : int, default=1024
        Quasi-random points of expectations, a power of two, for four classes and more.
    """

    def __init__(self, n_classes, n_points=1024):
        self.n_outputs = n_classes
        self.n_points = n_points

    def log_density(self, y, eta, log_dispersion=0.0):
        rows = np.arange(len(eta))
        return eta[rows, y.astype(np.intp)] - special.logsumexp(eta, axis=1)

    def derivatives(self, y, eta, log_dispersion=0.0):
        pi = special.softmax(eta, axis=1)
        second = pi[:, :, None] * pi[:, None, :]
        second[:, np.arange(self.n_outputs), np.arange(self.n_outputs)] -= pi
        return self._one_hot(y) - pi, second

    def expect(self, y, mean, variance, dispersion=None):
        """Expectations under ``eta ~ N(mean, variance)``: (n, K) and (n, K, K)."""
        n, K = mean.shape
        value, pi = np.empty(n), np.empty((n, K))
        curvature = np.empty((n, K, K))
        for rows, cells, weights in self._points(mean, variance):
            top = cells.max(axis=1, keepdims=True)
            cells -= top
            np.exp(cells, out=cells)
            total = cells.sum(axis=1, keepdims=True)
            cells /= total
            value[rows] = (np.log(total) + top)[:, 0] @ weights
            pi[rows] = cells @ weights
            curvature[rows] = -(cells * weights) @ cells.transpose(0, 2, 1)
        curvature[:, np.arange(K), np.arange(K)] += pi
        # The differences' mean is that of the last predictor less itself.
        value = mean[np.arange(n), y.astype(np.intp)] - mean[:, -1] - value
        return Expectations(value, self._one_hot(y) - pi, curvature)

    def log_probabilities(self, mean, variance):
        """``log E p(y = k)``, (n, K)."""
        out = np.empty(mean.shape)
        for rows, cells, weights in self._points(mean, variance):
            logs = cells - special.logsumexp(cells, axis=1, keepdims=True)
            out[rows] = special.logsumexp(logs, axis=2, b=weights)
        return out - special.logsumexp(out, axis=1, keepdims=True)

    def _points(self, mean, variance):
        """Yield (rows, predictors less the last (n, K, S), weights)."""
        V = variance[:, :-1, :-1] - variance[:, -1:, :-1]
        V = V - variance[:, :-1, -1:] + variance[:, -1:, -1:]
        dim = self.n_outputs - 1
        if dim > 2:
            rules = np.zeros(len(V), dtype=np.int64)
            rule = partial(_random_rule, self.n_points, dim)
        else:
            rules = rule_of(np.sqrt(np.einsum("nkk->n", V)), np.pi)
            rule = partial(product_rule, dim=dim)
        cells_at_once = CHUNK // self.n_outputs
        for rows, points, weights in groups_of_rules(rules, cells_at_once, rule):
            cells = np.zeros((len(rows), self.n_outputs, len(points)))
            np.matmul(_roots(V[rows]), points.T, out=cells[:, :-1])
            cells[:, :-1] += (mean[rows, :-1] - mean[rows, -1:])[:, :, None]
            yield rows, cells, weights

    def _one_hot(self, y):
        return (y[:, None] == np.arange(self.n_outputs)).astype(np.float64)

    def centre(self, y, weight, offset):
        counts = np.bincount(
            y.astype(np.intp), weights=weight, minlength=self.n_outputs
        )
        logs = np.log(counts + 0.5)
        return logs - logs.mean()

    def start(self, y, offset, centre, dispersion):
        """(precision, mean): a Newton step from the shares of the classes."""
        pi = special.softmax(centre)
        precision = np.diag(pi) - np.outer(pi, pi)
        n, K = len(y), self.n_outputs
        mean = centre + (self._one_hot(y) - pi) / pi
        return np.broadcast_to(precision, (n, K, K)), mean


def _random_rule(n_points, dim, k):
    return random_rule(n_points, dim)


def _roots(V):
    """Lower roots of covariances that may be singular."""
    K = V.shape[1]
    scale = np.einsum("nkk->n", V)[:, None, None] + 1e-300
    return np.linalg.cholesky(V + 1e-14 * scale * np.eye(K))
