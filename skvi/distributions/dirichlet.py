"""Dirichlet(concentration), an array of independent ones."""

import numpy as np
from scipy import special, stats

from skvi.distributions.base import ExponentialFamily


class Dirichlet(ExponentialFamily):
    """Independent probability vectors ``x ~ Dirichlet(concentration)``.

    Parameters
    ----------
    concentration : array of shape (..., K)
        One distribution over the last axis for every index of the leading ones; the
        variable has the same shape.
    """

    def __init__(self, concentration):
        self.concentration = np.array(concentration, dtype=np.float64)

    @property
    def total(self):
        return self.concentration.sum(axis=-1, keepdims=True)

    @property
    def mean(self):
        return self.concentration / self.total

    @property
    def mean_log(self):
        return special.digamma(self.concentration) - special.digamma(self.total)

    def variance(self):
        return self.mean * (1.0 - self.mean) / (self.total + 1.0)

    def covariance(self):
        """Covariance of each of the independent vectors, shape (..., K, K)."""
        mean = self.mean
        diagonal = mean[..., None] * np.eye(mean.shape[-1])
        outer = mean[..., :, None] * mean[..., None, :]
        return (diagonal - outer) / (self.total[..., None] + 1.0)

    def interval(self, confidence_level=0.95):
        """Central interval of each probability, shape (..., K, 2)."""
        a = self.concentration
        if a.shape[-1] == 1:  # nothing to share
            return np.ones((*a.shape, 2))
        rest = np.maximum(self.total - a, np.finfo(np.float64).tiny)
        tail = 0.5 * (1.0 - confidence_level)
        ends = [stats.beta.ppf(q, a, rest) for q in (tail, 1.0 - tail)]
        return np.stack(ends, axis=-1)

    def expect(self):
        return {"log": self.mean_log}

    def natural(self):
        return {"log": self.concentration}

    @staticmethod
    def log_normalizer(natural):
        concentration = natural["log"]
        each = special.gammaln(concentration).sum(axis=-1)
        return (each - special.gammaln(concentration.sum(axis=-1))).sum()

    @staticmethod
    def statistics(z):
        return {"log": np.log(z)}

    def entropy(self):
        return -self.expected_log_density(self)

    def absorb(self, log):
        """The conjugate update: add to the coefficients of log x."""
        return Dirichlet(self.concentration + log)

    def expected_log_density(self, other):
        """``E_other[log self]`` for another distribution of the same variable."""
        terms = (self.concentration - 1.0) * other.expect()["log"]
        return float(np.sum(terms) - self.log_normalizer(self.natural()))

    def sample(self, n, rng):
        # In logs, because gammas of a small shape underflow: G(a) = G(a + 1) U^(1/a).
        shape = self.concentration
        log = np.log(rng.standard_gamma(shape + 1.0, size=(n, *shape.shape)))
        log -= rng.standard_exponential(log.shape) / shape
        # Tiny rather than zero, whose logarithm is no number.
        return np.maximum(special.softmax(log, axis=-1), np.finfo(np.float64).tiny)

    def log_density(self, z):
        terms = special.xlogy(self.concentration - 1.0, z)
        total = terms.reshape(terms.shape[0], -1).sum(axis=1)
        return total - self.log_normalizer(self.natural())

    def coordinates(self):
        """Unconstrained numbers that determine the distribution."""
        return np.log(self.concentration).ravel()

    def at(self, coordinates):
        """The distribution of other coordinates."""
        return Dirichlet(np.exp(coordinates).reshape(self.concentration.shape))

    def distance(self, other):
        trigamma = special.polygamma(1, self.concentration)
        variance = trigamma - special.polygamma(1, self.total)  # of log x; K = 1: zero
        spread = np.sqrt(np.maximum(variance, np.finfo(np.float64).tiny))
        return float(np.max(np.abs(self.mean_log - other.mean_log) / spread, initial=0))
