"""Noise about the linear predictor: Gaussian, or Student-t with heavy tails."""

import numpy as np
from scipy import special

from skvi.likelihoods.base import Expectations, Likelihood

LOG_2PI = np.log(2.0 * np.pi)


class Gaussian(Likelihood):
    """``y ~ N(eta, dispersion)``: all expectations are known."""

    dispersed = True

    def log_density(self, y, eta, log_dispersion=0.0):
        square = (y - eta) ** 2 * np.exp(-log_dispersion)
        return -0.5 * (LOG_2PI + log_dispersion + square)

    def derivatives(self, y, eta, log_dispersion=0.0):
        precision = np.exp(-log_dispersion)
        first = (y - eta) * precision
        return first, np.broadcast_to(-precision, np.shape(first))

    def dispersion_derivatives(self, y, eta, log_dispersion):
        half = 0.5 * (y - eta) ** 2 * np.exp(-log_dispersion)
        return half - 0.5, -half

    def expect(self, y, mean, variance, dispersion=None):
        a, b = (0.0, 0.0) if dispersion is None else dispersion
        precision = np.exp(-a + 0.5 * b)
        half = 0.5 * precision * ((y - mean) ** 2 + variance)
        return Expectations(
            -0.5 * (LOG_2PI + a) - half,
            precision * (y - mean),
            np.full(np.shape(mean), precision),
            half - 0.5,
            half,
        )


class StudentT(Likelihood):
    """``y = eta + sqrt(dispersion) t``, t Student-t with ``dof`` degrees of freedom.

    A row far from eta pulls at it with 1 / distance: outliers are let go. The log
    density is not concave there.
    """

    dispersed = True
    concave = False

    def __init__(self, dof):
        self.dof = float(dof)
        half = 0.5 * self.dof
        # log of Gamma(half + 1/2) / (Gamma(half) sqrt(dof pi))
        self.constant = -special.betaln(0.5, half) - 0.5 * np.log(self.dof)

    def smoothness(self, log_dispersion):
        return np.sqrt(self.dof) * np.exp(0.5 * log_dispersion)

    def log_density(self, y, eta, log_dispersion=0.0):
        square = (y - eta) ** 2 * (np.exp(-log_dispersion) / self.dof)
        tail = 0.5 * (self.dof + 1.0) * np.log1p(square)
        return self.constant - 0.5 * log_dispersion - tail

    def derivatives(self, y, eta, log_dispersion=0.0):
        e = y - eta
        room = self.dof * np.exp(log_dispersion)
        pull = (self.dof + 1.0) / (room + e**2)
        return pull * e, pull * (e**2 - room) / (room + e**2)

    def dispersion_derivatives(self, y, eta, log_dispersion):
        e = y - eta
        room = self.dof * np.exp(log_dispersion)
        share = e**2 / (room + e**2)
        half = 0.5 * (self.dof + 1.0)
        return half * share - 0.5, -half * share * room / (room + e**2)

    def _cells(self, y, eta, log_dispersion):
        # All five from one division and one logarithm.
        e2 = y - eta
        e = e2.copy()
        e2 *= e2
        room = self.dof * np.exp(log_dispersion)
        inverse = 1.0 / (room + e2)
        half = 0.5 * (self.dof + 1.0)
        share = e2 * inverse
        rest = room * inverse
        value = self.constant - 0.5 * log_dispersion + half * np.log(rest)
        pull = 2.0 * half * inverse
        return [
            value,
            pull * e,
            pull * (rest - share),
            half * share - 0.5,
            half * share * rest,
        ]

    def start(self, y, offset, centre, dispersion):
        """Each row as far as it is believed at the centre: outliers count little."""
        e2 = (y - offset - centre) ** 2
        room = self.dof * np.exp(dispersion[0])
        return (self.dof + 1.0) / (room + e2), y
