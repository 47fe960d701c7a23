"""One row per estimator and posterior: what tests/test_contract.py runs on.

A row brings an estimator, small data, and a log joint that is written here from
scipy.stats alone, in the data's units, without looking at how skvi computes anything.
A new estimator is one more row; a new kind of estimator (what is drawn, what is read
off a fit, what a change of units does) is one more `Kind`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from scipy import special, stats
from sklearn.base import clone
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import skvi
import twins
from skvi.distributions import Dirichlet, StickBreaking, Wishart
from skvi.metrics import log_predictive_density_scorer
from skvi.models.mixture import MixturePosterior, Rows
from skvi.models.regression import Moments, RegressionModel


class Kind(ABC):
    """What the contract has to know about a kind of estimator."""

    incremental = False  # whether partial_fit in any split gives the answer of fit
    weighted = True  # whether fit takes sample_weight
    answer = "predict"  # the method that a pipeline calls
    scoring = log_predictive_density_scorer
    ends_at_maximum = True  # of its bound, whatever way it took
    reordering = 1e-8  # what another order may change: rounding
    single = 1e-3  # and single precision, in sds
    one_step = None  # (model, X) -> the engine's model, a block, where to step from

    def first_step(self):
        """What may come before the estimator in a pipeline."""
        return StandardScaler()

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


# -- VariationalBayesianRegression -----------------------------------------------------


def collinear_rows(n, p):
    def data(rng):
        X = rng.standard_normal((n, p)) * np.logspace(-1, 1, p) + 3.0
        X[:, 1] = X[:, 0] + 0.05 * X[:, 1]
        y = 5.0 + X @ rng.standard_normal(p) + 0.5 * rng.standard_normal(n)
        return X, y

    return data


def regression_log_joint(model, X, y, draws):
    """``log p(y, z)`` from scipy.stats, by the docstring of the estimator."""
    mean, sd, level_mean = X.mean(axis=0), X.std(axis=0), y.mean()
    if not model.fit_intercept:
        mean, sd = np.zeros(X.shape[1]), np.sqrt(np.mean(X**2, axis=0))
    coef, tau = draws["coef"], draws["noise_precision"]
    lam = draws["weight_precision"].reshape(len(tau), -1)
    noise_sd = 1.0 / np.sqrt(tau)
    fitted = draws["intercept"] + X @ coef.T
    total = stats.norm.logpdf(y[:, None], fitted, noise_sd).sum(axis=0)
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


class RegressionKind(Kind):
    incremental = True

    def log_joint(self, model, X, y, draws):
        return regression_log_joint(model, X, y, draws)

    def bound(self, model, X, y):
        q = model.posterior_.inner
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
        return q.coordinates(), elbo

    def attributes(self, model):
        std = model.coef_std_
        return {
            "coef_": (model.coef_, std),
            "coef_ in units of y": (model.coef_, 1.0),
            "coef_std_": (std, std),
        }

    def moments(self, model):
        covariance = model.coef_covariance_
        if not isinstance(covariance, np.ndarray):
            covariance = covariance @ np.eye(len(model.coef_))
        return {
            "coef": (model.coef_, model.coef_std_, covariance),
            "noise_precision": (model.noise_precision_, None, None),
        }

    def outputs(self, model, X):
        return model.predict(X), model.predict(X, return_std=True)[1]

    def rescaled(self, case, X, y, c):
        def same(fit, X):
            return self.outputs(fit, X)

        def back(fit, X):
            return tuple(out / c for out in self.outputs(fit, X))

        yield case.estimator(), in_column_1(X, c), y, 0.0, same
        tau = case.params.get("noise_precision")
        known = {} if tau is None else {"noise_precision": tau / c**2}
        yield case.estimator(**known), X, y * c, -len(y) * np.log(c), back

    def shifted(self, case, X, y, shift):
        if not case.params.get("fit_intercept", True):
            return None

        def back(fit, X):
            mean, std = self.outputs(fit, X)
            return (mean - shift) / std, std

        return case.estimator(), X + shift, y + shift, back

    def unusable(self, X, y):
        bad = X.copy()
        bad[0, 0] = np.nan
        yield (bad, y), {}, "NaN"
        yield (X, y[:-1]), {}, "inconsistent"


def in_column_1(X, c):
    X = X.copy()
    X[:, 1] *= c
    return X


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
                yield Case(
                    name=f"{name}-{posterior}",
                    make=skvi.VariationalBayesianRegression,
                    params={"posterior": posterior, **params},
                    data=data,
                    kind=RegressionKind(),
                    exact=structured and variant != "ard",
                    larger=None if structured else f"{name}-structured",
                )


# -- VariationalGaussianMixture --------------------------------------------------------


@dataclass(frozen=True)
class groups_of_rows:
    """Rows of two columns in groups that lie apart; some entries missing if asked."""

    sizes: tuple = (9, 7)
    missing: bool = False

    def __call__(self, rng):
        centres = np.array([[0.0, 0.0], [6.0, 4.0], [-5.0, 7.0]])
        shear = np.array([[1.0, 0.5], [0.0, 0.8]])
        X = np.concatenate(
            [
                rng.standard_normal((n, 2)) @ shear + centre
                for n, centre in zip(self.sizes, centres)
            ]
        )
        X = rng.permutation(X) * [1.0, 3.0] + [0.0, 20.0]
        if self.missing:
            X[[1, 5, 7, 11], [0, 1, 1, 0]] = np.nan
            X[3] = np.nan
        return X, None


def _row_roots(covariance_type, precisions, n_components, dim):
    """Lower roots of every component's precision matrix, (n, K, D, D)."""
    if covariance_type == "full":
        return np.linalg.cholesky(precisions)
    if covariance_type == "tied":
        return np.repeat(np.linalg.cholesky(precisions)[:, None], n_components, axis=1)
    sd = np.sqrt(precisions)
    if covariance_type == "spherical":
        sd = np.repeat(sd[..., None], dim, axis=2)
    return sd[..., None] * np.eye(dim)


def _log_normal(offset, root):
    """Log density of each coordinate of ``root.T @ offset``, volume of root counted.

    They add up to the Gaussian log density of the offsets; offset (n, ..., D) and
    root (n, D, D), lower.
    """
    white = (offset.reshape(len(offset), -1, root.shape[-1]) @ root).reshape(
        offset.shape
    )
    diagonal = np.diagonal(root, axis1=-2, axis2=-1)
    shape = (len(root), *[1] * (offset.ndim - 2), root.shape[-1])
    return stats.norm.logpdf(white) + np.log(diagonal).reshape(shape)


def log_prior_of_weights(model, weights):
    """log p(weights), a density over all but the last of them."""
    K, concentration = model.n_components, model.weight_concentration_prior_
    if K == 1:
        return np.zeros(len(weights))
    if model.weight_concentration_prior_type == "dirichlet_distribution":
        return stats.dirichlet.logpdf(weights.T, np.full(K, concentration))
    left = weights[:, ::-1].cumsum(axis=1)[:, ::-1][:, :-1]
    sticks = weights[:, :-1] / left
    jacobian = -np.log(left).sum(axis=1)  # d sticks / d weights is triangular
    return stats.beta.logpdf(sticks, 1.0, concentration).sum(axis=1) + jacobian


def wishart_logpdf(matrices, dof, inverse_scale):
    """``stats.wishart(dof, inv(inverse_scale)).logpdf``, which loops over matrices."""
    dim = len(inverse_scale)
    log_det = np.linalg.slogdet(inverse_scale)[1] - dim * np.log(2.0)
    energy = (dof - dim - 1.0) * np.linalg.slogdet(matrices)[1]
    energy = energy - np.einsum("...ij,ij->...", matrices, inverse_scale)
    return 0.5 * (energy + dof * log_det) - special.multigammaln(0.5 * dof, dim)


def log_prior_of_precisions(model, precisions):
    dof, C = model.degrees_of_freedom_prior_, model.covariance_prior_
    if model.covariance_type in ("diag", "spherical"):
        each = stats.gamma.logpdf(precisions, 0.5 * dof, scale=2.0 / C)
        return each.reshape(len(precisions), -1).sum(axis=1)
    each = wishart_logpdf(precisions, dof, C)
    return each.reshape(len(precisions), -1).sum(axis=1)


def mixture_log_joint(model, X, draws):
    """``log p(x, z, u, weights, means, precisions)`` by the model's docstring."""
    n, (K, dim) = len(draws["weights"]), model.means_.shape
    total = log_prior_of_weights(model, draws["weights"])
    total += log_prior_of_precisions(model, draws["precisions"])
    roots = _row_roots(model.covariance_type, draws["precisions"], K, dim)
    beta = model.mean_precision_prior_
    offset = draws["means"] - model.mean_prior_
    for k in range(K):
        total += _log_normal(offset[:, k], np.sqrt(beta) * roots[:, k]).sum(axis=1)
    z = draws["assignments"]
    total += np.take_along_axis(np.log(draws["weights"]), z, axis=1).sum(axis=1)
    missing = np.isnan(X)
    x = np.broadcast_to(X, (n, *X.shape)).copy()
    if "missing" in draws:
        x[:, missing] = draws["missing"]
        missing = np.zeros_like(missing)
    x[:, missing] = 0.0  # not looked at
    root_u = np.ones(z.shape)
    if model.emission == "student_t":
        u, half = draws["scales"], 0.5 * model.emission_dof
        total += stats.gamma.logpdf(u, half, scale=1.0 / half).sum(axis=1)
        root_u = np.sqrt(u)
    for k in range(K):
        gap = root_u[..., None] * (x - draws["means"][:, None, k])
        each = _log_normal(gap, roots[:, k]) + np.log(root_u)[..., None]
        # Where covariances are diagonal, missing entries are integrated out.
        each = np.where(missing, 0.0, each).sum(axis=2)
        total += np.where(z == k, each, 0.0).sum(axis=1)
    return total


class MixtureKind(Kind):
    def draws(self, model, X, n, seed):
        return model.sample_posterior(n, seed, X=X)

    def log_q(self, model, X, draws):
        return model.log_posterior_density(draws, X=X)

    def log_joint(self, model, X, y, draws):
        return mixture_log_joint(model, X, draws)

    def bound(self, model, X, y):
        q, mixture = model._fitted_q, model._fitted_model
        rows = Rows(X, None, model._fitted_frame)
        log_units = -(~np.isnan(X)).sum(axis=0) @ np.log(model._fitted_frame.unit)
        pieces = _coordinates(q)

        def elbo(coordinates):
            parts = np.split(coordinates, np.cumsum([s.size for s, _ in pieces])[:-1])
            moves = [s * v.reshape(s.shape) for (s, _), v in zip(pieces, parts)]
            moved = _moved(q, [(m, value) for m, (_, value) in zip(moves, pieces)])
            moved = MixturePosterior(*moved, mixture.geometry)
            statistics = mixture.statistics(moved, (rows, slice(0, rows.n)))
            return sum(mixture.elbo_terms(statistics, moved).values()) + log_units

        return np.zeros(sum(s.size for s, _ in pieces)), elbo

    def tol(self, model, X):
        return model.tol * len(X)

    def one_step(self, model, X):
        mixture, q = model._fitted_model, model._fitted_q
        rows = Rows(X, None, model._fitted_frame)
        # not at the optimum: the posterior that some of the rows ask for
        part = mixture.statistics(q, (rows, slice(0, 5)))
        starts = mixture.prior(), mixture.global_step(part.values, None)
        return mixture, (rows, slice(0, rows.n)), starts

    def same_start(self, model):
        return deepcopy(model).set_params(warm_start=True)

    def attributes(self, model):
        std = model.means_std_
        size = np.max(model.covariances_)
        return {
            "means_": (model.means_, std),
            "means_std_": (std, std),
            "weights_": (model.weights_, 1.0),
            "covariances_": (model.covariances_, size),
        }

    def moments(self, model):
        q = model.posterior_
        spread = np.sqrt(q.weights.variance())
        return {
            "weights": (model.weights_, spread, q.covariance("weights")),
            "means": (model.means_, model.means_std_, model.means_covariance_),
            "precisions": (
                model.precisions_,
                np.sqrt(q.components.variance("precisions")),
                None,
            ),
        }

    def outputs(self, model, X):
        return (
            model.score_samples(X),
            model.predict_proba(X),
            model.predict(X).astype(float),
        )

    def rescaled(self, case, X, y, c):
        spherical = case.params["covariance_type"] == "spherical"
        for unit in [np.array([c, c])] + ([] if spherical else [np.array([1.0, c])]):
            back, change = self._back(X, unit)
            yield self._in_units(case, unit, 0.0), X * unit, None, change, back

    def shifted(self, case, X, y, shift):
        back, _ = self._back(X, np.ones(2))
        return self._in_units(case, np.ones(2), shift), X + shift, None, back

    def _back(self, X, unit):
        log_unit = (~np.isnan(X)) @ np.log(unit)

        def back(fit, X):
            score, *others = self.outputs(fit, X)
            return (score + log_unit, *others)

        return back, -log_unit.sum()

    def _in_units(self, case, unit, shift):
        """The estimator with its prior in other units, where the row gives one."""
        params = {}
        if "mean_prior" in case.params:
            C = np.asarray(case.params["covariance_prior"])
            square = {0: unit[0] ** 2, 1: unit**2}.get(C.ndim, np.outer(unit, unit))
            params["mean_prior"] = np.asarray(case.params["mean_prior"]) * unit + shift
            params["covariance_prior"] = C * square
        return case.estimator(**params)

    def unusable(self, X, y):
        bad = X.copy()
        bad[0, 0] = np.inf
        yield (bad,), {}, "infinity"
        yield (X,), {"sample_weight": np.ones(len(X) - 1)}, "sample_weight"
        yield (X,), {"sample_weight": -np.ones(len(X))}, "egative"


def _coordinates(q):
    """(scale, value) of what q is made of: about the sds of what they stand for."""
    weights, components = q.weights, q.components
    if isinstance(weights, Dirichlet):
        sticks = [weights.concentration]
    else:
        sticks = [weights.a, weights.b]
    pieces = [(1.0 / np.sqrt(1.0 + value), value) for value in sticks]
    location = components.location
    pieces.append((np.sqrt(components.variance("means")), location))
    beta = components.mean_precision
    pieces.append((1.0 / np.sqrt(1.0 + beta), beta))
    if hasattr(components, "wishart"):
        wishart = components.wishart
        excess = np.asarray(wishart.dof - components.dim + 1.0)
        spread = 1.0 / np.sqrt(1.0 + excess)
        root = np.linalg.cholesky(wishart.inverse_scale)
        each = np.broadcast_to(spread[..., None, None], root.shape)
        return [*pieces, (spread, excess), (each, root)]
    for value in (components.noise.shape, components.noise.rate):
        pieces.append((1.0 / np.sqrt(1.0 + components.noise.shape), value))
    return pieces


def _moved(q, moves):
    """(weights, components) of a posterior moved: positive numbers on the log scale."""
    weights, components = q.weights, q.components
    n_sticks = 1 if isinstance(weights, Dirichlet) else 2
    sticks = [value * np.exp(move) for move, value in moves[:n_sticks]]
    family = Dirichlet if n_sticks == 1 else StickBreaking
    (shift, location), (stretch, beta), (of_dof, dof), (of_scale, scale) = moves[
        n_sticks:
    ]
    location, beta = location + shift, beta * np.exp(stretch)
    dof = dof * np.exp(of_dof)
    if hasattr(components, "wishart"):
        scale = scale @ (np.eye(components.dim) + np.tril(of_scale))
        scale = scale @ np.swapaxes(scale, -1, -2)
        law = (Wishart(dof + components.dim - 1.0, scale),)
    else:
        law = (dof, scale * np.exp(of_scale))
    return family(*sticks), type(components)(location, beta, *law)


EXPLICIT = {
    "full": [[2.0, 0.5], [0.5, 9.0]],
    "tied": [[2.0, 0.5], [0.5, 9.0]],
    "diag": [2.0, 9.0],
    "spherical": 3.0,
}


def _mixture_cases():
    variants = {
        "process": ({}, groups_of_rows()),
        "dirichlet": (
            {"weight_concentration_prior_type": "dirichlet_distribution"},
            groups_of_rows(),
        ),
        "missing": ({}, groups_of_rows(missing=True)),
        "student": ({"emission": "student_t"}, groups_of_rows()),
        "student_missing": (
            {"emission": "student_t", "emission_dof": 2.5},
            groups_of_rows(missing=True),
        ),
        "one": ({"n_components": 1}, groups_of_rows((12,))),
        "three": ({"n_components": 3}, groups_of_rows((10, 7, 5))),
        "explicit": (
            {
                "weight_concentration_prior": 2.0,
                "mean_precision_prior": 0.3,
                "mean_prior": [1.0, 15.0],
                "degrees_of_freedom_prior": 4.0,
            },
            groups_of_rows(),
        ),
    }
    for kind in ("full", "tied", "diag", "spherical"):
        for variant, (params, data) in variants.items():
            name = f"mixture-{kind}-{variant}"
            prior = (
                {"covariance_prior": EXPLICIT[kind]} if variant == "explicit" else {}
            )
            for posterior in ("structured", "mean_field"):
                structured = posterior == "structured"
                yield Case(
                    name=f"{name}-{posterior}",
                    make=skvi.VariationalGaussianMixture,
                    params={
                        "n_components": 2,
                        "covariance_type": kind,
                        "posterior": posterior,
                        "init_params": "kmeans",
                        "random_state": 0,
                        **params,
                        **prior,
                    },
                    data=data,
                    kind=MixtureKind(),
                    exact=structured and variant == "one",
                    larger=None if structured else f"{name}-structured",
                )


# -- VariationalTopicModel -------------------------------------------------------------


@dataclass(frozen=True)
class documents_of_words:
    """Counts of six words in short documents of two or three topics."""

    lengths: tuple = (9, 12, 7, 10)
    n_topics: int = 2

    def __call__(self, rng):
        topics = np.full((self.n_topics, 6), 0.04)
        for k in range(self.n_topics):
            width = 6 // self.n_topics
            topics[k, k * width : (k + 1) * width] += 0.76 / width
        rows = []
        for d, length in enumerate(self.lengths):
            share = np.full(self.n_topics, 0.25 / self.n_topics)
            share[d % self.n_topics] += 0.75
            rows.append(rng.multinomial(length, share @ topics))
        return np.array(rows, dtype=np.float64), None


def clear_documents(rng):
    """Uneven words, documents pure and mixed: they say how large the priors are."""
    rows = [
        [8, 3, 1, 0, 0, 0],
        [0, 0, 0, 7, 4, 1],
        [5, 2, 0, 3, 1, 0],
        [9, 1, 2, 0, 0, 0],
        [1, 0, 0, 6, 3, 2],
        [3, 1, 1, 4, 2, 1],
    ]
    return np.array(rows, dtype=np.float64), None


def tokens_of(X):
    """(document, word) of every token, by document, then word."""
    document, word = np.nonzero(X)
    repeats = X[document, word].astype(int)
    return np.repeat(document, repeats), np.repeat(word, repeats)


def dirichlet_logpdf(concentration, x):
    """``sum_i log Dirichlet(x_i | concentration_i)`` of draws x (n, rows, K)."""
    concentration = np.broadcast_to(concentration, x.shape[1:])
    return sum(
        stats.dirichlet.logpdf(x[:, i].T, concentration[i]) for i in range(x.shape[1])
    )


def topic_log_joint(model, X, draws):
    """``log p(words, z, proportions, topics)`` by the model's docstring."""
    theta, phi, z = draws["proportions"], draws["topics"], draws["assignments"]
    document, word = tokens_of(X)
    total = dirichlet_logpdf(model.topic_word_prior_, phi)
    total += dirichlet_logpdf(model.doc_topic_prior_, theta)
    total += np.log(theta[np.arange(len(z))[:, None], document, z]).sum(axis=1)
    return total + np.log(phi[np.arange(len(z))[:, None], z, word]).sum(axis=1)


def assignment_probabilities(model, X):
    """q(z) of every token, read off ``log_posterior_density``: (n_tokens, K).

    One token at a time is moved to every topic, under even proportions and topics;
    where these depend on z, the density of their Dirichlets is taken out.
    """
    (n_docs, n_words), K = X.shape, model.n_components
    document, word = tokens_of(X)
    N = len(word)
    z = np.zeros((1 + N * K, N), dtype=int)
    for i in range(N):
        z[1 + i * K : 1 + (i + 1) * K, i] = np.arange(K)
    even = {
        "topics": np.full((len(z), K, n_words), 1.0 / n_words),
        "proportions": np.full((len(z), n_docs, K), 1.0 / K),
        "assignments": z,
    }
    log_q = model.log_posterior_density(even, X=X)
    if model.posterior == "structured":
        eta = np.broadcast_to(model.topic_word_prior_, (K, n_words))
        for n in range(len(z)):
            theta = np.tile(model.doc_topic_prior_, (n_docs, 1))
            np.add.at(theta, (document, z[n]), 1.0)
            phi = eta.copy()
            np.add.at(phi, (z[n], word), 1.0)
            log_q[n] -= dirichlet_logpdf(theta, even["proportions"][n : n + 1])
            log_q[n] -= dirichlet_logpdf(phi, even["topics"][n : n + 1])
    return special.softmax(log_q[1:].reshape(N, K), axis=1)


def cell_probabilities(model, X):
    """q(z) of every cell of X, whose tokens share it: (D, V, K), zero where none is."""
    q = np.zeros((*X.shape, model.n_components))
    q[tokens_of(X)] = assignment_probabilities(model, X)
    return q


class TopicKind(Kind):
    weighted = False  # a row is counts already
    answer = "transform"
    scoring = None  # a score of tokens, not of rows
    reordering = 1e-3  # the order of words is that of the updates

    def __init__(self, form):
        # The streaming form returns the best of its sweeps.
        self.ends_at_maximum = form != "streaming"
        # Mean field ends where rises of the bound are rounding.
        self.single = 0.05 if form == "mean_field" else 1e-3

    def first_step(self):
        return FunctionTransformer()  # scales would leave no counts

    def draws(self, model, X, n, seed):
        return model.sample_posterior(n, seed, X=X)

    def log_q(self, model, X, draws):
        return model.log_posterior_density(draws, X=X)

    def log_q_of_entropy(self, model, X, draws):
        if model.posterior == "mean_field":
            return self.log_q(model, X, draws)
        # proportions and topics are integrated out of the bound
        log_q = np.log(assignment_probabilities(model, X))
        return log_q[np.arange(len(log_q)), draws["assignments"]].sum(axis=1)

    def log_joint(self, model, X, y, draws):
        return topic_log_joint(model, X, draws)

    def bound(self, model, X, y):
        q = cell_probabilities(model, X)
        used = X > 0
        alpha = model.doc_topic_prior_
        eta = np.broadcast_to(model.topic_word_prior_, (model.n_components, X.shape[1]))
        concentrations = []
        if model.posterior == "mean_field":
            concentrations = [
                model.doc_topic_posterior(X).concentration,
                model.topic_word_.concentration,
            ]
        logits = np.log(q[used])
        sizes = np.cumsum([logits.size, *(value.size for value in concentrations)])

        def elbo(coordinates):
            move, *others = np.split(coordinates, sizes[:-1])
            moved = q.copy()
            moved[used] = special.softmax(logits + move.reshape(logits.shape), axis=1)
            if not concentrations:
                return twins.collapsed_bound(X, moved, alpha, eta)
            documents, topics = (
                value * np.exp(move.reshape(value.shape) / np.sqrt(1.0 + value))
                for value, move in zip(concentrations, others)
            )
            return twins.mean_field_bound(X, moved, documents, topics, alpha, eta)

        return np.zeros(sizes[-1]), elbo

    def tol(self, model, X):
        passes = 20 if model.posterior == "structured" else 1  # in a step
        return model.tol * X.sum() * passes

    def attributes(self, model):
        std = model.components_std_
        return {
            "components_": (model.components_, std),
            "components_std_": (std, std),
            "doc_topic_prior_": (model.doc_topic_prior_, 1.0),
        }

    def moments(self, model):
        return {"topics": (model.components_, model.components_std_, None)}

    def outputs(self, model, X):
        return (
            model.transform(X),
            model.doc_topic_posterior(X).concentration,
            np.array([model.score(X), model.perplexity(X, method="elbo")]),
        )

    def onward(self, model, X, y):
        return deepcopy(model).set_params(warm_start=True, max_iter=1).fit(X)

    def enlarged(self, model, larger, X, y):
        params = {**larger.get_params(), "warm_start": True}
        return deepcopy(model).set_params(**params).fit(X)

    def reordered(self, model, X, y, rng):
        """Words in another order: that of documents is the order of the updates."""
        order = rng.permutation(X.shape[1])
        back = np.argsort(order)
        estimator = clone(model)
        for name in ("topic_word_prior", "components_init"):
            value = getattr(model, name)
            if np.ndim(value) > 0:
                estimator.set_params(**{name: np.asarray(value)[..., order]})

        def attributes(fit):
            return {
                name: (value[:, back], unit[:, back])
                if name.startswith("components")
                else (value, unit)
                for name, (value, unit) in self.attributes(fit).items()
            }

        return estimator, X[:, order], y, attributes

    def rescaled(self, case, X, y, c):
        return ()  # counts have no unit

    def shifted(self, case, X, y, shift):
        return None

    def unusable(self, X, y):
        for value, message in (
            (np.nan, "NaN"),
            (np.inf, "infinity"),
            (-1.0, "egative"),
        ):
            bad = X.copy()
            bad[0, 0] = value
            yield (bad,), {}, message


def blocks_of_words(K):
    """Topics to start from: each has its part of six words, mostly."""
    return (1.0 + 4.0 * np.kron(np.eye(K), np.ones(6 // K))).tolist()


UNEVEN = {
    "doc_topic_prior": [0.5, 1.2],
    "topic_word_prior": [
        [0.4, 0.6, 0.8, 0.5, 0.5, 0.5],
        [0.3, 0.3, 0.3, 0.9, 0.7, 0.5],
    ],
}


def _topic_cases():
    variants = {
        "symmetric": {"doc_topic_prior": 0.6, "topic_word_prior": 0.5},
        "asymmetric": UNEVEN,
        "auto": {"doc_topic_prior": "auto", "topic_word_prior": "auto"},
        "three": {"n_components": 3, "doc_topic_prior": 0.4, "topic_word_prior": 0.4},
        "empty": {"doc_topic_prior": [1.0, 0.5], "topic_word_prior": 0.7},
    }
    data = {
        "auto": clear_documents,
        "three": documents_of_words((8, 10, 9, 7, 11), 3),
        "empty": documents_of_words((9, 0, 11, 8)),
    }
    forms = {
        "structured": {"posterior": "structured"},
        "mean_field": {"posterior": "mean_field"},
        "streaming": {"posterior": "structured", "memory_budget": 0.0},
    }
    for variant, params in variants.items():
        name = f"topics-{variant}"
        for form, settings in forms.items():
            yield Case(
                name=f"{name}-{form}",
                make=skvi.VariationalTopicModel,
                params={
                    "n_components": 2,
                    "components_init": blocks_of_words(params.get("n_components", 2)),
                    "tol": 1e-10,
                    "max_iter": 2_000,
                    "block_size": 2,
                    "random_state": 0,
                    **settings,
                    **params,
                },
                data=data.get(variant, documents_of_words()),
                kind=TopicKind(form),
                larger=f"{name}-structured" if form == "mean_field" else None,
            )


CASES = [*_regression_cases(), *_mixture_cases(), *_topic_cases()]
