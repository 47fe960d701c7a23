"""Laws of a step in each state: of known parameters, or with these integrated out.

Those of numbers have ``column(d, weights)``: the law of column d under weights (n, K)
of the states, with ``mean``, ``variance()`` and ``quantile(p)``.
"""

from abc import ABC, abstractmethod

import numpy as np
from scipy import special, stats

from skvi.distributions import LocationScaleMixture, StudentMixture

LARGEST_RATE = 1e15  # beyond, counts are drawn as numbers


class StepLaw(ABC):
    """Laws of a step in each of K states."""

    @abstractmethod
    def log_densities(self, X):
        """(n, K), of the entries that are not NaN."""

    @abstractmethod
    def sample(self, states, rng):
        """A step for each of some states, (n, D)."""


class StudentLaw(StepLaw):
    """Student-t or Gaussian steps, in standard units.

    Parameters
    ----------
    df, loc, scale : as ``StudentMixture`` takes them
    """

    def __init__(self, df, loc, scale):
        self.df, self.loc, self.scale = df, loc, scale
        self.mixture = StudentMixture(np.ones(len(loc)), df, loc, scale)

    def log_densities(self, X):
        return self.mixture.log_densities(X)

    def sample(self, states, rng):
        return self.mixture.components.sample(states, rng)

    def column(self, d, weights):
        df = self.df if np.ndim(self.df) < 2 else self.df[:, d]
        scale = np.asarray(self.scale)
        if scale.ndim == 3:
            width = np.sqrt((scale[:, d] ** 2).sum(axis=-1))
        else:
            width = scale[:, d]
        shape = weights.shape
        arrays = (np.broadcast_to(each, shape) for each in (df, self.loc[:, d], width))
        return LocationScaleMixture(weights, *arrays)


class CountLaw(StepLaw):
    """Independent counts in each column, given the state."""

    @abstractmethod
    def log_mass(self, x):
        """Of counts (n, 1, D), for every state: (n, K, D)."""

    def log_densities(self, X):
        missing = np.isnan(X)[:, None]
        x = np.where(missing, 0.0, X[:, None])
        return np.where(missing, 0.0, self.log_mass(x)).sum(axis=2)

    def column(self, d, weights):
        return CountMixture(weights, self.frozen((slice(None), d)))


class NegativeBinomialLaw(CountLaw):
    """Poisson steps whose rates have a Gamma law.

    Parameters
    ----------
    shape_, rate : arrays of shape (K, D)
        Of the Gamma law.
    """

    def __init__(self, a, b):
        self.a, self.b, self.shape = a, b, a.shape

    def log_mass(self, x):
        a, b = self.a, self.b
        out = special.gammaln(a + x) - special.gammaln(a) - special.gammaln(x + 1.0)
        return out + a * (np.log(b) - np.log1p(b)) - x * np.log1p(b)

    def frozen(self, index):
        a, b = self.a[index], self.b[index]
        return stats.nbinom(a, b / (1.0 + b))

    def sample(self, states, rng):
        return _poisson(rng.standard_gamma(self.a[states]) / self.b[states], rng)


class PoissonLaw(CountLaw):
    """Poisson steps of known rates (K, D)."""

    def __init__(self, rates):
        self.rates, self.shape = rates, rates.shape

    def log_mass(self, x):
        return special.xlogy(x, self.rates) - self.rates - special.gammaln(x + 1.0)

    def frozen(self, index):
        return stats.poisson(self.rates[index])

    def sample(self, states, rng):
        return _poisson(self.rates[states], rng)


def _poisson(rates, rng):
    """Draws; where rates are beyond what fits an integer, the rates themselves."""
    draws = rng.poisson(np.minimum(rates, LARGEST_RATE)).astype(np.float64)
    return np.where(rates < LARGEST_RATE, draws, rates)


class BernoulliLaw(CountLaw):
    """Ones with probabilities (K, D)."""

    def __init__(self, probabilities):
        self.p, self.shape = probabilities, probabilities.shape

    def log_mass(self, x):
        return special.xlogy(x, self.p) + special.xlog1py(1.0 - x, -self.p)

    def frozen(self, index):
        return stats.bernoulli(self.p[index])

    def sample(self, states, rng):
        return (rng.random((len(states), self.shape[1])) < self.p[states]).astype(float)


class CategoricalLaw(StepLaw):
    """Categories with probabilities (K, V), those of all columns side by side.

    ``X`` holds codes as ``CodeRows`` has them, transposed.
    """

    def __init__(self, probabilities, sizes):
        self.p, self.sizes = probabilities, sizes
        with np.errstate(divide="ignore"):
            self.log = np.pad(np.log(probabilities), ((0, 0), (0, 1)))

    def log_densities(self, X):
        return sum(self.log[:, codes].T for codes in X.T)

    def sample(self, states, rng):
        columns, start = [], 0
        for size in self.sizes:
            cumulative = self.p[:, start : start + size].cumsum(axis=1)[states]
            uniform = rng.random((len(states), 1)) * cumulative[:, -1:]
            columns.append((uniform > cumulative).sum(axis=1))
            start += size
        return np.column_stack(columns)


class CountMixture:
    """For each of n rows, a mixture of K laws of counts.

    Parameters
    ----------
    weights : array of shape (n, K)
    law : frozen scipy.stats distribution of shape (K,)
    """

    def __init__(self, weights, law):
        self.weights, self.law = weights, law

    @property
    def mean(self):
        return self.weights @ self.law.mean()

    def variance(self):
        mean = self.law.mean()
        return self.weights @ (self.law.var() + mean**2) - self.mean**2

    def quantile(self, probabilities):
        """The smallest counts with so much probability below or at them, (n, q)."""
        probabilities = np.asarray(probabilities, dtype=np.float64)
        # The mixture's quantile lies between those of its components.
        each = self.law.ppf(probabilities[:, None])
        shape = len(self.weights), len(probabilities)
        low = np.broadcast_to(each.min(axis=1), shape).copy()
        high = np.broadcast_to(each.max(axis=1), shape).copy()
        while np.any(low < high):
            middle = np.floor(0.5 * (low + high))
            below = self.law.cdf(middle[..., None])
            enough = np.einsum("nk,nqk->nq", self.weights, below) >= probabilities
            high = np.where(enough, middle, high)
            low = np.where(enough, low, np.minimum(middle + 1.0, high))
        return low
