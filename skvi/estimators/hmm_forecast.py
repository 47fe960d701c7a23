"""What comes after the end of a sequence, with its uncertainty."""

import numpy as np

from skvi.estimators.base import as_generator, check_count
from skvi.estimators.prediction import check_probabilities, check_probability


class Forecast:
    """Laws of the steps that follow each of some sequences.

    Attributes
    ----------
    state_probabilities : ndarray of shape (n_sequences, n_steps, n_components)
        Of the state of each step to come.
    """

    def __init__(self, chain, state_probabilities):
        self._chain = chain
        self.state_probabilities = state_probabilities

    def _draw(self, n_samples, random_state):
        """Steps in the model's units, (n, n_sequences, n_steps, D)."""
        check_count(n_samples, "n_samples")
        rng, n = as_generator(random_state), int(n_samples)
        n_sequences, n_steps, _ = self.state_probabilities.shape
        first = np.tile(self.state_probabilities[:, 0], (n, 1))
        states = self._chain.paths(first, n_steps, rng)
        steps = self._chain.law.sample(states.ravel(), rng)
        return steps.reshape(n, n_sequences, n_steps, -1)


class NumericForecast(Forecast):
    """Of emissions that are numbers.

    Attributes
    ----------
    mean : ndarray of shape (n_sequences, n_steps, n_features)
    """

    def __init__(self, chain, state_probabilities, scale, shift):
        super().__init__(chain, state_probabilities)
        self._scale, self._shift = scale, shift

    def _columns(self, read):
        """``read(law)`` of each feature, put side by side, and its units."""
        shape = self.state_probabilities.shape
        weights = self.state_probabilities.reshape(-1, shape[2])
        laws = [self._chain.law.column(d, weights) for d in range(len(self._scale))]
        out = np.stack([read(law) for law in laws], axis=1)
        return out.reshape(*shape[:2], *out.shape[1:])

    @property
    def mean(self):
        return self._shift + self._scale * self._columns(lambda law: law.mean)

    def std(self):
        """Standard deviations, (n_sequences, n_steps, n_features)."""
        return self._scale * np.sqrt(self._columns(lambda law: law.variance()))

    def quantile(self, probabilities):
        """Quantiles, (n_sequences, n_steps, n_features, n_probabilities)."""
        p = check_probabilities(probabilities, "probabilities")
        inner = self._columns(lambda law: law.quantile(p))
        return self._shift[:, None] + self._scale[:, None] * inner

    def interval(self, confidence_level=0.95):
        """Central intervals, (n_sequences, n_steps, n_features, 2)."""
        check_probability(confidence_level, "confidence_level")
        tail = 0.5 * (1.0 - confidence_level)
        return self.quantile([tail, 1.0 - tail])

    def sample(self, n_samples=1, random_state=None):
        """Paths to come, (n_samples, n_sequences, n_steps, n_features)."""
        return self._shift + self._scale * self._draw(n_samples, random_state)


class CategoricalForecast(Forecast):
    """Of categories.

    Attributes
    ----------
    probabilities : ndarray of shape (n_sequences, n_steps, sum of n_categories)
        Of the categories of each column; columns stand side by side.
    """

    @property
    def probabilities(self):
        return self.state_probabilities @ self._chain.law.p

    def sample(self, n_samples=1, random_state=None):
        """Paths to come, (n_samples, n_sequences, n_steps, n_features)."""
        return self._draw(n_samples, random_state)
