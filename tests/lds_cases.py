"""Rows of linear dynamical systems for tests/cases.py, and their log joint and ELBO.

Everything here is in the data's units and dense: no recursion over steps is shared
with the package.
"""

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from scipy import linalg, special, stats
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import skvi
import twins
from kinds import Case, Kind, in_features, joined, sequences_of, unfolded

# The components of each structure that have a variance.
COMPONENTS = {
    "free": (),
    "local_level": ("level",),
    "local_linear_trend": ("level", "slope"),
    "seasonal": ("level", "seasonal"),
    "basic_structural": ("level", "slope", "seasonal"),
}
LOG_2PI = np.log(2.0 * np.pi)


# -- the model -------------------------------------------------------------------------


def preset_of_one(structure, period=None):
    """(A, c, the component of each state) of one series, by the textbook."""
    blocks, row, owner = [np.ones((1, 1))], [1.0], ["level"]
    if "slope" in COMPONENTS[structure]:
        blocks, row, owner = [np.array([[1.0, 1.0], [0.0, 1.0]])], [1.0, 0.0], []
        owner = ["level", "slope"]
    if "seasonal" in COMPONENTS[structure]:
        for j in range(1, period // 2 + 1):
            angle = 2.0 * np.pi * j / period
            cos, sin = np.cos(angle), np.sin(angle)
            if 2 * j == period:
                blocks.append(np.full((1, 1), -1.0))
                row.append(1.0)
            else:
                blocks.append(np.array([[cos, sin], [-sin, cos]]))
                row += [1.0, 0.0]
        owner += ["seasonal"] * (period - 1)
    return linalg.block_diag(*blocks), np.array(row), owner


def preset(structure, period, n_features):
    """(A, C, the component and the column of each state) of all columns."""
    A, row, owner = preset_of_one(structure, period)
    eye = np.eye(n_features)
    column = np.repeat(np.arange(n_features), len(row))
    return np.kron(eye, A), np.kron(eye, row), owner * n_features, column


def as_covariance(value, dim):
    value = np.asarray(value, dtype=float)
    if value.ndim == 2:
        return value
    return np.diag(np.broadcast_to(value, dim))


def known_start(model):
    """(mean, covariance) of first states, or None where their precisions are learnt."""
    if getattr(model, "initial_mean_", None) is None:
        return None
    K = len(model.initial_mean_)
    return model.initial_mean_, as_covariance(model.initial_covariance_, K)


def known_precision(model, name, dim):
    """Of the noise or of a component, (D,), where it is given; else None."""
    if name == "noise":
        value = model.noise_variance
    else:
        value = (model.state_variances or {}).get(name)
    return None if value is None else 1.0 / np.broadcast_to(value, dim).astype(float)


def parameters_of(model, draws, dim):
    """A, C (n or 1, ...), d, precisions of noise, and what Q is."""
    out = {}
    if model.structure == "free":
        A, C, d = model.transition_matrix, model.observation_matrix, model.intercept
        out["A"] = draws["transition_matrix"] if A is None else np.array(A)[None]
        if C is None:
            out["C"], out["d"] = draws["observation_matrix"], draws["intercept"]
        else:
            out["C"] = np.array(C)[None]
            out["d"] = np.zeros((1, dim)) if d is None else np.array(d)[None]
        K = out["A"].shape[-1]
        Q = model.transition_covariance
        out["Q"] = np.eye(K) if Q is None else np.array(Q)
    else:
        A, C, owner, column = preset(model.structure, model.period, dim)
        out["A"], out["C"], out["d"] = A[None], C[None], np.zeros((1, dim))
        precisions = []
        for name, s in zip(owner, column):
            known = known_precision(model, name, dim)
            each = draws[f"{name}_precision"] if known is None else known[None]
            precisions.append(np.broadcast_to(each[:, s], len(draws["states"])))
        out["q"] = np.stack(precisions, axis=1)
    if model.observations == "gaussian":
        known = known_precision(model, "noise", dim)
        out["rho"] = draws["noise_precision"] if known is None else known[None]
    return out


def log_normal(gap, precision):
    return stats.norm.logpdf(gap, scale=1.0 / np.sqrt(precision))


def log_gamma(x, prior):
    shape, rate = prior
    return stats.gamma.logpdf(x, shape, scale=1.0 / np.asarray(rate)).sum(axis=1)


def log_prior_of_parameters(model, draws, dim):
    """log p(A, alpha, C, d, rho, gamma, lambda), or of the precisions of a preset."""
    total = np.zeros(len(draws["states"]))
    if "transition_matrix" in draws:
        alpha = draws["transition_relevance"]
        total += log_gamma(alpha, model.transition_prior_)
        each = log_normal(draws["transition_matrix"], alpha[:, None])
        total += each.sum(axis=(1, 2))
    rho = np.ones((1, dim))
    if model.observations == "gaussian":
        known = known_precision(model, "noise", dim)
        rho = draws["noise_precision"] if known is None else known[None]
        if known is None:
            total += log_gamma(rho, model.noise_prior_)
    if "observation_matrix" in draws:
        gamma = draws["observation_relevance"]
        total += log_gamma(gamma, model.observation_prior_)
        C = draws["observation_matrix"]
        total += log_normal(C, rho[:, :, None] * gamma[:, None]).sum(axis=(1, 2))
        d = draws["intercept"] - model.intercept_prior_
        total += log_normal(d, rho * model.intercept_precision_prior_).sum(axis=1)
    if "initial_precision" in draws:
        total += log_gamma(draws["initial_precision"], model.initial_prior_)
    for name in COMPONENTS[model.structure]:
        if known_precision(model, name, dim) is None:
            total += log_gamma(draws[f"{name}_precision"], model.state_prior_[name])
    return total


def lds_log_joint(model, X, draws):
    """``log p(y, x, parameters)`` by the model's docstring; missing entries are out."""
    y, slices, _ = sequences_of(model, X)
    x = draws["states"]
    p = parameters_of(model, draws, y.shape[1])
    total = log_prior_of_parameters(model, draws, y.shape[1])
    start = known_start(model)
    for rows in slices:
        path = x[:, rows]
        if start is None:
            total += log_normal(path[:, 0], draws["initial_precision"]).sum(axis=1)
        else:
            total += stats.multivariate_normal(*start).logpdf(path[:, 0])
        if path.shape[1] > 1:
            step = path[:, 1:] - path[:, :-1] @ np.swapaxes(p["A"], -1, -2)
            if "q" in p:
                total += log_normal(step, p["q"][:, None]).sum(axis=(1, 2))
            else:
                zero = np.zeros(len(p["Q"]))
                each = stats.multivariate_normal(zero, p["Q"]).logpdf(step)
                total += each.reshape(len(x), -1).sum(axis=1)
    linear = x @ np.swapaxes(p["C"], -1, -2) + p["d"][:, None]
    seen = ~np.isnan(y)
    filled = np.where(seen, y, 0.0)
    if model.observations == "gaussian":
        each = log_normal(filled - linear, p["rho"][:, None])
    else:
        each = stats.poisson.logpmf(filled, np.exp(linear))
    return total + np.where(seen, each, 0.0).sum(axis=(1, 2))


# -- the bound -------------------------------------------------------------------------


def mean_of(law, name):
    return law[f"{name}_shape"] / law[f"{name}_rate"]


def mean_log_of(law, name):
    return special.digamma(law[f"{name}_shape"]) - np.log(law[f"{name}_rate"])


def minus_divergence_of(law, name, prior):
    shape, rate = np.broadcast_arrays(law[f"{name}_shape"], law[f"{name}_rate"])
    prior = [np.broadcast_to(value, shape.shape) for value in prior]
    return twins.gamma_divergence(shape, rate, *prior)


def log_det(matrix):
    return np.linalg.slogdet(matrix)[1].sum()


def expectations(model, law, dim):
    """What the ELBO of the states needs of q of the parameters."""
    e, total = {}, 0.0
    if model.structure == "free":
        K = np.shape(law["A"] if "A" in law else model.transition_matrix)[0]
        Q = model.transition_covariance
        P = np.eye(K) if Q is None else np.linalg.inv(Q)
        e["A"] = law["A"] if "A" in law else np.array(model.transition_matrix, float)
        e["P"], e["PA"], e["APA"] = P, P @ e["A"], e["A"].T @ P @ e["A"]
        e["log_P"] = log_det(P)
        if "A" in law:
            S, alpha = law["A_root"] @ law["A_root"].T, mean_of(law, "alpha")
            e["APA"] = e["APA"] + K * S
            total += minus_divergence_of(law, "alpha", model.transition_prior_)
            square = e["A"] ** 2 + np.diagonal(S)
            each = mean_log_of(law, "alpha") - LOG_2PI - alpha * square
            total += 0.5 * each.sum()
            total += 0.5 * K * (K * (LOG_2PI + 1.0) + log_det(S))
    else:
        A, C, owner, column = preset(model.structure, model.period, dim)
        K = len(A)
        precision, log_precision = np.zeros((2, K))
        for k, (name, s) in enumerate(zip(owner, column)):
            known = known_precision(model, name, dim)
            if known is None:
                precision[k] = mean_of(law, name)[s]
                log_precision[k] = mean_log_of(law, name)[s]
            else:
                precision[k], log_precision[k] = known[s], np.log(known[s])
        for name in COMPONENTS[model.structure]:
            if f"{name}_shape" in law:
                total += minus_divergence_of(law, name, model.state_prior_[name])
        P = np.diag(precision)
        e["P"], e["PA"], e["APA"] = P, P @ A, A.T @ P @ A
        e["log_P"] = log_precision.sum()
    # what is linear in the states: xi = (c, d), with a covariance given rho
    rho, log_rho = np.ones(dim), np.zeros(dim)
    if "rho_shape" in law:
        rho, log_rho = mean_of(law, "rho"), mean_log_of(law, "rho")
        total += minus_divergence_of(law, "rho", model.noise_prior_)
    elif model.observations == "gaussian":
        rho = known_precision(model, "noise", dim)
        log_rho = np.log(rho)
    S = np.zeros((dim, K + 1, K + 1))
    if "xi" in law:
        xi, S = law["xi"], law["xi_root"] @ np.swapaxes(law["xi_root"], -1, -2)
        gamma = mean_of(law, "gamma")
        total += minus_divergence_of(law, "gamma", model.observation_prior_)
        kappa = model.intercept_precision_prior_
        precision = np.append(gamma, kappa)
        log_precision = np.append(mean_log_of(law, "gamma"), np.log(kappa))
        gap = xi - np.column_stack(
            [np.zeros((dim, K)), np.broadcast_to(model.intercept_prior_, dim)]
        )
        square = rho[:, None] * gap**2 + np.diagonal(S, axis1=-2, axis2=-1)
        each = log_rho[:, None] + log_precision - LOG_2PI - precision * square
        total += 0.5 * each.sum()
        total += 0.5 * np.sum((K + 1) * (LOG_2PI + 1.0 - log_rho)) + 0.5 * log_det(S)
    elif model.structure == "free":
        d = 0.0 if model.intercept is None else model.intercept
        C = np.array(model.observation_matrix, dtype=float)
        xi = np.column_stack([C, np.broadcast_to(d, dim)])
    else:
        xi = np.column_stack([C, np.zeros(dim)])
    e.update(xi=xi, S=S, rho=rho, log_rho=log_rho)
    start = known_start(model)
    if start is None:
        precision, log_precision = mean_of(law, "lambda"), mean_log_of(law, "lambda")
        total += minus_divergence_of(law, "lambda", model.initial_prior_)
        e["start"] = np.zeros(K), np.diag(precision), log_precision.sum()
    else:
        precision = np.linalg.inv(start[1])
        e["start"] = start[0], precision, log_det(precision)
    return e, total


def prior_of_path(e, n_steps):
    """(J, h, constant): E log p(x) = -x'Jx / 2 + h'x + constant, over all steps."""
    K = len(e["P"])
    J, h = np.zeros((n_steps * K, n_steps * K)), np.zeros(n_steps * K)
    mean, precision, log_precision = e["start"]
    J[:K, :K] += precision
    h[:K] = precision @ mean
    constant = log_precision - mean @ precision @ mean - n_steps * K * LOG_2PI
    for t in range(1, n_steps):
        a, b = slice((t - 1) * K, t * K), slice(t * K, (t + 1) * K)
        J[a, a] += e["APA"]
        J[b, b] += e["P"]
        J[b, a] -= e["PA"]
        J[a, b] -= e["PA"].T
        constant += e["log_P"]
    return J, h, 0.5 * constant


def gaussian_bound(e, y, mean_field):
    """E log p(y, x) + H[q(x)] of the best q(x) of a family, in closed form."""
    K = len(e["P"])
    J, h, total = prior_of_path(e, len(y))
    for t, row in enumerate(y):
        a = slice(t * K, (t + 1) * K)
        for s in np.flatnonzero(~np.isnan(row)):
            c, S, rho = e["xi"][s, :K], e["S"][s], e["rho"][s]
            gap = row[s] - e["xi"][s, K]
            J[a, a] += rho * np.outer(c, c) + S[:K, :K]
            h[a] += rho * c * gap - S[:K, K]
            total += 0.5 * (e["log_rho"][s] - LOG_2PI - rho * gap**2 - S[K, K])
    total += 0.5 * h @ np.linalg.solve(J, h) + 0.5 * len(h) * LOG_2PI
    if mean_field:
        blocks = np.einsum("tktl->tkl", J.reshape(len(y), K, len(y), K))
        return total - 0.5 * log_det(blocks)
    return total - 0.5 * log_det(J)


def mean_of_exp(m, V, mu, S):
    """E exp(xi'(x, 1)) of independent xi ~ N(mu, S) and x ~ N(m, V)."""
    K = len(m)
    b, constant = mu[:K] + S[:K, K], mu[K] + 0.5 * S[K, K]
    inner = np.eye(K) - V @ S[:K, :K]
    if np.min(np.linalg.eigvals(inner).real) <= 0.0:
        return np.inf
    solved = np.linalg.solve(inner, np.column_stack([V @ b, m]))
    power = constant + 0.5 * b @ solved[:, 0] + b @ solved[:, 1]
    power += 0.5 * m @ S[:K, :K] @ solved[:, 1]
    return np.exp(power - 0.5 * np.linalg.slogdet(inner)[1])


def poisson_bound(e, y, mean, covariance):
    """E log p(y, x) + H[q(x)] of a Gaussian q(x): mean (T, K), covariance (TK, TK)."""
    T, K = mean.shape
    J, h, total = prior_of_path(e, T)
    m = mean.ravel()
    total += h @ m - 0.5 * (m @ J @ m + np.sum(J * covariance))
    total += 0.5 * (len(m) * (LOG_2PI + 1.0) + log_det(covariance))
    for t, row in enumerate(y):
        V = covariance[t * K : (t + 1) * K, t * K : (t + 1) * K]
        for s in np.flatnonzero(~np.isnan(row)):
            mu, S = e["xi"][s], e["S"][s]
            total += row[s] * (mu[:K] @ mean[t] + mu[K]) - special.gammaln(row[s] + 1.0)
            total -= mean_of_exp(mean[t], V, mu, S)
    return total


def lds_bound(model, X, law):
    """The ELBO of q of the parameters, with the best q(x), or with that of counts."""
    y, slices, weights = sequences_of(model, X)
    e, total = expectations(model, law, y.shape[1])
    for i, (rows, weight) in enumerate(zip(slices, weights)):
        if weight == 0.0:
            continue
        if model.observations == "gaussian":
            each = gaussian_bound(e, y[rows], model.posterior == "mean_field")
        else:
            root = law[f"root_{i}"]
            covariance = root @ root.T
            if model.posterior == "mean_field":
                K = len(e["P"])
                same = np.kron(np.eye(len(y[rows])), np.ones((K, K)))
                covariance = covariance * same
            each = poisson_bound(e, y[rows], law["states"][rows], covariance)
        total += weight * each
    return total


# -- what a fit says of q --------------------------------------------------------------


def gamma_of(model, name):
    """(shape, rate) of a Gamma factor of the posterior."""
    q = model.posterior_
    joint = name == "noise_precision" and "observation" in q.factors
    law = q["observation"].noise if joint else q[name]
    return np.asarray(law.shape, dtype=float), np.asarray(law.rate, dtype=float)


def lds_posterior(model, X):
    """What q is made of: {name: (kind, values, scale of a move)}."""
    y, slices, _ = sequences_of(model, X)
    out = {}

    def add_gamma(name, draw):
        shape, rate = np.broadcast_arrays(*gamma_of(model, draw))
        spread = 1.0 / np.sqrt(1.0 + shape)
        out[f"{name}_shape"] = "positive", shape, spread
        out[f"{name}_rate"] = "positive", rate, spread

    if model.structure == "free":
        if model.transition_matrix is None:
            rows = model.posterior_["transition"]
            S, sd = np.linalg.inv(rows.precision[0]), model.transition_matrix_std_
            out["A"] = "location", model.transition_matrix_, sd
            out["A_root"] = "root", np.linalg.cholesky(S), 1.0
            add_gamma("alpha", "transition_relevance")
        if model.observation_matrix is None:
            rows = model.posterior_["observation"]
            # given rho = 1; rows that see the same steps share it
            S = np.linalg.inv(rows.precision)
            S = np.broadcast_to(S, (len(rows.location), *S.shape[1:]))
            sd = np.column_stack([model.observation_matrix_std_, model.intercept_std_])
            out["xi"] = "location", rows.location, sd
            out["xi_root"] = "root", np.linalg.cholesky(S), 1.0
            add_gamma("gamma", "observation_relevance")
        if known_start(model) is None:
            add_gamma("lambda", "initial_precision")
    for name in COMPONENTS[model.structure]:
        if known_precision(model, name, y.shape[1]) is None:
            add_gamma(name, f"{name}_precision")
    if model.observations == "gaussian":
        if known_precision(model, "noise", y.shape[1]) is None:
            add_gamma("rho", "noise_precision")
        return out
    V = model.states_covariance_
    sd = np.sqrt(np.diagonal(V, axis1=1, axis2=2))
    out["states"] = "location", model.states_, sd
    for i, rows in enumerate(slices):
        covariance = twins.covariance_of_path(
            V[rows], model.lagged_states_covariance_[rows.start : rows.stop - 1]
        )
        # A move of every entry by 0.1 would be one of the whole by 0.1 root n.
        size = 1.0 / np.sqrt(len(covariance))
        out[f"root_{i}"] = "root", np.linalg.cholesky(covariance), size
    return out


class LDSKind(Kind):
    weighted = False  # a row is a step: sequences have weights, in a column
    smooths = True

    def __init__(self, data):
        self.dim, self.is_gaussian = data.n_features, data.observations == "gaussian"
        self.is_free = data.structure == "free"
        # A, C and the states hold each other in place: far along such a direction the
        # bound changes by less than its rounding.
        self.path = 3e-4 if self.is_free else 1e-6

    def first_step(self):
        if not self.is_gaussian:
            return FunctionTransformer()  # scales would leave no counts
        features = list(range(self.dim))
        return ColumnTransformer(
            [("scale", StandardScaler(), features)], remainder="passthrough"
        )

    def quick(self, estimator):
        return estimator.set_params(tol=1e-6)

    def n_seen(self, model):
        return model.n_steps_seen_

    def stream(self, model, X, rng):
        """Whole sequences, X eight times; blocks are made of some of them."""
        _, slices, weights = sequences_of(model, X)
        parts = [X[rows] for rows in slices] * 8
        if model.sequence_weight is None:
            weights = None
        else:
            # sequences that do not count are not seen
            weights = 1.0 + np.tile(weights, 8)
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
        return lds_log_joint(model, unfolded(model, X), draws)

    def bound(self, model, X, y):
        law = lds_posterior(model, X)
        sizes = np.cumsum([np.size(value) for _, value, _ in law.values()], dtype=int)

        def elbo(coordinates):
            moved = {}
            for (name, (kind, value, scale)), move in zip(
                law.items(), np.split(coordinates, sizes[:-1])
            ):
                move = scale * move.reshape(np.shape(value))
                if kind == "root":
                    moved[name] = value @ (np.eye(value.shape[-1]) + np.tril(move))
                elif kind == "positive":
                    moved[name] = value * np.exp(move)
                else:
                    moved[name] = value + move
            return lds_bound(model, X, moved)

        return np.zeros(sizes[-1] if len(sizes) else 0), elbo

    def tol(self, model, X):
        return model.tol * len(X)

    def one_step(self, model, X):
        # Streams keep the states as they are turned.
        inner, (_, q, blocks) = model._fitted_setup.model, model._blocks(X)
        return inner.without_turns(), blocks[0], (inner.prior(), q)

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
        out = {}
        if self.is_free:
            learnt = ["transition_matrix"] if model.transition_matrix is None else []
            if model.observation_matrix is None:
                learnt += ["observation_matrix", "intercept"]
            for name in learnt:
                std = getattr(model, f"{name}_std_")
                out[f"{name}_"] = getattr(model, f"{name}_"), std
                out[f"{name}_std_"] = std, std
        for name in COMPONENTS[model.structure]:
            value = model.state_variances_[name]
            out[name] = value, value
        if self.is_gaussian:
            out["noise_variance_"] = model.noise_variance_, model.noise_variance_
        return out

    def moments(self, model):
        out = {}
        if self.is_free and model.transition_matrix is None:
            A = model.transition_matrix_, model.transition_matrix_std_, None
            out["transition_matrix"] = A
            out["transition_relevance"] = model.transition_relevance_, None, None
        if self.is_free and model.observation_matrix is None:
            out["observation_matrix"] = (
                model.observation_matrix_,
                model.observation_matrix_std_,
                model.observation_matrix_covariance_,
            )
            out["intercept"] = model.intercept_, model.intercept_std_, None
            out["observation_relevance"] = model.observation_relevance_, None, None
        for name in COMPONENTS[model.structure]:
            if known_precision(model, name, self.dim) is None:
                mean = 1.0 / model.state_variances_[name]
                out[f"{name}_precision"] = mean, None, None
        if self.is_gaussian and model.noise_variance is None:
            out["noise_precision"] = 1.0 / model.noise_variance_, None, None
        return out

    def outputs(self, model, X):
        mean, std = model.predict(X, return_std=True)
        return (
            model.score_samples(X),
            model.transform(X),
            model.smooth(X, return_std=True)[1],
            mean,
            std,
        )

    def rescaled(self, case, X, y, c):
        if not self.is_gaussian:
            return  # counts have no unit
        units = [np.full(self.dim, c)]
        # The rate of a prior is that of all columns.
        if "noise_prior" not in case.params and self.dim > 1:
            units.append(np.append(np.ones(self.dim - 1), c))
        for unit in units:
            estimator = self._in_units(case, unit, 0.0)
            Xc = in_features(estimator, X, lambda x, unit=unit: x * unit)
            x, slices, weights = sequences_of(estimator, X)
            log_unit = (~np.isnan(x)) @ np.log(unit)
            change = -sum(
                weight * log_unit[rows].sum() for rows, weight in zip(slices, weights)
            )

            def back(fit, Xc, log_unit=log_unit, unit=unit):
                score, states, sd, mean, std = self.outputs(fit, Xc)
                of_state = self._by_state(case, unit)
                return (
                    score + log_unit,
                    states / of_state,
                    sd / of_state,
                    mean / unit,
                    std / unit,
                )

            yield estimator, Xc, None, change, back

    def shifted(self, case, X, y, shift):
        if not self.is_gaussian:
            return None
        estimator = self._in_units(case, np.ones(self.dim), shift)

        def back(fit, Xs):
            score, states, sd, mean, std = self.outputs(fit, Xs)
            if not self.is_free:
                states = states - shift_of_levels(case, self.dim, shift)
            return score, states / sd, sd, (mean - shift) / std, std

        return estimator, self.moved(estimator, X, shift), None, back

    def moved(self, estimator, X, shift):
        return in_features(estimator, X, lambda x: x + shift)

    def _by_state(self, case, unit):
        """The units of the states, where those of the columns are given."""
        if self.is_free:
            return 1.0
        column = preset(case.params["structure"], case.params.get("period"), self.dim)
        return np.asarray(unit)[column[3]]

    def _in_units(self, case, unit, shift):
        """The estimator with what is known in other units, where the row gives it."""
        params, given = {}, case.params
        if given.get("observation_matrix") is not None:
            C = np.asarray(given["observation_matrix"])
            params["observation_matrix"] = C * unit[:, None]
            params["intercept"] = np.asarray(given["intercept"]) * unit + shift
        if given.get("noise_variance") is not None:
            params["noise_variance"] = np.asarray(given["noise_variance"]) * unit**2
        if given.get("state_variances") is not None:
            params["state_variances"] = {
                name: value * unit**2
                for name, value in given["state_variances"].items()
            }
        if given.get("noise_prior") is not None:
            shape, rate = given["noise_prior"]
            params["noise_prior"] = shape, rate * unit[0] ** 2
        if given.get("state_prior") is not None:
            params["state_prior"] = {
                name: (shape, rate * unit[0] ** 2)
                for name, (shape, rate) in given["state_prior"].items()
            }
        if not self.is_free and given.get("initial_mean") is not None:
            of_state = self._by_state(case, unit)
            mean = np.asarray(given["initial_mean"]) * of_state
            params["initial_mean"] = mean + shift_of_levels(case, self.dim, shift)
            P = np.asarray(given["initial_covariance"]) * of_state**2
            params["initial_covariance"] = P
        return case.estimator(**params)

    def unusable(self, X, y):
        bad = X.copy()
        bad[0, 0] = np.inf
        yield (bad,), {}, "infinity"
        yield (X[:0],), {}, "0 sample"
        if not self.is_gaussian:
            bad[0, 0] = -1.0
            yield (bad,), {}, "egative"


def shift_of_levels(case, dim, shift):
    owner = preset(case.params["structure"], case.params.get("period"), dim)[2]
    return np.where(np.array(owner) == "level", shift, 0.0)


# -- data ------------------------------------------------------------------------------

TURN = np.array([[0.6, 0.6], [-0.6, 0.6]])
LOADINGS = np.array([[2.0, 0.0], [1.0, 1.5], [-1.0, 2.0]])


@dataclass(frozen=True)
class paths_of_states:
    """Steps of simulated systems; columns with a role last.

    Attributes
    ----------
    structure : str, a key of COMPONENTS
    observations : "gaussian" or "poisson"
    lengths : of the sequences
    missing : bool, whether some entries, and a whole step, are NaN
    ids : bool, whether there is a column of ids
    weights : of the sequences, a column then
    """

    structure: str = "free"
    observations: str = "gaussian"
    lengths: tuple = (9, 8)
    missing: bool = False
    ids: bool = True
    weights: tuple | None = None

    @property
    def n_features(self):
        if "seasonal" in COMPONENTS[self.structure]:
            return 1  # of several states
        return 3 if self.structure == "free" else 2

    def __call__(self, rng):
        X = np.concatenate([self.sequence(n, rng) for n in self.lengths])
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

    def sequence(self, n, rng):
        if self.structure == "free":
            x = [rng.choice([-3.0, 3.0], 2)]
            for _ in range(n - 1):
                x.append(TURN @ x[-1] + rng.standard_normal(2))
            signal = np.array(x) @ LOADINGS.T
            if self.observations == "poisson":
                return rng.poisson(np.exp(1.5 + 0.25 * signal)).astype(float)
            noise = rng.standard_normal(signal.shape) * [0.5, 0.3, 0.4]
            return (signal + noise) * [1.0, 3.0, 1.0] + [0.0, 20.0, 5.0]
        t = np.arange(n)[:, None]
        steps = rng.standard_normal((n, self.n_features))
        if "slope" in COMPONENTS[self.structure]:
            steps += 1.0
        signal = np.cumsum(steps, axis=0)
        if "seasonal" in COMPONENTS[self.structure]:
            signal = signal + 3.0 * np.cos(0.5 * np.pi * t)
        if self.observations == "poisson":
            return rng.poisson(np.exp(1.5 + 0.4 * signal)).astype(float)
        noise = rng.standard_normal(signal.shape)
        return ((signal + noise) * [1.0, 3.0] + [0.0, 20.0])[:, : self.n_features]


# -- rows ------------------------------------------------------------------------------

KNOWN_CHAIN = {
    "transition_matrix": TURN,
    "transition_covariance": [[1.0, 0.3], [0.3, 0.5]],
}
KNOWN_START = {
    "initial_mean": [0.5, -0.5],
    "initial_covariance": [[9.0, 2.0], [2.0, 8.0]],
}
KNOWN_READING = {
    "observation_matrix": LOADINGS * [[1.0], [3.0], [1.0]],
    "intercept": [0.0, 20.0, 5.0],
    "noise_variance": [0.25, 0.81, 0.16],
}
EXPLICIT_PRIORS = {
    "transition_prior": (2.0, 1.0),
    "observation_prior": (1.5, 2.0),
    "initial_prior": (3.0, 4.0),
    "intercept_precision_prior": 0.3,
}


def variants():
    """{name: (params, data)}, each for both posteriors."""
    two, free = {"sequence": -1}, {"n_components": 2}
    weighted = {"sequence": -2, "sequence_weight": -1}
    yield "free-gaussian-two", {**free, **two}, {}
    yield (
        "free-gaussian-missing",
        {**free, **two},
        {"lengths": (12, 8), "missing": True},
    )
    yield (
        "free-gaussian-weights",
        {**free, **weighted},
        {"lengths": (9, 3, 9), "weights": (2, 0, 1)},
    )
    yield (
        "free-gaussian-explicit",
        {**free, **EXPLICIT_PRIORS, "noise_prior": (2.0, 1.5)},
        {"lengths": (15,), "ids": False},
    )
    yield (
        "free-gaussian-known_chain",
        {**free, **two, **KNOWN_CHAIN, **KNOWN_START, "noise_variance": 0.5},
        {},
    )
    yield (
        "free-gaussian-known",
        {**free, **two, **KNOWN_CHAIN, **KNOWN_START, **KNOWN_READING},
        {"missing": True},
    )
    counts = {"observations": "poisson"}
    yield "free-poisson-two", {**free, **two, **counts}, counts
    yield (
        "free-poisson-missing",
        {**free, **weighted, **counts, **EXPLICIT_PRIORS},
        {**counts, "lengths": (9, 6), "weights": (1, 2), "missing": True},
    )
    yield (
        "free-poisson-known_reading",
        {
            **free,
            **counts,
            "observation_matrix": 0.25 * LOADINGS,
            "intercept": [1.5, 1.5, 1.5],
        },
        {**counts, "lengths": (10,), "ids": False},
    )
    level = {"structure": "local_level"}
    short = {"lengths": (7, 6)}
    yield (
        "local_level-gaussian",
        {**level, **two},
        {**level, **short, "missing": True},
    )
    yield (
        "local_level-gaussian-known",
        {
            **level,
            **two,
            "state_variances": {"level": np.array([1.0, 9.0])},
            "noise_variance": [1.5, 8.0],
            "initial_mean": [1.0, 18.0],
            "initial_covariance": [4.0, 30.0],
        },
        {**level, **short, "missing": True},
    )
    yield (
        "local_level-poisson",
        {**level, **two, **counts},
        {**level, **counts, **short},
    )
    trend = {"structure": "local_linear_trend"}
    yield (
        "local_linear_trend-gaussian",
        {**trend, **weighted},
        {**trend, "lengths": (6, 3, 5), "weights": (2, 0, 1)},
    )
    seasonal = {"structure": "seasonal"}
    yield (
        "seasonal-gaussian",
        {
            **seasonal,
            "period": 4,
            **two,
            "noise_prior": (2.0, 3.0),
            "state_prior": {"level": (2.0, 2.0), "seasonal": (1.5, 0.3)},
        },
        {**seasonal, "lengths": (8, 6)},
    )
    both = {"structure": "basic_structural"}
    yield (
        "basic_structural-gaussian",
        {**both, "period": 3, **two},
        {**both, "lengths": (8, 5)},
    )


def lds_cases():
    for name, params, of_data in variants():
        data = paths_of_states(**of_data)
        for posterior in ("structured", "mean_field"):
            structured = posterior == "structured"
            yield Case(
                name=f"lds-{name}-{posterior}",
                make=skvi.VariationalLinearDynamicalSystem,
                params={
                    "posterior": posterior,
                    "random_state": 0,
                    "max_iter": 5_000,
                    # the inner iterations of counts end at a finite precision
                    "tol": 1e-9 if data.observations == "poisson" else 1e-11,
                    **params,
                },
                data=data,
                kind=LDSKind(data),
                exact=structured and name.endswith("-known"),
                larger=None if structured else f"lds-{name}-structured",
            )
