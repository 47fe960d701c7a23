r"""Unknown loadings of the states, with a relevance for each state.

What Gaussian and Poisson observations share of it: with theta_s = (c_s, d_s), the prior
precisions of theta_s are the relevances gamma_k, which are Gamma, and kappa (times the
noise precision of the column where there is noise).
"""

import numpy as np

from skvi.distributions import PointMass, Product, Regressions


class UnknownLoadings:
    """The prior of the loadings, and turns of the states.

    A subclass names the variables (``names``) and may have a ``noise_prior``.

    Parameters
    ----------
    relevance_prior : Gamma of shape (K,)
    intercept_mean : array of shape (D,)
    intercept_precision : float
        kappa.
    """

    names = None

    def __init__(self, relevance_prior, intercept_mean, intercept_precision):
        self.relevance_prior = relevance_prior
        self.intercept_mean = intercept_mean
        self.intercept_precision = intercept_precision
        self.noise_prior = PointMass(np.ones(len(intercept_mean)))

    @property
    def _prior_mean(self):
        K, D = self.relevance_prior.shape.shape[0], len(self.intercept_mean)
        return np.column_stack([np.zeros((D, K)), self.intercept_mean])

    def _prior_precision(self, relevance):
        return np.append(relevance.mean, self.intercept_precision)

    def posterior(self, rows, relevance):
        return Product({"observation": rows, "observation_relevance": relevance})

    def prior(self):
        precision = np.diag(self._prior_precision(self.relevance_prior))[None]
        rows = Regressions(self._prior_mean, precision, self.noise_prior, self.names)
        return self.posterior(rows, self.relevance_prior)

    def expected_log_prior(self, q):
        rows, relevance = q["observation"], q["observation_relevance"]
        log = np.sum(relevance.mean_log) + np.log(self.intercept_precision)
        return (
            0.5 * rows.n_rows * log
            + rows.expected_log_density_of_rows(
                self._prior_mean, self._prior_precision(relevance)
            )
            + self.noise_prior.expected_log_density(rows.noise)
            + self.relevance_prior.expected_log_density(relevance)
        )

    def relevance(self, rows):
        """The best q(gamma) given q(theta)."""
        squares = np.einsum("rii->i", rows.expect()["quadratic"])[:-1]
        return self.relevance_prior.absorb(0.5 * rows.n_rows, 0.5 * squares)

    def spread(self, q):
        """(S, n, prior) of the relevances; see ``rotation.py``."""
        rows = q["observation"]
        outer = rows.expect()["quadratic"].sum(axis=0)[:-1, :-1]
        return outer, rows.n_rows, self.relevance_prior

    def turned(self, q, R):
        """q of the states ``R x``, with the relevances that are best there."""
        larger = np.eye(len(R) + 1)
        larger[:-1, :-1] = R
        rows = q["observation"].turned(larger)
        return self.posterior(rows, self.relevance(rows))
