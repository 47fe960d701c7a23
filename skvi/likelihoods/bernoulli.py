"""Bernoulli: y is 0 or 1."""

import numpy as np
from scipy import special

from skvi.inference.quadrature import groups_of_rules, rule_of
from skvi.likelihoods.base import Expectations, Likelihood
from skvi.likelihoods.logistic import softplus_moments

LOG_ROOT_2PI = 0.5 * np.log(2.0 * np.pi)


class BernoulliLogit(Likelihood):
    """``P(y = 1) = 1 / (1 + exp(-eta))``: log p = y eta - softplus(eta)."""

    width = np.pi

    def log_density(self, y, eta, log_dispersion=0.0):
        return special.log_expit(np.where(y > 0.5, eta, -eta))

    def derivatives(self, y, eta, log_dispersion=0.0):
        p, q = special.expit(eta), special.expit(-eta)
        return np.where(y > 0.5, q, -p), -p * q

    def expect(self, y, mean, variance, dispersion=None):
        # By the default's quadrature, whose three parts share an exponential.
        total, slope, curvature = softplus_moments(mean, variance)
        return Expectations(y * mean - total, y - slope, curvature)

    def centre(self, y, weight, offset):
        return special.logit(_share(y, weight))

    def log_probability(self, mean, variance):
        """``log E p(y = 1)``, accurate in the tails, too."""
        return _log_mean(special.log_expit, self.width, mean, variance)


class BernoulliProbit(Likelihood):
    """``P(y = 1) = Phi(eta)``."""

    width = 2.8  # where Phi has zeros

    def log_density(self, y, eta, log_dispersion=0.0):
        return special.log_ndtr((2.0 * y - 1.0) * eta)

    def derivatives(self, y, eta, log_dispersion=0.0):
        sign = 2.0 * y - 1.0
        x = sign * eta
        hazard = np.exp(-0.5 * x**2 - LOG_ROOT_2PI - special.log_ndtr(x))
        far = x < -100.0  # x + hazard loses its digits there
        inverse = 1.0 / np.where(far, x, -1.0)
        rest = np.where(far, 2.0 * inverse**3 - inverse, x + hazard)
        return sign * hazard, -hazard * rest

    def centre(self, y, weight, offset):
        return special.ndtri(_share(y, weight))

    def log_probability(self, mean, variance):
        """``log E p(y = 1)``."""
        return special.log_ndtr(mean / np.sqrt(1.0 + variance))


def _share(y, weight):
    """Of rows with y = 1, kept from 0 and 1."""
    return (weight @ y + 0.5) / (weight.sum() + 1.0)


def _log_mean(log_function, width, mean, variance):
    sd = np.sqrt(variance)
    out = np.empty(len(mean))
    for rows, nodes, weights in groups_of_rules(rule_of(sd, width)):
        cells = log_function(mean[rows, None] + sd[rows, None] * nodes)
        out[rows] = special.logsumexp(cells, axis=1, b=weights)
    return np.minimum(out, 0.0)
