r"""Latent Dirichlet allocation with q(theta) q(z) q(phi).

Model: theta_d ~ Dirichlet(alpha), phi_k ~ Dirichlet(eta), and for every token z ~
theta_d, w ~ phi_z. With c_dw tokens of word w in document d (they share q(z)),

    r_dwk  ~ exp(E[log theta_dk] + E[log phi_kw])         sums to 1 over k
    q(theta_d) = Dirichlet(alpha + n_d),   n_dk = sum_w c_dw r_dwk
    q(phi_k)   = Dirichlet(eta + N_k),     N_kw = sum_d c_dw r_dwk

(Blei, Ng & Jordan 2003). The local step of a document is a few rounds of the first two;
where q(theta) ended is where the next pass begins, so documents converge along with the
topics. Rounds are capped low while topics move: documents that converge against young
topics lock them in. With r of a last round from q(theta)',

    H[q(z_d)] = sum_w c_dw log sum_k exp(E'[log theta] + E[log phi])
                - sum_k n_dk E'[log theta_dk] - sum_wk c_dw r_dwk E[log phi_kw],

where any r, and so rounding and floors, gives a true bound.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from skvi.distributions.base import Distribution
from skvi.distributions.dirichlet import Dirichlet
from skvi.inference.blocks import run_in_turn
from skvi.kernels import documents
from skvi.models.base import Model, Statistics
from skvi.models.topics.assignments import Tied
from skvi.models.topics.corpus import padded
from skvi.models.topics.draws import Tokens, dirichlet_log_density, sample_dirichlet
from skvi.models.topics.folded import Folded
from skvi.models.topics.priors import (
    maximum_likelihood,
    symmetric_maximum_likelihood,
)
from skvi.models.topics.special import digamma, gammaln, log
from skvi.models.topics.sweeps import Counts

# Smallest exp E[log .], relative to the largest: products of two stay normal numbers,
# so that no token is ever lost.
FLOOR = {"float32": 1e-17, "float64": 1e-140}
CHUNK = 1024  # words at a time
SETTLED_ROUNDS = 200  # of a document whose topics do not move
SETTLED_TOL = {"float32": 1e-5, "float64": 1e-9}


class MeanFieldPosterior(Distribution):
    """q(phi), one Dirichlet a topic, and where the documents of its corpus are.

    Parameters
    ----------
    counts : array of shape (n_words, K)
        N, transposed: the concentration is eta more.
    priors : Priors
        Learnt ones have their present values.
    concentration : array of shape (n_documents, K)
        Of q(theta), by position in the corpus. Passes over documents move it in place.
    """

    names = ("topics",)
    kind = "streaming"  # q(z) is a function of documents and topics

    def __init__(self, counts, priors, concentration=None):
        self.counts = counts
        self.priors = priors
        self.concentration = concentration

    @property
    def totals(self):
        """Concentration of each topic, (K,)."""
        return self.counts.sum(axis=0) + self.priors.topic_total

    def topics(self, words=slice(None)):
        """Concentration of some words, (n, K)."""
        return self.counts[words] + self.priors.rows(words)

    def mean_log(self, words=slice(None)):
        """E[log phi] of some words, (n, K)."""
        out = digamma(self.topics(words))
        out -= digamma(self.totals)
        return out

    def law(self):
        """The law of the topics, (K, n_words)."""
        return Dirichlet(np.ascontiguousarray(self.topics().T))

    def expect(self):
        return {"topics": {"log": self.mean_log().T}}

    def over_words(self, function):
        """Sum of ``function(slice of words)``: large temporaries are slow."""
        n_words = len(self.counts)
        return float(
            sum(
                function(slice(i, min(i + CHUNK, n_words)))
                for i in range(0, n_words, CHUNK)
            )
        )

    def entropy(self):
        totals = self.totals

        def words(chunk):
            a = self.topics(chunk)
            return np.sum(gammaln(a)) - np.sum((a - 1.0) * digamma(a))

        rest = np.sum((totals - len(self.counts)) * digamma(totals) - gammaln(totals))
        return self.over_words(words) + float(rest)

    def sample(self, n, rng):
        return {"topics": self.law().sample(n, rng)}

    def log_density(self, z):
        return self.law().log_density(z["topics"])

    def distance(self, other):
        return self.law().distance(other.law())

    # -- documents ---------------------------------------------------------------------

    def begun(self, corpus):
        """The same topics, with the documents of a corpus at the beginning."""
        K = self.counts.shape[1]
        start = self.priors.documents + corpus.lengths[:, None] / K
        return MeanFieldPosterior(self.counts, self.priors, start)

    def fold(self, corpus, n_jobs=None):
        """The local posterior of documents, topics held."""
        q = self.begun(corpus)
        statistics = MeanFieldTopics(corpus, SETTLED_ROUNDS, n_jobs).evaluate(q)
        values, priors = statistics.values, self.priors
        local = energy_of_words(values["counts"], q) + values["energy"]
        local += log_prior_of_proportions(values, priors) + statistics.entropy
        return Folded(corpus, q.concentration, float(local), q.assignments_on(corpus))

    def frozen(self):
        """A copy whose documents do not move with later passes."""
        if self.concentration is None:
            return self
        return MeanFieldPosterior(self.counts, self.priors, self.concentration.copy())

    def settled_on(self, corpus, n_jobs=None):
        """The same topics, with the documents of a corpus run to tolerance."""
        q = self.begun(corpus)
        MeanFieldTopics(corpus, SETTLED_ROUNDS, n_jobs).evaluate(q)
        return q

    def assignments_on(self, corpus):
        """q(z) of documents as they are."""
        dtype = corpus.dtype
        words = self.mean_log()
        words -= words.max(axis=1, keepdims=True, initial=-np.inf)
        weights = digamma(self.concentration)
        weights -= weights.max(axis=1, keepdims=True, initial=-np.inf)
        floor = FLOOR[dtype.name]
        return Tied(
            *(np.maximum(np.exp(w), floor).astype(dtype) for w in (weights, words))
        )

    def document_weights(self, corpus):
        """About the counts of documents, priors included, (n_documents, K)."""
        return self.concentration.copy()

    def expected_counts(self):
        """Of words; how far shares are from whole tokens is not kept, so: they are."""
        return Counts(self.counts, np.zeros_like(self.counts))

    def draw(self, corpus, n, rng):
        """Joint draws of topics and of the documents' variables."""
        tokens = Tokens(corpus)
        theta = corpus.restored(self.concentration)
        return {
            **self.sample(n, rng),
            "proportions": sample_dirichlet(np.repeat(theta[None], n, axis=0), rng),
            "assignments": tokens.draw(self.assignments_on(corpus).all(corpus), n, rng),
        }

    def log_density_of(self, corpus, draws):
        """log q of such draws, (n,)."""
        theta = corpus.restored(self.concentration)
        shares = self.assignments_on(corpus).all(corpus)
        return (
            self.log_density(draws)
            + dirichlet_log_density(theta[None], draws["proportions"])
            + Tokens(corpus).log_density(shares, draws["assignments"])
        )


def energy_of_words(counts, q):
    """E[log p(words | z, phi)], counts (n_words, K) being those of q(z)."""
    return q.over_words(lambda c: np.sum(counts[c] * q.mean_log(c)))


def log_prior_of_proportions(values, priors):
    """sum over documents of E[log p(theta)]."""
    alpha = priors.documents
    constant = special.gammaln(alpha.sum()) - special.gammaln(alpha).sum()
    return values["documents"] * constant + np.sum((alpha - 1.0) * values["mean_log"])


@dataclass
class MeanFieldTopics(Model):
    """The model on one corpus.

    Parameters
    ----------
    corpus : Corpus
    max_rounds : int
        Rounds of a document's local step in a pass.
    n_jobs : int or None
    tol : float or None
        A document has one last round after one that moved its concentration by less
        than this share. None goes by the precision of the counts.
    """

    corpus: object
    max_rounds: int
    n_jobs: int | None = None
    tol: float | None = None

    def settled(self):
        """The same model with documents that run to tolerance."""
        return replace(self, max_rounds=SETTLED_ROUNDS)

    def evaluate(self, q):
        """Statistics of all documents: a pass that moves them."""
        return self.total(q, self.corpus.blocks)

    def statistics(self, q, block):
        return self.total(q, [block])

    def total(self, q, blocks):
        """Statistics of some blocks, added into one array of words by topics."""
        counts = np.zeros(q.counts.shape)
        rest = Statistics()
        passes = run_in_turn(lambda b: self._local(q, b), blocks, self.n_jobs)
        for block, (assigned, statistics) in passes:
            counts[block.vocabulary] += assigned
            rest = rest + statistics
        return rest.with_values({"counts": counts, **rest.values})

    def _local(self, q, block):
        """A pass over a block: (counts of its words, the other statistics)."""
        K, dtype = q.counts.shape[1], block.counts.dtype
        floor = FLOOR[dtype.name]
        topics = q.mean_log(block.vocabulary)
        topics -= topics.max(axis=1, keepdims=True, initial=-np.inf)
        np.maximum(np.exp(topics, out=topics), floor, out=topics)
        rows = padded(topics.astype(dtype, copy=False))
        assigned = np.zeros(rows.shape)
        terms = np.empty((len(block.indptr) - 1, 2))
        concentration = q.concentration[block.documents]
        documents.mean_field(
            block.indptr,
            block.words,
            block.counts,
            rows,
            q.priors.documents,
            concentration,
            self.max_rounds,
            SETTLED_TOL[dtype.name] if self.tol is None else self.tol,
            floor,
            assigned,
            terms,
            np.empty(K),
            np.empty((2, rows.shape[1]), dtype),
        )
        assigned = np.ascontiguousarray(assigned[:, :K])
        q.concentration[block.documents] = concentration
        totals = concentration.sum(axis=1)
        mean_log = digamma(concentration) - digamma(totals)[:, None]
        log_gamma = gammaln(concentration).sum(axis=1) - gammaln(totals)
        entropy = terms[:, 0].sum() - terms[:, 1].sum()
        entropy -= np.sum(assigned * log(rows[:, :K]))
        entropy += np.sum(log_gamma) - np.sum((concentration - 1.0) * mean_log)
        values = {
            "mean_log": mean_log.sum(axis=0),
            "energy": float(np.sum((concentration - q.priors.documents) * mean_log)),
            "documents": float(len(totals)),
        }
        return assigned, Statistics(values, float(entropy))

    def global_step(self, values, warm):
        priors = warm.priors
        if priors.learn_documents and values["documents"]:
            mean_log = values["mean_log"] / values["documents"]
            priors = priors.with_documents(
                maximum_likelihood(mean_log, priors.documents)
            )
        if priors.learn_topics:
            mean_log = warm.over_words(lambda c: warm.mean_log(c).sum())
            mean_log /= warm.counts.size
            priors = priors.with_topics(
                symmetric_maximum_likelihood(
                    mean_log, priors.n_words, priors.topics.item()
                )
            )
        return MeanFieldPosterior(values["counts"], priors, warm.concentration)

    def expected_log_likelihood(self, values, q):
        """E[log p(words | z, phi) + log p(z | theta) + log p(theta)]."""
        energy = energy_of_words(values["counts"], q) + values["energy"]
        return energy + log_prior_of_proportions(values, q.priors)

    def expected_log_prior(self, q):
        """E[log p(phi)]."""
        priors = q.priors
        energy = q.over_words(lambda c: np.sum((priors.rows(c) - 1.0) * q.mean_log(c)))
        return energy + priors.log_normalizer_of_topics()
