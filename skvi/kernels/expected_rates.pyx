# cython: language_level=3, boundscheck=False, wraparound=False
# cython: cdivision=True, initializedcheck=False
r"""Expected Poisson rates of products of two independent Gaussian vectors.

With x ~ N(m, V) (p numbers, the last of them often a constant one whose row of V is
zero) and xi ~ N(mu, L L'),

    M = I - L'V L,   u = L'(m + V mu)
    E exp(xi'x) = |M|^(-1/2) exp(mu'm + mu'V mu / 2 + u'M^-1 u / 2)

which is finite if M is positive definite. Under the law proportional to
q(x) q(xi) exp(xi'x), xi has the mean a = mu + L M^-1 u and the covariance C = L M^-1 L'
given nothing, and x has the mean b = m + V a and the covariance V + V C V. The
gradients of the rate are, with respect to m, ``rate a``, to V, ``rate (C + aa') / 2``,
to mu, ``rate b`` and to LL', ``rate (V + V C V + bb') / 2``.
"""

from libc.math cimport exp, log, sqrt
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc


def sites(
    const double[:, ::1] m, const double[:, :, ::1] V, const double[:, ::1] mu,
    const double[:, :, ::1] L, const double[:, ::1] counts, double most,
    int want_rows, double[:, ::1] rate, double[:, ::1] linear,
    double[:, :, ::1] square,
):
    """Rates (T, D), and their gradients summed over the columns or over the steps.

    counts (T, D) says how often an entry counts; zero leaves it out. With
    ``want_rows`` the sums over steps of counts * rate * b and of its second moments go
    to linear (D, p) and square (D, p, p); else those over columns of rate * a and of
    the second moments of xi, in the first d = square.shape[1] coordinates, to linear
    (T, d) and square (T, d, d). Exponents are cut at ``most``, which is also the rate's
    log where there is none.
    """
    cdef int64_t T = m.shape[0], D = mu.shape[0], p = m.shape[1], d = square.shape[1]
    cdef int64_t t, s, i, j, k
    cdef double* work = <double*> malloc((5 * p * p + 5 * p) * sizeof(double))
    cdef double *W
    cdef double *M
    cdef double *Y
    cdef double *C
    cdef double *VC
    cdef double *u
    cdef double *a
    cdef double *b
    cdef double *z
    cdef double x, f, log_det, r
    cdef const double* Vt
    cdef const double* Ls
    cdef const double* ms
    cdef const double* mt
    cdef bint finite
    if work == NULL:
        raise MemoryError()
    W, M, Y, C, VC = work, work + p * p, work + 2 * p * p, work + 3 * p * p, work + 4 * p * p
    u = work + 5 * p * p
    a, b, z = u + p, u + 2 * p, u + 3 * p
    with nogil:
        for t in range(T):
            Vt, mt = &V[t, 0, 0], &m[t, 0]
            for s in range(D):
                if counts[t, s] == 0.0:
                    rate[t, s] = 0.0
                    continue
                Ls, ms = &L[s, 0, 0], &mu[s, 0]
                # z = V mu, f = mu'm + mu'V mu / 2
                f = 0.0
                for i in range(p):
                    x = 0.0
                    for j in range(p):
                        x += Vt[i * p + j] * ms[j]
                    z[i] = x
                    f += ms[i] * (mt[i] + 0.5 * x)
                # W = V L (L lower), M = I - L'W, u = L'(m + z)
                for i in range(p):
                    for j in range(p):
                        W[i * p + j] = 0.0
                    for k in range(p):
                        x = Vt[i * p + k]
                        for j in range(k + 1):
                            W[i * p + j] += x * Ls[k * p + j]
                for i in range(p):
                    x = 0.0
                    for k in range(i, p):
                        x += Ls[k * p + i] * (mt[k] + z[k])
                    u[i] = x
                    for j in range(i + 1):
                        x = 1.0 if i == j else 0.0
                        for k in range(i, p):
                            x -= Ls[k * p + i] * W[k * p + j]
                        M[i * p + j] = x
                # M = R R', lower
                finite, log_det = True, 0.0
                for j in range(p):
                    x = M[j * p + j]
                    for k in range(j):
                        x -= M[j * p + k] * M[j * p + k]
                    if not x > 0.0:
                        finite = False
                        break
                    log_det += log(x)
                    x = sqrt(x)
                    M[j * p + j] = x
                    for i in range(j + 1, p):
                        for k in range(j):
                            M[i * p + j] -= M[i * p + k] * M[j * p + k]
                        M[i * p + j] /= x
                if finite:
                    # Y = R^-1 L' (p x p), u = R^-1 u
                    for i in range(p):
                        x = u[i]
                        for k in range(i):
                            x -= M[i * p + k] * u[k]
                        u[i] = x / M[i * p + i]
                        f += 0.5 * u[i] * u[i]
                        for j in range(p):
                            x = Ls[j * p + i] if j >= i else 0.0
                            Y[i * p + j] = x
                        for k in range(i):
                            x = M[i * p + k]
                            for j in range(p):
                                Y[i * p + j] -= x * Y[k * p + j]
                        x = 1.0 / M[i * p + i]
                        for j in range(p):
                            Y[i * p + j] *= x
                    f -= 0.5 * log_det
                    # C = Y'Y, a = mu + Y'u
                    for i in range(p):
                        a[i] = ms[i]
                        for j in range(p):
                            C[i * p + j] = 0.0
                    for k in range(p):
                        for i in range(p):
                            x = Y[k * p + i]
                            a[i] += x * u[k]
                            for j in range(p):
                                C[i * p + j] += x * Y[k * p + j]
                else:
                    f = most
                    for i in range(p):
                        a[i] = ms[i]
                        for j in range(p):
                            x = 0.0
                            for k in range(min(i, j) + 1):
                                x += Ls[i * p + k] * Ls[j * p + k]
                            C[i * p + j] = x
                r = exp(min(f, most))
                rate[t, s] = r
                r = r * counts[t, s]
                if not want_rows:
                    for i in range(d):
                        linear[t, i] += r * a[i]
                        for j in range(d):
                            square[t, i, j] += r * (C[i * p + j] + a[i] * a[j])
                    continue
                for i in range(p):
                    x = mt[i]
                    for j in range(p):
                        x += Vt[i * p + j] * a[j]
                        VC[i * p + j] = 0.0
                    b[i] = x
                    for k in range(p):
                        x = Vt[i * p + k]
                        for j in range(p):
                            VC[i * p + j] += x * C[k * p + j]
                for i in range(p):
                    linear[s, i] += r * b[i]
                    for j in range(p):
                        square[s, i, j] += r * (Vt[i * p + j] + b[i] * b[j])
                    for k in range(p):
                        x = r * VC[i * p + k]
                        for j in range(p):
                            square[s, i, j] += x * Vt[k * p + j]
        free(work)
