/* Included by chain.h, once for each type REAL of the arrays. */

/* Columns at[l] ... at[l] + n[l] - 1 of an array (K, ld) as steps of lane l of a tile
 * (TILE, Kp, LANES); beyond them zeros. */
SKVI_INLINE void NAME(skvi_gather)(
    int64_t K, int64_t ld, const REAL *array, const int64_t *at, const int64_t *n,
    int64_t full, double *SKVI_RESTRICT tile)
{
    const int64_t step = PADDED(K) * LANES;
    int64_t k, l, s;
    for (k = 0; k < K; k++) {
#ifdef SKVI_TRANSPOSES
        if (full) {
            for (s = 0; s < TILE; s += LANES) {
                skvi_lanes r[LANES];
                for (l = 0; l < LANES; l++)
                    r[l] = NAME(skvi_read)(array + k * ld + at[l] + s);
                skvi_transpose(r);
                for (l = 0; l < LANES; l++)
                    SKVI_AT(tile + (s + l) * step + k * LANES) = r[l];
            }
            continue;
        }
#endif
        for (l = 0; l < LANES; l++) {
            const REAL *from = array + k * ld + at[l];
            double *to = tile + k * LANES + l;
            for (s = 0; s < n[l]; s++)
                to[s * step] = (double)from[s];
            for (; s < TILE; s++)
                to[s * step] = 0.0;
        }
    }
}

SKVI_INLINE void NAME(skvi_scatter)(
    int64_t K, int64_t ld, REAL *array, const int64_t *at, const int64_t *n,
    int64_t full, const double *SKVI_RESTRICT tile)
{
    const int64_t step = PADDED(K) * LANES;
    int64_t k, l, s;
    for (k = 0; k < K; k++) {
#ifdef SKVI_TRANSPOSES
        if (full) {
            for (s = 0; s < TILE; s += LANES) {
                skvi_lanes r[LANES];
                for (l = 0; l < LANES; l++)
                    r[l] = SKVI_AT(tile + (s + l) * step + k * LANES);
                skvi_transpose(r);
                for (l = 0; l < LANES; l++)
                    NAME(skvi_write)(array + k * ld + at[l] + s, r[l]);
            }
            continue;
        }
#endif
        for (l = 0; l < LANES; l++) {
            REAL *to = array + k * ld + at[l];
            const double *from = tile + k * LANES + l;
            for (s = 0; s < n[l]; s++)
                to[s] = (REAL)from[s * step];
        }
    }
}

SKVI_VECTORISED static void NAME(skvi_forward)(
    int64_t K, int64_t ld, const int64_t *start, const int64_t *stop,
    const double *SKVI_RESTRICT trans, const double *SKVI_RESTRICT initial,
    const uint8_t *begins, const REAL *log_density, REAL *filtered, double *log_scale,
    double *message, int store, double *SKVI_RESTRICT work)
{
    const int64_t Kp = PADDED(K), size = Kp * LANES;
    double *a = work, *pred = a + size, *tile = pred + size, *gaps = tile + TILE * size;
    double top[TILE * LANES], scale[TILE * LANES], first[TILE * LANES];
    double logs[TILE * LANES];
    int64_t at[LANES], n[LANES];
    int64_t i, k, l, s, busy;
    memset(work, 0, (size_t)((2 + 2 * TILE) * size) * sizeof(double));
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
        NAME(skvi_gather)(K, ld, log_density, at, n, busy == FULL, gaps);
        for (l = 0; l < LANES; l++)
            for (s = 0; s < TILE; s++)
                first[s * LANES + l] = s < n[l] && begins[at[l] + s] ? 1.0 : 0.0;
        for (s = 0; s < TILE; s++) {
            double *b = gaps + s * size, *m = top + s * LANES;
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
        skvi_exp_array(TILE * size, gaps, tile);
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
        skvi_log_array(TILE * LANES, scale, logs);
        for (l = 0; l < LANES; l++)
            for (s = 0; s < n[l]; s++)
                log_scale[at[l] + s] = logs[s * LANES + l] + top[s * LANES + l];
        NAME(skvi_scatter)(K, ld, filtered, at, n, busy == FULL, tile);
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
        NAME(skvi_gather)(K, ld, filtered, at, n, busy == FULL, tile);
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
        NAME(skvi_scatter)(K, ld, smoothed, at, n, busy == FULL, smooth);
        skvi_outer(K, tile, ratios, counts);
    }
    for (k = 0; k < K; k++)
        for (l = 0; l < LANES; l++)
            message[l * K + k] = g[k * LANES + l];
}
