"""What every factor q(.) or p(.) answers, and what an exponential family adds.

A distribution is immutable. One variable: values are plain arrays. Several variables
(``names`` is a tuple): values are dicts of arrays by name.
"""

from abc import ABC, abstractmethod

import numpy as np


class Distribution(ABC):
    """A distribution of one variable, or of the several that ``names`` lists."""

    names = None  # None: one variable without a name of its own
    fixed = frozenset()  # names of variables that are known values

    @abstractmethod
    def expect(self):
        """Expected statistics, a dict of arrays."""

    @abstractmethod
    def entropy(self):
        """Differential entropy in nats."""

    @abstractmethod
    def sample(self, n, rng):
        """``n`` draws; the first axis of every array counts draws."""

    @abstractmethod
    def log_density(self, z):
        """Log density of draws as ``sample`` returns them, shape (n,)."""

    @abstractmethod
    def distance(self, other):
        """Largest move of an expected value to ``other``, in sds of this."""


class ExponentialFamily(Distribution):
    """``log q(z) = <natural, statistics(z)> - log_normalizer(natural) + log h(z)``.

    The dicts ``natural``, ``statistics`` and ``expect`` share their keys. The gradient
    of the log normaliser is the expected statistic, which is tested for every family.
    """

    @abstractmethod
    def natural(self):
        """Natural parameters, by name of the statistic."""

    @staticmethod
    @abstractmethod
    def log_normalizer(natural):
        """Log normaliser as a function of the natural parameters."""

    @staticmethod
    @abstractmethod
    def statistics(z):
        """Sufficient statistics of draws, by name, first axis counts draws."""


class PointMass(Distribution):
    """A value that is known: no entropy, no density to speak of."""

    def __init__(self, value):
        self.value = np.asarray(value, dtype=np.float64)

    def expect(self):
        return {"value": self.value, "log": np.log(self.value)}

    def absorb(self, log, value):
        """No evidence moves a known value."""
        return self

    def expected_log_density(self, other):
        return 0.0

    def log_absorbed(self, log, value):
        return log * np.log(self.value) - self.value * value

    def entropies(self):
        return np.zeros_like(self.value)

    def entropy(self):
        return 0.0

    def sample(self, n, rng):
        return np.broadcast_to(self.value, (n, *self.value.shape)).copy()

    def log_density(self, z):
        return np.zeros(np.asarray(z).shape[0])

    def distance(self, other):
        return 0.0

    def sf(self, x):
        """``P(value > x)``."""
        return np.where(self.value > x, 1.0, 0.0)

    @property
    def mean(self):
        return self.value

    @property
    def mean_inverse(self):
        return 1.0 / self.value

    def variance(self):
        return np.zeros_like(self.value)

    def covariance(self):
        return np.zeros((*self.value.shape, *self.value.shape[-1:]))
