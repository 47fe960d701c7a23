/* Loops that exist in both precisions; see cells.h. */

/* acc += c / norm * row with norm = theta . row, which is returned. */
SKVI_VECTORISED static REAL NAME(skvi_share)(
    int64_t K, const REAL *restrict theta, const REAL *restrict row, REAL c,
    REAL *restrict acc)
{
    int64_t k;
    REAL norm = 0, scale;
    for (k = 0; k < K; k++)
        norm += theta[k] * row[k];
    scale = c / norm;
    for (k = 0; k < K; k++)
        acc[k] += scale * row[k];
    return norm;
}

/* total += c r, with r = theta * row / norm; returns norm. */
SKVI_VECTORISED static REAL NAME(skvi_assign)(
    int64_t K, const REAL *restrict theta, const REAL *restrict row, REAL c,
    REAL *restrict acc, double *restrict total)
{
    int64_t k;
    REAL norm = 0, scale;
    for (k = 0; k < K; k++)
        norm += theta[k] * row[k];
    scale = c / norm;
    for (k = 0; k < K; k++) {
        const REAL r = scale * theta[k] * row[k];
        acc[k] += r;
        total[k] += r;
    }
    return norm;
}

/* One CVB0 update of a cell of c tokens whose shares are kept in r: the counts of its
 * document and of its word, priors included, less one token's own share. */
SKVI_VECTORISED static void NAME(skvi_cvb0)(
    int64_t K, REAL c, const REAL *restrict inverse_total, REAL *restrict document,
    REAL *restrict word, REAL *restrict r, REAL *restrict work)
{
    int64_t k;
    REAL norm = 0, scale;
    for (k = 0; k < K; k++) {
        const REAL a = document[k] - r[k], b = word[k] - r[k];
        REAL t = a * b * inverse_total[k];
        t += t * r[k] * inverse_total[k];
        t = (a > 0 && b > 0) ? t : (REAL)0;
        work[k] = t;
        norm += t;
    }
    if (!(norm > 0))
        return;
    scale = 1 / norm;
    for (k = 0; k < K; k++) {
        const REAL new = work[k] * scale;
        const REAL move = c * (new - r[k]);
        document[k] += move;
        word[k] += move;
        r[k] = new;
    }
}

/* As skvi_share, with squares += c r^2 / theta^2 beside it. */
SKVI_VECTORISED static REAL NAME(skvi_share_squares)(
    int64_t K, const REAL *restrict theta, const REAL *restrict row, REAL c,
    REAL *restrict acc, REAL *restrict squares)
{
    int64_t k;
    REAL norm = 0, scale;
    for (k = 0; k < K; k++)
        norm += theta[k] * row[k];
    scale = 1 / norm;
    for (k = 0; k < K; k++) {
        const REAL part = scale * row[k];
        acc[k] += c * part;
        squares[k] += c * part * part;
    }
    return norm;
}

/* As skvi_assign, with the squares of the shares beside the shares. */
SKVI_VECTORISED static REAL NAME(skvi_assign_squares)(
    int64_t K, const REAL *restrict theta, const REAL *restrict row, REAL c,
    REAL *restrict acc, REAL *restrict squares, double *restrict total,
    double *restrict total_squares)
{
    int64_t k;
    REAL norm = 0, scale;
    for (k = 0; k < K; k++)
        norm += theta[k] * row[k];
    scale = 1 / norm;
    for (k = 0; k < K; k++) {
        const REAL r = scale * theta[k] * row[k];
        acc[k] += c * r;
        squares[k] += c * r * r;
        total[k] += c * r;
        total_squares[k] += c * r * r;
    }
    return norm;
}

/* r = theta * row / (theta . row) */
SKVI_VECTORISED static void NAME(skvi_normalise)(
    int64_t K, const REAL *restrict theta, const REAL *restrict row,
    REAL *restrict r)
{
    int64_t k;
    REAL norm = 0, scale;
    for (k = 0; k < K; k++) {
        r[k] = theta[k] * row[k];
        norm += r[k];
    }
    scale = 1 / norm;
    for (k = 0; k < K; k++)
        r[k] *= scale;
}

/* powers[m] += c r^(m + 1), each of length K */
SKVI_VECTORISED static void NAME(skvi_power_sums)(
    int64_t K, double c, const REAL *restrict r, double *restrict powers)
{
    int64_t k;
    for (k = 0; k < K; k++) {
        const double x = r[k];
        double p = c * x;
        powers[k] += p;
        p *= x;
        powers[K + k] += p;
        p *= x;
        powers[2 * K + k] += p;
        p *= x;
        powers[3 * K + k] += p;
        p *= x;
        powers[4 * K + k] += p;
        p *= x;
        powers[5 * K + k] += p;
    }
}

/* The sum of c r log r of a cell. */
SKVI_VECTORISED static double NAME(skvi_sum_xlogx)(int64_t K, const REAL *restrict r)
{
    int64_t k;
    double total = 0.0;
    for (k = 0; k < K; k++) {
        const double v = (double)r[k] > 1e-290 ? (double)r[k] : 1e-290;
        total += v * skvi_log(v);
    }
    return total;
}
