# cython: language_level=3, boundscheck=False, wraparound=False
# cython: cdivision=True, initializedcheck=False
r"""Block-tridiagonal systems: factors, means and covariances of Gaussian chains.

A chain x_1, ..., x_T of vectors of d numbers moves by ``x_t ~ N(A x_{t-1}, Q)`` and has
an *information* K_t about each step besides (of observations, of the law of the first
step, and of what is not known of A). With L = Q^-1 its precision has the blocks

    J_tt = K_t + L [not first] + A'L A [not last],    J_{t, t-1} = -L A.

Elimination from the left, P_t being the precision of x_t given the steps before it
(zero for a first step):

    F_t = P_t + K_t,   S_t = F_t + A'L A,   P_{t+1} = (Q + A F_t^-1 A')^-1
    G_t = S_t^-1 A'L = F_t^-1 A' P_{t+1},   g_t = h_t + G_{t-1}' g_{t-1}
    log|J| = sum_t log|S_t|

where S_t = F_t and G_t = 0 at the end of a sequence; and back from the right:

    m_t = S_t^-1 g_t + G_t m_{t+1},  V_t = S_t^-1 + G_t V_{t+1} G_t'
    cov(x_t, x_{t+1}) = G_t V_{t+1}

Nothing but sums of positive matrices is inverted, so that noises of all sizes keep their
digits (``P = L - L A S^-1 A'L`` is the same and does not, where L is large).

``begins`` marks the first steps of sequences and has one more element, which is true.
Steps of one kind share K_t. Where kinds repeat, P_t settles: a step whose kind is that
of the step before, and whose P came out the same as the last one's, takes the last one's
factors, and so do those after it until the kind changes; V_t likewise. With constant
parameters and complete data a few steps at both ends of a sequence are all that is
factorised.
"""

from libc.math cimport fabs, isnan, sqrt
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

cdef extern from "tridiagonal.h" nogil:
    double skvi_step(
        int64_t, int, const double*, const double*, const double*, const double*,
        const double*, double*, double*, double*, double*)
    void skvi_smoothed(
        int64_t, const double*, const double*, const double*, double*, double*,
        double*)
    void skvi_pass_on(int64_t, const double*, const double*, double*)
    void skvi_back(
        int64_t, const double*, const double*, const double*, double*, double*)


cdef bint same(int64_t d, const double* a, const double* b, double tol) noexcept nogil:
    """Whether two positive matrices are, relative to the size of each coordinate."""
    cdef int64_t i, j
    for i in range(d):
        for j in range(i + 1):
            if not fabs(a[i * d + j] - b[i * d + j]) <= tol * sqrt(
                fabs(a[i * d + i] * a[j * d + j])
            ):
                return False
    return True


def eliminate(
    const double[:, :, ::1] information, const double[:, ::1] matrix,
    const double[:, ::1] covariance, const double[:, ::1] back,
    const int64_t[::1] kind, const uint8_t[::1] begins, double[:, :, ::1] inverses,
    double[:, :, ::1] gains, double[::1] log_dets, int64_t[::1] which,
    double[:, :, ::1] predicted, double tol,
):
    """Factorise: step t has S^-1 = inverses[which[t]], G = gains[...], log|S|.

    Where there is room for them, predicted has P.

    Returns
    -------
    n : int
        How many different steps there are; -1 if a step is not positive definite, -2 if
        the arrays have no room for them.
    t : int
        The number of steps that were done.
    """
    cdef int64_t T = kind.shape[0], d = matrix.shape[0], n = 0, t = 0, i, j, last = -1
    cdef int64_t room = inverses.shape[0], settled = 0, size = d * d * sizeof(double)
    cdef double* P = <double*> malloc(7 * size)
    cdef double* before
    cdef double* AT
    cdef double* work
    if P == NULL:
        raise MemoryError()
    before, AT, work = P + d * d, P + 2 * d * d, P + 3 * d * d
    with nogil:
        for i in range(d):
            for j in range(d):
                AT[i * d + j] = matrix[j, i]
        while t < T:
            if begins[t]:
                settled = 0
                memset(P, 0, size)
            elif kind[t] == kind[t - 1]:
                settled = settled or same(d, P, before, tol)
            else:
                settled = 0
            if settled:
                which[t] = last
                t += 1
                continue
            if n == room:
                n = -2
                break
            memcpy(before, P, size)
            if n < predicted.shape[0]:
                memcpy(&predicted[n, 0, 0], P, size)
            log_dets[n] = skvi_step(
                d, begins[t + 1], &information[kind[t], 0, 0], &matrix[0, 0], AT,
                &covariance[0, 0], &back[0, 0], P, work, &inverses[n, 0, 0],
                &gains[n, 0, 0])
            if isnan(log_dets[n]):
                n = -1
                break
            which[t] = last = n
            n += 1
            t += 1
        free(P)
    return n, t


def forward(
    const double[:, :, ::1] gains, const int64_t[::1] which, const uint8_t[::1] begins,
    double[:, ::1] h,
):
    """Linear terms h (T, d) become g, in place."""
    cdef int64_t T = h.shape[0], d = h.shape[1], t
    with nogil:
        for t in range(1, T):
            if not begins[t]:
                skvi_pass_on(d, &gains[which[t - 1], 0, 0], &h[t - 1, 0], &h[t, 0])


def backward(
    const double[:, :, ::1] inverses, const double[:, :, ::1] gains,
    const int64_t[::1] which, const uint8_t[::1] begins, double[:, ::1] g,
):
    """g (T, d) becomes the means, in place."""
    cdef int64_t T = g.shape[0], d = g.shape[1], t
    cdef double* work = <double*> malloc(d * sizeof(double))
    cdef const double* after
    if work == NULL:
        raise MemoryError()
    with nogil:
        for t in range(T - 1, -1, -1):
            after = NULL if begins[t + 1] else &g[t + 1, 0]
            skvi_back(
                d, &inverses[which[t], 0, 0], &gains[which[t], 0, 0], after, work,
                &g[t, 0])
        free(work)


def covariances(
    const double[:, :, ::1] inverses, const double[:, :, ::1] gains,
    const int64_t[::1] which, const uint8_t[::1] begins, double[:, :, ::1] variances,
    double[:, :, ::1] lagged, int64_t[::1] whose, double tol,
):
    """Step t has V = variances[whose[t]], cov(x_t, x_{t+1}) = lagged[whose[t]].

    Returns how many differ, or -2 if the arrays have no room for them. The lagged
    covariance of the last step of a sequence is zero.
    """
    cdef int64_t T = which.shape[0], d = gains.shape[1], n = 0, t, i, last = -1
    cdef int64_t room = variances.shape[0], settled = 0, size = d * d * sizeof(double)
    cdef double* V = <double*> malloc(3 * size)
    cdef double* GV
    cdef double* work
    if V == NULL:
        raise MemoryError()
    GV, work = V + d * d, V + 2 * d * d
    with nogil:
        for t in range(T - 1, -1, -1):
            if begins[t + 1]:
                settled = 0
                memcpy(V, &inverses[which[t], 0, 0], size)
                memset(GV, 0, size)
            else:
                if settled and which[t] == which[t + 1]:
                    whose[t] = last
                    continue
                skvi_smoothed(
                    d, &inverses[which[t], 0, 0], &gains[which[t], 0, 0],
                    &variances[last, 0, 0], V, GV, work)
                settled = (
                    which[t] == which[t + 1]
                    and not begins[t + 2]
                    and same(d, V, &variances[last, 0, 0], tol)
                )
                if settled:
                    whose[t] = last
                    continue
            if n == room:
                n = -2
                break
            memcpy(&variances[n, 0, 0], V, size)
            memcpy(&lagged[n, 0, 0], GV, size)
            whose[t] = last = n
            n += 1
        free(V)
    return n
