r"""Turning the states where the likelihood does not mind.

With unit noise of the states, ``x -> R x`` for an orthogonal R, together with
``A -> R A R'`` and ``C -> C R'``, leaves the likelihood and the entropies alone. Only
the priors notice, through the diagonals of a few matrices S (each with the number n of
what it counts and a Gamma(a, b) of relevances, which follow):

.. math::

    f(R) = -\sum_S \bigl(a + \tfrac{n}{2}\bigr) \sum_k
        \log\bigl(b + \tfrac12 (R S R')_{kk}\bigr)

Coordinate ascent crawls along such a direction, because A, C and the states hold each
other in place. Turning all of them at once is an ascent of the same bound (Luttinen
2013, Fast variational Bayesian linear state-space model).
"""

import numpy as np

N_ANGLES = 33
N_ZOOMS = 5


def best_rotation(parts):
    """An orthogonal R with f(R) >= f(I), by turns in each plane of two states.

    Parameters
    ----------
    parts : list of (S, n, prior)
        Matrices (K, K), counts, and Gamma laws of shape (K,), the same for all k.
    """
    matrices = np.array([S for S, _, _ in parts])
    weights = np.array([prior.shape[0] + 0.5 * n for _, n, prior in parts])
    rates = np.array([prior.rate[0] for _, _, prior in parts])
    K = matrices.shape[1]
    R = np.eye(K)
    for i in range(K):
        for j in range(i + 1, K):
            angle = _best_angle(matrices, weights, rates, i, j)
            if angle == 0.0:
                continue
            turn = np.eye(K)
            turn[i, i] = turn[j, j] = np.cos(angle)
            turn[i, j] = np.sin(angle)
            turn[j, i] = -turn[i, j]
            matrices = turn @ matrices @ turn.T
            R = turn @ R
    return R


def _best_angle(matrices, weights, rates, i, j):
    """The angle of the plane's best turn, less than an eighth of a circle."""
    one, two, both = (matrices[:, a, b] for a, b in ((i, i), (j, j), (i, j)))
    middle, half = 0.5 * (one + two), 0.5 * (one - two)

    def value(phi):  # twice the angle
        swing = half[:, None] * np.cos(phi) + both[:, None] * np.sin(phi)
        level = rates[:, None] + 0.5 * middle[:, None]
        sides = np.stack([level + 0.5 * swing, level - 0.5 * swing])
        # No smaller than without the matrix, whatever the rounding.
        return -weights @ np.log(np.maximum(sides, rates[:, None])).sum(axis=0)

    centre, width = 0.0, 0.5 * np.pi
    offsets = np.linspace(-1.0, 1.0, N_ANGLES)
    for _ in range(N_ZOOMS):
        phi = np.clip(centre + width * offsets, -0.5 * np.pi, 0.5 * np.pi)
        centre = phi[np.argmax(value(phi))]
        width *= 4.0 / (N_ANGLES - 1)
    found = value(np.array([0.0, centre]))
    return 0.5 * centre if found[1] > found[0] else 0.0
