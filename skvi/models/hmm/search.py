"""From starts to the best optimum found."""

from dataclasses import dataclass

from skvi.inference import restarts
from skvi.inference.acceleration import OverRelaxation
from skvi.inference.drivers import Batch
from skvi.inference.engine import climb
from skvi.models.hmm import starts
from skvi.models.hmm.model import FAMILIES

DISTANCE_TOL = 1e-3  # posterior sds left
KINDS = {"auto": starts.KINDS, "kmeans": ("steps",), "random": ("random",)}


@dataclass(frozen=True)
class Settings:
    """How long to climb."""

    max_iter: int
    tol: float  # nats a step


def run(model, data, sequences, q, settings, n_jobs=None, on_iteration=None):
    """Climb from q to an optimum."""
    remembers = model.family.remembers
    driver = Batch(
        model, model.blocks(data, sequences, n_jobs), n_jobs, shared_memory=remembers
    )
    return climb(
        model,
        driver,
        q,
        max_iter=settings.max_iter,
        tol=settings.tol * sequences.total_weight,
        distance_tol=DISTANCE_TOL,
        # What a family remembers belongs to the path that the posterior took.
        accelerator=None if remembers else OverRelaxation,
        on_iteration=on_iteration,
        dtype=model.emissions.dtype(data, q.emissions),
    )


def search(
    model,
    data,
    features,
    sequences,
    kind,
    n_init,
    settings,
    rng,
    n_jobs=None,
    on_iteration=None,
):
    """The fit with the highest ELBO among the starts, which are those of a chain."""
    chain = model.with_(family=FAMILIES["structured"])
    sample = starts.Sample.of(data, features, sequences, rng)
    fits = []
    for generator in rng.spawn(n_init):
        kinds = KINDS["kmeans" if model.n_states == 1 else kind]
        q = starts.best_short(chain, sample, kinds, generator, n_jobs)
        fits.append(run(model, data, sequences, q, settings, n_jobs, on_iteration))
        if fits[-1].stopped:
            break
    return restarts.best(fits)
