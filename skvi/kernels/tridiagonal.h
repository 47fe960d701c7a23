/* Matrices (d, d) of a step of a Gaussian chain, stored by rows. See tridiagonal.pyx. */
#ifndef SKVI_TRIDIAGONAL_H
#define SKVI_TRIDIAGONAL_H

#include <math.h>

#include "cells.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "tree-vectorize")
#endif

#if defined(__GNUC__)
#define SKVI_ALWAYS static inline __attribute__((always_inline))
#else
#define SKVI_ALWAYS static inline
#endif

/* out = start + factor * a b, where start may be NULL */
SKVI_ALWAYS void skvi_product(
    const int64_t d, const double *start, double factor, const double *a,
    const double *b, double *SKVI_RESTRICT out)
{
    int64_t i, j, k;
    for (i = 0; i < d; i++) {
        for (j = 0; j < d; j++)
            out[i * d + j] = start ? start[i * d + j] : 0.0;
        for (k = 0; k < d; k++) {
            const double x = factor * a[i * d + k];
            for (j = 0; j < d; j++)
                out[i * d + j] += x * b[k * d + j];
        }
    }
}

/* The inverse of a symmetric matrix, which is overwritten by its factor; returns log|S|,
 * or NaN if it is not positive definite. */
SKVI_ALWAYS double skvi_inverse_of(
    const int64_t d, double *SKVI_RESTRICT s, double *SKVI_RESTRICT work,
    double *SKVI_RESTRICT out)
{
    double total = 0.0;
    int64_t i, j, k;
    for (k = 0; k < d; k++) {            /* s = U'U, rows of U */
        const double pivot = s[k * d + k];
        if (!(pivot > 0.0))
            return NAN;
        const double scale = 1.0 / sqrt(pivot);
        total += log(pivot);
        for (j = k; j < d; j++)
            s[k * d + j] *= scale;
        for (i = k + 1; i < d; i++) {
            const double x = s[k * d + i];
            for (j = i; j < d; j++)
                s[i * d + j] -= x * s[k * d + j];
        }
    }
    for (i = 0; i < d; i++) {            /* work = U'^-1, lower, by rows */
        const double scale = 1.0 / s[i * d + i];
        for (j = 0; j < d; j++)
            work[i * d + j] = 0.0;
        for (k = 0; k < i; k++) {
            const double x = s[k * d + i];
            for (j = 0; j <= k; j++)
                work[i * d + j] -= x * work[k * d + j];
        }
        for (j = 0; j < i; j++)
            work[i * d + j] *= scale;
        work[i * d + i] = scale;
    }
    for (i = 0; i < d * d; i++)
        out[i] = 0.0;
    for (k = 0; k < d; k++)              /* out = work' work */
        for (i = 0; i <= k; i++) {
            const double x = work[k * d + i];
            for (j = 0; j <= k; j++)
                out[i * d + j] += x * work[k * d + j];
        }
    return total;
}

/* V = P + G N G' and GN = G N, with GT = G'; V is made symmetric. */
SKVI_ALWAYS void skvi_smooth_of(
    const int64_t d, const double *P, const double *G, const double *N,
    double *SKVI_RESTRICT V, double *SKVI_RESTRICT GN, double *SKVI_RESTRICT GT)
{
    int64_t i, j;
    for (i = 0; i < d; i++)
        for (j = 0; j < d; j++)
            GT[j * d + i] = G[i * d + j];
    skvi_product(d, 0, 1.0, G, N, GN);
    skvi_product(d, P, 1.0, GN, GT, V);
    for (i = 0; i < d; i++)
        for (j = 0; j < i; j++) {
            const double x = 0.5 * (V[i * d + j] + V[j * d + i]);
            V[i * d + j] = x;
            V[j * d + i] = x;
        }
}

/* Small sizes are known to the compiler, which then unrolls the loops. */
#define SKVI_BY_SIZE(CALL)           \
    switch (d) {                     \
    case 1: CALL(1); break;          \
    case 2: CALL(2); break;          \
    case 3: CALL(3); break;          \
    case 5: CALL(5); break;          \
    case 10: CALL(10); break;        \
    default: CALL(d); break;         \
    }

/* One step of the elimination: see the kernel. P is the precision given the past and
 * becomes that of the next step; returns log|S| or NaN. Work holds four matrices. */
SKVI_ALWAYS double skvi_step_of(
    const int64_t d, int last, const double *info, const double *A, const double *AT,
    const double *Q, const double *back, double *SKVI_RESTRICT P,
    double *SKVI_RESTRICT work, double *SKVI_RESTRICT S_inv, double *SKVI_RESTRICT G)
{
    const int64_t n = d * d;
    double *F = work, *W = work + n, *C = work + 2 * n, *M = work + 3 * n;
    double log_det;
    int64_t i;
    for (i = 0; i < n; i++) {
        F[i] = P[i] + info[i];
        S_inv[i] = F[i];                 /* its factorisation destroys F */
        G[i] = 0.0;
    }
    log_det = skvi_inverse_of(d, F, W, C);
    if (last || log_det != log_det) {
        for (i = 0; i < n; i++)
            S_inv[i] = C[i];
        return log_det;
    }
    for (i = 0; i < n; i++)
        F[i] = S_inv[i] + back[i];       /* S */
    log_det = skvi_inverse_of(d, F, W, S_inv);
    if (log_det != log_det)
        return log_det;
    skvi_product(d, 0, 1.0, C, AT, W);   /* C A' */
    skvi_product(d, Q, 1.0, A, W, M);    /* Q + A C A' */
    log_det += 0.0 * skvi_inverse_of(d, M, F, P);
    skvi_product(d, 0, 1.0, W, P, G);
    return log_det;
}

SKVI_VECTORISED static double skvi_step(
    int64_t d, int last, const double *info, const double *A, const double *AT,
    const double *Q, const double *back, double *P, double *work, double *S_inv,
    double *G)
{
    double log_det = NAN;
#define CALL(n) \
    log_det = skvi_step_of(n, last, info, A, AT, Q, back, P, work, S_inv, G)
    SKVI_BY_SIZE(CALL)
#undef CALL
    return log_det;
}

SKVI_VECTORISED static void skvi_smoothed(
    int64_t d, const double *P, const double *G, const double *N, double *V,
    double *GN, double *GT)
{
#define CALL(n) skvi_smooth_of(n, P, G, N, V, GN, GT)
    SKVI_BY_SIZE(CALL)
#undef CALL
}

/* y = y + G' x */
SKVI_ALWAYS void skvi_add_transposed(
    const int64_t d, const double *G, const double *x, double *SKVI_RESTRICT y)
{
    int64_t i, j;
    for (j = 0; j < d; j++) {
        const double v = x[j];
        for (i = 0; i < d; i++)
            y[i] += G[j * d + i] * v;
    }
}

SKVI_VECTORISED static void skvi_pass_on(
    int64_t d, const double *G, const double *x, double *y)
{
#define CALL(n) skvi_add_transposed(n, G, x, y)
    SKVI_BY_SIZE(CALL)
#undef CALL
}

/* m = P g + G after, in place of g; after may be NULL. */
SKVI_ALWAYS void skvi_back_of(
    const int64_t d, const double *P, const double *G, const double *after,
    double *SKVI_RESTRICT work, double *SKVI_RESTRICT g)
{
    int64_t i, j;
    for (i = 0; i < d; i++)
        work[i] = 0.0;
    for (j = 0; j < d; j++) {            /* P is symmetric */
        const double x = g[j];
        for (i = 0; i < d; i++)
            work[i] += P[j * d + i] * x;
    }
    for (i = 0; i < d; i++) {
        double x = work[i];
        if (after)
            for (j = 0; j < d; j++)
                x += G[i * d + j] * after[j];
        g[i] = x;
    }
}

SKVI_VECTORISED static void skvi_back(
    int64_t d, const double *P, const double *G, const double *after, double *work,
    double *g)
{
#define CALL(n) skvi_back_of(n, P, G, after, work, g)
    SKVI_BY_SIZE(CALL)
#undef CALL
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif
#endif
