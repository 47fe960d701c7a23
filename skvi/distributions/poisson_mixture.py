"""Finite mixtures of Poisson laws with log-normal rates: predictive laws of counts."""

from functools import cached_property

import numpy as np
from scipy import special

N_NODES = 21
MOST = 80.0  # of logs of rates


class PoissonMixture:
    """For each of n rows, ``mean_g Poisson(exp(N(loc[:, g], variance[:, g])))``.

    Parameters
    ----------
    loc, variance : arrays of shape (n, G)
        Means and variances of the log rates of equally weighted components.
    """

    def __init__(self, loc, variance):
        self.loc = loc
        self.spread = variance

    @property
    def mean(self):
        return np.exp(np.minimum(self.loc + 0.5 * self.spread, MOST)).mean(axis=1)

    def variance(self):
        square = np.exp(np.minimum(2.0 * self.loc + 2.0 * self.spread, 2.0 * MOST))
        mean = self.mean
        return mean + np.maximum(square.mean(axis=1) - mean**2, 0.0)

    @cached_property
    def _rates(self):
        """Rates (n, m) and weights (m,) that stand for the law's own."""
        x, w = np.polynomial.hermite_e.hermegauss(N_NODES)
        log_rates = self.loc[..., None] + np.sqrt(self.spread)[..., None] * x
        n, G = self.loc.shape
        rates = np.exp(np.minimum(log_rates, MOST)).reshape(n, -1)
        return rates, np.tile(w / w.sum(), G) / G

    def log_density(self, y):
        """Log probabilities of counts (n,)."""
        rates, weights = self._rates
        y = np.asarray(y, dtype=np.float64)[:, None]
        terms = special.xlogy(y, rates) - rates - special.gammaln(y + 1.0)
        return special.logsumexp(terms, b=weights, axis=1)

    def cdf(self, y):
        rates, weights = self._rates
        return special.pdtr(np.floor(y)[:, None], rates) @ weights

    def quantile(self, probabilities):
        """The least counts whose probability to be reached is as asked, (n, q)."""
        probabilities = np.atleast_1d(probabilities)
        out = np.empty((len(self.loc), len(probabilities)))
        for k, probability in enumerate(probabilities):
            out[:, k] = self._quantile(probability)
        return out

    def _quantile(self, probability):
        low = np.full(len(self.loc), -1.0)  # not enough
        high = np.ones(len(self.loc))
        short = self.cdf(high) < probability
        while np.any(short) and high.max() < 1e18:
            low = np.where(short, high, low)
            high = np.where(short, 2.0 * high + 1.0, high)
            short = self.cdf(high) < probability
        while np.any(high - low > np.maximum(1.0, 1e-12 * high)):
            middle = np.floor(0.5 * (low + high))
            enough = self.cdf(middle) >= probability
            high = np.where(enough, middle, high)
            low = np.where(enough, low, middle)
        return high

    def sample(self, rng):
        """One draw of each row and component, (n, G)."""
        noise = rng.standard_normal(self.loc.shape)
        log_rates = self.loc + np.sqrt(self.spread) * noise
        return rng.poisson(np.exp(np.minimum(log_rates, 43.0))).astype(np.float64)
