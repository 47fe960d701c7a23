r"""Latent Dirichlet allocation with topics and proportions integrated out.

Model: that of skvi.models.topics.mean_field. Posterior: q(z) q(theta, phi | z) with

    q(z) = prod over tokens, the tokens of a cell (document d, word w) sharing r_dw;
    q(theta_d | z) = Dirichlet(alpha + n_d),  q(phi_k | z) = Dirichlet(eta + n_k),

the last two exact, so the bound is E[log p(w, z)] + H[q(z)] (Teh, Newman & Welling
2007); skvi.models.topics.expectations evaluates it exactly. It is at least that of
mean field with the same q(z).

Steps, from fast to safe; each is kept only if the bound, evaluated exactly, rises:

1. sweeps of CVB0 (Asuncion, Welling, Smyth & Teh 2009),
   r_k ~ (alpha_k + E n_dk') (eta + E n_kw') / (sum eta + E n_k'), counts without one
   token of the cell;
2. the fixed point of the bound itself, in which every E n' is replaced by
   exp E log(. + n'), by r^(1-rho) times its right-hand side^rho, with rho halved until
   the bound rises and doubled after. Where q(z) is not stored, weights of documents and
   words move to the averages of what their cells ask for.

Where priors are learnt, sweeps begin with priors that are about best for q(z); so does
step 2, unless only the fixed point of skvi.models.topics.priors raises the bound.
"""

import numpy as np

from skvi.distributions.base import Distribution
from skvi.distributions.dirichlet_of_counts import DirichletOfCounts
from skvi.inference.blocks import run_parallel
from skvi.models.topics.assignments import Tied
from skvi.models.topics.draws import Tokens, dirichlet_log_density, sample_dirichlet
from skvi.models.topics.expectations import (
    Expectations,
    LogCounts,
    document_chunks,
    laws_of_documents,
    log_prior_of_counts,
)
from skvi.models.topics.folded import Folded
from skvi.models.topics.priors import best, raised
from skvi.models.topics.sweeps import Counts, tied_pass

SHORTEST, LONGEST = 2.0**-8, 1.5  # steps to the fixed point; above 1 beyond it
FOLD_ROUNDS = 500
FOLD_TOL = {"float32": 1e-6, "float64": 1e-9}


class CollapsedPosterior(Distribution):
    """q(z) of a corpus, through the counts that it expects of words.

    Parameters
    ----------
    priors : Priors
        Learnt ones have their present values.
    assignments : Stored or Tied, or None
        q(z).
    counts : Counts or None
        What q(z) makes of words, once that is known.
    """

    names = ("topics",)

    @property
    def kind(self):
        return "streaming" if self.assignments is None else self.assignments.kind

    def __init__(self, priors, assignments=None, counts=None):
        self.priors = priors
        self.assignments = assignments
        self.counts = counts

    def law(self):
        """The law of the topics, (K, n_words), by the moments of their counts."""
        mean, squares = self.counts.mean.T, self.counts.squares.T
        return DirichletOfCounts(self.priors.topics.T, mean, mean - squares)

    def expect(self):
        return {"topics": self.law().expect()}

    def entropy(self):
        return self.law().entropy()

    def sample(self, n, rng):
        return {"topics": self.law().sample(n, rng)}

    def log_density(self, z):
        return self.law().log_density(z["topics"])

    def distance(self, other):
        return self.law().distance(other.law())

    # -- documents ---------------------------------------------------------------------

    def fold(self, corpus, n_jobs=None):
        """The local posterior of documents, topics held at their expectation.

        q(z) q(theta | z): counts are random, so the Dirichlet of a document's
        proportions is the one of the same mean and total variance.
        """
        priors, K = self.priors, self.priors.documents.size
        alpha = priors.documents
        weights = alpha + corpus.lengths[:, None] / K
        mean, squares = np.zeros((2, corpus.n_documents, K))
        tiny = np.finfo(np.float64).tiny
        topics = np.maximum(np.ascontiguousarray(self.law().mean.T), tiny)
        scaled = topics / topics.max(axis=1, keepdims=True)

        def settle(block):
            local = weights[block.documents]
            tol = FOLD_TOL[block.counts.dtype.name]
            _, _, counts = tied_pass(
                block, scaled[block.vocabulary], priors, local, FOLD_ROUNDS, tol
            )
            weights[block.documents] = local
            mean[block.documents], squares[block.documents] = counts

        run_parallel(settle, corpus.blocks, n_jobs, shared_memory=True)
        dtype = corpus.dtype
        tied = Tied(weights.astype(dtype), scaled.astype(dtype))
        bound = log_prior_of_counts(corpus.lengths, priors)
        log_topics = np.log(topics)

        def evaluate(chunk):
            laws, cells = laws_of_documents(corpus, tied, chunk)
            value, _ = laws.expect(np.ascontiguousarray(alpha[None]))
            shares = laws.shares * corpus.counts[cells][:, None]
            energy = np.sum(shares * log_topics[corpus.words[cells]], dtype=np.float64)
            return value.sum() + laws.entropy + energy

        bound += sum(run_parallel(evaluate, document_chunks(corpus), n_jobs))
        law = DirichletOfCounts(alpha, mean, mean - squares, known_total=True)
        return Folded(corpus, law.matched().concentration, float(bound), tied)

    def frozen(self):
        """The posterior itself, which never changes."""
        return self

    def settled_on(self, corpus, n_jobs=None):
        raise ValueError(
            "X is not the corpus that was fitted: with posterior='structured' topics "
            "are drawn together with the tokens of that corpus. Pass it, or None; for "
            "other documents use doc_topic_posterior(X)."
        )

    def assignments_on(self, corpus):
        return self.assignments

    def document_weights(self, corpus):
        """About the counts of documents, priors included, (n_documents, K)."""
        if isinstance(self.assignments, Tied):
            return self.assignments.documents.astype(np.float64)
        return self.priors.documents + self.assignments.counts(corpus)[1]

    def expected_counts(self):
        return self.counts

    def draw(self, corpus, n, rng):
        """Joint draws of topics and of the documents' variables."""
        tokens, K = Tokens(corpus), self.priors.documents.size
        z = tokens.draw(self.assignments.all(corpus), n, rng)
        by_document, by_topic = tokens.counts(z, K)
        return {
            "topics": sample_dirichlet(self.priors.topics.T + by_topic, rng),
            "proportions": sample_dirichlet(self.priors.documents + by_document, rng),
            "assignments": z,
        }

    def log_density_of(self, corpus, draws):
        """log q of such draws, (n,)."""
        tokens, K = Tokens(corpus), self.priors.documents.size
        z = draws["assignments"]
        by_document, by_topic = tokens.counts(z, K)
        topics = self.priors.topics.T + by_topic
        proportions = self.priors.documents + by_document
        return (
            dirichlet_log_density(topics, draws["topics"])
            + dirichlet_log_density(proportions, draws["proportions"])
            + tokens.log_density(self.assignments.all(corpus), z)
        )


class CollapsedTopics:
    """The model on one corpus: what skvi.inference.drivers.Guarded asks for."""

    def __init__(self, corpus, n_jobs=None):
        self.corpus = corpus
        self.n_jobs = n_jobs
        self.longest = LONGEST
        self.length = 0.5 * LONGEST  # of the last exact step

    def evaluate(self, q):
        """Expectations under q(z); what they say of words is noted on q."""
        found = Expectations.of(self.corpus, q.assignments, q.priors, self.n_jobs)
        q.counts = Counts(found.words.mean, found.words.squares)
        return found

    def elbo_terms(self, expectations, q):
        """E[log p(w | z)], E[log p(z)] and the entropy of q(z)."""
        words = expectations.words.value.sum() - expectations.total_value.sum()
        proportions = log_prior_of_counts(self.corpus.lengths, q.priors)
        proportions += expectations.documents.value.sum()
        return {
            "log_likelihood": float(words),
            "log_prior": float(proportions),
            "entropy": float(expectations.entropy),
        }

    def ascended(self, q, expectations):
        """Steps to the fixed point of the bound, shorter and shorter."""
        lengths = self.corpus.lengths
        priors = [raised(q.priors, expectations, lengths)]
        if q.priors.learn_documents or q.priors.learn_topics:
            priors.insert(0, best(q.priors, expectations, lengths))
        log_counts = LogCounts(
            self.corpus, q.assignments, expectations, q.priors, self.n_jobs
        )
        at = q.assignments.toward(log_counts)
        length = min(self.longest, 2.0 * self.length)
        # Close to the fixed point steps beyond it go to and fro.
        self.longest = 1.0 + 0.8 * (self.longest - 1.0)
        while length >= SHORTEST:
            self.length = length
            assignments = at(length)
            for candidate in priors:
                yield CollapsedPosterior(candidate, assignments)
            length = 1.0 if length > 1.0 else 0.5 * length
