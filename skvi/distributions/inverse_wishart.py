"""Inverse Wishart: a covariance matrix whose inverse is Wishart."""

from functools import cached_property

import numpy as np
from scipy import special

from skvi.distributions.base import Distribution
from skvi.distributions.wishart import Wishart, stored


class InverseWishart(Distribution):
    """``S^-1 ~ Wishart(scale^-1, dof)`` for one covariance matrix S.

    The density over the q (q + 1) / 2 free elements is proportional to
    ``|S|^(-(dof + q + 1) / 2) exp(-tr(scale S^-1) / 2)``. A diagonal element is inverse
    gamma with shape (dof - q + 1) / 2 and half the scale's element for a rate.

    Parameters
    ----------
    dof : float
        Above q - 1.
    scale : array of shape (q, q)
    """

    def __init__(self, dof, scale):
        self.dof = float(dof)
        self.scale = np.atleast_2d(np.asarray(scale, dtype=np.float64))
        self.wishart = Wishart(self.dof, self.scale)

    def __getstate__(self):
        return stored(self)

    @property
    def dim(self):
        return self.scale.shape[0]

    @property
    def shape(self):
        """Shape of the inverse gamma laws of variances."""
        return 0.5 * (self.dof - self.dim + 1.0)

    @cached_property
    def mean_precision(self):
        """``E[S^-1]``."""
        return self.wishart.mean

    @property
    def mean_log_det(self):
        """``E[log|S|]``."""
        return -float(self.wishart.mean_log_det)

    @property
    def mean(self):
        """Infinite for dof <= q + 1."""
        return self.wishart.mean_inverse

    @property
    def log_variances(self):
        """Means of the logs of the diagonal elements; their variances are equal."""
        return np.log(0.5 * np.diag(self.scale)) - special.psi(self.shape)

    @property
    def spread(self):
        """Variance of the log of a diagonal element."""
        return special.polygamma(1, self.shape)

    def variance(self):
        """Variance of every element; infinite for dof <= q + 3."""
        return np.diagonal(self.covariance(), axis1=-2, axis2=-1).copy()

    def covariance(self):
        """Covariance of the elements within each row, (q, q, q)."""
        P, excess = self.scale, self.dof - self.dim - 1.0
        if excess <= 2.0:
            return np.full((self.dim, *P.shape), np.inf)
        diagonal = np.diag(P)[:, None, None]
        outer = P[:, :, None] * P[:, None, :]
        total = (excess + 2.0) * outer + excess * diagonal * P
        return total / ((excess + 1.0) * excess**2 * (excess - 2.0))

    def expect(self):
        return {"inverse": self.mean_precision, "log_det": self.mean_log_det}

    def entropy(self):
        # The volume of S -> S^-1 is |S|^(q + 1).
        return self.wishart.entropy() + (self.dim + 1.0) * self.mean_log_det

    def expected_log_density(self, other):
        """``E_other[log self]`` for another distribution of the same variable."""
        volume = (self.dim + 1.0) * other.mean_log_det
        return self.wishart.expected_log_density(other.wishart) - volume

    def sample(self, n, rng):
        return np.linalg.inv(self.wishart.sample(n, rng))

    def log_density(self, z):
        z = np.asarray(z, dtype=np.float64)
        volume = (self.dim + 1.0) * np.linalg.slogdet(z)[1]
        return self.wishart.log_density(np.linalg.inv(z)) - volume

    def distance(self, other):
        return self.wishart.distance(other.wishart)

    def coordinates(self):
        """Unconstrained."""
        return self.wishart.coordinates()

    def at(self, coordinates):
        """The inverse Wishart of other coordinates."""
        wishart = self.wishart.at(coordinates)
        return InverseWishart(wishart.dof, wishart.inverse_scale)

    def rescaled(self, scale):
        """The law of ``diag(scale) S diag(scale)``."""
        scale = np.broadcast_to(scale, (self.dim,))
        return InverseWishart(self.dof, self.scale * np.multiply.outer(scale, scale))

    def with_spread(self, spread):
        """With another variance of the logs of variances, whose means are kept."""
        shape = inverse_trigamma(spread)
        ratio = np.exp(special.psi(shape) - special.psi(self.shape))
        return InverseWishart(2.0 * shape + self.dim - 1.0, self.scale * ratio)


def inverse_trigamma(value):
    """x with ``trigamma(x) = value``, by Newton's method on 1 / trigamma."""
    x = 0.5 + 1.0 / value
    for _ in range(50):
        trigamma, tetragamma = special.polygamma(1, x), special.polygamma(2, x)
        step = trigamma * (1.0 - trigamma / value) / tetragamma
        x = x + step
        if abs(step) < 1e-12 * x:
            break
    return float(x)
