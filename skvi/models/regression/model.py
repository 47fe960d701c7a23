r"""Bayesian linear regression with learnt noise and prior precision.

The generative model, in standard units (every column z of X and y has weighted sd one,
y has weighted mean zero; i counts rows by their weight):

.. math::

    y_i &\sim N(b + z_i^T w,\; 1 / \tau) \\
    w_j \mid \tau, \lambda_j &\sim N(0,\; 1 / (\tau \lambda_j)) \\
    b \mid \tau &\sim N(0,\; 1 / (\tau \kappa_0)) \\
    \tau &\sim \mathrm{Gamma}(a_0, b_0), \qquad
    \lambda_j \sim \mathrm{Gamma}(c_0, d_0)

One lambda is shared by all columns (ridge) or each has its own (ARD). tau or lambda may
be known, in which case its distribution is a point mass.

The statistics are Z'Z, Z'y, y'y and the total weight N. With q standing for any
posterior below, the bound's energy reads q through ``q.expect()`` alone:

.. math::

    E \log p(y \mid \cdot) = \tfrac N2 (E\log\tau - \log 2\pi) - \tfrac12 \big(
        y^Ty\, E\tau - 2\, (Z^Ty)^T E[\tau w] + \mathrm{tr}(Z^TZ\, E[\tau w w^T])
        + N\, E[\tau b^2] \big)

    E \log p(w, b \mid \tau, \lambda) = \tfrac12 \sum_j \big( E\log\tau + E\log\lambda_j
        - \log 2\pi - E[\tau\lambda_j w_j^2] \big)
        + \tfrac12 \big( E\log\tau + \log\kappa_0 - \log 2\pi
        - \kappa_0 E[\tau b^2] \big)

The posterior families (one file each) write q, its update and its expectations:

==========================  ==========================================================
``factorised.py``           prod_j q(w_j) q(b) q(tau) q(lambda)
``joint.py``                q(w, b, tau) q(lambda), Normal-Gamma with full covariance
``integrated.py``           q(w, b, tau given lambda) q(lambda): exact, one lambda
==========================  ==========================================================
"""

import numpy as np

from skvi.distributions import PointMass
from skvi.distributions.gaussian import LOG_2PI
from skvi.models.base import Model, Statistics

NO_RESPONSE = (
    "posterior_covariance='linear_response' is not defined where the ELBO has no "
    "strict maximum: raise max_iter, or use posterior='structured'."
)


class RegressionModel(Model):
    """The model above for one target.

    Parameters
    ----------
    noise_prior : Gamma or PointMass
        tau, the noise precision in units of 1 / var(y).
    weight_prior : Gamma or PointMass, of shape () or (p,)
        lambda, shared by the columns or one a column.
    level_precision : float or None
        kappa_0, in rows; None leaves the intercept out.
    family : type
        The posterior family, one of this package's three.
    """

    def __init__(self, noise_prior, weight_prior, level_precision, family):
        self.noise_prior = noise_prior
        self.weight_prior = weight_prior
        self.level_precision = level_precision
        self.family = family

    def statistics(self, q, block):
        """The data enter through their moments alone: q has no say in them."""
        return Statistics(block)

    def start(self, values):
        return self.family.start(self, values)

    def restart(self, values, warm):
        """A start from another fit's posterior, where the family can use one."""
        same_columns = warm.coef_mean.shape == values["cross"].shape
        if type(warm) is self.family and same_columns:
            return warm.restart(self, values)
        return self.start(values)

    def global_step(self, values, warm):
        return warm.step(self, values)

    def coordinates(self, q):
        return q.coordinates()

    def at(self, coordinates, values, warm):
        return warm.at(coordinates, self, values)

    def absorb_weights(self, penalty):
        """q(lambda) given ``E[tau w_j^2]``: shared by the columns or one a column."""
        prior = self.weight_prior
        shape = prior.mean.shape
        count = penalty.shape[0] if shape == () else 1.0
        total = penalty.sum() if shape == () else penalty
        return prior.absorb(0.5 * count, 0.5 * total)

    def expected_log_likelihood(self, values, q):
        e = q.expect()
        n = values["weight"]
        square = (
            values["square"] * e["tau"]
            - 2.0 * values["cross"] @ e["tau_coef"]
            + e["tau_coef_outer"].trace(values["gram"])
            + n * e["tau_level_square"]
        )
        return 0.5 * n * (e["log_tau"] - LOG_2PI) - 0.5 * square

    def expected_log_prior(self, q):
        e = q.expect()
        p = e["tau_coef"].shape[0]
        log_lambda = np.broadcast_to(e["log_lambda"], (p,)).sum()
        total = 0.5 * (p * (e["log_tau"] - LOG_2PI) + log_lambda - e["penalty"])
        if self.level_precision is not None:
            kappa = self.level_precision
            total += 0.5 * (e["log_tau"] - LOG_2PI + np.log(kappa))
            total -= 0.5 * kappa * e["tau_level_square"]
        for prior, name in ((self.noise_prior, "tau"), (self.weight_prior, "lambda")):
            # Only the prior's own statistics are read: E[x] and E[log x].
            total += prior.expected_log_density(_Expected(e[name], e[f"log_{name}"]))
        return total

    def log_joint(self, z, rows, target, weight):
        """``log p(y, z)`` of draws z, in standard units, at rows (n, p)."""
        tau, coef = z["noise_precision"], z["coef"]
        level = np.ravel(z["level"]) if self.level_precision is not None else 0.0 * tau
        lam = z["weight_precision"].reshape(tau.shape[0], -1)
        residual = target[:, None] - rows @ coef.T - level
        n, p = weight.sum(), coef.shape[1]
        out = 0.5 * n * (np.log(tau) - LOG_2PI) - 0.5 * tau * (weight @ residual**2)
        log_lam = np.broadcast_to(np.log(lam), coef.shape).sum(axis=1)
        out += 0.5 * (p * (np.log(tau) - LOG_2PI) + log_lam)
        out -= 0.5 * tau * (lam * coef**2).sum(axis=1)
        if self.level_precision is not None:
            kappa = self.level_precision
            out += 0.5 * (
                np.log(tau) + np.log(kappa) - LOG_2PI - tau * kappa * level**2
            )
        out += self.noise_prior.log_density(tau)
        return out + self.weight_prior.log_density(z["weight_precision"])

    def sample_prior(self, n_features, n, rng):
        """Draws of every variable from the prior, in standard units."""
        tau = self.noise_prior.sample(n, rng)
        lam = self.weight_prior.sample(n, rng)
        spread = np.sqrt(tau[:, None] * lam.reshape(n, -1))
        out = {
            "coef": rng.standard_normal((n, n_features)) / spread,
            "noise_precision": tau,
            "weight_precision": lam,
        }
        if self.level_precision is not None:
            scale = np.sqrt(tau * self.level_precision)
            out["level"] = rng.standard_normal(n) / scale
        return out


class _Expected:
    """Expected statistics that come from a joint posterior rather than a factor."""

    def __init__(self, value, log):
        self._expect = {"value": value, "log": log}

    def expect(self):
        return self._expect


class SecondMoment:
    """``E[tau w w'] = weight * mean mean' + P^-1 * scale``, without forming it."""

    def __init__(self, mean, weight, precision, scale=1.0):
        self.mean = mean
        self.weight = weight
        self.precision = precision
        self.scale = scale

    def trace(self, gram):
        quadratic = self.mean @ gram.dot(self.mean)
        spread = self.precision.trace_solve(gram)
        return self.weight * quadratic + self.scale * spread

    def diagonal(self):
        return self.weight * self.mean**2 + self.scale * self.precision.variances()


def is_known(distribution):
    return isinstance(distribution, PointMass)
