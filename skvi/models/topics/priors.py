"""Dirichlet priors of proportions and topics, given or learnt.

A learnt prior maximises the bound with everything else held (empirical Bayes). With D
documents and S_k = sum_d E[log theta_dk] that is, in alpha,

    D [log Gamma(sum alpha) - sum_k log Gamma(alpha_k)] + sum_k alpha_k S_k,

which is concave; its Newton step costs O(K) because the Hessian is a diagonal plus a
constant (Minka 2000). Where theta is integrated out the same place is taken by

    sum_d [log Gamma(A) - log Gamma(A + N_d)]
        + sum_dk E[log Gamma(alpha_k + n_dk) - log Gamma(alpha_k)],  A = sum alpha,

whose fixed point alpha_k <- alpha_k sum_d E[psi(alpha_k + n_dk) - psi(alpha_k)] /
sum_d [psi(A + N_d) - psi(A)] never lowers it (Minka 2000, eq. 55, in expectation).
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from skvi.models.topics.special import digamma

SMALLEST, LARGEST = 1e-4, 1e4  # where a learnt prior stays: a corpus may not bound it
N_NEWTON = 50
N_FIXED_POINT = 200  # steps for known counts, at most
FIXED_POINT_TOL = 1e-6  # relative, of a step


@dataclass(frozen=True)
class Priors:
    """alpha and eta, and which of them are learnt.

    Attributes
    ----------
    documents : array of shape (K,)
        alpha.
    topics : array that broadcasts to (n_words, K)
        eta; of shape (1, 1) where it is one number.
    n_words : int
    learn_documents, learn_topics : bool
    """

    documents: np.ndarray
    topics: np.ndarray
    n_words: int
    learn_documents: bool = False
    learn_topics: bool = False

    @property
    def topic_total(self):
        """sum over words of eta, (K,)."""
        K = self.documents.size
        each = np.broadcast_to(self.topics, (self.topics.shape[0], K)).sum(axis=0)
        return each * (self.n_words / self.topics.shape[0])

    def rows(self, words):
        """eta of some words, (n or 1, K or 1)."""
        return self.topics[words] if len(self.topics) > 1 else self.topics

    def with_documents(self, alpha):
        return replace(self, documents=np.clip(alpha, SMALLEST, LARGEST))

    def with_topics(self, eta):
        eta = np.clip(eta, SMALLEST, LARGEST)
        return replace(self, topics=np.full((1, 1), eta))

    def log_normalizer_of_topics(self):
        """sum_k [log Gamma(sum eta) - sum_w log Gamma(eta_w)]."""
        K = self.documents.size
        repeats = self.n_words / self.topics.shape[0]
        each = np.broadcast_to(special.gammaln(self.topics), (len(self.topics), K))
        return float(special.gammaln(self.topic_total).sum() - repeats * each.sum())


def maximum_likelihood(mean_log, start, floor=SMALLEST):
    """The Dirichlet concentration whose E log x are ``mean_log``, by Newton steps.

    The log of the concentration moves, so it stays positive, by steps that are halved
    while the likelihood falls.
    """
    alpha = np.clip(start, floor, LARGEST)

    def objective(a):
        return special.gammaln(a.sum()) + np.sum(a * mean_log - special.gammaln(a))

    value = objective(alpha)
    for _ in range(N_NEWTON):
        slope = special.digamma(alpha.sum()) - special.digamma(alpha) + mean_log
        # In log alpha: gradient a g; Hessian  a a' psi'(A) - diag(a^2 psi'(a) - a g).
        gradient = alpha * slope
        diagonal = alpha**2 * special.polygamma(1, alpha) - np.minimum(gradient, 0.0)
        common = special.polygamma(1, alpha.sum())
        inner = alpha / diagonal
        step = gradient / diagonal
        left = 1.0 - common * np.sum(alpha * inner)
        if left > 1e-8:
            step = step + inner * common * np.sum(alpha * step) / left
        length = 1.0
        while True:
            moved = np.clip(
                alpha * np.exp(np.clip(length * step, -3, 3)), floor, LARGEST
            )
            new = objective(moved)
            if new >= value or length < 1e-4:
                break
            length *= 0.5
        if not new >= value:
            return alpha
        done = new - value <= 1e-13 * (1.0 + abs(value))
        alpha, value = moved, new
        if done:
            break
    return alpha


def symmetric_maximum_likelihood(mean_log, n, start):
    """As `maximum_likelihood` for n equal entries with the average ``mean_log``."""
    if n == 1:
        return start  # one entry is one, whatever eta
    eta = np.clip(start, SMALLEST, LARGEST)

    def objective(e):
        return special.gammaln(n * e) - n * special.gammaln(e) + n * e * mean_log

    value = objective(eta)
    for _ in range(N_NEWTON):
        slope = n * (special.digamma(n * eta) - special.digamma(eta) + mean_log)
        bend = n * special.polygamma(1, eta) - n**2 * special.polygamma(1, n * eta)
        step = eta * slope / (eta**2 * bend + abs(eta * slope))
        length = 1.0
        while True:
            moved = np.clip(eta * np.exp(length * step), SMALLEST, LARGEST)
            new = objective(moved)
            if new >= value or length < 1e-4:
                break
            length *= 0.5
        if not new >= value:
            return eta
        done = new - value <= 1e-13 * (1.0 + abs(value))
        eta, value = moved, new
        if done:
            break
    return float(eta)


def best(priors, expectations, lengths):
    """Learnt priors that are about best for the present q(z).

    Expectations are known at the present priors only. Elsewhere those of the expected
    counts, taken as known, are scaled by the ratio of the two here, which makes the
    answer exact where it no longer moves.
    """
    if priors.learn_documents:
        counts = expectations.documents.mean
        alpha = priors.documents
        known, slope = _slope(alpha, counts), expectations.documents.slope
        ratio = np.divide(slope, known, out=np.ones_like(slope), where=known > 0.0)
        for _ in range(N_FIXED_POINT):
            alpha = priors.documents
            priors = _with_documents(priors, ratio * _slope(alpha, counts), lengths)
            if np.max(np.abs(priors.documents / alpha - 1.0)) < FIXED_POINT_TOL:
                break
    if priors.learn_topics:
        counts = expectations.words.mean
        slope, total = _topic_slopes(priors, counts)
        ratio = expectations.words.slope.sum() / slope
        ratio *= total / expectations.total_slope.sum()
        priors = best_topics_for_counts(priors, counts, ratio)
    return priors


def best_topics_for_counts(priors, by_word, ratio=1.0):
    """A learnt eta by fixed-point iteration, expected counts (n_words, K) as known."""
    if priors.learn_topics:
        for _ in range(N_FIXED_POINT):
            eta = priors.topics.item()
            slope, total = _topic_slopes(priors, by_word)
            priors = _with_topics(priors, ratio * slope, total)
            if abs(priors.topics.item() / eta - 1.0) < FIXED_POINT_TOL:
                break
    return priors


def raised(priors, expectations, lengths):
    """Learnt priors after a fixed-point step, which cannot lower the bound."""
    if priors.learn_documents:
        priors = _with_documents(priors, expectations.documents.slope, lengths)
    if priors.learn_topics:
        slope, total = expectations.words.slope, expectations.total_slope
        priors = _with_topics(priors, slope.sum(), total.sum())
    return priors


def _slope(prior, counts):
    return np.sum(digamma(prior + counts) - special.digamma(prior), axis=0)


def _topic_slopes(priors, by_word):
    E = priors.topic_total
    total = special.digamma(E + by_word.sum(axis=0)) - special.digamma(E)
    return _slope(priors.topics, by_word).sum(), total.sum()


def _with_documents(priors, slope, lengths):
    A = priors.documents.sum()
    total = np.sum(special.digamma(A + lengths) - special.digamma(A))
    return priors.with_documents(priors.documents * slope / total)


def _with_topics(priors, slope, total):
    return priors.with_topics(priors.topics.item() * slope / (priors.n_words * total))
