"""From starts to the best optimum found."""

from dataclasses import dataclass, replace

import numpy as np

from skvi.inference import restarts
from skvi.inference.blocks import run_parallel
from skvi.inference.drivers import Batch, Damped
from skvi.inference.engine import climb
from skvi.models.lds import starts
from skvi.models.lds.block import Block

DISTANCE_TOL = 1e-3  # posterior sds left
N_SHORT = 8  # iterations of the runs that choose a start


@dataclass(frozen=True)
class Settings:
    """How long to climb."""

    max_iter: int
    tol: float  # nats a step


def run(model, blocks, q, settings, n_jobs=None, on_iteration=None):
    """Climb from q to an optimum."""
    kind = Damped if model.observations.moves else Batch
    for block in blocks:
        block.patient = False
    weight = sum(float(block.weight.sum()) for block in blocks)
    return climb(
        model,
        kind(model, blocks, n_jobs, shared_memory=True),
        q,
        max_iter=settings.max_iter,
        tol=settings.tol * weight,
        distance_tol=DISTANCE_TOL,
        on_iteration=on_iteration,
    )


def search(
    model,
    y,
    sequences,
    blocks,
    scale,
    n_init,
    settings,
    rng,
    n_jobs=None,
    on_iteration=None,
):
    """The fit with the highest ELBO among the starts.

    `blocks` are the steps y, `scale` (D,) variances of differences, about which a
    preset's are sought.
    """
    fits = []
    for k, generator in enumerate(rng.spawn(n_init)):
        noise = None if k == 0 else generator
        q = first_posterior(model, y, sequences, scale, noise, n_jobs)
        fit = run(model, blocks, q, settings, n_jobs, on_iteration)
        if model.turns:
            fit = without_idle_states(
                model, blocks, fit, settings, n_jobs, on_iteration
            )
        fits.append(fit)
        if fit.stopped:
            break
    return restarts.best(fits)


def without_idle_states(model, blocks, fit, settings, n_jobs=None, on_iteration=None):
    """The fit with states at rest, one after the other, as long as the ELBO rises.

    A state that explains little more than noise is an optimum of its own, often below
    that with the state left at its prior, where its relevances shut it off.
    """
    while model.dim > 1 and fit.converged:
        idle = int(np.argmin(model.powers(fit.posterior, fit.statistics.values)))
        q = model.at_rest(fit.posterior, fit.statistics.values, idle)
        short = _tried(model, blocks, q, Settings(N_SHORT, 0.0), n_jobs)
        if short is None or not short.elbo > fit.elbo + settings.tol:
            return fit
        left = Settings(max(1, settings.max_iter - fit.n_iter), settings.tol)
        fit = _continued(
            fit, model, blocks, short.posterior, left, n_jobs, on_iteration
        )
    return fit


def _continued(before, model, blocks, q, settings, n_jobs, on_iteration):
    """A run from q as the continuation of an earlier one."""

    def joined(later):
        path, n_iter = before.path + later.path, before.n_iter + later.n_iter
        return replace(later, path=path, n_iter=n_iter)

    report = None
    if on_iteration is not None:

        def report(later):
            return on_iteration(joined(later))

    return joined(run(model, blocks, q, settings, n_jobs, report))


def first_posterior(model, y, sequences, scale, rng=None, n_jobs=None):
    """The most promising start; with `rng` one of random components."""
    q = model.prior()
    if not q.factors:
        return q
    sample = starts.subset(y, sequences)
    if model.is_structural:
        candidates = list(starts.about_variances(model, scale))
        return _best_short(model, candidates, sample, 1, n_jobs)
    z, d = starts.signals(sample, model.observations.counts), model.dim
    known = getattr(model.observations, "matrix", None)
    if known is not None:
        points = [starts.states_by_loadings(z, known)]
    else:
        points = [
            starts.states_by_components(z, sample.sequences, d, window, rng)
            for window in starts.windows(sample.sequences)
        ]
    gentle = model.with_even_relevances() if model.turns else model
    candidates = []
    for x in points:
        try:
            candidates.append(starts.from_points(gentle, x, sample))
        except np.linalg.LinAlgError:
            continue  # points that the model can make nothing of
    return _best_short(gentle, candidates, sample, N_SHORT, n_jobs)


def _best_short(model, candidates, sample, n_steps, n_jobs):
    """The candidate that is highest after a few iterations on a sample."""

    def elbo(q):
        sample_of_own = Block(sample.y, _from_zero(sample.sequences))
        fit = _tried(model, [sample_of_own], q, Settings(n_steps, 0.0))
        return (-np.inf, q) if fit is None else (fit.elbo, fit.posterior)

    found = run_parallel(elbo, candidates, n_jobs, shared_memory=True)
    scores = np.array([score for score, _ in found])
    if not np.any(np.isfinite(scores)):
        return model.prior()
    scores[~np.isfinite(scores)] = -np.inf
    return found[int(np.argmax(scores))][1]


def _tried(model, blocks, q, settings, n_jobs=None):
    """A run from where nothing is sure, or None if numbers get out of hand."""
    try:
        with np.errstate(all="ignore"):
            return run(model, blocks, q, settings, n_jobs)
    except np.linalg.LinAlgError:
        return None


def _from_zero(sequences):
    bounds = sequences.bounds - sequences.bounds[0]
    return type(sequences)(bounds, sequences.weight)


def finished(model, fit, blocks, n_jobs=None):
    """The fit with local steps that have gone to their end, its states in order."""
    if model.turns:
        _put_in_order(model, fit, blocks)
    elif not model.observations.counts:
        return fit
    for block in blocks:
        block.patient = True
    batch = Batch(model, blocks, n_jobs, shared_memory=True)
    fit.statistics = batch.evaluate(fit.posterior)
    fit.elbo_terms = model.elbo_terms(fit.statistics, fit.posterior)
    fit.path[-1] = fit.elbo
    return fit


def _put_in_order(model, fit, blocks):
    """States that explain less and less, the largest loading of each positive."""
    q, K = fit.posterior, model.dim
    loadings = model.scaled_loadings(q)
    order = np.argsort(-model.powers(q, fit.statistics.values), kind="stable")
    largest = loadings[np.abs(loadings).argmax(axis=0), np.arange(K)]
    R = np.eye(K)[order]
    sign = np.where(largest < 0.0, -1.0, 1.0)
    R = sign[order][:, None] * R
    fit.posterior = model.renamed(q, R)
    for block in blocks:
        if block.memory is not None:
            precision, linear = block.memory
            block.memory = R @ precision @ R.T, linear @ R.T
