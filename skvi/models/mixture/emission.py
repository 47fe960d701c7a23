r"""What a component emits: Gaussian rows, or Student-t rows through a latent scale.

For the expected quadratic form d2 over the d observed entries of a row, and E log|L|:

**Gaussian.** ``log rho = (E log|L| - d log 2 pi - d2) / 2``.

**Student-t** of nu degrees of freedom. ``u | z=k ~ Gamma(nu/2, nu/2)`` and
``x | u, z=k ~ N(mu_k, (u L_k)^-1)``. The exact maximiser and what it leaves are

.. math::

    q(u \mid k) = \mathrm{Gamma}(a, b), \quad
    a = \tfrac12(\nu + d), \quad b = \tfrac12(\nu + d_2), \qquad
    \log\rho = \tfrac12 (E\log|L| - d\log 2\pi)
        + \tfrac\nu2\log\tfrac\nu2 - \log\Gamma(\tfrac\nu2) + \log\Gamma(a) - a\log b

so a row far from a component counts ``E[u] = a / b`` of a row in its moments (Svensen &
Bishop 2005, Robust Bayesian mixture modelling, Neurocomputing 64).
"""

import numpy as np
from scipy import special

from skvi.distributions.gaussian import LOG_2PI


class GaussianEmission:
    """Rows of a component are Gaussian: there is no latent scale."""

    dof = np.inf

    def log_densities(self, piece, table):
        return piece.log_densities(table), None

    def scales(self, local):
        return None

    def latent(self, piece, r, local):
        """(energy, entropy) of the latent scales under the shares r."""
        return 0.0, 0.0

    def predictive_dof(self, df):
        """The degrees of freedom of a new row, given those that L alone leaves."""
        return df


class StudentEmission:
    """Rows of a component are Student-t of ``dof`` degrees of freedom."""

    def __init__(self, dof):
        self.dof = float(dof)
        self.half = 0.5 * self.dof
        self.const = self.half * np.log(self.half) - special.gammaln(self.half)

    def log_densities(self, piece, table):
        """log rho, (K, m), and the Gamma(a, b) of the latent scales."""
        quadratic = piece.quadratics(table)
        d = np.asarray(piece.n_observed, dtype=np.float64)
        a, b = self.half + 0.5 * d, self.half + 0.5 * quadratic
        log_b = np.log(b)
        out = 0.5 * (piece.log_dets(table) - LOG_2PI * d)
        out = out + (self.const + special.gammaln(a)) - a * log_b
        return out, (a, b, log_b)

    def scales(self, local):
        """``E[u]``, (K, m)."""
        a, b, _ = local
        return a / b

    def latent(self, piece, r, local):
        a, b, log_b = local
        psi = special.digamma(a)
        mean_log = psi - log_b
        d = piece.n_observed + piece.n_latent
        energy = (self.half - 1.0 + 0.5 * d) * mean_log - self.half * a / b
        entropy = a - log_b + special.gammaln(a) + (1.0 - a) * psi
        # Latent entries have the precision u A.
        entropy = entropy - 0.5 * piece.n_latent * mean_log
        total = float(np.sum(r, dtype=np.float64))
        return float(np.vdot(r, energy)) + self.const * total, float(
            np.vdot(r, entropy)
        )

    def predictive_dof(self, df):
        """Both latent spreads, of u and of L, in one Student-t of their variances."""
        return 1.0 / (1.0 / df + 1.0 / self.dof)
