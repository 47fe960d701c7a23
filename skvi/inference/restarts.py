"""Restarts: independent runs from different starts; the best ELBO wins."""

import numpy as np

from skvi.inference.blocks import run_parallel


def best_of(run, n_init, rng, n_jobs=None):
    """The fit with the highest ELBO among ``run(generator)`` for n_init generators.

    Every run has a generator of its own, spawned from ``rng``, so the result does not
    depend on ``n_jobs``.
    """
    return best(run_parallel(run, rng.spawn(n_init), n_jobs))


def best(fits):
    """The fit with the highest ELBO, those whose ELBO is no number left out."""
    elbos = [fit.elbo for fit in fits]
    if np.all(np.isnan(elbos)):
        raise ValueError(
            f"All {len(fits)} starts ended with an ELBO that is not a number: check "
            "for extreme values in the priors that were passed, or in the data."
        )
    return fits[int(np.nanargmax(elbos))]
