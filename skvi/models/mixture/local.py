"""Draws of a mixture's local variables, and their density: for checks by Monte Carlo.

Assignments z, latent scales u of Student-t rows, and missing entries, in q(z) q(u | z)
q(x_missing | u, z).
"""

import numpy as np
from scipy import stats

from skvi.distributions.gaussian import LOG_2PI


def sample(model, q, rows, n, rng):
    """Draws by name; missing entries in the data's units."""
    z = np.empty((n, rows.n), dtype=np.intp)
    scales = np.ones((n, rows.n))
    for piece, part in model.geometry.pieces(rows, slice(0, rows.n), np.float64):
        r, _, _, law = model.shares(q, piece)
        cumulative = r.cumsum(axis=0).T
        uniform = rng.random((n, len(cumulative), 1)) * cumulative[:, -1:]
        chosen = (uniform > cumulative).sum(axis=2)
        z[:, part] = chosen
        if law is not None:
            a, b = _of_chosen(law, chosen)
            scales[:, part] = rng.standard_gamma(a) / b
    out = {"assignments": z}
    if np.isfinite(model.emission.dof):
        out["scales"] = scales
    if model.geometry.has_latent:
        out["missing"] = sample_missing(model.geometry, q.table, rows, z, scales, rng)
    return out


def log_density(model, q, rows, draws):
    """``log q`` of such draws, shape (n,)."""
    z = draws["assignments"]
    total = np.zeros(len(z))
    for piece, part in model.geometry.pieces(rows, slice(0, rows.n), np.float64):
        _, logits, log_total, law = model.shares(q, piece)
        log_r = logits - log_total
        chosen = z[:, part]
        each = np.take_along_axis(log_r.T[None], chosen[..., None], axis=2)[..., 0]
        if law is not None:
            u = draws["scales"][:, part]
            a, b = _of_chosen(law, chosen)
            each = each + stats.gamma.logpdf(u, a, scale=1.0 / b)
        total += each.sum(axis=1)
    if model.geometry.has_latent:
        scales = draws.get("scales", np.ones(z.shape))
        total += missing_density(
            model.geometry, q.table, rows, z, scales, draws["missing"]
        )
    return total


def sample_missing(geometry, table, rows, chosen, scales, rng):
    """Draws of the entries that are NaN, (n, n_missing), given components (n, rows)."""
    filled = np.empty((len(chosen), rows.n, rows.dim))
    for piece, part in geometry.pieces(rows, slice(0, rows.n), np.float64):
        filled[:, part] = _draw(piece, table, chosen[:, part], scales[:, part], rng)
    frame = rows.frame
    return (frame.centre + frame.unit * filled)[:, _latent(geometry, rows)]


def _latent(geometry, rows):
    """Marks of the entries that are latent variables, (n_rows, D)."""
    latent = np.isnan(rows.X)
    if geometry.skip_empty:
        latent[latent.all(axis=1)] = False
    return latent


def missing_density(geometry, table, rows, chosen, scales, draws):
    """``log q`` of such draws, shape (n,)."""
    missing, frame = _latent(geometry, rows), rows.frame
    filled = np.broadcast_to(rows.X, (len(chosen), *rows.X.shape)).astype(np.float64)
    filled[:, missing] = draws
    filled = (filled - frame.centre) / frame.unit
    total = np.full(len(chosen), -(missing @ np.log(frame.unit)).sum())
    for piece, part in geometry.pieces(rows, slice(0, rows.n), np.float64):
        if piece.n_latent:
            u = scales[:, part]
            each = _density(piece, table, chosen[:, part], u, filled[:, part])
            total += each.sum(axis=1)
    return total


def _of_chosen(law, chosen):
    """The gamma of each row's component, (n, m) each."""
    a, b, _ = law
    b = np.take_along_axis(np.ascontiguousarray(b.T)[None], chosen[..., None], axis=2)
    return np.broadcast_to(a, b.shape[:2]), b[..., 0]


def _completed(piece, table, chosen):
    done = piece.completion(table)
    mean = done.matrix @ piece.x.T + done.constant[..., None]  # (K, D, m)
    mean = np.swapaxes(mean, 1, 2)
    return mean[chosen, np.arange(len(piece.x))], done.inverse


def _draw(piece, table, chosen, u, rng):
    mean, inverse = _completed(piece, table, chosen)
    if piece.n_latent:
        factor = np.linalg.cholesky(inverse)[chosen]
        noise = rng.standard_normal((*chosen.shape, piece.n_latent, 1))
        noise = (factor @ noise)[..., 0] / np.sqrt(u)[..., None]
        mean[..., ~piece.observed] += noise
    return mean


def _density(piece, table, chosen, u, filled):
    mean, inverse = _completed(piece, table, chosen)
    gap = (filled - mean)[..., ~piece.observed]
    A = np.linalg.inv(inverse)[chosen]
    square = np.einsum("nmi,nmij,nmj->nm", gap, A, gap)
    log_det = np.linalg.slogdet(A)[1] + piece.n_latent * np.log(u)
    return 0.5 * (log_det - piece.n_latent * LOG_2PI - u * square)
