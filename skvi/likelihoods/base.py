r"""What a likelihood of a linear predictor answers.

A likelihood is ``p(y | eta, phi)``, with eta the linear predictor and phi a dispersion
(where there is one). Variational inference with a Gaussian q needs, for each row,

.. math::

    E \log p(y \mid \eta, \phi), \qquad
    g = E\, \partial_\eta \log p, \qquad
    W = -E\, \partial^2_\eta \log p,

under ``eta ~ N(mean, variance)`` and independent ``log phi ~ N(a, b)``, and the same
derivatives in log phi. By the theorems of Bonnet and Price g and -W/2 are the
derivatives of the first by the mean and the variance of eta, so that they are all that
a natural-gradient step takes.

A subclass writes the log density and its derivatives; the expectations follow by
quadrature (Gauss-Hermite where the Gaussian is narrow beside the function, a finer
rule where it is not). One that knows closed forms overrides them.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from skvi.inference.quadrature import gaussian_rule, groups_of_rules, rule_of

DISPERSION_WIDTH = np.pi  # of functions of exp(log phi)


class Expectations(NamedTuple):
    """Of the log density: its mean, its mean slope and minus its mean curvature."""

    value: np.ndarray
    gradient: np.ndarray
    curvature: np.ndarray
    dispersion_gradient: np.ndarray | None = None
    dispersion_curvature: np.ndarray | None = None


class Likelihood(ABC):
    """``p(y | eta, phi)`` of one linear predictor.

    Attributes
    ----------
    width : float
        Distance from the real axis at which the log density, as a function of eta,
        stops being smooth: quadrature nodes must lie closer than that.
    dispersed : bool
        Whether there is a dispersion. Then ``dispersion_derivatives(y, eta,
        log_dispersion)`` are those of the log density in log phi.
    concave : bool
        Whether the log density is concave in eta.
    """

    width = np.pi
    dispersed = False
    concave = True
    n_outputs = 1

    @abstractmethod
    def log_density(self, y, eta, log_dispersion=0.0):
        """``log p(y | eta, phi)``, elementwise, every constant kept."""

    @abstractmethod
    def derivatives(self, y, eta, log_dispersion=0.0):
        """First and second derivative of the log density in eta."""

    def smoothness(self, log_dispersion):
        """``width`` at a dispersion."""
        return self.width

    # -- expectations ------------------------------------------------------------------

    def expect(self, y, mean, variance, dispersion=None):
        """Expectations under ``eta ~ N(mean, variance)``, ``log phi ~ N(*dispersion)``.

        Parameters
        ----------
        y, mean, variance : arrays of shape (n,)
        dispersion : tuple (mean, variance) of numbers, or None

        Returns
        -------
        expectations : Expectations
        """
        if dispersion is None:
            return self._by_rows(y, mean, variance, None)
        a, b = dispersion
        nodes, weights = gaussian_rule(int(rule_of(np.sqrt(b), DISPERSION_WIDTH)))
        if b == 0.0:
            nodes, weights = np.zeros(1), np.ones(1)
        parts = [
            self._by_rows(y, mean, variance, a + np.sqrt(b) * node) for node in nodes
        ]
        return Expectations(*(np.tensordot(weights, part, 1) for part in zip(*parts)))

    def _by_rows(self, y, mean, variance, log_dispersion):
        """Expectations over eta, each row by the rule that it needs."""
        known = 0.0 if log_dispersion is None else log_dispersion
        sd = np.sqrt(variance)
        rules = rule_of(sd, self.smoothness(known))
        found = np.empty((5 if log_dispersion is not None else 3, *mean.shape))
        for rows, nodes, weights in groups_of_rules(rules):
            eta = mean[rows, None] + sd[rows, None] * nodes
            each = self._cells(y[rows, None], eta, log_dispersion)
            for out, cells in zip(found, each):
                out[rows] = cells @ weights
        return Expectations(*found)

    def _cells(self, y, eta, log_dispersion):
        known = 0.0 if log_dispersion is None else log_dispersion
        first, second = self.derivatives(y, eta, known)
        out = [self.log_density(y, eta, known), first, -second]
        if log_dispersion is not None:
            first, second = self.dispersion_derivatives(y, eta, log_dispersion)
            out += [first, -second]
        return out

    # -- where a fit starts ------------------------------------------------------------

    def centre(self, y, weight, offset):
        """The level of eta - offset if rows did not differ in anything else."""
        return 0.0

    def start(self, y, offset, centre, dispersion):
        """(precision, mean) of a Gaussian in eta that stands for each row at first."""
        eta = np.broadcast_to(offset + centre, y.shape)
        found = self.expect(y, eta, np.zeros_like(eta), dispersion)
        curvature = np.maximum(found.curvature, 1e-3 * np.max(found.curvature))
        return curvature, eta + found.gradient / curvature
