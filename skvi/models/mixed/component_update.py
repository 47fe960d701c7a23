r"""The best inverse Wishart q(S) of a variance component whose prior is no Wishart.

With the notation of ``components.py``: given ``U = sum_g E u_g u_g'`` the bound is the
expectation of

.. math::

    \tfrac J2 \log|\Lambda| - \tfrac12 \mathrm{tr}(\Lambda U) + \log p(S),
    \qquad \Lambda = S^{-1},

plus the entropy. The terms h enter as sites alpha log|Lambda| + tr(B Lambda) that have
their gradient at the current q: with ``e_k = E h'(x_k)`` and ``n = d/d nu sum_k E
h(x_k)``,

.. math::

    \alpha = \frac{n + \sum_k e_k / \nu}
        {\tfrac12 \sum_j \psi'(\tfrac{\nu - j}2) - q / \nu}, \qquad
    -2 B = \tfrac2\nu \big(\alpha \Psi + \Psi\,\mathrm{diag}(e_k / \Psi_{kk})\,\Psi
        \big).

A natural-gradient step puts ``nu = J + d_0 + 2 alpha, Psi = U - 2 B``; it is repeated,
and halved where the bound would fall, until nothing moves.
"""

import math

import numpy as np
from scipy import linalg, special

from skvi.distributions import InverseWishart

N_NODES = 128
REACH = 40.0  # nats that the density of log gamma falls to both ends of its nodes
MOST_STEPS = 200
MOST_HALVINGS = 30
SETTLED = 1e-12  # relative moves


def log_gamma_nodes(shape):
    """(t, weights, derivatives of weights by the shape) for t = log of a gamma."""
    # The density exp(shape t - e^t) falls exponentially to the left, faster to the
    # right: the trapezoid rule is exact to rounding.
    x = np.linspace(-_reach(shape, -1.0), _reach(shape, 1.0), N_NODES)
    weights = np.exp(shape * (x + 1.0 - np.exp(x)))
    weights /= weights.sum()
    t = math.log(shape) + x
    return t, weights, weights * (t - weights @ t)


def _reach(shape, sign):
    """How far from its mode the density of t has fallen by REACH nats, to one side."""
    x = 1.0
    while shape * (math.exp(sign * x) - 1.0 - sign * x) < REACH:
        x *= 1.5
    for _ in range(4):  # Newton's method on a convex function, from above
        e = math.exp(sign * x)
        x -= (e - 1.0 - sign * x - REACH / shape) / (sign * (e - 1.0))
    return x


class _Objective:
    """Bound of (nu, Psi) up to a constant, and the sites of its terms h."""

    def __init__(self, dof, scatter, h):
        self.dof, self.scatter, self.h = dof, scatter, h
        self.dim = len(scatter)

    def __call__(self, nu, psi):
        """(bound, size of its terms, next dof, next scale)."""
        q = self.dim
        halves = 0.5 * (nu - np.arange(q))
        digamma = float(special.psi(halves).sum())
        log_det_psi = 2.0 * np.log(np.diag(np.linalg.cholesky(psi))).sum()
        trace = np.trace(np.linalg.solve(psi, self.scatter))
        t, weights, by_shape = log_gamma_nodes(0.5 * (nu - q + 1.0))
        value, n, e = 0.0, 0.0, np.empty(q)
        for k in range(q):
            h, slope = self.h(math.log(0.5 * psi[k, k]) - t, k)
            value += weights @ h
            # By parts, d/d shape of E h is a covariance with log gamma.
            n += 0.5 * (by_shape @ h)
            e[k] = weights @ slope
        # The entropy over Lambda, but for constants.
        normalizer = special.gammaln(halves).sum() - 0.5 * nu * digamma
        entropy = normalizer + 0.5 * (nu * q + (q + 1.0) * (digamma - log_det_psi))
        log_det = digamma - log_det_psi
        energy = 0.5 * ((self.dof - q - 1.0) * log_det - nu * trace) + value
        size = abs(0.5 * self.dof * log_det) + abs(0.5 * nu * trace) + abs(normalizer)
        gap = 0.5 * special.polygamma(1, halves).sum() - q / nu
        alpha = (n + e.sum() / nu) / gap
        step = alpha * psi + (psi * (e / np.diag(psi))) @ psi
        return (
            energy + entropy,
            size,
            self.dof + 2.0 * alpha,
            self.scatter + (2.0 / nu) * step,
        )


def climb_to(dof, scatter, h, warm, n_steps):
    """IW(nu, Psi) at the top of E[(dof - q - 1) / 2 log|L| - tr(L scatter) / 2 + h]."""
    objective = _Objective(dof, scatter, h)
    nu, psi = warm.dof, warm.scale
    bound, size, next_nu, next_psi = objective(nu, psi)
    least = len(scatter) - 1.0
    rho = 1.0
    for _ in range(n_steps):
        moves = abs(next_nu - nu) / nu, np.max(np.abs(next_psi - psi)) / np.max(psi)
        if max(moves) < SETTLED:
            break
        for _ in range(MOST_HALVINGS):
            nu_at = nu + rho * (next_nu - nu)
            psi_at = psi + rho * (next_psi - psi)
            if nu_at > least:
                try:
                    found = objective(nu_at, psi_at)
                except linalg.LinAlgError:
                    found = (-np.inf,)
                if found[0] >= bound - 1e-14 * size:
                    break
            rho *= 0.5
        else:
            break
        nu, psi = nu_at, psi_at
        bound, size, next_nu, next_psi = found
        rho = min(1.0, 2.0 * rho)
    return InverseWishart(nu, psi)
