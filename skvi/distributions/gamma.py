"""Gamma(shape, rate), an array of independent ones."""

import numpy as np
from scipy import special, stats

from skvi.distributions.base import ExponentialFamily


class Gamma(ExponentialFamily):
    """Independent ``x ~ Gamma(shape, rate)``: mean shape / rate.

    Parameters
    ----------
    shape, rate : float or array
        Broadcast against each other; the variable has their common shape.
    """

    def __init__(self, shape, rate):
        shape, rate = np.broadcast_arrays(
            np.asarray(shape, dtype=np.float64), np.asarray(rate, dtype=np.float64)
        )
        self.shape = shape.copy()
        self.rate = rate.copy()

    @property
    def mean(self):
        return self.shape / self.rate

    @property
    def mean_log(self):
        return special.digamma(self.shape) - np.log(self.rate)

    @property
    def mean_inverse(self):
        """``E[1 / x]``, infinite for shape <= 1."""
        with np.errstate(divide="ignore"):
            return np.where(
                self.shape > 1.0, self.rate / np.maximum(self.shape - 1.0, 0), np.inf
            )

    def variance(self):
        return self.shape / self.rate**2

    def covariance(self):
        """Covariance along the last axis; of a scalar, its variance."""
        variance = self.variance()
        if variance.ndim == 0:
            return variance
        return variance[..., None] * np.eye(variance.shape[-1])

    def expect(self):
        return {"value": self.mean, "log": self.mean_log}

    def natural(self):
        return {"value": -self.rate, "log": self.shape}

    @staticmethod
    def log_normalizer(natural):
        shape, rate = natural["log"], -natural["value"]
        return (special.gammaln(shape) - shape * np.log(rate)).sum()

    @staticmethod
    def statistics(z):
        return {"value": z, "log": np.log(z)}

    def entropies(self):
        """Entropy of each of the independent variables."""
        a = self.shape
        return a - np.log(self.rate) + special.gammaln(a) + (1.0 - a) * special.psi(a)

    def entropy(self):
        return float(np.sum(self.entropies()))

    def absorb(self, log, value):
        """The conjugate update: add to the coefficients of log x and of -x."""
        return Gamma(self.shape + log, self.rate + value)

    def log_absorbed(self, log, value):
        """``log E[x^log exp(-value x)]``: the evidence of what ``absorb`` adds."""
        after = self.absorb(log, value)
        return (
            special.gammaln(after.shape)
            - special.gammaln(self.shape)
            + self.shape * np.log(self.rate)
            - after.shape * np.log(after.rate)
        )

    def expected_log_density(self, other):
        """``E_other[log self]`` for another distribution of the same variable."""
        e = other.expect()
        terms = (
            self.shape * np.log(self.rate)
            - special.gammaln(self.shape)
            + (self.shape - 1.0) * e["log"]
            - self.rate * e["value"]
        )
        return float(np.sum(terms))

    def sample(self, n, rng):
        return rng.standard_gamma(self.shape, size=(n, *self.shape.shape)) / self.rate

    def log_density(self, z):
        z = np.asarray(z)
        terms = stats.gamma.logpdf(z, self.shape, scale=1.0 / self.rate)
        return terms.reshape(z.shape[0], -1).sum(axis=1)

    def sf(self, x):
        """``P(value > x)``."""
        return special.gammaincc(self.shape, self.rate * x)

    def distance(self, other):
        spread = np.sqrt(special.polygamma(1, self.shape))
        return float(np.max(np.abs(self.mean_log - other.mean_log) / spread, initial=0))

    def coordinates(self):
        """Unconstrained numbers that determine the distribution."""
        parts = np.log(self.shape), np.log(self.rate / self.shape)
        return np.concatenate([part.ravel() for part in parts])

    def at(self, coordinates):
        """The distribution of other coordinates."""
        shape, rate = np.exp(coordinates).reshape(2, *self.shape.shape)
        return Gamma(shape, shape * rate)
