r"""Observations with Gaussian noise.

.. math::

    y_{ts} \sim N(c_s \cdot x_t + d_s,\; 1 / \rho_s)

With theta_s = (c_s, d_s) the local step reads E[rho], E[log rho], E[rho theta] and
E[rho theta theta'] of each column s: step t adds ``sum_s E[rho_s c_s c_s']`` to its
block of the precision and ``sum_s E[rho_s c_s y_ts] - E[rho_s d_s c_s]`` to the linear
term, over the columns observed there. The global step reads ``gram`` = sum_t E[(x_t,
1) (x_t, 1)'], ``response`` = sum_t y_ts E[(x_t, 1)], ``square`` and ``n_observed`` of
each column.
"""

import numpy as np

from skvi.distributions import PointMass, Product, Regressions
from skvi.distributions.gaussian import LOG_2PI
from skvi.linalg import pair_shares
from skvi.models.lds.block import chunks, sum_of_outer
from skvi.models.lds.loadings import UnknownLoadings

NAMES = "observation_matrix", "intercept", "noise_precision"


class GaussianObservations:
    """What columns with and without known loadings share: the local step."""

    moves = False  # sites: the global step is a plain one
    counts = False

    def chain(self, base, q, block, family):
        """The best q(x) of a block.

        ``base`` is what the dynamics say of the states.
        """
        e = self.expect(q)
        patterns, which = block.observed
        D, p, _ = e["quadratic"].shape
        added = (patterns @ e["quadratic"].reshape(D, -1)).reshape(-1, p, p)
        of_kind = block.kinds[0][0]
        information = base.information + added[of_kind, :-1, :-1]
        h = block.filled @ e["linear"][:, :-1]
        h -= added[which, :-1, -1] if len(added) > 1 else added[0, :-1, -1]
        return family.best(base.precision(information), base.add_linear(h))


class FreeLoadings(UnknownLoadings, GaussianObservations):
    r"""Unknown loadings with a relevance for each state.

    .. math::

        c_{sk} \mid \rho_s \sim N(0, 1 / (\rho_s \gamma_k)), \quad
        d_s \mid \rho_s \sim N(m_s, 1 / (\rho_s \kappa)), \quad
        \rho_s, \gamma_k \sim \mathrm{Gamma}

    Parameters
    ----------
    noise_prior : Gamma or PointMass of shape (D,)
        And those of ``UnknownLoadings``.
    """

    names = NAMES

    def __init__(
        self, relevance_prior, intercept_mean, intercept_precision, noise_prior
    ):
        super().__init__(relevance_prior, intercept_mean, intercept_precision)
        self.noise_prior = noise_prior

    @staticmethod
    def expect(q):
        return q["observation"].expect()

    def statistics(self, q, chain, block):
        D, p = block.filled.shape[1], chain.dim + 1
        response = np.empty((D, p))
        response[:, :-1] = block.weighted_filled.T @ chain.mean
        response[:, -1] = block.weighted_filled.sum(axis=0)
        if block.complete:
            gram = np.empty((p, p))
            gram[:-1, :-1] = sum_of_outer(chain, block.weight)
            gram[-1, :-1] = gram[:-1, -1] = block.weight @ chain.mean
            gram[-1, -1] = block.weight.sum()
            gram = np.broadcast_to(gram, (D, p, p)).copy()
        else:
            gram = _grams(chain, block)
        return {"gram": gram, "response": response, **block.constants}

    def energy(self, values, q):
        """``E log p(y | x)``."""
        e = self.expect(q)
        square = e["value"] @ values["square"]
        square -= 2.0 * np.sum(e["linear"] * values["response"])
        square += np.sum(e["quadratic"] * values["gram"])
        normal = values["n_observed"] @ (e["log"] - LOG_2PI)
        return 0.5 * (normal - square)

    def global_step(self, values, warm):
        relevance = self.relevance(warm["observation"])
        precision = self._prior_precision(relevance)
        P = values["gram"] + np.diag(precision)
        prior_mean = self._prior_mean
        h = values["response"] + precision * prior_mean
        mean = np.linalg.solve(P, h[..., None])[..., 0]
        left = values["square"] + np.sum(precision * prior_mean**2, axis=1)
        # The sum of squares that is left, without a difference of large numbers where
        # it is small: the residual of the data, and that of the prior.
        left = left - 2.0 * np.sum(h * mean, axis=1)
        left = left + np.einsum("rij,ri,rj->r", P, mean, mean)
        noise = self.noise_prior.absorb(
            0.5 * values["n_observed"], 0.5 * np.maximum(left, 0.0)
        )
        return self.posterior(Regressions(mean, P, noise, NAMES), relevance)

    def plug_in(self, draws, i):
        """(C, d, noise precisions) of draw i."""
        if isinstance(self.noise_prior, PointMass):
            noise = self.noise_prior.value
        else:
            noise = draws["noise_precision"][i]
        return draws["observation_matrix"][i], draws["intercept"][i], noise


class KnownLoadings(GaussianObservations):
    """Known loadings and intercepts (D, K) and (D,); noise precisions known or not."""

    def __init__(self, matrix, intercept, noise_prior):
        self.matrix = matrix
        self.intercept = intercept
        self.noise_prior = noise_prior
        self.theta = np.column_stack([matrix, intercept])

    @property
    def noise_known(self):
        return isinstance(self.noise_prior, PointMass)

    def noise(self, q):
        return self.noise_prior if self.noise_known else q["noise_precision"]

    @staticmethod
    def _product(noise):
        return Product({"noise_precision": noise})

    def prior(self):
        return Product({}) if self.noise_known else self._product(self.noise_prior)

    def expect(self, q):
        e, theta = self.noise(q).expect(), self.theta
        value = np.broadcast_to(e["value"], (len(theta),))
        linear = value[:, None] * theta
        return {
            "value": value,
            "log": np.broadcast_to(e["log"], (len(theta),)),
            "linear": linear,
            "quadratic": linear[:, :, None] * theta[:, None, :],
        }

    def statistics(self, q, chain, block):
        """Sums of squares of what is left, E (y - Cx - d)^2, of each column."""
        C, found = self.matrix, chain.covariances
        patterns, which = block.observed
        seen = patterns[which] if not block.complete else 1.0
        left = seen * (block.filled - chain.mean @ C.T - self.intercept)
        residual = np.einsum("t,ts,ts->s", block.weight, left, left)
        # c'V c of each different pair of what is observed and of a variance
        n, outer = len(found.variances), C[:, :, None] * C[:, None, :]
        spread = found.variances.reshape(n, -1) @ outer.reshape(len(C), -1).T
        pattern, variance, share = pair_shares(which, found.whose, block.weight)
        residual += share @ (patterns[pattern] * spread[variance])
        return {"residual": residual, "n_observed": block.constants["n_observed"]}

    def energy(self, values, q):
        e = self.noise(q).expect()
        normal = values["n_observed"] @ np.broadcast_to(
            e["log"] - LOG_2PI, values["n_observed"].shape
        )
        return 0.5 * (normal - np.sum(e["value"] * values["residual"]))

    def global_step(self, values, warm):
        if self.noise_known:
            return warm
        left = values["residual"]
        noise = self.noise_prior.absorb(0.5 * values["n_observed"], 0.5 * left)
        return self._product(noise)

    def expected_log_prior(self, q):
        if self.noise_known:
            return 0.0
        return self.noise_prior.expected_log_density(self.noise(q))

    def plug_in(self, draws, i):
        noise = draws.get("noise_precision")
        noise = self.noise_prior.value if noise is None else noise[i]
        return self.matrix, self.intercept, noise


def _grams(chain, block):
    """``sum_t E[(x_t, 1) (x_t, 1)']`` over the steps at which each column is seen."""
    patterns, which = block.observed
    (D, d), found = (patterns.shape[1], chain.dim), chain.covariances
    spread, gram = np.zeros((D, d * d)), np.empty((D, d + 1, d + 1))
    for steps in chunks(block.n_steps):
        counts = block.weight[steps, None] * patterns[which[steps]]
        spread += counts.T @ found.variances[found.whose[steps]].reshape(-1, d * d)
    larger = np.column_stack([chain.mean, np.ones(block.n_steps)])
    for s in range(D):
        seen = block.weight * patterns[which, s]
        gram[s] = larger.T @ (seen[:, None] * larger)
    gram[:, :d, :d] += spread.reshape(D, d, d)
    return gram
