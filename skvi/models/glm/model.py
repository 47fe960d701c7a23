r"""Generalised linear models with learnt shrinkage and dispersion.

The generative model, in standard units (columns z of X have weighted mean zero and sd
one; o are offsets, K outputs share a design):

.. math::

    \eta_{ik} &= o_i + b_k + z_i^T w_k, \qquad
    y_i \sim p(y_i \mid \eta_i, \phi) \\
    w_{kj} &\sim N(0,\; 1 / \lambda_j), \quad b_k \sim N(0,\; 1 / \kappa) \\
    \lambda_j &\sim \mathrm{Gamma}(c_0, d_0), \qquad
    1/\phi \sim \mathrm{Gamma}(a_0, b_0)

One lambda is shared by all columns (ridge) or each has its own (ARD); lambda and phi
may be known. The posterior, with theta = (w, b), is

.. math::

    q = N(\theta; m, P^{-1})\; \prod_j \mathrm{Gamma}(\lambda_j)\;
        \mathrm{LogNormal}(\phi),

P full or diagonal (``families.py``). The bound's energy is

.. math::

    \sum_i E\log p(y_i \mid \eta_i, \phi) + E\log p(\theta \mid \lambda)
        + E\log p(\lambda) + E\log p(\phi),

whose first part is an expectation over the one (or K) Gaussian numbers eta_i and the
Gaussian log phi, by the likelihood's closed form or quadrature
(``skvi/likelihoods``).

Local step: under ``eta_i ~ N(o_i + m'z_i, z_i'P^-1 z_i)`` the likelihood gives its
expected slope g_i and minus curvature W_i. Global step, a natural gradient of length
rho [1]_, with ``h_i = g_i + W_i (E eta_i - o_i)``:

.. math::

    P \leftarrow (1 - \rho) P
        + \rho \big(E\Lambda + \textstyle\sum_i W_i \otimes z_i z_i^T\big), \quad
    P m \leftarrow (1 - \rho) P m + \rho \textstyle\sum_i h_i \otimes z_i

and likewise for log phi: its site is ``(W, g + W E log phi)``, from the derivatives of
its own log density, prior included. Before both lambda, which is conjugate:

.. math::

    q(\lambda_j) = \mathrm{Gamma}\big(c_0 + \tfrac K2,\;
        d_0 + \tfrac12 \textstyle\sum_k E w_{kj}^2\big).

A full step brings lambda and theta to the optimum for its sites (``given_sites.py``),
which costs no pass over the rows; shorter steps take one update of each.

References
----------
.. [1] M. E. Khan, W. Lin (2017). Conjugate-computation variational inference. AISTATS,
   eqs. 14-15. M. Opper, C. Archambeau (2009). The variational Gaussian approximation
   revisited. Neural Computation 21, eqs. 9-11.
"""

import numpy as np

from skvi.distributions import Gamma, InverseGamma, LogNormal, PointMass
from skvi.distributions.gaussian import LOG_2PI
from skvi.inference.blocks import sum_over
from skvi.models.base import Model, Statistics
from skvi.models.glm.given_sites import settled
from skvi.models.glm.posterior import GLMPosterior

LOG_STEP = 1.5  # of the log dispersion in an iteration
MOST_COORDINATES = 1 << 20  # of a posterior that is extrapolated
FIRST_LOG_DISPERSION = np.log(0.5)
DISPERSION_ROWS = 0.5  # precision of the first log dispersion that a row is worth


class GLMModel(Model):
    """The model above.

    Parameters
    ----------
    likelihood : one of skvi.likelihoods
    weight_prior : Gamma or PointMass, of shape () or (p,)
    level_precision : float or None
        kappa; None leaves the level out.
    dispersion_prior : InverseGamma, PointMass or None
    family : one of FAMILIES
    space : ColumnSites or RowSites
    parts : dict
        Positions of "coef" and "level" in theta.

    Attributes
    ----------
    positive : bool
        Whether sites whose curvature is negative, which likelihoods that are not
        concave have, count as flat: in streams, where no step can be taken back.
    """

    positive = False

    def __init__(
        self,
        likelihood,
        weight_prior,
        level_precision,
        dispersion_prior,
        family,
        space,
        parts,
    ):
        self.likelihood = likelihood
        self.weight_prior = weight_prior
        self.level_precision = level_precision
        self.dispersion_prior = dispersion_prior
        self.family = family
        self.space = space
        self.parts = parts
        self.n_outputs = likelihood.n_outputs
        self.n_features = parts["coef"].shape[-1]

    # -- local step --------------------------------------------------------------------

    def statistics(self, q, block):
        rows = block.rows
        mean, variance = self.predictors(q.gaussian, rows)
        return self.statistics_at(mean, variance, q.dispersion_law, block, rows)

    def statistics_at(self, mean, variance, law, block, rows):
        """Statistics of rows with these linear predictors (offsets left out)."""
        offset = block.offset if self.n_outputs == 1 else block.offset[:, None]
        found = self.likelihood.expect(block.y, mean + offset, variance, law)
        weight = block.weight
        values = {"log_likelihood": float(weight @ found.value)}
        precision = (found.curvature.T * weight).T
        if self.positive and not self.likelihood.concave:
            precision = np.maximum(precision, 0.0)
        linear = (found.gradient.T * weight).T + _product(precision, mean)
        values.update(self.space.of_rows(rows, precision, linear))
        if self._learns_dispersion:
            W = weight @ found.dispersion_curvature
            values["dispersion"] = np.array(
                [W, weight @ found.dispersion_gradient + W * law[0]]
            )
        return Statistics(values)

    def predictors(self, gaussian, rows, law=None):
        """Means and (co)variances of the linear predictors, offsets left out.

        ``law`` is the covariance to take in place of the Gaussian's own.
        """
        K = self.n_outputs
        mean = rows.dot(gaussian.mean.reshape(K, -1).T)
        law = gaussian.precision if law is None else law
        return (mean[:, 0] if K == 1 else mean), law.of_predictors(rows, K)

    # -- global step -------------------------------------------------------------------

    def global_step(self, values, warm, rho=1.0):
        sites = self.sites(values, warm.dispersion_law)
        lam = self.absorb_weights(warm.gaussian)
        if rho == 1.0:
            return self.posterior(sites, settled(self, sites, lam), warm=warm)
        # The prior's part of the natural parameter goes no further than the sites'.
        sites = {k: (1.0 - rho) * warm.sites[k] + rho * v for k, v in sites.items()}
        ridge = (1.0 - rho) * warm.ridge + rho * self.ridge(lam)
        return self.posterior(sites, lam, ridge, warm)

    def sites(self, values, law):
        """What summed statistics, and the dispersion's prior at its law, put into q."""
        sites = {k: v for k, v in values.items() if k != "log_likelihood"}
        if self._learns_dispersion:
            g, W = self.dispersion_prior.log_site(*law)
            sites["dispersion"] = sites["dispersion"] + np.array([W, g + W * law[0]])
        return sites

    @property
    def _learns_dispersion(self):
        return isinstance(self.dispersion_prior, InverseGamma)

    def absorb_weights(self, gaussian):
        """q(lambda) given q(theta)."""
        penalty, _ = self._squares(gaussian)
        count = self.n_outputs * self.n_features / max(1, np.size(penalty))
        return self.weight_prior.absorb(0.5 * count, 0.5 * penalty)

    def _squares(self, gaussian):
        """``sum_k E w_kj^2``, over all columns if they share lambda; ``sum_k E b_k^2``.

        Sums of variances may be known without the variances themselves.
        """
        K, p = self.n_outputs, self.n_features
        at = self.parts["coef"].reshape(K, p)
        level = 0.0
        if self.level_precision is not None:
            b = np.ravel(self.parts["level"])
            level = np.sum(gaussian.mean[b] ** 2) + gaussian.precision.variance_sum(b)
        if self.weight_prior.mean.shape == ():
            at = at.ravel()
            square = np.sum(gaussian.mean[at] ** 2)
            return square + gaussian.precision.variance_sum(at), level
        square = gaussian.mean**2 + gaussian.variance()
        return square[at].sum(axis=0), level

    def ridge(self, lam):
        """The prior precisions of one output's weights and level."""
        out = np.empty(self.n_features + (self.level_precision is not None))
        out[: self.n_features] = lam.mean
        if self.level_precision is not None:
            out[-1] = self.level_precision
        return out

    def gaussian(self, sites, lam):
        """The best q(theta) for the sites and q(lambda)."""
        return self.family.gaussian(self.space, sites, self.ridge(lam))

    def _dispersion(self, sites, warm):
        if not self._learns_dispersion:
            return self.dispersion_prior
        precision, linear = sites["dispersion"]
        if not 0.0 < precision < np.inf:
            raise np.linalg.LinAlgError("no precision of the dispersion")
        mean = linear / precision
        if warm is not None:
            # Noise that vanishes has next to no curvature in its logarithm.
            before = warm.dispersion.log_mean
            mean = np.clip(mean, before - LOG_STEP, before + LOG_STEP)
        return LogNormal(mean, 1.0 / precision)

    # -- acceleration ------------------------------------------------------------------

    def coordinates(self, q):
        """What determines q: its sites, and the rates of q(lambda)."""
        size = sum(np.size(v) for v in q.sites.values())
        if size > MOST_COORDINATES:
            return None
        parts = [np.ravel(v) for v in q.sites.values()]
        if not isinstance(q.weight_precision, PointMass):
            parts.append(np.log(np.ravel(q.weight_precision.rate)))
        return np.concatenate(parts)

    def at(self, coordinates, values, warm):
        sites, at = {}, 0
        for name, value in warm.sites.items():
            size = np.size(value)
            sites[name] = coordinates[at : at + size].reshape(np.shape(value))
            at += size
        lam = warm.weight_precision
        if not isinstance(lam, PointMass):
            lam = Gamma(lam.shape, np.exp(coordinates[at:]).reshape(lam.rate.shape))
        sites = self.space.mended(sites, self.likelihood.concave)
        return self.posterior(sites, lam, warm=warm)

    # -- the bound ---------------------------------------------------------------------

    def expected_log_likelihood(self, values, q):
        return values["log_likelihood"]

    def expected_log_prior(self, q):
        total = self.log_prior_of_weights(q.gaussian, q.weight_precision)
        if self.dispersion_prior is not None:
            total += self.dispersion_prior.expected_log_density(q.dispersion)
        return total

    def log_prior_of_weights(self, gaussian, lam):
        """``E[log p(theta, lambda)]``."""
        K, p = self.n_outputs, self.n_features
        penalty, level = self._squares(gaussian)
        logs = np.broadcast_to(lam.expect()["log"], (p,)).sum()
        total = 0.5 * K * (logs - p * LOG_2PI) - 0.5 * np.sum(lam.mean * penalty)
        if self.level_precision is not None:
            kappa = self.level_precision
            total += 0.5 * (K * (np.log(kappa) - LOG_2PI) - kappa * level)
        return total + self.weight_prior.expected_log_density(lam)

    def penalty(self, gaussian, lam):
        """``E theta' Lambda theta``."""
        penalty, level = self._squares(gaussian)
        kappa = 0.0 if self.level_precision is None else self.level_precision
        return np.sum(lam.mean * penalty) + kappa * level

    # -- where a fit starts ------------------------------------------------------------

    def start(self, blocks, centre, n_jobs=None):
        """The posterior of working responses at a common level ``centre``."""
        sites = sum_over(lambda b: self.working(b, centre), blocks, n_jobs).values
        return self.posterior(sites, self.first_weight_precision())

    def working(self, block, centre):
        """The sites of a block's working responses."""
        law = None
        if self.dispersion_prior is not None:
            law = FIRST_LOG_DISPERSION, 0.0
            if not self._learns_dispersion:
                law = float(self.dispersion_prior.expect()["log"]), 0.0
        W, eta = self.likelihood.start(block.y, block.offset, centre, law)
        if self.n_outputs == 1:
            eta = eta - block.offset
        W = (W.T * block.weight).T
        sites = self.space.of_rows(block.rows, W, _product(W, eta))
        if self._learns_dispersion:
            n = DISPERSION_ROWS * block.weight.sum()
            sites["dispersion"] = np.array([n, n * law[0]])
        return Statistics(sites)

    def first_weight_precision(self, other=None):
        """Where q(lambda) starts: from another fit's, if that is one of this prior."""
        prior = self.weight_prior
        if isinstance(prior, PointMass):
            return prior
        if isinstance(other, Gamma) and other.mean.shape == prior.mean.shape:
            return other
        shape = prior.shape + 0.5 * self.n_outputs
        return Gamma(shape, shape / self.n_features)

    def posterior(self, sites, lam, ridge=None, warm=None):
        """The posterior of summed sites and q(lambda).

        ``ridge`` are the prior's precisions in q(theta), if not those of q(lambda);
        ``warm`` is a posterior that the dispersion's must not be too far from.
        """
        ridge = self.ridge(lam) if ridge is None else ridge
        gaussian = self.family.gaussian(self.space, sites, ridge)
        dispersion = self._dispersion(sites, warm)
        return GLMPosterior(gaussian, self.parts, lam, dispersion, sites, ridge)

    # -- for diagnostics ---------------------------------------------------------------

    def log_joint(self, z, rows, y, weight, offset):
        """``log p(y, z)`` of draws z, in standard units, at standardised rows."""
        coef = z["coef"]
        n, K = len(coef), self.n_outputs
        theta = coef.reshape(n, K, -1)
        if self.level_precision is not None:
            theta = np.concatenate([theta, z["level"].reshape(n, K, 1)], axis=2)
        out = self.weight_prior.log_density(z["weight_precision"])
        if self.dispersion_prior is not None:
            out = out + self.dispersion_prior.log_density(z["dispersion"])
        lam = np.reshape(z["weight_precision"], (n, -1))
        ridge = np.broadcast_to(lam, (n, self.n_features))
        if self.level_precision is not None:
            ridge = np.column_stack([ridge, np.full(n, self.level_precision)])
        each = np.log(ridge)[:, None] - LOG_2PI - ridge[:, None] * theta**2
        out = out + 0.5 * each.sum(axis=(1, 2))
        for i in range(n):
            eta = rows.dot(theta[i].T) + offset[:, None]
            log_phi = 0.0
            if self.dispersion_prior is not None:
                log_phi = np.log(z["dispersion"][i])
            eta = eta[:, 0] if K == 1 else eta
            out[i] += weight @ self.likelihood.log_density(y, eta, log_phi)
        return out

    def sample_prior(self, n, rng):
        """Draws of every variable from the prior, in standard units."""
        lam = self.weight_prior.sample(n, rng)
        shape = self.parts["coef"].shape
        each = lam.reshape(n, *[1] * (len(shape) - 1), -1)
        out = {
            "coef": rng.standard_normal((n, *shape)) / np.sqrt(each),
            "weight_precision": lam,
        }
        if self.level_precision is not None:
            level = rng.standard_normal((n, *self.parts["level"].shape))
            out["level"] = level / np.sqrt(self.level_precision)
        if self.dispersion_prior is not None:
            out["dispersion"] = self.dispersion_prior.sample(n, rng)
        return out


def _product(precision, mean):
    """``W_i m_i`` of each row."""
    if precision.ndim == 1:
        return precision * mean
    return np.einsum("nkl,nl->nk", precision, mean)
