"""One row per estimator and posterior: what tests/test_contract.py runs on.

A row brings an estimator, small data, and a log joint that is written here from
scipy.stats alone, in the data's units, without looking at how skvi computes anything.
A new estimator is one more row; a new kind of estimator (what is drawn, what is read
off a fit, what a change of units does) is one more `Kind`.
"""

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from scipy import special, stats
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import skvi
import twins
from glm_cases import glm_cases
from kinds import Case, Kind, in_features, joined, sequences_of, unfolded
from lds_cases import lds_cases
from mixed_cases import mixed_cases
from skvi.distributions import Dirichlet, StickBreaking, Wishart
from skvi.models.hmm import Block as HMMBlock
from skvi.models.mixture import MixturePosterior, Rows
from skvi.models.regression import Moments, RegressionModel

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


# -- VariationalHMM --------------------------------------------------------------------


def emission_log_densities(model, x, draws):
    """log p(x_t | z_t = k) of draws of the parameters: (n, T, K).

    Missing entries of x (n or 1, T, D) are integrated out, their densities independent.
    """
    missing = np.isnan(x)
    x = np.where(missing, 0.0, x)[:, :, None]  # zeros that are not looked at
    if model.emissions == "gaussian":
        K, dim = model.means_.shape
        roots = _row_roots(model.covariance_type, draws["precisions"], K, dim)
        gap = x - draws["means"][:, None]
        each = [_log_normal(gap[:, :, k], roots[:, k]) for k in range(K)]
        each = np.stack(each, axis=2)
    elif model.emissions == "poisson":
        each = stats.poisson.logpmf(x, draws["rates"][:, None])
    elif model.emissions == "bernoulli":
        each = stats.bernoulli.logpmf(x > 0.0, draws["probabilities"][:, None])
    else:
        ends = np.cumsum(model.n_categories_)
        columns = (x[0, :, 0] + ends - model.n_categories_).astype(int)
        each = np.log(np.swapaxes(draws["probabilities"][:, :, columns], 1, 2))
    return np.where(missing[:, :, None], 0.0, each).sum(axis=-1)


def log_prior_of_emissions(model, draws):
    """log p(means, precisions), or of rates or probabilities."""
    if model.emissions == "gaussian":
        K, dim = model.means_.shape
        roots = _row_roots(model.covariance_type, draws["precisions"], K, dim)
        roots = np.sqrt(model.mean_precision_prior_) * roots
        offset = draws["means"] - model.mean_prior_
        total = log_prior_of_precisions(model, draws["precisions"])
        return total + sum(
            _log_normal(offset[:, k], roots[:, k]).sum(axis=1) for k in range(K)
        )
    if model.emissions == "poisson":
        shape, rate = model.rate_prior_
        each = stats.gamma.logpdf(draws["rates"], shape, scale=1.0 / rate)
        return each.sum(axis=(1, 2))
    if model.emissions == "bernoulli":
        one, zero = model.probability_prior_
        return stats.beta.logpdf(draws["probabilities"], one, zero).sum(axis=(1, 2))
    ends = np.cumsum(model.n_categories_)[:-1]
    return sum(
        dirichlet_logpdf(concentration, probabilities)
        for concentration, probabilities in zip(
            np.split(model.probability_prior_, ends),
            np.split(draws["probabilities"], ends, axis=2),
        )
    )


def hmm_log_joint(model, X, draws):
    """``log p(x, z, startprob, transmat, emissions)`` by the model's docstring."""
    x, slices, _ = sequences_of(model, X)
    start, trans, z = draws["startprob"], draws["transmat"], draws["states"]
    n = len(z)
    total = log_prior_of_emissions(model, draws)
    if model.n_components > 1:  # else both are one
        total += dirichlet_logpdf(model.startprob_prior_, start[:, None])
        total += dirichlet_logpdf(model.transmat_prior_, trans)
    each = np.arange(n)[:, None]
    for rows in slices:
        path = z[:, rows]
        total += np.log(start[np.arange(n), path[:, 0]])
        total += np.log(trans[each, path[:, :-1], path[:, 1:]]).sum(axis=1)
    x = x[None]
    if "missing" in draws:
        hole = np.isnan(x[0])
        hole[hole.all(axis=1)] = False  # a step of which nothing is known is none
        x = np.broadcast_to(x, (n, *x.shape[1:])).copy()
        x[:, hole] = draws["missing"]
    log_b = emission_log_densities(model, x, draws)
    return total + np.take_along_axis(log_b, z[..., None], axis=2).sum(axis=(1, 2))


def hmm_posterior(model):
    """What q of the parameters is made of: {name: (kind, values)}.

    Read off the fitted attributes; "positive" numbers are moved on the log scale.
    """
    out = {
        "start": ("positive", model.posterior_["startprob"].concentration),
        "trans": ("positive", model.posterior_["transmat"].concentration),
    }
    if model.emissions == "gaussian":
        matrix = model.covariance_type in ("full", "tied")
        dof = np.asarray(model.degrees_of_freedom_)
        shape = np.shape(model.covariances_)
        by_matrix = dof.reshape(dof.shape + (1,) * (len(shape) - dof.ndim))
        excess = dof - (len(model.mean_prior_) - 1.0 if matrix else 0.0)
        out["location"] = ("location", model.means_)
        out["beta"] = ("positive", np.asarray(model.mean_precision_))
        out["excess"] = ("positive", excess)
        C = by_matrix * model.covariances_
        out["C"] = ("matrix", C) if matrix else ("positive", C)
    elif model.emissions == "poisson":
        variance = model.rates_std_**2
        out["shape"] = ("positive", model.rates_**2 / variance)
        out["rate"] = ("positive", model.rates_ / variance)
    else:
        p, sd = model.emissionprob_, model.emissionprob_std_
        total = p * (1.0 - p) / sd**2 - 1.0
        out["one"] = ("positive", p * total)
        if model.emissions == "bernoulli":
            out["zero"] = ("positive", (1.0 - p) * total)
    return out


def expected_log_densities(model, law, x):
    """E log p(x_t | z_t = k) under q of the parameters, (T, K); missing entries out."""
    missing = np.isnan(x)
    x = np.where(missing, 0.0, x)[:, None]
    seen = ~missing[:, None]
    if model.emissions == "gaussian":
        return _expected_log_normal(model, law, x[:, 0], missing)
    if model.emissions == "poisson":
        mean_log = special.digamma(law["shape"]) - np.log(law["rate"])
        each = x * mean_log - law["shape"] / law["rate"] - special.gammaln(x + 1.0)
    elif model.emissions == "bernoulli":
        log_p = twins.mean_log(np.stack([law["zero"], law["one"]], axis=-1))
        each = np.where(x > 0.0, log_p[..., 1], log_p[..., 0])
    else:
        log_p = _split_mean_log(model, law["one"])
        each = np.stack(
            [table[:, x[:, 0, d].astype(int)].T for d, table in enumerate(log_p)],
            axis=2,
        )
    return np.where(seen, each, 0.0).sum(axis=2)


def _split_mean_log(model, concentration):
    ends = np.cumsum(model.n_categories_)[:-1]
    return [twins.mean_log(part) for part in np.split(concentration, ends, axis=1)]


def _expected_log_normal(model, law, x, missing):
    """... of Gaussians; missing entries of full and tied ones are latent variables.

    Their best q depends on the state, but not on mu and Lambda.
    """
    location, beta, C = law["location"], law["beta"], law["C"]
    K, dim = location.shape
    if model.covariance_type in ("diag", "spherical"):
        shape, rate = 0.5 * law["excess"], 0.5 * C
        log_x, mean = special.digamma(shape) - np.log(rate), shape / rate
        if model.covariance_type == "spherical":
            log_x, mean = log_x[:, None], mean[:, None]
        spread = 1.0 / beta.reshape(K, -1)
        each = log_x - np.log(2.0 * np.pi) - spread
        each = each - mean * (x[:, None] - location) ** 2
        return 0.5 * np.where(missing[:, None], 0.0, each).sum(axis=2)
    dof = np.broadcast_to(law["excess"] + dim - 1.0, K)
    C = np.broadcast_to(C, (K, dim, dim))
    log_det = twins.mean_log_det(dof, C)
    out = np.zeros((len(x), K))
    for k in range(K):
        P = dof[k] * np.linalg.inv(C[k])
        for t in range(len(x)):
            m, o = missing[t], ~missing[t]
            if not o.any():
                continue
            Q = P[np.ix_(o, o)]
            hidden = P[np.ix_(m, m)]
            if m.any():
                cross = P[np.ix_(o, m)]
                Q = Q - cross @ np.linalg.solve(hidden, cross.T)
            gap = (x[t] - location[k])[o]
            out[t, k] = 0.5 * (
                log_det[k]
                - np.linalg.slogdet(hidden)[1]
                - o.sum() * np.log(2.0 * np.pi)
                - dim / beta[k]
                - gap @ Q @ gap
            )
    return out


def minus_divergence_of_emissions(model, law):
    """-KL(q || p) of the emissions' parameters."""
    if model.emissions == "poisson":
        return twins.gamma_divergence(law["shape"], law["rate"], *model.rate_prior_)
    if model.emissions == "bernoulli":
        prior = np.stack(model.probability_prior_, axis=-1)
        return twins.minus_divergence(prior, np.stack([law["one"], law["zero"]], -1))
    if model.emissions == "categorical":
        ends = np.cumsum(model.n_categories_)[:-1]
        return sum(
            twins.minus_divergence(prior, q)
            for prior, q in zip(
                np.split(model.probability_prior_, ends),
                np.split(law["one"], ends, axis=1),
            )
        )
    C, C_0, dof_0 = law["C"], model.covariance_prior_, model.degrees_of_freedom_prior_
    beta, beta_0 = law["beta"], model.mean_precision_prior_
    gap = law["location"] - model.mean_prior_
    K, dim = gap.shape
    if model.covariance_type in ("diag", "spherical"):
        shape, rate = 0.5 * law["excess"], 0.5 * C
        total = twins.gamma_divergence(shape, rate, 0.5 * dof_0, 0.5 * np.asarray(C_0))
        precision = np.broadcast_to((shape / rate).reshape(K, -1), (K, dim))
        square = np.sum(precision * gap**2, axis=1)
    else:
        dof = law["excess"] + dim - 1.0
        total = twins.wishart_divergence(dof, C, dof_0, C_0)
        P = dof[..., None, None] * np.linalg.inv(C)
        square = np.einsum("ki,kij,kj->k", gap, np.broadcast_to(P, (K, dim, dim)), gap)
    ratio = np.broadcast_to(beta_0 / beta.reshape(K, -1), (K, dim))
    spread = np.sum(1.0 + np.log(ratio) - ratio, axis=1)
    return total + 0.5 * np.sum(spread - beta_0 * square)


def hmm_bound(model, X, law, q=None):
    """The ELBO of q of the parameters, with the best q(z), or with this q (T, K)."""
    x, slices, weights = sequences_of(model, X)
    log_start, log_trans = (twins.mean_log(law[name]) for name in ("start", "trans"))
    log_b = expected_log_densities(model, law, x)
    total = minus_divergence_of_emissions(model, law)
    total += twins.minus_divergence(model.startprob_prior_, law["start"])
    total += twins.minus_divergence(model.transmat_prior_, law["trans"])
    for rows, weight in zip(slices, weights):
        chain = log_b[rows], log_start, log_trans
        if q is None:
            total += weight * twins.forward_backward(*chain)[0]
        else:
            total += weight * twins.mean_field_chain_bound(*chain, q[rows])
    return total


class ForgetfulBlock(HMMBlock):
    """Every pass over it starts anew, where a fit would go on from the last one."""

    def __setattr__(self, name, value):
        super().__setattr__(name, None if name == "memory" else value)


class HMMKind(Kind):
    weighted = False  # a row is a step: sequences have weights, in a column
    smooths = True

    def __init__(self, emissions):
        self.is_gaussian = emissions == "gaussian"

    def first_step(self):
        if not self.is_gaussian:
            return FunctionTransformer()  # scales would leave no counts
        # the two features; ids and weights stay what they are, and where
        return ColumnTransformer(
            [("scale", StandardScaler(), [0, 1])], remainder="passthrough"
        )

    def families_differ(self, estimator):
        return estimator.n_components > 1

    def n_seen(self, model):
        return model.n_steps_seen_

    def stream(self, model, X, rng):
        """Whole sequences, X eight times; blocks are made of some of them."""
        _, slices, weights = sequences_of(model, X)
        parts = [X[rows] for rows in slices] * 8
        if model.sequence_weight is None:
            weights = None
        else:
            weights = 1.0 + np.tile(
                weights, 8
            )  # sequences that do not count are not seen
        many = joined(model, parts, weights)
        ends = np.cumsum([len(part) for part in parts])
        rows = [np.arange(end - len(part), end) for part, end in zip(parts, ends)]
        # Without ids all of a block is one sequence.
        order = np.arange(8) if model.sequence is None else rng.permutation(len(rows))
        blocks = [
            np.concatenate([rows[i] for i in some]) for some in np.array_split(order, 4)
        ]
        return many, blocks

    def draws(self, model, X, n, seed):
        return model.sample_posterior(n, seed, X=unfolded(model, X))

    def log_q(self, model, X, draws):
        return model.log_posterior_density(draws, X=unfolded(model, X))

    def log_joint(self, model, X, y, draws):
        return hmm_log_joint(model, unfolded(model, X), draws)

    def bound(self, model, X, y):
        law = hmm_posterior(model)
        values = {name: value for name, (_, value) in law.items()}
        spreads = {
            name: np.zeros_like(value)
            + (model.means_std_ if kind == "location" else 1.0 / np.sqrt(1.0 + value))
            for name, (kind, value) in law.items()
            if kind != "matrix"
        }
        if "C" in law and law["C"][0] == "matrix":
            values["C"] = np.linalg.cholesky(values["C"])
            excess = 1.0 / np.sqrt(1.0 + values["excess"])
            spreads["C"] = np.zeros_like(values["C"]) + excess[..., None, None]
        q = None
        if model.posterior == "mean_field":
            q = model.predict_proba(X)
            spreads["logits"], values["logits"] = np.ones(q.shape), np.log(q)
        sizes = np.cumsum([spread.size for spread in spreads.values()])

        def elbo(coordinates):
            moved = {}
            for (name, spread), move in zip(
                spreads.items(), np.split(coordinates, sizes[:-1])
            ):
                move, value = spread * move.reshape(spread.shape), values[name]
                kind = "location" if name == "logits" else law[name][0]
                if kind == "matrix":
                    root = value @ (np.eye(value.shape[-1]) + np.tril(move))
                    moved[name] = root @ np.swapaxes(root, -1, -2)
                else:
                    moved[name] = (
                        value + move if kind == "location" else value * np.exp(move)
                    )
            states = special.softmax(moved["logits"], axis=1) if q is not None else None
            return hmm_bound(model, X, moved, states)

        return np.zeros(sizes[-1]), elbo

    def tol(self, model, X):
        return model.tol * len(X)

    def one_step(self, model, X):
        inner, q, data, sequences = model._local_model(X)
        # not at the optimum: the posterior that one of the sequences asks for
        part = inner.statistics(q, ForgetfulBlock(data, sequences.part(0, 1)))
        starts = inner.prior(), inner.global_step(part.values, None)
        return inner, ForgetfulBlock(data, sequences), starts

    def onward(self, model, X, y):
        return deepcopy(model).set_params(warm_start=True, max_iter=1, tol=0.0).fit(X)

    def enlarged(self, model, larger, X, y):
        params = {**larger.get_params(), "warm_start": True}
        return deepcopy(model).set_params(**params).fit(X)

    def reordered(self, model, X, y, rng):
        """Sequences in another order: that of steps is the model's."""
        _, slices, weights = sequences_of(model, X)
        order = rng.permutation(len(slices))
        weights = None if model.sequence_weight is None else weights[order]
        other = joined(model, [X[slices[i]] for i in order], weights)
        return clone(model), other, y, self.attributes

    def attributes(self, model):
        out = {
            "startprob_": (model.startprob_, 1.0),
            "transmat_": (model.transmat_, 1.0),
        }
        if self.is_gaussian:
            std = model.means_std_
            size = np.max(model.covariances_)
            out["means_"] = (model.means_, std)
            out["means_std_"] = (std, std)
            out["covariances_"] = (model.covariances_, size)
            return out
        name = "rates" if model.emissions == "poisson" else "emissionprob"
        std = getattr(model, f"{name}_std_")
        return {
            **out,
            f"{name}_": (getattr(model, f"{name}_"), std),
            f"{name}_std_": (std, std),
        }

    def moments(self, model):
        out = {
            "startprob": (model.startprob_, model.startprob_std_, None),
            "transmat": (
                model.transmat_,
                model.transmat_std_,
                model.transmat_covariance_,
            ),
        }
        if self.is_gaussian:
            means = model.means_, model.means_std_, model.means_covariance_
            return {
                **out,
                "means": means,
                "precisions": (model.precisions_, None, None),
            }
        if model.emissions == "poisson":
            return {**out, "rates": (model.rates_, model.rates_std_, None)}
        p = model.emissionprob_, model.emissionprob_std_, None
        return {**out, "probabilities": p}

    def outputs(self, model, X):
        return (
            model.score_samples(X),
            model.predict_proba(X),
            model.predict(X).astype(float),
            model.predict(X, method="marginal").astype(float),
        )

    def rescaled(self, case, X, y, c):
        if not self.is_gaussian:
            return  # counts and categories have no unit
        spherical = case.params["covariance_type"] == "spherical"
        for unit in [np.array([c, c])] + ([] if spherical else [np.array([1.0, c])]):
            estimator = self._in_units(case, unit, 0.0)
            Xc = in_features(estimator, X, lambda x, unit=unit: x * unit)
            x, slices, weights = sequences_of(estimator, X)
            log_unit = (~np.isnan(x)) @ np.log(unit)
            change = -sum(
                weight * log_unit[rows].sum() for rows, weight in zip(slices, weights)
            )

            def back(fit, X, log_unit=log_unit):
                score, *others = self.outputs(fit, X)
                return (score + log_unit, *others)

            yield estimator, Xc, None, change, back

    def shifted(self, case, X, y, shift):
        if not self.is_gaussian:
            return None
        estimator = self._in_units(case, np.ones(2), shift)
        return estimator, self.moved(estimator, X, shift), None, self.outputs

    def moved(self, estimator, X, shift):
        return in_features(estimator, X, lambda x: x + shift)

    _in_units = MixtureKind._in_units

    def unusable(self, X, y):
        bad = X.copy()
        bad[0, 0] = np.inf
        yield (bad,), {}, "infinity"
        yield (X[:0],), {}, "0 sample"
        if not self.is_gaussian:
            bad[0, 0] = -1.0
            yield (bad,), {}, "egative"


# Emissions of two features, by what a state of three has of its own.
HMM_EMISSIONS = {
    "full": {"emissions": "gaussian", "covariance_type": "full"},
    "tied": {"emissions": "gaussian", "covariance_type": "tied"},
    "diag": {"emissions": "gaussian", "covariance_type": "diag"},
    "spherical": {"emissions": "gaussian", "covariance_type": "spherical"},
    "poisson": {"emissions": "poisson"},
    "bernoulli": {"emissions": "bernoulli"},
    "categorical": {"emissions": "categorical", "n_categories": [3, 2]},
}


@dataclass(frozen=True)
class chains_of_steps:
    """Steps of sequences that stay in a state for a while; columns with a role last.

    Attributes
    ----------
    kind : str, a key of HMM_EMISSIONS
    lengths : of the sequences
    n_states : int
    missing : bool, whether some entries, and a whole step, are NaN
    ids : bool, whether there is a column of ids
    weights : of the sequences, a column then
    clear : bool, whether a step says almost for certain what its state is
    """

    kind: str
    lengths: tuple = (8, 5)
    n_states: int = 2
    missing: bool = False
    ids: bool = True
    weights: tuple | None = None
    clear: bool = False

    def __call__(self, rng):
        n = sum(self.lengths)
        states = (np.arange(n) // 3) % self.n_states
        X = self.emit(states, rng)
        if self.missing:
            X[[1, 5, 7, 10], [0, 1, 1, 0]] = np.nan
            X[3] = np.nan
        each = np.repeat(np.arange(len(self.lengths)), self.lengths)
        columns = [X]
        if self.ids:
            columns.append(each[:, None] + 1.0)
        if self.weights is not None:
            columns.append(np.array(self.weights, dtype=float)[each][:, None])
        return np.hstack(columns), None

    def emit(self, states, rng):
        n = len(states)
        if self.kind == "poisson":
            rates = np.array([[2.0, 6.0], [6.0, 3.0], [12.0, 12.0]])
            if self.clear:
                rates = np.array([[1.0, 9.0], [8.0, 2.0], [20.0, 20.0]])
            return rng.poisson(rates[states]).astype(float)
        if self.kind == "bernoulli":
            p = np.array([[0.9, 0.2], [0.1, 0.7], [0.9, 0.9]])
            return (rng.random((n, 2)) < p[states]).astype(float)
        if self.kind == "categorical":
            p = np.array([[0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.1, 0.2, 0.7]])[states]
            first = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1)
            second = rng.random(n) < np.array([0.2, 0.8, 0.5])[states]
            return np.column_stack([first, second]).astype(float)
        centres = np.array([[0.0, 0.0], [3.0, 2.0], [-2.5, 3.5]])
        centres = (2.0 if self.clear else 1.0) * centres
        shear = np.array([[1.0, 0.5], [0.0, 0.8]])
        X = rng.standard_normal((n, 2)) @ shear + centres[states]
        return X * [1.0, 3.0] + [0.0, 20.0]


def explicit_priors(kind):
    """Priors of a row's own, for two states."""
    chain = {
        "startprob_prior": [0.7, 1.5],
        "transmat_prior": [[2.0, 0.5], [0.8, 1.2]],
    }
    if kind == "poisson":
        return {**chain, "rate_prior": (1.5, 0.4)}
    if kind in ("bernoulli", "categorical"):
        return {**chain, "probability_prior": 0.8}
    return {
        **chain,
        "mean_precision_prior": 0.3,
        "mean_prior": [1.0, 3.0],
        "degrees_of_freedom_prior": 4.0,
        "covariance_prior": EXPLICIT[kind],
    }


def _hmm_cases():
    for kind, emissions in HMM_EMISSIONS.items():
        variants = {
            "two": ({"sequence": 2}, {}),
            "missing": ({"sequence": 2}, {"lengths": (8, 6), "missing": True}),
            # one sequence, without a column that says so
            "three": (
                {"n_components": 3},
                {"lengths": (14,), "n_states": 3, "ids": False},
            ),
            "single": (
                {"sequence": 2, "n_components": 1},
                {"lengths": (6, 4), "n_states": 1},
            ),
            "explicit": ({"sequence": -1, **explicit_priors(kind)}, {}),
            "weights": (
                {"sequence": 2, "sequence_weight": 3, "stickiness": 3.0},
                {"lengths": (5, 3, 6), "weights": (2, 0, 1)},
            ),
        }
        for variant, (params, data) in variants.items():
            name = f"hmm-{kind}-{variant}"
            for posterior in ("structured", "mean_field"):
                structured = posterior == "structured"
                yield Case(
                    name=f"{name}-{posterior}",
                    make=skvi.VariationalHMM,
                    params={
                        "n_components": 2,
                        "posterior": posterior,
                        "init_params": "kmeans",
                        "random_state": 0,
                        **emissions,
                        **params,
                    },
                    data=chains_of_steps(kind, **data),
                    kind=HMMKind(emissions["emissions"]),
                    exact=variant == "single",
                    larger=None if structured else f"{name}-structured",
                )


CASES = [
    *_regression_cases(),
    *_mixture_cases(),
    *_topic_cases(),
    *_hmm_cases(),
    *lds_cases(),  # of VariationalLinearDynamicalSystem, in a file of their own
    *glm_cases(),  # of VariationalLogisticClassifier and VariationalGLMRegressor, too
    # VariationalMixedEffectsRegressor, VariationalMixedEffectsClassifier
    *mixed_cases(),
]
