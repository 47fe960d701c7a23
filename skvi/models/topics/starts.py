"""Where a fit begins."""

from dataclasses import dataclass

import numpy as np

from skvi.models.topics.sweeps import Counts, TiedSweeps, tied_pass


@dataclass(frozen=True)
class Start:
    """Where a fit begins.

    Attributes
    ----------
    counts : Counts
        Of words.
    weights : array of shape (n_documents, K)
        Of documents, by position.
    posterior : a posterior of the same corpus, or None
        That of an earlier fit, to go on from.
    """

    counts: Counts
    weights: np.ndarray
    posterior: object = None


def from_random_proportions(corpus, priors, rng):
    """Every document has random proportions, and its tokens follow them.

    Proportions lean to topics with a large alpha, and tokens to the topics in which
    eta makes their word probable, so topics keep the places that priors give them.
    """
    alpha = priors.documents
    K = alpha.size
    theta = rng.dirichlet(
        np.maximum(alpha * (K / alpha.sum()), 1e-2), corpus.n_documents
    )
    theta = corpus.positioned(theta)
    topics = np.ones((corpus.n_words, K))
    if priors.topics.shape[1] > 1:
        topics = priors.topics / priors.topic_total
        topics = topics / topics.max(axis=1, keepdims=True)
    counts = Counts(*np.zeros((2, corpus.n_words, K), corpus.dtype))
    for block in corpus.blocks:
        weights = np.maximum(theta[block.documents], 1e-12)
        found = tied_pass(block, topics[block.vocabulary], priors, weights, 1)
        counts.mean[block.vocabulary] += found[0]
        counts.squares[block.vocabulary] += found[1]
    return Start(counts, alpha + corpus.lengths[:, None] * theta)


def from_topics(corpus, priors, topics):
    """Given topics (K, n_words), scaled to the tokens of the corpus."""
    K = priors.documents.size
    shares = topics / topics.sum(axis=1, keepdims=True)
    mean = np.ascontiguousarray(shares.T) * (corpus.n_tokens / K)
    weights = priors.documents + np.repeat(corpus.lengths[:, None] / K, K, axis=1)
    return Start(Counts(mean, np.zeros_like(mean)), weights)


def from_posterior(corpus, q):
    """On from a posterior of the same corpus, of this family."""
    counts = q.expected_counts()
    counts = Counts(counts.mean.copy(), counts.squares.copy())  # sweeps move them
    return Start(counts, q.document_weights(corpus), q)


def swept(corpus, start, priors, n_sweeps, n_jobs=None):
    """The start after some sweeps of CVB0."""
    sweeps = TiedSweeps(corpus, start.counts, start.weights, n_jobs)
    sweeps(priors, n_sweeps)
    return Start(sweeps.counts, sweeps.weights)
