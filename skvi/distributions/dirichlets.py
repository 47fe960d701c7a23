"""Dirichlets of different lengths, side by side."""

import numpy as np

from skvi.distributions.base import Distribution
from skvi.distributions.dirichlet import Dirichlet


class Dirichlets(Distribution):
    """Independent probability vectors that stand side by side in the last axis.

    Parameters
    ----------
    concentration : array of shape (..., V)
    sizes : sequence of int
        Lengths of the vectors, which add up to V.
    """

    def __init__(self, concentration, sizes):
        self.sizes = tuple(int(size) for size in sizes)
        self.cuts = np.cumsum(self.sizes)[:-1]
        concentration = np.asarray(concentration, dtype=np.float64)
        self.parts = [Dirichlet(part) for part in self._split(concentration)]

    def _split(self, values):
        return np.split(np.asarray(values), self.cuts, axis=-1)

    def _joined(self, function):
        return np.concatenate([function(part) for part in self.parts], axis=-1)

    def _of(self, concentration):
        return Dirichlets(concentration, self.sizes)

    @property
    def concentration(self):
        return self._joined(lambda part: part.concentration)

    @property
    def mean(self):
        return self._joined(lambda part: part.mean)

    @property
    def mean_log(self):
        return self._joined(lambda part: part.mean_log)

    def variance(self):
        return self._joined(lambda part: part.variance())

    def covariance(self):
        """Covariance along the last axis, zero between different vectors."""
        size = sum(self.sizes)
        out = np.zeros((*self.parts[0].concentration.shape[:-1], size, size))
        start = 0
        for part, length in zip(self.parts, self.sizes):
            stop = start + length
            out[..., start:stop, start:stop] = part.covariance()
            start = stop
        return out

    def interval(self, confidence_level=0.95):
        """Central interval of each probability, shape (..., V, 2)."""
        parts = [part.interval(confidence_level) for part in self.parts]
        return np.concatenate(parts, axis=-2)

    def expect(self):
        return {"log": self.mean_log}

    def entropy(self):
        return float(sum(part.entropy() for part in self.parts))

    def absorb(self, log):
        """The conjugate update: add to the coefficients of log x."""
        return self._of(self.concentration + log)

    def expected_log_density(self, other):
        """``E_other[log self]`` for another distribution of the same variable."""
        pairs = zip(self.parts, other.parts)
        return float(sum(mine.expected_log_density(their) for mine, their in pairs))

    def sample(self, n, rng):
        return self._joined(lambda part: part.sample(n, rng))

    def log_density(self, z):
        return sum(part.log_density(x) for part, x in zip(self.parts, self._split(z)))

    def distance(self, other):
        pairs = zip(self.parts, other.parts)
        return max(mine.distance(their) for mine, their in pairs)

    def coordinates(self):
        """Unconstrained numbers that determine the distribution."""
        return np.log(self.concentration).ravel()

    def at(self, coordinates):
        """The distribution of other coordinates."""
        return self._of(np.exp(coordinates).reshape(self.concentration.shape))
