"""The generative direction of a hidden Markov model: its log joint, and its draws.

In the model's units. Draws are dicts as the posterior gives them, with ``states``.
"""

import numpy as np

from skvi.models.hmm.predictive import PredictiveChain


def sample_prior_predictive(model, sequences, rng):
    """(X, draws): one draw of every variable from the prior, and steps given it."""
    draws = model.prior().sample(1, rng)
    law = model.emissions.plug_in(draws, 0)
    chain = PredictiveChain(draws["startprob"][0], draws["transmat"][0], law)
    paths = [
        chain.paths(chain.startprob[None], length, rng)[0]
        for length in sequences.lengths.tolist()
    ]
    states = np.concatenate(paths)
    draws["states"] = states[None]
    return law.sample(states, rng), draws


def log_joint(model, X, draws, sequences):
    """``log p(x, z, startprob, transmat, parameters)`` of draws, shape (n,)."""
    total, z = model.prior().log_density(draws), draws["states"]
    inner = np.flatnonzero(sequences.begins[1:] == 0)
    at = np.arange(z.shape[1])
    for i, path in enumerate(z):
        law = model.emissions.plug_in(draws, i)
        total[i] += np.log(draws["startprob"][i, path[sequences.firsts]]).sum()
        moves = draws["transmat"][i, path[inner], path[inner + 1]]
        total[i] += np.log(moves).sum() + law.log_densities(X)[at, path].sum()
    return total
