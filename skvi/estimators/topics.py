"""Topic models for scikit-learn."""

import hashlib
import warnings
from numbers import Integral, Real

import numpy as np
from scipy import sparse
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import (
    check_array,
    check_is_fitted,
    check_non_negative,
    validate_data,
)

from skvi._sklearn import Interval, StrOptions, fit_context
from skvi.callbacks import fit_task
from skvi.distributions.dirichlet import Dirichlet
from skvi.distributions.product import Product
from skvi.estimators.base import (
    VariationalEstimator,
    as_generator,
    check_count,
    keeps_fit_on_error,
)
from skvi.estimators.topics_attributes import TopicAttributes
from skvi.estimators.topics_priors import resolve_priors
from skvi.estimators.topics_text import TopicTextMixin
from skvi.inference.blocks import blas_threads
from skvi.inference.drivers import StochasticState
from skvi.inference.engine import Fit
from skvi.models.topics import (
    FAMILIES,
    Corpus,
    Settings,
    completion,
    from_posterior,
    from_random_proportions,
    from_topics,
    swept,
)

MEBIBYTE = 2.0**20
LARGEST_COUNT = 2.0**50
FIRST_BLOCK_SWEEPS = 20  # of partial_fit, on the block that comes first


class VariationalTopicModel(
    TopicTextMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    VariationalEstimator,
):
    r"""Latent Dirichlet allocation: topics of a corpus, with a posterior over them.

    Documents mix topics, topics are distributions of words. The successor of
    :class:`sklearn.decomposition.LatentDirichletAllocation`, with a bound that has
    every constant, a posterior that keeps what topics and proportions owe to each
    other, intervals, and a held-out score that does not depend on how many documents
    are scored.

    .. math::

        \theta_d \sim \mathrm{Dirichlet}(\alpha), \quad
        \phi_k \sim \mathrm{Dirichlet}(\eta), \quad
        z_{dn} \sim \theta_d, \quad
        w_{dn} \sim \phi_{z_{dn}}

    Parameters
    ----------
    n_components : int, default=10
        Number of topics K.

    posterior : {"structured", "mean_field"}, default="structured"
        The posterior family.

        - "structured": q(z) q(theta, phi | z), the last two the exact Dirichlets.
          Topics and proportions are integrated out of the bound, which is tighter, and
          topics predict better.
        - "mean_field": q(theta) q(z) q(phi), independent of each other.

    doc_topic_prior : None, "auto", float or array-like of shape (n_components,)
        alpha. None is 1 / n_components. "auto" learns one number a topic, those that
        make the bound highest.

    topic_word_prior : None, "auto", float or array-like, default=None
        eta: a number, one a word (n_features,), or one for each topic and word
        (n_components, n_features), which seeds topics. None is 1 / n_components. "auto"
        learns a number.

    components_init : array-like of shape (n_components, n_features), default=None
        Topics to start from, as frequencies of words; rows need not sum to one. None
        starts from documents with random proportions.

    n_init : int, default=1
        Number of random starts. The highest bound wins.

    max_iter : int, default=500
        Largest number of passes over the documents. A step of exact ascent counts as
        the 20 sweeps that it costs.

    max_doc_iter : int, default=5
        Rounds of a document in a pass of mean field while topics still move. At the
        end documents run to tolerance.

    tol : float, default=5e-5
        A fit has converged when a pass raises the bound by less than `tol` nats a
        token.

    block_size : int, default=512
        Documents in a block of work. The blocks, not the number of workers, determine
        the fit.

    memory_budget : float, default=768.0
        Mebibytes that q(z) of every word of every document may take while
        ``posterior="structured"`` is fitted: 12 bytes a nonzero count and topic for
        float32, 24 for float64. Above it the streaming form is used, in which q(z) is a
        product of a weight of the document and one of the word; see Notes.

    total_samples : None or float, default=None
        Of ``partial_fit``: number of documents of the whole corpus. None is the number
        seen so far.

    learning_decay : float, default=0.7
        Of ``partial_fit``: a block that comes after t of its size has the weight
        (learning_offset + t)^-learning_decay. Above 0.5 and at most 1.

    learning_offset : float, default=10.0
        Of ``partial_fit``: larger ones make early calls count less. At least 1.

    random_state : int, RandomState instance or None, default=None
        Determines the start. Pass an int for the same fit every time.

    warm_start : bool, default=False
        Whether ``fit`` goes on from the last fit: from its q(z) where X is the same
        corpus (of the same dtype), from its topics otherwise. `posterior` and priors
        may change, so a structured fit can polish a mean-field one; its bound is then
        never lower.

    n_jobs : int or None, default=None
        Number of threads over blocks of documents. The fit is the same for any. None is
        1 unless in a ``joblib.parallel_config`` context.

    verbose : int or bool, default=False
        True prints the ELBO at evaluations 1, 2, 4, 8, ...; 2 prints every one.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        Posterior mean of the topics; rows sum to one.

    components_std_ : ndarray of shape (n_components, n_features)
        Posterior standard deviations of the topics, computed when asked for.

    topic_word_ : distribution
        The posterior of the topics, with ``mean``, ``variance()``,
        ``interval(confidence_level)`` of shape (n_components, n_features, 2) and
        ``sample(n, rng)``: a Dirichlet a topic for mean field, and for structured the
        law of a Dirichlet that has absorbed random counts.

    doc_topic_prior_ : ndarray of shape (n_components,)
        alpha, as it was given or learnt.

    topic_word_prior_ : float or ndarray
        eta likewise.

    elbo_ : float
        Evidence lower bound in nats, every constant included; of the tokens in their
        order, so without multinomial coefficients. Comparable between fits to the same
        corpus. After ``partial_fit`` an estimate for the whole corpus.

    elbo_terms_ : dict
        ``log_likelihood``, ``log_prior`` and ``entropy``, which sum to ``elbo_``. For
        structured, where topics and proportions are integrated out, they are E[log p(w
        | z)], E[log p(z)] and the entropy of q(z).

    elbo_path_ : ndarray of shape (n_evaluations,)
        Values of the bound along the fit, each exact: after every 20 sweeps, and after
        every pass of mean field. It never falls.

    posterior_ : distribution
        Variable ``topics``.

    assignments_ : {"stored", "streaming"}
        How q(z) was held.

    n_iter_ : int
        Passes over the documents.

    converged_ : bool
        Whether the fit converged.

    n_samples_seen_ : int
        Documents fitted, those of earlier ``partial_fit`` calls included.

    n_features_in_ : int
        Number of features seen during fit.

    feature_names_in_ : ndarray of shape (``n_features_in_``,)
        Names of features seen during fit, where X had names.

    Raises
    ------
    ValueError
        If X holds negative or non-finite numbers or no word at all, or a parameter is
        not valid; nothing fitted before is lost.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` passes were not enough.

    See Also
    --------
    sklearn.decomposition.LatentDirichletAllocation : Mean field, with a bound that
        depends on the number of documents scored.

    Notes
    -----
    **Steps.** Both posteriors begin with sweeps of CVB0 [2]_, which move q(z) towards
    the structured optimum and are kept while they raise the family's own bound. Mean
    field goes on by memoised coordinate ascent: blocks of documents replace their part
    of the topics' statistics one after the other. Documents that run to the end against
    young topics lock these in, which is why `max_doc_iter` is small. Structured goes on
    by the fixed point of the bound itself, damped until the bound rises.

    **Memory.** Stored q(z) has a probability for every nonzero count and topic. The
    streaming form has one weight a document and topic and one a word and topic; a
    token's own share is taken out of the counts on average rather than one by one. On
    real corpora its bound was within 0.1 % of that of the stored form and its
    perplexity 0 to 1 % higher. A stored fit keeps its q(z), a number a nonzero count
    and topic, for joint draws and warm starts.

    **Counts** are whole numbers: the structured bound is that of tokens. Others are
    taken, fractions of tokens with them, but the bound is then an approximation, which
    may lie above the evidence where counts are far below one.

    **Order.** Documents work side by side in blocks, in the order of X, so another
    order of rows may find another optimum. Any number of threads finds the same.

    **When to stop.** The bound and the held-out score can disagree late in a fit. A
    callback that watches ``score`` on other documents stops it early; see the user
    guide.

    **Choosing K** by ``elbo_`` compares fits with their own labelling of topics, of
    which there are K! equal ones; that is log K! nats at most.

    References
    ----------
    .. [1] D. M. Blei, A. Y. Ng, M. I. Jordan (2003). Latent Dirichlet allocation. JMLR
       3, section 5.
    .. [2] A. Asuncion, M. Welling, P. Smyth, Y. W. Teh (2009). On smoothing and
       inference for topic models. UAI, section 3.4.
    .. [3] Y. W. Teh, D. Newman, M. Welling (2007). A collapsed variational Bayesian
       inference algorithm for latent Dirichlet allocation. NIPS, equation 16.
    .. [4] H. M. Wallach, I. Murray, R. Salakhutdinov, D. Mimno (2009). Evaluation
       methods for topic models. ICML, section 5.

    Examples
    --------
    >>> from sklearn.feature_extraction.text import CountVectorizer
    >>> from skvi import VariationalTopicModel
    >>> texts = ["the cat and the dog", "a dog chased the cat", "cat meets dog",
    ...          "stocks fell and bonds rose", "bonds and stocks", "stocks and bonds"]
    >>> words = CountVectorizer(stop_words=["the", "and", "a"])
    >>> X = words.fit_transform(texts)
    >>> model = VariationalTopicModel(n_components=2, random_state=0).fit(X)
    >>> tops = model.top_words(2, words.get_feature_names_out())
    >>> sorted(sorted(top) for top in tops)
    [['bonds', 'stocks'], ['cat', 'dog']]
    >>> new = words.transform(["the dog and the cat"])
    >>> float(model.transform(new).max().round(1))
    0.8
    """

    _parameter_constraints = {
        **VariationalEstimator._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "doc_topic_prior": [None, StrOptions({"auto"}), Real, "array-like"],
        "topic_word_prior": [None, StrOptions({"auto"}), Real, "array-like"],
        "components_init": [None, "array-like"],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_doc_iter": [Interval(Integral, 1, None, closed="left")],
        "block_size": [Interval(Integral, 1, None, closed="left")],
        "memory_budget": [Interval(Real, 0.0, None, closed="both")],
        "total_samples": [None, Interval(Real, 0.0, None, closed="neither")],
        "learning_decay": [Interval(Real, 0.5, 1.0, closed="right")],
        "learning_offset": [Interval(Real, 1.0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components=10,
        *,
        posterior="structured",
        doc_topic_prior=None,
        topic_word_prior=None,
        components_init=None,
        n_init=1,
        max_iter=500,
        max_doc_iter=5,
        tol=5e-5,
        block_size=512,
        memory_budget=768.0,
        total_samples=None,
        learning_decay=0.7,
        learning_offset=10.0,
        random_state=None,
        warm_start=False,
        n_jobs=None,
        verbose=False,
    ):
        self.n_components = n_components
        self.posterior = posterior
        self.doc_topic_prior = doc_topic_prior
        self.topic_word_prior = topic_word_prior
        self.components_init = components_init
        self.n_init = n_init
        self.max_iter = max_iter
        self.max_doc_iter = max_doc_iter
        self.tol = tol
        self.block_size = block_size
        self.memory_budget = memory_budget
        self.total_samples = total_samples
        self.learning_decay = learning_decay
        self.learning_offset = learning_offset
        self.random_state = random_state
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    # -- fitting -----------------------------------------------------------------------

    @fit_context(prefer_skip_nested_validation=True)
    @keeps_fit_on_error
    def fit(self, X, y=None):
        """Fit the posterior to a corpus.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_documents, n_features)
            How often each word (column) occurs in each document (row). Duplicate
            entries of a sparse X are summed; float32 stays float32.

        y : None
            Ignored; there by convention.

        Returns
        -------
        self : object
        """
        X = self._validate_corpus(X, reset=True)
        fingerprint, block_size = _fingerprint(X), self.block_size
        priors = self._priors()
        if self.warm_start and hasattr(self, "_fitted_q"):
            priors = _with_learnt(priors, self._fitted_q.priors)
            if fingerprint == self._fitted_fingerprint:
                block_size = self._fitted_block_size  # q(z) is by position in blocks
        corpus = Corpus(X, block_size)
        settings = self._settings(corpus)
        family = FAMILIES[self.posterior]
        n_samples = X.shape[0]
        attributes = TopicAttributes(
            self.posterior, block_size, n_samples, n_samples, fingerprint
        )

        def as_attributes(fit):
            state = StochasticState(self.learning_decay, self.learning_offset)
            state.statistics, state.n_steps = family.streamed(fit, corpus), 1
            return attributes.attributes(fit, state)

        with (
            fit_task(self, X=X) as task,
            blas_threads(1),  # what BLAS multiplies here is small
        ):

            def run(start):
                def on_iteration(fit):
                    self._report(len(fit.path) - 1, fit.elbo)
                    with task.subtask("iteration") as iteration:
                        iteration.attributes = lambda: as_attributes(fit)
                    return iteration.stop

                return family.fit(corpus, start, priors, settings, on_iteration)

            start = self._given_start(corpus, priors, fingerprint)
            if start is not None:
                fit = run(start)
            else:
                fit = None
                for rng in as_generator(self.random_state).spawn(self.n_init):
                    new = run(from_random_proportions(corpus, priors, rng))
                    fit = new if fit is None or new.elbo > fit.elbo else fit
            self.__dict__.update(as_attributes(fit))
        if not (fit.converged or fit.stopped):
            warnings.warn(
                f"The fit did not converge in max_iter={self.max_iter} passes over the "
                f"documents. Raise max_iter or tol (now {self.tol} nats a token), or "
                "call fit again with warm_start=True to go on.",
                ConvergenceWarning,
                stacklevel=4,
            )
        return self

    @fit_context(prefer_skip_nested_validation=True)
    @keeps_fit_on_error
    def partial_fit(self, X, y=None):
        """Move the posterior by some documents of a larger corpus.

        A step of stochastic variational inference: what the documents say of the
        topics, scaled up to the whole corpus, is blended with what those before said,
        with the weight ``(learning_offset + t) ** -learning_decay`` after t blocks of
        this size, those of a ``fit`` included. The corpus has `total_samples`
        documents, or as many as have been seen.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_documents, n_features)
            Counts of words in new documents.

        y : None
            Ignored; there by convention.

        Returns
        -------
        self : object
            ``elbo_`` is then an estimate for the whole corpus.
        """
        first = not hasattr(self, "_fitted_q")
        if first:
            X = self._validate_corpus(X, reset=True)
        else:
            X = self._validate_counts(X)
        n_seen = X.shape[0] + (0 if first else self.n_samples_seen_)
        if X.nnz == 0:  # documents without words say nothing of topics
            self.n_samples_seen_ = n_seen
            return self
        corpus = Corpus(X, self.block_size)
        total = self.total_samples or n_seen
        with fit_task(self, X=X) as task, blas_threads(1):
            model, q, state = self._stream(corpus, total)
            q = state.step(model, q, corpus, total / X.shape[0])
            terms = model.elbo_terms(state.statistics, q)
            fit = Fit(q, state.statistics, terms, [sum(terms.values())], state.n_steps)
            attributes = TopicAttributes(self.posterior, self.block_size, n_seen, total)
            with task.subtask("block") as step:
                step.attributes = lambda: attributes.attributes(fit, state)
            self.__dict__.update(attributes.attributes(fit, state))
        return self

    def _stream(self, corpus, total):
        """(model, posterior, state) of stochastic steps, as a copy to move."""
        family, settings = FAMILIES[self.posterior], self._settings(corpus)
        decay, offset = self.learning_decay, self.learning_offset
        priors = self._priors()
        if not hasattr(self, "_fitted_q"):
            start = self._given_start(corpus, priors, None)
            if start is None:
                rng = as_generator(self.random_state)
                start = from_random_proportions(corpus, priors, rng)
                start = swept(corpus, start, priors, FIRST_BLOCK_SWEEPS, self.n_jobs)
            model, q = family.stream(start.counts, priors, settings)
            return model, q, StochasticState(decay, offset)
        self._check_same_shape()
        if self.posterior != self._fitted_posterior:
            raise ValueError(
                f"posterior={self.posterior!r} differs from that of the documents "
                f"before ({self._fitted_posterior!r}): partial_fit goes on with one; "
                "call fit to start anew."
            )
        q = self._fitted_q
        priors = _with_learnt(priors, q.priors)
        model, q = family.stream(q.expected_counts(), priors, settings)
        state = self._fitted_stream.copy()
        state.decay, state.offset = decay, offset
        state.statistics = state.statistics.scaled(total / self._fitted_total)
        # What was fitted before counts as blocks of this one's size.
        n_before = round(self.n_samples_seen_ / corpus.n_documents)
        state.n_steps = max(state.n_steps, n_before)
        return model, q, state

    def _settings(self, corpus):
        return Settings(
            self.max_iter,
            self.tol * corpus.n_tokens,
            self.max_doc_iter,
            self.memory_budget * MEBIBYTE,
            self.n_jobs,
        )

    def _priors(self):
        return resolve_priors(
            self.doc_topic_prior,
            self.topic_word_prior,
            self.n_components,
            self.n_features_in_,
        )

    def _given_start(self, corpus, priors, fingerprint):
        """Where an earlier fit or `components_init` says to start, or None."""
        if self.warm_start and hasattr(self, "_fitted_q"):
            self._check_same_shape()
            q = self._fitted_q
            same = fingerprint is not None and fingerprint == self._fitted_fingerprint
            if same:
                return from_posterior(
                    corpus, FAMILIES[self.posterior].adopted(q, corpus)
                )
            return from_topics(corpus, priors, self.components_)
        if self.components_init is None:
            return None
        shape = (self.n_components, self.n_features_in_)
        topics = check_array(
            self.components_init, dtype=np.float64, input_name="components_init"
        )
        if topics.shape != shape:
            raise ValueError(
                f"components_init has shape {topics.shape}; it must be {shape}, a row "
                "of word frequencies for each topic."
            )
        if topics.min() < 0.0 or not np.all(topics.sum(axis=1) > 0.0):
            raise ValueError(
                f"components_init has the smallest entry {topics.min()} and the "
                f"smallest row sum {topics.sum(axis=1).min()}; entries must be "
                "non-negative and no row all zero."
            )
        return from_topics(corpus, priors, topics)

    def _check_same_shape(self):
        shape = self.components_.shape
        if shape != (self.n_components, self.n_features_in_):
            raise ValueError(
                f"n_components={self.n_components} on {self.n_features_in_} words "
                f"differs from the last fit ({shape[0]} topics, {shape[1]} words): set "
                "warm_start=False and call fit to start anew."
            )

    # -- documents ---------------------------------------------------------------------

    def transform(self, X):
        """Proportions of the topics in documents.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_documents, n_features)
            Counts of words.

        Returns
        -------
        proportions : ndarray of shape (n_documents, n_components)
            Posterior means; rows sum to one. A document without words has the prior's.
        """
        X = self._validate_counts(X)
        corpus, folded = self._fold(X)
        mean = Dirichlet(corpus.restored(folded.concentration)).mean
        return mean.astype(X.dtype)

    def doc_topic_posterior(self, X):
        """The posterior of the proportions of topics in documents.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_documents, n_features)
            Counts of words.

        Returns
        -------
        posterior : Dirichlet
            Independent ones, with ``concentration`` and ``mean`` of shape (n_documents,
            n_components), ``variance()``, ``interval(confidence_level)`` of shape
            (n_documents, n_components, 2) and ``sample(n, rng)``. With
            ``posterior="structured"`` each is the one of the posterior's mean and total
            variance.
        """
        corpus, folded = self._fold(self._validate_counts(X))
        return Dirichlet(corpus.restored(folded.concentration))

    def responsibilities(self, x):
        """Which topics the words of one document belong to.

        Parameters
        ----------
        x : {array-like, sparse matrix} of shape (n_features,) or (1, n_features)
            Counts of words in the document.

        Returns
        -------
        responsibilities : ndarray of shape (n_distinct_words, n_components)
            Posterior probabilities of the topics for the tokens of each word that
            occurs, words in the order of their columns; rows sum to one.
        """
        if np.ndim(x) == 1 and not sparse.issparse(x):
            x = np.asarray(x)[None]
        elif x.ndim == 1:
            x = x.reshape(1, -1)
        if x.shape[0] != 1:
            raise ValueError(
                f"x has {x.shape[0]} rows; responsibilities are those of the words of "
                "one document, so pass one row, such as X[[0]]."
            )
        corpus, folded = self._fold(self._validate_counts(x))
        return folded.assignments.all(corpus)

    def score(self, X, y=None):
        """Mean log predictive probability of a token, by document completion.

        One half of each document's tokens tells its proportions, the other is
        predicted. The halves depend on nothing but the document.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_documents, n_features)
            Counts of words, best of documents that were not fitted.

        y : None
            Ignored; there by convention.

        Returns
        -------
        score : float
            In nats a token; higher is better.
        """
        X = self._validate_counts(X)
        observed, hidden = completion.halves(X)
        n_hidden = hidden.data.sum(dtype=np.float64)
        if n_hidden == 0.0:
            raise ValueError(
                f"X has {X.shape[0]} document(s), none of two words or more: no half "
                "predicts another. Score longer documents."
            )
        corpus, folded = self._fold(observed)
        theta = Dirichlet(corpus.restored(folded.concentration)).mean
        topics = np.ascontiguousarray(self.components_.T)
        return completion.log_predictive(hidden, theta, topics) / float(n_hidden)

    def perplexity(self, X, method="document_completion"):
        """exp of minus the log probability of a token; lower is better.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_documents, n_features)
            Counts of words, best of documents that were not fitted.

        method : {"document_completion", "elbo"}, default="document_completion"
            "document_completion" is ``exp(-score(X))``. "elbo" takes all tokens and the
            documents' own lower bound of their log probability, topics held, which
            makes it an upper bound. Neither depends on how many documents are scored.

        Returns
        -------
        perplexity : float
        """
        if method == "document_completion":
            return float(np.exp(-self.score(X)))
        if method != "elbo":
            raise ValueError(
                f"method={method!r} is not known; use 'document_completion' or 'elbo'."
            )
        corpus, folded = self._fold(self._validate_counts(X))
        if corpus.n_tokens == 0.0:
            raise ValueError("X holds no word at all, so no token has a probability.")
        return float(np.exp(-folded.bound / corpus.n_tokens))

    def _fold(self, X):
        """(corpus, local posteriors) of documents whose counts are checked."""
        corpus = Corpus(X, self.block_size)
        with blas_threads(1):
            return corpus, self._fitted_q.fold(corpus, self.n_jobs)

    # -- the posterior -----------------------------------------------------------------

    @property
    def _n_features_out(self):
        return self.components_.shape[0]

    @property
    def topic_word_(self):
        """The posterior of the topics."""
        check_is_fitted(self)
        return self._fitted_q.law()

    @property
    def posterior_(self):
        """The posterior, of the variable ``topics``."""
        check_is_fitted(self)
        return Product({"topics": self._fitted_q.law()})

    @property
    def components_std_(self):
        """Posterior standard deviations of the topics."""
        check_is_fitted(self)
        return np.sqrt(self.topic_word_.variance())

    def sample_posterior(self, n_samples=1000, random_state=None, X=None):
        """Draw topics, and with X what belongs to its documents, from the posterior.

        Parameters
        ----------
        n_samples : int, default=1000
            Number of draws.

        random_state : int, RandomState instance or None, default=None
            Determines the draws; pass an int for the same ones every time.

        X : {array-like, sparse matrix} of shape (n_documents, n_features), default=None
            Documents whose proportions and tokens are drawn jointly with the topics.
            With ``posterior="structured"`` it must be the corpus that was fitted.

        Returns
        -------
        draws : dict of str to ndarray
            ``topics`` (n_samples, n_components, n_features); with X also
            ``proportions`` (n_samples, n_documents, n_components) and ``assignments``
            (n_samples, n_tokens), the topic of each token: tokens by document, then by
            word, those of a word together. Without X the topics of the structured
            posterior are drawn by the mean and variance of their counts.
        """
        check_is_fitted(self)
        check_count(n_samples, "n_samples")
        rng = as_generator(random_state)
        if X is None:
            return self.posterior_.sample(int(n_samples), rng)
        q, corpus = self._posterior_on(X)
        return q.draw(corpus, int(n_samples), rng)

    def log_posterior_density(self, draws, X=None):
        """Log density of draws under the posterior.

        Parameters
        ----------
        draws : dict
            As ``sample_posterior`` returns them.

        X : {array-like, sparse matrix} of shape (n_documents, n_features), default=None
            The X given there; what belongs to its documents is then counted.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        if X is None:
            return self.posterior_.log_density(draws)
        q, corpus = self._posterior_on(X)
        return q.log_density_of(corpus, draws)

    def _posterior_on(self, X):
        """(posterior with the documents of X, their corpus)."""
        X = self._validate_counts(X)
        corpus = Corpus(X, self._fitted_block_size)
        if self._fitted_fingerprint == _fingerprint(X):
            return self._fitted_q, corpus
        return self._fitted_q.settled_on(corpus, self.n_jobs), corpus

    # -- input -------------------------------------------------------------------------

    def _validate_counts(self, X, reset=False):
        """X as canonical CSR of floats, checked."""
        if not reset:
            check_is_fitted(self)
        X = validate_data(
            self,
            X,
            reset=reset,
            accept_sparse="csr",
            dtype=[np.float64, np.float32],
        )
        check_non_negative(X, type(self).__name__)
        own = sparse.csr_array(X, copy=sparse.issparse(X))
        own.sum_duplicates()
        own.eliminate_zeros()
        largest = own.data.max(initial=0.0)
        if largest > LARGEST_COUNT:
            raise ValueError(
                f"X has the count {largest:g}; counts above {LARGEST_COUNT:g} are not "
                "exact in floating point. Divide X by a common factor."
            )
        return own

    def _validate_corpus(self, X, reset):
        X = self._validate_counts(X, reset)
        if X.nnz == 0:
            raise ValueError(
                f"X holds no word at all: its {X.shape[0]} document(s) are all zero. "
                "Fit documents with words."
            )
        return X


def _fingerprint(X):
    """A digest of the counts: equal for equal corpora."""
    digest = hashlib.blake2b(repr((X.shape, X.dtype.name)).encode(), digest_size=16)
    for part in (X.indptr.astype(np.int64), X.indices.astype(np.int64), X.data):
        digest.update(np.ascontiguousarray(part))
    return digest.hexdigest()


def _with_learnt(priors, before):
    """Priors whose learnt parts go on from those of an earlier posterior."""
    if priors.learn_documents:
        priors = priors.with_documents(before.documents)
    if priors.learn_topics and before.topics.size == 1:
        priors = priors.with_topics(before.topics.item())
    return priors
