"""From a posterior in a model's units to fitted attributes in the data's."""

import numpy as np

from skvi.models.hmm import HMMPosterior


class HMMAttributes:
    """The fitted attributes: a pure function of the posterior.

    So a callback can have them at any iteration, and a failure can rebuild them.
    """

    def __init__(self, model, kind, key, frame, totals, prior_attributes):
        self.model = model
        self.kind = kind
        self.key = key  # of what makes two fits' posteriors alike
        self.frame = frame
        self.totals = totals
        self.prior_attributes = prior_attributes
        self.of_data = {}  # attributes that are about the data alone
        self.log_units, self.latent_units = kind.log_units(totals, frame)

    def attributes(self, fit):
        """The attributes of a fit."""
        q = fit.posterior
        emissions = self.kind.outward(q.emissions, self.frame)
        terms = self._terms(fit, emissions.entropy() - q.emissions.entropy())
        model = self.model
        return {
            "startprob_": q.startprob.mean,
            "startprob_std_": np.sqrt(q.startprob.variance()),
            "transmat_": q.transmat.mean,
            "transmat_std_": np.sqrt(q.transmat.variance()),
            "transmat_covariance_": q.transmat.covariance(),
            **self.kind.attributes(emissions),
            "posterior_": HMMPosterior(q.startprob, q.transmat, emissions),
            "elbo_": float(sum(terms.values())),
            "elbo_terms_": terms,
            "elbo_path_": np.array(fit.path) + self.log_units,
            "n_iter_": fit.n_iter,
            "converged_": fit.converged,
            "startprob_prior_": model.startprob_prior.concentration.copy(),
            "transmat_prior_": model.transmat_prior.concentration.copy(),
            **self.prior_attributes,
            **self.of_data,
            "_fitted_kind": self.kind,
            "_fitted_key": self.key,
            "_fitted_model": model,
            "_fitted_frame": self.frame,
            "_fitted_totals": self.totals,
            "_fitted_q": q,
            "_fitted_statistics": fit.statistics,
        }

    def _terms(self, fit, volume):
        """The bound's terms in the data's units: densities change, the sum by data."""
        terms = dict(fit.elbo_terms)
        # Latent entries are measured in the data's units, too.
        terms["log_likelihood"] += self.log_units - self.latent_units
        terms["log_prior"] -= volume
        terms["entropy"] += volume + self.latent_units
        return terms
