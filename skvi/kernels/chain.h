/* Messages along several chains at once: every step is done for LANES of them, which
 * lie side by side in a vector of the machine. See chain.pyx.
 */
#ifndef SKVI_CHAIN_H
#define SKVI_CHAIN_H

#include "cells.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC optimize("O3", "associative-math", "no-signed-zeros", \
                     "no-trapping-math", "no-math-errno", "tree-vectorize")
#endif

#define LANES 8
#define TILE 16
#define FLOOR (-600.0)                 /* of log densities, below a step's largest */
#define PADDED(K) (((K) + 3) & ~(int64_t)3)

#if defined(__GNUC__)
typedef double skvi_lanes
    __attribute__((vector_size(LANES * 8), aligned(8), may_alias));
#define SKVI_AT(p) (*(skvi_lanes *)(p))
#define SKVI_ADD_PRODUCT(sum, p, factor) sum += SKVI_AT(p) * (factor)
#define SKVI_ADD_PRODUCTS(sum, p, q) sum += SKVI_AT(p) * SKVI_AT(q)
#define SKVI_LOAD(x, p) x = SKVI_AT(p)
#define SKVI_SAVE(x, p) SKVI_AT(p) = x
#define SKVI_INLINE static inline __attribute__((always_inline))
#else
typedef struct { double at[LANES]; } skvi_lanes;
#define SKVI_EACH(statement) \
    do { int i_; for (i_ = 0; i_ < LANES; i_++) { statement; } } while (0)
#define SKVI_ADD_PRODUCT(sum, p, factor) SKVI_EACH(sum.at[i_] += (p)[i_] * (factor))
#define SKVI_ADD_PRODUCTS(sum, p, q) SKVI_EACH(sum.at[i_] += (p)[i_] * (q)[i_])
#define SKVI_LOAD(x, p) SKVI_EACH(x.at[i_] = (p)[i_])
#define SKVI_SAVE(x, p) SKVI_EACH((p)[i_] = x.at[i_])
#define SKVI_INLINE static inline
#endif

/* out_k = sum_j matrix_jk in_j for k < PADDED(K), the rows of the matrix padded. */
SKVI_INLINE void skvi_product(
    int64_t K, const double *matrix, const double *in, double *out)
{
    const int64_t Kp = PADDED(K);
    int64_t j, k;
    for (k = 0; k < Kp; k += 4) {
        const double *row = matrix + k;
        skvi_lanes a, b, c, d;
        SKVI_LOAD(a, in);
        b = a;
        c = a;
        d = a;
#if defined(__GNUC__)
        a *= row[0];
        b *= row[1];
        c *= row[2];
        d *= row[3];
#else
        SKVI_EACH(a.at[i_] *= row[0]);
        SKVI_EACH(b.at[i_] *= row[1]);
        SKVI_EACH(c.at[i_] *= row[2]);
        SKVI_EACH(d.at[i_] *= row[3]);
#endif
        for (j = 1; j < K; j++) {
            row += Kp;
            SKVI_ADD_PRODUCT(a, in + j * LANES, row[0]);
            SKVI_ADD_PRODUCT(b, in + j * LANES, row[1]);
            SKVI_ADD_PRODUCT(c, in + j * LANES, row[2]);
            SKVI_ADD_PRODUCT(d, in + j * LANES, row[3]);
        }
        SKVI_SAVE(a, out + k * LANES);
        SKVI_SAVE(b, out + (k + 1) * LANES);
        SKVI_SAVE(c, out + (k + 2) * LANES);
        SKVI_SAVE(d, out + (k + 3) * LANES);
    }
}

/* counts_jk += sum_s left_sj right_sk, lane by lane; all padded, (Kp, Kp) counts. */
SKVI_INLINE void skvi_outer(
    int64_t K, const double *left, const double *right, double *counts)
{
    const int64_t Kp = PADDED(K), step = Kp * LANES;
    int64_t j, k, s;
    for (j = 0; j < K; j += 2)
        for (k = 0; k < K; k += 4) {
            double *first = counts + (j * Kp + k) * LANES, *second = first + step;
            const double *u = left + j * LANES, *v = right + k * LANES;
            skvi_lanes a, b, c, d, e, f, g, h;
            SKVI_LOAD(a, first);
            SKVI_LOAD(b, first + LANES);
            SKVI_LOAD(c, first + 2 * LANES);
            SKVI_LOAD(d, first + 3 * LANES);
            SKVI_LOAD(e, second);
            SKVI_LOAD(f, second + LANES);
            SKVI_LOAD(g, second + 2 * LANES);
            SKVI_LOAD(h, second + 3 * LANES);
            for (s = 0; s < TILE; s++, u += step, v += step) {
                SKVI_ADD_PRODUCTS(a, u, v);
                SKVI_ADD_PRODUCTS(b, u, v + LANES);
                SKVI_ADD_PRODUCTS(c, u, v + 2 * LANES);
                SKVI_ADD_PRODUCTS(d, u, v + 3 * LANES);
                SKVI_ADD_PRODUCTS(e, u + LANES, v);
                SKVI_ADD_PRODUCTS(f, u + LANES, v + LANES);
                SKVI_ADD_PRODUCTS(g, u + LANES, v + 2 * LANES);
                SKVI_ADD_PRODUCTS(h, u + LANES, v + 3 * LANES);
            }
            SKVI_SAVE(a, first);
            SKVI_SAVE(b, first + LANES);
            SKVI_SAVE(c, first + 2 * LANES);
            SKVI_SAVE(d, first + 3 * LANES);
            SKVI_SAVE(e, second);
            SKVI_SAVE(f, second + LANES);
            SKVI_SAVE(g, second + 2 * LANES);
            SKVI_SAVE(h, second + 3 * LANES);
        }
}

#define REAL double
#define NAME(name) name##_double
#include "chain_template.h"
#undef REAL
#undef NAME

#define REAL float
#define NAME(name) name##_float
#include "chain_template.h"
#undef REAL
#undef NAME

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif

#endif
