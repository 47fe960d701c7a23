"""The way from rows to a fitted posterior."""

from functools import partial

from skvi.inference.acceleration import Anderson
from skvi.inference.drivers import Batch, Damped
from skvi.inference.engine import climb
from skvi.models.mixed.gaussian_rows import GaussianRows

N_PLAIN = 2  # iterations before the first extrapolation


def driver_of(model, block):
    """Plain steps where they are exact maxima, damped ones elsewhere."""
    if isinstance(model, GaussianRows):
        # The rows keep their normal matrix.
        return Batch(model, [block], shared_memory=True)
    return Damped(model, [block], trusting=True)


def run(model, block, q, settings, on_iteration=None):
    """Climb from q."""
    max_iter, tol, distance_tol = settings
    return climb(
        model,
        driver_of(model, block),
        q,
        max_iter=max_iter,
        tol=tol,
        distance_tol=distance_tol,
        accelerator=partial(Anderson, n_plain=N_PLAIN),
        on_iteration=on_iteration,
    )
