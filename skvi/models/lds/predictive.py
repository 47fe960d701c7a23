r"""Laws of steps given those before them, for known parameters.

The elimination (``kernels/tridiagonal.pyx``) has the precision P_t of x_t given y_1,
..., y_{t-1}; given y_t, too, it is ``F_t = P_t + sum_s rho_s c_s c_s'``; linear terms
likewise. Then

.. math::

    \log p(y_t \mid y_{<t}) = \tfrac12 \Bigl[ \sum_s \log\frac{\rho_s}{2\pi}
        - \sum_s \rho_s (y_{ts} - d_s)^2 + \log\frac{|P_t|}{|F_t|}
        + g_F' F_t^{-1} g_F - g_P' P_t^{-1} g_P \Bigr].

Counts: the past is kept as a Gaussian law of x_t, moved by the best Gaussian at each
step; the bound of that step stands for its log density.
"""

import numpy as np
from scipy import special

from skvi.distributions import PointMass
from skvi.distributions.gaussian import LOG_2PI
from skvi.models.lds.dynamics import KnownDynamics, KnownInitial
from skvi.models.lds.families import FAMILIES
from skvi.models.lds.gaussian import KnownLoadings
from skvi.models.lds.model import LDSModel
from skvi.models.lds.poisson import MOST, KnownLogLoadings

MAX_NEWTON = 30
NEWTON_TOL = 1e-8


def known(model, draws, i):
    """The model with the parameters of draw i."""
    A, precision = model.dynamics.plug_in(draws, i)
    mean, first = model.initial.plug_in(draws, i)
    C, d, noise = model.observations.plug_in(draws, i)
    if noise is None:
        observations = KnownLogLoadings(C, d)
    else:
        noise = np.broadcast_to(noise, (len(C),))
        observations = KnownLoadings(C, d, PointMass(noise))
    return LDSModel(
        KnownDynamics(A, precision),
        KnownInitial(mean, first),
        observations,
        FAMILIES["structured"],
    )


def log_densities(model, block):
    """``log p(y_t | y_<t)`` of each step under a known model."""
    if model.observations.counts:
        return _of_counts(model, block)
    q, obs = model.prior(), model.observations
    base, e = model.chain_prior(q, block), obs.expect(q)
    patterns, which_pattern = block.observed
    D, p, _ = e["quadratic"].shape
    added = (patterns @ e["quadratic"].reshape(D, -1)).reshape(-1, p, p)
    (of_kind, _, _), kind = block.kinds
    precision = base.precision(base.information + added[of_kind, :-1, :-1])
    h = block.filled @ e["linear"][:, :-1] - added[which_pattern, :-1, -1]
    g = precision.forward(base.add_linear(h.copy()))
    which = precision.factors[-1]
    # Steps that share a factor are of one kind.
    _, step = np.unique(which, return_index=True)
    P = precision.predicted + base.information[kind[step]]
    F = P + added[of_kind[kind[step]], :-1, :-1]
    squares = _square(F, g, which) - _square(P, g - h, which)
    log_ratio = np.linalg.slogdet(P)[1] - np.linalg.slogdet(F)[1]
    noise = e["value"]
    residual = block.filled - obs.intercept
    own = patterns @ (np.log(noise) - LOG_2PI)
    own = own[which_pattern] - np.einsum(
        "ts,s->t", residual**2 * patterns[which_pattern], noise
    )
    return 0.5 * (own + log_ratio[which] + squares)


def _square(matrices, g, which):
    """``g' M^-1 g`` of each step."""
    inverse = np.linalg.inv(matrices)[which]
    return np.einsum("ti,tij,tj->t", g, inverse, g)


def _of_counts(model, block):
    """Bounds of steps; sequences go side by side."""
    A, obs = model.dynamics.matrix, model.observations
    noise = np.linalg.inv(model.dynamics.precision)
    C, d = obs.matrix, obs.intercept
    outer = (C[:, :, None] * C[:, None, :]).reshape(len(C), -1)
    first, lengths = block.sequences.firsts, block.sequences.lengths
    patterns, which = block.observed
    n = len(first)
    m = np.tile(model.initial.mean, (n, 1))
    V = np.tile(np.linalg.inv(model.initial.precision), (n, 1, 1))
    out = np.empty(block.n_steps)
    for t in range(lengths.max()):
        going = np.flatnonzero(lengths > t)
        if t > 0:
            m[going] = m[going] @ A.T
            V[going] = A @ V[going] @ A.T + noise
        rows = first[going] + t
        y, seen = block.filled[rows], patterns[which[rows]]
        out[rows], m[going], V[going] = _absorbed(
            m[going], V[going], y, seen, C, d, outer
        )
    return out


def _absorbed(m0, V0, y, seen, C, d, outer):
    """Bounds of counts given N(m0, V0), and the best Gaussians."""
    n, K = m0.shape
    P0 = np.linalg.inv(V0)
    # The first curvature is that of the counts, so that a wide law does not overflow.
    rate = seen * (0.5 * (y + np.exp(np.minimum(m0 @ C.T + d, 20.0))) + 1e-3)
    eta = np.log(np.where(rate > 0, rate, 1.0)) - d
    W = (rate @ outer).reshape(n, K, K)
    V = np.linalg.inv(P0 + W)
    linear = np.einsum("nij,nj->ni", P0, m0) + (y - rate + rate * eta * (seen > 0)) @ C
    m = np.einsum("nij,nj->ni", V, linear)
    best, kept, step = np.full(n, -np.inf), (m, V), np.ones(n)
    goal, done = kept, np.zeros(n, dtype=bool)
    for _ in range(MAX_NEWTON):
        exponent = m @ C.T + d
        full = exponent + 0.5 * V.reshape(n, -1) @ outer.T
        rate = seen * np.exp(np.minimum(full, MOST))
        value = np.sum(seen * y * exponent - rate - special.gammaln(y + 1.0), axis=1)
        centred = m - m0
        value -= 0.5 * np.einsum("ni,nij,nj->n", centred, P0, centred)
        value -= 0.5 * (np.einsum("nij,nij->n", P0, V) - K)
        value += 0.5 * (np.linalg.slogdet(V)[1] + np.linalg.slogdet(P0)[1])
        rises = value >= best - 1e-12 * np.abs(value)
        gain = np.where(rises, value - best, 0.0)
        W = (rate @ outer).reshape(n, K, K)
        next_V = np.linalg.inv(P0 + W)
        gradient = (seen * y - rate) @ C - np.einsum("nij,nj->ni", P0, centred)
        next_m = m + np.einsum("nij,nj->ni", next_V, gradient)
        # What is done stays as it is, so that it does not depend on the others.
        rises &= ~done
        keep = rises[:, None]
        kept = np.where(keep, m, kept[0]), np.where(keep[..., None], V, kept[1])
        goal = (
            np.where(keep, next_m, goal[0]),
            np.where(keep[..., None], next_V, goal[1]),
        )
        best = np.where(rises, value, best)
        done |= rises & (gain <= NEWTON_TOL)
        if done.all():
            break
        step = np.where(rises, np.minimum(1.0, 2.0 * step), 0.5 * step)
        m = kept[0] + step[:, None] * (goal[0] - kept[0])
        V = kept[1] + step[:, None, None] * (goal[1] - kept[1])
    return best, *kept
