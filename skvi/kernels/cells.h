/* Loops over topics, one (document, word) cell at a time, and the few elementary
 * functions inside them, written so that a compiler turns them into vector code.
 *
 * GCC on x86-64 with glibc compiles each loop for several instruction sets and the
 * loader picks one; other compilers build the portable version. Sums may be
 * reassociated (a result does not depend on threads, only on the machine).
 */
#ifndef SKVI_CELLS_H
#define SKVI_CELLS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC optimize("O3", "associative-math", "no-signed-zeros", \
                     "no-trapping-math", "no-math-errno", "tree-vectorize")
#endif

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && \
    defined(__GLIBC__)
#if __GNUC__ >= 12
#define SKVI_VECTORISED \
    __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define SKVI_VECTORISED __attribute__((target_clones("default", "avx2")))
#endif
#else
#define SKVI_VECTORISED
#endif

#if defined(__GNUC__) || defined(_MSC_VER)
#define SKVI_RESTRICT __restrict
#else
#define SKVI_RESTRICT
#endif

/* exp for |x| < 700 and log for normal x > 0, to a few ulp: without branches. */
static inline double skvi_exp(double x)
{
    double n, r, p, scale;
    int64_t bits;
    x = x < -700.0 ? -700.0 : x;
    x = x > 700.0 ? 700.0 : x;
    n = x * 1.4426950408889634074;
    /* to the nearest integer; cutting a positive number off needs no branch */
    n = (double)((int32_t)(n + 2048.5) - 2048);
    r = x - n * 6.93147180369123816490e-01;
    r = r - n * 1.90821492927058770002e-10;
    p = 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    bits = (int64_t)((uint64_t)((int32_t)n + 1023) << 52);
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

static inline double skvi_log(double x)
{
    int64_t bits, exponent;
    double m, n, z, w, p;
    memcpy(&bits, &x, sizeof bits);
    /* mantissa in [sqrt(1/2), sqrt(2)) */
    exponent = ((bits - 0x3FE6A09E667F3BCDLL) >> 52);
    bits = (int64_t)((uint64_t)bits - ((uint64_t)exponent << 52));
    memcpy(&m, &bits, sizeof m);
    n = (double)(int32_t)exponent;
    z = (m - 1.0) / (m + 1.0);
    w = z * z;
    p = 2.0 / 21.0;
    p = p * w + 2.0 / 19.0;
    p = p * w + 2.0 / 17.0;
    p = p * w + 2.0 / 15.0;
    p = p * w + 2.0 / 13.0;
    p = p * w + 2.0 / 11.0;
    p = p * w + 2.0 / 9.0;
    p = p * w + 2.0 / 7.0;
    p = p * w + 2.0 / 5.0;
    p = p * w + 2.0 / 3.0;
    p = p * w;
    return n * 6.93147180369123816490e-01 +
           (n * 1.90821492927058770002e-10 + (2.0 * z + z * p));
}

/* The digamma function is log y - tail with y = x + 8 (or x, where it is large). */
static inline double skvi_digamma_parts(double x, double *y)
{
    /* P = x (x + 1) ... (x + 7) and P', for the recurrence. */
    const int large = x > 16.0;
    const double a = x * (x + 7.0), da = 2.0 * x + 7.0;
    const double b = a + 6.0, c = a + 10.0, d = a + 12.0;
    /* pairs (x + i)(x + 7 - i) = a + {0, 6, 10, 12} */
    const double ab = a * b, cd = c * d;
    const double p = ab * cd;
    const double dp = da * ((a + b) * cd + ab * (c + d));
    const double shift = large ? 0.0 : dp / p;
    const double z = large ? x : x + 8.0;
    const double i = 1.0 / z, i2 = i * i;
    double s = 1.0 / 132.0;
    s = 1.0 / 240.0 - i2 * (s - i2 * (691.0 / 32760.0));
    s = 1.0 / 252.0 - i2 * s;
    s = 1.0 / 120.0 - i2 * s;
    s = 1.0 / 12.0 - i2 * s;
    *y = z;
    return shift + 0.5 * i + i2 * s;
}

static inline double skvi_digamma(double x)
{
    double y;
    const double tail = skvi_digamma_parts(x, &y);
    return skvi_log(y) - tail;
}

static inline double skvi_lgamma(double x)
{
    const int large = x > 16.0;
    const double a = x * (x + 7.0);
    const double p = a * (a + 6.0) * (a + 10.0) * (a + 12.0);
    const double z = large ? x : x + 8.0;
    const double i = 1.0 / z, i2 = i * i;
    double s = 1.0 / 1188.0 - i2 * (691.0 / 360360.0);
    s = 1.0 / 1680.0 - i2 * s;
    s = 1.0 / 1260.0 - i2 * s;
    s = 1.0 / 360.0 - i2 * s;
    s = 1.0 / 12.0 - i2 * s;
    return (z - 0.5) * skvi_log(z) - z + 0.91893853320467274178 + i * s -
           skvi_log(large ? 1.0 : p);
}

/* -- arrays -------------------------------------------------------------------- */

SKVI_VECTORISED static void skvi_exp_digamma(
    int64_t n, const double *x, double floor, double *out)
{
    int64_t k;
    for (k = 0; k < n; k++) {
        double y, tail, value;
        tail = skvi_digamma_parts(x[k], &y);
        value = y * skvi_exp(-tail);
        out[k] = value > floor ? value : floor;
    }
}

SKVI_VECTORISED static void skvi_digamma_array(int64_t n, const double *x, double *out)
{
    int64_t k;
    for (k = 0; k < n; k++)
        out[k] = skvi_digamma(x[k]);
}

SKVI_VECTORISED static void skvi_lgamma_array(int64_t n, const double *x, double *out)
{
    int64_t k;
    for (k = 0; k < n; k++)
        out[k] = skvi_lgamma(x[k]);
}

SKVI_VECTORISED static void skvi_exp_array(int64_t n, const double *x, double *out)
{
    int64_t k;
    for (k = 0; k < n; k++)
        out[k] = skvi_exp(x[k]);
}

SKVI_VECTORISED static void skvi_log_array(int64_t n, const double *x, double *out)
{
    int64_t k;
    for (k = 0; k < n; k++)
        out[k] = skvi_log(x[k]);
}

/* -- laws of counts ------------------------------------------------------------- */

/* n is a sum of independent Bernoullis, c of them with success probability r for each
 * cell, and G(e^-t) = E e^{-n t} its generating function at the nodes t, where
 * u = 1 - e^-t. See counts.pyx for what is computed. */

#define SKVI_POWERS 6

/* table += c (log(1 - r u) + the first powers of r u), which powers[] hold. */
SKVI_VECTORISED static void skvi_log_factor(
    int64_t J, double c, double r, const double *SKVI_RESTRICT u, double *SKVI_RESTRICT table)
{
    int64_t j;
    for (j = 0; j < J; j++) {
        const double x = r * u[j];
        const double left = 1.0 - x > 1e-290 ? 1.0 - x : 1e-290;
        const double p = x * (1.0 + x * (1.0 / 2 + x * (1.0 / 3 + x * (1.0 / 4 +
                              x * (1.0 / 5 + x * (1.0 / 6))))));
        table[j] += c * (skvi_log(left) + p);
    }
}

/* log_g = table - the first powers; powers[m] = sum c r^(m + 1). */
SKVI_VECTORISED static void skvi_log_generating(
    int64_t J, const double *SKVI_RESTRICT u, const double *SKVI_RESTRICT table,
    const double *SKVI_RESTRICT powers, double *SKVI_RESTRICT log_g)
{
    int64_t j;
    const double p1 = powers[0], p2 = powers[1] / 2, p3 = powers[2] / 3;
    const double p4 = powers[3] / 4, p5 = powers[4] / 5, p6 = powers[5] / 6;
    for (j = 0; j < J; j++) {
        const double x = u[j];
        log_g[j] = table[j] -
            x * (p1 + x * (p2 + x * (p3 + x * (p4 + x * (p5 + x * p6)))));
    }
}

/* E[log Gamma(a + n)] - log Gamma(a), and E[digamma(a + n)] - digamma(a) in slope.
 * With x = 1 - G at t < 1 and 1 - P0 beyond, the integrand of the first is
 * (later e^-t - w) / t for w = e^{-a t} (x e^-t / u - (G - P0) scale), where scale is 1
 * at t < 1 and 1 / u beyond: the two forms are equal, and each rounds well. */
SKVI_VECTORISED static double skvi_expect_count(
    int64_t J, double a, double mean, double p0, const double *SKVI_RESTRICT t,
    const double *SKVI_RESTRICT weight, const double *SKVI_RESTRICT weight_t,
    const double *SKVI_RESTRICT odds, const double *SKVI_RESTRICT scale,
    const double *SKVI_RESTRICT log_g, double linear, double *slope)
{
    int64_t j;
    double value = 0.0, down = 0.0;
    for (j = 0; j < J; j++) {
        const double L = log_g[j];
        const double g = skvi_exp(L);
        const double series = L * (1.0 + L * (1.0 / 2 + L * (1.0 / 6 + L * (1.0 / 24 +
            L * (1.0 / 120 + L * (1.0 / 720 + L * (1.0 / 5040)))))));
        const double fall = L > -0.05 ? -series : 1.0 - g; /* 1 - G */
        const double x = t[j] < 1.0 ? fall : 1.0 - p0;
        const double w =
            skvi_exp(-a * t[j]) * (x * odds[j] - (g - p0) * scale[j]);
        value += weight_t[j] * w;
        down += weight[j] * w;
    }
    *slope = (1.0 - p0) / a + down;
    /* mean - (1 - p0) is E[(n - 1)+]; linear is the integral of e^-t / t */
    return (mean - (1.0 - p0)) * linear - value + (1.0 - p0) * skvi_log(a);
}

/* The same for counts with a mean so large that n stays close to it: the first terms of
 * the expansion about the mean, by cumulants. What is left is of order 1 / mean^2. */
static double skvi_expect_huge_count(double a, const double *powers, double *slope)
{
    const double m = powers[0], x = a + m, i = 1.0 / x;
    const double v = m - powers[1];
    const double k3 = m - 3.0 * powers[1] + 2.0 * powers[2];
    const double k4 = m - 7.0 * powers[1] + 12.0 * powers[2] - 6.0 * powers[3];
    const double m4 = k4 + 3.0 * v * v;
    /* derivatives of digamma */
    const double d1 = i * (1.0 + i * (1.0 / 2 + i / 6));
    const double d2 = -i * i * (1.0 + i * (1.0 + i / 2));
    const double d3 = i * i * i * (2.0 + i * (3.0 + 2.0 * i));
    const double d4 = -i * i * i * i * (6.0 + 12.0 * i);
    *slope = skvi_digamma(x) - skvi_digamma(a) + v * d2 / 2 + k3 * d3 / 6 + m4 * d4 / 24;
    return skvi_lgamma(x) - skvi_lgamma(a) + v * d1 / 2 + k3 * d2 / 6 + m4 * d3 / 24;
}

/* part[j] and moments[m] of the expected log count without one token; see counts.pyx */
SKVI_VECTORISED static void skvi_log_count_parts(
    int64_t J, double a, const double *SKVI_RESTRICT t, const double *SKVI_RESTRICT u,
    const double *SKVI_RESTRICT weight_t, const double *SKVI_RESTRICT log_g,
    double *SKVI_RESTRICT part, double *SKVI_RESTRICT correction, double *SKVI_RESTRICT moments)
{
    int64_t j;
    double k = 0.0;
    double m0 = 0.0, m1 = 0.0, m2 = 0.0, m3 = 0.0, m4 = 0.0, m5 = 0.0, m6 = 0.0;
    for (j = 0; j < J; j++) {
        const double decay = weight_t[j] * skvi_exp(-a * t[j]), x = u[j];
        double p = decay * skvi_exp(log_g[j]);
        k += decay * x; /* e^{-a t} - e^{-(a + 1) t} */
        part[j] = p;
        m0 += p;
        p *= x;
        m1 += p;
        p *= x;
        m2 += p;
        p *= x;
        m3 += p;
        p *= x;
        m4 += p;
        p *= x;
        m5 += p;
        p *= x;
        m6 += p;
    }
    *correction = k - skvi_log((a + 1.0) / a);
    moments[0] = m0;
    moments[1] = m1;
    moments[2] = m2;
    moments[3] = m3;
    moments[4] = m4;
    moments[5] = m5;
    moments[6] = m6;
}

SKVI_VECTORISED static double skvi_divided(
    int64_t J, double r, const double *SKVI_RESTRICT u, const double *SKVI_RESTRICT part)
{
    int64_t j;
    double total = 0.0;
    for (j = 0; j < J; j++)
        total += part[j] / (1.0 - r * u[j]);
    return total;
}

#define REAL float
#define NAME(name) name##_float
#include "cells_template.h"
#undef REAL
#undef NAME
#define REAL double
#define NAME(name) name##_double
#include "cells_template.h"
#undef REAL
#undef NAME

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif

#endif
