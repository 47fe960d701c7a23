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
#define FULL (TILE * LANES)
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

#if defined(__GNUC__) && defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector) && __has_builtin(__builtin_convertvector)
#define SKVI_TRANSPOSES
#endif
#endif

#ifdef SKVI_TRANSPOSES
typedef float skvi_floats
    __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

#define SKVI_PAIR(a, b, i0, i1, i2, i3, i4, i5, i6, i7, j0, j1, j2, j3, j4, j5, j6, j7) \
    do { \
        const skvi_lanes first_ = __builtin_shufflevector( \
            a, b, i0, i1, i2, i3, i4, i5, i6, i7); \
        b = __builtin_shufflevector(a, b, j0, j1, j2, j3, j4, j5, j6, j7); \
        a = first_; \
    } while (0)
#define SKVI_BY_ONE(a, b) \
    SKVI_PAIR(a, b, 0, 8, 2, 10, 4, 12, 6, 14, 1, 9, 3, 11, 5, 13, 7, 15)
#define SKVI_BY_TWO(a, b) \
    SKVI_PAIR(a, b, 0, 1, 8, 9, 4, 5, 12, 13, 2, 3, 10, 11, 6, 7, 14, 15)
#define SKVI_BY_FOUR(a, b) \
    SKVI_PAIR(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15)

/* Rows become columns, eight by eight. */
SKVI_INLINE void skvi_transpose(skvi_lanes *r)
{
    SKVI_BY_ONE(r[0], r[1]);
    SKVI_BY_ONE(r[2], r[3]);
    SKVI_BY_ONE(r[4], r[5]);
    SKVI_BY_ONE(r[6], r[7]);
    SKVI_BY_TWO(r[0], r[2]);
    SKVI_BY_TWO(r[1], r[3]);
    SKVI_BY_TWO(r[4], r[6]);
    SKVI_BY_TWO(r[5], r[7]);
    SKVI_BY_FOUR(r[0], r[4]);
    SKVI_BY_FOUR(r[1], r[5]);
    SKVI_BY_FOUR(r[2], r[6]);
    SKVI_BY_FOUR(r[3], r[7]);
}

SKVI_INLINE skvi_lanes skvi_read_double(const double *p)
{
    return SKVI_AT(p);
}

SKVI_INLINE skvi_lanes skvi_read_float(const float *p)
{
    return __builtin_convertvector(*(const skvi_floats *)p, skvi_lanes);
}

SKVI_INLINE void skvi_write_double(double *p, skvi_lanes x)
{
    SKVI_AT(p) = x;
}

SKVI_INLINE void skvi_write_float(float *p, skvi_lanes x)
{
    *(skvi_floats *)p = __builtin_convertvector(x, skvi_floats);
}
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
