"""The law of probabilities whose Dirichlet has absorbed counts that are not known."""

import numpy as np
from scipy import stats

from skvi.distributions.base import Distribution
from skvi.distributions.dirichlet import Dirichlet

FEW = 30.0  # a total below which moments are summed over the law of the total
MOST_TRIALS = 1000.0  # of that law; it is then as good as Poisson


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
        return self._moments()[0]

    def variance(self):
        return self._moments()[1]

    def _moments(self):
        a = self.concentration
        total = a.sum(axis=-1, keepdims=True)
        v = self.variance_counts
        if self.known_total:
            mean = a / total
            return mean, (mean * (1.0 - mean) + v / total) / (total + 1.0)
        spread = v.sum(axis=-1, keepdims=True)
        # E[x / y] for x a part of y: x and y vary together by the variance of x.
        mean = np.maximum(a / total * (1.0 + spread / total**2) - v / total**2, 0.0)
        mean /= mean.sum(axis=-1, keepdims=True)
        # of (prior + n) / total, by the derivatives in each count, times total^2
        between = v * (1.0 - 2.0 * mean) + mean**2 * spread
        scatter = mean * (1.0 - mean)
        variance = (scatter + between / total) / (total + 1.0)
        variance = np.clip(variance, 0.0, scatter)
        few = total[..., 0] < FEW
        if np.any(few):
            prior = np.broadcast_to(self.prior, mean.shape)
            counts = np.broadcast_to(self.mean_counts, mean.shape)
            for i in filter(few.__getitem__, np.ndindex(few.shape)):
                mean[i], variance[i] = _of_few(prior[i], counts[i], v[i])
        return mean, variance

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


def _of_few(prior, mean, variance):
    """(mean, variance) where the total is so small that its whole law matters.

    The total is taken for a Binomial of its mean and variance, and each count, given
    the total, for the linear function of it that has the right covariance.
    """
    M, V = mean.sum(), variance.sum()
    trials = 0.0
    if M > 1e-12:
        trials = np.ceil(M**2 / max(M - V, M**2 / MOST_TRIALS))
    n = np.arange(trials + 1.0)
    p = stats.binom.pmf(n, trials, M / trials) if trials else np.ones(1)
    part = variance / V if V > 1e-12 else np.zeros_like(variance)
    keep = p > 1e-12
    n, p = n[keep, None], p[keep, None] / p[keep].sum()
    counts = np.maximum(mean + part * (n - M), 0.0)
    counts *= np.divide(n, counts.sum(axis=1, keepdims=True) + (n == 0.0))
    total = prior.sum() + n
    given = (prior + counts) / total
    scatter = given * (1.0 - given) + variance * (1.0 - part) / total
    within = scatter / (total + 1.0)
    out = np.sum(p * given, axis=0)
    spread = np.sum(p * within, axis=0) + np.sum(p * (given - out) ** 2, axis=0)
    return out, np.clip(spread, 0.0, np.maximum(out * (1.0 - out), 0.0))


def beta_interval(mean, variance, confidence_level):
    """Central intervals of Beta laws by their moments, shape (..., 2)."""
    known = (variance <= 0.0) | (mean <= 0.0) | (mean >= 1.0)
    scatter = np.where(known, 2.0, mean * (1.0 - mean))
    precision = np.clip(scatter / np.where(known, 1.0, variance) - 1.0, 1e-6, 1e14)
    a, b = np.where(known, 1.0, mean * precision), (1.0 - mean) * precision
    b = np.where(known, 1.0, b)
    tail = 0.5 * (1.0 - confidence_level)
    ends = [stats.beta.ppf(q, a, b) for q in (tail, 1.0 - tail)]
    return np.stack([np.where(known, mean, end) for end in ends], axis=-1)
