/* Included by chain.h, once for each type REAL of the arrays. */

/* Columns at[l] ... at[l] + n[l] - 1 of an array (K, ld) as steps of lane l of a tile
 * (TILE, K, LANES); beyond them zeros. */
static inline void NAME(skvi_gather)(
    int64_t K, int64_t ld, int64_t pad, const REAL *SKVI_RESTRICT array,
    const int64_t *at, const int64_t *n, double *SKVI_RESTRICT tile)
{
    const int64_t step = pad * LANES;
    int64_t k, l, s;
    for (k = 0; k < K; k++)
        for (l = 0; l < LANES; l++) {
            const REAL *from = array + k * ld + at[l];
            double *to = tile + k * LANES + l;
            for (s = 0; s < n[l]; s++)
                to[s * step] = (double)from[s];
            for (; s < TILE; s++)
                to[s * step] = 0.0;
        }
}

static inline void NAME(skvi_scatter)(
    int64_t K, int64_t ld, int64_t pad, REAL *SKVI_RESTRICT array, const int64_t *at,
    const int64_t *n, const double *SKVI_RESTRICT tile)
{
    const int64_t step = pad * LANES;
    int64_t k, l, s;
    for (k = 0; k < K; k++)
        for (l = 0; l < LANES; l++) {
            REAL *to = array + k * ld + at[l];
            const double *from = tile + k * LANES + l;
            for (s = 0; s < n[l]; s++)
                to[s] = (REAL)from[s * step];
        }
}

SKVI_VECTORISED static void NAME(skvi_forward)(
    int64_t K, int64_t ld, const int64_t *start, const int64_t *stop,
    const double *SKVI_RESTRICT trans, const double *SKVI_RESTRICT initial,
    const uint8_t *begins, const REAL *log_density, REAL *filtered, double *log_scale,
    double *message, int store, double *SKVI_RESTRICT work)
{
    const int64_t Kp = PADDED(K), size = Kp * LANES;
    double *a = work, *pred = a + size, *tile = pred + size;
    double top[TILE * LANES], scale[TILE * LANES], first[TILE * LANES];
    int64_t at[LANES], n[LANES];
    int64_t i, k, l, s, busy;
    memset(work, 0, (size_t)((2 + TILE) * size) * sizeof(double));
    for (k = 0; k < K; k++)
        for (l = 0; l < LANES; l++)
            a[k * LANES + l] = message[l * K + k];
    for (i = 0;; i += TILE) {
        busy = 0;
        for (l = 0; l < LANES; l++) {
            n[l] = stop[l] - start[l] - i;
            n[l] = n[l] > TILE ? TILE : (n[l] < 0 ? 0 : n[l]);
            at[l] = n[l] ? start[l] + i : 0;
            busy += n[l];
        }
        if (!busy)
            return;
        NAME(skvi_gather)(K, ld, Kp, log_density, at, n, tile);
        for (l = 0; l < LANES; l++)
            for (s = 0; s < TILE; s++)
                first[s * LANES + l] = s < n[l] && begins[at[l] + s] ? 1.0 : 0.0;
        for (s = 0; s < TILE; s++) {
            double *b = tile + s * size, *m = top + s * LANES;
            for (l = 0; l < LANES; l++)
                m[l] = b[l];
            for (k = 1; k < K; k++)
                for (l = 0; l < LANES; l++)
                    m[l] = b[k * LANES + l] > m[l] ? b[k * LANES + l] : m[l];
            for (k = 0; k < K; k++)
                for (l = 0; l < LANES; l++) {
                    const double gap = b[k * LANES + l] - m[l];
                    b[k * LANES + l] = gap > FLOOR ? gap : FLOOR;
                }
        }
        for (k = 0; k < TILE * size; k++)
            tile[k] = skvi_exp(tile[k]);
        for (s = 0; s < TILE; s++) {
            double *b = tile + s * size;
            const double *f = first + s * LANES;
            double sum[LANES], inverse[LANES];
            skvi_product(K, trans, a, pred);
            for (l = 0; l < LANES; l++)
                sum[l] = 0.0;
            for (k = 0; k < K; k++)
                for (l = 0; l < LANES; l++) {
                    double p = pred[k * LANES + l] * (1.0 - f[l]) + initial[k] * f[l];
                    p *= b[k * LANES + l];
                    b[k * LANES + l] = p;
                    sum[l] += p;
                }
            for (l = 0; l < LANES; l++) {
                scale[s * LANES + l] = sum[l];
                inverse[l] = 1.0 / sum[l];
            }
            for (k = 0; k < K; k++)
                for (l = 0; l < LANES; l++) {
                    b[k * LANES + l] *= inverse[l];
                    a[k * LANES + l] = b[k * LANES + l];
                }
        }
        for (l = 0; l < LANES; l++) /* the last step of a lane is its message */
            if (n[l])
                for (k = 0; k < K; k++)
                    message[l * K + k] = tile[(n[l] - 1) * size + k * LANES + l];
        if (!store)
            continue;
        for (k = 0; k < TILE * LANES; k++)
            scale[k] = skvi_log(scale[k]) + top[k];
        for (l = 0; l < LANES; l++)
            for (s = 0; s < n[l]; s++)
                log_scale[at[l] + s] = scale[s * LANES + l];
        NAME(skvi_scatter)(K, ld, Kp, filtered, at, n, tile);
    }
}

SKVI_VECTORISED static void NAME(skvi_backward)(
    int64_t K, int64_t ld, const int64_t *start, const int64_t *stop,
    const double *SKVI_RESTRICT trans, const double *SKVI_RESTRICT transposed,
    const uint8_t *begins, const double *weight, const REAL *filtered, REAL *smoothed,
    double *SKVI_RESTRICT counts, double *message, int store,
    double *SKVI_RESTRICT work)
{
    const int64_t Kp = PADDED(K), size = Kp * LANES;
    double *g = work, *pred = g + size, *w = pred + size, *back = w + size;
    double *tile = back + size, *ratios = tile + TILE * size;
    double *smooth = ratios + TILE * size;
    double valid[TILE * LANES], inner[TILE * LANES], share[TILE * LANES];
    int64_t at[LANES], n[LANES];
    int64_t i, k, l, s, busy;
    memset(work, 0, (size_t)((4 + 3 * TILE) * size) * sizeof(double));
    for (k = 0; k < K; k++)
        for (l = 0; l < LANES; l++)
            g[k * LANES + l] = message[l * K + k];
    for (i = 0;; i += TILE) {
        busy = 0;
        for (l = 0; l < LANES; l++) {
            n[l] = stop[l] - start[l] - i;
            n[l] = n[l] > TILE ? TILE : (n[l] < 0 ? 0 : n[l]);
            at[l] = n[l] ? stop[l] - i - n[l] : 0;
            busy += n[l];
        }
        if (!busy)
            break;
        NAME(skvi_gather)(K, ld, Kp, filtered, at, n, tile);
        for (l = 0; l < LANES; l++)
            for (s = 0; s < TILE; s++) {
                const int on = s < n[l], goes_on = on && !begins[at[l] + s + 1];
                valid[s * LANES + l] = on ? 1.0 : 0.0;
                inner[s * LANES + l] = goes_on ? 1.0 : 0.0;
                share[s * LANES + l] =
                    goes_on ? (weight ? weight[at[l] + s] : 1.0) : 0.0;
            }
        for (s = TILE - 1; s >= 0; s--) {
            const double *a = tile + s * size, *on = valid + s * LANES;
            const double *goes_on = inner + s * LANES;
            double *ratio = ratios + s * size, *out = smooth + s * size;
            skvi_product(K, trans, a, pred);
            for (k = 0; k < K; k++)
                for (l = 0; l < LANES; l++) {
                    const double p = pred[k * LANES + l];
                    w[k * LANES + l] = g[k * LANES + l] / (p > 0.0 ? p : 1.0);
                    ratio[k * LANES + l] = w[k * LANES + l] * share[s * LANES + l];
                }
            skvi_product(K, transposed, w, back);
            for (k = 0; k < K; k++)
                for (l = 0; l < LANES; l++) {
                    const double factor =
                        back[k * LANES + l] * goes_on[l] + (1.0 - goes_on[l]);
                    /* steps beyond a lane's end leave its message as it is */
                    g[k * LANES + l] = a[k * LANES + l] * factor * on[l] +
                        g[k * LANES + l] * (1.0 - on[l]);
                    out[k * LANES + l] = g[k * LANES + l];
                }
        }
        if (!store)
            continue;
        NAME(skvi_scatter)(K, ld, Kp, smoothed, at, n, smooth);
        skvi_outer(K, tile, ratios, counts);
    }
    for (k = 0; k < K; k++)
        for (l = 0; l < LANES; l++)
            message[l * K + k] = g[k * LANES + l];
}
