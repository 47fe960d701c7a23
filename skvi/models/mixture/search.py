"""From starts to the best optimum found: short runs, full runs, moves."""

from dataclasses import dataclass

import numpy as np

from skvi.inference.acceleration import OverRelaxation
from skvi.inference.blocks import run_parallel
from skvi.inference.drivers import Batch
from skvi.inference.engine import climb
from skvi.models.mixture import moves, starts
from skvi.models.mixture.rows import Rows

KINDS = ("kmeans", "k-means++", "random_from_data", "kmeans")
N_SHORT = 12  # starts that get a short run
SHORT_SWEEPS = 10
N_FULL = 3  # of which this many are run to the end
DISTANCE_TOL = 5e-3  # posterior sds left


@dataclass(frozen=True)
class Settings:
    """How long to climb, and what to try."""

    max_iter: int
    tol: float  # nats a row
    merge: bool = False


def run(model, rows, q, settings, n_jobs=None, on_iteration=None):
    """Climb from q to an optimum; then reorder its sticks, and merge if asked."""
    tol = settings.tol * rows.total_weight

    def ascend(q, on_iteration=on_iteration):
        driver = Batch(model, model.blocks(rows), n_jobs)
        return climb(
            model,
            driver,
            q,
            max_iter=settings.max_iter,
            tol=tol,
            distance_tol=DISTANCE_TOL,
            accelerator=OverRelaxation,
            on_iteration=on_iteration,
        )

    fit = ascend(q)
    while not fit.stopped:
        better = _improved(model, fit, ascend, settings.merge)
        if better is None:
            break
        better.path = fit.path + better.path
        better.n_iter += fit.n_iter
        fit = better
    return fit


def _improved(model, fit, ascend, merge):
    moved = moves.reordered(model, fit.statistics.values)
    if moved is not None:
        return ascend(moved[0])
    if merge:
        for q in moves.merges(model, fit.statistics.values, fit.posterior, 6):
            other = ascend(q, None)
            if other.elbo > fit.elbo:
                other.path = other.path[-1:]
                return other
    return None


def sampled(rows, totals, rng):
    """A sample of the rows that stands for all, sorted, without duplicates."""
    index = starts.sample_rows(rows, totals.scale, rng)
    x = rows.standard(index)
    x = x.toarray() if rows.is_sparse else x
    weight = rows.weights(index)
    weight = np.ones(len(index)) if weight is None else weight
    order = np.lexsort(x.T[::-1])
    index, weight = index[order], weight[order]
    return index, weight


def start_posteriors(model, rows, totals, kinds, rng, n_jobs=None, short=True):
    """Posteriors to climb from: one a kind, after a short run each, best first."""
    index, weight = sampled(rows, totals, rng)
    scale = rows.total_weight / weight.sum()
    sample = Rows(rows.X[index], weight * scale, rows.frame)
    Z = sample.standard(slice(0, sample.n))
    Z = np.asarray(Z.toarray() if rows.is_sparse else Z, dtype=np.float64)
    Z = np.where(np.isnan(Z), totals.mean, Z) / totals.scale

    def begin(job):
        kind, generator = job
        found = starts.labels(kind, Z, weight, model.n_components, generator)
        q = starts.start(model, sample, found)
        if not short:
            return 0.0, q
        driver = Batch(model, model.blocks(sample))
        fit = climb(
            model, driver, q, max_iter=SHORT_SWEEPS, tol=0.0, accelerator=OverRelaxation
        )
        return fit.elbo, fit.posterior

    begun = run_parallel(begin, list(zip(kinds, rng.spawn(len(kinds)))), n_jobs)
    order = np.argsort([-elbo for elbo, _ in begun], kind="stable")
    return [begun[i][1] for i in order]


def search(model, rows, totals, kind, n_init, settings, rng, n_jobs, on_iteration):
    """The fit with the highest ELBO among the starts."""
    if model.n_components == 1:
        begun = [starts.start(model, rows, np.zeros(rows.n, dtype=int))]
    elif kind == "auto":
        begun = []
        for _ in range(n_init):
            kinds = [KINDS[i % len(KINDS)] for i in range(N_SHORT)]
            begun += start_posteriors(model, rows, totals, kinds, rng, n_jobs)[:N_FULL]
    else:
        kinds = [kind] * n_init
        begun = start_posteriors(model, rows, totals, kinds, rng, n_jobs, short=False)
    fits = []
    for q in begun:
        fits.append(run(model, rows, q, settings, n_jobs, on_iteration))
        if fits[-1].stopped:
            break
    return max(fits, key=lambda fit: fit.elbo)
