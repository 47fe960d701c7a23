# cython: language_level=3, boundscheck=False, wraparound=False
# cython: cdivision=True, initializedcheck=False
"""Messages along Markov chains, and their most probable paths.

The steps of all sequences stand one after the other in the columns of arrays (K, T);
``begins`` marks first steps of sequences and has one more element, which is true. With
b_t the densities of step t, divided by the largest, and P the transition weights, whose
rows need not sum to one,

    forward     a_t = b_t * (P' a_{t-1}) / c_t, c_t such that a_t sums to one
    backward    w = g_{t+1} / (P' a_t),  g_t = a_t * (P w),  counts_jk += a_tj w_k

where a sequence begins with the initial weights in place of P' a_{t-1} and ends with
g_t = a_t. g_t are the probabilities of the states given all steps; the expected counts
of transitions are P * counts. The backward recursion needs nothing but a.

LANES stretches of the columns (``start[l] <= t < stop[l]``) are done at once, step by
step side by side in the registers, whether they belong to the same sequence or not.
What a stretch has to know of its neighbour is its *message*: a of the column before it,
or g of the column after it. ``message`` holds it on entry and on return holds that
for the next stretch in this direction.
"""

from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc

ctypedef fused real:
    float
    double

cdef extern from "chain.h" nogil:
    const int64_t LANES
    const int64_t TILE
    const double FLOOR
    void skvi_forward_float(
        int64_t, int64_t, const int64_t*, const int64_t*, const double*,
        const double*, const uint8_t*, const float*, float*, double*, double*, int,
        double*)
    void skvi_forward_double(
        int64_t, int64_t, const int64_t*, const int64_t*, const double*,
        const double*, const uint8_t*, const double*, double*, double*, double*, int,
        double*)
    void skvi_backward_float(
        int64_t, int64_t, const int64_t*, const int64_t*, const double*,
        const double*, const uint8_t*, const double*, const float*, float*, double*,
        double*, int, double*)
    void skvi_backward_double(
        int64_t, int64_t, const int64_t*, const int64_t*, const double*,
        const double*, const uint8_t*, const double*, const double*, double*, double*,
        double*, int, double*)

N_LANES = LANES


def padded(int64_t n_states):
    """States, and those that make up a multiple of four."""
    return (n_states + 3) & ~3


cdef double* workspace(int64_t n_states) except NULL:
    cdef int64_t size = padded(n_states) * LANES
    cdef double* work = <double*> malloc((4 + 3 * TILE) * size * sizeof(double))
    if work == NULL:
        raise MemoryError()
    return work


def forward(
    const int64_t[::1] start, const int64_t[::1] stop, const double[:, ::1] trans,
    const double[::1] initial, const uint8_t[::1] begins,
    const real[:, ::1] log_density, real[:, ::1] filtered, double[::1] log_scale,
    double[:, ::1] message, bint store,
):
    """Filter LANES stretches, from left to right.

    Writes a_t into `filtered` and log c_t, with the logarithm of the largest density,
    into `log_scale`; without `store` only messages change. `trans` is padded with
    columns of zeros.
    """
    cdef int64_t K = log_density.shape[0], ld = log_density.shape[1]
    cdef double* work = workspace(K)
    with nogil:
        if real is float:
            skvi_forward_float(
                K, ld, &start[0], &stop[0], &trans[0, 0], &initial[0], &begins[0],
                &log_density[0, 0], &filtered[0, 0], &log_scale[0], &message[0, 0],
                store, work)
        else:
            skvi_forward_double(
                K, ld, &start[0], &stop[0], &trans[0, 0], &initial[0], &begins[0],
                &log_density[0, 0], &filtered[0, 0], &log_scale[0], &message[0, 0],
                store, work)
        free(work)


def backward(
    const int64_t[::1] start, const int64_t[::1] stop, const double[:, ::1] trans,
    const double[:, ::1] transposed, const uint8_t[::1] begins,
    const double[::1] weight, const real[:, ::1] filtered, real[:, ::1] smoothed,
    double[:, :, ::1] counts, double[:, ::1] message, bint store,
):
    """Smooth LANES stretches, from right to left.

    Writes g_t into `smoothed` and adds to `counts` (Kp, Kp, LANES) the transitions that
    leave the stretch's steps, times `weight` (without elements: one); without `store`
    only messages change.
    """
    cdef int64_t K = filtered.shape[0], ld = filtered.shape[1]
    cdef const double* weights = &weight[0] if weight.shape[0] else NULL
    cdef double* sums = &counts[0, 0, 0] if store else NULL
    cdef double* work = workspace(K)
    with nogil:
        if real is float:
            skvi_backward_float(
                K, ld, &start[0], &stop[0], &trans[0, 0], &transposed[0, 0],
                &begins[0], weights, &filtered[0, 0], &smoothed[0, 0],
                sums, &message[0, 0], store, work)
        else:
            skvi_backward_double(
                K, ld, &start[0], &stop[0], &trans[0, 0], &transposed[0, 0],
                &begins[0], weights, &filtered[0, 0], &smoothed[0, 0],
                sums, &message[0, 0], store, work)
        free(work)


def most_probable_path(
    const double[:, ::1] log_trans, const double[::1] log_initial,
    const real[:, ::1] log_density, int64_t start, int64_t stop,
    int[:, ::1] came_from, int64_t[::1] path,
):
    """The path of one sequence, columns ``start`` to ``stop``, into `path`.

    `came_from` (stop - start, K) is filled with the best state before each.
    """
    cdef int64_t K = log_density.shape[0], t, j, k
    cdef int best
    cdef double value, top
    cdef double* score = <double*> malloc(2 * K * sizeof(double))
    cdef double* after
    cdef double* swap
    if score == NULL:
        raise MemoryError()
    cdef double* both = score
    after = score + K
    with nogil:
        top = log_density[0, start]
        for k in range(1, K):
            top = max(top, log_density[k, start])
        for k in range(K):
            score[k] = log_initial[k] + max(log_density[k, start] - top, FLOOR)
        for t in range(start + 1, stop):
            for k in range(K):
                after[k] = score[0] + log_trans[0, k]
                came_from[t - start, k] = 0
            for j in range(1, K):
                for k in range(K):
                    value = score[j] + log_trans[j, k]
                    if value > after[k]:
                        after[k] = value
                        came_from[t - start, k] = <int> j
            # Relative to the step's largest, with the floor of the other recursions: a
            # step that all states find impossible must not swallow later differences.
            top = log_density[0, t]
            for k in range(1, K):
                top = max(top, log_density[k, t])
            for k in range(K):
                after[k] += max(log_density[k, t] - top, FLOOR)
            swap = score
            score = after
            after = swap
        best = 0
        for k in range(1, K):
            if score[k] > score[best]:
                best = <int> k
        path[stop - 1] = best
        for t in range(stop - 1, start, -1):
            best = came_from[t - start, best]
            path[t - 1] = best
        free(both)
