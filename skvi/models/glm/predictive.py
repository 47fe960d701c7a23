"""Laws of a new response: the likelihood averaged over the posterior."""

from abc import ABC, abstractmethod

import numpy as np
from scipy import special

from skvi.distributions import Gamma, LocationScaleMixture
from skvi.inference.quadrature import (
    gamma_nodes,
    gaussian_rule,
    groups_of_rules,
    rule_of,
)
from skvi.likelihoods import Binomial

MOST = 700.0  # of logs of rates
WIDEST_RULE = 8  # the finest of gaussian_rule that is used
N_NEWTON = 100
LONGEST = 2.0  # of a Newton step towards a peak
NARROW = 0.3  # sds of a peak, in prior sds, below which it is a world of its own
LARGEST_COUNT = 1e18


def law_nodes(dispersion):
    """(log dispersions, weights) that stand for the law of one, (mean, variance)."""
    if dispersion is None or dispersion[1] == 0.0:
        return np.full(1, 0.0 if dispersion is None else dispersion[0]), np.ones(1)
    a, b = dispersion
    nodes, weights = gaussian_rule(int(rule_of(np.sqrt(b), np.pi)))
    return a + np.sqrt(b) * nodes, weights


def gaussian_law(mean, variance, dispersion):
    """The law of ``eta + sqrt(phi) e`` with Gaussian eta and e: a mixture over phi."""
    log_phis, weights = law_nodes(dispersion)
    scale = np.sqrt(variance[:, None] + np.exp(log_phis))
    loc = np.broadcast_to(mean[:, None], scale.shape)
    return LocationScaleMixture(weights, np.full(len(weights), np.inf), loc, scale)


class StudentLaw(LocationScaleMixture):
    """The law of ``eta + sqrt(phi) t`` with Gaussian eta and Student-t t.

    Given u ~ Gamma(dof / 2, dof / 2), t is Gaussian with variance 1 / u: a mixture of
    Gaussians over u and phi.
    """

    def __init__(self, dof, mean, variance, dispersion):
        u, u_weights = gamma_nodes(Gamma(0.5 * dof, 0.5 * dof))
        log_phis, weights = law_nodes(dispersion)
        self.noise = (
            weights @ np.exp(log_phis) * (dof / (dof - 2.0) if dof > 2.0 else np.inf)
        )
        self.eta_variance = variance
        spread = np.multiply.outer(np.exp(log_phis), 1.0 / u).ravel()
        scale = np.sqrt(variance[:, None] + spread)
        super().__init__(
            np.multiply.outer(weights, u_weights).ravel(),
            np.full(len(spread), np.inf),
            np.broadcast_to(mean[:, None], scale.shape),
            scale,
        )

    def variance(self):
        return self.eta_variance + self.noise  # nodes do not reach the whole tail


class DiscreteLaw(ABC):
    """Laws of counts, one a row, that know their distribution function.

    A subclass has ``mean``, ``variance()`` and ``_cdf_of(members, y)``, the
    distribution function of some of the rows.
    """

    def cdf(self, y):
        """P(count <= y) of each row."""
        return self._cdf_of(np.arange(len(self.mean)), y)

    @abstractmethod
    def _cdf_of(self, members, y):
        """P(count <= y) of the rows ``members``."""

    def quantile(self, probabilities):
        """The least counts whose probability to be reached is as asked, (n, q).

        Infinite where it would be more than 1e18.
        """
        probabilities = np.atleast_1d(probabilities)
        parts = [self._quantile(probability) for probability in probabilities]
        return np.stack(parts, axis=1)

    def _quantile(self, probability):
        # From where a log-normal of the same mean and variance has it, outwards.
        mean, variance = self.mean, self.variance()
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            s2 = np.nan_to_num(np.log1p(variance / mean**2), nan=1.0, posinf=50.0)
            guess = np.log(mean) - 0.5 * s2 + np.sqrt(s2) * special.ndtri(probability)
        guess = np.nan_to_num(guess, nan=0.0)  # where the mean is beyond all floats
        guess = np.floor(np.exp(np.clip(guess, -MOST, 40.0)))
        width = 1.0 + np.floor(0.1 * np.minimum(np.sqrt(variance), guess + 1.0))
        low, high = np.maximum(guess - width, -1.0), guess + width
        # ``low`` is to be not enough, ``high`` enough.
        going = np.arange(len(low))
        step = width.copy()
        while True:
            going = going[low[going] >= 0.0]
            going = going[self._cdf_of(going, low[going]) >= probability]
            if not going.size:
                break
            high[going] = low[going]
            low[going] = np.maximum(low[going] - step[going], -1.0)
            step[going] *= 2.0
        going, step = np.arange(len(low)), width
        while True:
            going = going[self._cdf_of(going, high[going]) < probability]
            if not going.size:
                break
            low[going] = high[going]
            high[going] += step[going]
            step[going] *= 2.0
            high[going] = np.where(high[going] > LARGEST_COUNT, np.inf, high[going])
            going = going[np.isfinite(high[going])]
        going = np.flatnonzero(np.isfinite(high))
        while going.size:
            middle = np.floor(0.5 * (low[going] + high[going]))
            enough = self._cdf_of(going, middle) >= probability
            high[going] = np.where(enough, middle, high[going])
            low[going] = np.where(enough, low[going], middle)
            room = high[going] - low[going]
            going = going[room > np.maximum(1.0, 1e-12 * high[going])]
        return high


class CountLaw(DiscreteLaw):
    """For each of n rows, counts whose log mean is ``N(mean, variance)``.

    Parameters
    ----------
    likelihood : Poisson or NegativeBinomial
    log_mean, log_variance : arrays of shape (n,)
    dispersion : tuple (mean, variance) of its log, or None
        None: Poisson. Else negative binomial, averaged over the dispersion.
    """

    def __init__(self, likelihood, log_mean, log_variance, dispersion=None):
        self.likelihood = likelihood
        self.log_mean = log_mean
        self.log_variance = log_variance
        self.log_dispersions, self.weights = law_nodes(dispersion)

    @property
    def mean(self):
        return np.exp(np.minimum(self.log_mean + 0.5 * self.log_variance, MOST))

    def variance(self):
        mean = self.mean
        with np.errstate(over="ignore"):
            spread = mean**2 * np.expm1(self.log_variance)
            total = mean + spread
            if self.likelihood.dispersed:
                extra = self.weights @ np.exp(self.log_dispersions)
                total += extra * (spread + mean**2)
        return total

    def log_density(self, y):
        """Log probabilities of counts (n,)."""
        y = np.asarray(y, dtype=np.float64)
        each = [self._log_density(y, log_phi) for log_phi in self.log_dispersions]
        return special.logsumexp(each, b=self.weights[:, None], axis=0)

    def _log_density(self, y, log_phi):
        """The integral over the log rate, by nodes about where its integrand peaks."""
        m, v = self.log_mean, np.maximum(self.log_variance, 1e-300)
        eta, peak_sd = self._peak(y, m, v, log_phi)
        # One side of a broad peak may fall off as slowly as the prior.
        sd = np.where(peak_sd < NARROW * np.sqrt(v), peak_sd, np.sqrt(v))
        rules = np.maximum(rule_of(sd, 0.25 * np.pi), 2)
        out = np.empty(len(y))
        for rows, nodes, weights in groups_of_rules(rules):
            at = eta[rows, None] + sd[rows, None] * nodes
            terms = self._log_probability(y[rows, None], at, log_phi)
            gap = (at - m[rows, None]) ** 2 / v[rows, None]
            terms = terms - 0.5 * gap + 0.5 * nodes**2
            total = special.logsumexp(terms, b=weights, axis=1)
            out[rows] = total + np.log(sd[rows]) - 0.5 * np.log(v[rows])
        return out

    def _log_probability(self, y, eta, log_phi):
        return self.likelihood.log_density(y, np.minimum(eta, MOST), log_phi)

    def _peak(self, y, m, v, log_phi):
        """Where the integrand peaks, and the sd of the parabola there."""
        # A log-concave function: the better of its two parts' own peaks, then Newton.
        own = np.log(y + 0.5)
        starts = np.minimum(np.stack([m, own, 0.5 * (m + own)]), MOST)
        values = self._log_probability(y, starts, log_phi) - 0.5 * (starts - m) ** 2 / v
        eta = np.take_along_axis(starts, np.argmax(values, axis=0)[None], axis=0)[0]
        for _ in range(N_NEWTON):
            slope, curvature = self.likelihood.derivatives(y, eta, log_phi)
            step = (slope - (eta - m) / v) / (1.0 / v - curvature)
            step = np.clip(step, -LONGEST, LONGEST)
            eta = np.minimum(eta + step, MOST)
            if np.all(np.abs(step) < 1e-8):
                break
        _, curvature = self.likelihood.derivatives(y, eta, log_phi)
        return eta, 1.0 / np.sqrt(1.0 / v - curvature)

    def _cdf_of(self, members, y):
        y = np.floor(np.broadcast_to(y, members.shape))
        m, sd = self.log_mean[members], np.sqrt(self.log_variance[members])
        # In the log of its mean r a Poisson law is as wide as 1 / sqrt(r).
        width = np.exp(-np.clip(m, -MOST, MOST))
        if self.likelihood.dispersed:
            width += np.exp(self.log_dispersions.min())
        rules = rule_of(sd, np.pi / (1.0 + 1.0 / np.sqrt(width)))
        out = np.empty(len(y))
        for rows, nodes, weights in groups_of_rules(np.minimum(rules, WIDEST_RULE)):
            rates = np.exp(np.minimum(m[rows, None] + sd[rows, None] * nodes, MOST))
            out[rows] = self._cdf(y[rows, None], rates) @ weights
        return out

    def _cdf(self, y, rates):
        at_least_none, y = y >= 0.0, np.maximum(y, 0.0)
        if not self.likelihood.dispersed:
            return special.pdtr(y, rates) * at_least_none
        total = 0.0
        for log_phi, weight in zip(self.log_dispersions, self.weights):
            size = np.exp(-log_phi)
            total += weight * special.betainc(size, y + 1.0, size / (size + rates))
        return total * at_least_none


class BinomialLaw(DiscreteLaw):
    """For each of n rows, successes whose log odds are ``N(mean, variance)``.

    Parameters
    ----------
    trials, log_odds, log_odds_variance : arrays of shape (n,)
    """

    def __init__(self, trials, log_odds, log_odds_variance):
        self.trials = trials
        self.log_odds = log_odds
        self.sd = np.sqrt(log_odds_variance)
        # In the log odds a binomial law is as wide as 2 / sqrt(trials), or wider.
        rules = rule_of(self.sd, np.pi / (1.0 + 0.5 * np.sqrt(trials)))
        self.rules = np.minimum(rules, WIDEST_RULE)

    def _averaged(self, function, members, *others):
        """Mean of a function of the probability and of numbers by row."""
        out = np.empty(len(members))
        for rows, nodes, weights in groups_of_rules(self.rules[members]):
            at = members[rows]
            eta = self.log_odds[at, None] + self.sd[at, None] * nodes
            columns = [other[rows, None] for other in others]
            out[rows] = function(eta, self.trials[at, None], *columns) @ weights
        return out

    @property
    def mean(self):
        everyone = np.arange(len(self.trials))
        return self._averaged(lambda eta, n: n * special.expit(eta), everyone)

    def variance(self):
        def square(eta, n):
            p = special.expit(eta)
            return n * p * (1.0 - p) + (n * p) ** 2

        everyone = np.arange(len(self.trials))
        return np.maximum(self._averaged(square, everyone) - self.mean**2, 0.0)

    def log_density(self, y):
        """Log probabilities of (successes, trials), (n, 2)."""
        y = np.asarray(y, dtype=np.float64)
        out = np.empty(len(y))
        for rows, nodes, weights in groups_of_rules(self.rules):
            eta = self.log_odds[rows, None] + self.sd[rows, None] * nodes
            each = Binomial().log_density(y[rows, None, :], eta)
            out[rows] = special.logsumexp(each, axis=1, b=weights)
        return out

    def _cdf_of(self, members, y):
        y = np.floor(np.broadcast_to(y, members.shape)).astype(np.float64)

        def below(eta, n, count):
            inside = np.clip(count, 0.0, n)
            p = special.bdtr(inside, n.astype(np.int64), special.expit(eta))
            return np.where(count >= n, 1.0, p * (count >= 0.0))

        return self._averaged(below, members, y)


class AveragedLaw(DiscreteLaw):
    """A mixture of laws of the same rows, with the same weights in each row."""

    def __init__(self, weights, laws):
        self.weights = weights
        self.laws = laws

    @property
    def mean(self):
        return self.weights @ np.stack([law.mean for law in self.laws])

    def variance(self):
        squares = [law.variance() + law.mean**2 for law in self.laws]
        return np.maximum(self.weights @ np.stack(squares) - self.mean**2, 0.0)

    def log_density(self, y):
        each = [law.log_density(y) for law in self.laws]
        return special.logsumexp(each, b=self.weights[:, None], axis=0)

    def _cdf_of(self, members, y):
        return self.weights @ np.stack([law._cdf_of(members, y) for law in self.laws])
