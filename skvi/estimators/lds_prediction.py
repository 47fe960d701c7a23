"""What a fitted linear dynamical system answers about sequences."""

import numpy as np
from scipy import special, stats
from sklearn.base import (
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_is_fitted

from skvi.distributions import LocationScaleMixture, PointMass
from skvi.distributions.poisson_mixture import PoissonMixture
from skvi.estimators.base import as_generator, check_count
from skvi.estimators.lds_forecast import SeriesForecast, models_of_draws
from skvi.estimators.prediction import check_probabilities, check_probability
from skvi.estimators.sequences import (
    SequenceEstimatorMixin,
    averaged_over_draws,
    refuses_lengths,
)
from skvi.estimators.summary import Summary
from skvi.inference.blocks import blas_threads, run_parallel
from skvi.models.lds import Block, simulate
from skvi.models.lds.block import chunks, extended_outer
from skvi.models.lds.predictive import known, log_densities
from skvi.models.lds.response import gammas, mean_changes

N_DRAWS = 200  # of the parameters, that a forecast averages over
N_DRAWS_OF_COUNTS = 50  # where quantiles are sums over Poisson laws


class LDSPredictionMixin(
    SequenceEstimatorMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    DensityMixin,
):
    """States, predictions, densities, forecasts and draws.

    ``_validate_steps(X)`` checks new steps and returns (features, sequences); the rest
    is read off the fit.
    """

    # -- states ------------------------------------------------------------------------

    @refuses_lengths
    def transform(self, X):
        """Posterior means of the states of each step, given its whole sequence.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features)
            Steps, with the columns that have a role.

        Returns
        -------
        states : ndarray of shape (n_steps, n_states)
        """
        return self.smooth(X)

    @property
    def _n_features_out(self):
        return self._fitted_setup.model.dim

    @refuses_lengths
    def smooth(self, X, return_std=False, return_cov=False):
        """The states of each step given its whole sequence, with their uncertainty.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features)
            Steps, with the columns that have a role.

        return_std : bool, default=False
            Also return standard deviations.

        return_cov : bool, default=False
            Also return covariances.

        Returns
        -------
        mean : ndarray of shape (n_steps, n_states)

        std : ndarray of shape (n_steps, n_states)
            With ``return_std=True``.

        cov : ndarray of shape (n_steps, n_states, n_states)
            With ``return_cov=True``. With ``posterior_covariance="linear_response"``
            both include what is not known of the variances.
        """
        if return_std and return_cov:
            raise ValueError(
                f"return_std={return_std!r} and return_cov={return_cov!r} exclude each "
                "other: ask for one of them."
            )
        check_is_fitted(self)
        model, q, blocks = self._blocks(X)
        setup = self._fitted_setup
        with blas_threads(model.dim):
            laws = self._chains(model, q, blocks)
        mean = np.concatenate([law.mean for law in laws])
        mean = setup.state_shift + setup.state_unit * mean
        if not (return_std or return_cov):
            return mean
        if return_std and self._corrected is None:
            std = np.sqrt(np.concatenate([law.variance() for law in laws]))
            return mean, setup.state_unit * std
        cov = np.concatenate(
            [self._state_covariances(*pair) for pair in zip(laws, blocks)]
        )
        cov *= setup.state_unit * setup.state_unit[:, None]
        if return_cov:
            return mean, cov
        return mean, np.sqrt(np.diagonal(cov, axis1=1, axis2=2))

    @property
    def states_(self):
        """Posterior means of the states of the last steps that were fitted."""
        return np.concatenate([law.mean for law in self._chain_of_fit])

    @property
    def states_covariance_(self):
        """Their covariances, (n_steps, K, K)."""
        return np.concatenate([law.variances[law.whose] for law in self._chain_of_fit])

    @property
    def lagged_states_covariance_(self):
        """``cov(x_t, x_{t+1})``, (n_steps - 1, K, K); zero between sequences."""
        found = [law.lagged[law.whose] for law in self._chain_of_fit]
        return np.concatenate(found)[:-1]

    @property
    def _chain_of_fit(self):
        if not hasattr(self, "_fitted_chains"):
            raise AttributeError(f"this {type(self).__name__} is not fitted yet")
        return self._fitted_chains

    @staticmethod
    def _chains(model, q, blocks, n_jobs=None):
        return run_parallel(
            lambda block: model.chain(q, block), blocks, n_jobs, shared_memory=True
        )

    @property
    def _corrected(self):
        """Covariance of the log precisions by linear response, or None."""
        if self._fitted_response is None or not self._fitted_q.factors:
            return None
        return self._fitted_response

    def _state_covariances(self, law, block, steps=slice(None)):
        """In the model's units, (n_steps, K, K)."""
        found = law.covariances
        cov = found.variances[found.whose[steps]]
        if self._corrected is None:
            return cov
        model, q = self._fitted_setup.model, self._fitted_q
        changes = mean_changes(model, block, q)[:, steps]
        root = np.linalg.cholesky(self._corrected + 1e-12 * np.eye(len(changes)))
        moved = np.einsum("ij,itk->jtk", root, changes)
        return cov + np.einsum("jtk,jtl->tkl", moved, moved)

    # -- observations ------------------------------------------------------------------

    @refuses_lengths
    def predict(self, X, return_std=False, quantiles=None):
        """A new observation at each step, given all of its sequence.

        Noise is included; the observed value of the step is used like all others. For
        a missing entry this is its predictive law.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features)
            Steps, with the columns that have a role.

        return_std : bool, default=False
            Also return standard deviations.

        quantiles : array-like of shape (n_quantiles,) or float, default=None
            Return these quantiles in place of the mean.

        Returns
        -------
        mean : ndarray of shape (n_steps, n_features)
            Without the columns that have a role. Of counts, the expected rate.

        std : ndarray of the same shape
            With ``return_std=True``.

        quantiles : ndarray of shape (n_steps, n_features, n_quantiles)
            With `quantiles`.
        """
        check_is_fitted(self)
        if return_std and quantiles is not None:
            raise ValueError(
                f"return_std={return_std!r} and quantiles={quantiles!r} exclude each "
                "other: ask for one of them."
            )
        if quantiles is not None:
            p = check_probabilities(quantiles, "quantiles")
            scale, shift = self._units
            found = self._by_step(X, lambda law: law.quantile(p))
            return shift[:, None] + scale[:, None] * found
        scale, shift = self._units
        mean = shift + scale * self._by_step(X, lambda law: law.mean)
        if not return_std:
            return mean
        return mean, scale * np.sqrt(self._by_step(X, lambda law: law.variance()))

    def predict_interval(self, X, confidence_level=0.95):
        """Central interval that holds a new observation with the given probability.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features)
            Steps, with the columns that have a role.

        confidence_level : float, default=0.95
            Probability of the interval, strictly between 0 and 1.

        Returns
        -------
        interval : ndarray of shape (n_steps, n_features, 2)
        """
        check_probability(confidence_level, "confidence_level")
        tail = 0.5 * (1.0 - confidence_level)
        return self.predict(X, quantiles=[tail, 1.0 - tail])

    def impute(self, X, return_std=False):
        """Fill missing entries with their predictive means given the sequence.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features)
            Steps, with the columns that have a role; NaN marks what is missing.

        return_std : bool, default=False
            Also return the predictive standard deviations.

        Returns
        -------
        filled : ndarray of shape (n_steps, n_features)
            The features, without the columns that have a role.

        std : ndarray of shape (n_steps, n_features)
            With ``return_std=True``; zero where the entry was observed.
        """
        mean, std = self.predict(X, return_std=True)
        features, _ = self._validate_steps(X)
        missing = np.isnan(features)
        filled = np.where(missing, mean, features)
        return (filled, np.where(missing, std, 0.0)) if return_std else filled

    def _by_step(self, X, read):
        """``read(law)`` of all steps and columns, (n_steps, D, ...)."""
        model, q, blocks = self._blocks(X)
        D, out = len(self._fitted_frame.unit), []
        for law, block in zip(self._chains(model, q, blocks), blocks):
            for steps in chunks(block.n_steps):
                found = read(self._observation_law(model, q, law, steps))
                out.append(found.reshape(-1, D, *found.shape[1:]))
        return np.concatenate(out)

    def _observation_law(self, model, q, law, steps):
        """The laws of observations at some steps, flat over steps and columns."""
        obs, part = model.observations, q.parts["observations"]
        outer, found = extended_outer(law, steps), law.covariances
        m = np.column_stack([law.mean[steps], np.ones(len(outer))])
        V = np.zeros_like(outer)
        V[:, :-1, :-1] = found.variances[found.whose[steps]]
        rows = part.factors.get("observation")
        theta = obs.theta if rows is None else rows.location
        loc = m @ theta.T
        signal = np.einsum("sj,tjk,sk->ts", theta, V, theta, optimize=True)
        own = 0.0  # what is not known of theta, in units of the noise
        if rows is not None:
            P = np.broadcast_to(rows.covariance_given_noise, (len(theta), *V.shape[1:]))
            own = np.einsum("tjk,sjk->ts", outer, P, optimize=True)
        if obs.counts:
            return PoissonMixture(loc.reshape(-1, 1), (signal + own).reshape(-1, 1))
        noise = rows.noise if rows is not None else obs.noise(part)
        if isinstance(noise, PointMass):
            df, variance = np.full(len(theta), np.inf), 1.0 / noise.value
        else:
            df, variance = 2.0 * noise.shape, noise.rate / noise.shape
        scale = np.sqrt(signal + variance * (1.0 + own)).reshape(-1, 1)
        df = np.broadcast_to(df, loc.shape).reshape(-1, 1)
        return LocationScaleMixture(np.ones(df.shape), df, loc.reshape(-1, 1), scale)

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
            None takes the posterior means of the parameters. A number averages the
            density of each sequence over as many draws of them.

        random_state : int, RandomState instance or None, default=None
            Determines the draws.

        Returns
        -------
        log_density : ndarray of shape (n_steps,)
            In nats; those of a sequence add up to its log density. Of counts, a lower
            bound at each step, given a Gaussian law of the past.
        """
        check_is_fitted(self)
        X, sequences = self._validate_steps(X)
        return self._densities(X, sequences, n_samples, random_state)

    def _densities(self, X, sequences, n_samples, random_state):
        frame, model = self._fitted_frame, self._fitted_setup.model
        block = Block(frame.inward(X), sequences)
        log_unit = (~np.isnan(X)) @ np.log(frame.unit)
        with blas_threads(model.dim):
            if n_samples is None:
                return log_densities(self._plug_in, block) - log_unit
            check_count(n_samples, "n_samples")
            models = self._models_of_draws(n_samples, as_generator(random_state))
            each = run_parallel(
                lambda draw: log_densities(draw, block), models, self.n_jobs, True
            )
        return averaged_over_draws(each, sequences) - log_unit

    # -- simulation and forecast -------------------------------------------------------

    def sample(self, n_samples=1, random_state=None):
        """Draw one new sequence, the parameters at their posterior means.

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
        states : ndarray of shape (n_samples, n_states)
        """
        check_is_fitted(self)
        check_count(n_samples, "n_samples", "the number of steps")
        state = self.random_state if random_state is None else random_state
        rng, model = as_generator(state), self._plug_in
        x = simulate.states(model, [0, int(n_samples)], rng)
        scale, shift = self._units
        setup = self._fitted_setup
        X = shift + scale * simulate.steps(model, x, rng)
        return X, setup.state_shift + setup.state_unit * x

    @refuses_lengths
    def forecast(self, X, n_steps=1):
        """The laws of the steps that follow each sequence.

        They are mixtures over 200 draws of the parameters (50 for counts), always the
        same. Where the
        mean transition is stable, draws whose transition is not are left out: a few
        that explode would be all of a long forecast.

        Parameters
        ----------
        X : array-like of shape (n_observed, n_features)
            Steps so far, with the columns that have a role.

        n_steps : int, default=1
            How many steps to look ahead.

        Returns
        -------
        forecast : SeriesForecast
            With ``mean``, ``std()``, ``interval(confidence_level)`` and
            ``quantile(probabilities)`` of every feature, ``states_mean``, and
            ``sample(n_samples, random_state)``, which draws whole paths. Arrays begin
            with (n_sequences, n_steps); sequences are in the order of X.
        """
        check_is_fitted(self)
        check_count(n_steps, "n_steps", "the number of steps to look ahead")
        model, q, blocks = self._blocks(X)
        means, covariances = [], []
        for law, block in zip(self._chains(model, q, blocks), blocks):
            last = block.sequences.lasts
            means.append(law.mean[last])
            covariances.append(self._state_covariances(law, block, last))
        setup = self._fitted_setup
        n = N_DRAWS_OF_COUNTS if model.observations.counts else N_DRAWS
        return SeriesForecast(
            self._models_of_draws(n, np.random.default_rng(0), corrected=True),
            np.concatenate(means),
            np.concatenate(covariances),
            int(n_steps),
            self._units,
            (setup.state_unit, setup.state_shift),
        )

    @property
    def _units(self):
        """(scale, shift) from the model's units to the data's, a number a feature."""
        return self._fitted_frame.unit, self._fitted_frame.centre

    @property
    def _plug_in(self):
        """The model with the posterior means of its parameters."""
        model, q = self._fitted_setup.model, self._fitted_q
        means = {name: np.asarray(value)[None] for name, value in q.mean.items()}
        return known(model, means, 0)

    def _models_of_draws(self, n, rng, corrected=False):
        model, q = self._fitted_setup.model, self._fitted_q
        if corrected and self._corrected is not None:
            draws = self._corrected_draws(n, rng)
        else:
            draws = q.sample(n, rng)
        models = models_of_draws(model, draws, n)
        return _stable(models, self._plug_in) if corrected else models

    def _corrected_draws(self, n, rng):
        """Precisions whose logs are Gaussian with the corrected covariance."""
        q = self._fitted_q
        shape, rate = gammas(q)
        mean = special.digamma(shape) - np.log(rate)
        logs = rng.multivariate_normal(mean, self._corrected, size=n)
        sizes = np.cumsum([law.shape.size for law in q.factors.values()])
        parts = np.split(np.exp(logs), sizes[:-1], axis=1)
        return dict(zip(q.factors, parts))

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
            Steps whose states are drawn, too.

        Returns
        -------
        draws : dict of str to ndarray of shape (n_samples, ...)
            The parameters that are not known, in the data's units:
            ``transition_matrix``, ``transition_relevance``, ``observation_matrix``,
            ``intercept``, ``observation_relevance``, ``noise_precision``,
            ``initial_precision``; of named structures ``level_precision`` and its
            like. With `X` also ``states`` (n_steps, n_states).
        """
        draws = super().sample_posterior(n_samples, random_state)
        if X is not None:
            rng = as_generator(random_state).spawn(1)[0]
            law, setup = self._whole_chain(X), self._fitted_setup
            states = law.sample(int(n_samples), rng)
            draws["states"] = setup.state_shift + setup.state_unit * states
        return draws

    def log_posterior_density(self, draws, X=None):
        """Log density of draws under the posterior.

        Parameters
        ----------
        draws : dict
            As ``sample_posterior`` returns them.

        X : array-like of shape (n_steps, n_features), default=None
            The steps given there; their states are then counted.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        total = self.posterior_.log_density(draws)
        if X is None:
            return total
        setup = self._fitted_setup
        states = (np.asarray(draws["states"]) - setup.state_shift) / setup.state_unit
        volume = states.shape[1] * np.sum(np.log(setup.state_unit))
        return total + self._whole_chain(X).log_density(states) - volume

    def summary(self, confidence_level=0.95):
        """Table of the parameters that are not known.

        Parameters
        ----------
        confidence_level : float, default=0.95
            Probability of the central intervals, strictly between 0 and 1.

        Returns
        -------
        summary : Summary
            Mean, sd, interval and P(> 0) of transition[j, k], loading[column, k] and
            intercept[column]; and of the standard deviations of noises, whose mean is
            here that of the logs, exponentiated (the median, about), with the relative
            sd. Prints as text, HTML in notebooks, ``to_pandas()``.
        """
        check_is_fitted(self)
        check_probability(confidence_level, "confidence_level")
        tail = 0.5 * (1.0 - confidence_level)
        labels, table = [], []
        for law, names in self._location_laws():
            labels += names
            table.append(_location_rows(*law, tail))
        for name, mean, sd in self._log_deviations():
            labels.append(name)
            centre = np.exp(mean)
            ends = np.exp(mean + sd * special.ndtri([tail, 1.0 - tail]))
            table.append(np.array([[centre, centre * sd, *ends, 1.0]]))
        rows = np.concatenate(table) if table else np.empty((0, 5))
        notes = {"elbo": self.elbo_}
        return Summary(type(self).__name__, labels, rows, confidence_level, notes)

    def _location_laws(self):
        """((df, loc, scale), names) of matrices and intercepts."""
        q, names, K = self.posterior_, self._fitted_features, self._n_features_out
        if "transition" in q.factors:
            law = q["transition"]
            scale = np.sqrt(law.variance("transition_matrix"))
            each = [f"transition[{j}, {k}]" for j in range(K) for k in range(K)]
            yield (np.inf, law.location, scale), each
        if "observation" in q.factors:
            law = q["observation"]
            known_noise = isinstance(law.noise, PointMass)
            df = np.inf if known_noise else 2.0 * law.noise.shape[:, None]
            unit = 1.0 / law.noise.mean
            P = np.diagonal(law.covariance_given_noise, axis1=1, axis2=2)
            scale = np.sqrt(np.broadcast_to(unit, len(names))[:, None] * P)
            each = [
                name
                for column in names
                for name in [
                    *(f"loading[{column}, {k}]" for k in range(K)),
                    f"intercept[{column}]",
                ]
            ]
            yield (df, law.location, scale), each

    def _log_deviations(self):
        """(name, mean, sd) of logs of standard deviations of noises."""
        names = self._fitted_features
        if self._fitted_setup.model.is_structural:
            for key, means in self.log_variances_.items():
                for column, mean, sd in zip(names, means, self.log_variances_std_[key]):
                    yield f"sd of {key}[{column}]", 0.5 * mean, 0.5 * sd
            return
        q = self.posterior_
        noise = q["observation"].noise if "observation" in q.factors else None
        if noise is None:
            noise = q.factors.get("noise_precision")
        if noise is None or isinstance(noise, PointMass):
            return
        sds = np.sqrt(special.polygamma(1, noise.shape))
        for column, mean, sd in zip(names, noise.mean_log, sds):
            yield f"sd of noise[{column}]", -0.5 * mean, 0.5 * sd

    # -- helpers -----------------------------------------------------------------------

    def _blocks(self, X):
        """(model, posterior, blocks) that read the steps of X."""
        X, sequences = self._validate_steps(X)
        data = self._fitted_frame.inward(X)
        return self._fitted_setup.model, self._fitted_q, Block.parts(data, sequences)

    def _whole_chain(self, X):
        X, sequences = self._validate_steps(X)
        block = Block(self._fitted_frame.inward(X), sequences)
        return self._fitted_setup.model.chain(self._fitted_q, block)


def _stable(models, plug_in):
    """The models that do not explode, where that of the mean parameters does not."""
    if _growth(plug_in) >= 1.0:
        return models
    return [model for model in models if _growth(model) < 1.0] or [plug_in]


def _growth(model):
    return np.abs(np.linalg.eigvals(model.dynamics.matrix)).max()


def _location_rows(df, loc, scale, tail):
    """Mean, sd, interval and P(> 0) of Student-t laws, a row for each."""
    df = np.broadcast_to(df, loc.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        inflation = np.where(np.isinf(df), 1.0, df / (df - 2.0))
    inflation = np.where(df > 2.0, inflation, np.inf)
    normal = np.isinf(df)
    finite = np.where(normal, 1.0, df)
    z = np.where(normal, special.ndtri(tail), stats.t.ppf(tail, finite))
    positive = np.where(
        normal, special.ndtr(loc / scale), stats.t.cdf(loc / scale, finite)
    )
    columns = loc, scale * np.sqrt(inflation), loc + z * scale, loc - z * scale
    return np.stack([*columns, positive], axis=-1).reshape(-1, 5)
