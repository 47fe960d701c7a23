"""The way from data to a fitted posterior."""

from functools import partial

import numpy as np

from skvi.inference.acceleration import Anderson
from skvi.inference.blocks import sum_over
from skvi.inference.drivers import Damped
from skvi.inference.engine import climb
from skvi.models.glm.data import Block
from skvi.models.glm.units import in_other_units

MANY = 16_384  # rows from which on a fit starts at that of some of them
ROWS_PER_WEIGHT = 40  # of these
THINNED_ITER = 50
N_PLAIN = 8  # iterations before the first extrapolation: most fits need no more


def run(model, blocks, q, settings, n_jobs=None, on_iteration=None, fallback=None):
    """Climb from q, or from ``fallback()`` where q has no finite bound."""
    max_iter, tol, distance_tol, dtype = settings
    driver = Damped(model, blocks, n_jobs, dtype=dtype)
    if fallback is not None and not np.isfinite(driver.bound(q)):
        q = fallback()
        if not np.isfinite(driver.bound(q)):
            raise ValueError(
                "The bound has no finite value where the fit starts: y, offset or "
                "exposure hold values that are too extreme."
            )
    return climb(
        model,
        driver,
        q,
        max_iter=max_iter,
        tol=tol,
        distance_tol=distance_tol,
        accelerator=partial(Anderson, n_plain=N_PLAIN),
        on_iteration=on_iteration,
        dtype=dtype,
    )


def start(model, data, blocks, centre, n_jobs=None):
    """The posterior that a fit starts from.

    Of many rows, that of evenly spaced ones, each counted for all that it stands for:
    it is near the end, for a fraction of a pass.
    """
    X, y, weight, offset, frame = data
    n, width = X.shape[0], len(model.parts["coef"].ravel()) + 1
    step = n // max(MANY // 2, ROWS_PER_WEIGHT * width)
    if n <= MANY or step < 2:
        return model.start(blocks, centre, n_jobs)
    some = slice(0, None, step)
    share = weight.sum() / weight[some].sum()
    thin = Block.parts(X[some], y[some], weight[some] * share, offset[some], frame)
    q = model.start(thin, centre, n_jobs)
    settings = THINNED_ITER, 1e-3, np.inf, "float64"
    return run(model, thin, q, settings, n_jobs).posterior


def restart(model, blocks, cold, units, before, n_jobs=None):
    """A posterior of another fit after a step on these rows, or a cold start's.

    The other, which may be in other units, enters through the linear predictors that
    it gives the rows; the better of the two is where to start from.
    """
    q, frame, old_units = before
    shift = (old_units.shift - units.shift) / units.scale
    ratio = old_units.scale / units.scale
    law = in_other_units(q.dispersion_law, old_units, units)

    def local(block):
        rows = frame.rows(block.X)
        mean, variance = model.predictors(q.gaussian, rows)
        mean = ratio * mean + shift
        return model.statistics_at(mean, ratio**2 * variance, law, block, block.rows)

    try:
        with np.errstate(all="ignore"):
            statistics = sum_over(local, blocks, n_jobs)
            lam = model.first_weight_precision(q.weight_precision)
            warm = model.posterior(model.sites(statistics.values, law), lam)
    except np.linalg.LinAlgError:
        return cold
    return better(model, blocks, warm, cold, n_jobs)


def better(model, blocks, first, second, n_jobs=None):
    """The posterior with the higher bound."""
    driver = Damped(model, blocks, n_jobs)
    return first if driver.bound(first) > driver.bound(second) else second
