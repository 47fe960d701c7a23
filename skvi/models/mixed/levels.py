r"""Levels integrated by quadrature, at known variance components.

Given the common weights w (here with the level b), the levels of one factor are
independent, and each level's effects are one or two numbers. So

.. math::

    \log p(y, w) = \log p(w) + \sum_g \log \int
        \prod_{i \in g} p(y_i \mid x_i^T w + t_i^T u)\, N(u; 0, S)\, du

is known to quadrature: Gauss-Hermite nodes about each level's mean, as wide as its
covariance [1]_. Under the weights p_gk of a level's nodes, with the scores ``s_g =
sum_{i in g} l'_i x_i``, Newton's method has

.. math::

    \nabla = \sum_g E s_g - \Lambda w, \qquad
    H = \Lambda - \sum_i E l''_i\, x_i x_i^T - \sum_g \mathrm{Cov}(s_g),

and ``d E u_g / dw = Cov(u_g, s_g)``. At the top a Gaussian in w, whose law all rows
together determine, and the levels' own means and covariances make an arrow; with it
``log p(y)`` is known to Laplace's method in w alone, and the mean of w is the top moved
by what its third derivatives make of its covariance (``shift``). A Gaussian q, whose
bound is exact where levels have many rows, falls short of this for levels of few zeros
and ones.

References
----------
.. [1] J. C. Pinheiro, D. M. Bates (1995). Approximations to the log-likelihood function
   in the nonlinear mixed-effects model. J. Computational and Graphical Statistics 4,
   section 2.4.
"""

import numpy as np
from scipy import sparse, special

from skvi.distributions import Gaussian
from skvi.distributions.gaussian import LOG_2PI
from skvi.linalg import ArrowPrecision

NODES = {1: 25, 2: 15}  # in each dimension, by number of effects
MOST_CELLS = 1 << 21  # rows by nodes
MOST_SCORES = 1 << 24  # levels by nodes by common weights
MOST_STEPS = 50
SETTLED = 1e-6  # posterior sds of the common weights


class LevelQuadrature:
    """The weights and effects of a model with one factor.

    Parameters
    ----------
    model : SitedRows
    block : Block
    """

    def __init__(self, model, block):
        self.layout = model.layout
        self.likelihood = model.likelihood
        self.ridge = model.ridge
        self.rows = block.rows
        self.weight = block.weight[:, None]
        self.y = block.y[:, None]
        self.offset = block.offset
        n_levels, q = self.layout.first
        nodes, weights = special.roots_hermitenorm(NODES[q])
        grid = np.meshgrid(*[nodes] * q, indexing="ij")
        self.z = np.stack([axis.ravel() for axis in grid], axis=1)
        log_weights = np.meshgrid(*[np.log(weights / weights.sum())] * q)
        # What a node's value of the integrand counts, but for the volume.
        self.log_share = (
            sum(each.ravel() for each in log_weights)
            + 0.5 * (self.z**2).sum(axis=1)
            + 0.5 * q * LOG_2PI
        )
        code = block.rows.codes[0]
        n = len(code)
        self.levels = sparse.csr_array(
            (np.ones(n), (code, np.arange(n))), shape=(n_levels, n)
        )

    @classmethod
    def of(cls, model, block):
        """Of a model that it is for, or None."""
        one = len(model.layout.factors) == 1
        q = model.layout.first[1]
        if not one or q not in NODES or model.noise_prior is not None:
            return None
        if model.layout.width == 0:  # no weight to be at the top of
            return None
        n_nodes = NODES[q] ** q
        if len(block.rows.X) * n_nodes > MOST_CELLS:
            return None
        if model.layout.first[0] * n_nodes * model.layout.width > MOST_SCORES:
            return None
        return cls(model, block)

    def at(self, precision, near):
        """(Gaussian, log p(y)) at the precision of a level's effects.

        ``near`` is the Gaussian to start from.
        """
        p = self.layout.width
        w = near.mean[:p].copy()
        centre = near.mean[p:].reshape(self.layout.first)
        factor = np.linalg.cholesky(near.precision.inverse)
        for _ in range(MOST_STEPS):
            found = self._look(w, centre, factor, precision)
            log_p, gradient, H, mean, covariance, slope = found
            step = np.linalg.solve(H, gradient)
            size = np.sqrt(max(gradient @ step, 0.0))
            if size < SETTLED:
                break
            step /= max(1.0, size)
            w = w + step
            centre = mean + slope @ step
            factor = np.linalg.cholesky(covariance)
        else:
            raise np.linalg.LinAlgError("the weights do not settle")
        arrow = ArrowPrecision.of_parts(self.layout, covariance, -slope, H)
        log_p += 0.5 * np.sum(np.log(self.ridge) - self.ridge * w**2)
        log_p -= 0.5 * arrow.root.logdet()
        return Gaussian(np.concatenate([w, mean.ravel()]), arrow), log_p

    def shift(self, precision, gaussian):
        """How far means are from the top, to first order in the skewness.

        ``-C sum_k dH(v_k) v_k / 2`` for the common weights, dH(v) being the derivative
        of H along v and C = sum_k v_k v_k' the inverse of H; levels' means follow.
        """
        p = self.layout.width
        w, C = gaussian.mean[:p], gaussian.precision.common_covariance()
        centre = gaussian.mean[p:].reshape(self.layout.first)
        factor = np.linalg.cholesky(gaussian.precision.inverse)
        slope = -gaussian.precision.gain
        total = np.zeros(p)
        for v in np.linalg.cholesky(C).T:
            up, down = (
                self._look(w + s * v, centre + slope @ (s * v), factor, precision)[2]
                for s in (1.0, -1.0)
            )
            total += 0.5 * (up - down) @ v
        move = -0.5 * C @ total
        return np.concatenate([move, (slope @ move).ravel()])

    def _look(self, w, centre, factor, precision):
        """Log p(y | w), its derivatives, and the moments of levels."""
        rows, likelihood = self.rows, self.likelihood
        code, term, X = rows.codes[0], rows.terms[0], rows.X
        u = centre[:, None] + self.z @ np.swapaxes(factor, 1, 2)
        eta = (X @ w + self.offset)[:, None] + np.einsum("nq,nkq->nk", term, u[code])
        first, second = likelihood.derivatives(self.y, eta)
        logs = self.levels @ (self.weight * likelihood.log_density(self.y, eta))
        logs += self.log_share - 0.5 * np.einsum("gka,ab,gkb->gk", u, precision, u)
        total = special.logsumexp(logs, axis=1)
        share = np.exp(logs - total[:, None])
        volume = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum()
        q = u.shape[2]
        log_det = np.linalg.slogdet(precision)[1]
        log_p = total.sum() + volume + 0.5 * len(u) * (log_det - q * LOG_2PI)
        mean = np.einsum("gk,gkq->gq", share, u)
        gap = u - mean[:, None]
        covariance = np.einsum("gk,gka,gkb->gab", share, gap, gap)
        slopes = self.weight * first
        scores = np.stack([self.levels @ (slopes * x[:, None]) for x in X.T], axis=2)
        average = np.einsum("gk,gkp->gp", share, scores)
        scores -= average[:, None]
        curvature = -np.sum(self.weight * second * share[code], axis=1)
        H = (X.T * curvature) @ X + np.diag(self.ridge)
        H -= np.einsum("gk,gka,gkb->ab", share, scores, scores, optimize=True)
        gradient = average.sum(axis=0) - self.ridge * w
        slope = np.einsum("gk,gkq,gkp->gqp", share, gap, scores, optimize=True)
        return log_p, gradient, H, mean, covariance, slope
