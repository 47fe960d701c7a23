"""Inverse gamma: the inverse is Gamma."""

import numpy as np
from scipy import special, stats

from skvi.distributions.base import Distribution


class InverseGamma(Distribution):
    """``1 / x ~ Gamma(shape, rate)`` for one positive number: a prior of dispersions.

    Parameters
    ----------
    shape, rate : float
    """

    def __init__(self, shape, rate):
        self.shape = float(shape)
        self.rate = float(rate)

    def expect(self):
        return {"log": np.log(self.rate) - special.psi(self.shape)}

    @property
    def mean_inverse(self):
        return self.shape / self.rate

    @property
    def mean(self):
        """Infinite for shape <= 1."""
        return self.rate / (self.shape - 1.0) if self.shape > 1.0 else np.inf

    def variance(self):
        if self.shape <= 2.0:
            return np.inf
        return self.mean**2 / (self.shape - 2.0)

    def covariance(self):
        return self.variance()

    def entropy(self):
        a = self.shape
        total = a + np.log(self.rate) + special.gammaln(a)
        return total - (1.0 + a) * special.psi(a)

    def expected_log_density(self, other):
        """``E_other[log self]`` for another distribution of the same variable."""
        a = self.shape
        constant = a * np.log(self.rate) - special.gammaln(a)
        energy = (a + 1.0) * other.expect()["log"] + self.rate * other.mean_inverse
        return constant - energy

    def log_site(self, log_mean, log_variance):
        """Gradient and curvature of the expected log density of log x.

        Mean first derivative and minus the mean second derivative under ``log x ~
        N(log_mean, log_variance)``.
        """
        pull = self.rate * np.exp(-log_mean + 0.5 * log_variance)
        return pull - self.shape, pull

    def sample(self, n, rng):
        return self.rate / rng.standard_gamma(self.shape, n)

    def log_density(self, z):
        return stats.invgamma.logpdf(z, self.shape, scale=self.rate)

    def distance(self, other):
        spread = np.sqrt(special.polygamma(1, self.shape))
        return abs(self.expect()["log"] - other.expect()["log"]) / spread
