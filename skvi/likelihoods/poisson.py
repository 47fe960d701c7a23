"""Poisson counts with a log link."""

import numpy as np
from scipy import special

from skvi.likelihoods.base import Expectations, Likelihood


class Poisson(Likelihood):
    """``y ~ Poisson(exp(eta))``: log p = y eta - exp(eta) - log y!.

    ``E exp(eta) = exp(mean + variance / 2)``, so that all expectations are known.
    """

    def log_density(self, y, eta, log_dispersion=0.0):
        return y * eta - np.exp(eta) - special.gammaln(y + 1.0)

    def derivatives(self, y, eta, log_dispersion=0.0):
        rate = np.exp(eta)
        return y - rate, -rate

    def expect(self, y, mean, variance, dispersion=None):
        rate = np.exp(mean + 0.5 * variance)
        value = y * mean - rate - special.gammaln(y + 1.0)
        return Expectations(value, y - rate, rate)

    def centre(self, y, weight, offset):
        return log_mean_rate(y, weight, offset)

    def start(self, y, offset, centre, dispersion):
        return working_counts(y, offset, centre)


def log_mean_rate(y, weight, offset):
    """Log of counts over exposure; half a count more, so that there is one."""
    most = np.max(offset)  # exposures may be beyond all floats
    return np.log(weight @ y + 0.5) - np.log(weight @ np.exp(offset - most)) - most


def working_counts(y, offset, centre):
    """(precision, mean): log counts, drawn towards the mean rate where they are few.

    Counts are what a Newton step from a common rate cannot start from: one that is a
    hundred times the mean would be sent to exp(100).
    """
    rate = np.exp(np.clip(offset + centre, -700.0, 700.0))
    few = np.minimum(rate, 1.0)
    return y + few, np.log(y + few)
