"""From a topic model's posterior to fitted attributes."""

import numpy as np

from skvi.estimators.topics_priors import prior_attributes


class TopicAttributes:
    """The fitted attributes: a pure function of the posterior.

    So a callback can have them at any look at the bound, and go on from there.

    Parameters
    ----------
    posterior : str
        Name of the family.
    block_size : int
        Of the corpus that was fitted: q(z) is by position in its blocks.
    n_samples : int
        Documents seen.
    n_total : float
        Documents of the corpus that the stream's statistics stand for.
    fingerprint : str or None
        Of the counts of the fit, to know them again.
    """

    def __init__(self, posterior, block_size, n_samples, n_total, fingerprint=None):
        self.posterior = posterior
        self.block_size = block_size
        self.n_samples = n_samples
        self.n_total = n_total
        self.fingerprint = fingerprint

    def attributes(self, fit, stream):
        """The attributes of a fit, with the stochastic state that goes on from it."""
        q = fit.posterior.frozen()
        return {
            "components_": np.ascontiguousarray(q.law().mean),
            "elbo_": fit.elbo,
            "elbo_terms_": dict(fit.elbo_terms),
            "elbo_path_": np.array(fit.path),
            "n_iter_": fit.n_iter,
            "converged_": fit.converged,
            "assignments_": q.kind,
            "n_samples_seen_": self.n_samples,
            **prior_attributes(q.priors),
            "_fitted_q": q,
            "_fitted_stream": stream,
            "_fitted_total": self.n_total,
            "_fitted_fingerprint": self.fingerprint,
            "_fitted_block_size": self.block_size,
            "_fitted_posterior": self.posterior,
        }
