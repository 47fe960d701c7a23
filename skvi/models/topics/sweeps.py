"""CVB0 sweeps over a corpus: fast steps in q(z).

Documents move one cell at a time. Within a block the counts of its words move along;
the blocks of a share start from the same counts and add their moves, so the result does
not depend on how many of them run at once.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.utils import gen_even_slices

from skvi.inference.blocks import run_in_turn, run_parallel
from skvi.kernels import documents
from skvi.models.topics.assignments import Stored, Tied
from skvi.models.topics.corpus import padded

N_PARALLEL = 4  # blocks of documents at once; they do not see each other's moves
MEMORY = 22e6  # bytes of counts that the shares of streaming sweeps remember


@dataclass(frozen=True)
class Counts:
    """Of words: expected counts by topic, and sums of squared shares; (n_words, K)."""

    mean: np.ndarray
    squares: np.ndarray

    def weights(self, priors, words=None):
        """Weight of each word in each topic, as a token of average share sees it.

        With s = sum c r^2 / sum c r the mean share of a token in the count n = sum c r,
        prior + n - s, over the topic's total. A word of a single document then weighs
        what CVB0, which takes out the token's own share, makes of it: its prior.
        """
        n_words, K = self.mean.shape
        words = np.arange(n_words) if words is None else words
        totals = self.mean.sum(axis=0, dtype=np.float64) + priors.topic_total
        out = np.empty((len(words), K), self.mean.dtype)
        documents.word_weights(
            words, self.mean, self.squares, priors.topics, 1.0 / totals, out
        )
        return out


class StoredSweeps:
    """q(z) of every cell is kept: the counts without a cell's own tokens are exact."""

    def __init__(self, corpus, n_jobs=None):
        self.corpus = corpus
        self.n_jobs = n_jobs

    def __call__(self, assignments, priors, n_sweeps):
        """Assignments after some sweeps."""
        corpus, dtype = self.corpus, self.corpus.dtype
        shares = assignments.shares.copy()
        topics, counts = assignments.counts(corpus)
        topics += priors.topics
        totals = topics.sum(axis=0)
        counts = (counts + priors.documents).astype(dtype)

        def sweep(block):
            start = topics[block.vocabulary]
            local = start.astype(dtype)
            part = counts[block.documents]
            documents.sweep(
                block.indptr,
                block.words,
                block.counts,
                inverse,
                local,
                part,
                shares[block.cells],
                np.empty(len(inverse), dtype),
            )
            counts[block.documents] = part
            return local - start.astype(dtype)

        groups = range(0, len(corpus.blocks), N_PARALLEL)
        for _ in range(n_sweeps):
            for first in groups:
                inverse = (1.0 / totals).astype(dtype)
                group = corpus.blocks[first : first + N_PARALLEL]
                for block, move in zip(
                    group, run_parallel(sweep, group, self.n_jobs, shared_memory=True)
                ):
                    topics[block.vocabulary] += move
                    totals = totals + move.sum(axis=0, dtype=np.float64)
        return Stored(shares)


class TiedSweeps:
    """q(z) is a product of weights, and nothing is kept by cell.

    Each share of the blocks remembers what it adds to the counts, and replaces it.

    Parameters
    ----------
    corpus : Corpus
    counts : Counts
        Where to start, moved: a share is taken to have added in proportion to its
        tokens.
    weights : array of shape (n_documents, K)
        By position, where to start; moved.
    """

    def __init__(self, corpus, counts, weights, n_jobs=None):
        self.corpus = corpus
        self.n_jobs = n_jobs
        self.weights = weights
        dtype = corpus.dtype
        self.counts = Counts(
            counts.mean.astype(dtype, copy=False),
            counts.squares.astype(dtype, copy=False),
        )
        size = 2 * counts.mean.size * dtype.itemsize
        n_shares = int(np.clip(MEMORY // size, 1, max(1, len(corpus.blocks))))
        slices = gen_even_slices(len(corpus.blocks), n_shares)
        self.shares = [_Share(corpus, corpus.blocks[s], self.counts) for s in slices]

    def __call__(self, priors, n_sweeps):
        """Assignments after some sweeps."""
        mean, squares = self.counts.mean, self.counts.squares  # moved in place
        for _ in range(n_sweeps):
            for share in self.shares:
                words = share.words
                new = self._pass(Counts(mean, squares), priors, share)
                mean[words] = np.maximum(mean[words] + (new[0] - share.memo[0]), 0.0)
                squares[words] = np.maximum(
                    squares[words] + (new[1] - share.memo[1]), 0.0
                )
                share.memo = new
        return Tied(self.weights.astype(mean.dtype), self.counts.weights(priors))

    def _pass(self, counts, priors, share):
        """What the documents of a share now add to the counts of its words."""

        def sweep(block):
            topics = counts.weights(priors, block.vocabulary)
            weights = self.weights[block.documents]
            assigned, squares, _ = tied_pass(block, topics, priors, weights, 1)
            self.weights[block.documents] = weights
            return assigned, squares

        new = np.zeros_like(share.memo)
        passes = run_in_turn(sweep, share.blocks, self.n_jobs)
        for where, (_, (assigned, squares)) in zip(share.places, passes):
            new[0, where] += assigned
            new[1, where] += squares
        return new


class _Share:
    """Some blocks, and what they add to the counts of their words.

    At first that is not known, and taken to be in proportion to their tokens.
    """

    def __init__(self, corpus, blocks, counts):
        self.blocks = blocks
        vocabularies = [block.vocabulary for block in blocks]
        self.words = np.unique(np.concatenate([*vocabularies, np.empty(0, np.int64)]))
        self.places = [np.searchsorted(self.words, v) for v in vocabularies]
        tokens = np.zeros(corpus.n_words)
        for block in blocks:
            tokens[block.vocabulary] += np.bincount(
                block.words, block.counts, len(block.vocabulary)
            )
        part = (tokens / np.maximum(corpus.word_tokens, 1e-300))[self.words, None]
        self.memo = np.stack(
            [part * counts.mean[self.words], part * counts.squares[self.words]]
        ).astype(counts.mean.dtype)


def tied_pass(block, topics, priors, weights, max_rounds, tol=1e-6):
    """One pass of `documents.tied`: (counts, squares) of words, and of documents.

    ``weights`` is moved. The arithmetic is in the precision of the block.
    """
    dtype = block.counts.dtype
    K = topics.shape[1]
    topics = padded(topics.astype(dtype, copy=False))
    assigned, squares = np.zeros(topics.shape), np.zeros(topics.shape)
    by_document = np.empty((2, len(weights), K))
    documents.tied(
        block.indptr,
        block.words,
        block.counts,
        topics,
        priors.documents,
        weights,
        max_rounds,
        tol,
        assigned,
        squares,
        by_document,
        np.empty((3, topics.shape[1]), dtype),
    )
    return assigned[:, :K], squares[:, :K], by_document
