"""Steps on blocks of documents of a corpus that is never seen whole.

The statistics of a block, with the topics of the moment held, are scaled up to the
corpus and blended with those before (Hoffman, Blei & Bach 2010; for q(z) with the rest
integrated out Foulds et al. 2013). The bound is then an estimate: its documents are
those of the blended blocks; its topics, for q(z), take each count for a Binomial of its
mean and variance.
"""

import numpy as np
from scipy import special

from skvi.inference.blocks import run_parallel
from skvi.models.base import Statistics
from skvi.models.topics.assignments import Tied
from skvi.models.topics.collapsed import CollapsedPosterior
from skvi.models.topics.expectations import (
    document_chunks,
    expect_by_moments,
    laws_of_documents,
    log_prior_of_counts,
    prior_rows,
)
from skvi.models.topics.mean_field import MeanFieldTopics
from skvi.models.topics.priors import best_topics_for_counts
from skvi.models.topics.special import gammaln
from skvi.models.topics.sweeps import Counts, tied_pass

ROUNDS = 30  # of a document, from the beginning: topics still move


class MeanFieldStream:
    """Steps of mean field; a block is a Corpus."""

    def __init__(self, n_jobs=None):
        self.n_jobs = n_jobs

    def _model(self, corpus):
        return MeanFieldTopics(corpus, ROUNDS, self.n_jobs)

    def statistics(self, q, block):
        return self._model(block).evaluate(q.begun(block))

    def global_step(self, values, warm):
        return self._model(None).global_step(values, warm)

    def elbo_terms(self, statistics, q):
        return self._model(None).elbo_terms(statistics, q)


class CollapsedStream:
    """Steps of q(z), topics and proportions integrated out; a block is a Corpus."""

    def __init__(self, n_jobs=None):
        self.n_jobs = n_jobs

    def statistics(self, q, block):
        priors, K = q.priors, q.priors.documents.size
        weights = priors.documents + block.lengths[:, None] / K
        mean, squares = np.zeros((2, block.n_words, K))
        topics = q.counts.weights(priors)

        def settle(part):
            local = weights[part.documents]
            found = tied_pass(part, topics[part.vocabulary], priors, local, ROUNDS)
            weights[part.documents] = local
            return found

        for part, found in zip(
            block.blocks, run_parallel(settle, block.blocks, self.n_jobs)
        ):
            mean[part.vocabulary] += found[0]
            squares[part.vocabulary] += found[1]
        tied = Tied(weights.astype(block.dtype), topics.astype(block.dtype))
        alpha = np.ascontiguousarray(priors.documents[None])

        def evaluate(chunk):
            laws, _ = laws_of_documents(block, tied, chunk)
            value, slope = laws.expect(alpha)
            return value.sum(), slope, laws.entropy

        found = run_parallel(evaluate, document_chunks(block), self.n_jobs)
        values, slopes, entropies = zip(*found)
        return stream_statistics(
            mean,
            squares,
            sum(values),
            sum(slopes),
            sum(entropies),
            block.lengths,
            priors,
        )

    def global_step(self, values, warm):
        priors = warm.priors
        if priors.learn_documents and values["total"] > 0.0:
            alpha = priors.documents * values["slope"] / values["total"]
            priors = priors.with_documents(alpha)
        counts = Counts(values["mean"], values["squares"])
        priors = best_topics_for_counts(priors, counts.mean)
        return CollapsedPosterior(priors, counts=counts)

    def elbo_terms(self, statistics, q):
        values, priors = statistics.values, q.priors
        _, eta = prior_rows(priors)
        words, _ = expect_by_moments(values["mean"], values["squares"], eta)
        E, totals = priors.topic_total, values["mean"].sum(axis=0)
        words = words.sum() - np.sum(gammaln(E + totals) - gammaln(E))
        return {
            "log_likelihood": float(words),
            "log_prior": float(values["proportions"]),
            "entropy": float(statistics.entropy),
        }


def stream_statistics(mean, squares, value, slope, entropy, lengths, priors):
    """Statistics of documents: their words' counts, and their part of the bound."""
    A = priors.documents.sum()
    total = special.digamma(A + lengths) - special.digamma(A)
    values = {
        "mean": mean,
        "squares": squares,
        "proportions": float(value + log_prior_of_counts(lengths, priors)),
        "slope": slope,
        "total": float(total.sum()),
    }
    return Statistics(values, float(entropy))
