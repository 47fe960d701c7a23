"""Linear dynamical systems for scikit-learn."""

import warnings
from numbers import Integral, Real

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from skvi._sklearn import Interval, StrOptions, fit_context
from skvi.callbacks import fit_task
from skvi.estimators.base import VariationalEstimator, as_generator, keeps_fit_on_error
from skvi.estimators.lds_attributes import LDSAttributes
from skvi.estimators.lds_prediction import LDSPredictionMixin
from skvi.estimators.lds_setup import lags, set_up
from skvi.estimators.sequences import (
    refuses_lengths,
    validate_steps,
)
from skvi.inference.blocks import blas_threads
from skvi.inference.drivers import StochasticState
from skvi.inference.engine import Fit
from skvi.models.lds import COMPONENTS, Block, Settings, Totals, search
from skvi.models.mixture.rows import Frame

POSITIVE = Interval(Real, 0.0, None, closed="neither")


class VariationalLinearDynamicalSystem(LDSPredictionMixin, VariationalEstimator):
    r"""Linear dynamical system with conjugate priors: a state space model.

    Each step y_t of a sequence is seen of a state x_t of K numbers, and each state
    follows from the one before:

    .. math::

        x_t &= A x_{t-1} + w_t, \qquad w_t \sim N(0, Q) \\
        y_t &= C x_t + d + v_t, \qquad v_{ts} \sim N(0, 1 / \rho_s)

    or, for counts, ``y_ts ~ Poisson(exp(c_s . x_t + d_s))``. The posterior of the
    parameters and of the states maximises the evidence lower bound, ``elbo_``.

    Parameters
    ----------
    n_components : int, default=1
        Number of states K of the free structure.

    structure : str, default="free"
        What A, C and Q are like.

        - "free": A, C and d are learnt (or given); Q = I, which fixes the scale of the
          states. A has one relevance a column, and so has C: states that the data do
          not ask for are shut off.
        - "local_level": a random walk seen with noise.
        - "local_linear_trend": a random walk with a slope that is one, too.
        - "seasonal": a local level, and a season of `period` steps whose shape changes
          slowly (trigonometric form, ``period - 1`` states).
        - "basic_structural": a local linear trend and the season.

        Under the named structures each column of X is a series of its own, with
        variances of its own; the states of the columns stand side by side.

    period : None or int, default=None
        Number of steps of a season.

    observations : {"gaussian", "poisson"}, default="gaussian"
        Numbers with Gaussian noise, or counts with a log link.

    posterior : {"structured", "mean_field"}, default="structured"
        The posterior family of the states; parameters have the same posterior in both.

        - "structured": a Gaussian chain, whose precision is block-tridiagonal (what a
          Kalman smoother computes, for known parameters).
        - "mean_field": steps independent. The means are solved on the same matrix; the
          variances are too small and the bound is lower.

    posterior_covariance : {"variational", "linear_response"}, default="variational"
        Of named structures: how the uncertainty of their variances is found. q takes
        the states and the variances to be independent, so that it is far too sure of
        the variances; "linear_response" corrects ``log_variances_std_``, ``summary``,
        ``smooth`` and ``forecast``. It changes neither ``posterior_`` nor ``elbo_``.

    sequence : None, str or int, default=None
        Name or position of the column of X that holds an id for each step. Steps of a
        sequence stand together. None: all of X is one sequence. The column is no
        feature. ``skvi.sequence_ids(lengths)`` makes ids.

    sequence_weight : None, str or int, default=None
        Name or position of a column that says how often a sequence counts: 2 is the
        sequence twice. Constant in each sequence.

    transition_matrix : None or array-like of shape (K, K), default=None
        A, if it is known.

    transition_covariance : None, float or array-like, default=None
        Q, with a known A: a number, K variances or a matrix. None is the identity.

    observation_matrix : None or array-like of shape (n_features, K), default=None
        C, if it is known.

    intercept : None or array-like of shape (n_features,), default=None
        d, with a known C. None is zero.

    noise_variance : None, float or array-like of shape (n_features,), default=None
        1 / rho, if it is known.

    state_variances : None or dict, default=None
        Of named structures: the variances that are known, by component ("level",
        "slope", "seasonal"), a number or one for each column.

    initial_mean, initial_covariance : None or array-like, default=None
        The law of first states, if it is known: K numbers; a number, K variances or a
        matrix. With the free structure None for both lets x_1k ~ N(0, 1 / lambda_k)
        with unknown lambda_k, and None for one of them is zero or the identity. Named
        structures have a wide law, relative to the data.

    transition_prior, observation_prior : None or (shape, rate), default=None
        Gamma laws of the relevances: A_kj ~ N(0, 1 / alpha_j), and c_sk ~ N(0, 1 /
        (rho_s gamma_k)) (of counts without the rho). None is (0.5, 1e-4): flat enough
        on the log scale to shut a state off.

    initial_prior : None or (shape, rate), default=None
        Gamma law of lambda_k. None is (0.5, 0.5).

    noise_prior : None or (shape, rate), default=None
        Gamma law of rho_s, the rate in squared units of the data. None is a shape of 1
        and half of the column's variance; of named structures 0.5 and a twentieth of
        the variance of its changes, a trend and a season taken away.

    state_prior : None, (shape, rate) or dict of these, default=None
        Of named structures: Gamma laws of the precisions of the components. None is a
        shape of 0.5, and a rate of a twentieth of that variance for the level, of a
        200th for slope and season (0.005 and 0.0005 for counts).

    intercept_precision_prior : None or float, default=None
        How many steps the prior of d, about the column's mean, is worth (of counts, its
        precision). None is 0.1.

    n_init : int, default=1
        Number of starts. The first is of principal components of the steps and of
        moving averages, the others of random combinations of these. The highest bound
        wins.

    max_iter : int, default=1000
        Largest number of iterations of a run.

    tol : float, default=1e-6
        Rise of ``elbo_`` in nats a step below which a run may end; the posterior must
        have less than 0.001 sd left to go, too.

    learning_decay : float, default=0.7
        Exponent of the step lengths of ``partial_fit``.

    learning_offset : float, default=1.0
        Slows its first steps down.

    random_state : int, RandomState instance or None, default=None
        Determines the starts after the first.

    warm_start : bool, default=False
        Start from the last fit's posterior.

    n_jobs : int or None, default=None
        Number of joblib workers, over sequences.

    verbose : bool or int, default=False
        Print the ELBO at iterations 1, 2, 4, ...; at every one if above 1.

    Attributes
    ----------
    transition_matrix_, transition_matrix_std_ : ndarrays of shape (K, K)
        Posterior mean of A, and standard deviations.

    transition_covariance_ : ndarray of shape (K, K)
        Q; of named structures the diagonal matrix of ``state_variances_``.

    observation_matrix_ : ndarray of shape (n_features, K)
        Posterior mean of C. The largest entry of each column, in sds of its row's
        noise, is positive, and the states are in the order of what they explain.

    observation_matrix_std_, observation_matrix_covariance_ : ndarrays
        Standard deviations (n_features, K), and covariances of rows (n_features, K, K).

    intercept_, intercept_std_ : ndarrays of shape (n_features,)
        Of d.

    noise_variance_ : ndarray of shape (n_features,)
        1 / E[rho].

    transition_relevance_, observation_relevance_ : ndarrays of shape (K,)
        Posterior means of alpha and gamma: large for a state that is shut off.

    initial_precision_ : ndarray of shape (K,)
        Posterior mean of lambda.

    state_variances_ : dict of str to ndarray of shape (n_features,)
        Of named structures: 1 / E[precision], by component.

    log_variances_, log_variances_std_ : dicts of str to ndarray of shape (n_features,)
        Of named structures: posterior means and standard deviations of the logs of the
        unknown variances, by component and "noise".

    log_variances_covariance_ : ndarray of shape (n, n)
        Their covariance, in the order of the dicts and, within one, of the columns.

    states_, states_covariance_, lagged_states_covariance_ : ndarrays
        Of the steps of the last call of `fit` or `partial_fit`: posterior means
        (n_steps, K), covariances (n_steps, K, K), and covariances of each state with
        the next, (n_steps - 1, K, K), zero between sequences and in mean field. Steps
        of sequences whose weight is zero are not among them.

    posterior_ : LDSPosterior
        q of the parameters that are not known, in the data's units.

    elbo_ : float
        The evidence lower bound in nats, every constant kept.

    elbo_terms_ : dict
        Its terms ``log_likelihood``, ``log_prior`` and ``entropy``.

    elbo_path_ : ndarray
        The bound at each iteration.

    n_iter_ : int
        Number of iterations after the start was chosen.

    converged_ : bool
        Whether the run ended by itself.

    transition_prior_, observation_prior_, initial_prior_, noise_prior_, state_prior_
        The resolved priors of what is not known, (shape, rate) in the data's units;
        likewise ``intercept_prior_`` (means), ``intercept_precision_prior_``,
        ``initial_mean_`` and ``initial_covariance_``.

    n_steps_seen_ : int
        Number of steps that the fit has counted.

    n_features_in_ : int
        Number of columns of X seen during fit, those with a role included.

    feature_names_in_ : ndarray of shape (``n_features_in_``,)
        Names of columns seen during fit, where X had names.

    Raises
    ------
    ValueError
        If X or a parameter is not valid, if a parameter means nothing together with the
        others, or if an id of a sequence comes back after another; nothing fitted
        before is lost.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` iterations were not enough.

    See Also
    --------
    VariationalHMM : Discrete states.

    Notes
    -----
    **Expected products.** The precision of q(x) is built from E[A'A] and E[rho C'C],
    not from the squares of means: what is not known of the parameters widens the
    states' law. With all parameters known, "structured" is the exact smoother and
    ``elbo_`` the log likelihood.

    **Missing entries** are integrated out, a whole step too, which assumes that whether
    an entry is missing does not depend on its value.

    **Time.** A step costs K^3 operations until the variances settle, and with constant
    parameters and complete steps K^2 after that; a missing entry costs about 1 / (1 -
    r) such steps more, r the rate at which the chain forgets.

    **Many columns.** The states of a named structure's columns are one vector, so
    that D columns cost D^3 as much as one: fit one estimator a column where they are
    more than a few.

    **Densities.** ``score_samples`` takes the posterior means of the parameters;
    ``n_samples=`` averages over draws.

    **Equivariance.** Multiplying n steps of D columns by c subtracts n D log c from
    ``elbo_`` and changes nothing else.

    References
    ----------
    .. [1] M. J. Beal (2003). Variational algorithms for approximate Bayesian inference,
       chapter 5 (equations 5.16 to 5.48).
    .. [2] A. C. Harvey (1989). Forecasting, structural time series models and the
       Kalman filter, section 2.3.
    .. [3] J. Luttinen (2013). Fast variational Bayesian linear state-space model. ECML.
    .. [4] R. Giordano, T. Broderick, M. I. Jordan (2018). Covariances, robustness, and
       variational Bayes. JMLR 19 (section 3).
    .. [5] E. Challis, D. Barber (2013). Gaussian Kullback-Leibler approximate
       inference. JMLR 14.

    Examples
    --------
    A random walk seen with noise, the level at its end and the next two steps:

    >>> import numpy as np
    >>> from skvi import VariationalLinearDynamicalSystem
    >>> rng = np.random.default_rng(0)
    >>> level = np.cumsum(rng.normal(size=200))
    >>> X = (level + rng.normal(scale=2.0, size=200))[:, None]
    >>> model = VariationalLinearDynamicalSystem(structure="local_level").fit(X)
    >>> mean, std = model.smooth(X, return_std=True)
    >>> bool(abs(mean[-1, 0] - level[-1]) < 2.0 * std[-1, 0])
    True
    >>> forecast = model.forecast(X, n_steps=2)
    >>> forecast.mean.shape, forecast.interval(0.9).shape
    ((1, 2, 1), (1, 2, 1, 2))

    Two hidden states behind five columns:

    >>> model = VariationalLinearDynamicalSystem(n_components=2)
    >>> states = model.fit_transform(rng.normal(size=(100, 5)))
    >>> states.shape
    (100, 2)
    """

    _parameter_constraints = {
        **VariationalEstimator._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "structure": [StrOptions({"free", *COMPONENTS})],
        "period": [None, Interval(Integral, 2, None, closed="left")],
        "observations": [StrOptions({"gaussian", "poisson"})],
        "posterior_covariance": [StrOptions({"variational", "linear_response"})],
        "sequence": [None, str, Integral],
        "sequence_weight": [None, str, Integral],
        "transition_matrix": [None, "array-like"],
        "transition_covariance": [None, POSITIVE, "array-like"],
        "observation_matrix": [None, "array-like"],
        "intercept": [None, "array-like"],
        "noise_variance": [None, POSITIVE, "array-like"],
        "state_variances": [None, dict],
        "initial_mean": [None, "array-like"],
        "initial_covariance": [None, POSITIVE, "array-like"],
        "transition_prior": [None, tuple, list],
        "observation_prior": [None, tuple, list],
        "initial_prior": [None, tuple, list],
        "noise_prior": [None, tuple, list],
        "state_prior": [None, tuple, list, dict],
        "intercept_precision_prior": [None, POSITIVE],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "learning_decay": [Interval(Real, 0.5, 1.0, closed="right")],
        "learning_offset": [Interval(Real, 1.0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components=1,
        *,
        structure="free",
        period=None,
        observations="gaussian",
        posterior="structured",
        posterior_covariance="variational",
        sequence=None,
        sequence_weight=None,
        transition_matrix=None,
        transition_covariance=None,
        observation_matrix=None,
        intercept=None,
        noise_variance=None,
        state_variances=None,
        initial_mean=None,
        initial_covariance=None,
        transition_prior=None,
        observation_prior=None,
        initial_prior=None,
        noise_prior=None,
        state_prior=None,
        intercept_precision_prior=None,
        n_init=1,
        max_iter=1000,
        tol=1e-6,
        learning_decay=0.7,
        learning_offset=1.0,
        random_state=None,
        warm_start=False,
        n_jobs=None,
        verbose=False,
    ):
        self.n_components = n_components
        self.structure = structure
        self.period = period
        self.observations = observations
        self.posterior = posterior
        self.posterior_covariance = posterior_covariance
        self.sequence = sequence
        self.sequence_weight = sequence_weight
        self.transition_matrix = transition_matrix
        self.transition_covariance = transition_covariance
        self.observation_matrix = observation_matrix
        self.intercept = intercept
        self.noise_variance = noise_variance
        self.state_variances = state_variances
        self.initial_mean = initial_mean
        self.initial_covariance = initial_covariance
        self.transition_prior = transition_prior
        self.observation_prior = observation_prior
        self.initial_prior = initial_prior
        self.noise_prior = noise_prior
        self.state_prior = state_prior
        self.intercept_precision_prior = intercept_precision_prior
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.learning_decay = learning_decay
        self.learning_offset = learning_offset
        self.random_state = random_state
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.positive_only = self.observations == "poisson"
        return tags

    # -- fitting -----------------------------------------------------------------------

    @refuses_lengths
    @fit_context(prefer_skip_nested_validation=True)
    @keeps_fit_on_error
    def fit(self, X, y=None):
        """Fit the posterior.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features)
            Steps, those of a sequence one after the other, with the columns that have a
            role. NaN marks missing entries, which are integrated out.

        y : None
            Ignored; there by convention.

        Returns
        -------
        self : object
        """
        X, sequences, names = self._validate_training(X, reset=True)
        frame = self._frame(X, sequences)
        data = frame.inward(X)
        totals = self._totals(data, sequences)
        with fit_task(self, X=X) as task, blas_threads(X.shape[1]):
            of_fit = self._attributes_of_fit(frame, totals, data, sequences)
            of_fit.of_data = {
                "n_steps_seen_": len(X),
                "_fitted_weight": sequences.total_weight,
                "_fitted_features": names,
                "_fitted_stream": None,
            }
            fit = self._search(data, sequences, of_fit, task)
            self._adopt(of_fit.attributes(fit))
        if not (fit.converged or fit.stopped):
            warnings.warn(
                f"The fit did not converge in max_iter={self.max_iter} iterations. "
                f"Raise max_iter or tol (now {self.tol} nats a step), use fewer "
                "components, or call fit again with warm_start=True to go on.",
                ConvergenceWarning,
                stacklevel=5,
            )
        return self

    @refuses_lengths
    @fit_context(prefer_skip_nested_validation=True)
    @keeps_fit_on_error
    def partial_fit(self, X, y=None):
        """Move the posterior by some sequences of a larger data set.

        A step of stochastic variational inference: the statistics of these sequences,
        scaled up to all steps seen so far, are blended with those before, with the
        weight ``(learning_offset + t) ** -learning_decay`` for the t-th call. The first
        call fits its sequences, so let it have sequences of all kinds. Priors that are
        relative to the data follow the running totals.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features)
            New sequences, whole ones, with the columns that have a role.

        y : None
            Ignored; there by convention.

        Returns
        -------
        self : object
            ``elbo_`` is then an estimate, from the blended statistics, and ``states_``
            are those of X.
        """
        first = not hasattr(self, "_fitted_q")
        X, sequences, names = self._validate_training(X, reset=first)
        frame = self._frame(X, sequences) if first else self._fitted_frame
        data = frame.inward(X)
        totals = self._totals(data, sequences)
        if not first:
            self._check_same_shape(X.shape[1])
            totals = self._fitted_totals + totals
        of_fit = self._attributes_of_fit(frame, totals, data, sequences)
        # Statistics that are blended must stay about the same states.
        model, n_new = of_fit.model.without_turns(), sequences.total_weight
        n_before = 0.0 if first else self._fitted_weight
        of_fit.of_data = {
            "n_steps_seen_": len(X) + (0 if first else self.n_steps_seen_),
            "_fitted_weight": n_before + n_new,
            "_fitted_features": names,
            "_fitted_stream": None,
        }
        with fit_task(self, X=X) as task, blas_threads(X.shape[1]):
            if first:
                q = self._search(data, sequences, of_fit, task).posterior
                state = StochasticState(self.learning_decay, self.learning_offset)
            else:
                q, state = self._fitted_q, self._stream()
                state.statistics = state.statistics.scaled(
                    (n_before + n_new) / n_before
                )
            scale = (n_before + n_new) / n_new
            q = state.step(model, q, Block(data, sequences), scale)
            terms = model.elbo_terms(state.statistics, q)
            fit = Fit(q, state.statistics, terms, [sum(terms.values())], state.n_steps)
            of_fit.of_data["_fitted_stream"] = state
            self._adopt(of_fit.attributes(fit))
        return self

    def _adopt(self, attributes):
        """Take fitted attributes, and drop those of the last fit that are not there."""
        for name in self.__dict__.get("_fitted_names", ()):
            self.__dict__.pop(name, None)
        self.__dict__.update(attributes, _fitted_names=list(attributes))

    def _search(self, data, sequences, of_fit, task):
        settings = Settings(self.max_iter, self.tol)

        def on_iteration(fit):
            self._report(len(fit.path) - 1, fit.elbo + of_fit.log_units)
            with task.subtask("iteration") as iteration:
                iteration.attributes = lambda: of_fit.attributes(fit)
            return iteration.stop

        model = of_fit.model
        q = self._warm_posterior(of_fit)
        if q is not None:
            blocks = of_fit.blocks
            fit = search.run(model, blocks, q, settings, self.n_jobs, on_iteration)
        else:
            fit = search.search(
                model,
                data,
                sequences,
                of_fit.blocks,
                of_fit.setup.scale,
                self.n_init,
                settings,
                as_generator(self.random_state),
                self.n_jobs,
                on_iteration,
            )
        return search.finished(model, fit, of_fit.blocks, self.n_jobs)

    def _warm_posterior(self, of_fit):
        """The last fit's posterior in the units of this one, or None."""
        if not (self.warm_start and hasattr(self, "_fitted_q")):
            return None
        self._check_same_shape(len(of_fit.frame.unit))
        return of_fit.inward(self.posterior_)

    def _key(self, n_features):
        """What makes two fits' posteriors alike."""
        known = [name for name in KNOWN if getattr(self, name) is not None]
        if self.state_variances is not None:
            known += [k for k, v in self.state_variances.items() if v is not None]
        if self.initial_mean is not None or self.initial_covariance is not None:
            known.append("initial")
        return {
            "n_components": self.n_components,
            "structure": self.structure,
            "period": self.period,
            "observations": self.observations,
            "the known parameters": sorted(known),
            "the number of features": n_features,
        }

    def _attributes_of_fit(self, frame, totals, data, sequences):
        """The model of these totals, with what turns its fits into attributes."""
        empty = np.flatnonzero(totals.n == 0.0)
        if empty.size:
            raise ValueError(
                f"Feature(s) {empty.tolist()} of X hold no number at all (only NaN): "
                "drop them."
            )
        setup = set_up(self, frame, totals)
        of_fit = LDSAttributes(
            setup,
            frame,
            totals,
            Block.parts(data, sequences),
            self.posterior_covariance,
            self.n_jobs,
        )
        of_fit.key = self._key(data.shape[1])
        return of_fit

    # -- steps -------------------------------------------------------------------------

    def _frame(self, X, sequences):
        weight = sequences.step_weight if sequences.weight is not None else None
        if self.observations == "poisson":
            D = X.shape[1]
            return Frame(np.zeros(D), np.ones(D))
        return Frame.of(X, weight)

    def _totals(self, data, sequences):
        return Totals.of(data, sequences, lags(self))

    def _validate(self, X, reset):
        X, sequences, kept = validate_steps(
            self, X, reset=reset, dtype=[np.float64, np.float32]
        )
        counts = self.observations == "poisson"
        if not reset:  # what was fitted, whatever the parameter says by now
            counts = self._fitted_setup.model.observations.counts
        if counts and np.any(X < 0.0):
            raise ValueError(
                f"Negative values in data passed to {type(self).__name__} (input X): "
                'observations="poisson" are counts, which start at 0.'
            )
        return X, sequences, kept

    def _validate_steps(self, X):
        """New steps: (features, sequences)."""
        check_is_fitted(self)
        X, sequences, _ = self._validate(X, reset=False)
        return X, sequences


KNOWN = "transition_matrix", "observation_matrix", "noise_variance"
