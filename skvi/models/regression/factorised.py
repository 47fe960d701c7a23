r"""The factorised (mean-field) posterior.

.. math::

    q = \prod_j q(w_j)\; q(b)\; q(\tau) \prod_j q(\lambda_j)

Updates, with A = Z'Z: lambda, the means, then tau and all variances jointly (each
variance is 1 / E[tau] times a constant), each an exact maximiser given the rest:

.. math::

    q(\lambda_j) &= \mathrm{Gamma}\big(c_0 + \tfrac12,\;
        d_0 + \tfrac12 E\tau\,(m_j^2 + v_j)\big) \\
    m_j &= \frac{(Z^Ty)_j - \sum_{k \ne j} A_{jk} m_k}{A_{jj} + E\lambda_j} \\
    E\tau &= \frac{a_0 + N/2}{b_0 + \tfrac12 (\lVert y - Zm \rVert^2
        + m^T E[\Lambda] m)}, \quad
        q(\tau) = \mathrm{Gamma}\big(a,\; a / E\tau\big), \quad
        a = a_0 + \tfrac{N + p + 1}{2} \\
    q(b) &= N\big(0,\; 1 / (E\tau\,(N + \kappa_0))\big), \quad
        v_j = 1 / (E\tau\,(A_{jj} + E\lambda_j))

The means are those of ridge regression; what is lost is the correlation, so that v_j is
the variance of w_j *given* the other weights [1]_.

References
----------
.. [1] Bishop (2006), Pattern Recognition and Machine Learning, section 10.1.2.
"""

import numpy as np

from skvi.distributions import Gamma, Gaussian, LocationScaleMixture, Product
from skvi.inference.quadrature import gamma_nodes
from skvi.linalg import DiagonalPrecision, ScaledInverse
from skvi.models.regression.model import NO_RESPONSE, SecondMoment, is_known

N_SWEEPS = 4  # coordinate sweeps a global step: cheap beside the bound's A m


class FactorisedPosterior(Product):
    """prod_j q(w_j) q(b) q(tau) q(lambda), with the regression's expectations."""

    def __init__(self, coef, level, noise, weight_precision):
        factors = {"coef": coef, "noise_precision": noise}
        if level is not None:
            factors["level"] = level
        super().__init__({**factors, "weight_precision": weight_precision})
        self.coef = coef
        self.level = level
        self.noise = noise
        self.weight_precision = weight_precision

    @classmethod
    def for_prior(cls, weight_prior):
        """The family for a prior of lambda: this one, whatever the prior."""
        return cls

    @classmethod
    def start(cls, model, values):
        """Priors' mean precisions and the ridge solution that belongs to them."""
        lam, n = model.weight_prior, values["weight"]
        ridge = np.broadcast_to(lam.mean, values["cross"].shape)
        mean = values["gram"].precision(ridge).solve(values["cross"])
        # As if the noise were half of y's variance, whatever the prior says of it.
        noise = model.noise_prior.absorb(0.5 * n, 0.25 * n)
        return cls._absorb(model, values, mean, noise, lam)

    @classmethod
    def _absorb(cls, model, values, mean, noise, weight_precision):
        """q(w) and q(b) given q(tau) and q(lambda)."""
        curvature = values["gram"].diagonal() + weight_precision.mean
        coef = Gaussian(mean, DiagonalPrecision(noise.mean * curvature))
        level = None
        if model.level_precision is not None:
            total = noise.mean * (values["weight"] + model.level_precision)
            level = Gaussian(np.zeros(1), DiagonalPrecision([total]))
        return cls(coef, level, noise, weight_precision)

    @property
    def _level_variance(self):
        return 0.0 if self.level is None else float(self.level.variance()[0])

    def step(self, model, values):
        gram, cross = values["gram"], values["cross"]
        square = self.coef.mean**2 + self.coef.variance()
        lam = model.absorb_weights(self.noise.mean * square)
        ridge = np.broadcast_to(lam.mean, cross.shape)
        mean = gram.ascend(cross, ridge, self.coef.mean, N_SWEEPS)
        square = values["square"] - 2.0 * mean @ cross + mean @ gram.dot(mean)
        square = max(square, 0.0) + ridge @ mean**2
        noise = model.noise_prior.absorb(0.5 * values["weight"], 0.5 * square)
        if not is_known(noise):
            # E[tau] is that of the Normal-Gamma; the factors' own variances, all of
            # them 1 / (E[tau] curvature), add to shape and rate in that proportion.
            count = 0.5 * (cross.shape[0] + (model.level_precision is not None))
            noise = noise.absorb(count, count / noise.mean)
        return self._absorb(model, values, mean, noise, lam)

    restart = step

    def coordinates(self):
        # The sweeps are linear in the means, so the means are extrapolated as they are.
        parts = [self.coef.mean]
        for factor in (self.noise, self.weight_precision):
            if not is_known(factor):
                parts.append(np.log(np.atleast_1d(factor.rate)))
        return np.concatenate(parts)

    def at(self, coordinates, model, values):
        p = self.coef.dim
        rest = coordinates[p:]
        factors = []
        for factor in (self.noise, self.weight_precision):
            if not is_known(factor):
                size = factor.rate.size
                rate = np.exp(rest[:size]).reshape(factor.rate.shape)
                factor, rest = Gamma(factor.shape, rate), rest[size:]
            factors.append(factor)
        noise, lam = factors
        return self._absorb(model, values, coordinates[:p], noise, lam)

    def expect(self):
        tau, lam = self.noise.expect(), self.weight_precision.expect()
        mean = self.coef.mean
        outer = SecondMoment(mean, tau["value"], self.coef.precision, tau["value"])
        return {
            "tau": tau["value"],
            "log_tau": tau["log"],
            "tau_coef": tau["value"] * mean,
            "tau_coef_outer": outer,
            "tau_level_square": tau["value"] * self._level_variance,
            "lambda": lam["value"],
            "log_lambda": lam["log"],
            "penalty": float(np.sum(lam["value"] * outer.diagonal())),
        }

    @property
    def coef_mean(self):
        return self.coef.mean

    @property
    def noise_variance(self):
        return self.noise.mean_inverse

    def noise_sf(self, precision):
        """P(tau > precision)."""
        return self.noise.sf(precision)

    def coef_law(self, model, values, linear_response=False):
        """Covariance of w: diagonal as in q, or corrected by linear response."""
        if linear_response:
            return self._corrected(model, values)
        return ScaledInverse(self.coef.precision, 1.0)

    def _corrected(self, model, values):
        r"""Linear response (Giordano, Broderick & Jordan 2018, eq. 9).

        The covariance is the derivative of q's mean in a tilt t'w of the log joint.
        Differentiating the updates above and eliminating v, tau and lambda leaves

        ``Cov(w) = [A + diag(E lambda) - 2 D E S E' D]^-1 / E[tau]``,
        ``D = diag(m)``, ``S = (diag(h) - g u u')^-1``, ``u = E'(m^2)``,

        where E sums the columns that share a lambda, ``h = (1 - k e) / (k lambda)``
        with ``k = lambda E[tau] / (2 shape)`` and e the part of the variances that
        lambda moves, and ``g = E[tau] / (2 a_0 + N)`` (0 where tau is known).
        """
        gram, mean, lam = values["gram"], self.coef.mean, self.weight_precision
        tau = float(self.noise.mean)
        ridge = np.broadcast_to(lam.mean, mean.shape)
        if is_known(lam):
            return ScaledInverse(gram.precision(ridge), 1.0 / tau)
        g = 0.0
        if not is_known(self.noise):
            g = tau / (2.0 * float(model.noise_prior.shape) + values["weight"])
        share = ridge / (gram.diagonal() + ridge)
        k = lam.mean * tau / (2.0 * lam.shape)
        moved = share * self.coef.variance()
        u = mean**2
        if lam.mean.shape == ():
            moved, u = moved.sum(keepdims=True), u.sum(keepdims=True)
        h = (1.0 - k * moved) / (k * lam.mean)
        along = np.broadcast_to(u / h, mean.shape) * mean
        border = 2.0 * g / (1.0 - g * np.sum(u**2 / h))
        if lam.mean.shape == ():
            # One lambda: D E S E' D is the rank-one matrix S m m'.
            along, border = mean, 2.0 / (h[0] - g * u[0] ** 2)
        else:
            ridge = ridge - 2.0 * mean**2 / h
        try:
            precision = gram.precision(ridge)
        except ValueError:
            raise ValueError(NO_RESPONSE) from None
        # Sherman-Morrison for the remaining rank-one term.
        solved = precision.solve(along)
        room = 1.0 - border * along @ solved
        if room <= 0.0:
            raise ValueError(NO_RESPONSE)
        return ScaledInverse(precision, 1.0 / tau, solved, border / (room * tau))

    def predictive(self, rows, law, level=True, noise=True):
        """A new y (or its parts): Gaussian weights, noise mixed over q(tau)."""
        loc = rows @ self.coef.mean
        spread = law.leverage(rows) + np.square(level) * self._level_variance
        if not noise:
            return LocationScaleMixture(
                np.ones(1), np.array([np.inf]), loc[:, None], np.sqrt(spread)[:, None]
            )
        if is_known(self.noise):
            tau, weights = np.atleast_1d(self.noise.value), np.ones(1)
        else:
            tau, weights = gamma_nodes(self.noise)
        scale = np.sqrt(spread[:, None] + 1.0 / tau)
        loc = np.broadcast_to(loc[:, None], scale.shape)
        return LocationScaleMixture(weights, np.full(weights.shape, np.inf), loc, scale)

    def predictive_covariance(self, rows, law):
        eye = np.eye(rows.shape[0])
        return law.inner(rows) + self._level_variance + self.noise_variance * eye
