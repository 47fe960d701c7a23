# cython: language_level=3, boundscheck=False, wraparound=False
# cython: cdivision=True, initializedcheck=False
"""Passes over documents: one cell (document, word) at a time, all topics at once.

A block of documents is in compressed rows: cells ``indptr[d]:indptr[d + 1]`` are those
of document d, with the row of `topics` that belongs to the word, and a count. Rows of
`topics` are gathered for the words of the block, so that they lie close. Arrays that
sum over documents are double; everything of one cell is in the precision of `topics`.
"""

from libc.math cimport log, fabs
from libc.stdint cimport int64_t

ctypedef fused real:
    float
    double

cdef extern from "cells.h" nogil:
    void skvi_exp_digamma(int64_t, const double*, double, double*)
    void skvi_round_float(
        int64_t, int64_t, const int*, const float*, const float*, const float*, float*)
    void skvi_round_double(
        int64_t, int64_t, const int*, const double*, const double*, const double*,
        double*)
    float skvi_assign_float(
        int64_t, const float*, const float*, float, float*, double*)
    double skvi_assign_double(
        int64_t, const double*, const double*, double, double*, double*)
    float skvi_share_squares_float(
        int64_t, const float*, const float*, float, float*, float*)
    double skvi_share_squares_double(
        int64_t, const double*, const double*, double, double*, double*)
    float skvi_assign_squares_float(
        int64_t, const float*, const float*, float, float*, float*, double*, double*)
    double skvi_assign_squares_double(
        int64_t, const double*, const double*, double, double*, double*, double*,
        double*)
    void skvi_cvb0_float(
        int64_t, float, const float*, float*, float*, float*, float*)
    void skvi_cvb0_double(
        int64_t, double, const double*, double*, double*, double*, double*)
    void skvi_normalise_float(int64_t, const float*, const float*, float*)
    void skvi_normalise_double(int64_t, const double*, const double*, double*)


cdef inline void one_round(
    int64_t K, int64_t n_cells, const int* words, const real* counts,
    const real* theta, const real* topics, real* acc
) noexcept nogil:
    if real is float:
        skvi_round_float(K, n_cells, words, counts, theta, topics, acc)
    else:
        skvi_round_double(K, n_cells, words, counts, theta, topics, acc)


cdef inline real assign(
    int64_t K, const real* theta, const real* row, real c, real* acc, double* total
) noexcept nogil:
    if real is float:
        return skvi_assign_float(K, theta, row, c, acc, total)
    else:
        return skvi_assign_double(K, theta, row, c, acc, total)


cdef inline real share_squares(
    int64_t K, const real* theta, const real* row, real c, real* acc, real* squares
) noexcept nogil:
    if real is float:
        return skvi_share_squares_float(K, theta, row, c, acc, squares)
    else:
        return skvi_share_squares_double(K, theta, row, c, acc, squares)


cdef inline real assign_squares(
    int64_t K, const real* theta, const real* row, real c, real* acc, real* squares,
    double* total, double* total_squares
) noexcept nogil:
    if real is float:
        return skvi_assign_squares_float(
            K, theta, row, c, acc, squares, total, total_squares)
    else:
        return skvi_assign_squares_double(
            K, theta, row, c, acc, squares, total, total_squares)


cdef inline void cvb0(
    int64_t K, real c, const real* inverse_total, real* document, real* word,
    real* r, real* work
) noexcept nogil:
    if real is float:
        skvi_cvb0_float(K, c, inverse_total, document, word, r, work)
    else:
        skvi_cvb0_double(K, c, inverse_total, document, word, r, work)


def mean_field(
    const int[::1] indptr,
    const int[::1] words,
    const real[::1] counts,
    const real[:, ::1] topics,
    const double[::1] prior,
    double[:, ::1] concentration,
    int max_iter,
    double tol,
    double floor,
    double[:, ::1] assigned,
    double[:, ::1] terms,
    double[::1] double_work,
    real[:, ::1] work,
):
    """Coordinate ascent in q(z) and q(theta) of each document, topics held.

    ``r = theta * topics[word] / norm`` with ``theta = exp E[log theta]`` up to a factor
    that cancels; then the concentration of q(theta) is ``prior + sum of counts * r``.

    Parameters
    ----------
    indptr : (n_documents + 1,), words, counts : (n_cells,)
    topics : (n_words, width)
        exp E[log phi], each row up to a factor; columns beyond K are zero (a width that
        is a multiple of a vector's saves half of the time of a small K).
    prior : (K,)
    concentration : (n_documents, K)
        Of q(theta), where to start; replaced by the last iterate.
    max_iter : int
        At most so many iterations of a document.
    tol : float
        A document makes one last iteration when the one before moved its concentration
        by at most ``tol`` of its sum (in the 1-norm).
    floor : float
        Smallest ``theta``, so that no norm underflows.
    assigned : (n_words, width)
        The expected counts of the last q(z) are added to it.
    terms : (n_documents, 2)
        Replaced by ``sum counts log norm`` and ``sum_k n_k log theta_k`` of the last
        q(z), n its counts by topic.
    double_work : (K,), work : (2, width)

    Returns
    -------
    n_iter : int
        Iterations of all documents together.
    """
    cdef int64_t n_documents = indptr.shape[0] - 1, K = concentration.shape[1]
    cdef int64_t d, i, k, first, end, width = topics.shape[1], total_iter = 0
    cdef int it
    cdef bint last
    cdef double moved, size, value, log_norm, energy
    cdef real* theta = &work[0, 0]
    cdef real* acc = &work[1, 0]
    with nogil:
        for d in range(n_documents):
            first, end = indptr[d], indptr[d + 1]
            terms[d, 0] = terms[d, 1] = 0.0
            if first == end:
                for k in range(K):
                    concentration[d, k] = prior[k]
                continue
            last = max_iter <= 1
            it = 0
            while True:
                it += 1
                skvi_exp_digamma(K, &concentration[d, 0], floor, &double_work[0])
                for k in range(K):
                    theta[k] = <real>double_work[k]
                for k in range(K, width):
                    theta[k] = 0
                for k in range(width):
                    acc[k] = 0
                if last:
                    break
                one_round(width, end - first, &words[first], &counts[first], theta,
                          &topics[0, 0], acc)
                moved = size = 0.0
                for k in range(K):
                    value = prior[k] + theta[k] * acc[k]
                    moved += fabs(value - concentration[d, k])
                    size += value
                    concentration[d, k] = value
                last = it >= max_iter - 1 or moved <= tol * size
            log_norm = energy = 0.0
            for i in range(first, end):
                log_norm += counts[i] * log(
                    assign(width, theta, &topics[words[i], 0], counts[i], acc,
                           &assigned[words[i], 0]))
            for k in range(K):
                concentration[d, k] = prior[k] + acc[k]
                energy += acc[k] * log(theta[k])
            terms[d, 0] = log_norm
            terms[d, 1] = energy
            total_iter += it
    return total_iter


def tied(
    const int[::1] indptr,
    const int[::1] words,
    const real[::1] counts,
    const real[:, ::1] topics,
    const double[::1] prior,
    double[:, ::1] weights,
    int max_iter,
    double tol,
    double[:, ::1] assigned,
    double[:, ::1] squares,
    double[:, :, ::1] by_document,
    real[:, ::1] work,
):
    """CVB0 without stored shares: ``r = weights[document] * topics[word] / norm``.

    The weight of a topic in a document is the count that CVB0 multiplies, averaged over
    the document's tokens: ``prior + n - s`` with n the expected count and s the mean,
    by shares, of what a token itself contributes to n.

    Parameters are those of `mean_field`; `weights` (n_documents, K) is replaced by the
    last iterate, and `assigned` and `squares` (n_words, width) receive the sums over
    cells of ``counts * r`` and ``counts * r^2`` of the last r; `by_document` (2,
    n_documents, K) is replaced by those of each document. `work` is (3, width).
    """
    cdef int64_t n_documents = indptr.shape[0] - 1, K = weights.shape[1]
    cdef int64_t d, i, k, first, end, width = topics.shape[1]
    cdef int it
    cdef bint last
    cdef double moved, size, value, n
    cdef real* theta = &work[0, 0]
    cdef real* acc = &work[1, 0]
    cdef real* acc_squares = &work[2, 0]
    with nogil:
        for d in range(n_documents):
            first, end = indptr[d], indptr[d + 1]
            if first == end:
                for k in range(K):
                    weights[d, k] = prior[k]
                    by_document[0, d, k] = by_document[1, d, k] = 0.0
                continue
            last = max_iter <= 1
            it = 0
            while True:
                it += 1
                for k in range(K):
                    theta[k] = <real>weights[d, k]
                for k in range(K, width):
                    theta[k] = 0
                for k in range(width):
                    acc[k] = 0
                    acc_squares[k] = 0
                if last:
                    break
                for i in range(first, end):
                    share_squares(
                        width, theta, &topics[words[i], 0], counts[i], acc,
                        acc_squares)
                moved = size = 0.0
                for k in range(K):
                    n = theta[k] * acc[k]
                    value = prior[k] + n
                    if acc[k] > 0:
                        value -= theta[k] * acc_squares[k] / acc[k]
                    value = max(value, prior[k])
                    moved += fabs(value - weights[d, k])
                    size += value
                    weights[d, k] = value
                last = it >= max_iter - 1 or moved <= tol * size
            for i in range(first, end):
                assign_squares(
                    width, theta, &topics[words[i], 0], counts[i], acc, acc_squares,
                    &assigned[words[i], 0], &squares[words[i], 0])
            for k in range(K):
                by_document[0, d, k] = acc[k]
                by_document[1, d, k] = acc_squares[k]
                value = prior[k] + acc[k]
                if acc[k] > 0:
                    value -= acc_squares[k] / acc[k]
                weights[d, k] = max(value, prior[k])


def sweep(
    const int[::1] indptr,
    const int[::1] words,
    const real[::1] counts,
    const real[::1] inverse_total,
    real[:, ::1] topics,
    real[:, ::1] documents,
    real[:, ::1] shares,
    real[::1] work,
):
    """A sweep of CVB0 with stored shares, in place.

    Parameters
    ----------
    indptr : (n_documents + 1,), words, counts : (n_cells,)
    inverse_total : (K,)
        1 / (tokens of the topic, prior included), held.
    topics : (n_words, K)
        Expected counts of words, prior included; moved along.
    documents : (n_documents, K)
        Expected counts of documents, prior included; moved along.
    shares : (n_cells, K)
        q(z); replaced.
    work : (K,)
    """
    cdef int64_t n_documents = indptr.shape[0] - 1, K = topics.shape[1]
    cdef int64_t d, i
    with nogil:
        for d in range(n_documents):
            for i in range(indptr[d], indptr[d + 1]):
                cvb0(K, counts[i], &inverse_total[0], &documents[d, 0],
                     &topics[words[i], 0], &shares[i, 0], &work[0])


def normalised(
    const int[::1] rows,
    const int[::1] words,
    const real[:, ::1] weights,
    const real[:, ::1] topics,
    real[:, ::1] shares,
):
    """``shares[i] = weights[rows[i]] * topics[words[i]] / their sum``, in place."""
    cdef int64_t i, K = topics.shape[1]
    with nogil:
        for i in range(rows.shape[0]):
            if real is float:
                skvi_normalise_float(
                    K, &weights[rows[i], 0], &topics[words[i], 0], &shares[i, 0])
            else:
                skvi_normalise_double(
                    K, &weights[rows[i], 0], &topics[words[i], 0], &shares[i, 0])


def word_weights(
    const int64_t[::1] words,
    const real[:, ::1] mean,
    const real[:, ::1] squares,
    const double[:, ::1] prior,
    const double[::1] inverse_total,
    real[:, ::1] weights,
):
    """Weights of some words by topic, a token's own share taken out on average.

    ``weights[i] = max(prior + n - q / n, prior) * inverse_total`` with n and q the
    expected count and the sum of squared shares of word ``words[i]``; `prior` is (1 or
    n_words, 1 or K).
    """
    cdef int64_t i, k, w, K = mean.shape[1]
    cdef bint one_row = prior.shape[0] == 1, one_column = prior.shape[1] == 1
    cdef double n, a, value
    cdef const double* row
    with nogil:
        for i in range(words.shape[0]):
            w = words[i]
            row = &prior[0 if one_row else w, 0]
            for k in range(K):
                n = mean[w, k]
                a = row[0 if one_column else k]
                value = a
                if n > 0:
                    value = max(a + n - squares[w, k] / n, a)
                weights[i, k] = <real>(value * inverse_total[k])
