# cython: language_level=3, boundscheck=False, wraparound=False
# cython: cdivision=True, initializedcheck=False
"""Gauss-Seidel coordinate sweeps on a Gram matrix."""


def sweep(
    const double[:, ::1] gram,
    double[::1] residual,
    const double[::1] ridge,
    double[::1] mean,
    int n_sweeps,
):
    """Maximise ``target'm - m'(A + R)m / 2`` one coordinate at a time, in place.

    Parameters
    ----------
    gram : array of shape (p, p)
        A, symmetric; row j is read where column j is meant.
    residual : array of shape (p,)
        ``target - A m`` on entry, and kept so while m moves.
    ridge : array of shape (p,)
        The diagonal of R.
    mean : array of shape (p,)
        m, updated.
    n_sweeps : int
        Number of passes over the coordinates.
    """
    cdef Py_ssize_t p = mean.shape[0]
    cdef Py_ssize_t i, j
    cdef double step, curvature
    cdef int s
    with nogil:
        for s in range(n_sweeps):
            for j in range(p):
                curvature = gram[j, j] + ridge[j]
                if curvature <= 0.0:
                    continue
                step = (residual[j] - ridge[j] * mean[j]) / curvature
                if step == 0.0:
                    continue
                mean[j] += step
                for i in range(p):
                    residual[i] -= step * gram[j, i]
