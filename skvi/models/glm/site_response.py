r"""How the likelihood's sites respond when the mean of the weights moves.

Let a tilt move the mean by dm. Each row's linear predictor moves by ``de = z'dm`` and
its variance by dv, and with the third and fourth mean derivatives T and Q of the log
density its site by

.. math::

    dg = -W\, de + \tfrac12 T\, dv, \qquad dW = -T\, de - \tfrac12 Q\, dv.

The precision answers, ``dP = sum_i dW_i z_i z_i'``, and with it the variances: ``dv = G
(T de + Q dv / 2)``, where G are the squares of all ``z_i' P^-1 z_l``, or, of a diagonal
P with variances s, ``(Z * Z) diag(s^2) (Z * Z)'``. The means then move as if the
precision were P - B,

.. math::

    B = \tfrac12 Z^T T M T Z, \qquad M = (I - \tfrac12 G Q)^{-1} G.
"""

import numpy as np

STEP = 1e-2  # of differences of curvatures, in units of the linear predictor
FEW_ROWS = 2048  # whose G is formed
MOST_WORK = 1e10  # products of a matrix-free B
N_TERMS = 30
TOL = 1e-6


def site_response(model, q, blocks):
    """B of a model with one output, or None where it would take too long."""
    n = sum(len(block.y) for block in blocks)
    p = q.gaussian.dim
    if model.n_outputs > 1 or p > FEW_ROWS:
        return None
    if n > FEW_ROWS and n * float(p) ** 3 > MOST_WORK:
        return None
    found = [_derivatives(model, q, block) for block in blocks]
    T, Q = (np.concatenate(part) for part in zip(*found))
    if n <= FEW_ROWS:
        Z = np.concatenate([block.rows.dense() for block in blocks])
        Z = Z.astype(np.float64, copy=False)
        G = q.gaussian.precision.squared_inner(Z)
        M = np.linalg.solve(np.eye(n) - 0.5 * G * Q, G)
        TZ = Z * T[:, None]
        B = 0.5 * TZ.T @ M @ TZ
    else:
        B = _by_columns(q.gaussian.precision, blocks, T, Q, p)
    return 0.5 * (B + B.T)


def _derivatives(model, q, block):
    """T and Q of a block's rows, weights included, by differences of W."""
    mean, variance = model.predictors(q.gaussian, block.rows)
    mean, law = mean + block.offset, q.dispersion_law

    def curvature(shift):
        found = model.likelihood.expect(block.y, mean + shift, variance, law)
        return block.weight * found.curvature

    below, here, above = curvature(-STEP), curvature(0.0), curvature(STEP)
    return (below - above) / (2.0 * STEP), (2.0 * here - above - below) / STEP**2


def _by_columns(precision, blocks, T, Q, p):
    """B, a column at a time, without any matrix of rows by rows."""
    ends = np.cumsum([len(block.y) for block in blocks])
    rows = [block.rows for block in blocks]

    def split(x):
        return np.split(x, ends[:-1])

    def apply_G(x):
        return precision.apply_squared_inner(rows, split(x))

    B = np.empty((p, p))
    for k in range(p):
        unit = np.zeros(p)
        unit[k] = 1.0
        x = T * np.concatenate([each.dot(unit) for each in rows])
        dv = term = apply_G(x)
        for _ in range(N_TERMS):
            term = apply_G(0.5 * Q * term)
            dv = dv + term
            if np.max(np.abs(term)) <= TOL * np.max(np.abs(dv), initial=1e-300):
                break
        moved = split(0.5 * T * dv)
        B[:, k] = sum(each.tdot(part) for each, part in zip(rows, moved))
    return B
