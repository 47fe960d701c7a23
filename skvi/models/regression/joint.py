r"""The joint posterior: Normal-Gamma over (w, b, tau), lambda apart.

.. math::

    q = q(w, b \mid \tau)\, q(\tau) \prod_j q(\lambda_j), \qquad
    w \mid \tau \sim N(m, (\tau P)^{-1}),\quad
    b \mid \tau \sim N(0, 1/(\tau (N + \kappa_0)))

Updates, lambda first and the block that absorbs the data last:

.. math::

    q(\lambda_j) &= \mathrm{Gamma}(c_0 + \tfrac12,\; d_0 + \tfrac12 E[\tau w_j^2]) \\
    P &= Z^TZ + \mathrm{diag}(E\lambda), \quad m = P^{-1} Z^T y \\
    q(\tau) &= \mathrm{Gamma}(a_0 + N/2,\; b_0 + \tfrac12 (y^Ty - m^TZ^Ty))

With lambda known this is the exact posterior, reached in one step, and the ELBO is the
log evidence [1]_. With lambda learnt it is automatic relevance determination [2]_.

References
----------
.. [1] Bishop (2006), Pattern Recognition and Machine Learning, section 3.3 and
   exercise 3.12.
.. [2] Drugowitsch (2013), Variational Bayesian inference for linear and logistic
   regression, section 3, arXiv:1310.5438.
"""

import numpy as np
from scipy.sparse.linalg import LinearOperator

from skvi.distributions import Gamma, LocationScaleMixture, NormalGamma, Product
from skvi.linalg import DenseCovariance, DiagonalPrecision, ScaledInverse
from skvi.models.regression.integrated import IntegratedPosterior
from skvi.models.regression.model import NO_RESPONSE, SecondMoment, is_known


class JointPosterior(Product):
    """q(w, b, tau) q(lambda), with the regression's names for its expectations."""

    def __init__(self, joint, weight_precision):
        super().__init__({"joint": joint, "weight_precision": weight_precision})
        self.joint = joint
        self.weight_precision = weight_precision

    @classmethod
    def for_prior(cls, weight_prior):
        """The family for a prior of lambda: the exact one where all share a lambda."""
        shared = weight_prior.mean.shape == () and not is_known(weight_prior)
        return IntegratedPosterior if shared else cls

    @classmethod
    def start(cls, model, values):
        """The posterior for lambda at its prior mean."""
        return cls._absorb(model, values, model.weight_prior)

    @classmethod
    def _absorb(cls, model, values, weight_precision):
        gram, cross, n = values["gram"], values["cross"], values["weight"]
        ridge = np.broadcast_to(weight_precision.mean, cross.shape)
        precision = gram.precision(ridge)
        mean = precision.solve(cross)
        rate = 0.5 * max(values["square"] - mean @ cross, 0.0)
        blocks = {"coef": (mean, precision)}
        if model.level_precision is not None:
            level = DiagonalPrecision([n + model.level_precision])
            blocks["level"] = (np.zeros(1), level)
        noise = model.noise_prior.absorb(0.5 * n, rate)
        return cls(NormalGamma(blocks, noise), weight_precision)

    def restart(self, model, values):
        penalty = self.expect()["tau_coef_outer"].diagonal()
        return self._absorb(model, values, model.absorb_weights(penalty))

    def step(self, model, values):
        if is_known(self.weight_precision):
            return self  # exact: nothing to improve
        return self.restart(model, values)

    def coordinates(self):
        if is_known(self.weight_precision):
            return None
        return np.log(np.atleast_1d(self.weight_precision.rate))

    def at(self, coordinates, model, values):
        shape = self.weight_precision.shape
        rate = np.exp(coordinates).reshape(shape.shape)
        return self._absorb(model, values, Gamma(shape, rate))

    def expect(self):
        mean, precision = self.joint.blocks["coef"]
        tau = self.joint.noise.expect()
        lam = self.weight_precision.expect()
        outer = SecondMoment(mean, tau["value"], precision)
        return {
            "tau": tau["value"],
            "log_tau": tau["log"],
            "tau_coef": tau["value"] * mean,
            "tau_coef_outer": outer,
            "tau_level_square": self._level_variance,
            "lambda": lam["value"],
            "log_lambda": lam["log"],
            "penalty": float(np.sum(lam["value"] * outer.diagonal())),
        }

    @property
    def coef_mean(self):
        return self.joint.blocks["coef"][0]

    def coef_law(self, model, values, linear_response=False):
        """Covariance of w: that of q, or corrected for the moves of lambda."""
        _, precision = self.joint.blocks["coef"]
        # Without a variance (one row) there is no covariance to correct.
        proper = np.isfinite(self.noise_variance)
        if linear_response and proper and not is_known(self.weight_precision):
            return self._corrected(precision)
        return ScaledInverse(precision, float(self.noise_variance))

    def _corrected(self, precision):
        r"""Linear response in lambda (Giordano, Broderick & Jordan 2018, eq. 9).

        lambda_j meets q(w, tau) only through ``s_j = tau w_j^2``, so with C = P^-1 and
        K = Var(lambda) / 4 the corrected covariance of w is
        ``Cov(w) + Cov(w, s) K (I - Cov(s) K)^-1 Cov(s, w)``, where under the
        Normal-Gamma ``Cov(w, s) = 2 C diag(m)`` and
        ``Cov(s) = 2 C*C + 4 E[tau] m m'*C + Var(tau) m^2 (m^2)'``.
        """
        mean = self.coef_mean
        C = precision.covariance()
        if isinstance(C, LinearOperator):
            C = C @ np.eye(mean.shape[0])
        noise = self.joint.noise
        cross = 2.0 * C * mean
        square = 2.0 * C**2 + 4.0 * noise.mean * np.outer(mean, mean) * C
        square += noise.variance() * np.outer(mean**2, mean**2)
        gain = 0.25 * np.broadcast_to(self.weight_precision.variance(), mean.shape)
        if self.weight_precision.mean.shape == ():
            # One lambda: s is the sum of the s_j, a single statistic.
            cross = cross.sum(axis=1, keepdims=True)
            square, gain = square.sum(keepdims=True), gain[:1]
        inner = np.linalg.solve(np.eye(len(gain)) - square * gain, cross.T)
        matrix = self.noise_variance * C + (cross * gain) @ inner
        if np.any(np.diag(matrix) <= 0.0):
            raise ValueError(NO_RESPONSE)
        return DenseCovariance(0.5 * (matrix + matrix.T))

    @property
    def _level_variance(self):
        """Variance of the level in units of 1 / tau."""
        level = self.joint.blocks.get("level")
        return 0.0 if level is None else float(level[1].variances()[0])

    @property
    def noise_variance(self):
        return self.joint.noise.mean_inverse

    def noise_sf(self, precision):
        """P(tau > precision)."""
        return self.joint.noise.sf(precision)

    def predictive(self, rows, law, level=True, noise=True):
        """A new y at standardised rows (or its parts): a Student-t each."""
        tau = self.joint.noise
        unit = noise + np.square(level) * self._level_variance
        precision = self.joint.blocks["coef"][1]
        degrees = np.inf if is_known(tau) else 2.0 * float(tau.shape)
        base = 1.0 / float(tau.mean)
        if isinstance(law, ScaledInverse):
            scale = base * (unit + precision.leverage(rows))
        else:
            # The corrected variance is spread over the same Student-t.
            spread = 1.0 if is_known(tau) else max(1.0 - 2.0 / degrees, 0.0)
            scale = base * unit + spread * law.leverage(rows)
        loc = rows @ self.coef_mean
        return LocationScaleMixture(
            np.ones(1), np.array([degrees]), loc[:, None], np.sqrt(scale)[:, None]
        )

    def predictive_covariance(self, rows, law):
        eye = np.eye(rows.shape[0])
        return law.inner(rows) + self.noise_variance * (eye + self._level_variance)
