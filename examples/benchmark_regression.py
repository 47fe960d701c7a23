"""
Benchmark: Bayesian linear regression
=====================================

``VariationalBayesianRegression`` beside scikit-learn's ``BayesianRidge`` and
``ARDRegression``: time and memory at equal answers, posteriors beside the exact one,
and how often 90 % intervals hold what they should hold. Every table says what it
compares.

.. code-block:: sh

    python examples/benchmark_regression.py            # about a quarter of an hour
    python examples/benchmark_regression.py --quick    # smaller and fewer: a minute
    python examples/benchmark_regression.py --only accuracy --only coverage

Times are ratios of paired runs inside one process. The exact answers come from a
two-dimensional quadrature that is written out below, from numpy and scipy alone. With
the environment variable ``SKVI_DATA`` set to a folder that holds
``regression/longley.npz`` and its like (arrays X and y), more real data sets take part.

What "equal answer" means. With y and every column of X standardised, and hyperpriors
Gamma(1e-6, 1e-6), ``BayesianRidge`` and ``VariationalBayesianRegression`` describe the
same model up to three differences, all of them visible in the tables: skvi's prior
precision is relative to the noise precision (flat on the log scale, that is the same
prior), skvi's intercept has a proper prior worth a hundredth of a row, and
``BayesianRidge`` reports the posterior at the most probable pair of precisions where
skvi integrates over both. So neither is measured against the other: both are measured
against the exact posterior, in its own standard deviations.
"""

import argparse
import functools
import os
import platform
import subprocess
import sys
import time
import tracemalloc
import warnings
from pathlib import Path
from unittest import mock

import joblib
import numpy as np
import scipy
import sklearn
from scipy.special import gammaln, logsumexp, ndtri
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ARDRegression, BayesianRidge
from sklearn.preprocessing import PolynomialFeatures
from threadpoolctl import threadpool_info, threadpool_limits

import skvi
from skvi import VariationalBayesianRegression
from skvi.inference.engine import climb

VAGUE = (1e-6, 1e-6)  # BayesianRidge's hyperpriors, as (shape, rate)
SAME = {"weight_precision_prior": VAGUE, "noise_precision_prior": VAGUE}
DATA = os.environ.get("SKVI_DATA")
REAL = ("longley", "hitters", "prostate", "uci_concrete", "uci_boston", "uscrime")


# %%
# Reporting
# ---------


def heading(text):
    print(f"\n{text}\n{'=' * len(text)}")


def note(text):
    print("\n".join("  " + line for line in text.strip().splitlines()))


def table(header, rows):
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    for i, row in enumerate(cells):
        first, *rest = (
            cell.ljust(w) if k == 0 else cell.rjust(w)
            for k, (cell, w) in enumerate(zip(row, widths))
        )
        print("  " + "  ".join([first, *rest]).rstrip())
        if i == 0:
            print("  " + "-" * (sum(widths) + 2 * len(widths) - 2))
    sys.stdout.flush()


def versions():
    heading("What ran")
    names = [
        ("skvi", skvi.__version__),
        ("Python", platform.python_version()),
        ("numpy", np.__version__),
        ("scipy", scipy.__version__),
        ("scikit-learn", sklearn.__version__),
        ("joblib", joblib.__version__),
    ]
    print("  " + ", ".join(f"{name} {version}" for name, version in names))
    for pool in threadpool_info():
        if pool["user_api"] == "blas":
            print(
                f"  BLAS: {pool['prefix']} {pool['version']}, "
                f"{pool['num_threads']} threads unless a table says otherwise"
            )


# %%
# The exact posterior
# -------------------
# Given the noise precision tau and the prior precision lambda everything is Gaussian,
# so two numbers remain, and a grid over their logarithms takes them. For standardised
# columns Z = U diag(s) V' and standardised y, with a = U'y, d = s^2 and a level
# b ~ N(mean of y, 1 / (tau kappa)):
#
# .. math::
#
#     \log p(y \mid \tau, \lambda) = \tfrac n2 \log\tfrac{\tau}{2\pi}
#         + \tfrac12 \log\tfrac{\kappa}{n + \kappa}
#         + \tfrac12 \sum_k \log\tfrac{\lambda}{d_k + \lambda}
#         - \tfrac\tau2 \Big( \lVert y - Ua \rVert^2
#         + \sum_k a_k^2 \tfrac{\lambda}{d_k + \lambda} \Big)


class Exact:
    """Posterior mean and sd of the weights, and the log evidence, by quadrature."""

    def __init__(self, X, y, weight_prior=VAGUE, noise_prior=VAGUE, kappa=0.01):
        n, p = X.shape
        scale, y_scale = X.std(axis=0), y.std()
        U, s, Vt = np.linalg.svd((X - X.mean(axis=0)) / scale, full_matrices=False)
        keep = s > s[0] * max(n, p) * np.finfo(float).eps
        U, s, Vt = U[:, keep], s[keep], Vt[keep]
        z = (y - y.mean()) / y_scale
        self.d = s**2
        self.power = (U.T @ z) ** 2
        self.residual = np.sum((z - U @ (U.T @ z)) ** 2)
        self.n, self.kappa = n, kappa
        self.weight_prior, self.noise_prior = weight_prior, noise_prior

        # Where is the mass of log lambda? Look everywhere, then look closely.
        u = np.linspace(-80.0, 80.0, 1601)
        log_mass = logsumexp(self.log_joint(u)[1], axis=1)
        inside = np.flatnonzero(log_mass > log_mass.max() - 50.0)
        u = np.linspace(u[inside[0] - 1], u[inside[-1] + 1], 2001)
        t, log_joint = self.log_joint(u)
        area = (u[1] - u[0]) * (t[0, 1] - t[0, 0])
        self.log_evidence = logsumexp(log_joint) + np.log(area) - n * np.log(y_scale)
        weights = np.exp(log_joint - logsumexp(log_joint))

        w = weights.sum(axis=1)
        noise = (weights * np.exp(-t)).sum(axis=1)  # E[1 / tau; u]
        lam = np.exp(u)
        shrunk = 1.0 / np.add.outer(lam, self.d)  # (u, k)
        along = shrunk * (s * (U.T @ z))
        mean = w @ along
        spread = (along - mean).T @ (w[:, None] * (along - mean))
        spread += np.diag(noise @ shrunk)
        variance = np.einsum("kj,kj->j", Vt, spread @ Vt)
        null = 1.0 - np.einsum("kj,kj->j", Vt, Vt)
        if p > len(s):
            variance += np.maximum(null, 0.0) * (noise @ (1.0 / lam))
        self.coef = Vt.T @ mean * y_scale / scale
        self.sd = np.sqrt(variance) * y_scale / scale

    def log_joint(self, u):
        """Nodes t (u, t) and log p(y, t, u) there; t = log tau follows its ridge."""
        (c, e), (a, b) = self.weight_prior, self.noise_prior
        n, lam = self.n, np.exp(u)
        shrinkage = lam[:, None] / np.add.outer(lam, self.d)
        square = self.residual + shrinkage @ self.power
        of_u = 0.5 * np.log(shrinkage).sum(axis=1)
        of_u += c * np.log(e) - gammaln(c) + c * u - e * lam
        of_u += 0.5 * np.log(self.kappa / (n + self.kappa)) - 0.5 * n * np.log(
            2 * np.pi
        )
        of_u += a * np.log(b) - gammaln(a)
        shape = a + 0.5 * n
        width = 1.0 / np.sqrt(shape)
        offset = np.arange(-(11.0 * width + 50.0 / shape), 11.0 * width, 0.4 * width)
        rate = b + 0.5 * square
        t = np.add.outer(np.log(shape / rate), offset)
        return t, of_u[:, None] + shape * t - rate[:, None] * np.exp(t)

    def compare(self, coef, sd):
        """(largest error of a mean in exact sds, smallest and largest sd ratio)."""
        ratio = sd / self.sd
        return np.max(np.abs(coef - self.coef) / self.sd), ratio.min(), ratio.max()


# %%
# Speed
# -----


def problem(n, p, seed=0, n_new=1000, n_active=None):
    """Standardised X, y and new rows: weights N(0, 1), noise sd 0.7 sqrt(p)."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n + n_new, p))
    coef = rng.standard_normal(p)
    if n_active is not None:
        coef[n_active:] = 0.0
    y = X @ coef + 0.7 * np.sqrt(np.sum(coef**2)) * rng.standard_normal(n + n_new)
    X -= X[:n].mean(axis=0)
    X /= np.sqrt(np.einsum("ij,ij->j", X[:n], X[:n]) / n)
    y = (y - y[:n].mean()) / y[:n].std()
    return X[:n], y[:n], X[n:], y[n:]


def gaussian_density(model, X, y):
    """Mean log predictive density of scikit-learn's Gaussian predictions."""
    mean, std = model.predict(X, return_std=True)
    return np.mean(-0.5 * ((y - mean) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi)))


def paired(contenders, X, y, X_new, repeats):
    """Seconds of fit, and of fit + predictive stds, for every contender and repeat.

    The contenders take turns, so that whatever else the machine does meets all of them.
    """
    out = {name: np.empty((repeats, 2)) for name in contenders}
    models = {}
    for repeat in range(repeats):
        for name, make in contenders.items():
            start = time.perf_counter()
            models[name] = make().fit(X, y)
            fitted = time.perf_counter()
            models[name].predict(X_new, return_std=True)
            out[name][repeat] = fitted - start, time.perf_counter() - start
    return models, out


def warm_up(contenders):
    X, y, X_new, _ = problem(60, 5, n_new=5)
    paired(contenders, X, y, X_new, 1)


def ratios(times, reference, name):
    """Median ratio of paired repeats, with its range, for fit; median for both."""
    ratio = times[reference] / times[name]
    median = np.median(ratio, axis=0)
    low, high = ratio[:, 0].min(), ratio[:, 0].max()
    return f"{median[0]:.1f}x", f"{low:.1f} .. {high:.1f}", f"{median[1]:.1f}x"


def speed(quick):
    heading("Speed beside BayesianRidge")
    note(
        """
Fit time, and fit plus predict(return_std=True) at 1,000 new rows, of BayesianRidge
divided by that of VariationalBayesianRegression: medians over paired repeats.
"same priors" has BayesianRidge's Gamma(1e-6, 1e-6); "default" skvi's own.
BayesianRidge computes a dense posterior covariance in fit; skvi the posterior
standard deviations, and coef_covariance_ when it is asked for.
"""
    )
    shapes = {(100_000, 100): 7, (1_000_000, 20): 5, (500, 5000): 3, (10_000, 1000): 5}
    if quick:
        shapes = {(20_000, 100): 5, (100_000, 20): 5, (200, 1000): 3, (2000, 200): 5}
    rows, quality, thread_counts = [], [], (1,) if quick else (1, 2)
    for (n, p), repeats in shapes.items():
        X, y, X_new, y_new = problem(n, p)
        for threads in thread_counts:
            contenders = {
                "BayesianRidge": BayesianRidge,
                "same priors": lambda threads=threads: VariationalBayesianRegression(
                    n_jobs=threads, **SAME
                ),
                "default": lambda threads=threads: VariationalBayesianRegression(
                    n_jobs=threads
                ),
            }
            with threadpool_limits(threads):
                warm_up(contenders)
                models, times = paired(contenders, X, y, X_new, repeats)
            seconds = {name: np.median(t[:, 0]) for name, t in times.items()}
            for name in ("same priors", "default"):
                fit, span, both = ratios(times, "BayesianRidge", name)
                rows.append(
                    [f"{n:,} x {p:,}", threads, name]
                    + [f"{seconds['BayesianRidge']:.3f}", f"{seconds[name]:.3f}"]
                    + [fit, span, both, repeats]
                )
        quality += speed_quality(f"{n:,} x {p:,}", models, X, y, X_new, y_new)
    table(
        [
            "n x p",
            "threads",
            "skvi",
            "BR s",
            "skvi s",
            "fit",
            "range",
            "+ std",
            "pairs",
        ],
        rows,
    )
    print()
    note(
        """
The answers that were timed, beside the exact posterior (quadrature) under the same
priors: largest error of a mean in exact sds, range of the ratio of sds, elbo_ minus the
exact log evidence (nats), and the mean log predictive density of 1,000 new rows.
BayesianRidge's sds are those at its point estimate of both precisions.
"""
    )
    table(
        ["n x p", "fit", "mean error", "sd ratio", "elbo - evidence", "new rows"],
        quality,
    )


def speed_quality(label, models, X, y, X_new, y_new):
    rows, exact = [], {}
    for name, model in models.items():
        priors = (VAGUE, VAGUE)
        if name == "default":
            priors = resolved_priors(model, y)
        if priors not in exact:
            exact[priors] = Exact(X, y, *priors)
        truth = exact[priors]
        if name == "BayesianRidge":
            sd, gap = np.sqrt(np.diag(model.sigma_)), "-"
            density = gaussian_density(model, X_new, y_new)
        else:
            sd, gap = model.coef_std_, f"{model.elbo_ - truth.log_evidence:+.1e}"
            density = model.log_predictive_density(X_new, y_new).mean()
        error, low, high = truth.compare(model.coef_, sd)
        rows.append(
            [label, name, f"{error:.1e}", f"{low:.4f} .. {high:.4f}", gap]
            + [f"{density:.5f}"]
        )
    return rows


def evidence_at(X, y, noise_precision, prior_precision):
    """ARDRegression's objective log p(y | precisions), y ~ N(0, I/a + X L^-1 X')."""
    live = np.isfinite(prior_precision)
    X, ridge = X[:, live], prior_precision[live] / noise_precision
    factor = np.linalg.cholesky(X.T @ X + np.diag(ridge))
    fit = np.linalg.solve(factor, X.T @ y)
    logdet = 2.0 * np.log(np.diag(factor)).sum() - np.log(ridge).sum()
    n = len(y)
    square = noise_precision * (y @ y - fit @ fit)
    return 0.5 * (n * np.log(noise_precision / (2 * np.pi)) - logdet - square)


def ard(quick):
    heading("Speed beside ARDRegression")
    note(
        """
Ten weights of every problem are active. Fit time of ARDRegression divided by that of
VariationalBayesianRegression(prior="ard"). Quality: mean log predictive density of
1,000 new rows, error of the coefficients (root mean square), and ARDRegression's own
objective, log p(y | precisions), at the precisions that each fit reports (columns that
ARDRegression pruned are left out of it). "same priors" has Gamma(1e-6, 1e-6).
"""
    )
    shapes = {(300, 100): 5, (2000, 200): 5}
    if quick:
        shapes = {(300, 100): 3}
    speeds, quality, thread_counts = [], [], (1,) if quick else (1, 2)
    for (n, p), repeats in shapes.items():
        X, y, X_new, y_new = problem(n, p, n_active=10)
        for threads in thread_counts:
            make = functools.partial(
                VariationalBayesianRegression, prior="ard", n_jobs=threads
            )
            contenders = {
                "ARDRegression": ARDRegression,
                "same priors": functools.partial(make, **SAME),
                "default": make,
            }
            with threadpool_limits(threads), warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                warm_up(contenders)
                models, times = paired(contenders, X, y, X_new, repeats)
            seconds = {name: np.median(t[:, 0]) for name, t in times.items()}
            for name in ("same priors", "default"):
                fit, span, both = ratios(times, "ARDRegression", name)
                speeds.append(
                    [f"{n:,} x {p:,}", threads, name]
                    + [f"{seconds['ARDRegression']:.3f}", f"{seconds[name]:.3f}"]
                    + [fit, span, both, repeats]
                )
        least_squares = np.linalg.lstsq(X, y)[0]
        active = np.flatnonzero(np.arange(p) < 10)
        oracle = np.zeros(p)
        oracle[active] = np.linalg.lstsq(X[:, active], y)[0]
        for name, model in models.items():
            if name == "ARDRegression":
                density = gaussian_density(model, X_new, y_new)
                noise = model.alpha_
                pruned = model.lambda_ >= model.threshold_lambda
                lam = np.where(pruned, np.inf, model.lambda_)
                state = "converged" if model.n_iter_ < model.max_iter else "max_iter"
            else:
                density = model.log_predictive_density(X_new, y_new).mean()
                noise = model.noise_precision_
                lam = model.weight_precision_ * noise
                state = "converged" if model.converged_ else "max_iter"
            error = np.sqrt(np.mean((model.coef_ - oracle) ** 2))
            error /= np.sqrt(np.mean((least_squares - oracle) ** 2))
            quality.append(
                [f"{n:,} x {p:,}", name, f"{model.n_iter_}", state, f"{density:.4f}"]
                + [f"{error:.3f}", f"{evidence_at(X, y, noise, lam):.2f}"]
            )
    table(
        [
            "n x p",
            "threads",
            "skvi",
            "ARD s",
            "skvi s",
            "fit",
            "range",
            "+ std",
            "pairs",
        ],
        speeds,
    )
    print()
    note(
        """
coef error: distance to the least-squares fit of the active columns alone, as a share
of the distance of the least-squares fit of all columns.
"""
    )
    table(
        ["n x p", "fit", "iterations", "state", "new rows", "coef error", "objective"],
        quality,
    )


def real_data():
    X, y = load_diabetes(return_X_y=True)
    yield "diabetes", X, y
    if DATA is None:
        return
    for name in REAL:
        with np.load(Path(DATA) / "regression" / f"{name}.npz") as file:
            X, y = file["X"].astype(float), file["y"].astype(float)
        yield name.removeprefix("uci_"), X, y


def iterations(quick):
    heading("Iterations of the mean-field fit")
    note(
        """
Global updates (each with a few coordinate sweeps) until the fit's own convergence test
is passed, plain and accelerated, on collinear data, under BayesianRidge's priors; how
far the two ends are apart, in posterior sds and in nats.
"""
    )
    data = {name: (X, y) for name, X, y in real_data()}
    X, y = data["diabetes"]
    squares = PolynomialFeatures(2, include_bias=False).fit_transform(X)
    data["diabetes, all squares and products"] = squares, y
    plain = functools.partial(climb, accelerator=None)
    rows = []
    for name, (X, y) in data.items():
        if quick and X.shape[1] > 50:
            continue
        fast, slow = (
            VariationalBayesianRegression(
                posterior="mean_field", max_iter=2000 if quick else 20_000, **SAME
            )
            for _ in range(2)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            start = time.perf_counter()
            fast.fit(X, y)
            middle = time.perf_counter()
            with mock.patch("skvi.estimators.regression.climb", plain):
                slow.fit(X, y)
            end = time.perf_counter()
        apart = np.max(np.abs(fast.coef_ - slow.coef_) / fast.coef_std_)
        more = "" if slow.converged_ else " (stopped)"
        rows.append(
            [name, "{} x {}".format(*X.shape), f"{slow.n_iter_}{more}", fast.n_iter_]
            + [f"{(end - middle) / (middle - start):.1f}x", f"{apart:.1e}"]
            + [f"{fast.elbo_ - slow.elbo_:+.1e}"]
        )
    table(
        ["data", "n x p", "plain", "accelerated", "time", "sds apart", "elbo gain"],
        rows,
    )


# %%
# Memory
# ------

CHILD = """
import sys
import numpy as np
from sklearn.linear_model import BayesianRidge
from skvi import VariationalBayesianRegression

def peak():
    try:
        with open("/proc/self/status") as status:
            line = [line for line in status if line.startswith("VmHWM")][0]
        return 1024 * int(line.split()[1])
    except OSError:
        import resource
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

n, p, name = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
make = {"BayesianRidge": BayesianRidge, "skvi": VariationalBayesianRegression}[name]
rng = np.random.default_rng(0)
make().fit(rng.standard_normal((40, 60)), rng.standard_normal(40))  # lazy imports
X = rng.standard_normal((n, p))
y = X @ rng.standard_normal(p) + 0.7 * p**0.5 * rng.standard_normal(n)
before = peak()
make().fit(X, y)
print(peak() - before)
"""


def traced_peak(make, n, p):
    """Bytes that Python traces, at their peak, during one fit."""
    X, y, *_ = problem(n, p, n_new=1)
    warm_up({"": make})
    tracemalloc.start()
    make().fit(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def process_peak(name, n, p):
    """Bytes by which one fit raises the peak of the memory of a fresh process."""
    command = [sys.executable, "-c", CHILD, str(n), str(p), name]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


def memory(quick):
    heading("Peak memory of fit")
    note(
        """
"arrays": allocations that Python traces during fit. "process": growth of the resident
set of a fresh process, which holds BLAS buffers too. "with X": peak including X, as a
multiple of X.
"""
    )
    rows = []
    makers = {"BayesianRidge": BayesianRidge, "skvi": VariationalBayesianRegression}
    shapes = [(200, 2000)] if quick else [(500, 5000), (100_000, 100), (10_000, 1000)]
    for n, p in shapes:
        data = 8 * n * p
        for name, make in makers.items():
            peaks = traced_peak(make, n, p), process_peak(name, n, p)
            rows.append([f"{n:,} x {p:,}", name, f"{data / 2**20:.0f} MiB"])
            for above in peaks:
                rows[-1] += [f"{above / 2**20:.0f} MiB", f"{1 + above / data:.2f}x"]
    table(["n x p", "fit", "X", "arrays", "with X", "process", "with X"], rows)


# %%
# Accuracy
# --------


def accuracy(quick):
    heading("Posteriors beside the exact one")
    note(
        """
Under BayesianRidge's hyperpriors, Gamma(1e-6, 1e-6), columns standardised; the exact
posterior by two-dimensional quadrature over the log precisions. Largest error of a
posterior mean in exact sds, smallest and largest ratio of sds over the columns, and
elbo_ minus the exact log evidence (nats).
"""
    )
    fits = {
        "structured": {},
        "mean_field": {"posterior": "mean_field"},
        "mean_field, corrected": {
            "posterior": "mean_field",
            "posterior_covariance": "linear_response",
        },
    }
    rows = []
    for name, X, y in real_data():
        exact = Exact(X, y)
        label = f"{name} {X.shape[0]} x {X.shape[1]}"
        for fit, parameters in fits.items():
            try:
                model = VariationalBayesianRegression(**SAME, **parameters).fit(X, y)
            except ValueError as error:
                rows.append([label, fit, "failed:", str(error)[:40], "", ""])
                continue
            rows.append(
                accuracy_row(label, fit, exact, model.coef_, model.coef_std_)
                + [f"{model.elbo_ - exact.log_evidence:+.2e}"]
            )
        # scikit-learn's does not standardise: do it, and undo it.
        scale, y_scale = X.std(axis=0), y.std()
        Z, z = (X - X.mean(axis=0)) / scale, (y - y.mean()) / y_scale
        ridge = BayesianRidge().fit(Z, z)
        sd = np.sqrt(np.diag(ridge.sigma_))
        unit = y_scale / scale
        row = accuracy_row(label, "BayesianRidge", exact, ridge.coef_ * unit, sd * unit)
        rows.append([*row, "-"])
    table(
        ["data", "fit", "mean error", "least sd", "largest sd", "elbo - evidence"], rows
    )


def extremes(quick):
    heading("Structured posteriors beside the exact one: extremes")
    note(
        """
Simulated, X standard normal, weights N(0, 1), noise by its sd relative to the signal's
("none" has no signal). As above, with both pairs of hyperpriors.
"""
    )
    rows = []
    shapes = [(20, 5), (20_000, 50), (50, 300)]
    for n, p in shapes if quick else [*shapes, (100_000, 100), (5000, 1000)]:
        rng = np.random.default_rng(0)
        X, noise = rng.standard_normal((n, p)), rng.standard_normal(n)
        signal = X @ rng.standard_normal(p)
        for label, y in {
            "none": noise,
            "1": signal + noise * np.sqrt(p),
            "1e-3": signal + 1e-3 * noise * np.sqrt(p),
        }.items():
            for name, parameters in {"default": {}, "vague": SAME}.items():
                model = VariationalBayesianRegression(**parameters).fit(X, y)
                exact = Exact(X, y, *resolved_priors(model, y))
                row = [f"{n:,} x {p:,}", label, name]
                row += accuracy_row("", "", exact, model.coef_, model.coef_std_)[2:]
                rows.append([*row, f"{model.elbo_ - exact.log_evidence:+.2e}"])
    head = ["n x p", "noise", "hyperpriors", "mean error", "least sd", "largest sd"]
    table([*head, "elbo - evidence"], rows)


def resolved_priors(model, y):
    """(shape, rate) of lambda and of tau var(y), as the fit had them."""
    shape, rate = model.noise_precision_prior_
    return model.weight_precision_prior_, (shape, rate / y.var())


def accuracy_row(label, fit, exact, coef, sd):
    error, low, high = exact.compare(coef, sd)
    return [label, fit, f"{error:.5f}", f"{low:.4f}", f"{high:.4f}"]


# %%
# Coverage
# --------

LEVEL = 0.9
HALF = ndtri(0.5 + 0.5 * LEVEL)
N_NEW = 12


def covered(n, p, seed):
    """Shares inside 90 % intervals, and log densities, of one simulated data set."""
    rng = np.random.default_rng(seed)
    X, X_new = rng.standard_normal((n, p)), rng.standard_normal((N_NEW, p))
    coef = rng.standard_normal(p)
    sd = 0.7 * np.sqrt(p)
    y = X @ coef + sd * rng.standard_normal(n)
    y_new = X_new @ coef + sd * rng.standard_normal(N_NEW)

    model = VariationalBayesianRegression().fit(X, y)
    low, high = model.predict_interval(X_new, confidence_level=LEVEL).T
    summary = model.summary(confidence_level=LEVEL)
    draws = model.sample_posterior(1000, random_state=seed)["noise_precision"]
    below = np.mean(draws < sd**-2)
    ridge = BayesianRidge().fit(X, y)
    mean, std = ridge.predict(X_new, return_std=True)
    ridge_sd = np.sqrt(np.diag(ridge.sigma_))
    return [
        np.mean((low <= y_new) & (y_new <= high)),
        np.mean((summary.lower[:p] <= coef) & (coef <= summary.upper[:p])),
        0.5 * (1.0 - LEVEL) <= below <= 0.5 * (1.0 + LEVEL),
        model.log_predictive_density(X_new, y_new).mean(),
        np.mean(high - low) / (2.0 * HALF * sd),
        np.mean(np.abs(y_new - mean) <= HALF * std),
        np.mean(np.abs(coef - ridge.coef_) <= HALF * ridge_sd),
        gaussian_density(ridge, X_new, y_new),
        np.mean(std) / sd,
    ]


def coverage(quick):
    n_seeds = 200 if quick else 2000
    heading("Coverage of 90 % intervals")
    note(
        f"""
Simulated data sets (seeds 0 ... {n_seeds - 1}): X standard normal, weights N(0, 1),
noise sd 0.7 sqrt(p). "new y": {N_NEW} new rows a data set. Both estimators with their
default priors. +-: two standard errors over data sets. "width": mean width of the
intervals of a new y relative to that of the noise alone. "density": mean log predictive
density of a new y.
"""
    )
    rows = []
    run = joblib.Parallel(n_jobs=-1, batch_size=50)
    for n, p in [(15, 5), (30, 5), (30, 20), (100, 20), (30, 60)]:
        out = np.array(
            run(joblib.delayed(covered)(n, p, seed) for seed in range(n_seeds)), float
        )
        mean = out.mean(axis=0)
        error = 2.0 * out.std(axis=0, ddof=1) / np.sqrt(n_seeds)

        def share(k, mean=mean, error=error):
            return f"{mean[k]:.3f} +- {error[k]:.3f}"

        rows.append([f"{n} x {p}", "skvi", share(0), share(1), share(2)])
        rows[-1] += [f"{mean[4]:.2f}", f"{mean[3]:.3f}"]
        rows.append([f"{n} x {p}", "BayesianRidge", share(5), share(6), "-"])
        rows[-1] += [f"{mean[8]:.2f}", f"{mean[7]:.3f}"]
    table(["n x p", "fit", "new y", "coefficients", "noise", "width", "density"], rows)


SECTIONS = {
    "memory": memory,
    "accuracy": accuracy,
    "extremes": extremes,
    "iterations": iterations,
    "speed": speed,
    "ard": ard,
    "coverage": coverage,
}


def main():
    parser = argparse.ArgumentParser(description="Benchmark Bayesian regression.")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer runs")
    parser.add_argument("--only", action="append", choices=sorted(SECTIONS))
    options = parser.parse_args()
    start = time.perf_counter()
    versions()
    if DATA is None:
        print("  SKVI_DATA is not set: diabetes is the only real data set.")
    for name, section in SECTIONS.items():
        if options.only is None or name in options.only:
            section(options.quick)
    print(f"\nDone in {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
