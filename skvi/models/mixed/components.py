r"""Variance components: priors of a covariance matrix, and the best q for it.

The effects of a factor's J levels are ``u_g ~ N(0, S)`` with a q x q covariance S; the
noise variance is one with q = 1 and the rows for levels. q(S) is inverse Wishart,

.. math::

    q(S) = \mathrm{IW}(\nu, \Psi), \qquad
    S_{kk} \sim \mathrm{IG}\big(\tfrac{\nu - q + 1}2, \tfrac{\Psi_{kk}}2\big).

Priors are either inverse Wishart, and then conjugate, or are stated by what is easy to
think about, the standard deviations s_k and the correlation matrix R:

.. math::

    p(S) = p(R) \prod_k \tfrac12 s_k^{-q} f(s_k), \qquad
    p(R) \propto |R|^{\eta - 1} \;\text{(LKJ [1]_)},

with f half-normal or half-t (half-Cauchy with one degree of freedom [2]_). With
``x_k = log S_kk`` and ``|R| = |S| exp(-sum_k x_k)``, whatever is not of the Wishart
form is a function of one x each,

.. math::

    h(x) = \log f(e^{x/2}) - (\tfrac q2 + \eta - 1)\, x,

and every expectation is an integral over one gamma variable, ``x_k = log(Psi_kk / 2) -
log gamma``, gamma of shape (nu - q + 1) / 2.

The update of q(S) is that of ``component_update.py``.

References
----------
.. [1] D. Lewandowski, D. Kurowicka, H. Joe (2009). Generating random correlation
   matrices based on vines and extended onion method. J. Multivariate Analysis 100,
   eq. 16.
.. [2] A. Gelman (2006). Prior distributions for variance parameters in hierarchical
   models. Bayesian Analysis 1, section 3.
"""

from abc import ABC, abstractmethod

import numpy as np
from scipy import special, stats

from skvi.distributions import InverseWishart
from skvi.models.mixed.component_update import MOST_STEPS, climb_to, log_gamma_nodes

LOG_2 = np.log(2.0)


class VariancePrior(ABC):
    """Prior of a covariance matrix (q, q)."""

    @abstractmethod
    def absorb(self, count, scatter, warm=None, n_steps=MOST_STEPS):
        """The best q(S) given the levels and the sum of their squares.

        Parameters
        ----------
        count : float
            Number of levels, J.
        scatter : array of shape (q, q)
            U.
        warm : InverseWishart, optional
            Where to start from.
        n_steps : int
            Most natural-gradient steps; all raise the bound, the best takes many.
        """

    @abstractmethod
    def expected_log_density(self, q):
        """``E_q[log p(S)]``."""

    @abstractmethod
    def log_density(self, z):
        """``log p(S)`` of draws (n, q, q)."""

    @abstractmethod
    def sample(self, n, rng):
        """Draws of S, (n, q, q)."""


class ConjugatePrior(VariancePrior):
    """Inverse Wishart.

    Parameters
    ----------
    dof : float
    scale : array of shape (q, q)
    """

    def __init__(self, dof, scale):
        self.law = InverseWishart(dof, scale)
        self.dim = self.law.dim

    def absorb(self, count, scatter, warm=None, n_steps=MOST_STEPS):
        return InverseWishart(self.law.dof + count, self.law.scale + scatter)

    def expected_log_density(self, q):
        return self.law.expected_log_density(q)

    def log_density(self, z):
        return self.law.log_density(z)

    def sample(self, n, rng):
        return self.law.sample(n, rng)


class ScalePrior(VariancePrior):
    """Half-normal or half-t standard deviations, LKJ correlations.

    Parameters
    ----------
    scale : array of shape (q,)
    dof : float
        Of the half-t; infinite: half-normal.
    concentration : float
        eta of the LKJ law of correlations; 1 is uniform.
    """

    def __init__(self, scale, dof=np.inf, concentration=1.0):
        self.scale = np.asarray(scale, dtype=np.float64)
        self.dim = len(self.scale)
        self.dof = float(dof)
        self.concentration = float(concentration) if self.dim > 1 else 1.0
        self.slope = -(0.5 * self.dim + self.concentration - 1.0)  # of h in x
        constant = _half_t_constant(self.dof) - np.log(self.scale)
        self.constant = constant.sum() - self.dim * LOG_2
        self.constant -= lkj_normalizer(self.dim, self.concentration)

    def _parts(self, x, k):
        """``log f`` without its constant, at x = log S_kk, and its slope."""
        log_square = np.minimum(x - 2.0 * np.log(self.scale[k]), 700.0)
        if np.isinf(self.dof):
            square = 0.5 * np.exp(log_square)
            return -square, -square
        half = 0.5 * (self.dof + 1.0)
        ratio = np.exp(log_square) / self.dof
        return -half * np.log1p(ratio), -half * ratio / (1.0 + ratio)

    def absorb(self, count, scatter, warm=None, n_steps=MOST_STEPS):
        eta, q = self.concentration, self.dim

        def h(x, k):
            value, slope = self._parts(x, k)
            return value + self.slope * x, slope + self.slope

        dof = count - 2.0 * (eta - 1.0) - (q + 1.0)
        if warm is None:
            first = max(count, q + 4.0)
            middle = np.diag(self.scale**2) + scatter
            warm = InverseWishart(first, middle * (first / (count + 1.0)))
        return climb_to(dof, scatter, h, warm, n_steps)

    def expected_log_density(self, q):
        t, weights, _ = log_gamma_nodes(q.shape)
        total = self.constant + (self.concentration - 1.0) * q.mean_log_det
        for k, rate in enumerate(0.5 * np.diag(q.scale)):
            x = np.log(rate) - t
            total += weights @ (self._parts(x, k)[0] + self.slope * x)
        return float(total)

    def log_density(self, z):
        x = np.log(np.diagonal(z, axis1=-2, axis2=-1))
        total = self.constant + (self.concentration - 1.0) * np.linalg.slogdet(z)[1]
        for k in range(self.dim):
            total = total + self._parts(x[:, k], k)[0] + self.slope * x[:, k]
        return total

    def sample(self, n, rng):
        law = stats.norm() if np.isinf(self.dof) else stats.t(self.dof)
        draws = law.rvs((n, self.dim), random_state=rng)
        factor = _lkj_factors(n, self.dim, self.concentration, rng)
        factor = factor * (np.abs(draws) * self.scale)[:, :, None]
        return factor @ np.swapaxes(factor, -1, -2)


def _half_t_constant(dof):
    """``log`` of the height of a standard half-t (half-normal) density at zero."""
    if np.isinf(dof):
        return 0.5 * np.log(2.0 / np.pi)
    return LOG_2 - special.betaln(0.5, 0.5 * dof) - 0.5 * np.log(dof)


def lkj_normalizer(dim, concentration):
    """``log`` of the integral of ``|R|^(eta - 1)`` over correlation matrices."""
    total = 0.0
    for k in range(1, dim):
        left = dim - k
        b = concentration + 0.5 * (left - 1.0)
        total += left * ((2.0 * b - 1.0) * LOG_2 + special.betaln(b, b))
    return total


def _lkj_factors(n, dim, concentration, rng):
    """Cholesky factors of n LKJ correlation matrices, row by row (the onion)."""
    out = np.zeros((n, dim, dim))
    out[:, 0, 0] = 1.0
    for k in range(1, dim):
        b = concentration + 0.5 * (dim - 1.0 - k)
        square = rng.beta(0.5 * k, b, n)
        direction = rng.standard_normal((n, k))
        direction /= np.linalg.norm(direction, axis=1)[:, None]
        out[:, k, :k] = np.sqrt(square)[:, None] * direction
        out[:, k, k] = np.sqrt(1.0 - square)
    return out
