"""One row per estimator and posterior: what tests/test_contract.py runs on.

A row brings an estimator, small data, and a log joint that is written here from
scipy.stats alone, in the data's units, without looking at how skvi computes anything.
A new estimator is one more row.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

import skvi
from skvi.models.regression import Moments, RegressionModel


@dataclass(frozen=True)
class Case:
    """An estimator with one choice of posterior, and what is known about it.

    Attributes
    ----------
    name : str
    make : class of the estimator
    params : dict
    data : callable
        ``data(rng) -> (X, y)``, small enough for a sharp Monte Carlo check.
    log_joint : callable
        ``log_joint(fitted, X, y, draws) -> (n_draws,)``: log p(data, z).
    exact : bool
        Whether q is the exact posterior, so that ``elbo_`` is the log evidence.
    larger : str or None
        Name of the row whose family contains this one's.
    bound : callable or None
        ``bound(fitted, X, y) -> (coordinates, scale, function)``: the fitted
        posterior as a vector, about one posterior sd of each entry, and the ELBO as a
        function of the vector. None where q has no coordinates, being exact.
    """

    name: str
    make: type
    params: dict
    data: Callable
    log_joint: Callable
    exact: bool = False
    larger: str | None = None
    bound: Callable | None = None

    def estimator(self, **params):
        return self.make(**{**self.params, **params})


# -- VariationalBayesianRegression -----------------------------------------------------


def collinear_rows(n, p):
    def data(rng):
        X = rng.standard_normal((n, p)) * np.logspace(-1, 1, p) + 3.0
        X[:, 1] = X[:, 0] + 0.05 * X[:, 1]
        y = 5.0 + X @ rng.standard_normal(p) + 0.5 * rng.standard_normal(n)
        return X, y

    return data


def regression_log_joint(model, X, y, draws, sample_weight=None):
    """``log p(y, z)`` from scipy.stats, by the docstring of the estimator."""
    weight = np.ones(len(y)) if sample_weight is None else sample_weight
    mean = np.average(X, axis=0, weights=weight)
    sd = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weight))
    level_mean = np.average(y, weights=weight)
    if not model.fit_intercept:
        mean = np.zeros(X.shape[1])
        sd = np.sqrt(np.average(X**2, axis=0, weights=weight))
    coef, tau = draws["coef"], draws["noise_precision"]
    lam = draws["weight_precision"].reshape(len(tau), -1)
    noise_sd = 1.0 / np.sqrt(tau)
    fitted = draws["intercept"] + X @ coef.T
    total = weight @ stats.norm.logpdf(y[:, None], fitted, noise_sd)
    spread = noise_sd[:, None] / np.sqrt(lam) / sd
    total += stats.norm.logpdf(coef, 0.0, spread).sum(axis=1)
    if model.fit_intercept:
        level = draws["intercept"] + coef @ mean
        kappa = model.intercept_precision
        total += stats.norm.logpdf(level, level_mean, noise_sd / np.sqrt(kappa))
    if model.noise_precision is None:
        shape, rate = model.noise_precision_prior_
        total += stats.gamma.logpdf(tau, shape, scale=1.0 / rate)
    if model.weight_precision is None:
        shape, rate = model.weight_precision_prior_
        total += stats.gamma.logpdf(lam, shape, scale=1.0 / rate).sum(axis=1)
    return total


def regression_bound(model, X, y):
    """The ELBO of a regression as a function of its posterior's coordinates."""
    q = model.posterior_.inner
    start = q.coordinates()
    design = Moments.from_rows(X, y[:, None]).design(model.fit_intercept)
    noise, weight = model._resolve_priors(design)
    level = model.intercept_precision if model.fit_intercept else None
    regression = RegressionModel(noise[0], weight, level, type(q))
    values = {
        "weight": design.weight,
        "gram": design.gram,
        "cross": design.cross[:, 0],
        "square": design.square[0],
    }
    units = len(y) * np.log(design.y_scale[0])

    def elbo(coordinates):
        moved = regression.at(coordinates, values, q)
        terms = regression.elbo_terms(regression.statistics(moved, values), moved)
        return sum(terms.values()) - units

    # Means are in posterior sds; a log rate moves by about one over root shape.
    return start, np.ones_like(start), elbo


def _regression_cases():
    variants = {
        "ridge": {},
        "ard": {"prior": "ard"},
        "fixed": {"weight_precision": 2.0},
        "known_noise": {"noise_precision": 4.0},
        "no_intercept": {"fit_intercept": False},
    }
    for shape, data in {
        "tall": collinear_rows(24, 3),
        "wide": collinear_rows(6, 9),
    }.items():
        for variant, params in variants.items():
            name = f"regression-{shape}-{variant}"
            for posterior in ("structured", "mean_field"):
                structured = posterior == "structured"
                exact = structured and variant != "ard"
                yield Case(
                    name=f"{name}-{posterior}",
                    make=skvi.VariationalBayesianRegression,
                    params={"posterior": posterior, **params},
                    data=data,
                    log_joint=regression_log_joint,
                    exact=exact,
                    bound=None if exact else regression_bound,
                    larger=None if structured else f"{name}-structured",
                )


CASES = [*_regression_cases()]
