# cython: language_level=3, boundscheck=False, wraparound=False
# cython: cdivision=True, initializedcheck=False
r"""Expectations of log Gamma(a + n) for counts n that are sums of Bernoullis.

A group (a document, or a word) has cells; cell i stands for c_i tokens that belong to
topic k with probability r_ik, independently. Then n_k = sum of Binomial(c_i, r_ik) has
the generating function G(s) = E s^n = prod_i (1 - r_i + r_i s)^c_i, and with P0 = G(0)
and m = (n - 1)+, whose generating function is H(s) = P0 + (G(s) - P0) / s,

    E log Gamma(a + n) = P0 log Gamma(a) + (1 - P0) log Gamma(a + 1) + I,
    I = int_0^inf [E[m] e^-t - e^{-(a+1) t} (1 - H(e^-t)) / (1 - e^-t)] dt / t

(P(n = 0) is peeled off because a may be small: what is left decays like e^-t.) The
integral is a sum over Gauss-Legendre nodes in v, t = (v / (1 - v))^2. Its derivative
by a gives E digamma(a + n), and likewise, for one token taken out of the group,

    E log(a + n') = int_0^inf [e^-t - e^{-a t} G'(e^-t)] dt / t,  G' = G / (1 - r u).

log G is a sum of log(1 - r u), u = 1 - e^-t, over cells. Most r are small, and of those
the powers up to the sixth are summed in place of a logarithm at every node; the others
add what is left of the logarithm after these powers.
"""

from libc.math cimport exp, log
from libc.stdint cimport int64_t

ctypedef fused real:
    float
    double

cdef enum:
    POWERS = 6

cdef extern from "cells.h" nogil:
    void skvi_log_factor(int64_t, double, double, const double*, double*)
    void skvi_log_generating(
        int64_t, const double*, const double*, const double*, double*)
    double skvi_expect_count(
        int64_t, double, double, double, const double*, const double*, const double*,
        const double*, const double*, const double*, double, double*)
    double skvi_expect_huge_count(double, const double*, double*)
    void skvi_log_count_parts(
        int64_t, double, const double*, const double*, const double*, const double*,
        double*, double*, double*)
    double skvi_divided(int64_t, double, const double*, const double*)
    void skvi_power_sums_float(int64_t, double, const float*, double*)
    void skvi_power_sums_double(int64_t, double, const double*, double*)
    double skvi_sum_xlogx_float(int64_t, const float*)
    double skvi_sum_xlogx_double(int64_t, const double*)

cdef double TINY = 1e-3
cdef double SMALL = 0.02  # r^7 / 7, the first power left out, is below 2e-13
cdef double SURE = 1.0 - 1e-12  # a share of exactly 1 would be divided by
cdef double HUGE = 1e4  # a mean from which four cumulants are enough,
cdef double FIRM = 300.0  # and a prior from which they are for any mean
cdef double LARGE = 200.0  # a mean from which G is gone where u is not small


def tables(
    const int[::1] indptr,
    const double[::1] counts,
    const real[:, ::1] shares,
    const double[::1] u,
    double[:, :, ::1] powers,
    double[:, :, ::1] table,
    double[::1] entropy,
):
    """What determines the laws of the counts of groups of cells.

    Parameters
    ----------
    indptr : (n_groups + 1,), counts : (n_cells,), shares : (n_cells, K)
    u : (n_nodes + 1,)
        1 - e^-t at the nodes, and 1 (for P0) at the end.
    powers : (n_groups, 6, K)
        sum of c r^m is added.
    table : (n_groups, K, n_nodes + 1)
        What is left of log G after these powers is added.
    entropy : (1,)
        - sum of c r log r is added.
    """
    cdef int64_t g, i, k, K = shares.shape[1], J = u.shape[0]
    cdef double r, total = 0.0
    with nogil:
        for g in range(indptr.shape[0] - 1):
            for i in range(indptr[g], indptr[g + 1]):
                if real is float:
                    skvi_power_sums_float(
                        K, counts[i], &shares[i, 0], &powers[g, 0, 0])
                    total += counts[i] * skvi_sum_xlogx_float(K, &shares[i, 0])
                else:
                    skvi_power_sums_double(
                        K, counts[i], &shares[i, 0], &powers[g, 0, 0])
                    total += counts[i] * skvi_sum_xlogx_double(K, &shares[i, 0])
                for k in range(K):
                    r = min(<double>shares[i, k], SURE)
                    if r >= SMALL:
                        skvi_log_factor(J, counts[i], r, &u[0], &table[g, k, 0])
        entropy[0] -= total


cdef inline double generating(
    int64_t K, int64_t k, const double* powers, const double* table,
    const double[:, ::1] nodes, const double[:, ::1] far_nodes,
    double* column, double* log_g, bint* large
) noexcept nogil:
    """log G of one count at the nodes that suit it; returns P0."""
    cdef int64_t m, j, J = nodes.shape[1] - 1
    for m in range(POWERS):
        column[m] = powers[m * K + k]
    large[0] = column[0] > LARGE
    if not large[0]:
        skvi_log_generating(J + 1, &nodes[1, 0], table, column, log_g)
        return exp(log_g[J])
    for j in range(far_nodes.shape[1]):
        log_g[j] = 0.0
    skvi_log_generating(far_nodes.shape[1], &far_nodes[1, 0], log_g, column, log_g)
    for j in range(far_nodes.shape[1]):
        if far_nodes[1, j] > 0.1:
            log_g[j] = -700.0
    return 0.0


def expect(
    const double[:, :, ::1] powers,
    const double[:, :, ::1] table,
    const double[:, ::1] prior,
    const double[:, ::1] nodes,
    const double[:, ::1] far_nodes,
    double[::1] value,
    double[::1] slope,
    double[::1] work,
):
    """Add E[log Gamma(a + n)] - log Gamma(a) and its derivative by a, over groups.

    Parameters
    ----------
    powers : (n_groups, 6, K), table : (n_groups, K, n_nodes + 1)
        As `tables` makes them.
    prior : (1 or n_groups, K)
        a.
    nodes : (6, n_nodes + 1)
        By row t, u, the weights w of the quadrature, w / t, e^-t / u, and 1 where t <
        1, 1 / u elsewhere; the last column is that of P0.
    far_nodes : (6, n_far)
        The same for large counts, without that column.
    value, slope : (K,)
        Added to.
    work : (n_far + 7,) at least
    """
    cdef int64_t g, k, row, K = powers.shape[2], J = nodes.shape[1] - 1
    cdef int64_t shared = prior.shape[0] == 1
    cdef double p0, a, one, two, step, linear = 0.0, far_linear = 0.0
    cdef bint large
    cdef double* column = &work[0]
    cdef double* log_g = &work[POWERS]
    with nogil:
        for k in range(J):
            linear += nodes[3, k] * exp(-nodes[0, k])
        for k in range(far_nodes.shape[1]):
            far_linear += far_nodes[3, k] * exp(-far_nodes[0, k])
        for g in range(powers.shape[0]):
            row = 0 if shared else g
            for k in range(K):
                if powers[g, 0, k] < TINY:
                    # n is 0, 1 or 2, but for a third power of the mean
                    a = prior[row, k]
                    two = 0.5 * (powers[g, 0, k] ** 2 - powers[g, 1, k])
                    one = powers[g, 0, k] - 2.0 * two
                    value[k] += (one + two) * log(a) + two * log(a + 1.0)
                    slope[k] += (one + two) / a + two / (a + 1.0)
                    continue
                p0 = generating(K, k, &powers[g, 0, 0], &table[g, k, 0], nodes,
                                far_nodes, column, log_g, &large)
                if column[0] > HUGE or prior[row, k] > FIRM:
                    value[k] += skvi_expect_huge_count(prior[row, k], column, &step)
                elif large:
                    value[k] += skvi_expect_count(
                        far_nodes.shape[1], prior[row, k], column[0], p0,
                        &far_nodes[0, 0], &far_nodes[2, 0], &far_nodes[3, 0],
                        &far_nodes[4, 0], &far_nodes[5, 0], log_g, far_linear, &step)
                else:
                    value[k] += skvi_expect_count(
                        J, prior[row, k], column[0], p0, &nodes[0, 0], &nodes[2, 0],
                        &nodes[3, 0], &nodes[4, 0], &nodes[5, 0], log_g, linear, &step)
                slope[k] += step


def add_log_counts(
    const int[::1] indptr,
    const real[:, ::1] shares,
    const double[:, :, ::1] powers,
    const double[:, :, ::1] table,
    const double[:, ::1] prior,
    const double[:, ::1] nodes,
    const double[:, ::1] far_nodes,
    double sign,
    double[:, ::1] out,
    double[::1] work,
):
    """Add ``sign * E log(a + n')`` to every cell, n' being n less one of its tokens.

    Parameters are those of `expect` and `tables`; `out` is (n_cells, K), `work` of
    size (n_far + 7 + n_nodes).
    """
    cdef int64_t g, i, k, row, K = shares.shape[1], J = nodes.shape[1] - 1
    cdef int64_t shared = prior.shape[0] == 1
    cdef double p0, a, r, mean, spread, constant, correction, sum
    cdef bint large
    cdef double* column = &work[0]
    cdef double* part = &work[POWERS]
    cdef double* moments = part + J
    cdef double* log_g = moments + 7
    with nogil:
        constant = 0.0
        for k in range(J):
            constant += nodes[3, k] * exp(-nodes[0, k])
        for g in range(powers.shape[0]):
            row = 0 if shared else g
            for k in range(K):
                a = prior[row, k]
                p0 = generating(K, k, &powers[g, 0, 0], &table[g, k, 0], nodes,
                                far_nodes, column, log_g, &large)
                if large or a > FIRM:
                    for i in range(indptr[g], indptr[g + 1]):
                        r = shares[i, k]
                        mean = a + column[0] - r
                        spread = column[0] - column[1] - r * (1.0 - r)
                        out[i, k] += sign * (log(mean) - spread / (2.0 * mean * mean))
                    continue
                skvi_log_count_parts(
                    J, a, &nodes[0, 0], &nodes[1, 0], &nodes[3, 0], log_g, part,
                    &correction, moments)
                for i in range(indptr[g], indptr[g + 1]):
                    r = min(<double>shares[i, k], SURE)
                    if r < SMALL:
                        sum = moments[0] + r * (moments[1] + r * (moments[2] + r * (
                            moments[3] + r * (moments[4] + r * (
                                moments[5] + r * moments[6])))))
                    else:
                        sum = skvi_divided(J, r, &nodes[1, 0], part)
                    sum = constant - sum + correction * p0 / (1.0 - r)
                    out[i, k] += sign * sum
