"""Log-normal: the logarithm is Gaussian."""

import numpy as np
from scipy import stats

from skvi.distributions.base import ExponentialFamily
from skvi.distributions.gaussian import LOG_2PI


class LogNormal(ExponentialFamily):
    """``log x ~ N(log_mean, log_variance)``, for one positive number.

    Parameters
    ----------
    log_mean, log_variance : float
    """

    def __init__(self, log_mean, log_variance):
        self.log_mean = float(log_mean)
        self.log_variance = float(log_variance)

    @property
    def mean(self):
        return np.exp(self.log_mean + 0.5 * self.log_variance)

    def variance(self):
        return self.mean**2 * np.expm1(self.log_variance)

    def covariance(self):
        return self.variance()

    def expect(self):
        square = self.log_mean**2 + self.log_variance
        return {"log": self.log_mean, "log_square": square}

    @property
    def mean_inverse(self):
        """``E[1 / x]``."""
        return np.exp(-self.log_mean + 0.5 * self.log_variance)

    def natural(self):
        precision = 1.0 / self.log_variance
        return {"log": precision * self.log_mean, "log_square": -0.5 * precision}

    @staticmethod
    def log_normalizer(natural):
        precision = -2.0 * natural["log_square"]
        square = natural["log"] ** 2 / precision
        return 0.5 * (square - np.log(precision) + LOG_2PI)

    @staticmethod
    def statistics(z):
        log = np.log(z)
        return {"log": log, "log_square": log**2}

    def entropy(self):
        return self.log_mean + 0.5 * (1.0 + LOG_2PI + np.log(self.log_variance))

    def sample(self, n, rng):
        noise = rng.standard_normal(n)
        return np.exp(self.log_mean + np.sqrt(self.log_variance) * noise)

    def log_density(self, z):
        sd = np.sqrt(self.log_variance)
        return stats.norm.logpdf(np.log(z), self.log_mean, sd) - np.log(z)

    def distance(self, other):
        return abs(self.log_mean - other.log_mean) / np.sqrt(self.log_variance)
