"""From a topic model's posterior to fitted attributes."""

import numpy as np

from skvi.distributions.product import Product
from skvi.estimators.topics_priors import prior_attributes


class TopicAttributes:
    """The fitted attributes: a pure function of the posterior.

    Parameters
    ----------
    corpus : Corpus
    fingerprint : str
        Of the counts, to know them again.
    """

    def __init__(self, corpus, fingerprint):
        self.corpus = corpus
        self.fingerprint = fingerprint

    def attributes(self, fit):
        """The attributes of a fit."""
        q = fit.posterior
        law = q.law()
        return {
            "components_": np.ascontiguousarray(law.mean),
            "topic_word_": law,
            "posterior_": Product({"topics": law}),
            "elbo_": fit.elbo,
            "elbo_terms_": dict(fit.elbo_terms),
            "elbo_path_": np.array(fit.path),
            "n_iter_": fit.n_iter,
            "converged_": fit.converged,
            "assignments_": q.kind,
            **prior_attributes(q.priors),
            "_fitted_q": q,
            "_fitted_fingerprint": self.fingerprint,
        }
