/* Loops that exist in both precisions; see cells.h. */

/* For the cells of a document, acc += c / norm * row with norm = theta . row. */
SKVI_VECTORISED static void NAME(skvi_round)(
    int64_t K, int64_t n_cells, const int *SKVI_RESTRICT words,
    const REAL *SKVI_RESTRICT counts, const REAL *SKVI_RESTRICT theta,
    const REAL *SKVI_RESTRICT topics, REAL *SKVI_RESTRICT acc)
{
    int64_t first, i, k;
    /* some cells at a time: their norms do not wait for each other */
    for (first = 0; first < n_cells; first += 8) {
        const int64_t n = n_cells - first < 8 ? n_cells - first : 8;
        REAL scale[8];
        for (i = 0; i < n; i++) {
            const REAL *row = topics + words[first + i] * K;
            REAL norm = 0;
            for (k = 0; k < K; k++)
                norm += theta[k] * row[k];
            scale[i] = norm;
        }
        for (i = 0; i < n; i++)
            scale[i] = counts[first + i] / scale[i];
        for (i = 0; i < n; i++) {
            const REAL *row = topics + words[first + i] * K;
            for (k = 0; k < K; k++)
                acc[k] += scale[i] * row[k];
        }
    }
}

/* total += c r, with r = theta * row / norm; returns norm. */
SKVI_VECTORISED static REAL NAME(skvi_assign)(
    int64_t K, const REAL *SKVI_RESTRICT theta, const REAL *SKVI_RESTRICT row, REAL c,
    REAL *SKVI_RESTRICT acc, double *SKVI_RESTRICT total)
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
    int64_t K, REAL c, const REAL *SKVI_RESTRICT inverse_total, REAL *SKVI_RESTRICT document,
    REAL *SKVI_RESTRICT word, REAL *SKVI_RESTRICT r, REAL *SKVI_RESTRICT work)
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
    int64_t K, const REAL *SKVI_RESTRICT theta, const REAL *SKVI_RESTRICT row, REAL c,
    REAL *SKVI_RESTRICT acc, REAL *SKVI_RESTRICT squares)
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
    int64_t K, const REAL *SKVI_RESTRICT theta, const REAL *SKVI_RESTRICT row, REAL c,
    REAL *SKVI_RESTRICT acc, REAL *SKVI_RESTRICT squares, double *SKVI_RESTRICT total,
    double *SKVI_RESTRICT total_squares)
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
    int64_t K, const REAL *SKVI_RESTRICT theta, const REAL *SKVI_RESTRICT row,
    REAL *SKVI_RESTRICT r)
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
    int64_t K, double c, const REAL *SKVI_RESTRICT r, double *SKVI_RESTRICT powers)
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
SKVI_VECTORISED static double NAME(skvi_sum_xlogx)(int64_t K, const REAL *SKVI_RESTRICT r)
{
    int64_t k;
    double total = 0.0;
    for (k = 0; k < K; k++) {
        const double v = (double)r[k] > 1e-290 ? (double)r[k] : 1e-290;
        total += v * skvi_log(v);
    }
    return total;
}
