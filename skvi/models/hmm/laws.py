"""Laws of a step in each state: of known parameters, or with these integrated out.

Those of numbers have ``column(d, weights)``: the law of column d under weights (n, K)
of the states, with ``mean``, ``variance()`` and ``quantile(p)``.
"""

from abc import ABC, abstractmethod

import numpy as np
from scipy import special, stats

from skvi.distributions import LocationScaleMixture, StudentMixture

LARGE_COUNT = 1e9  # on average, beyond which counts are taken as continuous
LARGEST_RATE = 1e15  # beyond, counts are drawn from a normal law


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
    def log_mass(self, x, k):
        """Of counts (n, D) in state k, but for ``base``."""

    def base(self, x):
        """What is the same in all states, (n, D)."""
        return 0.0

    @abstractmethod
    def frozen(self, d):
        """The laws of column d, with ``mean()``, ``var()``, ``ppf(p)``, ``cdf(x)``."""

    def log_densities(self, X):
        observed = ~np.isnan(X)
        x = np.where(observed, X, 0.0)
        base = self.base(x)
        out = np.empty((len(X), self.n_states))
        for k in range(self.n_states):
            each = self.log_mass(x, k) + base
            out[:, k] = np.where(observed, each, 0.0).sum(axis=1)
        return out

    def column(self, d, weights):
        return CountMixture(weights, self.frozen(d))


class NegativeBinomialLaw(CountLaw):
    """Poisson steps whose rates have a Gamma law.

    Parameters
    ----------
    a, b : arrays of shape (K, D)
        Shape and rate of the Gamma law.
    """

    def __init__(self, a, b):
        self.a, self.b, self.n_states = a, b, len(a)
        self.const = a * (np.log(b) - np.log1p(b)) - special.gammaln(a)

    def base(self, x):
        return -special.gammaln(x + 1.0)

    def log_mass(self, x, k):
        out = special.gammaln(self.a[k] + x) + self.const[k]
        return out - x * np.log1p(self.b[k])

    def frozen(self, d):
        a, b = self.a[:, d], self.b[:, d]
        if np.max(a / b) > LARGE_COUNT:
            # So far up the gaps between counts are nothing: the same mean and variance.
            return stats.gamma(a / (b + 1.0), scale=(b + 1.0) / b)
        return stats.nbinom(a, b / (1.0 + b))

    def sample(self, states, rng):
        return _poisson(rng.standard_gamma(self.a[states]) / self.b[states], rng)


class PoissonLaw(CountLaw):
    """Poisson steps of known rates (K, D)."""

    def __init__(self, rates):
        self.rates, self.n_states = rates, len(rates)

    def base(self, x):
        return -special.gammaln(x + 1.0)

    def log_mass(self, x, k):
        return special.xlogy(x, self.rates[k]) - self.rates[k]

    def frozen(self, d):
        return stats.poisson(self.rates[:, d])

    def sample(self, states, rng):
        return _poisson(self.rates[states], rng)


def _poisson(rates, rng):
    """Draws; where rates are beyond what fits an integer, those of the normal law."""
    draws = rng.poisson(np.minimum(rates, LARGEST_RATE)).astype(np.float64)
    normal = rates + np.sqrt(rates) * rng.standard_normal(rates.shape)
    return np.where(rates < LARGEST_RATE, draws, normal)


class BernoulliLaw(CountLaw):
    """Ones with probabilities (K, D)."""

    def __init__(self, probabilities):
        self.p, self.n_states = probabilities, len(probabilities)

    def log_mass(self, x, k):
        return special.xlogy(x, self.p[k]) + special.xlog1py(1.0 - x, -self.p[k])

    def frozen(self, d):
        return stats.bernoulli(self.p[:, d])

    def sample(self, states, rng):
        return (rng.random((len(states), self.p.shape[1])) < self.p[states]).astype(
            float
        )


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
        each = np.floor(self.law.ppf(probabilities[:, None]))
        shape = len(self.weights), len(probabilities)
        low = np.broadcast_to(each.min(axis=1), shape).copy()
        high = np.broadcast_to(each.max(axis=1), shape).copy()
        while np.any(low < high):
            middle = np.floor(0.5 * low + 0.5 * high)
            below = self.law.cdf(middle[..., None])
            enough = np.einsum("nk,nqk->nq", self.weights, below) >= probabilities
            high_before, high = high, np.where(enough, middle, high)
            above = middle + np.maximum(1.0, np.spacing(middle))
            # Neighbouring numbers have no middle: the upper one is enough.
            low = np.where(
                enough & (middle < high_before), low, np.minimum(above, high)
            )
        return low
