"""Rows of logistic and generalised linear models, and their log joint.

Everything here is in the data's units and from scipy.stats alone.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special, stats
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import StandardScaler

import skvi
from kinds import Case, Kind
from skvi.distributions import Gamma, Gaussian, LogNormal
from skvi.linalg import DensePrecision, DiagonalPrecision, as_matrix
from skvi.models.glm import Block, GLMPosterior

ROLES = ("offset", "exposure")
WITH_DISPERSION = ("negative_binomial", "gaussian", "student_t")
CONTINUOUS = ("gaussian", "student_t")  # y has a unit


# -- the model -------------------------------------------------------------------------


def roles_of(estimator):
    """{role: position in X} of the columns that are not features."""
    given = {name: getattr(estimator, name, None) for name in ROLES}
    return {name: column for name, column in given.items() if column is not None}


def taken_apart(estimator, X):
    """(features, what the linear predictor has added to it) of an array X."""
    roles = roles_of(estimator)
    added = np.zeros(len(X))
    if "offset" in roles:
        added += X[:, roles["offset"]]
    if "exposure" in roles:
        added += np.log(X[:, roles["exposure"]])
    return np.delete(X, list(roles.values()), axis=1), added


def log_likelihood(model, y, eta, dispersion):
    """``log p(y | eta, dispersion)``, (n_draws, n); eta has classes last, if many."""
    if hasattr(model, "classes_"):
        k = np.searchsorted(model.classes_, y)
        if eta.ndim == 3:
            log_p = special.log_softmax(eta, axis=2)
            return np.take_along_axis(log_p, k[None, :, None], axis=2)[..., 0]
        law = stats.norm if model.link == "probit" else stats.logistic
        return law.logcdf((2.0 * k - 1.0) * eta)
    if model.family == "poisson":
        return stats.poisson.logpmf(y, np.exp(eta))
    if model.family == "negative_binomial":
        p = 1.0 / (1.0 + dispersion * np.exp(eta))
        return stats.nbinom.logpmf(y, 1.0 / dispersion, p)
    if model.family == "gaussian":
        return stats.norm.logpdf(y, eta, np.sqrt(dispersion))
    dof = 4.0 if model.dof is None else model.dof
    return stats.t.logpdf(y, dof, eta, np.sqrt(dispersion))


def glm_log_joint(model, X, y, draws):
    """``log p(y, z)`` by the models' docstrings."""
    x, added = taken_apart(model, X)
    mean, sd = x.mean(axis=0), x.std(axis=0)
    if not model.fit_intercept:
        mean, sd = np.zeros(x.shape[1]), np.sqrt(np.mean(x**2, axis=0))
    n, p = len(draws["coef"]), x.shape[1]
    coef = draws["coef"].reshape(n, -1, p)
    intercept = draws["intercept"].reshape(n, -1)
    eta = intercept[:, None] + x @ np.swapaxes(coef, 1, 2) + added[:, None]
    if coef.shape[1] == 1:
        eta = eta[..., 0]
    unit = getattr(model, "y_scale_", 1.0)
    dispersion = np.ones((n, 1))
    total = np.zeros(n)
    if getattr(model, "family", None) in WITH_DISPERSION:
        dispersion = draws["dispersion"][:, None]
        if model.dispersion is None:
            shape, rate = model.dispersion_prior_
            total += stats.invgamma.logpdf(draws["dispersion"], shape, scale=rate)
        else:
            np.testing.assert_allclose(dispersion, model.dispersion, rtol=1e-12)
    total += log_likelihood(model, y, eta, dispersion).sum(axis=1)
    if model.weight_precision is None:
        lam = draws["weight_precision"].reshape(n, -1)
        shape, rate = model.weight_precision_prior_
        total += stats.gamma.logpdf(lam, shape, scale=1.0 / np.asarray(rate)).sum(
            axis=1
        )
    else:
        lam = np.broadcast_to(model.weight_precision, (n, p))
    spread = unit / (np.sqrt(lam) * sd)
    total += stats.norm.logpdf(coef, 0.0, spread[:, None]).sum(axis=(1, 2))
    if model.fit_intercept:
        level = intercept + coef @ mean
        np.testing.assert_allclose(level.ravel(), draws["level"].ravel(), rtol=1e-6)
        centre = getattr(model, "intercept_mean_", 0.0)
        spread = 1.0 / np.sqrt(model.intercept_precision_)  # in y's units, too
        total += stats.norm.logpdf(level, centre, spread).sum(axis=1)
    else:
        assert np.all(intercept == 0.0)
    return total


# -- the posterior, moved --------------------------------------------------------------


def block_of(model, X, y):
    """All rows, as the engine's model reads them."""
    x, added = taken_apart(model, X)
    if hasattr(model, "classes_"):
        y = np.searchsorted(model.classes_, y).astype(float)
    y, added = model._fitted_units.inward(y, added)
    return Block(x, y, np.ones(len(y)), added, model._fitted_frame)


def moves_of(q, mean_field):
    """(names, shapes) of what q can be moved by, each in about posterior sds."""
    dim = q.gaussian.dim
    shapes = {"mean": (dim,), "root": (dim,) if mean_field else (dim, dim)}
    if isinstance(q.weight_precision, Gamma):
        shapes["shape"] = shapes["rate"] = np.shape(q.weight_precision.rate)
    if isinstance(q.dispersion, LogNormal):
        shapes["log_mean"] = shapes["log_variance"] = ()
    return shapes


def moved(q, moves):
    """q with its Gaussian, its Gamma and its log-normal factor moved."""
    theta, lam, phi = q.gaussian, q.weight_precision, q.dispersion
    sd = np.sqrt(theta.variance())
    if moves["root"].ndim == 1:
        precision = DiagonalPrecision(1.0 / (sd * np.exp(moves["root"])) ** 2)
    else:
        root = np.linalg.cholesky(as_matrix(theta.covariance()))
        move = np.tril(moves["root"]) / np.sqrt(len(sd))
        root = root @ (np.eye(len(sd)) + move)
        precision = DensePrecision(np.linalg.inv(root @ root.T))
    if "shape" in moves:
        spread = 1.0 / np.sqrt(1.0 + lam.shape)
        shape = lam.shape * np.exp(spread * moves["shape"])
        lam = Gamma(shape, lam.rate * np.exp(spread * moves["rate"]))
    if "log_mean" in moves:
        mean = phi.log_mean + np.sqrt(phi.log_variance) * moves["log_mean"]
        phi = LogNormal(mean, phi.log_variance * np.exp(moves["log_variance"]))
    theta = Gaussian(theta.mean + sd * moves["mean"], precision)
    return GLMPosterior(theta, q.parts, lam, phi, None)


# -- what the contract has to know -----------------------------------------------------


class GLMKind(Kind):
    # Rounding may end a climb an iteration earlier or later; what is left to go then is
    # within the 1e-7 sds that a fit asks for.
    reordering = weighting = 1e-7

    def __init__(self, data):
        self.data = data

    @property
    def has_unit(self):
        return self.data.family in CONTINUOUS

    def first_step(self):
        if not self.data.roles:
            return StandardScaler()
        features = list(range(self.data.n_features))
        return ColumnTransformer(
            [("scale", StandardScaler(), features)], remainder="passthrough"
        )

    def stream(self, model, X, rng):
        """Rows like X: copies of a few would leave no noise to more columns."""
        many, blocks = super().stream(model, X, rng)
        features = np.arange(self.data.n_features)
        noise = rng.standard_normal((len(many), len(features)))
        many[:, features] += 0.3 * X[:, features].std(axis=0) * noise
        return many, blocks

    def log_joint(self, model, X, y, draws):
        return glm_log_joint(model, X, y, draws)

    def bound(self, model, X, y):
        q, inner, block = model._fitted_q, model._fitted_model, block_of(model, X, y)
        shapes = moves_of(q, model.posterior == "mean_field")
        sizes = [int(np.prod(shape)) for shape in shapes.values()]
        log_units = len(y) * np.log(model.y_scale_) if self.has_unit else 0.0

        def elbo(coordinates):
            parts = np.split(coordinates, np.cumsum(sizes)[:-1])
            moves = {
                name: part.reshape(shape)
                for (name, shape), part in zip(shapes.items(), parts)
            }
            there = moved(q, moves)
            terms = inner.elbo_terms(inner.statistics(there, block), there)
            return sum(terms.values()) - log_units

        return np.zeros(sum(sizes)), elbo

    def one_step(self, model, X, y):
        inner, block, q = model._fitted_model, block_of(model, X, y), model._fitted_q
        # not at the optimum, but where steps of non-concave likelihoods are defined
        shapes = moves_of(q, model.posterior == "mean_field")
        moves = {name: np.zeros(shape) for name, shape in shapes.items()}
        moves["mean"] = np.full(shapes["mean"], 0.2)
        return inner, block, (q, moved(q, moves))

    def attributes(self, model):
        std, sd = model.coef_std_, model.intercept_std_
        out = {
            "coef_": (model.coef_, std),
            "coef_std_": (std, std),
            "weight_precision_": (model.weight_precision_, model.weight_precision_),
        }
        if model.fit_intercept:
            out["intercept_"] = (model.intercept_, sd)
            out["intercept_std_"] = (sd, sd)
        if self.data.family in WITH_DISPERSION:
            out["dispersion_"] = (model.dispersion_, model.dispersion_)
        return out

    def moments(self, model):
        coef, sd = model.coef_, model.coef_std_
        covariance = model.coef_covariance_
        if not isinstance(covariance, np.ndarray):
            covariance = covariance @ np.eye(coef.size)
        if coef.ndim == 2:  # those of each class; test_glm has the others
            K, p = coef.shape
            covariance = np.stack(
                [covariance[k * p : (k + 1) * p, k * p : (k + 1) * p] for k in range(K)]
            )
        out = {
            "coef": (coef, sd, covariance),
            "intercept": (model.intercept_, model.intercept_std_, None),
            "weight_precision": (model.weight_precision_, None, None),
        }
        if self.data.family in WITH_DISPERSION:
            out["dispersion"] = (model.dispersion_, None, None)
        return out

    def outputs(self, model, X):
        if hasattr(model, "classes_"):
            return model.predict_proba(X), model.decision_function(X)
        return model.predict(X, return_std=True)

    def rescaled(self, case, X, y, c):
        def in_column(j):
            Xc = X.copy()
            Xc[:, j] *= c
            return Xc

        def same(fit, X):
            return self.outputs(fit, X)

        yield case.estimator(), in_column(1), y, 0.0, same
        roles = roles_of(case.estimator())
        centre = case.params.get("intercept_mean")
        # The time unit of the rates; its log is added, which is exact for none.
        if "exposure" in roles and np.log2(c) % 1:
            known = {} if centre is None else {"intercept_mean": centre - np.log(c)}
            Xc = in_column(roles["exposure"])
            yield case.estimator(**known), Xc, y, 0.0, same
        if not self.has_unit:
            return
        known = {}
        if case.params.get("dispersion") is not None:
            known["dispersion"] = case.params["dispersion"] * c**2
        if centre is not None:
            known["intercept_mean"] = centre * c

        def back(fit, X):
            return tuple(out / c for out in self.outputs(fit, X))

        Xc = in_column(roles["offset"]) if "offset" in roles else X
        yield case.estimator(**known), Xc, y * c, -len(y) * np.log(c), back

    def shifted(self, case, X, y, shift):
        if not case.params.get("fit_intercept", True):
            return None
        Xs = self.moved(case.estimator(), X, shift)
        if not self.has_unit:
            return case.estimator(), Xs, y, self.outputs
        known = {}
        if case.params.get("intercept_mean") is not None:
            known["intercept_mean"] = case.params["intercept_mean"] + shift

        def back(fit, X):
            mean, std = self.outputs(fit, X)
            return (mean - shift) / std, std

        return case.estimator(**known), Xs, y + shift, back

    def moved(self, estimator, X, shift):
        features = np.setdiff1d(
            np.arange(X.shape[1]), list(roles_of(estimator).values())
        )
        X = X.copy()
        X[:, features] += shift
        return X

    def unusable(self, X, y):
        bad = X.copy()
        bad[0, 0] = np.nan
        yield (bad, y), {}, "NaN"
        yield (X, y[:-1]), {}, "inconsistent"
        yield (X, y), {"sample_weight": -np.ones(len(X))}, "egative"
        if self.data.family in ("poisson", "negative_binomial"):
            bad = y.copy()
            bad[0] = -1.0
            yield (X, bad), {}, "(?i)negative"
        elif not self.has_unit:
            yield (X, np.linspace(0.0, 1.0, len(y))), {}, "label type"
        for role, column in self.data.roles.items():
            bad = X.copy()
            bad[2, column] = np.nan if role == "offset" else 0.0
            yield (bad, y), {}, role


# -- data ------------------------------------------------------------------------------


@dataclass(frozen=True)
class rows_of_responses:
    """Correlated columns, far from the origin, and a response to them.

    Attributes
    ----------
    family : str, of the regressor, or "classes"
    n : int, of rows
    n_features : int
    n_classes : int, as often as each other
    with_roles : names of the columns with a role, which stand last
    """

    family: str
    n: int = 24
    n_features: int = 3
    n_classes: int = 2
    with_roles: tuple = ()

    @property
    def roles(self):
        return {role: self.n_features + i for i, role in enumerate(self.with_roles)}

    def __call__(self, rng):
        n, p = self.n, self.n_features
        Z = rng.standard_normal((n, p))
        Z[:, 1] = 0.6 * Z[:, 0] + 0.8 * Z[:, 1]
        w = rng.standard_normal(p)
        signal = Z @ w / np.linalg.norm(w)
        X = Z * np.logspace(-1, 1, p) + 3.0
        columns, added = [X], np.zeros(n)
        if "offset" in self.with_roles:
            columns.append(0.5 * rng.standard_normal((n, 1)))
            added += columns[-1][:, 0]
        if "exposure" in self.with_roles:
            columns.append(rng.uniform(0.5, 4.0, (n, 1)))
            added += np.log(columns[-1][:, 0])
        return np.hstack(columns), self.response(signal, added, rng)

    def response(self, signal, added, rng):
        n = self.n
        if self.family == "classes":
            utility = 1.5 * signal + rng.logistic(size=n)
            return np.argsort(np.argsort(utility)) * self.n_classes // n
        rate = np.exp(1.0 + 0.7 * signal + added)
        if self.family == "poisson":
            return rng.poisson(rate).astype(float)
        if self.family == "negative_binomial":
            return rng.poisson(rate * rng.gamma(2.0, 0.5, n)).astype(float)
        noise = rng.standard_normal(n)
        if self.family == "student_t":
            noise = rng.standard_t(3.0, n)
        return 5.0 + 3.0 * (signal + added + 0.7 * noise)


# -- rows ------------------------------------------------------------------------------

FIXED = {"weight_precision": 0.4}
ARD = {"prior": "ard"}
EACH_FIXED = {"weight_precision": [0.5, 2.0, 0.3]}


def classifiers():
    """(name, parameters, data) of VariationalLogisticClassifier."""
    wide = {"n": 6, "n_features": 9}
    three = {"n_classes": 3}
    # In this order few rows are the first with a choice: those of sklearn's checks.
    yield "logit-tall-ridge", {}, {}
    yield "probit-wide-ard", {"link": "probit", **ARD}, wide
    yield "logit-tall-ard", ARD, {"n": 30}
    yield "logit-wide-ridge", {}, wide
    yield "logit-origin-fixed", {"fit_intercept": False, **EACH_FIXED}, {}
    yield (
        "probit-tall-fixed",
        {"link": "probit", "intercept_precision": 0.2, **FIXED},
        {},
    )
    yield "softmax-tall-ridge", {"weight_precision_prior": (3.0, 2.0)}, three
    yield "softmax-tall-ard", ARD, {"n_features": 2, **three}
    yield "softmax-wide-fixed", FIXED, {"n": 9, "n_features": 12, **three}


def regressors():
    """(name, family, parameters, data) of VariationalGLMRegressor."""
    wide = {"n": 6, "n_features": 9}
    both, one = {"with_roles": ROLES}, {"with_roles": ("offset",)}
    yield "tall-ridge", "poisson", {}, {}
    prior = {"dispersion_prior": (2.0, 0.8), "intercept_mean": 0.5}
    yield "roles-ard", "negative_binomial", {**ARD, **prior}, both
    yield "roles-ard", "poisson", ARD, both
    yield "wide-ridge", "poisson", {}, wide
    yield "tall-ridge", "negative_binomial", {}, {}
    yield "known-fixed", "negative_binomial", {"dispersion": 0.5, **FIXED}, {}
    yield "tall-ridge", "gaussian", {}, {}
    yield "offset-ard", "gaussian", {**ARD, "intercept_mean": 4.0}, one
    yield "known-fixed", "gaussian", {"dispersion": 3.0, **FIXED}, {}
    yield "tall-ridge", "student_t", {}, {}
    yield "wide-ridge", "student_t", {"dof": 6.0}, wide
    yield "offset-ard", "student_t", {"dof": 3.0, "dispersion": 2.0, **ARD}, one


def glm_cases():
    for name, params, of_data in classifiers():
        data = rows_of_responses("classes", **of_data)
        yield from _both(
            f"logistic-{name}", skvi.VariationalLogisticClassifier, params, data
        )
    for name, family, params, of_data in regressors():
        data = rows_of_responses(family, **of_data)
        params = {"family": family, **data.roles, **params}
        yield from _both(
            f"glm-{family}-{name}", skvi.VariationalGLMRegressor, params, data
        )


def _both(name, make, params, data):
    known = params.get("dispersion") is not None and "weight_precision" in params
    for posterior in ("structured", "mean_field"):
        structured = posterior == "structured"
        yield Case(
            name=f"{name}-{posterior}",
            make=make,
            # Fits end where rises are rounding: small data show any other gap.
            params={"posterior": posterior, **params},
            data=data,
            kind=GLMKind(data),
            exact=structured and known and data.family == "gaussian",
            larger=None if structured else f"{name}-structured",
        )
