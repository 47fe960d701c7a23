"""Gaussian vectors of the steps of sequences, correlated in time or not."""

import numpy as np

from skvi.distributions.base import Distribution
from skvi.distributions.gaussian import LOG_2PI


class GaussianChain(Distribution):
    """``x ~ N(mean, precision^-1)`` for x of shape (T, d).

    Parameters
    ----------
    mean : array of shape (T, d)
    precision : BlockTridiagonalPrecision or BlockDiagonalPrecision
        The first makes a chain of each sequence, the second independent steps.
    """

    def __init__(self, mean, precision):
        self.mean = mean
        self.precision = precision

    @property
    def dim(self):
        return self.mean.shape[1]

    @property
    def covariances(self):
        """Of steps, and of each with the next; see ``StepCovariances``."""
        return self.precision.covariances

    def covariance(self):
        """The covariance of each step, (T, d, d)."""
        return self.covariances.of_steps()

    def variance(self):
        """Variances of the coordinates of each step, (T, d)."""
        found = self.covariances
        each = np.diagonal(found.variances, axis1=1, axis2=2)
        return each[found.whose]

    def expect(self):
        """E[x_t], E[x_t x_t'] and E[x_t x_{t+1}'], the last of T - 1 steps."""
        m, found = self.mean, self.covariances
        outer = found.of_steps() + m[:, :, None] * m[:, None, :]
        lagged = found.lagged_of_steps()[:-1] + m[:-1, :, None] * m[1:, None, :]
        return {"value": m, "outer": outer, "lagged": lagged}

    def innovations(self, matrix, weight):
        """``sum_t weight_t E[w_t w_t']`` of ``w_t = x_t - A x_{t-1}``; no weight first.

        A is the matrix that the precision was made with.
        """
        w = self.mean[1:] - self.mean[:-1] @ matrix.T
        spread = self.precision.innovations(matrix, weight)
        return spread + w.T @ (weight[1:, None] * w)

    def step_entropies(self):
        """The share of each step, which add up to the entropy."""
        return 0.5 * (self.dim * (1.0 + LOG_2PI) - self.precision.log_dets())

    def entropy(self):
        return float(self.step_entropies().sum())

    def sample(self, n, rng):
        return self.mean + self.precision.sample(n, rng)

    def log_density(self, z):
        z = np.asarray(z, dtype=np.float64).reshape(-1, *self.mean.shape)
        quadratic = self.precision.quadratic(z - self.mean)
        return 0.5 * (self.precision.logdet() - self.mean.size * LOG_2PI - quadratic)

    def distance(self, other):
        moves = np.abs(self.mean - other.mean) / np.sqrt(self.variance())
        return float(np.max(moves, initial=0.0))
