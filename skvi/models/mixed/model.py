r"""Mixed effects: common weights, and effects of groups that share a covariance.

The generative model, in standard units (columns z of X have weighted mean zero and sd
one; t are a 1 and slope columns; o are offsets; g_f(i) is row i's level of factor f):

.. math::

    \eta_i &= o_i + b + z_i^T w + \sum_f t_{fi}^T u_{f, g_f(i)}, \qquad
    y_i \sim p(y_i \mid \eta_i, \sigma^2) \\
    w_j &\sim N(0, 1/\lambda_j), \quad b \sim N(0, 1/\kappa), \quad
    u_{fg} \sim N(0, S_f) \\
    S_f &\sim p(S_f), \qquad \sigma^2 \sim p(\sigma^2)

lambda and kappa are known; the priors of the variance components are those of
``components.py``; sigma is there for Gaussian rows only. With theta = (w, b, all u),

.. math::

    q = N(\theta; m, P^{-1})\; \prod_f \mathrm{IW}(S_f)\; \mathrm{IW}(\sigma^2),

P an arrow or its diagonal blocks (``families.py``) [1]_. Updates, in their order:

.. math::

    q(S_f) &: \text{given } J_f \text{ and } U_f = \sum_g E\, u_{fg} u_{fg}^T
        \text{ (components.py)} \\
    q(\sigma^2) &: \text{given } n \text{ and } \sum_i E (y_i - \eta_i)^2 \\
    P &= \sum_i W_i x_i x_i^T + \mathrm{diag}(\lambda, \kappa,
        I \otimes E S_f^{-1}), \qquad P m = \sum_i h_i x_i

For Gaussian rows ``W_i = E[1 / sigma^2]`` and ``h_i = W_i (y_i - o_i)``: every update
is an exact maximum, the normal matrix is formed once, and a pass only takes the
residuals at m; the trace that goes with them is ``tr(P^-1 sum_i x_i x_i') = (dim -
tr(P^-1 prior)) / W``. With flat priors these are the EM steps of restricted maximum
likelihood.

Otherwise they are natural-gradient steps [2]_: ``h_i = g_i + W_i (E eta_i - o_i)``
with the likelihood's expected slope g_i and minus curvature W_i under ``eta_i ~ N(o_i +
m'x_i, x_i'P^-1 x_i)``, damped together with the prior's precisions.

References
----------
.. [1] J. T. Ormerod, M. P. Wand (2012). Gaussian variational approximate inference for
   generalized linear mixed models. J. Computational and Graphical Statistics 21.
   M. Menictas, M. P. Wand et al. (2023), Streamlined variational inference for linear
   mixed models with crossed random effects, same journal 32, for the arrow.
.. [2] M. E. Khan, W. Lin (2017). Conjugate-computation variational inference. AISTATS,
   eqs. 14-15.
"""

import numpy as np

from skvi.distributions import InverseWishart
from skvi.distributions.gaussian import LOG_2PI
from skvi.models.base import Model

N_STEPS = 1  # of a variance component in an iteration: most of the way
FIRST_VARIANCE = 0.25  # of effects and noise at the start, in standard units


class Block:
    """All rows, as the local step reads them.

    Parameters
    ----------
    rows : GroupedRows
    y : array of shape (n,), or of the shape that the likelihood reads
    weight, offset : arrays of shape (n,)
    """

    memory = None

    def __init__(self, rows, y, weight, offset):
        self.rows = rows
        self.y = y
        self.weight = weight
        self.offset = offset


class MixedModel(Model):
    """What Gaussian and other rows share: the prior's half of the model.

    Parameters
    ----------
    likelihood : one of skvi.likelihoods
    layout : ArrowLayout
    parts : dict
        Positions of the variables in theta (``parts_of``).
    ridge : array of shape (p,)
        Prior precisions of the common weights, the level's last.
    priors : dict of str to VariancePrior
        By factor.
    noise_prior : VariancePrior or None
    family : one of FAMILIES
    """

    def __init__(self, likelihood, layout, parts, ridge, priors, noise_prior, family):
        self.likelihood = likelihood
        self.layout = layout
        self.parts = parts
        self.ridge = ridge
        self.priors = priors
        self.noise_prior = noise_prior
        self.family = family

    # -- global step -------------------------------------------------------------------

    def absorb(self, q):
        """q(S_f) of every factor, given the effects."""
        scatters = self.scatters(q.gaussian, q.block_sums)
        return {
            name: prior.absorb(n_levels, scatter, q.components[name], N_STEPS)
            for (name, prior), (n_levels, _), scatter in zip(
                self.priors.items(), self.layout.factors, scatters
            )
        }

    @staticmethod
    def precisions(components):
        return [law.mean_precision for law in components.values()]

    def first_components(self, before=None):
        """Where q(S_f) start; from those of another fit if there are any."""
        out = {}
        for name, (n_levels, q) in zip(self.priors, self.layout.factors):
            dof = q + 3.0 + n_levels
            out[name] = InverseWishart(dof, dof * FIRST_VARIANCE * np.eye(q))
            if before is not None and name in before and before[name].dim == q:
                out[name] = before[name]
        return out

    def scatters(self, gaussian, sums):
        """``sum_g E u_g u_g'`` by factor, from the sums of the covariances."""
        out = []
        for name, each in zip(self.priors, sums):
            means = gaussian.mean[self.parts[f"effects_{name}"]]
            out.append(means.T @ means + each)
        return out

    # -- acceleration ------------------------------------------------------------------

    def coordinates(self, q):
        """The variance components: all that Gaussian rows leave to be found."""
        laws = list(q.components.values())
        laws = laws if q.noise is None else [*laws, q.noise]
        return np.concatenate([np.zeros(0), *(law.coordinates() for law in laws)])

    @staticmethod
    def _components_at(coordinates, warm):
        """(components, noise, what is left) of a vector of coordinates."""
        out = []
        for law in [*warm.components.values(), warm.noise]:
            n = 0 if law is None else len(law.coordinates())
            out.append(law.at(coordinates[:n]) if n else None)
            coordinates = coordinates[n:]
        return dict(zip(warm.components, out)), out[-1], coordinates

    # -- the bound ---------------------------------------------------------------------

    def expected_log_prior(self, q):
        laws = list(q.components.values())
        total = self.log_prior_of_effects(
            q.gaussian,
            self.scatters(q.gaussian, q.block_sums),
            [law.mean_precision for law in laws],
            [law.mean_log_det for law in laws],
        )
        for prior, law in zip(self.priors.values(), laws):
            total += prior.expected_log_density(law)
        if q.noise is not None:
            total += self.noise_prior.expected_log_density(q.noise)
        return total

    def log_prior_of_effects(self, gaussian, scatters, precisions, log_dets):
        """``E log p(theta)``, covariances having these precisions and log dets."""
        variance = np.diag(gaussian.precision.common_covariance())
        square = gaussian.mean[: self.layout.width] ** 2 + variance
        total = 0.5 * np.sum(np.log(self.ridge) - LOG_2PI - self.ridge * square)
        for (n_levels, width), scatter, precision, log_det in zip(
            self.layout.factors, scatters, precisions, log_dets
        ):
            trace = np.sum(precision * scatter)
            total -= 0.5 * (n_levels * (width * LOG_2PI + log_det) + trace)
        return total

    def evidence(self, block, gaussian, squares, precisions):
        """Bound of log p(y) where components (and noise) are known."""
        known = precisions[: len(self.priors)]
        log_dets = [-np.linalg.slogdet(precision)[1] for precision in known]
        return (
            self.log_likelihood(block, gaussian, squares, precisions)
            + self.log_prior_of_effects(gaussian, squares, known, log_dets)
            + gaussian.entropy()
        )

    # -- for diagnostics ---------------------------------------------------------------

    def log_joint(self, z, block):
        """``log p(y, z)`` of draws z, in standard units."""
        n = len(z["coef"])
        theta = np.empty((n, self.layout.dim))
        for name, at in self.parts.items():
            theta[:, np.ravel(at)] = np.reshape(z[name], (n, -1))
        p = self.layout.width
        each = np.log(self.ridge) - LOG_2PI - self.ridge * theta[:, :p] ** 2
        out = 0.5 * each.sum(axis=1)
        for name, prior in self.priors.items():
            u, S = z[f"effects_{name}"], z[f"covariance_{name}"]
            white = np.linalg.solve(np.linalg.cholesky(S)[:, None], u[..., None])
            each = u.shape[1] * (u.shape[2] * LOG_2PI + np.linalg.slogdet(S)[1])
            out += prior.log_density(S) - 0.5 * each
            out -= 0.5 * (white**2).sum(axis=(1, 2, 3))
        log_noise = np.zeros(n)
        if self.noise_prior is not None:
            noise = np.reshape(z["noise_variance"], (n, 1, 1))
            out += self.noise_prior.log_density(noise)
            log_noise = np.log(noise.ravel())
        for i in range(n):
            eta = block.offset + block.rows.dot(theta[i])
            each = self.likelihood.log_density(block.y, eta, log_noise[i])
            out[i] += block.weight @ each
        return out

    def sample_prior(self, n, rng):
        """Draws of every variable from the prior, in standard units."""
        p, out = self.layout.width, {}
        common = rng.standard_normal((n, p)) / np.sqrt(self.ridge)
        for name in ("coef", "level"):
            if name in self.parts:
                out[name] = common[:, self.parts[name]]
        for f, (name, prior) in enumerate(self.priors.items()):
            S = prior.sample(n, rng)
            noise = rng.standard_normal((n, *self.layout.factors[f]))
            factor = np.linalg.cholesky(S)
            out[f"effects_{name}"] = noise @ np.swapaxes(factor, -1, -2)
            out[f"covariance_{name}"] = S
        if self.noise_prior is not None:
            out["noise_variance"] = self.noise_prior.sample(n, rng)[:, 0, 0]
        return out
