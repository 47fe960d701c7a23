r"""Exact expectations under q(z), with topics and proportions integrated out.

    p(w, z) = prod_d Gamma(A) / Gamma(A + N_d)
                     prod_k Gamma(alpha_k + n_dk) / Gamma(alpha_k)
            x prod_k Gamma(E_k) / Gamma(E_k + n_k)
                     prod_w Gamma(eta_kw + n_kw) / Gamma(eta_kw)

with A = sum alpha, E_k = sum_w eta_kw (Griffiths & Steyvers 2004). Under q(z) every
count is a sum of independent Bernoullis, so E[log p(w, z)] is a sum of E[log Gamma(a +
n)], which skvi.kernels.counts integrates to about 1e-9 (n + 1). Documents are read in
one pass, words in another; both also give the means and variances of the counts.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse, special

from skvi.inference.blocks import run_parallel
from skvi.kernels import counts

GROUPS = 64  # documents or words whose laws are held at once
SHARE_OF_NONE = 1e-9  # so that a topic without tokens has an average, too
CELLS = 16384  # and at most so many cells of words, unless one has more


def _gauss_legendre(n, power):
    """Nodes as skvi.kernels.counts wants them, for integrals over t > 0."""
    x, w = np.polynomial.legendre.leggauss(n)
    v = 0.5 * (x + 1.0)
    t = (v / (1.0 - v)) ** power
    weight = 0.5 * w * power * v ** (power - 1) / (1.0 - v) ** (power + 1)
    u = -np.expm1(-t)
    scale = np.where(t < 1.0, 1.0, 1.0 / u)
    return np.array([t, u, weight, weight / t, np.exp(-t) / u, scale])


NODES = np.column_stack([_gauss_legendre(32, 2), [np.inf, 1.0, 0.0, 0.0, 0.0, 1.0]])
FAR_NODES = _gauss_legendre(128, 3)  # for large counts, whose law lives at small t
WORK = 2 * FAR_NODES.shape[1] + NODES.shape[1] + 64


@dataclass
class Side:
    """Documents or words: what q(z) makes of their counts.

    Attributes
    ----------
    mean, squares : arrays of shape (n_groups, K)
        Expected counts, and what is to be subtracted from them for their variance.
    value, slope : arrays of shape (K,)
        Sums of E[log Gamma(a + n)] - log Gamma(a), and of its derivative by a.
    """

    mean: np.ndarray
    squares: np.ndarray
    value: np.ndarray
    slope: np.ndarray


class Laws:
    """The laws of the counts of some groups of cells."""

    def __init__(self, indptr, tokens, shares):
        K = shares.shape[1]
        self.indptr = np.ascontiguousarray(indptr, dtype=np.int32)
        self.shares = shares
        self.powers = np.zeros((len(indptr) - 1, 6, K))
        self.table = np.zeros((len(indptr) - 1, K, NODES.shape[1]))
        entropy = np.zeros(1)
        tokens = np.ascontiguousarray(tokens, dtype=np.float64)
        counts.tables(
            self.indptr, tokens, shares, NODES[1], self.powers, self.table, entropy
        )
        self.entropy = float(entropy[0])

    def expect(self, prior):
        """(value, slope) summed over groups, (K,) each."""
        return expect(self.powers, self.table, prior)

    def add_log_counts(self, prior, out, sign=1.0):
        """Add ``sign * E log(a + n')`` of every cell, n' being n less one token."""
        counts.add_log_counts(
            self.indptr,
            self.shares,
            self.powers,
            self.table,
            prior,
            NODES,
            FAR_NODES,
            sign,
            out,
            np.empty(WORK),
        )


def expect(powers, table, prior):
    """(value, slope) of laws given by their powers and tables, summed over groups."""
    K = powers.shape[2]
    value, slope = np.zeros(K), np.zeros(K)
    counts.expect(powers, table, prior, NODES, FAR_NODES, value, slope, np.empty(WORK))
    return value, slope


def expect_by_moments(mean, squares, prior):
    """(value, slope) of counts known by mean and sum of squared shares, over words.

    Each is taken for a Binomial of that mean and that variance, ``mean - squares``.
    """
    value, slope = np.zeros(mean.shape[1]), np.zeros(mean.shape[1])
    for first in range(0, len(mean), GROUPS):
        rows = slice(first, first + GROUPS)
        n, q = mean[rows], squares[rows]
        share = np.divide(q, n, out=np.zeros_like(n), where=n > 0.0)
        share = np.clip(share, 0.0, 1.0 - 1e-12)
        trials = np.divide(n, share, out=np.zeros_like(n), where=share > 0.0)
        powers = n[:, None] * share[:, None] ** np.arange(6)[:, None]
        x = share[..., None] * NODES[1]
        rest = np.log1p(-x) + sum(x**m / m for m in range(1, 7))
        table = np.where(share[..., None] > 0.02, trials[..., None] * rest, 0.0)
        part = expect(powers, table, rows_of(prior, rows))
        value += part[0]
        slope += part[1]
    return value, slope


class Whole:
    """The laws of the counts of whole topics."""

    def __init__(self, powers, table):
        self.powers = powers[None]
        self.table = table[None]

    def expect(self, prior):
        return expect(self.powers, self.table, prior[None])

    def subtract_log_counts(self, shares, prior, out):
        counts.add_log_counts(
            np.array([0, len(shares)], dtype=np.int32),
            shares,
            self.powers,
            self.table,
            prior[None],
            NODES,
            FAR_NODES,
            -1.0,
            out,
            np.empty(WORK),
        )


def document_chunks(corpus):
    starts = range(0, corpus.n_documents, GROUPS)
    return [slice(i, min(i + GROUPS, corpus.n_documents)) for i in starts]


def word_chunks(corpus):
    """Slices of words with at most GROUPS words and about CELLS cells."""
    indptr, _ = corpus.by_word
    chunks, first = [], 0
    while first < corpus.n_words:
        last = int(np.searchsorted(indptr, indptr[first] + CELLS, side="right")) - 1
        last = min(max(last, first + 1), first + GROUPS, corpus.n_words)
        chunks.append(slice(first, last))
        first = last
    return chunks


def laws_of_documents(corpus, assignments, chunk):
    indptr = corpus.indptr[chunk.start : chunk.stop + 1]
    cells = slice(int(indptr[0]), int(indptr[-1]))
    shares = assignments.of(corpus, cells)
    return Laws(indptr - indptr[0], corpus.counts[cells], shares), cells


def laws_of_words(corpus, assignments, chunk):
    indptr, order = corpus.by_word
    indptr = indptr[chunk.start : chunk.stop + 1]
    cells = order[indptr[0] : indptr[-1]]
    shares = assignments.of(corpus, cells)
    return Laws(indptr - indptr[0], corpus.counts[cells], shares), cells


def prior_rows(priors):
    """alpha as (1, K), eta as (1 or n_words, K)."""
    eta = np.broadcast_to(priors.topics, (len(priors.topics), priors.documents.size))
    return np.ascontiguousarray(priors.documents[None]), np.ascontiguousarray(eta)


def rows_of(prior, rows):
    """Rows of an array that broadcasts to (n, K), by groups; one if all are equal."""
    return prior[rows] if len(prior) > 1 else prior


@dataclass
class Expectations:
    """Everything about q(z) that the bound and the next step read."""

    documents: Side
    words: Side
    total_value: np.ndarray
    total_slope: np.ndarray
    whole: Whole
    entropy: float

    @classmethod
    def of(cls, corpus, assignments, priors, n_jobs=None):
        alpha, eta = prior_rows(priors)

        def documents(chunk):
            laws, _ = laws_of_documents(corpus, assignments, chunk)
            value, slope = laws.expect(alpha)
            powers = laws.powers
            return (
                powers[:, 0].copy(),
                powers[:, 1].copy(),
                value,
                slope,
                powers.sum(axis=0),
                laws.table.sum(axis=0),
                laws.entropy,
            )

        def words(chunk):
            laws, _ = laws_of_words(corpus, assignments, chunk)
            value, slope = laws.expect(rows_of(eta, chunk))
            return laws.powers[:, 0].copy(), laws.powers[:, 1].copy(), value, slope

        by_document = run_parallel(documents, document_chunks(corpus), n_jobs)
        by_word = run_parallel(words, word_chunks(corpus), n_jobs)
        whole = Whole(*(sum(part[i] for part in by_document) for i in (4, 5)))
        total_value, total_slope = whole.expect(priors.topic_total)
        return cls(
            _side(by_document),
            _side(by_word),
            total_value,
            total_slope,
            whole,
            float(sum(part[6] for part in by_document)),
        )


def _side(parts):
    mean, squares, value, slope = list(zip(*parts))[:4]
    return Side(np.concatenate(mean), np.concatenate(squares), sum(value), sum(slope))


class LogCounts:
    """Of a token of each cell, E log p(z | other z, w): an optimal q(z) is its exp.

    ``E log(alpha + n_d') + E log(eta + n_w') - E log(sum eta + n')``, counts without
    the token itself, under the present q(z).
    """

    def __init__(self, corpus, assignments, expectations, priors, n_jobs=None):
        self.corpus = corpus
        self.assignments = assignments
        self.whole = expectations.whole
        self.priors = priors
        self.n_jobs = n_jobs
        self.alpha, self.eta = prior_rows(priors)

    def by_cell(self):
        """The sum of the three, (n_cells, K), in the precision of the corpus."""
        corpus, K = self.corpus, self.priors.documents.size
        out = np.empty((corpus.n_cells, K), corpus.dtype)

        def documents(chunk):
            laws, cells = laws_of_documents(corpus, self.assignments, chunk)
            part = np.zeros(laws.shares.shape)
            laws.add_log_counts(self.alpha, part)
            self.whole.subtract_log_counts(laws.shares, self.priors.topic_total, part)
            out[cells] = part

        def words(chunk):
            laws, cells = laws_of_words(corpus, self.assignments, chunk)
            part = np.zeros(laws.shares.shape)
            laws.add_log_counts(rows_of(self.eta, chunk), part)
            out[cells] += part

        run_parallel(
            documents, document_chunks(corpus), self.n_jobs, shared_memory=True
        )
        run_parallel(words, word_chunks(corpus), self.n_jobs, shared_memory=True)
        return out

    def averages(self):
        """(of documents (D, K), of words less whole topics (V, K)): means over cells.

        Cells count by the tokens that they give to the topic.
        """
        corpus = self.corpus

        def averaged(laws_of, prior_of):
            def average(chunk):
                laws, cells = laws_of(corpus, self.assignments, chunk)
                out = np.zeros(laws.shares.shape)
                laws.add_log_counts(prior_of(chunk), out)
                weight = laws.shares + SHARE_OF_NONE
                weight *= corpus.counts[cells][:, None]
                rows = sparse.csr_array(
                    (np.ones(len(weight)), np.arange(len(weight)), laws.indptr),
                    shape=(len(laws.indptr) - 1, len(weight)),
                )
                total = rows @ weight.astype(np.float64)
                mean = np.zeros_like(total)
                np.divide(rows @ (weight * out), total, out=mean, where=total > 0.0)
                return mean

            return average

        documents = averaged(laws_of_documents, lambda chunk: self.alpha)
        words = averaged(laws_of_words, lambda chunk: rows_of(self.eta, chunk))
        by_document = run_parallel(documents, document_chunks(corpus), self.n_jobs)
        by_word = run_parallel(words, word_chunks(corpus), self.n_jobs)
        powers = self.whole.powers[0]
        share = np.divide(
            powers[1], powers[0], out=np.zeros_like(powers[0]), where=powers[0] > 0.0
        )
        total = np.zeros((1, len(share)))
        self.whole.subtract_log_counts(share[None], self.priors.topic_total, total)
        return np.concatenate(by_document), np.concatenate(by_word) + total


def log_prior_of_counts(lengths, priors):
    """sum_d [log Gamma(A) - log Gamma(A + N_d)]."""
    A = priors.documents.sum()
    return float(np.sum(special.gammaln(A) - special.gammaln(A + lengths)))
