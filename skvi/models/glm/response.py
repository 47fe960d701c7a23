r"""Linear response: covariances of the weights beyond those of q.

Giordano, Broderick & Jordan (2018, eq. 9): the covariance is the derivative of q's mean
in a tilt t'theta of the log joint. Two things move with it, the sites and lambda; the
dispersion, whose estimate is nearly independent of that of theta, is held.

Sites: the precision in the derivative of the means is P - B (``site_response.py``).
Where B would take too long (several outputs, very many rows) the sites are held, B = 0,
which is right up to the share of weights in rows.

Lambda: let g count the lambdas, with members ``theta_i, i in g``. Structured: with C =
(P - B)^-1, ``s_g = sum_{i in g} theta_i^2`` and ``K = Var(lambda) / 4``,

.. math::

    \mathrm{Cov}(\theta) = C + \mathrm{Cov}(\theta, s)\, K\,
        (I - \mathrm{Cov}(s) K)^{-1}\, \mathrm{Cov}(s, \theta).

Mean field: eliminating variances and lambda from the derivative of the updates leaves

.. math::

    \mathrm{Cov}(\theta) = \Big[S + \Lambda - B - \sum_g \tfrac{2}{h_g} m_g m_g^T
        \Big]^{-1}, \quad h_g = \frac{1 - k_g e_g}{k_g \lambda_g}, \quad
        k_g = \frac{\lambda_g}{2 \cdot \mathrm{shape}_g}, \quad
        e_g = \sum_{i \in g} \lambda_g v_i^2,

with m_g the mean where i is in g and zero elsewhere.
"""

import numpy as np

from skvi.distributions import PointMass
from skvi.linalg import (
    DenseCovariance,
    DensePrecision,
    DiagonalPrecision,
    ScaledInverse,
    as_matrix,
)
from skvi.models.glm.site_response import site_response

NO_RESPONSE = (
    "posterior_covariance='linear_response' is not defined where the ELBO has no "
    "strict maximum: raise max_iter, or use posterior='structured'."
)
COLUMNS = 256  # of a covariance that are looked at together


def linear_response(model, q, values, blocks=None):
    """The corrected covariance of a fit with the statistics ``values``.

    ``blocks`` are the rows; without them the sites are held.
    """
    lam = q.weight_precision
    B = None if blocks is None else site_response(model, q, blocks)
    if isinstance(q.gaussian.precision, DiagonalPrecision):
        return _of_mean_field(model, q, values, lam, B)
    precision = q.gaussian.precision
    if B is not None:
        precision = _less(model, q, values, B)
    if isinstance(lam, PointMass):
        return precision
    return _of_structured(model, q, lam, precision)


def _less(model, q, values, B):
    """``S + Lambda - B``."""
    P = model.space.by_column(values)["precision"] - B
    P.flat[:: len(P) + 1] += np.tile(model.ridge(q.weight_precision), model.n_outputs)
    try:
        return DensePrecision(P)
    except ValueError:
        raise ValueError(NO_RESPONSE) from None


def _members(model, q, lam):
    """(G, dim) zero-one matrix: which weights have which lambda."""
    at = q.parts["coef"].reshape(-1, model.n_features)
    if lam.mean.shape == ():
        groups = np.zeros((1, q.gaussian.dim))
        groups[0, at.ravel()] = 1.0
        return groups
    groups = np.zeros((model.n_features, q.gaussian.dim))
    for positions in at:
        groups[np.arange(model.n_features), positions] = 1.0
    return groups


def _of_structured(model, q, lam, precision):
    m = q.gaussian.mean
    gain = 0.25 * np.atleast_1d(lam.variance())
    groups = _members(model, q, lam)
    if len(gain) == 1:
        inside = groups[0]
        cross = 2.0 * precision.solve(m * inside)
        square = 2.0 * _sum_of_squares(precision, inside) + 2.0 * (m * inside) @ cross
        room = 1.0 - square * gain[0]
        if room <= 0.0:
            raise ValueError(NO_RESPONSE)
        return ScaledInverse(precision, 1.0, cross, gain[0] / room)
    C = as_matrix(precision.covariance())
    cross = 2.0 * (C * m) @ groups.T
    square = groups @ (2.0 * C**2 + 4.0 * np.outer(m, m) * C) @ groups.T
    inner = np.linalg.solve(np.eye(len(gain)) - square * gain, cross.T)
    matrix = C + (cross * gain) @ inner
    if np.any(np.diag(matrix) <= 0.0):
        raise ValueError(NO_RESPONSE)
    return DenseCovariance(0.5 * (matrix + matrix.T))


def _sum_of_squares(precision, inside):
    """Of the covariance's entries among some variables, a few columns at a time."""
    at = np.flatnonzero(inside)
    total = 0.0
    for start in range(0, len(at), COLUMNS):
        some = at[start : start + COLUMNS]
        unit = np.zeros((len(inside), len(some)))
        unit[some, np.arange(len(some))] = 1.0
        total += np.sum(precision.solve(unit)[at] ** 2)
    return total


def _of_mean_field(model, q, values, lam, B):
    m, v = q.gaussian.mean, q.gaussian.variance()
    if isinstance(lam, PointMass) or np.size(lam.mean) == 1:
        precision = (
            model.space.precision(values, model.ridge(lam))
            if B is None
            else _less(model, q, values, B)
        )
        if isinstance(lam, PointMass):
            return precision
    mean, shape = np.atleast_1d(lam.mean), np.atleast_1d(lam.shape)
    groups = _members(model, q, lam)
    k = mean / (2.0 * shape)
    h = (1.0 - k * mean * (groups @ v**2)) / (k * mean)
    if np.any(h <= 0.0):
        raise ValueError(NO_RESPONSE)
    if len(mean) == 1:
        along = m * groups[0]
        solved = precision.solve(along)
        room = 1.0 - (2.0 / h[0]) * along @ solved
        if room <= 0.0:
            raise ValueError(NO_RESPONSE)
        return ScaledInverse(precision, 1.0, solved, 2.0 / (h[0] * room))
    along = groups * m
    coupling = (along.T * (2.0 / h)) @ along
    return _less(model, q, values, coupling if B is None else B + coupling)
