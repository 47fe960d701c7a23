r"""A mixture of Gaussians, or of Student-t laws, with conjugate priors.

The generative model, for rows x_i of D entries in standard units and K components:

.. math::

    \pi &\sim \mathrm{Dirichlet}(\alpha_0) \quad\text{or}\quad
        \pi_k = v_k \prod_{j<k} (1 - v_j),\;
        v_k \sim \mathrm{Beta}(1, \alpha_0),\; v_K = 1 \\
    \Lambda_k &\sim \mathrm{Wishart}(\nu_0, C_0^{-1}), \qquad
        \mu_k \mid \Lambda_k \sim N(m_0, (\beta_0 \Lambda_k)^{-1}) \\
    z_i &\sim \mathrm{Categorical}(\pi), \qquad
        x_i \mid z_i = k \sim N(\mu_k, \Lambda_k^{-1})

One Lambda for all components is the tied form. Diagonal Lambdas have
``Lambda_kd ~ Gamma(nu_0 / 2, C_0d / 2)``, spherical ones one such number a component
(what a Wishart is in one dimension). Student-t rows: ``emission.py``.

The posterior family:

.. math::

    q = q(\pi)\, q(\mu, \Lambda)
        \prod_i q(z_i)\, q(u_i, x_{i,\mathrm{missing}} \mid z_i)

with q(mu, Lambda) joint and conjugate (structured), or q(mu) q(Lambda) (mean field).

Local step, exact given the global factors; E d2 and E log|L| as ``geometry.py`` has
them, log rho as ``emission.py``:

.. math::

    r_{ik} \propto \exp(E\log\pi_k + \log\rho_{ik})

Statistics: N_k = sum_i r_ik, and of the components ``rows`` sum r, ``weight`` sum r u,
``total`` sum r u x, ``outer`` sum r u x x'.

Global step: the conjugate update of each factor, prior + statistics. Structured is the
exact conditional posterior; the best factorised q(mu) q(Lambda) is in closed form the
member closest to it: with :math:`\nu` and :math:`C` those of the joint,

.. math::

    q(\mu_k) = N(m_k, (\beta_k E\Lambda_k)^{-1}), \qquad
    q(\Lambda_k) = \mathrm{Wishart}\big(\nu + 1, (\tfrac{\nu + 1}{\nu} C)^{-1}\big)

so that no inner sweeps are needed. The bound:

.. math::

    E\log p(x, z, u \mid \cdot) &= \sum_k N_k E\log\pi_k + \tfrac12\big(
        \mathrm{rows}\, E\log|\Lambda| - \langle\mathrm{outer}, E\Lambda\rangle
        + 2 \langle\mathrm{total}, E[\Lambda\mu]\rangle
        - \mathrm{weight}\, E[\mu^T\Lambda\mu]\big)
        - \tfrac{n_x}{2}\log 2\pi + E\log p(u) + \ldots

with n_x the number of entries, and the entropy that of z, u and missing entries beside
that of q(pi) and q(mu, Lambda).

References
----------
Bishop (2006), Pattern Recognition and Machine Learning, section 10.2; Blei & Jordan
(2006), Variational inference for Dirichlet process mixtures, Bayesian Analysis 1;
Svensen & Bishop (2005), Robust Bayesian mixture modelling, Neurocomputing 64.
"""

import numpy as np

from skvi.distributions.gaussian import LOG_2PI
from skvi.models.base import Model, Statistics
from skvi.models.mixture import simulate
from skvi.models.mixture.posterior import MixturePosterior
from skvi.models.mixture.precision import working_dtype
from skvi.models.mixture.totals import Totals

SMALLEST_LOG_SHARE = -60.0  # below the largest: no denormals, and no weight to speak of


def structured(joint):
    """q(mu, Lambda): the conjugate posterior itself."""
    return joint


def mean_field(joint):
    """q(mu) q(Lambda): the closest factorised law."""
    return joint.factorised()


FAMILIES = {"structured": structured, "mean_field": mean_field}


class MixtureModel(Model):
    """The model above.

    Parameters
    ----------
    weights_prior : Dirichlet or StickBreaking
    components_prior : NormalWishart or DiagonalNormalGamma
        Of K components.
    geometry : Geometry
    emission : GaussianEmission or StudentEmission
    family : callable
        From the joint conditional posterior of the components to q's.
    """

    def __init__(self, weights_prior, components_prior, geometry, emission, family):
        self.weights_prior = weights_prior
        self.components_prior = components_prior
        self.geometry = geometry
        self.emission = emission
        self.family = family

    def with_geometry(self, geometry):
        """The same model, reading rows in another way."""
        return MixtureModel(
            self.weights_prior,
            self.components_prior,
            geometry,
            self.emission,
            self.family,
        )

    @property
    def n_components(self):
        return self.components_prior.location.shape[0]

    def blocks(self, rows):
        """The rows as blocks for a driver."""
        return rows.blocks(self.geometry.row_size)

    # -- the local step ----------------------------------------------------------------

    def shares(self, q, piece):
        """q(z) of a piece: ``r = exp(logits - log_total)``, (K, m).

        Returns r, the logits, log_total (m,), and the emission's local law.
        """
        logits, local = self.emission.log_densities(piece, q.table)
        logits += q.log_weights[:, None].astype(logits.dtype, copy=False)
        logits -= logits.max(axis=0)
        np.maximum(logits, SMALLEST_LOG_SHARE, out=logits)
        r = np.exp(logits)
        total = r.sum(axis=0)
        r /= total
        return r, logits, np.log(total), local

    def statistics(self, q, block):
        data, rows = block
        sums = self.geometry.sums(self.n_components)
        count = np.zeros(self.n_components)
        energy = entropy = 0.0
        dtype = working_dtype(q.components, data)
        for piece, part in self.geometry.pieces(data, rows, dtype):
            r, logits, log_total, local = self.shares(q, piece)
            weight = data.weights(part)
            if weight is None:
                entropy += float(log_total.sum(dtype=np.float64))
            else:
                entropy += float(weight @ log_total)
                r *= weight.astype(r.dtype, copy=False)
            count += r.sum(axis=1, dtype=np.float64)
            entropy -= float(np.vdot(r, logits))
            scales = self.emission.scales(local)
            sums.add(piece, q.table, r, r if scales is None else r * scales)
            of_scales = self.emission.latent(piece, r, local)
            energy += of_scales[0]
            entropy += of_scales[1] + piece.latent_entropy(q.table, r)
        values = {"count": count, "scales": energy}
        return Statistics({**values, **sums.values()}, entropy)

    def labelled_statistics(self, data, r):
        """The statistics of a whole data set whose shares are given, (K, n)."""
        sums = self.geometry.sums(self.n_components)
        table = self.prior().table
        whole = slice(0, data.n)
        # Latent scales as if there were one component.
        scales = Totals.shares_of_bulk(data)
        for piece, part in self.geometry.pieces(data, whole, np.float64):
            share = np.ascontiguousarray(r[:, part])
            sums.add(piece, table, share, share * scales[part])
        return {"count": r.sum(axis=1), **sums.values()}

    # -- the global step ---------------------------------------------------------------

    def global_step(self, values, warm):
        """Prior + statistics; the factors do not depend on each other."""
        joint = self.components_prior.absorb(
            values["weight"], values["total"], values["outer"], rows=values["rows"]
        )
        weights = self.weights_prior.absorb(values["count"])
        return MixturePosterior(weights, self.family(joint), self.geometry)

    def prior(self):
        """The prior as a posterior to which no row has been added."""
        return MixturePosterior(
            self.weights_prior, self.family(self.components_prior), self.geometry
        )

    # -- the generative direction, for checks ------------------------------------------

    def log_joint(self, z, X):
        """``log p(x, z)`` of draws z at complete rows X, in standard units."""
        return simulate.log_joint(self, X, z)

    def sample_prior_predictive(self, n_rows, rng):
        """(X, draws): variables from the prior, and rows given them."""
        return simulate.sample_prior_predictive(self, n_rows, rng)

    # -- coordinates in which the engine may extrapolate -------------------------------

    def coordinates(self, q):
        return np.concatenate([q.weights.coordinates(), q.components.coordinates()])

    def at(self, coordinates, values, warm):
        n = warm.weights.coordinates().size
        return MixturePosterior(
            warm.weights.at(coordinates[:n]),
            warm.components.at(coordinates[n:]),
            self.geometry,
        )

    # -- the bound ---------------------------------------------------------------------

    def expected_log_likelihood(self, values, q):
        energy = values["count"] @ q.log_weights + values["scales"]
        energy += self.geometry.energy(values, q.components.expect())
        return energy - 0.5 * LOG_2PI * values["entries"]

    def expected_log_prior(self, q):
        return self.weights_prior.expected_log_density(
            q.weights
        ) + self.components_prior.expected_log_density(q.components)
