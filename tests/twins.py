"""Plain numpy twins of the compiled kernels: slow, and easy to check by eye."""

import numpy as np
from scipy import special, stats


def sweep(gram, residual, ridge, mean, n_sweeps):
    """Twin of skvi.kernels.coordinate.sweep: each coordinate to its maximum in turn."""
    for _ in range(n_sweeps):
        for j in range(len(mean)):
            curvature = gram[j, j] + ridge[j]
            if curvature <= 0.0:
                continue
            step = (residual[j] - ridge[j] * mean[j]) / curvature
            mean[j] += step
            residual -= step * gram[j]


# -- topics: what is exact, by sums over all values ------------------------------------


def law_of_count(counts, probabilities):
    """P(n = 0, 1, ...) of a sum of Binomial(counts, probabilities), by convolution."""
    law = np.ones(1)
    for count, p in zip(counts, probabilities):
        law = np.convolve(law, stats.binom.pmf(np.arange(count + 1), count, p))
    return law


def expected(function, counts, probabilities):
    """E function(n) of such a sum."""
    law = law_of_count(counts, probabilities)
    return law @ function(np.arange(len(law)))


def log_rising(a, counts, probabilities):
    """E log Gamma(a + n) - log Gamma(a)."""
    return expected(lambda n: special.gammaln(a + n), counts, probabilities) - (
        special.gammaln(a)
    )


def negative_xlogx(q):
    return -special.xlogy(q, q)


def collapsed_bound(counts, q, alpha, eta):
    """E log p(w, z) + H[q(z)] of tokens whose topics are independent under q.

    counts (D, V), whole numbers; q (D, V, K), the tokens of a cell share it; alpha (K,)
    and eta (K, V). Proportions and topics are integrated out.
    """
    counts = counts.astype(int)
    n_docs, n_words = counts.shape
    K = len(alpha)
    total = np.sum(counts[..., None] * negative_xlogx(q))
    for d in range(n_docs):
        for k in range(K):
            total += log_rising(alpha[k], counts[d], q[d, :, k])
        total -= special.gammaln(alpha.sum() + counts[d].sum())
        total += special.gammaln(alpha.sum())
    for k in range(K):
        for w in range(n_words):
            total += log_rising(eta[k, w], counts[:, w], q[:, w, k])
        total -= log_rising(eta[k].sum(), counts.ravel(), q[:, :, k].ravel())
    return total


def minus_divergence(prior, posterior):
    """-KL(Dirichlet(posterior) || Dirichlet(prior)), summed over leading axes."""

    def log_normalizer(a):
        return special.gammaln(a).sum(axis=-1) - special.gammaln(a.sum(axis=-1))

    prior = np.broadcast_to(prior, posterior.shape)
    gap = (prior - posterior) * mean_log(posterior)
    each = log_normalizer(posterior) - log_normalizer(prior) + gap.sum(axis=-1)
    return each.sum()


def mean_log(concentration):
    """E log x of Dirichlets over the last axis."""
    total = concentration.sum(axis=-1, keepdims=True)
    return special.digamma(concentration) - special.digamma(total)


def mean_field_bound(counts, q, documents, topics, alpha, eta):
    """The bound of q(theta) q(z) q(phi): documents (D, K) and topics (K, V) are the
    concentrations of the Dirichlets, q (D, V, K) the topics of tokens.
    """
    score = mean_log(documents)[:, None, :] + mean_log(topics).T
    total = np.sum(counts[..., None] * (q * score + negative_xlogx(q)))
    return total + minus_divergence(alpha, documents) + minus_divergence(eta, topics)


# -- topics: kernels -------------------------------------------------------------------


def cells_of(row):
    """(word, count) of the words that a document has."""
    return [(w, row[w]) for w in np.flatnonzero(row)]


def documents_mean_field(counts, topics, prior, concentration, max_iter, tol):
    """Twin of skvi.kernels.documents.mean_field, on dense counts (D, V)."""
    concentration = concentration.copy()
    assigned = np.zeros(topics.shape)
    terms, n_iter = np.zeros((len(counts), 2)), 0
    for d, row in enumerate(counts):
        if not row.any():
            concentration[d] = prior
            continue
        last = max_iter <= 1
        for it in range(1, max_iter + 2):
            theta = np.exp(special.digamma(concentration[d]))
            norm = {w: theta @ topics[w] for w, _ in cells_of(row)}
            share = {w: theta * topics[w] / norm[w] for w, _ in cells_of(row)}
            n = sum(c * share[w] for w, c in cells_of(row))
            before, concentration[d] = concentration[d].copy(), prior + n
            if last:
                break
            moved = np.abs(concentration[d] - before).sum()
            last = it >= max_iter - 1 or moved <= tol * concentration[d].sum()
        for w, c in cells_of(row):
            assigned[w] += c * share[w]
            terms[d, 0] += c * np.log(norm[w])
        terms[d, 1] = n @ np.log(theta)
        n_iter += it
    return concentration, assigned, terms, n_iter


def documents_tied(counts, topics, prior, weights, max_iter, tol):
    """Twin of skvi.kernels.documents.tied, on dense counts."""
    weights = weights.copy()
    assigned, squares = np.zeros((2, *topics.shape))
    by_document = np.zeros((2, *weights.shape))
    for d, row in enumerate(counts):
        if not row.any():
            weights[d] = prior
            continue
        last = max_iter <= 1
        for it in range(1, max_iter + 2):
            share = {w: weights[d] * topics[w] for w, _ in cells_of(row)}
            share = {w: value / value.sum() for w, value in share.items()}
            n = sum(c * share[w] for w, c in cells_of(row))
            square = sum(c * share[w] ** 2 for w, c in cells_of(row))
            own = np.divide(square, n, out=np.zeros_like(n), where=n > 0)
            before, weights[d] = weights[d].copy(), prior + np.maximum(n - own, 0.0)
            if last:
                break
            moved = np.abs(weights[d] - before).sum()
            last = it >= max_iter - 1 or moved <= tol * weights[d].sum()
        for w, c in cells_of(row):
            assigned[w] += c * share[w]
            squares[w] += c * share[w] ** 2
        by_document[:, d] = n, square
    return weights, assigned, squares, by_document


def documents_sweep(counts, inverse_total, topics, documents, shares):
    """Twin of skvi.kernels.documents.sweep: shares (D, V, K); all three in place."""
    for d, row in enumerate(counts):
        for w, c in cells_of(row):
            own = shares[d, w].copy()
            # 1 / (total - own), to first order in the one token
            divided = inverse_total * (1.0 + own * inverse_total)
            new = (documents[d] - own) * (topics[w] - own) * divided
            new /= new.sum()
            documents[d] += c * (new - own)
            topics[w] += c * (new - own)
            shares[d, w] = new


# -- hidden Markov chains: in log space, a step at a time ------------------------------


def forward(logb, log_start, log_trans):
    """log p(x_1..t, z_t), (T, K); where logb are log densities (T, K) of the steps."""
    alpha = np.empty(logb.shape)
    alpha[0] = log_start + logb[0]
    for t in range(1, len(logb)):
        before = alpha[t - 1][:, None] + log_trans
        alpha[t] = logb[t] + np.logaddexp.reduce(before, axis=0)
    return alpha


def forward_backward(logb, log_start, log_trans):
    """(log Z, gamma (T, K), xi (K, K) summed over steps) of a chain.

    The start and the transitions need not be normalised: expected logs are not.
    """
    top = logb.max(axis=1)  # sums of large numbers would lose digits
    logb = logb - top[:, None]
    alpha, beta = forward(logb, log_start, log_trans), np.zeros(logb.shape)
    for t in range(len(logb) - 2, -1, -1):
        after = log_trans + (logb[t + 1] + beta[t + 1])
        beta[t] = np.logaddexp.reduce(after, axis=1)
    log_z = np.logaddexp.reduce(alpha[-1])
    pairs = alpha[:-1, :, None] + log_trans + (logb + beta)[1:, None, :] - log_z
    gamma = np.exp(alpha + beta - log_z)
    return log_z + top.sum(), gamma, np.exp(pairs).sum(axis=0)


def viterbi(logb, log_start, log_trans):
    """(the path of largest probability, its log weight)."""
    best, came_from = log_start + logb[0], []
    for row in logb[1:]:
        through = best[:, None] + log_trans
        came_from.append(through.argmax(axis=0))
        best = row + through.max(axis=0)
    path = [int(best.argmax())]
    for back in reversed(came_from):
        path.append(int(back[path[-1]]))
    return np.array(path[::-1]), best.max()


def mean_field_chain(logb, log_start, log_trans, q, n_sweeps):
    """q (T, K) of independent states, each in turn set to its best: n_sweeps times."""
    q = q.copy()
    for _ in range(n_sweeps):
        for t in range(len(q)):
            score = logb[t] + (log_start if t == 0 else q[t - 1] @ log_trans)
            if t + 1 < len(q):
                score = score + log_trans @ q[t + 1]
            q[t] = special.softmax(score)
    return q


def mean_field_chain_bound(logb, log_start, log_trans, q):
    """E log p(x, z) + H[q(z)] of independent states: at most log Z."""
    total = np.sum(q * logb) + q[0] @ log_start + np.sum(negative_xlogx(q))
    return total + np.sum((q[:-1] @ log_trans) * q[1:])


def all_paths(n_steps, n_states):
    """Every path, (K^T, T)."""
    grid = np.indices((n_states,) * n_steps)
    return grid.reshape(n_steps, -1).T


def log_weights_of_paths(paths, logb, log_start, log_trans):
    """log p(x, z) of paths: what forward_backward adds up without listing them."""
    total = log_start[paths[:, 0]] + logb[np.arange(len(logb)), paths].sum(axis=1)
    return total + log_trans[paths[:, :-1], paths[:, 1:]].sum(axis=1)


# -- laws of emissions: expectations and divergences, by their textbook formulas -------


def gamma_divergence(shape, rate, shape_0, rate_0):
    """-KL(Gamma(shape, rate) || Gamma(shape_0, rate_0)), summed."""
    log_x, x = special.digamma(shape) - np.log(rate), shape / rate

    def log_density(a, b):
        return a * np.log(b) - special.gammaln(a) + (a - 1.0) * log_x - b * x

    return np.sum(log_density(shape_0, rate_0) - log_density(shape, rate))


def mean_log_det(dof, C):
    """E log|Lambda| of Wishart(dof, inverse scale C), over leading axes."""
    dim = C.shape[-1]
    halves = 0.5 * (np.asarray(dof)[..., None] - np.arange(dim))
    log_det = np.linalg.slogdet(C)[1]
    return special.digamma(halves).sum(axis=-1) + dim * np.log(2.0) - log_det


def wishart_divergence(dof, C, dof_0, C_0):
    """-KL(Wishart(dof, C^-1) || Wishart(dof_0, C_0^-1)), summed."""
    dim = C.shape[-1]
    log_det = mean_log_det(dof, C)
    mean = np.asarray(dof)[..., None, None] * np.linalg.inv(C)

    def log_density(nu, C):
        energy = (nu - dim - 1.0) * log_det - np.einsum("...ij,...ji->...", C, mean)
        norm = nu * (np.linalg.slogdet(C)[1] - dim * np.log(2.0))
        return 0.5 * (energy + norm) - special.multigammaln(0.5 * nu, dim)

    return np.sum(log_density(dof_0, C_0) - log_density(dof, C))


# -- Gaussian chains -------------------------------------------------------------------


def eliminate(blocks, kind, off, begins):
    """Twin of skvi.kernels.tridiagonal.eliminate: S^-1, G and log|S| of every step."""
    inverses, gains, log_dets = [], [], []
    for t, block in enumerate(blocks[kind]):
        S = block if begins[t] else block - off @ gains[-1]
        inverses.append(np.linalg.inv(S))
        gains.append(inverses[-1] @ off.T)
        log_dets.append(np.linalg.slogdet(S)[1])
    return np.array(inverses), np.array(gains), np.array(log_dets)


def forward_of_chain(gains, begins, h):
    g = h.copy()
    for t in range(1, len(h)):
        if not begins[t]:
            g[t] += gains[t - 1].T @ g[t - 1]
    return g


def backward_of_chain(inverses, gains, begins, g):
    means = np.einsum("tij,tj->ti", inverses, g)
    for t in range(len(g) - 2, -1, -1):
        if not begins[t + 1]:
            means[t] += gains[t] @ means[t + 1]
    return means


def covariances_of_chain(inverses, gains, begins):
    """(V, cov(x_t, x_{t+1})) of every step."""
    V, lagged = inverses.copy(), np.zeros(inverses.shape)
    for t in range(len(V) - 2, -1, -1):
        if not begins[t + 1]:
            lagged[t] = gains[t] @ V[t + 1]
            V[t] += lagged[t] @ gains[t].T
    return V, lagged


def dense_precision(blocks, kind, off, begins):
    T, d = len(kind), len(off)
    J = np.zeros((T, d, T, d))
    for t, block in enumerate(blocks[kind]):
        J[t, :, t] = block
        if not begins[t]:
            J[t, :, t - 1] = -off
            J[t - 1, :, t] = -off.T
    return J.reshape(T * d, T * d)


def covariance_of_path(V, lagged):
    """(TK, TK) of a Gaussian Markov chain from V_t (T, K, K) and cov(x_t, x_{t+1})."""
    T, K = V.shape[:2]
    out = np.zeros((T, K, T, K))
    for t in range(T):
        cross = out[t, :, t] = V[t]
        for s in range(t + 1, T):
            cross = cross @ np.linalg.solve(V[s - 1], lagged[s - 1])
            out[t, :, s], out[s, :, t] = cross, cross.T
    return out.reshape(T * K, T * K)


def joint_of_path(A, Q, mean, covariance, n_steps):
    """(mean (T, K), covariance (TK, TK)) of x_1 .. x_T before any observation.

    By powers of A on the covariances themselves: no precision, no recursion backwards.
    """
    K = len(A)
    means, out = [np.asarray(mean, dtype=float)], np.zeros((n_steps, K, n_steps, K))
    V = np.asarray(covariance, dtype=float)
    for t in range(n_steps):
        cross = out[t, :, t] = V
        for s in range(t + 1, n_steps):
            cross = cross @ A.T
            out[t, :, s], out[s, :, t] = cross, cross.T
        V = A @ V @ A.T + Q
        means.append(A @ means[-1])
    return np.array(means[:-1]), out.reshape(n_steps * K, n_steps * K)
