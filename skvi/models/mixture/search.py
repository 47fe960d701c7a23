"""From starts to the best optimum found: short runs, full runs, moves."""

from dataclasses import dataclass, replace

import numpy as np

from skvi.inference import restarts
from skvi.inference.acceleration import OverRelaxation
from skvi.inference.blocks import run_parallel
from skvi.inference.drivers import Batch
from skvi.inference.engine import climb
from skvi.models.mixture import agglomeration, moves, starts
from skvi.models.mixture.emission import StudentEmission

PLAIN = ("kmeans", "k-means++", "random_from_data")
KINDS = ("merged", "coarsely merged", *PLAIN)
N_KEPT = 2  # runs that are put together anew, and made longer
AGAIN = (0.5, 0.25)  # shares of the finest partition to put together
SHORT, LONG = 8, 30  # sweeps
N_PAIRS = 6  # of components, whose merge is tried
OUTLYING = 4.0  # scales from where rows that may be outliers start no component
DISTANCE_TOL = 1e-3  # posterior sds left


@dataclass(frozen=True)
class Settings:
    """How long to climb, and what to try."""

    max_iter: int
    tol: float  # nats a row
    merge: bool = False


def run(model, rows, q, settings, n_jobs=None, on_iteration=None):
    """Climb from q to an optimum; then reorder its sticks, and merge if asked.

    The path and the number of iterations are those of all climbs that led to the fit,
    which `on_iteration` sees; a merge that won is one step of the path.
    """
    tol = settings.tol * rows.total_weight

    def ascend(q, on_iteration=None):
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
            dtype=rows.dtype,
        )

    fit = ascend(q, on_iteration)
    while not fit.stopped:
        better = _improved(model, fit, ascend, settings.merge, on_iteration)
        if better is None:
            break
        fit = better
    return fit


def _improved(model, fit, ascend, merge, on_iteration):
    """The fit at a better optimum than the last one, after its path; or None."""

    def tell(better):
        return on_iteration is not None and on_iteration(_after(fit, better))

    moved = moves.reordered(model, fit.statistics.values)
    if moved is not None:
        return _after(fit, ascend(moved[0], tell))
    if merge:
        for q in moves.merges(model, fit.statistics.values, fit.posterior, N_PAIRS):
            other = ascend(q)
            if other.elbo > fit.elbo:
                other.path = other.path[-1:]  # it started lower
                other.stopped = bool(tell(other))
                return _after(fit, other)
    return None


def _after(fit, later):
    """The later fit with the path that led to it."""
    path, n_iter = fit.path + later.path, fit.n_iter + later.n_iter
    return replace(later, path=path, n_iter=n_iter)


def begin(model, sample, kinds, rng, n_jobs=None):
    """One posterior a kind, from a sample."""

    def labelled(job):
        kind, generator = job
        found = starts.labels(kind, sample, model.components_prior, generator)
        return starts.start(model, sample.rows, found)

    return run_parallel(labelled, list(zip(kinds, rng.spawn(len(kinds)))), n_jobs)


def best_short(model, sample, rng, n_jobs=None):
    """The winner of many short runs on a sample, the best put together anew.

    All their work is on the sample: for many rows it costs a few full iterations.
    """
    prior = model.components_prior
    merges = agglomeration.has_separate_evidence(prior)
    kinds = KINDS if merges else 4 * PLAIN

    def climbed(job):
        q, n_sweeps = job
        driver = Batch(model, model.blocks(sample.rows))
        fit = climb(
            model, driver, q, max_iter=n_sweeps, tol=0.0, accelerator=OverRelaxation
        )
        return fit.elbo, fit.posterior

    def best(n, runs):
        return sorted(runs, key=lambda run: -run[0])[:n]

    def longer(begun, n_sweeps):
        return run_parallel(climbed, [(q, n_sweeps) for q in begun], n_jobs)

    def again(job):
        (q, share), generator = job
        state = np.random.RandomState(generator.integers(2**31))
        within = starts.assigned(model, q, sample)
        found = starts.merged(sample, prior, share, state, within)
        return starts.start(model, sample.rows, found)

    runs = longer(begin(model, sample, kinds, rng, n_jobs), SHORT)
    runs = best(N_KEPT, runs)
    if merges:
        for share in AGAIN:
            jobs = [(q, share) for _, q in runs]
            jobs = list(zip(jobs, rng.spawn(len(jobs))))
            runs = best(N_KEPT, runs + longer(run_parallel(again, jobs, n_jobs), SHORT))
    return best(1, longer([q for _, q in runs], LONG))[0][1]


def search(model, rows, totals, kind, n_init, settings, rng, n_jobs, on_iteration):
    """The fit with the highest ELBO among the starts."""
    common = getattr(model.components_prior, "spherical", False)
    heavy_tailed = isinstance(model.emission, StudentEmission)
    limit = OUTLYING if heavy_tailed else np.inf
    latent = model.geometry.has_latent
    size = starts.SAMPLE_ROWS_LATENT if latent else starts.SAMPLE_ROWS
    sample = starts.Sample.of(rows, totals, rng, common, limit, size)
    if model.n_components == 1 or sample.n_distinct == 1:
        begun = begin(model, sample, ["random"], rng)
    elif kind == "auto":
        begun = [best_short(model, sample, rng, n_jobs) for _ in range(n_init)]
    else:
        begun = begin(model, sample, [kind] * n_init, rng, n_jobs)
    fits = []
    for q in begun:
        fits.append(run(model, rows, q, settings, n_jobs, on_iteration))
        if fits[-1].stopped:
            break
    return restarts.best(fits)
