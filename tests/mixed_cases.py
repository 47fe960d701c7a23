"""Rows of mixed-effects models, their log joint, and their bound in closed form.

Everything here is in the data's units and from scipy.stats alone. What q is, is read
off the public log density of the posterior, so that nothing is taken from inside.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special, stats
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import StandardScaler

import skvi
from kinds import Case, Kind

ROLES = ("offset", "exposure", "trials")
GRID = np.linspace(-10.0, 10.0, 201)  # of the trapezoidal rule, in sds of a predictor


# -- the model -------------------------------------------------------------------------


def is_classifier(model):
    return not hasattr(model, "family")


def factors_of(model):
    """{name: (positions of its columns, positions of its slopes)}, of an array X."""
    groups = model.groups
    if groups is None:
        return {}
    entries = groups if isinstance(groups, list) else [groups]
    out = {}
    for entry in entries:
        columns = list(entry) if isinstance(entry, tuple) else [entry]
        slopes = model.random_slopes
        if isinstance(slopes, dict):
            slopes = slopes.get(entry)
        if slopes is None:
            slopes = []
        slopes = slopes if isinstance(slopes, list) else [slopes]
        out[":".join(f"x{column}" for column in columns)] = (columns, slopes)
    return out


def taken_apart(model, X):
    """(features, added to the predictor, trials, {name: (codes, slopes)}) of an array.

    A factor's codes count its levels in their sorted order; its slopes begin with the
    ones of the intercept.
    """
    used, added, trials = set(), np.zeros(len(X)), np.ones(len(X))
    for role in ROLES:
        column = getattr(model, role, None)
        if column is None:
            continue
        used.add(column)
        if role == "trials":
            trials = X[:, column]
        else:
            added += X[:, column] if role == "offset" else np.log(X[:, column])
    factors = {}
    for name, (columns, slopes) in factors_of(model).items():
        _, codes = np.unique(X[:, columns], axis=0, return_inverse=True)
        factors[name] = codes.ravel(), np.column_stack([np.ones(len(X)), X[:, slopes]])
        used |= set(columns)
    return np.delete(X, sorted(used), axis=1), added, trials, factors


def units_of(model, X):
    """{factor: units of its effects}: of y, and of y per unit of a slope's column."""
    x, *_ = taken_apart(model, X)
    features = np.setdiff1d(
        np.arange(X.shape[1]),
        [c for columns, _ in factors_of(model).values() for c in columns]
        + [getattr(model, r) for r in ROLES if getattr(model, r, None) is not None],
    )
    _, scale = centre_and_scale(model, x)
    y_scale = getattr(model, "y_scale_", 1.0)
    return {
        name: y_scale
        / np.append(1.0, [scale[np.searchsorted(features, s)] for s in slopes])
        for name, (_, slopes) in factors_of(model).items()
    }


def centre_and_scale(model, x):
    if not model.fit_intercept:
        return np.zeros(x.shape[1]), np.sqrt(np.mean(x**2, axis=0))
    return x.mean(axis=0), x.std(axis=0)


def log_lkj(correlations, concentration):
    """``log LKJ`` of (n, q, q): Lewandowski, Kurowicka and Joe (2009), eq. 16."""
    q = correlations.shape[-1]
    k = np.arange(1, q)
    half = concentration + 0.5 * (q - k - 1.0)
    log_normalizer = np.sum((2.0 * concentration - 2.0 + q - k) * (q - k)) * np.log(2.0)
    log_normalizer += np.sum((q - k) * special.betaln(half, half))
    log_det = np.linalg.slogdet(correlations)[1]
    return (concentration - 1.0) * log_det - log_normalizer


def law_of_sd(prior, unit=1.0):
    """(scipy's law of (about) a sd, log of what its density is multiplied by)."""
    kind, scale, *dof = prior
    scale = np.asarray(scale, dtype=float) * unit
    if kind == "half_normal":
        return stats.halfnorm(scale=scale), 0.0
    if kind == "half_cauchy":
        return stats.halfcauchy(scale=scale), 0.0
    assert kind == "half_t"
    return stats.t(dof[0], scale=scale), np.log(2.0)  # the half of it


def log_prior_of_covariance(prior, concentration, unit, covariance):
    """``log p(Sigma)`` at draws (n, q, q) in the units of the effects."""
    n, q, _ = covariance.shape
    if prior[0] == "inverse_wishart":
        _, scale, dof = prior
        scale = np.broadcast_to(scale, q) * unit
        if q == 1:
            return stats.invgamma.logpdf(
                covariance[:, 0, 0], dof / 2.0, scale=dof * scale[0] ** 2 / 2.0
            )
        law = stats.invwishart(dof, dof * np.diag(scale**2))
        return law.logpdf(np.moveaxis(covariance, 0, -1)).reshape(n)
    sd = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    law, log_factor = law_of_sd(prior, unit)
    total = (law.logpdf(sd) + log_factor).sum(axis=1)
    if q > 1:
        correlations = covariance / (sd[:, :, None] * sd[:, None, :])
        total += log_lkj(correlations, concentration)
    # d Sigma = 2^q prod sd^q d sd d R
    return total - q * np.log(2.0) - q * np.log(sd).sum(axis=1)


def log_normal(effects, covariance):
    """``log N(u; 0, Sigma)`` summed over levels: (n, J, q) at (n, q, q)."""
    root = np.linalg.cholesky(covariance)
    white = np.linalg.solve(root[:, None], effects[..., None])[..., 0]
    diagonal = np.diagonal(root, axis1=1, axis2=2)
    return stats.norm.logpdf(white).sum(axis=(1, 2)) - effects.shape[1] * np.log(
        diagonal
    ).sum(axis=1)


def log_likelihood(model, y, eta, trials, noise):
    """``log p(y | eta)``, elementwise for eta of shape (..., n)."""
    if is_classifier(model):
        k = np.searchsorted(model.classes_, y)
        law = stats.norm if model.link == "probit" else stats.logistic
        return law.logcdf((2.0 * k - 1.0) * eta)
    if model.family == "poisson":
        return stats.poisson.logpmf(y, np.exp(eta))
    if model.family == "binomial":
        log_ways = stats.binom.logpmf(y, trials, 0.5) + trials * np.log(2.0)
        # binom.logpmf at expit(eta) would be minus infinity where that rounds to 1
        log_p, log_rest = stats.logistic.logcdf(eta), stats.logistic.logsf(eta)
        return log_ways + y * log_p + (trials - y) * log_rest
    return stats.norm.logpdf(y, eta, np.sqrt(noise))


def predictors(model, X, draws):
    """The linear predictor of every row at every draw, (n_draws, n)."""
    x, added, _, factors = taken_apart(model, X)
    n = len(draws["coef"])
    eta = draws["coef"].reshape(n, -1) @ x.T + draws["intercept"].reshape(n, 1) + added
    for name, (codes, slopes) in factors.items():
        eta += np.einsum("sij,ij->si", draws[f"effects_{name}"][:, codes], slopes)
    return eta


def mixed_log_joint(model, X, y, draws):
    """``log p(y, z)`` by the models' docstrings."""
    x, _, trials, factors = taken_apart(model, X)
    mean, scale = centre_and_scale(model, x)
    n, y_scale = len(draws["coef"]), getattr(model, "y_scale_", 1.0)
    coef, intercept = draws["coef"].reshape(n, -1), draws["intercept"].ravel()
    noise, total = None, np.zeros(n)
    if "noise_variance" in draws:
        noise = draws["noise_variance"][:, None]
        total += log_prior_of_covariance(
            model.noise_sd_prior_, 1.0, np.array([y_scale]), noise[:, :, None]
        )
    eta = predictors(model, X, draws)
    total += log_likelihood(model, y, eta, trials, noise).sum(axis=1)
    lam = np.broadcast_to(model.weight_precision_, coef.shape[1])
    spread = y_scale / (np.sqrt(lam) * scale)
    total += stats.norm.logpdf(coef, 0.0, spread).sum(axis=1)
    if model.fit_intercept:
        level = intercept + coef @ mean
        np.testing.assert_allclose(level, draws["level"].ravel(), rtol=1e-6, atol=1e-9)
        centre = getattr(model, "intercept_mean_", 0.0)
        total += stats.norm.logpdf(level, centre, model.intercept_precision_**-0.5)
    else:
        assert np.all(intercept == 0.0)
    unit = units_of(model, X)
    for name in factors:
        covariance = draws[f"covariance_{name}"]
        total += log_normal(draws[f"effects_{name}"], covariance)
        total += log_prior_of_covariance(
            model.sd_prior_[name],
            model.correlation_concentration,
            unit[name],
            covariance,
        )
    return total


# -- q, read off its log density -------------------------------------------------------


@dataclass
class Factors:
    """The parameters of q in the data's units.

    Attributes
    ----------
    mean, covariance : of the joint Gaussian over coef, level and all effects
    blocks : list of arrays, the positions of what belongs together: the fixed effects,
        then the effects of each level
    laws : {factor: (dof, scale matrix)} of its inverse Wishart
    noise : (dof, scale) of the noise variance's, or None
    """

    mean: np.ndarray
    covariance: np.ndarray
    blocks: list
    laws: dict
    noise: tuple | None


def effects_of(model):
    """Names of draws, in the user's order of factors."""
    return [f"effects_{name}" for name in model.levels_]


def as_draws(model, theta, rest):
    """Draws with these fixed and random effects, all else being that of one draw."""
    n = len(theta)
    p = np.size(model.coef_)
    out = {name: np.repeat(value, n, axis=0) for name, value in rest.items()}
    out["coef"] = theta[:, :p].reshape(out["coef"].shape)
    if model.fit_intercept:
        level = theta[:, p]
        out["level"] = level.reshape(out["level"].shape)
        intercept = level - theta[:, :p] @ model.X_offset_
        out["intercept"] = intercept.reshape(out["intercept"].shape)
    start = p + bool(model.fit_intercept)
    for name in effects_of(model):
        size = rest[name][0].size
        out[name] = theta[:, start : start + size].reshape(out[name].shape)
        start += size
    assert start == theta.shape[1]
    return out


def as_theta(model, draws):
    """The other way round."""
    n = len(draws["coef"])
    parts = [draws["coef"].reshape(n, -1)]
    if model.fit_intercept:
        parts.append(draws["level"].reshape(n, 1))
    parts += [draws[name].reshape(n, -1) for name in effects_of(model)]
    return np.column_stack(parts)


def log_q(model, draws):
    return model.posterior_.log_density(draws)


def gaussian_of(model, draws, rest):
    """(mean, covariance) of a log density that is a quadratic function."""
    theta = as_theta(model, draws)
    mean, sd = theta.mean(axis=0), theta.std(axis=0)
    d = len(sd)
    rows, columns = np.triu_indices(d)
    points = np.zeros((1 + 2 * d + len(rows), d))
    points[1 : d + 1], points[d + 1 : 2 * d + 1] = np.eye(d), -np.eye(d)
    pairs = points[2 * d + 1 :]
    np.add.at(pairs, (np.arange(len(rows)), rows), 1.0)
    np.add.at(pairs, (np.arange(len(rows)), columns), 1.0)
    values = log_q(model, as_draws(model, mean + sd * points, rest))
    here, up, down, both = np.split(values, [1, d + 1, 2 * d + 1])
    precision = np.zeros((d, d))
    precision[rows, columns] = -(both - up[rows] - up[columns] + here)
    precision[columns, rows] = precision[rows, columns]
    gradient = 0.5 * (up - down)
    covariance = np.linalg.inv(precision)
    return mean + sd * (covariance @ gradient), covariance * np.outer(sd, sd)


def inverse_wishart_of(log_density, matrices):
    """(dof, scale matrix) of a log density of (n, q, q) known up to a constant."""
    n, q, _ = matrices.shape
    unit = np.sqrt(np.median(np.diagonal(matrices, axis1=1, axis2=2), axis=0))
    scaled = matrices / np.outer(unit, unit)
    rows, columns = np.tril_indices(q)
    inverse = np.linalg.inv(scaled)[:, rows, columns]
    times = np.where(rows == columns, -0.5, -1.0)
    log_det = np.linalg.slogdet(scaled)[1]
    design = np.column_stack([np.ones(n), -0.5 * log_det, inverse * times])
    values = log_density(matrices)
    answer, *_ = np.linalg.lstsq(design, values, rcond=None)
    np.testing.assert_allclose(design @ answer, values, rtol=1e-8, atol=1e-8)
    scale = np.zeros((q, q))
    scale[rows, columns] = scale[columns, rows] = answer[2:]
    return answer[1] - q - 1.0, scale * np.outer(unit, unit)


def factors_of_q(model):
    """The parameters of the fitted q."""
    draws = model.sample_posterior(400, random_state=5)
    rest = {name: value[:1] for name, value in draws.items()}
    mean, covariance = gaussian_of(model, draws, rest)

    def law_of(name):
        def log_density(matrices):
            there = {k: np.repeat(v, len(matrices), axis=0) for k, v in rest.items()}
            return log_q(model, {**there, name: matrices.reshape(there[name].shape)})

        matrices = draws[name][:30].reshape(30, *(draws[name].shape[1:] or (1, 1)))
        return inverse_wishart_of(log_density, matrices)

    laws = {name: law_of(f"covariance_{name}") for name in model.levels_}
    noise = None
    if "noise_variance" in draws:
        dof, scale = law_of("noise_variance")
        noise = dof, scale[0, 0]
    start = np.size(model.coef_) + bool(model.fit_intercept)
    blocks = [np.arange(start)]
    for name in effects_of(model):
        J, q = draws[name].shape[1:]
        blocks += list(start + np.arange(J * q).reshape(J, q))
        start += J * q
    return Factors(mean, covariance, blocks, laws, noise)


# -- the bound in closed form ----------------------------------------------------------


def over_inverse_gamma(function, shape, scale):
    """``E[function(x)]`` of an inverse gamma, to rounding where that is smooth."""
    law = stats.invgamma(shape, scale=scale)
    # The log of x has tails that fall exponentially, and faster: the trapezoidal rule.
    log_x = np.linspace(*np.log([law.ppf(1e-18), law.isf(1e-18)]), 601)
    weight = np.exp(law.logpdf(np.exp(log_x)) + log_x)
    return np.sum(weight * function(np.exp(log_x))) * (log_x[1] - log_x[0])


def expected_log_prior_of_covariance(prior, concentration, unit, dof, scale):
    """``E[log p(Sigma)]`` under an inverse Wishart of this dof and scale matrix."""
    q = len(scale)
    j = np.arange(q)
    log_det = np.linalg.slogdet(scale)[1] - q * np.log(2.0)
    log_det -= special.digamma(0.5 * (dof - j)).sum()
    shape, rates = 0.5 * (dof - q + 1.0), 0.5 * np.diag(scale)  # of the variances
    if prior[0] == "inverse_wishart":
        _, width, nu = prior
        psi = nu * (np.broadcast_to(width, q) * unit) ** 2
        value = 0.5 * nu * (np.log(psi).sum() - q * np.log(2.0))
        value -= special.multigammaln(0.5 * nu, q)
        trace = dof * np.sum(np.diag(np.linalg.inv(scale)) * psi)
        return value - 0.5 * (nu + q + 1.0) * log_det - 0.5 * trace
    mean_logs = np.log(rates) - special.digamma(shape)
    value = -q * np.log(2.0) - 0.5 * q * mean_logs.sum()
    law, log_factor = law_of_sd(prior, unit)
    widths = np.broadcast_to(law.kwds["scale"], q)
    for width, rate in zip(widths, rates):
        if prior[0] == "half_normal":
            # infinite for heavy tails, which no sum of nodes would tell
            mean = rate / (shape - 1.0) if shape > 1.0 else np.inf
            value += 0.5 * np.log(2.0 / np.pi) - np.log(width) - 0.5 * mean / width**2
            continue
        one = type(law)(law.dist, *law.args, scale=width)
        value += log_factor + over_inverse_gamma(
            lambda v, one=one: one.logpdf(np.sqrt(v)), shape, rate
        )
    if q > 1:
        value += (concentration - 1.0) * (log_det - mean_logs.sum())
        value += log_lkj(np.eye(q)[None], concentration)[0]  # minus its normaliser
    return value


def entropy_of_inverse_wishart(dof, scale):
    """By hand: scipy's has another value than the mean of its own log density."""
    q = len(scale)
    log_det = np.linalg.slogdet(scale)[1] - q * np.log(2.0)
    mean_log_det = log_det - special.digamma(0.5 * (dof - np.arange(q))).sum()
    entropy = special.multigammaln(0.5 * dof, q) - 0.5 * dof * log_det
    return entropy + 0.5 * (dof + q + 1.0) * mean_log_det + 0.5 * dof * q


def expected_log_likelihood(model, y, mean, variance, trials, noise):
    """``E[log p(y | eta)]`` summed over rows whose eta are normal."""
    if is_classifier(model) or model.family == "binomial":
        eta = mean + np.sqrt(variance) * GRID[:, None]
        weight = stats.norm.pdf(GRID) * (GRID[1] - GRID[0])
        return np.sum(weight @ log_likelihood(model, y, eta, trials, None))
    if model.family == "poisson":
        rate = np.exp(mean + 0.5 * variance)
        return np.sum(y * mean - rate - special.gammaln(y + 1.0))
    dof, scale = noise
    mean_log = np.log(0.5 * scale) - special.digamma(0.5 * dof)
    square = dof / scale * ((y - mean) ** 2 + variance)
    return np.sum(-0.5 * (np.log(2.0 * np.pi) + mean_log + square))


def closed_bound(model, X, y, q):
    """The ELBO of any q of the model, without looking at how it was found."""
    x, added, trials, factors = taken_apart(model, X)
    mean, scale = centre_and_scale(model, x)
    p, y_scale = x.shape[1], getattr(model, "y_scale_", 1.0)
    design = [x - mean]
    if model.fit_intercept:
        design.append(np.ones((len(X), 1)))
    lam = np.broadcast_to(model.weight_precision_, p)
    variance = np.diag(q.covariance)
    prior_sd, centre = y_scale / (np.sqrt(lam) * scale), np.zeros(p)
    if model.fit_intercept:
        prior_sd = np.append(prior_sd, model.intercept_precision_**-0.5)
        centre = np.append(centre, getattr(model, "intercept_mean_", 0.0))
    k = len(prior_sd)
    total = stats.norm.logpdf(q.mean[:k], centre, prior_sd).sum()
    total -= 0.5 * np.sum(variance[:k] / prior_sd**2)
    start, unit = k, units_of(model, X)
    for name, (codes, slopes) in factors.items():
        dof, psi = q.laws[name]
        J, m = codes.max() + 1, len(psi)
        block = np.zeros((len(X), J, m))
        block[np.arange(len(X)), codes] = slopes
        design.append(block.reshape(len(X), -1))
        at = start + np.arange(J * m).reshape(J, m)
        start += J * m
        u = q.mean[at]
        squares = u.T @ u + sum(q.covariance[np.ix_(i, i)] for i in at)
        log_det = np.linalg.slogdet(psi)[1] - m * np.log(2.0)
        log_det -= special.digamma(0.5 * (dof - np.arange(m))).sum()
        total -= 0.5 * J * (m * np.log(2.0 * np.pi) + log_det)
        total -= 0.5 * dof * np.trace(np.linalg.solve(psi, squares))
        total += expected_log_prior_of_covariance(
            model.sd_prior_[name],
            model.correlation_concentration,
            unit[name],
            dof,
            psi,
        )
        total += entropy_of_inverse_wishart(dof, psi)
    A = np.hstack(design)
    of_rows = np.einsum("ij,jk,ik->i", A, q.covariance, A)
    total += expected_log_likelihood(
        model, y, added + A @ q.mean, of_rows, trials, q.noise
    )
    if q.noise is not None:
        dof, scale = q.noise
        psi = np.array([[scale]])
        total += expected_log_prior_of_covariance(
            model.noise_sd_prior_, 1.0, np.array([y_scale]), dof, psi
        )
        total += entropy_of_inverse_wishart(dof, psi)
    d = len(q.mean)
    log_det = np.linalg.slogdet(q.covariance)[1]
    return total + 0.5 * (d * (1.0 + np.log(2.0 * np.pi)) + log_det)


def shapes_of_moves(q, joint):
    """{what of q can be moved: shape}, each move in about posterior sds."""
    d = len(q.mean)
    root = sum(len(block) ** 2 for block in q.blocks)
    shapes = {"mean": (d,), "root": (d, d) if joint else (root,)}
    for name, (_, psi) in q.laws.items():
        shapes[f"dof {name}"], shapes[f"scale {name}"] = (), psi.shape
    if q.noise is not None:
        shapes["dof"] = shapes["scale"] = ()
    return shapes


def moved_root(covariance, move):
    """R (1 + M) (1 + M)' R' with a lower triangular M, R being the root."""
    d = len(covariance)
    root = np.linalg.cholesky(covariance)
    root = root @ (np.eye(d) + np.tril(move.reshape(d, d)) / np.sqrt(d))
    return root @ root.T


def moved(q, moves):
    """q with each of its factors moved, and still of its family."""
    covariance = np.zeros_like(q.covariance)
    if moves["root"].ndim == 2:
        covariance = moved_root(q.covariance, moves["root"])
    else:
        cuts = np.cumsum([len(block) ** 2 for block in q.blocks])[:-1]
        for block, part in zip(q.blocks, np.split(moves["root"], cuts)):
            at = np.ix_(block, block)
            covariance[at] = moved_root(q.covariance[at], part)
    mean = q.mean + np.sqrt(np.diag(q.covariance)) * moves["mean"]

    def law(dof, psi, of_dof, of_psi):
        # The log of a variance moves by about the root of 2 / dof.
        least = len(psi) - 1.0
        dof = least + (dof - least) * np.exp(np.sqrt(2.0 / dof) * of_dof)
        return dof, moved_root(psi, np.sqrt(2.0 / dof) * of_psi)

    laws = {
        name: law(*of, moves[f"dof {name}"], moves[f"scale {name}"])
        for name, of in q.laws.items()
    }
    noise = q.noise
    if noise is not None:
        dof, psi = law(
            noise[0],
            np.array([[noise[1]]]),
            moves["dof"],
            np.reshape(moves["scale"], (1, 1)),
        )
        noise = dof, psi[0, 0]
    return Factors(mean, covariance, q.blocks, laws, noise)


# -- what the contract has to know -----------------------------------------------------


class MixedKind(Kind):
    # Rounding may end a climb an iteration earlier or later.
    reordering = weighting = 1e-7
    streams = False

    def __init__(self, data):
        self.data = data

    @property
    def has_unit(self):
        return self.data.family == "gaussian"

    def first_step(self):
        features = list(range(self.data.n_features))
        return ColumnTransformer(
            [("scale", StandardScaler(), features)], remainder="passthrough"
        )

    def quick(self, estimator):
        """Without the priors of factors by name: the columns get other names."""
        if isinstance(estimator.sd_prior, dict):
            estimator.set_params(sd_prior=None)
        return estimator

    def families_differ(self, estimator):
        return estimator.groups is not None

    def log_joint(self, model, X, y, draws):
        return mixed_log_joint(model, X, y, draws)

    def bound(self, model, X, y):
        q = factors_of_q(model)
        shapes = shapes_of_moves(q, model.posterior == "structured")
        sizes = [int(np.prod(shape)) for shape in shapes.values()]

        def elbo(coordinates):
            parts = np.split(coordinates, np.cumsum(sizes)[:-1])
            moves = {
                name: part.reshape(shape)
                for (name, shape), part in zip(shapes.items(), parts)
            }
            return closed_bound(model, X, y, moved(q, moves))

        return np.zeros(sum(sizes)), elbo

    def attributes(self, model):
        std, sd = model.coef_std_, model.intercept_std_
        out = {"coef_": (model.coef_, std), "coef_std_": (std, std)}
        if model.fit_intercept:
            out["intercept_"] = (model.intercept_, sd)
            out["intercept_std_"] = (sd, sd)
        for name in factors_of(model):
            table = model.random_effects_[name]
            out[f"effects of {name}"] = (table.mean, table.sd)
            out[f"sds of {name}"] = (table.sd, table.sd)
        table = model.variance_components_
        for name, mean, sd in zip(table.names, table.log_mean, table.log_sd):
            if np.isfinite(sd):
                out[f"log {name}"], out[f"sd of {name}"] = (mean, sd), (sd, sd)
        return out

    def moments(self, model):
        coef, sd = np.ravel(model.coef_), np.ravel(model.coef_std_)
        level = float(np.ravel(model.intercept_)[0])
        out = {
            "coef": (coef, sd, model.coef_covariance_),
            "intercept": (level, float(np.ravel(model.intercept_std_)[0]), None),
        }
        for name in factors_of(model):
            table = model.random_effects_[name]
            out[f"effects_{name}"] = (table.mean, table.sd, None)
            if np.all(np.isfinite(model.covariances_[name])):
                out[f"covariance_{name}"] = (model.covariances_[name], None, None)
        if self.has_unit:
            out["noise_variance"] = (model.noise_variance_, None, None)
        return out

    def outputs(self, model, X):
        if is_classifier(model):
            return model.predict_proba(X), model.decision_function(X)
        return model.predict(X, return_std=True)

    def rescaled(self, case, X, y, c):
        def in_columns(*columns):
            Xc = X.copy()
            Xc[:, columns] *= c
            return Xc

        def same(fit, X):
            return self.outputs(fit, X)

        # A column's unit (slopes among them), and what levels are called.
        yield case.estimator(), in_columns(1, *self.data.groups), y, 0.0, same
        roles = self.data.roles
        centre = case.params.get("intercept_mean")
        # The time unit of the rates; its log is added, which is exact for none.
        if "exposure" in roles and np.log2(c) % 1:
            known = {} if centre is None else {"intercept_mean": centre - np.log(c)}
            Xc = in_columns(roles["exposure"])
            yield case.estimator(**known), Xc, y, 0.0, same
        if not self.has_unit:
            return
        known = {} if centre is None else {"intercept_mean": centre * c}

        def back(fit, X):
            return tuple(out / c for out in self.outputs(fit, X))

        Xc = in_columns(roles["offset"]) if "offset" in roles else X
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
        """Shifted features, but for slopes: a shift there moves what u_0 means."""
        slopes = {s for _, slopes in factors_of(estimator).values() for s in slopes}
        X = X.copy()
        X[:, [j for j in range(self.data.n_features) if j not in slopes]] += shift
        return X

    def unusable(self, X, y):
        bad = X.copy()
        bad[0, 0] = np.nan
        yield (bad, y), {}, "NaN"
        yield (X, y[:-1]), {}, "inconsistent"
        yield (X, y), {"sample_weight": -np.ones(len(X))}, "egative"
        if self.data.family == "classes":
            yield (X, np.linspace(0.0, 1.0, len(y))), {}, "label type"
        elif not self.has_unit:
            bad = y.copy()
            bad[0] = -1.0
            yield (X, bad), {}, "(?i)negative"
        for role, column in self.data.roles.items():
            bad = X.copy()
            bad[2, column] = np.nan if role == "offset" else -1.0
            yield (bad, y), {}, role


# -- data ------------------------------------------------------------------------------


@dataclass(frozen=True)
class rows_of_groups:
    """Rows of features, of groups' codes, of roles; groups shift what is answered.

    Attributes
    ----------
    family : str, of the regressor, or "classes"
    n_groups : levels of the one or two columns of codes, which follow the features
    with_roles : names of the columns with a role, which stand last
    """

    family: str
    n: int = 30
    n_features: int = 2
    n_groups: tuple = ()
    with_roles: tuple = ()

    @property
    def groups(self):
        return tuple(self.n_features + i for i in range(len(self.n_groups)))

    @property
    def roles(self):
        start = self.n_features + len(self.n_groups)
        return {role: start + i for i, role in enumerate(self.with_roles)}

    def __call__(self, rng):
        n, p = self.n, self.n_features
        Z = rng.standard_normal((n, p))
        Z[:, 1] = 0.6 * Z[:, 0] + 0.8 * Z[:, 1]
        signal = Z @ np.full(p, 0.5)
        columns, added = [Z * np.logspace(-1, 1, p) + 0.5], np.zeros(n)
        for J in self.n_groups:
            codes = np.append(np.arange(J), rng.integers(0, J, n - J))
            rng.shuffle(codes)
            u = 0.8 * rng.standard_normal((J, 2))
            signal += u[codes, 0] + 0.5 * u[codes, 1] * Z[:, 1]
            columns.append(codes[:, None] * 2.0 + 1.0)  # levels are names, not indices
        for role in self.with_roles:
            if role == "trials":
                column = rng.integers(1, 9, n).astype(float)
            elif role == "exposure":
                column = rng.uniform(0.5, 4.0, n)
                added += np.log(column)
            else:
                column = 0.5 * rng.standard_normal(n)
                added += column
            columns.append(column[:, None])
        X = np.hstack(columns)
        return X, self.response(signal, added, X, rng)

    def response(self, signal, added, X, rng):
        n = len(X)
        if self.family == "classes":
            return (signal + added + rng.logistic(size=n) > 0.0).astype(int)
        if self.family == "poisson":
            return rng.poisson(np.exp(0.7 + 0.6 * signal + added)).astype(float)
        if self.family == "binomial":
            trials = X[:, self.roles["trials"]] if "trials" in self.roles else 1
            p = special.expit(signal + added)
            return rng.binomial(np.asarray(trials, dtype=int), p).astype(float)
        return 5.0 + 3.0 * (signal + added + 0.5 * rng.standard_normal(n))


# -- rows ------------------------------------------------------------------------------

# {name: (levels of the columns of codes, groups, random_slopes)}; features are 0 and 1
STRUCTURES = {
    "plain": ((), None, None),
    "one": ((6,), 2, None),
    "slope": ((8,), 2, 1),
    "crossed": ((6, 5), [2, 3], None),
    "nested": ((4, 3), [2, (2, 3)], {2: [0]}),
}
T3 = {"sd_prior": ("half_t", 0.7, 3.0)}
CAUCHY = {"sd_prior": ("half_cauchy", 0.8), "correlation_concentration": 2.0}
NORMAL = {"sd_prior": ("half_normal", 0.9), "correlation_concentration": 0.7}
WISHART = {"sd_prior": ("inverse_wishart", 0.8, 3.5)}
EACH = {"sd_prior": ("half_normal", (1.2, 0.6)), "correlation_concentration": 2.0}
EACH_WISHART = {"sd_prior": ("inverse_wishart", [1.2, 0.6], 4.0)}
BY_NAME = {"sd_prior": {"x2": ("inverse_wishart", 0.7, 4.0), "x2:x3": T3["sd_prior"]}}
BINARY = {"n": 40}
TRIALS = {"with_roles": ("trials",)}
BOTH = {"with_roles": ("offset", "exposure")}


def regressors():
    """(family, structure, parameters, data) of VariationalMixedEffectsRegressor."""
    # In this order few rows are the first with a choice: those of sklearn's checks.
    yield "gaussian", "one", {}, {}
    noise = {"noise_sd_prior": ("inverse_wishart", 0.6, 3.0)}
    yield "gaussian", "plain", noise, {}
    yield "gaussian", "slope", {**EACH_WISHART, "intercept_mean": 4.0}, {}
    cauchy = {**CAUCHY, "noise_sd_prior": ("half_cauchy", 0.5)}
    yield "gaussian", "slope", {**cauchy, "fit_intercept": False}, {}
    yield "gaussian", "crossed", WISHART, {"with_roles": ("offset",)}
    yield "poisson", "one", {}, {}
    yield "poisson", "nested", BY_NAME, BOTH
    yield "binomial", "slope", EACH, {"with_roles": ("offset", "trials")}
    yield "binomial", "crossed", CAUCHY, TRIALS


def classifiers():
    """(link, structure, parameters, data) of VariationalMixedEffectsClassifier."""
    yield "logit", "one", {}, BINARY
    yield "probit", "one", WISHART, BINARY
    yield "logit", "slope", EACH_WISHART, {**BINARY, "with_roles": ("offset",)}
    yield "probit", "crossed", T3, BINARY


def other_regressors():
    """What is left of families by structures: for their bounds alone."""
    noise = {"noise_sd_prior": ("half_normal", 2.0)}
    yield "gaussian", "slope", {**EACH, "weight_precision": [0.5, 2.0]}, {}
    yield "gaussian", "nested", {**BY_NAME, **noise}, {}
    yield "poisson", "plain", {"weight_precision": 1.0}, {}
    yield "poisson", "slope", {**WISHART, "intercept_mean": 0.3}, BOTH
    yield "poisson", "crossed", NORMAL, {}
    yield "binomial", "plain", {}, TRIALS
    yield "binomial", "one", {}, TRIALS
    yield "binomial", "nested", BY_NAME, BINARY


def other_classifiers():
    yield "logit", "plain", {"intercept_precision": 0.2}, BINARY
    yield "logit", "crossed", NORMAL, BINARY
    yield "logit", "nested", BY_NAME, BINARY
    yield "probit", "plain", {"weight_precision": 2.0}, BINARY
    yield "probit", "slope", {**CAUCHY, "fit_intercept": False}, BINARY
    yield "probit", "nested", BY_NAME, BINARY


def mixed_cases():
    """Rows of the contract."""
    yield from _cases(regressors(), classifiers())


def other_cases():
    yield from _cases(other_regressors(), other_classifiers())


def _cases(of_families, of_links):
    for family, structure, params, of_data in of_families:
        params = {"family": family, **params}
        make = skvi.VariationalMixedEffectsRegressor
        yield from _both(f"mixed-{family}", make, structure, params, of_data, family)
    for link, structure, params, of_data in of_links:
        params = {"link": link, **params}
        make = skvi.VariationalMixedEffectsClassifier
        yield from _both(f"mixed-{link}", make, structure, params, of_data, "classes")


def _both(name, make, structure, params, of_data, family):
    n_groups, groups, slopes = STRUCTURES[structure]
    data = rows_of_groups(family, n_groups=n_groups, **of_data)
    params = {"groups": groups, "random_slopes": slopes, **data.roles, **params}
    if slopes is None:  # nothing to be correlated
        params.pop("correlation_concentration", None)
    kind = params.get("sd_prior", ("default",))
    prior = "each" if isinstance(kind, dict) else kind[0].replace("_", "")
    if not params.get("fit_intercept", True):
        prior += "-origin"
    for posterior in ("structured", "mean_field"):
        structured = posterior == "structured"
        yield Case(
            name=f"{name}-{structure}-{prior}-{posterior}",
            make=make,
            params={"posterior": posterior, **params},
            data=data,
            kind=MixedKind(data),
            larger=None if structured else f"{name}-{structure}-{prior}-structured",
        )
