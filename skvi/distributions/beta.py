"""Beta(a, b), an array of independent ones."""

import numpy as np
from scipy import special, stats

from skvi.distributions.base import ExponentialFamily


class Beta(ExponentialFamily):
    """Independent ``x ~ Beta(a, b)``: mean a / (a + b).

    Parameters
    ----------
    a, b : float or array
        Broadcast against each other; the variable has their common shape.
    """

    def __init__(self, a, b):
        a, b = np.broadcast_arrays(
            np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
        )
        self.a, self.b = a.copy(), b.copy()

    @property
    def mean(self):
        return self.a / (self.a + self.b)

    def variance(self):
        total = self.a + self.b
        return self.a * self.b / (total**2 * (total + 1.0))

    def covariance(self):
        """Covariance along the last axis; of a scalar, its variance."""
        variance = self.variance()
        if variance.ndim == 0:
            return variance
        return variance[..., None] * np.eye(variance.shape[-1])

    def interval(self, confidence_level=0.95):
        """Central interval of each, shape (..., 2)."""
        tail = 0.5 * (1.0 - confidence_level)
        ends = [stats.beta.ppf(q, self.a, self.b) for q in (tail, 1.0 - tail)]
        return np.stack(ends, axis=-1)

    def expect(self):
        """E[log x] and E[log(1 - x)], called log and log_rest."""
        total = special.digamma(self.a + self.b)
        return {
            "log": special.digamma(self.a) - total,
            "log_rest": special.digamma(self.b) - total,
        }

    def natural(self):
        return {"log": self.a, "log_rest": self.b}

    @staticmethod
    def log_normalizer(natural):
        return special.betaln(natural["log"], natural["log_rest"]).sum()

    @staticmethod
    def statistics(z):
        return {"log": np.log(z), "log_rest": np.log1p(-z)}

    def entropy(self):
        return -self.expected_log_density(self)

    def absorb(self, log, log_rest):
        """The conjugate update: add to the coefficients of log x and log(1 - x)."""
        return Beta(self.a + log, self.b + log_rest)

    def expected_log_density(self, other):
        """``E_other[log self]`` for another distribution of the same variable."""
        e = other.expect()
        terms = (self.a - 1.0) * e["log"] + (self.b - 1.0) * e["log_rest"]
        return float(np.sum(terms - special.betaln(self.a, self.b)))

    def sample(self, n, rng):
        return rng.beta(self.a, self.b, size=(n, *self.a.shape))

    def log_density(self, z):
        z = np.asarray(z)
        terms = stats.beta.logpdf(z, self.a, self.b)
        return terms.reshape(z.shape[0], -1).sum(axis=1)

    def distance(self, other):
        spread = np.sqrt(self.variance())
        return float(np.max(np.abs(self.mean - other.mean) / spread, initial=0.0))

    def coordinates(self):
        """Unconstrained numbers that determine the distribution."""
        return np.log(np.concatenate([self.a.ravel(), self.b.ravel()]))

    def at(self, coordinates):
        """The distribution of other coordinates."""
        a, b = np.exp(coordinates).reshape(2, *self.a.shape)
        return Beta(a, b)
