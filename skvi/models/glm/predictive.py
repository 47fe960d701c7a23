"""Laws of a new response: the likelihood averaged over the posterior."""

import numpy as np
from scipy import special

from skvi.distributions import LocationScaleMixture
from skvi.inference.quadrature import gaussian_rule, rule_of

MOST = 700.0  # of logs of rates
WIDEST_RULE = 8  # the finest of gaussian_rule that is used
CELLS = 1 << 20
N_NEWTON = 60
PEAK_RULE = 2  # Gauss-Hermite nodes about the peak of an integrand


def law_nodes(dispersion):
    """(log dispersions, weights) that stand for the law of one, (mean, variance)."""
    if dispersion is None or dispersion[1] == 0.0:
        return np.full(1, 0.0 if dispersion is None else dispersion[0]), np.ones(1)
    a, b = dispersion
    nodes, weights = gaussian_rule(int(rule_of(np.sqrt(b), np.pi)))
    return a + np.sqrt(b) * nodes, weights


def real_law(likelihood, mean, variance, dispersion):
    """The law of ``eta + noise``, a mixture: over dispersions, of Gaussians.

    Of Student-t noise also over eta, by as many nodes as the widest row needs.
    """
    log_phis, weights = law_nodes(dispersion)
    phi = np.exp(log_phis)
    if likelihood.concave:
        scale = np.sqrt(variance[:, None] + phi)
        df = np.full(len(phi), np.inf)
        return LocationScaleMixture(
            weights, df, np.broadcast_to(mean[:, None], scale.shape), scale
        )
    width = likelihood.smoothness(log_phis.min())
    rule = rule_of(np.sqrt(variance.max(initial=0.0)), width)
    nodes, node_weights = gaussian_rule(int(min(rule, WIDEST_RULE)))
    loc = mean[:, None] + np.sqrt(variance)[:, None] * nodes
    loc = np.repeat(loc, len(phi), axis=1)
    scale = np.broadcast_to(np.tile(np.sqrt(phi), len(nodes)), loc.shape)
    weights = np.multiply.outer(node_weights, weights).ravel()
    return LocationScaleMixture(
        weights, np.full(len(weights), likelihood.dof), loc, scale
    )


class CountLaw:
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
            total += self.weights @ np.exp(self.log_dispersions) * (spread + mean**2)
        return total

    def log_density(self, y):
        """Log probabilities of counts (n,)."""
        y = np.asarray(y, dtype=np.float64)
        each = [self._log_density(y, log_phi) for log_phi in self.log_dispersions]
        return special.logsumexp(each, b=self.weights[:, None], axis=0)

    def _log_density(self, y, log_phi):
        """The integral over the log rate, by nodes about where its integrand peaks."""
        m, v = self.log_mean, np.maximum(self.log_variance, 1e-300)
        eta = np.minimum(m, MOST)
        for _ in range(N_NEWTON):
            slope, curvature = self.likelihood.derivatives(y, eta, log_phi)
            # Newton's method, on a concave function; steps kept from overshooting.
            step = (slope - (eta - m) / v) / (1.0 / v - curvature)
            step = np.clip(step, -2.0, 2.0)
            eta = eta + step
            if np.all(np.abs(step) < 1e-8):
                break
        _, curvature = self.likelihood.derivatives(y, eta, log_phi)
        sd = 1.0 / np.sqrt(1.0 / v - curvature)
        nodes, weights = gaussian_rule(PEAK_RULE)
        at = eta[:, None] + sd[:, None] * nodes
        terms = self.likelihood.log_density(y[:, None], np.minimum(at, MOST), log_phi)
        terms = terms - 0.5 * (at - m[:, None]) ** 2 / v[:, None] + 0.5 * nodes**2
        total = special.logsumexp(terms, b=weights, axis=1)
        return total + np.log(sd) - 0.5 * np.log(v)

    def cdf(self, y):
        """P(count <= y) of each row."""
        y = np.floor(np.broadcast_to(y, self.log_mean.shape))
        out = np.zeros(len(y))
        # In the log of its mean r a Poisson law is as wide as 1 / sqrt(r).
        width = np.exp(-np.clip(self.log_mean, -MOST, MOST))
        if self.likelihood.dispersed:
            width += np.exp(self.log_dispersions.min())
        width = np.pi / (1.0 + 1.0 / np.sqrt(width))
        rules = rule_of(np.sqrt(self.log_variance), width)
        rules = np.minimum(rules, WIDEST_RULE)
        for k in np.unique(rules):
            nodes, weights = gaussian_rule(int(k))
            members = np.flatnonzero(rules == k)
            step = max(1, CELLS // len(nodes))
            for start in range(0, len(members), step):
                rows = members[start : start + step]
                sd = np.sqrt(self.log_variance[rows, None])
                rates = self.log_mean[rows, None] + sd * nodes
                rates = np.exp(np.minimum(rates, MOST))
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

    def quantile(self, probabilities):
        """The least counts whose probability to be reached is as asked, (n, q)."""
        probabilities = np.atleast_1d(probabilities)
        parts = [self._quantile(probability) for probability in probabilities]
        return np.stack(parts, axis=1)

    def _quantile(self, probability):
        # From where a log-normal of the same mean and variance has it, outwards.
        mean, variance = self.mean, self.variance()
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            s2 = np.nan_to_num(np.log1p(variance / mean**2), nan=1.0, posinf=50.0)
            guess = np.log(mean) - 0.5 * s2 + np.sqrt(s2) * special.ndtri(probability)
        guess = np.floor(np.exp(np.clip(guess, -MOST, 40.0)))
        width = 1.0 + np.floor(0.1 * np.minimum(np.sqrt(variance), guess + 1.0))
        low, high = np.maximum(guess - width, -1.0), guess + width
        # ``low`` is not enough, ``high`` is.
        for _ in range(200):
            enough = self.cdf(low) >= probability
            moving = enough & (low >= 0.0)
            if not moving.any():
                break
            high = np.where(moving, low, high)
            low = np.where(moving, np.maximum(low - width, -1.0), low)
            width = np.where(moving, 2.0 * width, width)
        for _ in range(200):
            short = self.cdf(high) < probability
            if not short.any() or high.max() > 1e18:
                break
            low = np.where(short, high, low)
            high = np.where(short, high + width, high)
            width = np.where(short, 2.0 * width, width)
        while np.any(high - low > np.maximum(1.0, 1e-12 * high)):
            middle = np.floor(0.5 * (low + high))
            enough = self.cdf(middle) >= probability
            high = np.where(enough, middle, high)
            low = np.where(enough, low, middle)
        return high
