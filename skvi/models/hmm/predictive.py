"""The predictive chain: a hidden Markov model that scores, forecasts and simulates.

It has the posterior means of pi and A and the predictive law of each state's steps, the
emission parameters integrated out (Student-t, negative binomial, ...), so its densities
integrate to one.
"""

import numpy as np

from skvi.models.hmm.messages import ChainWeights, filtered

CHUNK = 1 << 14  # steps


class PredictiveChain:
    """Means of the chain's probabilities, and a law of steps in each state.

    Parameters
    ----------
    startprob, transmat : arrays of shape (K,) and (K, K)
    law : StepLaw
    """

    def __init__(self, startprob, transmat, law):
        self.startprob, self.transmat, self.law = startprob, transmat, law
        with np.errstate(divide="ignore"):
            self.weights = ChainWeights(np.log(startprob), np.log(transmat))

    def log_density(self, X, sequences, n_jobs=None):
        """Log density of each step given those before it, (T,)."""
        return self._filtered(X, sequences, n_jobs)[1]

    def _filtered(self, X, sequences, n_jobs=None):
        out = np.empty((len(self.startprob), len(X)))
        for start in range(0, len(X), CHUNK):
            part = slice(start, start + CHUNK)
            out[:, part] = self.law.log_densities(X[part]).T
        return filtered(out, self.weights, sequences, n_jobs)

    def after(self, X, sequences, n_steps, n_jobs=None):
        """Probabilities of states after each sequence, (n_sequences, n_steps, K)."""
        last = self._filtered(X, sequences, n_jobs)[0][:, sequences.lasts].T
        out = np.empty((len(last), n_steps, last.shape[1]))
        for h in range(n_steps):
            last = last @ self.transmat
            out[:, h] = last / last.sum(axis=1, keepdims=True)
        return out

    def paths(self, first, n_steps, rng):
        """State paths that begin with the probabilities first (n, K): (n, n_steps)."""
        out = np.empty((len(first), n_steps), dtype=np.int64)
        law = first
        for h in range(n_steps):
            cumulative = law.cumsum(axis=1)
            uniform = rng.random((len(law), 1)) * cumulative[:, -1:]
            out[:, h] = (uniform > cumulative).sum(axis=1)
            law = self.transmat[out[:, h]]
        return out
