r"""Negative binomial counts: Poisson rates that differ by more than eta says.

With mean ``mu = exp(eta)`` and variance ``mu + phi mu^2``; size r = 1 / phi. In terms
of kappa = log r and delta = eta - kappa,

.. math::

    \log p = \log\Gamma(y + r) - \log\Gamma(r) - \log y! + y\,\delta
        - (y + r)\,\mathrm{softplus}(\delta).

For independent Gaussian eta and kappa delta is Gaussian, and stays so, with another
mean, when it is tilted by r = exp(kappa): expectations of softplus and its derivatives
under two Gaussians are all that couples the two. The rest is a function of kappa alone.
"""

import numpy as np
from scipy import special

from skvi.inference.quadrature import gaussian_rule, rule_of
from skvi.likelihoods.base import Expectations, Likelihood
from skvi.likelihoods.logistic import softplus_cells, softplus_moments
from skvi.likelihoods.poisson import log_mean_rate, working_counts

GAMMA_WIDTH = 0.5 * np.pi  # of functions of log r: Gamma has poles at r <= 0


class NegativeBinomial(Likelihood):
    """``y ~ NB(mean exp(eta), variance mu + dispersion mu^2)``."""

    dispersed = True

    def log_density(self, y, eta, log_dispersion=0.0):
        r = np.exp(-log_dispersion)
        delta = eta + log_dispersion
        total = _log_rising(y, r) - special.gammaln(y + 1.0) + y * delta
        return total - (y + r) * softplus_cells(delta)[0]

    def derivatives(self, y, eta, log_dispersion=0.0):
        r = np.exp(-log_dispersion)
        _, slope, curvature = softplus_cells(eta + log_dispersion)
        return y - (y + r) * slope, -(y + r) * curvature

    def dispersion_derivatives(self, y, eta, log_dispersion):
        r = np.exp(-log_dispersion)
        total, slope, curvature = softplus_cells(eta + log_dispersion)
        first, second = _gamma_derivatives(y, r)
        first = first - y - r * total + (y + r) * slope
        second = second - r * total + 2.0 * r * slope - (y + r) * curvature
        return -first, second

    def expect(self, y, mean, variance, dispersion=None):
        a, b = (0.0, 0.0) if dispersion is None else dispersion
        value, first, second = self._of_size_alone(y, a, b)
        r = np.exp(-a + 0.5 * b)
        delta = mean + a
        s1 = softplus_moments(delta, variance + b)
        s2 = s1 if b == 0.0 else softplus_moments(delta - b, variance + b)
        value = value + y * delta - y * s1[0] - r * s2[0]
        first = first - y - r * s2[0] + y * s1[1] + r * s2[1]
        second = second - r * (s2[0] - 2.0 * s2[1] + s2[2]) - y * s1[2]
        return Expectations(
            value,
            y - y * s1[1] - r * s2[1],
            y * s1[2] + r * s2[2],
            -first,
            -second,
        )

    @staticmethod
    def _of_size_alone(y, a, b):
        """Expectations of what depends on y and r only, once for each count."""
        seen, which = np.unique(y, return_inverse=True)
        nodes, weights = gaussian_rule(int(rule_of(np.sqrt(b), GAMMA_WIDTH)))
        if b == 0.0:
            nodes, weights = np.zeros(1), np.ones(1)
        out = np.zeros((3, len(seen)))
        for node, weight in zip(nodes, weights):
            r = np.exp(-a - np.sqrt(b) * node)
            out[0] += weight * _log_rising(seen, r)
            for each, part in zip(out[1:], _gamma_derivatives(seen, r)):
                each += weight * part
        out[0] -= special.gammaln(seen + 1.0)
        return out[:, which]

    def centre(self, y, weight, offset):
        return log_mean_rate(y, weight, offset)

    def start(self, y, offset, centre, dispersion):
        precision, mean = working_counts(y, offset, centre)
        return precision / (1.0 + precision * np.exp(dispersion[0])), mean


def _log_rising(y, r):
    """``log(Gamma(y + r) / Gamma(r))`` without the difference of two large numbers."""
    positive = y > 0.0
    some = np.where(positive, y, 1.0)
    total = special.gammaln(some) - special.betaln(some, r)
    return np.where(positive, total, 0.0)


def _gamma_derivatives(y, r):
    """First and second derivative of ``_log_rising`` in log r."""
    first = r * (special.psi(y + r) - special.psi(r))
    curvature = special.polygamma(1, y + r) - special.polygamma(1, r)
    return first, first + r**2 * curvature
