"""
Benchmark: mixed effects
========================

``VariationalMixedEffectsRegressor`` and ``VariationalMixedEffectsClassifier``:
posteriors beside long runs of NUTS, restricted maximum likelihood (REML) as the priors
weaken, time and memory beside statsmodels, and prediction of new rows and new groups
beside complete pooling and no pooling. Every table says what it compares.

.. code-block:: sh

    python examples/benchmark_mixed.py            # some minutes
    python examples/benchmark_mixed.py --quick    # smaller, without peers: seconds
    python examples/benchmark_mixed.py --only references --only reml
    python examples/benchmark_mixed.py --install-peers --only speed

statsmodels takes part if it is installed. ``--install-peers`` installs it in a
temporary environment, runs the benchmark there and removes it again; nothing else
changes on the machine. With the environment variable ``SKVI_DATA`` set to a folder that
holds ``reference/sleepstudy_lmm.json``, ``mixed/sleepstudy.csv.gz`` and their like,
real data take part.

All times are of one process, of runs in alternation, on one thread.
"""

import argparse
import csv
import gzip
import json
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
import warnings
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
import scipy
import sklearn
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

import skvi
from skvi import VariationalMixedEffectsClassifier, VariationalMixedEffectsRegressor

DATA = os.environ.get("SKVI_DATA")
PEERS = ("statsmodels",)
INSTALL = (*PEERS, "pandas")
FITS = {
    "structured": {},
    "structured, corrected": {"posterior_covariance": "linear_response"},
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


def with_error(values, sign="", digits=3):
    """Mean and standard error of one number a unit."""
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
        print("  SKVI_DATA is not set: only what is simulated runs.")


def quietly(function, *arguments):
    """A fit without its warning of convergence: tables say what did not converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return function(*arguments)


def timed(function, *arguments):
    """(seconds, result)."""
    start = time.perf_counter()
    result = quietly(function, *arguments)
    return time.perf_counter() - start, result


# %%
# Data
# ----
# Every problem is a dictionary: "X" (features first, then one column of codes a
# factor), "y", "groups" (the positions of the factors) and, where there are any,
# "slopes" (positions of the columns with random slopes), "family", "trials".


def columns(name, *wanted):
    """Columns of a .csv.gz as lists of strings."""
    with gzip.open(Path(DATA) / f"{name}.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    return [[row[column] for row in rows] for column in wanted]


def codes(values):
    """Positions among the sorted levels: the order of the references."""
    return np.unique(np.asarray(values), return_inverse=True)[1]


def indicators(values, levels=None):
    """One column a level, without the first (sorted) one."""
    levels = sorted(set(values))[1:] if levels is None else levels
    return [[float(v == level) for v in values] for level in levels]


def problem(y, features, factors, slopes=(), family="gaussian", trials=None):
    features = [np.asarray(column, float) for column in features]
    factors = [np.asarray(column, float) for column in factors]
    last = [] if trials is None else [np.asarray(trials, float)]
    p = len(features)
    found = {
        "X": np.column_stack([*features, *factors, *last]),
        "y": np.asarray(y, float),
        "p": p,
        "groups": list(range(p, p + len(factors))),
        "slopes": list(slopes),
        "family": family,
    }
    if trials is not None:
        found["trials"] = p + len(factors)
    return found


def sleepstudy(ones=False):
    y, days, subject = columns("mixed/sleepstudy", "Reaction", "Days", "Subject")
    first = [np.ones(len(y))] if ones else []
    return problem(y, [*first, days], [codes(subject)], [len(first)])


def radon(ones=False, uranium_too=True):
    y, floor, uranium, county = columns(
        "mixed/radon", "log_radon", "floor", "log_uranium", "county"
    )
    first = [np.ones(len(y))] if ones else []
    features = [*first, uranium, floor] if uranium_too else [*first, floor]
    return problem(y, features, [codes(county)])


def dyestuff(name="dyestuff"):
    y, batch = columns(f"mixed/{name}", "Yield", "Batch")
    return problem(y, [], [codes(batch)])


def epil(ones=False):
    names = ("y", "lbase", "trt", "lage", "V4", "subject")
    y, lbase, trt, lage, v4, subject = columns("mixed/epil", *names)
    trt = np.array([v == "progabide" for v in trt], float)
    base = np.array(lbase, float)
    features = [base, trt, base * trt, lage, v4]
    first = [np.ones(len(y))] if ones else []
    return problem(y, [*first, *features], [codes(subject)], family="poisson")


def epil_slopes():
    """A slope over the visits for each patient."""
    names = ("y", "base", "trt", "age", "period", "subject")
    y, base, trt, age, period, subject = columns("mixed/epil", *names)
    trt = np.array([v == "progabide" for v in trt], float)
    base = np.log(np.array(base, float) / 4.0)
    visit = (np.array(period, float) - 2.5) / 5.0
    features = [base, trt, base * trt, np.log(np.array(age, float)), visit]
    return problem(y, features, [codes(subject)], [4], family="poisson")


def cbpp(ones=False):
    names = ("incidence", "size", "period", "herd")
    y, size, period, herd = columns("mixed/cbpp", *names)
    first = [np.ones(len(y))] if ones else []
    features = [*first, *indicators(period)]
    return problem(y, features, [codes(herd)], family="binomial", trials=size)


def toenail():
    names = ("outcome", "treatment", "time", "patientID")
    outcome, treatment, months, patient = columns("mixed/toenail", *names)
    y = [v != "none or mild" for v in outcome]
    treated = np.array([v == "terbinafine" for v in treatment], float)
    months = np.array(months, float)
    features = [treated, months, treated * months]
    return problem(y, features, [codes(patient)], family="classifier")


def machines():
    y, machine, worker = columns("mixed/machines", "score", "Machine", "Worker")
    return problem(y, indicators(machine), [codes(worker)], [0, 1])


def orthodont():
    names = ("distance", "age", "Sex", "Subject")
    y, age, sex, subject = columns("mixed/orthodont", *names)
    female = [v == "Female" for v in sex]
    return problem(y, [age, female], [codes(subject)], [0])


def hsb82(every=1):
    names = ("mAch", "ses", "meanses", "sector", "school")
    y, ses, meanses, sector, school = columns("mixed/hsb82", *names)
    school = codes(school)
    keep = school % every == 0
    features = [ses, meanses, [v == "Catholic" for v in sector]]
    features = [np.array(column, float)[keep] for column in features]
    return problem(np.array(y, float)[keep], features, [school[keep]], [0])


def insteval(dept=False):
    names = ("y", "service", "lectage", "studage", "s", "d", "dept")
    y, service, lectage, studage, s, d, department = columns("mixed/insteval", *names)
    features = [service, *indicators(lectage), *indicators(studage)]
    factors = [codes(s), codes(d)] + ([codes(department)] if dept else [])
    return problem(y, features, factors)


def penicillin():
    """Simulated with the figures of the penicillin data: 24 plates x 6 samples."""
    rng = np.random.default_rng(0)
    plate, sample = (v.ravel() for v in np.indices((24, 6)))
    u, v = 0.85 * rng.standard_normal(24), 1.9 * rng.standard_normal(6)
    y = 23.0 + u[plate] + v[sample] + 0.55 * rng.standard_normal(144)
    return problem(y, [], [plate, sample])


def nested():
    """Simulated: 15 schools of 3 classes of 4 rows."""
    rng = np.random.default_rng(1)
    school = np.repeat(np.arange(15), 12)
    pair = 3 * school + np.tile(np.repeat(np.arange(3), 4), 15)
    x = rng.standard_normal(180)
    y = 2.0 + 0.5 * x + rng.standard_normal(15)[school] * 0.6
    y = y + 0.4 * rng.standard_normal(45)[pair] + rng.standard_normal(180)
    return problem(y, [x], [school, pair])


def crossed_binary():
    """Simulated: 40 persons x 15 items."""
    rng = np.random.default_rng(2)
    person, item = (v.ravel() for v in np.indices((40, 15)))
    x = rng.standard_normal(600)
    eta = -0.3 + 0.6 * x + 1.0 * rng.standard_normal(40)[person]
    eta = eta + 0.7 * rng.standard_normal(15)[item]
    y = rng.random(600) < expit(eta)
    return problem(y, [x], [person, item], family="classifier")


def crossed_counts():
    """Simulated: 25 x 12 counts."""
    rng = np.random.default_rng(3)
    a, b = (v.ravel() for v in np.indices((25, 12)))
    x = rng.standard_normal(300)
    eta = 0.8 + 0.3 * x + 0.5 * rng.standard_normal(25)[a]
    eta = eta + 0.3 * rng.standard_normal(12)[b]
    return problem(rng.poisson(np.exp(eta)), [x], [a, b], family="poisson")


def estimator(data, **parameters):
    """The estimator that a problem asks for, not fitted."""
    roles = {"groups": data["groups"]}
    if data["slopes"]:
        roles["random_slopes"] = {group: data["slopes"] for group in data["groups"]}
    if "trials" in data:
        roles["trials"] = data["trials"]
    parameters = roles | parameters
    if data["family"] == "classifier":
        return VariationalMixedEffectsClassifier(**parameters)
    return VariationalMixedEffectsRegressor(family=data["family"], **parameters)


def factor(data, k=0):
    """The name of a factor in the fitted attributes: an unnamed column's."""
    return f"x{data['groups'][k]}"


# %%
# References
# ----------

# Means and sds of the log sds: the files have those of the sds, whose logarithms are
# skewed. From a repetition of the same NUTS runs (4 chains of 5000 draws); those of
# dyestuff and radon by quadrature over the sds, the rest being integrated in closed
# form. Order: random effects' sds, noise.
LOG_SDS = {
    "sleepstudy_lmm": ([3.259, 1.850, 3.253], [0.251, 0.224, 0.0592]),
    "radon_lmm": ([-1.9638, -0.3156], [0.408, 0.0243]),
    "dyestuff_lmm": ([3.8226, 3.9492], [0.5366, 0.1519]),
    "epil_poisson_glmm": ([-0.612], [0.122]),
    "cbpp_binomial_glmm": ([-0.358], [0.285]),
}


def reference_problem(name):
    """(problem, parameters, positions of the fixed effects in the file's arrays).

    The files' priors are of the columns as they are, the intercept among them: hence
    the column of ones, which is a feature without a scale, and fit_intercept=False.
    Priors are given to skvi in units of the root mean squares that it divides by.
    """
    make = {
        "sleepstudy_lmm": sleepstudy,
        "radon_lmm": radon,
        "epil_poisson_glmm": epil,
        "cbpp_binomial_glmm": cbpp,
    }
    if name == "dyestuff_lmm":
        data = dyestuff()
        unit = data["y"].std()
        return data, {
            "intercept_mean": 1500.0,
            "intercept_precision": (unit / 1000.0) ** 2,
            "sd_prior": ("half_normal", 100.0 / unit),
            "noise_sd_prior": ("half_normal", 100.0 / unit),
        }
    data = make[name](ones=True)
    scale = np.sqrt(np.mean(data["X"][:, : data["p"]] ** 2, axis=0))
    unit = np.sqrt(np.mean(data["y"] ** 2)) if data["family"] == "gaussian" else 1.0
    wide, sds, noise = {
        "sleepstudy_lmm": (1000.0, (50.0, 20.0 * scale[1]), 50.0),
        "radon_lmm": (10.0, 1.0, 1.0),
        "epil_poisson_glmm": (2.5, 1.0, None),
        "cbpp_binomial_glmm": (2.5, 1.0, None),
    }[name]
    sds = tuple(np.divide(sds, unit).tolist()) if np.ndim(sds) else sds / unit
    parameters = {
        "fit_intercept": False,
        "weight_precision": (unit / (wide * scale)) ** 2,
        "sd_prior": ("half_normal", sds),
    }
    if noise is not None:
        parameters["noise_sd_prior"] = ("half_normal", noise / unit)
    return data, parameters


def log_sds(model):
    """Means and sds of the log sds, the noise's last; and how many there are."""
    found = model.variance_components_
    keep = [k for k, name in enumerate(found.names) if name.startswith("sd(")]
    return np.asarray(found.log_mean)[keep], np.asarray(found.log_sd)[keep]


def fixed_effects(model, intercept=True):
    """Means and sds of (intercept, coefficients) in the data's units."""
    mean, sd = np.ravel(model.coef_), np.ravel(model.coef_std_)
    if intercept:
        mean = np.append(np.ravel(model.intercept_), mean)
        sd = np.append(np.ravel(model.intercept_std_), sd)
    return mean, sd


def random_effects(model, data, k=0):
    found = model.random_effects_[factor(data, k)]
    return np.ravel(found.mean), np.ravel(found.sd)


def interval(values, digits=3):
    """Least and greatest, or the only one."""
    values = np.atleast_1d(values)
    low, high = f"{values.min():.{digits}f}", f"{values.max():.{digits}f}"
    return low if low == high else f"{low} ... {high}"


def distances(found, reference):
    """Largest error of the means in sds, and the range of the ratios of sds."""
    (mean, sd), (true_mean, true_sd) = found, reference
    error = np.abs(mean - np.asarray(true_mean)) / true_sd
    return [f"{error.max():.3f}", interval(sd / np.asarray(true_sd))]


def references(options):
    heading("Posteriors beside NUTS")
    note(
        """
The very same priors. Largest error of the posterior means in the reference's standard
deviations, and the range of the ratios of standard deviations to the reference's: of
the fixed effects, of the logs of the sds of the random effects and the noise, and of
the random effects. "corrected": with linear response. The reference's own Monte Carlo
error is about .01 ... .02 for means and 1 ... 2 % for sds (dyestuff, whose tails are
heavy: 4 %; it is given again with the exact posterior by quadrature).
"""
    )
    if not DATA:
        note("SKVI_DATA is not set: skipped.")
        return
    rows = []
    for name in LOG_SDS:
        data, parameters = reference_problem(name)
        with open(Path(DATA) / "reference" / f"{name}.json") as file:
            reference = json.load(file)
        labels = reference["parameters"]
        pairs = np.array([reference["mean"], reference["sd"]])
        first = [labels.index("mu_alpha")] if "mu_alpha" in labels else []
        first += [labels.index("mu")] if "mu" in labels else []
        fixed = first + [k for k, v in enumerate(labels) if v.startswith("beta")]
        random = [k for k, v in enumerate(labels) if v.startswith("u[")]
        for fit, more in FITS.items():
            spent, model = timed(
                estimator(data, **parameters, **more).fit, data["X"], data["y"]
            )
            effects = fixed_effects(model, model.fit_intercept)
            rows.append([name.split("_")[0], fit])
            rows[-1] += distances(effects, pairs[:, fixed])
            rows[-1] += distances(log_sds(model), LOG_SDS[name])
            rows[-1] += distances(random_effects(model, data), pairs[:, random])
            rows[-1] += [model.n_iter_, seconds(1e3 * spent)]
            rows[-1][-2] = f"{rows[-1][-2]}{'' if model.converged_ else '*'}"
            if name == "dyestuff_lmm":
                exact = ["dyestuff, exact", fit]
                exact += distances(effects, ([1527.482], [25.293]))
                rows.append([*exact, *rows[-1][4:6], "-", "-", *rows[-1][-2:]])
    table(DISTANCES, rows)


DISTANCES = ["data", "fit", "fixed", "sds", "log sd", "sds", "random", "sds"]
DISTANCES += ["iterations", "ms"]


# %%
# REML
# ----

REML = {
    "dyestuff": (dyestuff, {"level": 1527.5, "sd": [42.00], "noise": 49.51}),
    "dyestuff2": (
        lambda: dyestuff("dyestuff2"),
        {"level": 5.6656, "sd": [0.0], "noise": 3.716},
    ),
    "sleepstudy": (
        sleepstudy,
        {"level": 251.405, "sd": [24.74, 5.92], "noise": 25.59},
    ),
}


def reml(options):
    heading("Restricted maximum likelihood as the priors weaken")
    note(
        """
Sds of the random effects and the noise have inverse-Wishart priors whose degrees of
freedom (dof) go to the least that is allowed, and their scale (in units of y, and of
the slope's column) to zero; fixed effects have nearly flat ones. A variational fit of
the joint posterior then repeats the steps by which REML is found with the EM algorithm,
and the inverse of the posterior mean of the inverse covariance matrix is what comes out
as REML's. With two effects a proper prior keeps one degree of freedom more than that:
sds that are less by 1 / (2 x 18) before the noise takes its share. "mean": posterior
means of the sds.
"""
    )
    if not DATA:
        note("SKVI_DATA is not set: skipped.")
        return
    rows = []
    for name, (make, truth) in REML.items():
        data = make()
        q, J = len(truth["sd"]), len(np.unique(data["X"][:, data["groups"][0]]))
        rows.append([name, "REML", f"{truth['level']:.3f}"])
        rows[-1] += [numbers(truth["sd"]), "-", numbers(truth["noise"]), "-"]
        for excess in (1.0, 0.1, 0.01, 0.001):
            dof, scale = q - 1.0 + excess, np.sqrt(excess)
            model = estimator(
                data,
                sd_prior=("inverse_wishart", scale, dof),
                noise_sd_prior=("inverse_wishart", scale, excess),
                weight_precision=1e-8,
                intercept_precision=1e-8,
                max_iter=5000,
                tol=1e-9,
            )
            quietly(model.fit, data["X"], data["y"])
            # Of an inverse Wishart, from its mean: E[inverse] = ((nu - q - 1) / nu) /.
            nu = dof + J
            inner = np.diag(model.covariances_[factor(data)]) * (nu - q - 1.0) / nu
            nu = excess + len(data["y"])
            noise = model.noise_variance_ * (nu - 2.0) / nu
            found = model.variance_components_
            mean = np.asarray(found.mean)
            mean = mean[[k for k, v in enumerate(found.names) if v.startswith("sd(")]]
            rows.append(
                [name, f"dof {dof:g}, scale {scale:.2g}"]
                + [f"{np.ravel(model.intercept_)[0]:.3f}", numbers(np.sqrt(inner))]
                + [numbers(mean[:-1]), numbers(np.sqrt(noise))]
                + [f"{model.n_iter_}{'' if model.converged_ else '*'}"]
            )
    header = ["data", "fit", "intercept", "sds", "mean sds", "noise", "iterations"]
    table(header, rows)


def numbers(values):
    return " ".join(f"{value:.3f}" for value in np.ravel(values))


# %%
# Speed
# -----

CHILD = """
import sys, time, warnings
sys.path.insert(0, sys.argv[1])
import benchmark_mixed as b

def peak():
    try:
        with open("/proc/self/status") as status:
            line = [line for line in status if line.startswith("VmHWM")][0]
        return 1024 * int(line.split()[1])
    except OSError:
        import resource
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

small = b.penicillin()
b.estimator(small).fit(small["X"], small["y"])  # lazy imports
data = b.LARGE[sys.argv[2]]()
before = peak()
start = time.perf_counter()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    model = b.estimator(data, **b.FITS[sys.argv[3]]).fit(data["X"], data["y"])
spent = time.perf_counter() - start
mean, sd = b.log_sds(model)
effects = b.fixed_effects(model)
print(spent, before, peak(), model.n_iter_, int(model.converged_))
print(*effects[0][:2], *effects[1][:2])
print(*mean)
print(*sd)
"""


def child(name, fit):
    """(seconds, bytes before and at the peak, iterations, converged), effects, sds."""
    folder = str(Path(__file__).resolve().parent)
    command = [sys.executable, "-c", CHILD, folder, name, fit]
    found = subprocess.run(command, capture_output=True, check=False, text=True)
    if found.returncode:
        raise RuntimeError(f"{name}, {fit}:\n{found.stderr}")
    return [[float(v) for v in line.split()] for line in found.stdout.splitlines()]


def crossed_rows(n, seed=0):
    """Simulated: as many rows an effect as in the ratings, and as unbalanced."""
    rng = np.random.default_rng(seed)
    a = rng.integers(n // 25, size=n)
    b = np.minimum((n // 65) * rng.random(n) ** 1.5, n // 65 - 1).astype(int)
    x = rng.standard_normal((3, n))
    y = 3.0 + x.sum(axis=0) * 0.1 + 0.3 * rng.standard_normal(n // 25)[a]
    y = y + 0.5 * rng.standard_normal(n // 65)[b] + 1.2 * rng.standard_normal(n)
    return problem(y, x, [a, b])


LARGE = {
    "insteval": insteval,
    "insteval, with dept": lambda: insteval(dept=True),
    "simulated": lambda: crossed_rows(73_421),
    "simulated, small": lambda: crossed_rows(10_000),
}
# REML of insteval by an own sparse Cholesky: service and its error, then the sds of
# students, lecturers (departments) and the noise.
INSTEVAL = {
    "insteval": (-0.0708, 0.0134, 0.3262, 0.5167, 1.1762),
    "insteval, with dept": (-0.0728, 0.0135, 0.3267, 0.5107, 0.0832, 1.1762),
}


def crossed_speed(options):
    heading("Crossed factors: 73,421 ratings, 2,972 students x 1,128 lecturers")
    note(
        """
Fixed effects: service, lecturer's age (5 columns), student's age (3). Seconds of the
fit and peak memory of a fresh process, with data and imports, and the growth by the
fit. Estimates of the sds of students, lecturers, (departments,) noise: exp of the mean
of their logarithms, and the sds of the logarithms.
"""
    )
    names = ["insteval", "insteval, with dept"] if DATA else ["simulated"]
    if options.quick:
        names = ["simulated, small"]
    rows = []
    for name in names:
        for fit in FITS if not options.quick else list(FITS)[:1]:
            figures, effects, mean, sd = child(name, fit)
            spent, before, peak, iterations, converged = figures
            rows.append([name, fit, seconds(spent), f"{peak / 2**20:,.0f}"])
            rows[-1] += [f"{(peak - before) / 2**20:,.0f}"]
            rows[-1] += [f"{iterations:.0f}{'' if converged else '*'}"]
            rows[-1] += [f"{effects[1]:.4f} ({effects[3]:.4f})"]
            rows[-1] += [numbers(np.exp(mean)), numbers(sd)]
        if name in INSTEVAL:
            service, error, *sds = INSTEVAL[name]
            rows.append([name, "REML", *"----", f"{service:.4f} ({error:.4f})"])
            rows[-1] += [numbers(sds), "-"]
    header = ["data", "fit", "s", "MiB", "growth", "iterations", "service (sd)"]
    table([*header, "sds", "sds of their logs"], rows)


def bayes_mixed(data, method):
    """statsmodels' variational or Laplace fit: (means, sds) of fixed, log sd."""
    from scipy.sparse import csr_matrix
    from statsmodels.genmod.bayes_mixed_glm import (
        BinomialBayesMixedGLM,
        PoissonBayesMixedGLM,
    )

    n, p = len(data["y"]), data["p"]
    design = np.column_stack([np.ones(n), data["X"][:, :p]])
    level = data["X"][:, p].astype(int)
    Z = csr_matrix((np.ones(n), (np.arange(n), level)))
    make = PoissonBayesMixedGLM
    if data["family"] == "classifier":
        make = BinomialBayesMixedGLM
    ident = np.zeros(Z.shape[1], int)
    model = make(data["y"], design, Z, ident, vcp_p=1.0, fe_p=2.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.random.seed(0)  # noqa: NPY002 (fit_vb starts at random)
        found = getattr(model, method)()
    return found.fe_mean, found.fe_sd, found.vcp_mean, found.vcp_sd


def alternating(contenders, repeats):
    """name -> (seconds of each run, last result)."""
    spent = {name: [] for name in contenders}
    results = {}
    for _ in range(repeats):
        for name, fit in contenders.items():
            if spent[name] and spent[name][0] > 10.0:
                continue  # once is enough
            took, results[name] = timed(fit)
            spent[name].append(took)
    return spent, results


def skvi_glmm(data, **parameters):
    """(means, sds) of the fixed effects and of the log sds, as bayes_mixed."""
    model = quietly(estimator(data, **parameters).fit, data["X"], data["y"])
    return *fixed_effects(model), *log_sds(model)


def glmm_speed(options):
    heading("Counts and binary outcomes beside statsmodels")
    note(
        """
PoissonBayesMixedGLM and BinomialBayesMixedGLM: fit_vb (mean field) and fit_map
(Laplace), fixed effects N(0, 2.5^2), log sd N(0, 1), their defaults otherwise. skvi has
its defaults. Median seconds of runs in alternation, and the ratio to the structured
fit. Errors and ratios of sds to NUTS with skvi's priors (the other priors are as weak).
"""
    )
    if not DATA:
        note("SKVI_DATA is not set: skipped.")
        return
    rows = []
    for name, make in {"epil": epil, "toenail": toenail}.items():
        if options.quick and name != "epil":
            continue
        data = make()
        contenders = {
            f"skvi {fit}": (lambda more=more, data=data: skvi_glmm(data, **more))
            for fit, more in FITS.items()
        }
        if installed("statsmodels") and not options.quick:
            for method in ("fit_vb", "fit_map"):
                contenders[f"statsmodels {method}"] = lambda method=method, data=data: (
                    bayes_mixed(data, method)
                )
        repeats = 2 if options.quick else 3
        quietly(contenders["skvi structured"])  # lazy imports
        spent, results = alternating(contenders, repeats)
        unit = np.median(spent["skvi structured"])
        truth = MORE[name][2]
        for fit, (mean, sd, log_mean, log_sd) in results.items():
            took = np.median(spent[fit])
            rows.append([name, fit, seconds(took), f"{took / unit:.1f}x"])
            rows[-1] += distances((mean, sd), truth["fixed"])
            rows[-1] += distances((log_mean, log_sd), truth["log sds"])
    header = ["data", "fit", "s", "ratio", "fixed", "sds", "log sd", "its sd"]
    table(header, rows)


def mixed_lm(data):
    """statsmodels' REML: (fixed effects, their errors, random sds, noise, -)."""
    import statsmodels.api as sm

    n, p = len(data["y"]), data["p"]
    design = np.column_stack([np.ones(n), data["X"][:, :p]])
    inner = np.column_stack([np.ones(n), data["X"][:, data["slopes"]]])
    model = sm.MixedLM(data["y"], design, data["X"][:, p].astype(int), exog_re=inner)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = model.fit(reml=True)
    sds = np.sqrt(np.diag(np.atleast_2d(found.cov_re)))
    return found.fe_params, found.bse_fe, sds, np.sqrt(found.scale), found.converged


def skvi_lmm(data, **parameters):
    model = quietly(estimator(data, **parameters).fit, data["X"], data["y"])
    sds = np.exp(log_sds(model)[0])
    return *fixed_effects(model), sds[:-1], sds[-1], model.converged_


def lmm_speed(options):
    heading("Gaussian outcomes beside MixedLM (REML)")
    note(
        """
Median seconds of runs in alternation and the ratio to the structured fit, all with
their defaults. Largest difference of the fixed effects to MixedLM's, in its standard
errors, and the range of ratios of errors; sds of the random effects and the noise.
"""
    )
    if not DATA:
        note("SKVI_DATA is not set: skipped.")
        return
    rows = []
    for name, make in {"radon": radon, "hsb82": hsb82}.items():
        data = make()
        contenders = {
            f"skvi {fit}": (lambda more=more, data=data: skvi_lmm(data, **more))
            for fit, more in FITS.items()
        }
        if installed("statsmodels") and not options.quick:
            contenders["MixedLM"] = lambda data=data: mixed_lm(data)
        quietly(contenders["skvi structured"])  # lazy imports
        spent, results = alternating(contenders, 2 if options.quick else 5)
        unit = np.median(spent["skvi structured"])
        for fit, (mean, error, sds, noise, converged) in results.items():
            took = np.median(spent[fit])
            rows.append([name, fit, seconds(took), f"{took / unit:.1f}x"])
            close = ["-", "-"]
            if "MixedLM" in results:
                close = distances((mean, error), results["MixedLM"][:2])
            rows[-1] += [*close, numbers(sds), numbers(noise)]
            rows[-1] += ["yes" if converged else "no"]
    header = ["data", "fit", "s", "ratio", "fixed", "errors", "sds", "noise"]
    table([*header, "converged"], rows)


def simulated_rows(n, rows_a_group, family, seed=0):
    """One factor, a random slope, three columns."""
    rng = np.random.default_rng(seed)
    J = n // rows_a_group
    level = rng.integers(J, size=n)
    x = rng.standard_normal((3, n))
    u = rng.standard_normal((J, 2)) * [0.5, 0.2]
    eta = 0.5 + 0.2 * x.sum(axis=0) + u[level, 0] + x[0] * u[level, 1]
    if family == "gaussian":
        y = eta + rng.standard_normal(n)
    elif family == "poisson":
        y = rng.poisson(np.exp(eta))
    else:
        y = rng.random(n) < expit(eta)
    return problem(y, x, [level], [0], family=family)


def rows_speed(options):
    heading("Cost against the number of rows")
    note(
        """
Simulated: three columns, one factor with intercepts and a slope, 20 rows a level (the
number of levels grows with the rows) or 1,000 levels. Seconds of the structured fit;
"growth": the power of n, from the row above.
"""
    )
    sizes = (10_000, 30_000, 100_000, 300_000, 1_000_000)
    sizes = (3000, 10_000) if options.quick else sizes
    rows = []
    for family in ("gaussian", "poisson", "classifier"):
        for levels in (None, 1000):
            before = None
            for n in sizes:
                data = simulated_rows(n, n // levels if levels else 20, family)
                spent, model = timed(estimator(data).fit, data["X"], data["y"])
                growth = "-"
                if before:
                    power = np.log(spent / before[1]) / np.log(n / before[0])
                    growth = f"{power:.2f}"
                before = n, spent
                rows.append([family, f"{levels or n // 20:,}", f"{n:,}"])
                rows[-1] += [seconds(spent), growth, f"{1e6 * spent / n:.2f}"]
                rows[-1] += [f"{model.n_iter_}{'' if model.converged_ else '*'}"]
                if spent > 60.0:
                    break
    header = ["family", "levels", "rows", "s", "growth", "us a row", "iterations"]
    table(header, rows)


def speed(options):
    crossed_speed(options)
    glmm_speed(options)
    lmm_speed(options)
    rows_speed(options)


# %%
# Prediction
# ----------


def folds(data, held, n_folds, seed):
    """(train, test) masks; all rows of a level together where groups are held out."""
    rng = np.random.default_rng(seed)
    level = data["X"][:, data["groups"][0]].astype(int)
    if held == "groups":
        where = rng.permutation(np.arange(level.max() + 1) % n_folds)[level]
    else:
        where = rng.permutation(np.arange(len(level)) % n_folds)
    for k in range(n_folds):
        yield where != k, where == k


POOLING = {
    "partial pooling": {},
    "the same, corrected": {"posterior_covariance": "linear_response"},
    "complete pooling": {"groups": None, "random_slopes": None},
    "no pooling": {"sd_prior": ("inverse_wishart", 2.5, 1e6)},
}


def over_groups(values, level):
    """Mean over rows, and its standard error from sums over the levels."""
    sums = np.bincount(level, values - values.mean())
    error = np.sqrt(np.sum(sums**2) * len(sums) / (len(sums) - 1.0)) / len(values)
    return f"{values.mean():+.4f} +- {error:.4f}"


def pooled_prediction(options):
    heading("Log predictive density beside complete pooling and no pooling")
    n_repeats = 1 if options.quick else 5
    note(
        f"""
{n_repeats} repetition(s) of 6 folds of rows, or of groups with all their rows. Mean log
predictive density of a held-out row; then the gain of partial pooling, paired, and its
standard error, of sums over the rows of each group, which are not independent. Complete
pooling has no groups; in no pooling the group's effects have a known sd of 2.5 sds of
y: in effect, fixed effects.
"""
    )
    if not DATA:
        note("SKVI_DATA is not set: skipped.")
        return
    rows = []
    problems = {
        "sleepstudy": sleepstudy,
        "radon": radon,
        "radon, floor only": lambda: radon(uranium_too=False),
    }
    for name, make in problems.items():
        data = make()
        X, y = data["X"], data["y"]
        level = X[:, data["groups"][0]].astype(int)
        contenders = POOLING
        for held in ("rows", "groups"):
            scores = {fit: np.zeros(len(y)) for fit in contenders}
            for seed in range(n_repeats):
                for train, test in folds(data, held, 6, seed):
                    for fit, parameters in contenders.items():
                        model = estimator(data, **parameters)
                        if "groups" in parameters and parameters["groups"] is None:
                            columns_kept = X[:, : data["p"]]
                        else:
                            columns_kept = X
                        quietly(model.fit, columns_kept[train], y[train])
                        scores[fit][test] += (
                            model.log_predictive_density(columns_kept[test], y[test])
                            / n_repeats
                        )
            best = scores["partial pooling"]
            for fit, score in scores.items():
                gain = "-"
                if score is not best:
                    gain = over_groups(best - score, level)
                rows.append([name, held, fit, f"{score.mean():.4f}", gain])
    table(["data", "held out", "fit", "log density", "gain of partial"], rows)


def new_groups(family, J, seed, rows_a_group=10, J_new=200):
    """(problem, rows of new levels, their y): group sd .6 (noise 1), counts of 7."""
    rng = np.random.default_rng(seed)
    level = np.repeat(np.arange(J + J_new), rows_a_group)
    n = len(level)
    x = rng.standard_normal(n)
    u = 0.6 * rng.standard_normal(J + J_new)
    if family == "gaussian":
        y = 1.0 + 0.5 * x + u[level] + rng.standard_normal(n)
    else:
        y = rng.poisson(np.exp(2.0 + 0.3 * x + u[level])).astype(float)
    data = problem(y, [x], [level], family=family)
    own = level < J
    # One row of each new level: they are independent given the fit.
    new = np.flatnonzero(~own)[::rows_a_group]
    X_new, y_new = data["X"][new], y[new]
    data["X"], data["y"] = data["X"][own], y[own]
    return data, X_new, y_new


def content_of(model, X, low, high):
    """Mean probability of intervals of counts."""
    values = [np.arange(a, b + 1.0) for a, b in zip(low, high)][: len(X)]
    repeated = np.repeat(X, [len(v) for v in values], axis=0)
    mass = np.exp(model.log_predictive_density(repeated, np.concatenate(values)))
    return mass.sum() / len(X)


def coverage(options):
    n_seeds = 5 if options.quick else 100
    heading("Coverage of 90 % intervals of new groups")
    note(
        f"""
{n_seeds} simulated data sets a row: 10 rows a group, group sd .6; Gaussian with noise
sd 1, counts with a mean of about 9. predict_interval of one row of each of 200 new
groups: the mean over data sets and its standard error, and two deciles of data sets.
Ends of intervals of counts are counts, so that they hold more than asked: "content" is
the probability that the prediction itself gives to its interval.
"""
    )
    rows = []
    for family in ("gaussian", "poisson"):
        for J in (8, 20, 50):
            for fit, more in FITS.items():
                if "mean_field" in fit and (options.quick or family == "poisson"):
                    continue
                found, inside = np.empty(n_seeds), []
                for seed in range(n_seeds):
                    data, X_new, y_new = new_groups(family, J, seed)
                    model = estimator(data, **more)
                    quietly(model.fit, data["X"], data["y"])
                    low, high = model.predict_interval(X_new, 0.9).T
                    found[seed] = np.mean((low <= y_new) & (y_new <= high))
                    if family == "poisson" and seed < 20:
                        inside.append(content_of(model, X_new[:20], low, high))
                content = "0.900"
                if family == "poisson":
                    content = f"{np.mean(inside):.3f}"
                rows.append([family, J, fit, with_error(found), content])
                rows[-1] += [numbers(np.quantile(found, [0.1, 0.9]))]
    header = ["family", "groups", "fit", "90 %", "content", "a tenth below, above"]
    table(header, rows)


def prediction(options):
    pooled_prediction(options)
    coverage(options)


# %%
# More references
# ---------------

# Priors: the fixed effects' sds are 2.5 a standardised column and 5 for the level (in
# units of the sd of y, if it is Gaussian); sds of the random effects as named.
FIXED = {"weight_precision": 0.16, "intercept_precision": 0.04}
GAUSSIAN = FIXED | {"noise_sd_prior": ("half_t", 1.0, 3.0)}
COUNTS = FIXED | {"intercept_mean": 0.0}
BINARY = FIXED
HALF_T = {"sd_prior": ("half_t", 1.0, 3.0)}
HALF_NORMAL = {"sd_prior": ("half_normal", 1.0)}

# name: problem, priors, means and sds by NUTS: of the intercept and the coefficients,
# and of the logs of the sds, the noise's last
MORE = {
    "penicillin": (
        penicillin,
        GAUSSIAN | HALF_T,
        {
            "fixed": (
                [22.66],
                [0.6872],
            ),
            "log sds": (
                [-0.2433, 0.3874, -0.6468],
                [0.1632, 0.3134, 0.0665],
            ),
        },
    ),
    "nested": (
        nested,
        GAUSSIAN | HALF_NORMAL,
        {
            "fixed": (
                [1.828, 0.5429],
                [0.225, 0.08672],
            ),
            "log sds": (
                [-0.2683, -1.806, -0.009643],
                [0.2356, 0.9878, 0.05815],
            ),
        },
    ),
    "machines": (
        machines,
        GAUSSIAN | HALF_NORMAL,
        {
            "fixed": (
                [52.36, 7.994, 13.89],
                [2.434, 3.728, 2.491],
            ),
            "log sds": (
                [1.654, 2.06, 1.631, -0.007572],
                [0.3433, 0.368, 0.3966, 0.1231],
            ),
        },
    ),
    "orthodont": (
        orthodont,
        GAUSSIAN | HALF_T,
        {
            "fixed": (
                [17.58, 0.6598, -1.977],
                [0.8681, 0.06889, 0.8592],
            ),
            "log sds": (
                [0.3695, -2.28, 0.3432],
                [0.7516, 0.9382, 0.08923],
            ),
        },
    ),
    "hsb82_40": (
        lambda: hsb82(every=4),
        GAUSSIAN | HALF_NORMAL,
        {
            "fixed": (
                [11.64, 1.861, 3.357, 1.704],
                [0.3848, 0.2556, 0.6438, 0.5607],
            ),
            "log sds": (
                [0.1642, -0.4534, 1.812],
                [0.2162, 0.7369, 0.01689],
            ),
        },
    ),
    "crossed_binary": (
        crossed_binary,
        BINARY | HALF_T,
        {
            "fixed": (
                [-0.1937, 0.7324],
                [0.2314, 0.1066],
            ),
            "log sds": (
                [0.06096, -0.9595],
                [0.1651, 0.5282],
            ),
        },
    ),
    "toenail": (
        toenail,
        BINARY | HALF_T,
        {
            "fixed": (
                [-1.611, -0.1684, -0.3922, -0.1385],
                [0.4326, 0.5837, 0.04435, 0.06771],
            ),
            "log sds": (
                [1.388],
                [0.09491],
            ),
        },
    ),
    "cbpp": (
        cbpp,
        COUNTS | HALF_T,
        {
            "fixed": (
                [-1.412, -0.9989, -1.141, -1.627],
                [0.253, 0.308, 0.3338, 0.4403],
            ),
            "log sds": (
                [-0.3667],
                [0.2876],
            ),
        },
    ),
    "crossed_counts": (
        crossed_counts,
        COUNTS | HALF_T,
        {
            "fixed": (
                [0.6712, 0.3221],
                [0.1619, 0.03754],
            ),
            "log sds": (
                [-0.6815, -1.017],
                [0.1768, 0.2541],
            ),
        },
    ),
    "epil": (
        epil,
        COUNTS | HALF_T,
        {
            "fixed": (
                [1.829, 0.8831, -0.3397, 0.3427, 0.4696, -0.1607],
                [0.114, 0.141, 0.1594, 0.2157, 0.3757, 0.05516],
            ),
            "log sds": (
                [-0.6152],
                [0.1217],
            ),
        },
    ),
    "epil_slopes": (
        epil_slopes,
        COUNTS | HALF_T,
        {
            "fixed": (
                [-1.376, 0.8865, -0.9381, 0.3416, 0.4764, -0.2702],
                [1.292, 0.1419, 0.426, 0.2181, 0.3797, 0.1688],
            ),
            "log sds": (
                [-0.6043, -0.2722],
                [0.1216, 0.2209],
            ),
        },
    ),
}


def more(options):
    heading("More posteriors beside NUTS")
    note(
        """
As in the first table: crossed factors, nested ones, several slopes, binary outcomes.
The model is skvi's, with priors that are given to it. The figures of NUTS (NumPyro, 4
chains of 5000 draws, or quadrature over the sds where the rest can be integrated in
closed form) are in this script.
"""
    )
    rows = []
    for name, (make, priors, truth) in MORE.items():
        if not DATA and name not in SIMULATED:
            continue
        data = make()
        fits = dict(list(FITS.items())[:2]) if options.quick else FITS
        for fit, parameters in fits.items():
            parameters = priors | parameters
            model = estimator(data, **parameters)
            spent, _ = timed(model.fit, data["X"], data["y"])
            rows.append([name, fit])
            rows[-1] += distances(fixed_effects(model), truth["fixed"])
            rows[-1] += distances(log_sds(model), truth["log sds"])
            rows[-1] += [f"{model.n_iter_}{'' if model.converged_ else '*'}"]
            rows[-1] += [seconds(1e3 * spent)]
    header = ["data", "fit", "fixed", "sds", "log sd", "sds", "iterations", "ms"]
    table(header, rows)


SIMULATED = ("penicillin", "nested", "crossed_binary", "crossed_counts")


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
    "reml": reml,
    "speed": speed,
    "prediction": prediction,
    "more": more,
}


def main():
    parser = argparse.ArgumentParser(description="Benchmark mixed effects.")
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
