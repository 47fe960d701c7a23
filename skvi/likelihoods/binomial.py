"""Binomial: successes out of a number of trials."""

import numpy as np
from scipy import special

from skvi.likelihoods.base import Expectations, Likelihood
from skvi.likelihoods.logistic import softplus_moments


class Binomial(Likelihood):
    """``y ~ Binomial(trials, 1 / (1 + exp(-eta)))``.

    Responses are rows (successes, trials): log p = y eta - trials softplus(eta) + log
    of the binomial coefficient.
    """

    width = np.pi

    def log_density(self, y, eta, log_dispersion=0.0):
        success, trials = np.moveaxis(np.asarray(y, dtype=np.float64), -1, 0)
        total = success * special.log_expit(eta)
        total = total + (trials - success) * special.log_expit(-eta)
        return total + log_choose(trials, success)

    def derivatives(self, y, eta, log_dispersion=0.0):
        success, trials = np.moveaxis(np.asarray(y, dtype=np.float64), -1, 0)
        p, q = special.expit(eta), special.expit(-eta)
        return success * q - (trials - success) * p, -trials * p * q

    def expect(self, y, mean, variance, dispersion=None):
        success, trials = y.T
        total, slope, curvature = softplus_moments(mean, variance)
        value = success * mean - trials * total + log_choose(trials, success)
        return Expectations(value, success - trials * slope, trials * curvature)

    def centre(self, y, weight, offset):
        success, trials = weight @ y
        return special.logit((success + 0.5) / (trials + 1.0))

    def start(self, y, offset, centre, dispersion):
        # Empirical logits, drawn towards the common one where trials are few.
        success, trials = y.T
        p = special.expit(np.clip(offset + centre, -30.0, 30.0))
        share = (success + p) / (trials + 1.0)
        share = np.clip(share, 1e-12, 1.0 - 1e-12)
        return (trials + 1e-9) * share * (1.0 - share), special.logit(share)


def log_choose(trials, success):
    """``log`` of the binomial coefficient."""
    return -special.betaln(trials - success + 1.0, success + 1.0) - np.log1p(trials)
