"""Rows of X as steps of sequences: what the estimators of time series share."""

import functools

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skvi.columns import numeric_column, sequence_bounds, validate_columns
from skvi.inference.drivers import StochasticState
from skvi.models.sequences import Sequences

ROLES = ("sequence", "sequence_weight")


def refuses_lengths(method):
    """Decorator: lengths of sequences are no argument, and the error says what is."""

    @functools.wraps(method)
    def refusing(self, X, *args, **kwargs):
        if "lengths" in kwargs:
            raise TypeError(
                f"{type(self).__name__}.{method.__name__} takes no `lengths`: "
                + _REMEDY
            )
        if args and _look_like_lengths(args[0], X):
            raise ValueError(
                f"The second argument of {type(self).__name__}.{method.__name__} looks "
                "like lengths of sequences: " + _REMEDY
            )
        return method(self, X, *args, **kwargs)

    return refusing


_REMEDY = (
    "mark the sequences by a column of X that holds their ids, such as "
    "skvi.sequence_ids(lengths), and name it in the constructor, sequence=..."
)


def _look_like_lengths(value, X):
    if not isinstance(value, list | tuple | np.ndarray) or not hasattr(X, "__len__"):
        return False
    value, n = np.asarray(value), len(X)
    is_vector = value.ndim == 1 and value.dtype.kind in "iu"
    return is_vector and value.size != n and value.sum() == n


def validate_steps(estimator, X, *, reset=False, **check_params):
    """Scikit-learn's validation of X, split into features and sequences.

    Returns
    -------
    features : array of shape (n_steps, n_features)
    sequences : Sequences
    kept : index of the columns of X that are features
    """
    split, _ = validate_columns(
        estimator,
        X,
        roles=ROLES,
        reset=reset,
        ensure_all_finite="allow-nan",
        **check_params,
    )
    features, n = split.features, len(split.features)
    ids, weight = (split.values[role] for role in ROLES)
    bounds = np.array([0, n]) if ids is None else sequence_bounds(ids)
    if weight is not None:
        weight = _weight_of_sequences(weight, bounds)
    return features, Sequences(bounds, weight), split.kept


def _weight_of_sequences(values, bounds):
    """One weight for each sequence, from one for each step."""
    weight = numeric_column(values, "sequence_weight")
    if weight.min() < 0.0:
        row = int(np.argmin(weight))
        raise ValueError(
            f"sequence_weight must name a column of numbers that are not negative, got "
            f"{weight[row]:g} at row {row}; 0 leaves a sequence out."
        )
    first = weight[bounds[:-1]]
    differs = weight != np.repeat(first, np.diff(bounds))
    if differs.any():
        row = int(np.argmax(differs))
        raise ValueError(
            "sequence_weight must name a column that is constant in each sequence, got "
            f"{weight[row]:g} at row {row} after {weight[row - 1]:g}: a weight counts "
            "whole sequences."
        )
    return first


def check_any_counts(sequences):
    """Error if every sequence has the weight zero."""
    if not np.any(sequences.weight > 0.0):
        raise ValueError(
            "sequence_weight is zero for every sequence of X: let one count, or leave "
            "sequence_weight=None."
        )


def without_weightless(features, sequences):
    """Only the sequences that count, and no weights where all count once."""
    weight = sequences.weight
    if weight is None or np.all(weight == 1.0):
        return features, Sequences(sequences.bounds)
    counted = weight > 0.0
    check_any_counts(sequences)
    if not counted.all():
        features = features[np.repeat(counted, sequences.lengths)]
    bounds = np.append(0, sequences.lengths[counted].cumsum())
    return features, Sequences(bounds, weight[counted])


def averaged_over_draws(each, sequences):
    """Log densities of steps given the past, the densities averaged over draws.

    `each` lists the log densities of the steps given those before them, by draw.
    """
    # Sequences up to a step, averaged: differences are the steps given the past.
    total = np.full(sequences.n_steps, -np.inf)
    for densities in each:
        np.logaddexp(total, _sums_within(densities, sequences), out=total)
    total -= np.log(len(each))
    before = np.append(0.0, total[:-1])
    before[sequences.firsts] = 0.0
    return total - before


def _sums_within(values, sequences):
    """Sums from the first step of a sequence to each."""
    out = np.empty(len(values))
    for first, last in zip(sequences.firsts, sequences.lasts):
        np.cumsum(values[first : last + 1], out=out[first : last + 1])
    return out


class SequenceEstimatorMixin:
    """What estimators of sequences share.

    They write ``_validate(X, reset)`` -> (features, sequences, kept columns),
    ``_densities(X, sequences, n_samples, random_state)`` and ``_key(n_features)``.
    """

    @refuses_lengths
    def score(self, X, y=None, n_samples=None, random_state=None):
        """Mean log predictive density of a step.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features)
            Steps, with the columns that have a role. A weight counts whole sequences.

        y : None
            Ignored; there by convention.

        n_samples, random_state : as in ``score_samples``
            Whether and how to average over draws of the parameters.

        Returns
        -------
        score : float
            Nats a step.
        """
        check_is_fitted(self)
        X, sequences = self._validate_steps(X)
        density = self._densities(X, sequences, n_samples, random_state)
        weight = sequences.step_weight
        if not weight.size:
            return float(density.mean())
        check_any_counts(sequences)
        return float(np.average(density, weights=weight))

    def _stream(self):
        """The stochastic state so far: that of a whole fit is one step."""
        if self._fitted_stream is not None:
            state = self._fitted_stream.copy()
            state.decay, state.offset = self.learning_decay, self.learning_offset
            return state
        state = StochasticState(self.learning_decay, self.learning_offset)
        state.statistics, state.n_steps = self._fitted_statistics, 1
        return state

    def _check_same_shape(self, n_features):
        """Whether the last fit's posterior is one of this estimator's parameters."""
        before, now = self._fitted_key, self._key(n_features)
        differs = [
            f"{k}={now[k]!r} (was {v!r})" for k, v in before.items() if now[k] != v
        ]
        if differs:
            raise ValueError(
                f"{', '.join(differs)}: the last fit's posterior does not fit. Set "
                "warm_start=False and call fit to start anew."
            )

    def _validate_training(self, X, reset):
        """Steps that count, the sequences that they are, and the features' names."""
        X, sequences, kept = self._validate(X, reset)
        names = getattr(self, "feature_names_in_", None)
        if names is None:
            names = np.array([f"x{j}" for j in range(self.n_features_in_)])
        return *without_weightless(X, sequences), [str(name) for name in names[kept]]
