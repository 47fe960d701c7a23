"""
Benchmark: classification, counts and robust regression
========================================================

``VariationalLogisticClassifier`` and ``VariationalGLMRegressor``: posteriors beside
long runs of NUTS and importance sampling, time and accuracy beside the automatic
variational inference of PyMC and NumPyro, time and memory beside scikit-learn's
``LogisticRegression``, calibration beside ``LogisticRegressionCV``, and the ARD prior
beside the ridge where most columns are noise. Every table says what it compares.

.. code-block:: sh

    python examples/benchmark_glm.py            # under ten minutes
    python examples/benchmark_glm.py --quick    # smaller, without peers: seconds
    python examples/benchmark_glm.py --only references --only calibration
    python examples/benchmark_glm.py --install-peers --only advi

PyMC and NumPyro take part if they are installed. ``--install-peers`` installs them in a
temporary environment, runs the benchmark there and removes it again; nothing else
changes on the machine. With the environment variable ``SKVI_DATA`` set to a folder that
holds ``reference/wells_logistic.json``, ``classification/pima.npz`` and their like,
real data take part.

All times are of one process, of runs in alternation, on one thread unless a table says
otherwise.
"""

import argparse
import csv
import functools
import gzip
import json
import logging
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
import time
import tracemalloc
import venv
import warnings
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

# NumPyro reads this when it is imported: one thread, as everybody.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import joblib
import numpy as np
import scipy
import sklearn
from scipy import sparse, stats
from scipy.special import expit, logsumexp
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import skvi
from skvi import VariationalGLMRegressor, VariationalLogisticClassifier

DATA = os.environ.get("SKVI_DATA")
PEERS = ("pymc", "numpyro")
INSTALL = (*PEERS, "matplotlib<3.11")  # PyMC's ArviZ needs the older matplotlib
FITS = {
    "structured": {},
    "mean_field": {"posterior": "mean_field"},
    "mean_field, corrected": {
        "posterior": "mean_field",
        "posterior_covariance": "linear_response",
    },
}


# %%
# Reporting
# ---------


def heading(text):
    print(f"\n{text}\n{'=' * len(text)}")


def note(text):
    print("\n".join("  " + line for line in text.strip().splitlines()), flush=True)


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
    print(flush=True)


def seconds(value):
    """Three significant digits, never in scientific notation."""
    return f"{value:.{max(0, 2 - int(np.floor(np.log10(max(value, 1e-3)))))}f}"


def with_error(values, sign="", digits=4):
    """Mean and standard error of one number a split or a seed."""
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):{sign}.{digits}f} +- {error:.{digits}f}"


def installed(peer):
    return find_spec(peer) is not None


def versions():
    heading("What ran")
    names = [
        ("skvi", skvi.__version__),
        ("Python", platform.python_version()),
        ("numpy", np.__version__),
        ("scipy", scipy.__version__),
        ("scikit-learn", sklearn.__version__),
    ]
    missing = [peer for peer in PEERS if not installed(peer)]
    names += [(peer, metadata.version(peer)) for peer in PEERS if peer not in missing]
    print("  " + ", ".join(f"{name} {version}" for name, version in names))
    print(f"  {joblib.cpu_count()} cores")
    for peer in missing:
        print(f"  {peer} is not installed (--install-peers): its rows are left out.")
    if DATA is None:
        print("  SKVI_DATA is not set: no references by NUTS, few real data sets.")


def quietly(function, *arguments):
    """A fit whose warnings of convergence are counted by its caller, not printed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", FutureWarning)
        return function(*arguments)


# %%
# Data
# ----


def standardised(X):
    """Columns of mean 0 and population sd 1; constant ones are zeros."""
    scale = X.std(axis=0)
    return (X - X.mean(axis=0)) / np.where(scale > 0.0, scale, 1.0)


def arrays(name):
    with np.load(Path(DATA) / f"{name}.npz") as file:
        return dict(file)


def columns(name, *wanted):
    """Columns of a .csv.gz as lists of strings."""
    with gzip.open(Path(DATA) / f"{name}.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    return [[row[column] for row in rows] for column in wanted]


def indicators(values):
    """One column a level, without the first (sorted) one."""
    levels = sorted(set(values))[1:]
    return np.array([[float(v == level) for level in levels] for v in values])


def wells():
    names = ("dist", "arsenic", "assoc", "educ", "switch")
    *X, y = np.array(columns("classification/wells", *names), float)
    return np.column_stack(X), y.astype(int)


def pima_train():
    file = arrays("classification/pima")
    return file["X"][file["train"]], file["y"][file["train"]]


def german():
    file = arrays("classification/german_credit")
    return file["X"], file["y"]


def biochemists():
    fem, mar, *rest = columns(
        "counts/biochemists", "fem", "mar", "kid5", "phd", "ment", "art"
    )
    *numbers, y = np.array(rest, float)
    two = [[v == "Women" for v in fem], [v == "Married" for v in mar]]
    return np.column_stack([*np.array(two, float), *numbers]), y


def quine():
    *factors, days = columns("counts/quine", "Eth", "Sex", "Age", "Lrn", "Days")
    return np.hstack([indicators(f) for f in factors]), np.array(days, float)


def simulated_counts():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((150, 6))
    rate = np.exp(2.0 + X @ [0.4, -0.3, 0.2, 0.0, 0.0, 0.1]) * rng.gamma(1.5, 1 / 1.5)
    return X, rng.poisson(rate * rng.gamma(1.5, 1 / 1.5, size=150)).astype(float)


def contaminated(X, y, share=0.05, seed=0):
    """Some of the answers are off by 4 to 8 standard deviations."""
    rng = np.random.default_rng(seed)
    y = y.copy()
    off = rng.choice(len(y), max(2, round(share * len(y))), replace=False)
    y[off] += rng.uniform(4.0, 8.0, len(off)) * rng.choice([-1, 1], len(off)) * y.std()
    return X, y


def prostate():
    file = arrays("regression/prostate")
    return contaminated(file["X"], file["y"])


def uscrime():
    file = arrays("regression/uscrime")
    return contaminated(file["X"], file["y"])


def diabetes():
    return contaminated(*load_diabetes(return_X_y=True))


# %%
# References
# ----------
# NUTS has the first five; importance sampling the rest. Everything is in units of
# standardised columns, where the intercept is the level at their means.

NUTS = {
    # file: data, sd of the prior, estimator without its priors
    "wells_logistic": (wells, 2.5, VariationalLogisticClassifier, {}),
    "wells_probit": (wells, 2.5, VariationalLogisticClassifier, {"link": "probit"}),
    "pima_train_logistic": (pima_train, 2.5, VariationalLogisticClassifier, {}),
    "german_logistic": (german, 1.0, VariationalLogisticClassifier, {}),
    "biochemists_poisson": (biochemists, 2.5, VariationalGLMRegressor, {}),
}


def nuts_problem(name):
    """(make, Z, y, reference means, reference sds) of a file of reference/."""
    data, sd, estimator, parameters = NUTS[name]
    X, y = data()
    priors = {"weight_precision": sd**-2, "intercept_precision": sd**-2}
    if estimator is VariationalGLMRegressor:
        priors["intercept_mean"] = 0.0
    with open(Path(DATA) / "reference" / f"{name}.json") as file:
        reference = json.load(file)
    make = functools.partial(estimator, **parameters, **priors)
    return make, standardised(X), y, *(np.array(reference[k]) for k in ("mean", "sd"))


def mean_and_sd(model):
    """Posterior means and sds of (intercept, weights) of a fit."""
    mean = np.append(np.ravel(model.intercept_), np.ravel(model.coef_))
    return mean, np.append(np.ravel(model.intercept_std_), np.ravel(model.coef_std_))


def distance(mean, sd, true_mean, true_sd):
    """Worst and median error of a mean, median and least ratio of sds, as text."""
    error, ratio = np.abs(mean - true_mean) / true_sd, sd / true_sd
    return [
        f"{value:.3f}"
        for value in (error.max(), np.median(error), np.median(ratio), ratio.min())
    ]


DISTANCES = ["mean, worst", "median", "sd, median", "least"]


# %%
# An importance-corrected posterior: rounds of draws from a multivariate t. The first is
# twice as wide as the fit; each finds the mean and covariance that the next, a little
# wider than these, has. The log joint is written with scipy.stats alone.


def log_joint(family, Z, y, theta, precision, intercept, dispersion_prior, dof):
    """log p(y, theta) of rows of theta = (level, weights, log dispersion)."""
    level, w, log_dispersion = theta[:, 0], theta[:, 1:-1], theta[:, -1]
    eta = level + Z @ w.T  # (n, draws)
    dispersion = np.exp(log_dispersion)
    if family == "negative_binomial":
        size = 1.0 / dispersion
        p = 1.0 / (1.0 + dispersion * np.exp(eta))
        value = stats.nbinom.logpmf(y[:, None], size, p)
    else:
        value = stats.t.logpdf(y[:, None], dof, loc=eta, scale=np.sqrt(dispersion))
    shape, rate = dispersion_prior  # of 1 / dispersion; the density of its logarithm
    prior = stats.norm.logpdf(w, scale=precision**-0.5).sum(axis=1)
    prior += stats.norm.logpdf(level, intercept[0], intercept[1] ** -0.5)
    prior += stats.invgamma.logpdf(dispersion, shape, scale=rate) + log_dispersion
    return value.sum(axis=0) + prior


def importance(log_joint, mean, covariance, n_draws, rng, widen=4.0):
    """(mean, sd, effective sample size, log evidence) of theta."""
    for _ in range(3):
        proposal = stats.multivariate_t(mean, widen * covariance, df=6, seed=rng)
        draws = proposal.rvs(n_draws)
        blocks = np.array_split(draws, max(1, n_draws // 2000))
        log_w = np.concatenate([log_joint(block) for block in blocks])
        log_w -= proposal.logpdf(draws)
        w = np.exp(log_w - logsumexp(log_w))
        mean = w @ draws
        covariance = (draws - mean).T @ (w[:, None] * (draws - mean))
        widen = 1.3
    evidence = logsumexp(log_w) - np.log(n_draws)
    return mean, np.sqrt(np.diag(covariance)), 1.0 / np.sum(w**2), evidence


def dispersed_problems(quick):
    """name -> (family, Z, y, known precision of the weights)."""
    counts = {"quine": quine} if DATA else {"simulated": simulated_counts}
    robust = {"diabetes": diabetes}
    if DATA:
        robust = {"prostate": prostate, "uscrime": uscrime, **robust}
    for name, data in counts.items():
        yield name, "negative_binomial", data
    for name, data in robust.items():
        if not quick or name != "diabetes" or not DATA:
            yield name, "student_t", data


def dispersed(quick):
    """Rows of the negative binomial and Student-t posteriors."""
    rows, n_draws = [], 20_000 if quick else 200_000
    prior, dof = (1.5, 0.75), 4.0
    for name, family, data in dispersed_problems(quick):
        X, y = data()
        Z = standardised(X)
        parameters = {"family": family, "dispersion_prior": prior}
        if family == "student_t":
            parameters["dof"] = dof
            # The fit's own scale of y is 1 and its centre 0: no units to convert.
            scout = VariationalGLMRegressor(**parameters).fit(Z, y)
            y = (y - scout.y_offset_) / scout.y_scale_
        parameters |= {
            "weight_precision": 2.0,
            "intercept_mean": 0.0,
            "intercept_precision": 0.2,
        }
        reference = None
        for fit, more in FITS.items():
            model = VariationalGLMRegressor(**parameters, **more).fit(Z, y)
            draws = model.sample_posterior(50_000, random_state=0)
            theta = np.column_stack(
                [draws["intercept"], draws["coef"], np.log(draws["dispersion"])]
            )
            if reference is None:  # the structured fit leads the importance sampling
                reference = importance(
                    lambda t, y=y, Z=Z, family=family: log_joint(
                        family, Z, y, t, 2.0, (0.0, 0.2), prior, dof
                    ),
                    theta.mean(axis=0),
                    np.cov(theta.T),
                    n_draws,
                    np.random.default_rng(1),
                )
            mean, sd = mean_and_sd(model)
            logs = theta[:, -1]
            true_mean, true_sd, ess, evidence = reference
            rows.append(
                [f"{name} {family}, {Z.shape[0]} x {Z.shape[1]}", fit]
                + distance(mean, sd, true_mean[:-1], true_sd[:-1])
                + [f"{(logs.mean() - true_mean[-1]) / true_sd[-1]:+.3f}"]
                + [f"{logs.std() / true_sd[-1]:.3f}"]
                + [f"{model.elbo_ - evidence:+.3f}", f"{ess:,.0f}"]
            )
    return rows


def references(options):
    heading("Posteriors beside NUTS")
    note(
        """
The same known priors for all. Errors of posterior means in the reference's standard
deviations, worst and median; ratios of standard deviations to the reference's, median
and least. The reference's own Monte Carlo error is about 0.01 for both.
"""
    )
    rows = []
    for name in NUTS if DATA else ():
        make, Z, y, true_mean, true_sd = nuts_problem(name)
        for fit, parameters in FITS.items():
            start = time.perf_counter()
            model = make(**parameters).fit(Z, y)
            end = time.perf_counter()
            mean, sd = mean_and_sd(model)
            rows.append(
                [f"{name}, {Z.shape[0]} x {Z.shape[1]}", fit]
                + distance(mean, sd, true_mean, true_sd)
                + [model.n_iter_, seconds(1e3 * (end - start))]
            )
    table(["reference", "fit", *DISTANCES, "iterations", "ms"], rows)
    heading("Posteriors beside importance sampling")
    note(
        """
Families whose dispersion is unknown, with known prior precision of the weights (2) and
level (0.2), 1 / dispersion ~ Gamma(shape 1.5, rate 0.75). The reference: draws from a
multivariate t around the fit, weighted by the exact joint, three times. As above; then
the error of the mean of the log of the dispersion and the ratio of its sd; elbo_ minus
the log evidence; and the effective number of draws (from 20,000 on, the reference's
error is below 0.01).
"""
    )
    header = ["data", "fit", *DISTANCES, "log disp.", "its sd", "elbo - evidence"]
    table([*header, "draws"], dispersed(options.quick))


# %%
# Automatic variational inference
# -------------------------------


def pymc_fits(Z, y, sd):
    """(name, compile seconds, run seconds, mean, sd) of PyMC's ADVI."""
    import pymc as pm

    logging.getLogger("pymc").setLevel(logging.ERROR)
    design = np.column_stack([np.ones(len(Z)), Z])
    # PyMC's own steps, as many as it takes by default; and Adam with more of them.
    optimizers = {"": ({}, 10_000), ", Adam": ({"learning_rate": 0.01}, 20_000)}
    for kind in ("ADVI", "FullRankADVI"):
        for optimizer, (rate, steps) in optimizers.items():
            with pm.Model():
                beta = pm.Normal("beta", 0.0, sd, shape=design.shape[1])
                pm.Bernoulli("y", logit_p=pm.math.dot(design, beta), observed=y)
                inference = getattr(pm, kind)(random_seed=0)
                more = {"obj_optimizer": pm.adam(**rate)} if rate else {}
                start = time.perf_counter()
                inference.fit(1, progressbar=False, **more)
                begun = time.perf_counter()
                try:
                    inference.refine(steps - 1, progressbar=False)
                    mean = inference.approx.mean.eval()
                    std = inference.approx.std.eval()
                except FloatingPointError:
                    mean = std = np.full(design.shape[1], np.nan)
                end = time.perf_counter()
            label = f"PyMC {kind}{optimizer}, {steps:,} steps"
            yield label, begun - start, end - begun, mean, std


def numpyro_fits(Z, y, sd):
    """The same of NumPyro's SVI, whose loop is compiled before it is timed."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

    design = jnp.asarray(np.column_stack([np.ones(len(Z)), Z]), jnp.float32)
    answers = jnp.asarray(y, jnp.float32)

    def model(design, answers):
        prior = dist.Normal(0.0, sd).expand([design.shape[1]]).to_event(1)
        beta = numpyro.sample("beta", prior)
        logits = design @ beta
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=answers)

    for guide_class in (AutoNormal, AutoMultivariateNormal):
        for rate, steps in ((1e-2, 2000), (1e-3, 20_000)):
            guide = guide_class(model)
            svi = SVI(model, guide, numpyro.optim.Adam(rate), Trace_ELBO())
            state = svi.init(jax.random.PRNGKey(0), design, answers)

            def run(state, svi=svi, steps=steps):
                def step(state, _):
                    return svi.update(state, design, answers)

                return jax.lax.scan(step, state, None, length=steps)[0]

            start = time.perf_counter()
            compiled = jax.jit(run).lower(state).compile()
            begun = time.perf_counter()
            state = jax.block_until_ready(compiled(state))
            end = time.perf_counter()
            draws = guide.sample_posterior(
                jax.random.PRNGKey(1), svi.get_params(state), sample_shape=(20_000,)
            )["beta"]
            draws = np.asarray(draws, float)
            label = f"NumPyro {guide_class.__name__}, {steps:,} steps of {rate:g}"
            yield (
                label,
                begun - start,
                end - begun,
                draws.mean(axis=0),
                draws.std(axis=0),
            )


def advi(options):
    heading("Beside automatic variational inference")
    note(
        """
Bernoulli with logit link, the priors of the references, one thread. Seconds of
compiling, and of running what was compiled; "skvi": how many times as long as skvi's
fit with the same kind of covariance the run takes, alone and with compiling, which
comes with every new shape of data. PyMC and NumPyro run for a number of steps: the
first of each kind is the default or the usual one. Errors as above; nan where a fit
ended in NaN.
"""
    )
    if not DATA:
        note("SKVI_DATA is not set: skipped.")
        return
    peers = {"pymc": pymc_fits, "numpyro": numpyro_fits}
    names = ["wells_logistic", "pima_train_logistic", "german_logistic"]
    rows = []
    for name in names[:1] if options.quick else names:
        make, Z, y, true_mean, true_sd = nuts_problem(name)
        label, own = f"{name.removesuffix('_logistic')}", {}
        for posterior in ("mean_field", "structured"):
            make(posterior=posterior).fit(Z, y)  # lazy imports
            spent = []
            for _ in range(5):
                start = time.perf_counter()
                model = make(posterior=posterior).fit(Z, y)
                spent.append(time.perf_counter() - start)
            own[posterior] = np.median(spent)
            found = distance(*mean_and_sd(model), true_mean, true_sd)
            rows.append([label, f"skvi {posterior}", "-", seconds(own[posterior])])
            rows[-1] += ["1x", "1x", *found]
        for peer, fits in peers.items():
            if not installed(peer) or options.quick:
                continue
            for fit, compiling, run, mean, sd in fits(Z, y, NUTS[name][1]):
                full = "Full" in fit or "Multivariate" in fit
                unit = own["structured" if full else "mean_field"]
                rows.append([label, fit, seconds(compiling), seconds(run)])
                ratios = [f"{t / unit:.0f}x" for t in (run, run + compiling)]
                rows[-1] += ratios if np.isfinite(mean).all() else ["-", "-"]
                rows[-1] += distance(mean, sd, true_mean, true_sd)
    table(
        ["data", "fit", "compile s", "run s", "skvi", "with compiling"] + DISTANCES,
        rows,
    )


# %%
# Speed and memory
# ----------------


def dense_problem(n, p, n_new, seed=0):
    """Correlated columns (ten factors), a linear predictor of sd 1.5, raw units."""
    rng = np.random.default_rng(seed)
    loadings = rng.standard_normal((10, p)) * 0.4
    X = rng.standard_normal((n + n_new, 10)) @ loadings
    X += rng.standard_normal((n + n_new, p))
    coef = rng.standard_normal(p) * rng.gamma(0.5, 2.0, size=p)
    eta = X @ coef
    y = (rng.random(n + n_new) < expit(-0.7 + 1.5 * eta / eta.std())).astype(int)
    units = np.exp(rng.standard_normal(p))
    X = X * units + 3.0 * units
    return X[:n], y[:n], X[n:], y[n:]


ADULT = (5, 8, 5, 16, 5, 7, 14, 6, 5, 2, 2, 2, 5, 41)  # levels of its variables


def one_hot_problem(n, n_new, seed=0):
    """Fourteen categorical variables in 123 binary columns, like Adult's."""
    rng = np.random.default_rng(seed)
    rows = n + n_new
    common = rng.standard_normal(rows)
    indices, eta, first = [], np.full(rows, -1.3), 0
    for levels in ADULT:
        share = rng.permutation(1.0 / np.arange(1, levels + 1) ** 1.2)
        latent = 0.5 * common + np.sqrt(0.75) * rng.standard_normal(rows)
        cuts = stats.norm.ppf(np.cumsum(share / share.sum())[:-1])
        code = np.searchsorted(cuts, latent)
        indices.append(first + code)
        eta += 0.7 * rng.standard_normal(levels)[code]
        first += levels
    indices = np.column_stack(indices)
    pointers = np.arange(rows + 1) * len(ADULT)
    X = sparse.csr_matrix(
        (np.ones(indices.size), indices.ravel(), pointers), shape=(rows, first)
    )
    y = (rng.random(rows) < expit(eta)).astype(int)
    return X[:n], y[:n], X[n:], y[n:]


def log_loss(model, X, y):
    """Mean of minus the log probability of what happened."""
    probability = model.predict_proba(X)
    chosen = probability[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    return -np.mean(np.log(np.maximum(chosen, 1e-15)))


def taking_turns(contenders, X, y, repeats):
    """Fitted models, and seconds of fit for every contender and repeat."""
    times = {name: np.empty(repeats) for name in contenders}
    models = {}
    for repeat in range(repeats):
        for name, make in contenders.items():
            start = time.perf_counter()
            models[name] = quietly(make().fit, X, y)
            times[name][repeat] = time.perf_counter() - start
    return models, times


def last(model):
    return model[-1] if hasattr(model, "steps") else model


def compare(label, contenders, X, y, X_new, y_new, repeats, baseline):
    """Rows of a table: time, ratio to the baseline's, and quality of contenders."""
    half = max(len(y) // 50, 30)
    few = np.r_[:half]
    if len(np.unique(y[few])) == len(np.unique(y)):
        taking_turns(contenders, X[few], y[few], 1)  # lazy imports
    models, times = taking_turns(contenders, X, y, repeats)
    rows = []
    for name, model in models.items():
        ratio = times[name] / times[baseline]
        rows.append(
            [label, name, seconds(np.median(times[name]))]
            + [f"{np.median(ratio):.2f}x", f"{ratio.min():.2f} .. {ratio.max():.2f}"]
            + [int(np.max(last(model).n_iter_)), f"{log_loss(model, X_new, y_new):.5f}"]
        )
    return rows


SPEEDS = ["data", "fit", "s", "ratio", "range", "iterations", "log loss"]


def logistic_contenders(precision, threads):
    """skvi's two posteriors and LogisticRegression, by default and with C to match."""
    make = functools.partial(VariationalLogisticClassifier, n_jobs=threads)
    return {
        "LogisticRegression": LogisticRegression,
        f"the same, C=1/{precision:.3g}": functools.partial(
            LogisticRegression, C=1.0 / precision, max_iter=1000
        ),
        "skvi structured": make,
        "skvi mean_field": functools.partial(make, posterior="mean_field"),
        "skvi structured, ard": functools.partial(make, prior="ard"),
        "skvi structured, known lambda": functools.partial(
            make, weight_precision=precision
        ),
    }


def learned_precision(X, y):
    """The prior precision that skvi finds; C is one over it."""
    return float(quietly(VariationalLogisticClassifier().fit, X, y).weight_precision_)


def speed(options):
    heading("Speed beside LogisticRegression")
    note(
        """
Fit time; its ratio to that of LogisticRegression (lbfgs, its default settings), median
and range over runs in alternation; the log loss of 20,000 new rows (fewer in --quick).
LogisticRegression gives a point; skvi a posterior, with that of the prior precision
(lambda). "scaled": the columns are standardised beforehand, for free, which is what
lbfgs needs; "raw": they are not, so that LogisticRegression follows a StandardScaler.
The second LogisticRegression has C = 1/lambda and as many iterations as it takes.
"""
    )
    n, p, repeats = (100_000, 100, 5) if not options.quick else (10_000, 50, 2)
    X, y, X_new, y_new = dense_problem(n, p, 20_000 if not options.quick else 2000)
    centre, scale = X.mean(axis=0), X.std(axis=0)
    Z, Z_new = (X - centre) / scale, (X_new - centre) / scale
    rows = []
    for threads in (1, 2) if not options.quick else (1,):
        with threadpool_limits(threads):
            precision = learned_precision(Z, y)
            contenders = logistic_contenders(precision, threads)
            label = f"{n:,} x {p}, scaled"
            label += f", {threads} threads" if threads > 1 else ""
            arguments = (Z, y, Z_new, y_new, repeats, "LogisticRegression")
            rows += compare(label, contenders, *arguments)
    with threadpool_limits(1):
        contenders = {
            "LogisticRegression": lambda: make_pipeline(
                StandardScaler(), LogisticRegression()
            ),
            "skvi structured": VariationalLogisticClassifier,
        }
        arguments = (X, y, X_new, y_new, repeats, "LogisticRegression")
        rows += compare(f"{n:,} x {p}, raw", contenders, *arguments)
        Z32, Z32_new = Z.astype(np.float32), Z_new.astype(np.float32)
        arguments = (Z32, y, Z32_new, y_new, repeats, "LogisticRegression")
        contenders = {
            "LogisticRegression": LogisticRegression,
            "skvi structured": VariationalLogisticClassifier,
        }
        rows += compare(f"{n:,} x {p}, float32", contenders, *arguments)
    table(SPEEDS, rows)
    sparse_speed(options)
    wide_speed(options)
    multiclass_speed(options)


CHILD = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from benchmark_glm import CHILDREN, one_hot_problem

def peak():
    try:
        with open("/proc/self/status") as status:
            line = [line for line in status if line.startswith("VmHWM")][0]
        return 1024 * int(line.split()[1])
    except OSError:
        import resource
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

make = CHILDREN[sys.argv[2]]
X, y, *_ = one_hot_problem(2000, 1)
make().fit(X, y)  # lazy imports
X, y, *_ = one_hot_problem(int(sys.argv[3]), 1)
before = peak()
make().fit(X, y)
print(peak() - before)
"""
CHILDREN = {
    "LogisticRegression": LogisticRegression,
    "skvi structured": VariationalLogisticClassifier,
    "skvi mean_field": functools.partial(
        VariationalLogisticClassifier, posterior="mean_field"
    ),
}


def process_peak(name, n):
    """Bytes by which one fit raises the peak of the memory of a fresh process."""
    folder = str(Path(__file__).resolve().parent)
    command = [sys.executable, "-c", CHILD, folder, name, str(n)]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


def traced_peak(make, X, y):
    """Bytes that Python traces, at their peak, during one fit."""
    tracemalloc.start()
    quietly(make().fit, X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def sparse_speed(options):
    n = 32_560 if not options.quick else 8000
    X, y, X_new, y_new = one_hot_problem(n, 10_000 if not options.quick else 2000)
    size, dense = X.data.nbytes + X.indices.nbytes, 8 * X.shape[0] * X.shape[1]
    heading("Sparse binary columns")
    note(
        f"""
{n:,} x {X.shape[1]} in CSR, {len(ADULT)} ones a row (as one-hot codes of the Adult
data): {size / 2**20:.1f} MiB, and {dense / 2**20:.1f} MiB if it were dense. One thread.
LogisticRegression sees the columns as they are; skvi standardises them without leaving
the sparse format. Memory of a fit above that of X: what Python traces, and the growth
of a fresh process.
"""
    )
    with threadpool_limits(1):
        arguments = (X, y, X_new, y_new, 5 if not options.quick else 2)
        label = f"{n:,} x {X.shape[1]}"
        rows = compare(label, CHILDREN, *arguments, "LogisticRegression")
        for row in rows:
            traced = traced_peak(CHILDREN[row[1]], X, y)
            row.append(f"{traced / 2**20:.1f} MiB")
            process = "-"
            if not options.quick:
                process = f"{process_peak(row[1], n) / 2**20:.1f} MiB"
            row.append(process)
    table([*SPEEDS, "traced", "process"], rows)


def wide_problem():
    if DATA:
        file = arrays("genomics/colon")
        return "colon", np.asarray(file["X"], float), file["y"]
    rng = np.random.default_rng(0)
    X = rng.standard_normal((62, 2000))
    X[:, :50] += rng.standard_normal((62, 1))
    return "simulated", X, (X[:, :50].mean(axis=1) > 0.0).astype(int)


def wide_speed(options):
    name, X, y = wide_problem()
    heading("More columns than rows")
    note(
        """
Fit time on all rows, and the log loss and accuracy of 10-fold cross-validation (3-fold
in --quick). LogisticRegression follows a StandardScaler.
"""
    )
    scaled = functools.partial(make_pipeline, StandardScaler())
    contenders = {
        "LogisticRegression": lambda: scaled(LogisticRegression()),
        "LogisticRegressionCV": lambda: scaled(
            LogisticRegressionCV(scoring="neg_log_loss", max_iter=1000)
        ),
        "skvi structured": VariationalLogisticClassifier,
        "skvi mean_field": functools.partial(
            VariationalLogisticClassifier, posterior="mean_field"
        ),
        "skvi structured, ard": functools.partial(
            VariationalLogisticClassifier, prior="ard"
        ),
    }
    if options.quick:
        for slow in ("LogisticRegressionCV", "skvi structured, ard"):
            contenders.pop(slow)
    rows = []
    folds = StratifiedKFold(3 if options.quick else 10, shuffle=True, random_state=0)
    with threadpool_limits(1):
        for fit, make in contenders.items():
            quietly(make().fit, X[:, :20], y)
            start = time.perf_counter()
            model = quietly(make().fit, X, y)
            spent = time.perf_counter() - start
            losses, right = [], []
            for a, b in folds.split(X, y):
                part = quietly(make().fit, X[a], y[a])
                losses.append(len(b) * log_loss(part, X[b], y[b]))
                right.append(np.sum(part.predict(X[b]) == y[b]))
            rows.append(
                [f"{name}, {X.shape[0]} x {X.shape[1]:,}", fit, seconds(spent)]
                + [int(np.max(last(model).n_iter_)), f"{sum(losses) / len(y):.3f}"]
                + [f"{sum(right) / len(y):.3f}"]
            )
    table(["data", "fit", "s", "iterations", "log loss", "accuracy"], rows)


def halved(X, y, n):
    """n rows to learn from, and the others, stratified."""
    splits = StratifiedShuffleSplit(1, train_size=n, random_state=0)
    a, b = next(splits.split(X, y))
    return X[a], y[a], X[b], y[b]


def multiclass_problems(quick):
    """name, X, y, X_new, y_new."""
    if not DATA:
        rng = np.random.default_rng(0)
        centres = rng.standard_normal((5, 10))
        y = rng.integers(5, size=1500)
        X = centres[y] + rng.standard_normal((1500, 10))
        yield "simulated", X[:1000], y[:1000], X[1000:], y[1000:]
        return
    file = arrays("classification/vowel")
    yield "vowel", *halved(np.asarray(file["X"], float), file["y"], 528)
    if not quick:
        file = arrays("classification/usps_zip")
        pixels = file["X"].reshape(-1, 8, 2, 8, 2).mean(axis=(2, 4))
        yield "usps", *halved(pixels.reshape(-1, 64), file["y"], 2000)


def multiclass_speed(options):
    heading("Several classes")
    note(
        """
Softmax with a weight vector a class, and its covariance over all classes together;
LogisticRegression (lbfgs, multinomial) follows a StandardScaler. The log loss is that
of the rows that a stratified split leaves; usps has its pixels averaged by fours.
"""
    )
    scaled = functools.partial(make_pipeline, StandardScaler())
    rows = []
    for name, X, y, X_new, y_new in multiclass_problems(options.quick):
        contenders = {
            "LogisticRegression": lambda: scaled(LogisticRegression()),
            "the same, max_iter=2000": lambda: scaled(
                LogisticRegression(max_iter=2000)
            ),
            "skvi structured": VariationalLogisticClassifier,
            "skvi mean_field": functools.partial(
                VariationalLogisticClassifier, posterior="mean_field"
            ),
        }
        label = f"{name}, {X.shape[0]:,} x {X.shape[1]}, {len(np.unique(y))} classes"
        with threadpool_limits(1):
            arguments = (
                X,
                y,
                X_new,
                y_new,
                1 if options.quick else 2,
                "LogisticRegression",
            )
            rows += compare(label, contenders, *arguments)
    table(SPEEDS, rows)


# %%
# Calibration
# -----------

N_BINS = 15


def calibration_error(y, probability):
    """Expected calibration error of the probability of the second class.

    Fifteen bins of equal width over [0, 1]; the mean over rows of the distance, in
    their bin, between the mean probability and the share of the second class.
    """
    which = np.minimum((N_BINS * probability).astype(int), N_BINS - 1)
    total = np.bincount(which, weights=y - probability, minlength=N_BINS)
    return np.sum(np.abs(total)) / len(y)


def calibration_by_chance(probability, rng, repeats=100):
    """The same of labels that are drawn from the probabilities: not zero, in bins."""
    drawn = rng.random((repeats, len(probability))) < probability
    return np.mean([calibration_error(y, probability) for y in drawn])


def binary_data(quick):
    """name, X, y in {0, 1}."""
    names = ("pima", "german_credit", "saheart", "spam", "ionosphere")
    for name in (names[:1] if quick else names) if DATA else ():
        file = arrays(f"classification/{name}")
        X, y = np.asarray(file["X"], float), file["y"]
        yield name, X, (y == y.max()).astype(int)
    yield "breast_cancer", *load_breast_cancer(return_X_y=True)


def calibration(options):
    n_splits = 3 if options.quick else 10
    heading("Calibration beside LogisticRegressionCV")
    note(
        f"""
Means over {n_splits} stratified random halves (train on one, test on the other), +- the
standard error over splits: log loss, and expected calibration error (ECE) of the
probability of the second class, in {N_BINS} bins of equal width; in brackets, what it
would be for labels drawn from the very probabilities: so few rows in a bin are never
even. Then the paired differences to LogisticRegressionCV scored by log loss (less than
zero: skvi is better). The splits share rows, so these errors are a little too small.
LogisticRegressionCV follows a StandardScaler: its default ten values of C, five folds;
"default scoring" chooses C by accuracy. skvi has its defaults.
"""
    )
    scaled = functools.partial(make_pipeline, StandardScaler())
    contenders = {
        "LogisticRegressionCV": lambda: scaled(
            LogisticRegressionCV(scoring="neg_log_loss", max_iter=1000)
        ),
        "default scoring": lambda: scaled(LogisticRegressionCV(max_iter=1000)),
        "skvi ridge": VariationalLogisticClassifier,
        "skvi ard": functools.partial(VariationalLogisticClassifier, prior="ard"),
        "skvi ridge, mean_field": functools.partial(
            VariationalLogisticClassifier, posterior="mean_field"
        ),
    }
    if options.quick:
        contenders.pop("default scoring")
    rows = []
    for name, X, y in binary_data(options.quick):
        splits = StratifiedShuffleSplit(n_splits, test_size=0.5, random_state=0)
        scores = {fit: np.empty((n_splits, 3)) for fit in contenders}
        spent = dict.fromkeys(contenders, 0.0)
        unconverged = dict.fromkeys(contenders, 0)
        for k, (a, b) in enumerate(splits.split(X, y)):
            for fit, make in contenders.items():
                start = time.perf_counter()
                model = quietly(make().fit, X[a], y[a])
                spent[fit] += time.perf_counter() - start
                unconverged[fit] += not getattr(last(model), "converged_", True)
                probability = model.predict_proba(X[b])[:, 1]
                scores[fit][k] = (
                    log_loss(model, X[b], y[b]),
                    calibration_error(y[b], probability),
                    calibration_by_chance(probability, np.random.default_rng(k)),
                )
        base = scores["LogisticRegressionCV"]
        for fit, score in scores.items():
            rows.append([f"{name}, {X.shape[0]:,} x {X.shape[1]}", fit])
            rows[-1] += [with_error(score[:, 0]), with_error(score[:, 1])]
            rows[-1][-1] += f" ({score[:, 2].mean():.3f})"
            rows[-1] += (
                ["-", "-"]
                if score is base
                else [with_error(score[:, j] - base[:, j], "+") for j in (0, 1)]
            )
            rows[-1] += [seconds(spent[fit] / n_splits), unconverged[fit]]
    header = [
        "data",
        "fit",
        "log loss",
        "ECE (chance)",
        "paired log loss",
        "paired ECE",
    ]
    table([*header, "fit s", "not converged"], rows)


# %%
# Relevance
# ---------


def noisy_columns(family, n, p, n_active, size, seed, n_new=5000):
    """Columns with correlation 0.3, of which the first few matter."""
    rng = np.random.default_rng(seed)
    X = np.sqrt(0.7) * rng.standard_normal((n + n_new, p))
    X += np.sqrt(0.3) * rng.standard_normal((n + n_new, 1))
    coef = size * np.linspace(0.5, 1.5, n_active) * np.resize([1, -1], n_active)
    eta = X[:, :n_active] @ coef
    if family == "logistic":
        y = (rng.random(n + n_new) < expit(eta)).astype(int)
    else:
        y = rng.poisson(np.exp(1.0 + eta)).astype(float)
    return X[:n], y[:n], X[n:], y[n:]


def relevance(quick):
    for family, size in (("logistic", 1.0), ("poisson", 0.3)):
        yield family, 200, 50, 5, size
        if not quick:
            yield family, 400, 100, 5, size
            yield family, 400, 100, 5, 0.4 * size
            yield family, 1000, 200, 10, 0.6 * size


def ard(options):
    n_seeds = 3 if options.quick else 10
    heading("The ARD prior where most columns are noise")
    note(
        f"""
{n_seeds} simulated data sets a row: the first columns have weights of either sign
between half and one and a half times "size", the rest none; all are correlated (0.3).
Mean log predictive density of 5,000 new rows and the gain of ard over ridge, paired,
+- its standard error. "found": share of the columns that matter among as many of the
smallest weight_precision_ (chance: their share of all); "ridge": the same by
|mean| / sd of a ridge fit; "gap": median over columns of noise of weight_precision_,
divided by the median over those that matter.
"""
    )
    rows = []
    for family, n, p, k, size in relevance(options.quick):
        scores, found, gap = np.empty((n_seeds, 2)), np.empty((n_seeds, 2)), []
        make = VariationalLogisticClassifier
        if family == "poisson":
            make = functools.partial(VariationalGLMRegressor, family="poisson")
        for seed in range(n_seeds):
            X, y, X_new, y_new = noisy_columns(family, n, p, k, size, seed)
            models = [quietly(make(prior=name).fit, X, y) for name in ("ridge", "ard")]
            for j, model in enumerate(models):
                scores[seed, j] = model.log_predictive_density(X_new, y_new).mean()
            strength = np.abs(np.ravel(models[0].coef_) / np.ravel(models[0].coef_std_))
            precision = models[1].weight_precision_
            for j, order in enumerate((precision, -strength)):
                found[seed, j] = np.mean(np.argsort(order)[:k] < k)
            gap.append(np.median(precision[k:]) / np.median(precision[:k]))
        rows.append(
            [f"{family}, {n:,} x {p}, {k} matter", f"{size:g}"]
            + [f"{value:.4f}" for value in scores.mean(axis=0)]
            + [with_error(scores[:, 1] - scores[:, 0], "+")]
            + [f"{value:.2f}" for value in found.mean(axis=0)]
            + [f"{np.median(gap):.0f}x"]
        )
    header = ["data", "size", "ridge", "ard", "gain", "found", "ridge", "gap"]
    table(header, rows)


# %%
# Running
# -------


def in_throwaway_environment(arguments):
    """Run this script with the peers, which are installed for it and removed after."""
    with tempfile.TemporaryDirectory() as folder:
        print(f"  Installing {', '.join(PEERS)} in {folder}", flush=True)
        venv.create(folder, with_pip=True)
        scheme = {"base": folder, "platbase": folder}
        own = Path(sysconfig.get_path("purelib", "venv", scheme))
        here = sysconfig.get_path("purelib")
        # What is installed here is there, too, after what the peers bring along.
        (own / "outer.pth").write_text(f"import site; site.addsitedir({here!r})\n")
        python = Path(sysconfig.get_path("scripts", "venv", scheme)) / "python"
        install = [python, "-m", "pip", "install", "--quiet", *INSTALL]
        subprocess.run(install, check=True)
        command = [python, __file__, *arguments]
        return subprocess.run(command, check=False).returncode


SECTIONS = {
    "references": references,
    "advi": advi,
    "speed": speed,
    "calibration": calibration,
    "ard": ard,
}


def main():
    parser = argparse.ArgumentParser(description="Benchmark likelihoods.")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer runs")
    parser.add_argument("--only", action="append", choices=sorted(SECTIONS))
    parser.add_argument(
        "--install-peers",
        action="store_true",
        help="install other packages in a temporary environment, and run there",
    )
    options = parser.parse_args()
    if options.install_peers and not options.quick:
        arguments = [a for a in sys.argv[1:] if a != "--install-peers"]
        sys.exit(in_throwaway_environment(arguments))
    start = time.perf_counter()
    versions()
    with threadpool_limits(1):
        for name, section in SECTIONS.items():
            if options.only is None or name in options.only:
                began = time.perf_counter()
                section(options)
                print(f"  ({time.perf_counter() - began:.0f} s)", flush=True)
    print(f"\nDone in {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
