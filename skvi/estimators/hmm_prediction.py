"""What a fitted hidden Markov model answers about sequences."""

import numpy as np
from sklearn.base import (
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_is_fitted

from skvi.estimators.base import as_generator, check_count
from skvi.estimators.hmm_forecast import CategoricalForecast, NumericForecast
from skvi.estimators.prediction import check_probability
from skvi.estimators.sequences import (
    SequenceEstimatorMixin,
    averaged_over_draws,
    refuses_lengths,
)
from skvi.estimators.summary import Summary
from skvi.inference.blocks import run_parallel
from skvi.models.hmm import Block, PredictiveChain
from skvi.models.mixture import local

METHODS = ("viterbi", "marginal")


class HMMPredictionMixin(
    SequenceEstimatorMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    DensityMixin,
):
    """States, densities, forecasts and draws.

    ``_validate_steps(X)`` checks new steps and returns (features, sequences); the rest
    is read off the fit.
    """

    # -- states ------------------------------------------------------------------------

    @refuses_lengths
    def predict(self, X, method="viterbi"):
        """The most probable states of each sequence.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features)
            Steps, with the columns that have a role.

        method : {"viterbi", "marginal"}, default="viterbi"
            The path that is most probable as a whole, or the most probable state of
            each step. They are the same for ``posterior="mean_field"``, where states
            are independent.

        Returns
        -------
        states : ndarray of int of shape (n_steps,)
        """
        if not isinstance(method, str) or method not in METHODS:
            raise ValueError(
                f"method={method!r} must be one of {METHODS}. (Lengths are no "
                "argument: name a column of ids in the constructor, sequence=...)"
            )
        if method == "marginal":
            return self.predict_proba(X).argmax(axis=1)
        check_is_fitted(self)
        model, q, blocks = self._local_blocks(X)

        def paths(block):
            log_density = model.log_densities(q, block)
            return model.family.paths(log_density, q.chain, block)

        return np.concatenate(run_parallel(paths, blocks, self.n_jobs))

    @refuses_lengths
    def predict_proba(self, X):
        """Probabilities of the states of each step, given its whole sequence.

        They are those of q(z), the local step of the posterior family: with
        ``posterior="mean_field"`` they tend to be too sure.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features)
            Steps, with the columns that have a role.

        Returns
        -------
        probabilities : ndarray of shape (n_steps, n_components)
        """
        check_is_fitted(self)
        model, q, blocks = self._local_blocks(X)

        def shares(block):
            return model.local(q, block).shares

        found = run_parallel(shares, blocks, self.n_jobs)
        return np.ascontiguousarray(np.concatenate(found, axis=1).T)

    @refuses_lengths
    def transform(self, X):
        """Probabilities of the states of each step: ``predict_proba``.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features)
            Steps, with the columns that have a role.

        Returns
        -------
        probabilities : ndarray of shape (n_steps, n_components)
        """
        return self.predict_proba(X)

    @property
    def _n_features_out(self):
        return self.startprob_.shape[0]

    @refuses_lengths
    def fit_predict(self, X, y=None):
        """Fit, and return the most probable states.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features)
            Steps, with the columns that have a role.

        y : None
            Ignored; there by convention.

        Returns
        -------
        states : ndarray of int of shape (n_steps,)
        """
        return self.fit(X, y).predict(X)

    # -- densities ---------------------------------------------------------------------

    @refuses_lengths
    def score_samples(self, X, n_samples=None, random_state=None):
        """Log predictive density of each step, given those before it in its sequence.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features)
            Steps, with the columns that have a role. The density of a step with NaN is
            that of its other entries.

        n_samples : int or None, default=None
            None takes the posterior means of the start and transition probabilities,
            and integrates the emissions' parameters out step by step. A number
            averages the density of each sequence over as many draws of all parameters:
            slower, and closer to the posterior predictive law of long sequences.

        random_state : int, RandomState instance or None, default=None
            Determines the draws.

        Returns
        -------
        log_density : ndarray of shape (n_steps,)
            In nats; those of a sequence add up to its log density, a law that
            integrates to one.
        """
        check_is_fitted(self)
        X, sequences = self._validate_steps(X)
        return self._densities(X, sequences, n_samples, random_state)

    def _densities(self, X, sequences, n_samples, random_state):
        kind, frame = self._fitted_kind, self._fitted_frame
        x, log_unit = kind.inward(X, frame)
        if n_samples is None:
            chain = self._predictive_chain()
            return chain.log_density(x, sequences, self.n_jobs) - log_unit
        check_count(n_samples, "n_samples")
        draws = self.sample_posterior(n_samples, random_state)
        draws, emissions = kind.inward_draws(draws, frame), self._fitted_model.emissions

        def density(i):
            law = emissions.plug_in(draws, i)
            chain = PredictiveChain(draws["startprob"][i], draws["transmat"][i], law)
            return chain.log_density(x, sequences)

        each = run_parallel(density, range(n_samples), self.n_jobs)
        return averaged_over_draws(each, sequences) - log_unit

    # -- simulation and forecast -------------------------------------------------------

    def sample(self, n_samples=1, random_state=None):
        """Draw one new sequence from the predictive chain.

        Parameters
        ----------
        n_samples : int, default=1
            Number of steps.

        random_state : int, RandomState instance or None, default=None
            Determines the draws; None is the estimator's own `random_state`.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Features only: columns with a role are not among them.
        states : ndarray of int of shape (n_samples,)
        """
        check_is_fitted(self)
        check_count(n_samples, "n_samples", "the number of steps")
        state = self.random_state if random_state is None else random_state
        rng, chain = as_generator(state), self._predictive_chain()
        states = chain.paths(chain.startprob[None], int(n_samples), rng)[0]
        scale, shift = self._units
        return shift + scale * chain.law.sample(states, rng), states

    @refuses_lengths
    def forecast(self, X, n_steps=1):
        """The laws of the steps that follow each sequence.

        Parameters
        ----------
        X : array-like of shape (n_observed, n_features)
            Steps so far, with the columns that have a role.

        n_steps : int, default=1
            How many steps to look ahead.

        Returns
        -------
        forecast : Forecast
            With ``state_probabilities`` (n_sequences, n_steps, n_components), and
            ``mean``, ``std()``, ``interval(confidence_level)``,
            ``quantile(probabilities)`` of every feature; for categories
            ``probabilities`` instead; ``sample(n_samples, random_state)`` draws whole
            paths. Sequences are in the order of X.
        """
        check_is_fitted(self)
        check_count(n_steps, "n_steps", "the number of steps to look ahead")
        X, sequences = self._validate_steps(X)
        x, _ = self._fitted_kind.inward(X, self._fitted_frame)
        chain = self._predictive_chain()
        states = chain.after(x, sequences, int(n_steps), self.n_jobs)
        if not hasattr(chain.law, "column"):
            return CategoricalForecast(chain, states)
        return NumericForecast(chain, states, *self._units)

    @property
    def _units(self):
        """(scale, shift) from the model's units to the data's, a number a feature."""
        frame, n = self._fitted_frame, len(self._fitted_features)
        if hasattr(frame, "unit"):
            return frame.unit, frame.centre
        return np.ones(n, dtype=int), np.zeros(n, dtype=int)

    def _predictive_chain(self):
        law = self._fitted_model.emissions.predictive(self._fitted_q.emissions)
        return PredictiveChain(self.startprob_, self.transmat_, law)

    # -- the posterior -----------------------------------------------------------------

    def sample_posterior(self, n_samples=1000, random_state=None, X=None):
        """Draw the model's variables from the posterior.

        Parameters
        ----------
        n_samples : int, default=1000
            Number of draws.

        random_state : int, RandomState instance or None, default=None
            Determines the draws; pass an int for the same ones every time.

        X : array-like of shape (n_steps, n_features), default=None
            Steps whose local variables are drawn, too.

        Returns
        -------
        draws : dict of str to ndarray of shape (n_samples, ...)
            ``startprob`` (n_components,), ``transmat`` (n_components, n_components),
            and ``means`` and ``precisions``, ``rates`` or ``probabilities``, in the
            data's units. With `X` also ``states`` (n_steps,), and ``missing``, the NaN
            entries in the order of X's rows, where covariances are full or tied.
        """
        draws = super().sample_posterior(n_samples, random_state)
        if X is not None:
            rng = as_generator(random_state).spawn(1)[0]
            model, q, block = self._whole_block(X)
            densities = model.log_densities(q, block)
            z = model.family.sample(densities, q.chain, block, int(n_samples), rng)
            draws["states"] = z
            geometry = getattr(model.emissions, "geometry", None)
            if geometry is not None and geometry.has_latent:
                args = geometry, q.table, block.data, z, np.ones(z.shape)
                draws["missing"] = local.sample_missing(*args, rng)
        return draws

    def log_posterior_density(self, draws, X=None):
        """Log density of draws under the posterior.

        Parameters
        ----------
        draws : dict
            As ``sample_posterior`` returns them.

        X : array-like of shape (n_steps, n_features), default=None
            The steps given there; their local variables are then counted.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        total = self.posterior_.log_density(draws)
        if X is None:
            return total
        model, q, block = self._whole_block(X)
        z, densities = draws["states"], model.log_densities(q, block)
        total = total + model.family.log_density(z, densities, q.chain, block)
        if "missing" in draws:
            args = model.emissions.geometry, q.table, block.data, z, np.ones(z.shape)
            total += local.missing_density(*args, draws["missing"])
        return total

    def summary(self, confidence_level=0.95):
        """Table of the parameters.

        Parameters
        ----------
        confidence_level : float, default=0.95
            Probability of the central intervals, strictly between 0 and 1.

        Returns
        -------
        summary : Summary
            Mean, sd, interval and P(> 0) of ``start[k]``, ``transition[j, k]`` and the
            emissions' ``mean``, ``rate`` or ``probability``; prints as text, HTML in
            notebooks, ``to_pandas()``.
        """
        check_is_fitted(self)
        check_probability(confidence_level, "confidence_level")
        q, K = self.posterior_, range(len(self.startprob_))
        rows = [
            np.column_stack(
                [
                    law.mean.ravel(),
                    np.sqrt(law.variance()).ravel(),
                    law.interval(confidence_level).reshape(-1, 2),
                    np.ones(law.mean.size),
                ]
            )
            for law in (q.startprob, q.transmat)
        ]
        labels = [f"start[{k}]" for k in K]
        labels += [f"transition[{j}, {k}]" for j in K for k in K]
        tail = 0.5 * (1.0 - confidence_level)
        names = self._fitted_features
        more, table = self._fitted_kind.summary(q.emissions, names, tail)
        return Summary(
            type(self).__name__,
            labels + more,
            np.concatenate([*rows, table]),
            confidence_level,
            {"elbo": self.elbo_},
        )

    # -- helpers -----------------------------------------------------------------------

    def _local_model(self, X, for_draws=False):
        """(model, posterior, data, sequences) that read the steps of X."""
        X, sequences = self._validate_steps(X)
        kind, model = self._fitted_kind, self._fitted_model
        data = kind.rows(X, None, self._fitted_frame)
        emissions = kind.emissions_for(model.emissions, data, for_draws)
        q = self._fitted_q.with_reader(emissions)
        return model.with_(emissions=emissions), q, data, sequences

    def _local_blocks(self, X):
        model, q, data, sequences = self._local_model(X)
        return model, q, model.blocks(data, sequences, self.n_jobs)

    def _whole_block(self, X):
        model, q, data, sequences = self._local_model(X, for_draws=True)
        return model, q, Block(data, sequences)
