"""The law of probabilities whose Dirichlet has absorbed counts that are not known."""

import numpy as np
from scipy import stats

from skvi.distributions.base import Distribution
from skvi.distributions.dirichlet import Dirichlet


class DirichletOfCounts(Distribution):
    """``p | n ~ Dirichlet(prior + n)`` for random counts n.

    Where their total is known, mean and variance are exact; where counts are
    independent, they are right to second order in 1 / (sum of prior and counts). Draws
    take counts of these means and variances from Gamma laws. Density and entropy are
    those of the Dirichlet of the same mean and the same total variance.

    Parameters
    ----------
    prior : array of shape (..., K)
    mean_counts, variance_counts : arrays of shape (..., K)
        The variance is at most the mean.
    known_total : bool, default=False
        Whether the sum of the counts over the last axis is known, as for the tokens of
        a document; otherwise counts are independent, as those of words in a topic.
    """

    def __init__(self, prior, mean_counts, variance_counts, known_total=False):
        self.known_total = known_total
        self.prior = np.asarray(prior, dtype=np.float64)
        self.mean_counts = np.asarray(mean_counts, dtype=np.float64)
        self.variance_counts = np.maximum(variance_counts, 0.0)

    @property
    def concentration(self):
        """Of the Dirichlet of expected counts."""
        return self.prior + self.mean_counts

    @property
    def mean(self):
        a = self.concentration
        total = a.sum(axis=-1, keepdims=True)
        if self.known_total:
            return a / total
        v = self.variance_counts
        spread = v.sum(axis=-1, keepdims=True)
        # E[x / y] for x a part of y: x and y vary together by the variance of x.
        mean = np.maximum(a / total * (1.0 + spread / total**2) - v / total**2, 0.0)
        return mean / mean.sum(axis=-1, keepdims=True)

    def variance(self):
        mean = self.mean
        total = self.concentration.sum(axis=-1, keepdims=True)
        between = v = self.variance_counts  # of (prior + n) / total, times total^2
        if not self.known_total:
            spread = v.sum(axis=-1, keepdims=True)
            between = v * (1.0 - 2.0 * mean) + mean**2 * spread
        return (mean * (1.0 - mean) + between / total) / (total + 1.0)

    def matched(self):
        """The Dirichlet of the same mean and the same sum of variances."""
        mean = self.mean
        scatter = np.sum(mean * (1.0 - mean), axis=-1, keepdims=True)
        variance = np.sum(self.variance(), axis=-1, keepdims=True)
        total = self.concentration.sum(axis=-1, keepdims=True)
        precision = np.divide(scatter, variance, out=total + 1.0, where=variance > 0.0)
        return Dirichlet(mean * np.maximum(precision - 1.0, np.finfo(float).tiny))

    def interval(self, confidence_level=0.95):
        """Central interval of each probability, by the Beta of its moments."""
        return beta_interval(self.mean, self.variance(), confidence_level)

    def expect(self):
        return self.matched().expect()

    def entropy(self):
        return self.matched().entropy()

    def log_density(self, z):
        return self.matched().log_density(z)

    def distance(self, other):
        sd = np.sqrt(np.maximum(self.variance(), np.finfo(np.float64).tiny))
        return float(np.max(np.abs(self.mean - other.mean) / sd, initial=0.0))

    def sample(self, n, rng):
        mean, variance = self.mean_counts, self.variance_counts
        sure = variance <= 1e-12 * mean
        shape = np.where(sure, 1.0, mean**2 / np.where(sure, 1.0, variance))
        draws = rng.standard_gamma(shape, size=(n, *mean.shape)) * (mean / shape)
        counts = np.where(sure, mean, draws)
        shape = self.prior + counts
        log = np.log(rng.standard_gamma(shape + 1.0))
        log -= rng.standard_exponential(log.shape) / shape
        log -= log.max(axis=-1, keepdims=True)
        p = np.exp(log)
        return p / p.sum(axis=-1, keepdims=True)


def beta_interval(mean, variance, confidence_level):
    """Central intervals of Beta laws by their moments, shape (..., 2)."""
    precision = np.divide(
        mean * (1.0 - mean),
        variance,
        out=np.full_like(mean, np.inf),
        where=variance > 0,
    )
    a, b = mean * (precision - 1.0), (1.0 - mean) * (precision - 1.0)
    known = ~np.isfinite(precision) | (mean <= 0.0) | (mean >= 1.0)
    a, b = np.where(known, 1.0, a), np.where(known, 1.0, b)
    tail = 0.5 * (1.0 - confidence_level)
    ends = [stats.beta.ppf(q, a, b) for q in (tail, 1.0 - tail)]
    return np.stack([np.where(known, mean, end) for end in ends], axis=-1)
