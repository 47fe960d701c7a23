"""What comes after the end of a series, with its uncertainty."""

import numpy as np

from skvi.distributions import LocationScaleMixture
from skvi.distributions.poisson_mixture import PoissonMixture
from skvi.estimators.base import as_generator, check_count
from skvi.estimators.prediction import check_probabilities, check_probability
from skvi.models.lds import simulate
from skvi.models.lds.predictive import known


class SeriesForecast:
    """Laws of the steps that follow each of some sequences.

    Mixtures over draws of the parameters: given each, states move on from the law of
    the last one.

    Attributes
    ----------
    mean : ndarray of shape (n_sequences, n_steps, n_features)
    states_mean : ndarray of shape (n_sequences, n_steps, n_components)
    """

    def __init__(self, models, last_mean, last_covariance, n_steps, units, state_units):
        self._models = models
        self._last = last_mean, last_covariance
        self._n_steps = n_steps
        self._scale, self._shift = units
        state_scale, state_shift = state_units
        loc, spread, states = self._propagated()
        self._loc, self._spread = loc, spread
        self.states_mean = state_shift + state_scale * states

    def _propagated(self):
        """Means and variances of signals, (n_seq, n_steps, D, G), and states' means."""
        m0, V0 = self._last
        n, K = m0.shape
        G, D = len(self._models), len(self._models[0].observations.matrix)
        loc, spread = np.empty((2, n, self._n_steps, D, G))
        states = np.zeros((n, self._n_steps, K))
        for g, model in enumerate(self._models):
            A, C = model.dynamics.matrix, model.observations.matrix
            Q = np.linalg.inv(model.dynamics.precision)
            m, V = m0, V0
            for t in range(self._n_steps):
                m = m @ A.T
                V = A @ V @ A.T + Q
                loc[:, t, :, g] = m @ C.T + model.observations.intercept
                spread[:, t, :, g] = np.einsum("dk,nkl,dl->nd", C, V, C)
                states[:, t] += m / G
        return loc, spread, states

    @property
    def _counts(self):
        return self._models[0].observations.counts

    def _law(self):
        """The laws of all numbers, flat; in the model's units."""
        G = len(self._models)
        loc, spread = self._loc.reshape(-1, G), self._spread.reshape(-1, G)
        if self._counts:
            return PoissonMixture(loc, spread)
        noise = np.array(
            [1.0 / m.observations.noise_prior.value for m in self._models]
        ).T
        noise = np.broadcast_to(noise, (*self._loc.shape[:2], *noise.shape))
        scale = np.sqrt(spread + noise.reshape(-1, G))
        return LocationScaleMixture(np.full(G, 1.0 / G), np.full(G, np.inf), loc, scale)

    def _shaped(self, values):
        return values.reshape(*self._loc.shape[:3], *values.shape[1:])

    @property
    def mean(self):
        return self._shift + self._scale * self._shaped(self._law().mean)

    def std(self):
        """Standard deviations, (n_sequences, n_steps, n_features)."""
        return self._scale * np.sqrt(self._shaped(self._law().variance()))

    def quantile(self, probabilities):
        """Quantiles, (n_sequences, n_steps, n_features, n_probabilities)."""
        p = check_probabilities(probabilities, "probabilities")
        inner = self._shaped(self._law().quantile(p))
        return self._shift[:, None] + self._scale[:, None] * inner

    def interval(self, confidence_level=0.95):
        """Central intervals, (n_sequences, n_steps, n_features, 2)."""
        check_probability(confidence_level, "confidence_level")
        tail = 0.5 * (1.0 - confidence_level)
        return self.quantile([tail, 1.0 - tail])

    def sample(self, n_samples=1, random_state=None):
        """Paths to come, (n_samples, n_sequences, n_steps, n_features)."""
        check_count(n_samples, "n_samples")
        rng, (m0, V0) = as_generator(random_state), self._last
        roots = np.linalg.cholesky(V0)
        out = np.empty((int(n_samples), *self._loc.shape[:3]))
        for i, g in enumerate(rng.integers(len(self._models), size=int(n_samples))):
            model = self._models[g]
            A = model.dynamics.matrix
            root = np.linalg.cholesky(np.linalg.inv(model.dynamics.precision))
            x = m0 + np.einsum("nij,nj->ni", roots, rng.standard_normal(m0.shape))
            for t in range(self._n_steps):
                x = x @ A.T + rng.standard_normal(x.shape) @ root.T
                out[i, :, t] = simulate.steps(model, x, rng)
        return self._shift + self._scale * out


def models_of_draws(model, draws, n):
    """The model with the parameters of each draw."""
    return [known(model, draws, i) for i in range(n)]
