"""Hidden Markov models for scikit-learn."""

import warnings
from numbers import Integral, Real

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from skvi._sklearn import Interval, StrOptions, fit_context
from skvi.callbacks import fit_task
from skvi.distributions import Dirichlet
from skvi.estimators.base import VariationalEstimator, as_generator, keeps_fit_on_error
from skvi.estimators.hmm_attributes import HMMAttributes
from skvi.estimators.hmm_emissions import EMISSIONS
from skvi.estimators.hmm_prediction import HMMPredictionMixin
from skvi.estimators.priors import concentrations
from skvi.estimators.sequences import (
    refuses_lengths,
    validate_steps,
)
from skvi.inference.blocks import blas_threads
from skvi.inference.drivers import StochasticState
from skvi.inference.engine import Fit
from skvi.models.hmm import FAMILIES, Block, HMMModel, Settings, search

POSITIVE = Interval(Real, 0.0, None, closed="neither")


class VariationalHMM(HMMPredictionMixin, VariationalEstimator):
    r"""Hidden Markov model with conjugate priors.

    Each step x_t of a sequence belongs to a state z_t, one of K, and each state depends
    on the one before:

    .. math::

        \pi &\sim \mathrm{Dirichlet}(\alpha), \qquad
            A_k \sim \mathrm{Dirichlet}(\alpha_k) \\
        z_1 &\sim \mathrm{Categorical}(\pi), \qquad
            z_t \mid z_{t-1} = k \sim \mathrm{Categorical}(A_k) \\
        x_t &\mid z_t = k \sim p(x \mid \theta_k), \qquad \theta_k \sim p(\theta)

    The posterior q(pi) q(A) q(theta) q(z) maximises the evidence lower bound,
    ``elbo_``.

    Parameters
    ----------
    n_components : int, default=1
        Number of states K.

    emissions : {"gaussian", "categorical", "poisson", "bernoulli"}, default="gaussian"
        The law of the steps of a state.

        - "gaussian": rows of numbers, with means mu_k and precisions Lambda_k.
        - "poisson": counts, independent columns with rates ``rates_``. Non-negative
          reals are taken as they are.
        - "bernoulli": independent columns; an entry above zero counts as one.
        - "categorical": independent columns of codes 0, 1, 2, ...; fractions are cut
          off.

    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        Of Gaussian emissions: each state has its own matrix, all share one, each has
        its own variances, or each has one variance.

    posterior : {"structured", "mean_field"}, default="structured"
        The posterior family of the states; the parameters have their joint conjugate
        posterior in both.

        - "structured": a Markov chain over each sequence, by the forward-backward
          recursion.
        - "mean_field": states independent in time. Its bound is lower, its
          probabilities of states too sure, and short stays in a state get lost.

    sequence : None, str or int, default=None
        Name or position of the column of X that holds an id for each step. Steps of a
        sequence stand together. None: all of X is one sequence. The column is no
        feature. ``skvi.sequence_ids(lengths)`` makes ids.

    sequence_weight : None, str or int, default=None
        Name or position of a column that says how often a sequence counts: 2 is the
        sequence twice. Constant in each sequence.

    startprob_prior : None, float or array-like of shape (n_components,), default=None
        Concentration of pi, a number for every state or one for each. None is
        1 / n_components.

    transmat_prior : None, float or array-like of shape (K, K), default=None
        Concentrations of the rows of A. None is 1 / n_components.

    stickiness : float, default=0.0
        Added to the diagonal of these: how many stays in its state each state is
        credited with beforehand.

    mean_prior : None or array-like of shape (n_features,), default=None
        m_0 of Gaussian emissions, in the data's units. None is the mean of the bulk of
        the steps: those far from it count less.

    mean_precision_prior : None or float, default=None
        beta_0: how many steps the prior of a mean is worth. None is 0.1.

    degrees_of_freedom_prior : None or float, default=None
        nu_0: how many steps the prior of a covariance is worth, about. Must exceed
        n_features - 1 for "full" and "tied". None is n_features + 2 for these and 3 for
        "diag" and "spherical".

    covariance_prior : None, float or array-like, default=None
        C_0, in the data's units: a precision has the prior mean nu_0 C_0^-1. Shapes are
        those of ``VariationalGaussianMixture``. None is the covariance of the bulk of
        the steps.

    rate_prior : None or (shape, rate), default=None
        Gamma prior of Poisson rates. None is a shape of 1 with the mean count of the
        column as its mean.

    probability_prior : None or float, default=None
        Concentration of each outcome of Bernoulli and categorical emissions. None is
        0.5.

    n_categories : None, int or array-like of shape (n_features,), default=None
        Number of categories of each column of categorical emissions. None is one more
        than the largest code in `fit`; categories that occur later only must be
        counted here.

    init_params : {"auto", "kmeans", "random"}, default="auto"
        Where iterations start. "auto" clusters steps, running means of their values
        and deviations, and steps with their neighbours; short runs on up to 20,000
        steps choose among these. "kmeans" clusters steps; "random" gives short
        stretches a random state.

    n_init : int, default=1
        How often to do that. The highest bound wins.

    max_iter : int, default=500
        Largest number of iterations of a run.

    tol : float, default=1e-6
        Rise of ``elbo_`` in nats a step below which a run may end; the posterior must
        have less than 0.001 sd left to go, too.

    learning_decay : float, default=0.7
        Exponent of the step lengths of ``partial_fit``.

    learning_offset : float, default=1.0
        Slows its first steps down.

    random_state : int, RandomState instance or None, default=None
        Determines the starts.

    warm_start : bool, default=False
        Start from the last fit's posterior.

    n_jobs : int or None, default=None
        Number of joblib workers, over sequences and parts of long ones.

    verbose : bool or int, default=False
        Print the ELBO at iterations 1, 2, 4, ...; at every one if above 1.

    Attributes
    ----------
    startprob_ : ndarray of shape (n_components,)
        Posterior mean of pi; ``startprob_std_`` its standard deviations.

    transmat_ : ndarray of shape (n_components, n_components)
        Posterior mean of A, a row for each state before.

    transmat_std_, transmat_covariance_ : ndarrays of shapes (K, K) and (K, K, K)
        Posterior standard deviations, and the covariance of each row.

    means_, means_std_, means_covariance_ : ndarrays of shapes (K, D), (K, D), (K, D, D)
        Of Gaussian emissions: posterior means and spreads of the means.

    covariances_, precisions_, precisions_cholesky_ : ndarrays
        Of Gaussian emissions, as ``VariationalGaussianMixture`` has them.

    mean_precision_, degrees_of_freedom_ : ndarrays
        Of Gaussian emissions: beta and nu of each state.

    rates_, rates_std_ : ndarrays of shape (n_components, n_features)
        Of Poisson emissions.

    emissionprob_, emissionprob_std_ : ndarrays
        Of Bernoulli emissions the probabilities of ones, (n_components, n_features); of
        categorical ones those of the categories, (n_components, sum of
        ``n_categories_``), columns side by side.

    n_categories_ : ndarray of int of shape (n_features,)
        Of categorical emissions.

    posterior_ : HMMPosterior
        q(pi) q(A) q(theta), in the data's units.

    elbo_ : float
        The evidence lower bound in nats, every constant kept.

    elbo_terms_ : dict
        Its terms ``log_likelihood``, ``log_prior`` and ``entropy``.

    elbo_path_ : ndarray
        The bound at each iteration.

    n_iter_ : int
        Number of iterations after the start was chosen. The short runs that choose it
        are on all steps where there are few: then little is left to do.

    converged_ : bool
        Whether the run ended by itself.

    startprob_prior_, transmat_prior_ : ndarrays of shapes (K,) and (K, K)
        The resolved priors, and likewise ``mean_prior_``, ``mean_precision_prior_``,
        ``degrees_of_freedom_prior_``, ``covariance_prior_``, ``rate_prior_`` and
        ``probability_prior_``, in the data's units.

    n_steps_seen_ : int
        Number of steps that the fit has counted.

    n_features_in_ : int
        Number of columns of X seen during fit, those with a role included.

    feature_names_in_ : ndarray of shape (``n_features_in_``,)
        Names of columns seen during fit, where X had names.

    Raises
    ------
    ValueError
        If X or a parameter is not valid, or an id of a sequence comes back after
        another; nothing fitted before is lost.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` iterations were not enough.

    See Also
    --------
    VariationalGaussianMixture : Rows that do not depend on each other.

    Notes
    -----
    **Sequences** are marked by a column of X, not by an argument, so that pipelines,
    scorers and cross-validation hand it on: split with ``GroupKFold`` and the ids as
    groups.

    **Priors** are proper and relative to the data: Gaussian emissions have those of
    ``VariationalGaussianMixture(emission="student_t")``, which a few wild steps do not
    move. Multiplying n steps of D columns by c subtracts
    n D log c from ``elbo_`` and changes nothing else.

    **Densities.** ``score_samples`` is the log density under the chain with the mean
    ``startprob_`` and ``transmat_`` and predictive emissions: Student-t, negative
    binomial, or mean probabilities. It adds up to the log of a law that integrates to
    one. ``n_samples=`` averages over draws of the parameters instead.

    **Missing entries** are integrated out, a whole step too, which assumes that
    whether an entry is missing does not depend on its value. With full and tied
    covariances they are latent variables of the bound.

    **How many states.** Fit several numbers and take the highest ``elbo_``, which
    describes one labelling of the states: it can lie up to log K! below what the same
    fit with all of its labellings would have.

    References
    ----------
    .. [1] D. J. C. MacKay (1997). Ensemble learning for hidden Markov models.
    .. [2] M. J. Beal (2003). Variational algorithms for approximate Bayesian inference,
       chapter 3 (equations 3.67 to 3.71).
    .. [3] E. B. Fox, E. B. Sudderth, M. I. Jordan, A. S. Willsky (2011). A sticky
       HDP-HMM with application to speaker diarization. Annals of Applied Statistics 5.

    Examples
    --------
    Two sequences of counts, the second with a burst in it:

    >>> import numpy as np
    >>> from skvi import VariationalHMM, sequence_ids
    >>> rng = np.random.default_rng(0)
    >>> rates = np.r_[np.full(60, 2.0), np.full(50, 2.0), np.full(30, 9.0)]
    >>> X = np.column_stack([sequence_ids([60, 80]), rng.poisson(rates)])
    >>> model = VariationalHMM(
    ...     n_components=2, emissions="poisson", sequence=0, random_state=0
    ... ).fit(X)
    >>> np.sort(model.rates_.ravel()).round(1)
    array([2.3, 9.2])
    >>> burst = model.rates_.argmax()
    >>> int(np.argmax(model.predict(X) == burst))  # the first step of the burst
    110
    >>> forecast = model.forecast(X, n_steps=2)
    >>> forecast.mean.shape, forecast.interval(0.9).shape
    ((2, 2, 1), (2, 2, 1, 2))
    """

    _parameter_constraints = {
        **VariationalEstimator._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "emissions": [StrOptions(set(EMISSIONS))],
        "covariance_type": [StrOptions({"full", "tied", "diag", "spherical"})],
        "sequence": [None, str, Integral],
        "sequence_weight": [None, str, Integral],
        "startprob_prior": [None, POSITIVE, "array-like"],
        "transmat_prior": [None, POSITIVE, "array-like"],
        "stickiness": [Interval(Real, 0.0, None, closed="left")],
        "mean_prior": [None, "array-like"],
        "mean_precision_prior": [None, POSITIVE],
        "degrees_of_freedom_prior": [None, POSITIVE],
        "covariance_prior": [None, Real, "array-like"],
        "rate_prior": [None, tuple, list],
        "probability_prior": [None, POSITIVE],
        "n_categories": [
            None,
            Interval(Integral, 1, None, closed="left"),
            "array-like",
        ],
        "init_params": [StrOptions({"auto", "kmeans", "random"})],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "learning_decay": [Interval(Real, 0.5, 1.0, closed="right")],
        "learning_offset": [Interval(Real, 1.0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        n_components=1,
        emissions="gaussian",
        covariance_type="full",
        posterior="structured",
        sequence=None,
        sequence_weight=None,
        startprob_prior=None,
        transmat_prior=None,
        stickiness=0.0,
        mean_prior=None,
        mean_precision_prior=None,
        degrees_of_freedom_prior=None,
        covariance_prior=None,
        rate_prior=None,
        probability_prior=None,
        n_categories=None,
        init_params="auto",
        n_init=1,
        max_iter=500,
        tol=1e-6,
        learning_decay=0.7,
        learning_offset=1.0,
        random_state=None,
        warm_start=False,
        n_jobs=None,
        verbose=False,
    ):
        self.n_components = n_components
        self.emissions = emissions
        self.covariance_type = covariance_type
        self.posterior = posterior
        self.sequence = sequence
        self.sequence_weight = sequence_weight
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.stickiness = stickiness
        self.mean_prior = mean_prior
        self.mean_precision_prior = mean_precision_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.rate_prior = rate_prior
        self.probability_prior = probability_prior
        self.n_categories = n_categories
        self.init_params = init_params
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
        kind = EMISSIONS.get(self.emissions)
        tags.input_tags.positive_only = kind is not None and kind.positive_only
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
            role. float32 stays float32; NaN marks missing entries, which are
            integrated out.

        y : None
            Ignored; there by convention.

        Returns
        -------
        self : object
        """
        X, sequences, names = self._validate_training(X, reset=True)
        kind = self._emission_kind
        weight = sequences.step_weight if sequences.weight is not None else None
        frame = kind.frame(X, weight)
        data = kind.rows(X, weight, frame)
        totals = kind.totals(data, sequences)
        with fit_task(self, X=X) as task, blas_threads(X.shape[1]):
            of_fit = self._attributes_of_fit(totals, frame, data)
            of_fit.of_data = {
                "n_steps_seen_": len(X),
                "_fitted_weight": sequences.total_weight,
                "_fitted_features": names,
                "_fitted_stream": None,
            }
            fit = self._search(data, sequences, of_fit, task)
            self.__dict__.update(of_fit.attributes(fit))
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
        call searches for states, so let it have sequences of all kinds. Priors that are
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
            ``elbo_`` is then an estimate, from the blended statistics.
        """
        first = not hasattr(self, "_fitted_q")
        X, sequences, names = self._validate_training(X, reset=first)
        kind = self._emission_kind
        weight = sequences.step_weight if sequences.weight is not None else None
        if first:
            frame = kind.frame(X, weight)
        else:
            self._check_same_shape(X.shape[1])
            frame = self._fitted_frame
        data = kind.rows(X, weight, frame)
        block = kind.totals(data, sequences)
        totals = block if first else self._fitted_totals + block
        of_fit = self._attributes_of_fit(totals, frame, data)
        model, n_new = of_fit.model, sequences.total_weight
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
                n_before = 0.0
            else:
                q, state = self._fitted_q, self._stream()
                n_before = self._fitted_weight
                state.statistics = state.statistics.scaled(
                    (n_before + n_new) / n_before
                )
            q = q.with_reader(model.emissions)
            scale = (n_before + n_new) / n_new
            q = state.step(model, q, Block(data, sequences, self.n_jobs), scale)
            terms = model.elbo_terms(state.statistics, q)
            fit = Fit(q, state.statistics, terms, [sum(terms.values())], state.n_steps)
            of_fit.of_data["_fitted_stream"] = state
            self.__dict__.update(of_fit.attributes(fit))
        return self

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
            return search.run(
                model, data, sequences, q, settings, self.n_jobs, on_iteration
            )
        return search.search(
            model,
            data,
            self._emission_kind.features(data, of_fit.totals),
            sequences,
            self.init_params,
            self.n_init,
            settings,
            as_generator(self.random_state),
            self.n_jobs,
            on_iteration,
        )

    def _warm_posterior(self, of_fit):
        """The last fit's posterior in the units of this one, or None."""
        if not (self.warm_start and hasattr(self, "_fitted_q")):
            return None
        self._check_same_shape(of_fit.key["the number of features"])
        q = self._emission_kind.in_units(
            self._fitted_q.emissions, self._fitted_frame, of_fit.frame
        )
        return self._fitted_q.with_emissions(q).with_reader(of_fit.model.emissions)

    def _key(self, n_features):
        """What makes two fits' posteriors alike."""
        kind = self.covariance_type if self.emissions == "gaussian" else None
        return {
            "n_components": self.n_components,
            "emissions": self.emissions,
            "covariance_type": kind,
            "the number of features": n_features,
        }

    def _attributes_of_fit(self, totals, frame, data):
        """The model of these totals, with what turns its fits into attributes."""
        kind, K = self._emission_kind, self.n_components
        emissions, attributes = kind.build(totals, frame, data)
        start, trans = self.startprob_prior, self.transmat_prior
        start = 1.0 / K if start is None else start
        trans = 1.0 / K if trans is None else trans
        trans = concentrations(trans, (K, K), "transmat_prior")
        concentrations(1.0 + self.stickiness, (), "1 + stickiness")
        model = HMMModel(
            Dirichlet(concentrations(start, (K,), "startprob_prior")),
            Dirichlet(trans + self.stickiness * np.eye(K)),
            emissions,
            FAMILIES[self.posterior],
        )
        key = self._key(data.dim)
        return HMMAttributes(model, kind, key, frame, totals, attributes)

    @property
    def _emission_kind(self):
        return EMISSIONS[self.emissions](self)

    # -- steps -------------------------------------------------------------------------

    def _validate(self, X, reset):
        kind = self._emission_kind
        X, sequences, kept = validate_steps(
            self, X, reset=reset, dtype=[np.float64, np.float32]
        )
        kind.check(X)
        return X, sequences, kept

    def _validate_steps(self, X):
        """New steps: (features, sequences)."""
        X, sequences, _ = self._validate(X, reset=False)
        return X, sequences
