"""What rows of the contract are made of: kinds of estimators, cases, sequences."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from sklearn.base import clone
from sklearn.preprocessing import StandardScaler

from skvi.metrics import log_predictive_density_scorer


class Kind(ABC):
    """What the contract has to know about a kind of estimator."""

    streams = True  # whether there is partial_fit
    incremental = False  # whether partial_fit in any split gives the answer of fit
    weighted = True  # whether fit takes sample_weight
    answer = "predict"  # the method that a pipeline calls
    scoring = log_predictive_density_scorer
    ends_at_maximum = True  # of its bound, whatever way it took
    reordering = 1e-8  # what another order may change: rounding
    weighting = 1e-8  # and counting a row twice in place of two rows
    single = 1e-3  # and single precision, in sds
    path = 1e-7  # what another path to the same optimum may change, in sds
    one_step = None  # (model, X) -> the engine's model, a block, where to step from
    smooths = False  # whether what is said of a row depends on others of its sequence

    def first_step(self):
        """What may come before the estimator in a pipeline."""
        return StandardScaler()

    def quick(self, estimator):
        """The estimator, as exact as tests of mere plumbing need it."""
        return estimator

    def families_differ(self, estimator):
        """Whether its mean-field family is smaller than its structured one."""
        return True

    def stream(self, model, X, rng):
        """(more data like X, the rows of each of its blocks)."""
        many = np.concatenate([X] * 8)
        return many, np.array_split(rng.permutation(len(many)), 4)

    def n_seen(self, model):
        """Rows that a fit has seen."""
        return model.n_samples_seen_

    def draws(self, model, X, n, seed):
        """Draws of all that `log_joint` is a function of."""
        return model.sample_posterior(n, seed)

    def log_q(self, model, X, draws):
        """Their log density under the posterior."""
        return model.posterior_.log_density(draws)

    def log_q_of_entropy(self, model, X, draws):
        """The part of log q whose expectation is minus the entropy of the bound."""
        return self.log_q(model, X, draws)

    @abstractmethod
    def log_joint(self, model, X, y, draws):
        """``log p(data, z)`` from scipy.stats, (n_draws,)."""

    @abstractmethod
    def bound(self, model, X, y):
        """(coordinates, function): the fitted posterior as a vector, in about posterior
        sds, and the ELBO as a function of the vector.
        """

    def tol(self, model, X):
        """Rise of the ELBO, in nats, below which a fit has ended."""
        return model.tol

    def same_start(self, model):
        """An unfitted copy, whose start does not depend on how rows are written."""
        return clone(model)

    def reordered(self, model, X, y, rng):
        """(estimator, X, y, attributes) with what is exchangeable in another order.

        ``attributes(fit)`` are the fit's in the old order.
        """
        order = rng.permutation(len(X))
        y = None if y is None else y[order]
        return clone(model), X[order], y, self.attributes

    def onward(self, model, X, y):
        """The fit gone on with, by a plain step at least."""
        onward = clone(model).set_params(warm_start=True, tol=0.0).fit(X, y)
        return onward.set_params(max_iter=1).fit(X, y)

    def enlarged(self, model, larger, X, y):
        """The fit of a larger family that should be at least as good."""
        return larger

    @abstractmethod
    def attributes(self, model):
        """{name: (values, their units)}, units being posterior sds where there are."""

    @abstractmethod
    def moments(self, model):
        """{name of a draw: (mean, sd, covariance of the last axis or None)}."""

    @abstractmethod
    def outputs(self, model, X):
        """Arrays that the methods of a fit answer."""

    @abstractmethod
    def rescaled(self, case, X, y, c):
        """Yield (estimator, X, y, change of elbo_, back) for data in other units.

        ``back(fit, X)`` are the fit's outputs in the old units: those of the old fit.
        """

    @abstractmethod
    def shifted(self, case, X, y, shift):
        """(estimator, X, y, back), or None where a shift changes the model."""

    def moved(self, estimator, X, shift):
        """X with its features, all of them, shifted."""
        return X + shift

    @abstractmethod
    def unusable(self, X, y):
        """Yield (args, kwargs, message) of calls of fit that must fail."""


@dataclass(frozen=True)
class Case:
    """An estimator with one choice of posterior, and what is known about it.

    Attributes
    ----------
    name : str
    make : class of the estimator
    params : dict
    data : callable
        ``data(rng) -> (X, y)``, small enough for a sharp Monte Carlo check; y is None
        for densities.
    kind : Kind
        Its ``log_joint(fitted, X, y, draws) -> (n_draws,)`` is log p(data, z).
    exact : bool
        Whether q is the exact posterior, so that ``elbo_`` is the log evidence.
    larger : str or None
        Name of the row whose family contains this one's.
    """

    name: str
    make: type
    params: dict
    data: Callable
    kind: Kind
    exact: bool = False
    larger: str | None = None

    def estimator(self, **params):
        return self.make(**{**self.params, **params})


# -- sequences -------------------------------------------------------------------------


def roles_of(estimator, X):
    """Positions in X of the columns that are not features."""
    roles = (estimator.sequence, estimator.sequence_weight)
    return [column % X.shape[1] for column in roles if column is not None]


def sequences_of(estimator, X):
    """(features, slices of the sequences, their weights) of an array X."""
    features = np.delete(X, roles_of(estimator, X), axis=1)
    starts = np.zeros(1, dtype=int)
    if estimator.sequence is not None:
        ids = X[:, estimator.sequence]
        starts = np.append(0, 1 + np.flatnonzero(ids[1:] != ids[:-1]))
    weights = np.ones(len(starts))
    if estimator.sequence_weight is not None:
        weights = X[starts, estimator.sequence_weight]
    slices = [slice(a, b) for a, b in pairwise([*starts, len(X)])]
    return features, slices, weights


def joined(estimator, parts, weights=None):
    """Arrays as the sequences of one, in this order, with ids and weights of theirs."""
    parts = [part.copy() for part in parts]
    for i, part in enumerate(parts):
        if estimator.sequence is not None:
            part[:, estimator.sequence] = i
        if weights is not None:
            part[:, estimator.sequence_weight] = weights[i]
    return np.concatenate(parts)


def unfolded(estimator, X):
    """X with each sequence as often as its weight says."""
    if estimator.sequence_weight is None:
        return X
    _, slices, weights = sequences_of(estimator, X)
    parts = [X[rows] for rows, n in zip(slices, weights) for _ in range(int(n))]
    return joined(estimator, parts, np.ones(len(parts)))


def in_features(estimator, X, function):
    """X with a function of its features, columns with a role as they are."""
    kept = np.setdiff1d(np.arange(X.shape[1]), roles_of(estimator, X))
    out = X.copy()
    out[:, kept] = function(X[:, kept])
    return out
