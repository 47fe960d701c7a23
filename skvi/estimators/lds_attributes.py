"""From a posterior in a model's units to fitted attributes in the data's."""

import numpy as np
from scipy import special

from skvi.distributions import Gamma, PointMass, Product, Regressions
from skvi.inference.blocks import run_parallel
from skvi.models.lds import LDSPosterior
from skvi.models.lds.response import response


class LDSAttributes:
    """The fitted attributes: a pure function of the posterior.

    So a callback can have them at any iteration, and a failure can rebuild them.
    """

    def __init__(self, setup, frame, totals, blocks, posterior_covariance, n_jobs):
        self.setup = setup
        self.model = setup.model
        self.frame = frame
        self.totals = totals
        self.blocks = blocks
        self.posterior_covariance = posterior_covariance
        self.n_jobs = n_jobs
        self.of_data = {}  # attributes that are about the data alone
        self.log_units = -float(totals.n @ np.log(frame.unit))
        self.latent_units = totals.n_steps * float(np.sum(np.log(setup.state_unit)))

    def attributes(self, fit):
        """The attributes of a fit."""
        q, setup, model = fit.posterior, self.setup, self.model
        outer = in_units(q, model, self.frame.unit, self.frame.centre)
        terms = self._terms(fit, outer.entropy() - q.entropy())
        chains = self._chains(q)
        if model.is_structural:
            more = structural_attributes(outer, model, setup, self.frame)
            more.update(self._log_variances(q))
        else:
            more = {**free_attributes(outer, model), "_fitted_response": None}
        return {
            **more,
            **observation_attributes(outer, model, self.frame),
            "posterior_": outer,
            "elbo_": float(sum(terms.values())),
            "elbo_terms_": terms,
            "elbo_path_": np.array(fit.path) + self.log_units,
            "n_iter_": fit.n_iter,
            "converged_": fit.converged,
            **setup.priors,
            **self.of_data,
            "_fitted_chains": [States.of(chain, setup) for chain in chains],
            "_fitted_key": self.key,
            "_fitted_setup": setup,
            "_fitted_frame": self.frame,
            "_fitted_totals": self.totals,
            "_fitted_q": q,
            "_fitted_statistics": fit.statistics,
        }

    def _chains(self, q):
        """The laws of the states; what the blocks remember of a fit stays."""
        memories = [block.memory for block in self.blocks]
        chains = run_parallel(
            lambda block: self.model.chain(q, block),
            self.blocks,
            self.n_jobs,
            shared_memory=True,
        )
        for block, memory in zip(self.blocks, memories):
            block.memory = memory
        return chains

    def inward(self, posterior):
        """A posterior in the data's units, in those of this fit's model."""
        unit, centre = self.frame.unit, self.frame.centre
        return in_units(posterior, self.model, 1.0 / unit, -centre / unit)

    def _terms(self, fit, volume):
        """The bound's terms in the data's units: densities change, the sum by data."""
        terms = dict(fit.elbo_terms)
        # States of a series are measured in the data's units, too.
        terms["log_likelihood"] += self.log_units - self.latent_units
        terms["log_prior"] -= volume
        terms["entropy"] += volume + self.latent_units
        return terms

    def _log_variances(self, q):
        """Means and covariance of the logs of the variances that are not known."""
        model, unit = self.model, self.frame.unit
        laws = q.factors
        shape = np.concatenate([np.zeros(0), *(law.shape for law in laws.values())])
        covariance = np.diag(special.polygamma(1, shape))
        corrected = self.posterior_covariance == "linear_response"
        if corrected and laws:
            covariance = response(model, self.blocks, q, self.n_jobs).covariance
        stds = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        D, means, spreads = len(unit), {}, {}
        for k, (key, law) in enumerate(laws.items()):
            name = key.removesuffix("_precision")
            means[name] = 2.0 * np.log(unit) - law.mean_log
            spreads[name] = stds[k * D : (k + 1) * D]
        return {
            "log_variances_": means,
            "log_variances_std_": spreads,
            "log_variances_covariance_": covariance,
            "_fitted_response": covariance if corrected else None,
        }


class States:
    """The law of the states of some steps, in the data's units, compactly.

    Attributes
    ----------
    mean : array of shape (T, K)
    variances, lagged : arrays of shape (n, K, K)
    whose : array of int of shape (T,)
        Which of them a step has.
    """

    def __init__(self, mean, variances, lagged, whose):
        self.mean = mean
        self.variances = variances
        self.lagged = lagged
        self.whose = whose

    @classmethod
    def of(cls, chain, setup):
        unit, found = setup.state_unit, chain.covariances
        scale = unit * unit[:, None]
        return cls(
            setup.state_shift + unit * chain.mean,
            found.variances * scale,
            found.lagged * scale,
            found.whose,
        )


def in_units(q, model, unit, centre):
    """The posterior for columns ``centre + unit * y``."""
    dynamics = q.parts["dynamics"]
    if model.is_structural:
        dynamics = Product(
            {name: _in_units(law, unit) for name, law in dynamics.factors.items()}
        )
    factors = {}
    for name, law in q.parts["observations"].factors.items():
        if isinstance(law, Regressions):
            law = law.rescaled(unit, centre)
        elif name == "noise_precision":
            law = _in_units(law, unit)
        factors[name] = law
    return LDSPosterior(dynamics, q.parts["initial"], Product(factors))


def _in_units(law, unit):
    return Gamma(law.shape, law.rate * unit**2)


def free_attributes(q, model):
    """Of unknown or known dynamics whose noise does not depend on columns of X."""
    dynamics, K = model.dynamics, model.dim
    out = {"transition_covariance_": np.eye(K)}
    if "transition" in q.factors:
        rows = q["transition"]
        out["transition_matrix_"] = rows.mean["transition_matrix"]
        out["transition_matrix_std_"] = np.sqrt(rows.variance("transition_matrix"))
        out["transition_relevance_"] = q["transition_relevance"].mean
    else:
        out["transition_matrix_"] = dynamics.matrix.copy()
        out["transition_matrix_std_"] = np.zeros((K, K))
        out["transition_covariance_"] = np.linalg.inv(dynamics.precision)
    if "initial_precision" in q.factors:
        out["initial_precision_"] = q["initial_precision"].mean
    return out


def structural_attributes(q, model, setup, frame):
    dynamics, D = model.dynamics, len(frame.unit)
    variances, diagonal = {}, np.empty(model.dim)
    for name, members in dynamics.members.items():
        key = f"{name}_precision"
        if key in q.factors:
            found = 1.0 / q[key].mean
        else:
            found = frame.unit**2 / dynamics.priors[name].value
        variances[name] = np.broadcast_to(found, (D,)).copy()
        diagonal[members] = variances[name][:, None]
    unit = setup.state_unit
    return {
        "transition_matrix_": dynamics.matrix * unit[:, None] / unit,
        "transition_covariance_": np.diag(diagonal),
        "state_variances_": variances,
    }


def observation_attributes(q, model, frame):
    observations = model.observations
    out = {}
    if "observation" in q.factors:
        rows = q["observation"]
        out["observation_matrix_"] = rows.mean["observation_matrix"]
        out["observation_matrix_std_"] = np.sqrt(rows.variance("observation_matrix"))
        out["observation_matrix_covariance_"] = rows.covariance("observation_matrix")
        out["intercept_"] = rows.mean["intercept"]
        out["intercept_std_"] = np.sqrt(rows.variance("intercept"))
        out["observation_relevance_"] = q["observation_relevance"].mean
        noise = rows.noise
    else:
        matrix, unit = observations.matrix, frame.unit
        if model.is_structural:
            out["observation_matrix_"] = matrix.copy()
            out["intercept_"] = np.zeros(len(matrix))
        else:
            out["observation_matrix_"] = matrix * unit[:, None]
            out["intercept_"] = frame.centre + unit * observations.intercept
        noise = q.factors.get("noise_precision")
    if observations.counts:
        return out
    if noise is None or isinstance(noise, PointMass):
        value = observations.noise_prior.value / frame.unit**2
        return {
            **out,
            "noise_variance_": 1.0 / np.broadcast_to(value, frame.unit.shape),
        }
    out["noise_variance_"] = 1.0 / noise.mean
    return out
