"""
Benchmark: hidden Markov models and linear dynamical systems
============================================================

``VariationalHMM`` beside hmmlearn (EM and variational Bayes, both of its
implementations) and dynamax (EM, compiled): time of an iteration, time to the same
likelihood, held-out density, and what the fits find in real series; then missing
entries, memory, and what independent states (``posterior="mean_field"``) cost.

``VariationalLinearDynamicalSystem`` beside statsmodels, simdkalman, pykalman and
dynamax: time of smoothing and of learning, missing data, counts, neurons that predict
each other, and the variances of a local level. Every table says what it compares.

.. code-block:: sh

    python examples/benchmark_sequence.py            # an hour
    python examples/benchmark_sequence.py --quick    # smaller, without peers: seconds
    python examples/benchmark_sequence.py --install-peers --only speed --only heldout

The other packages take part if they are installed. ``--install-peers`` installs them
in a temporary environment, runs the benchmark there and removes it again; nothing else
changes on the machine. With the environment variable ``SKVI_DATA`` set to a folder that
holds ``timeseries/mocap6.npz`` and its like, real series take part.

All times are of one process on one thread, of runs in alternation, but for those of two
workers.
"""

import argparse
import copy
import logging
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
import warnings
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

# dynamax reads this when it is imported: one thread, as everybody.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import joblib
import numpy as np
import scipy
import sklearn
from scipy.optimize import linear_sum_assignment
from scipy.special import gammaln, logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, confusion_matrix
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

import skvi
from skvi import VariationalHMM, VariationalLinearDynamicalSystem, sequence_ids
from skvi.callbacks import StopWhen

DATA = os.environ.get("SKVI_DATA")
PEERS = ("hmmlearn", "dynamax", "statsmodels", "simdkalman", "pykalman")
POSTERIORS = ("structured", "mean_field")


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
    """Three significant digits, never in scientific notation; "-" if it never was."""
    if not np.isfinite(value):
        return "-"
    return f"{value:.{max(0, 2 - int(np.floor(np.log10(max(value, 1e-3)))))}f}"


def milliseconds(value):
    return seconds(1e3 * value)


def times(value):
    return "-" if not np.isfinite(value) else f"{value:.3g}x"


def number(value, digits=4, sign=""):
    return "-" if not np.isfinite(value) else f"{value:{sign}.{digits}f}"


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
    if "dynamax" not in missing:
        names.append(("jax", metadata.version("jax")))
    print("  " + ", ".join(f"{name} {version}" for name, version in names))
    print(f"  {joblib.cpu_count()} cores, of which one is used")
    for peer in missing:
        print(f"  {peer} is not installed (--install-peers): its columns are empty.")
    if DATA is None:
        print("  SKVI_DATA is not set: no real series.")


def load(name):
    """The arrays of a real series, or None where there are none."""
    if DATA is None:
        return None
    with np.load(Path(DATA) / "timeseries" / f"{name}.npz") as file:
        return dict(file)


# %%
# Sequences, and one judge for all
# --------------------------------


def chain(lengths, n_states, stay, rng):
    """States of sequences that stay where they are, or go to any other."""
    n = int(np.sum(lengths))
    moves = rng.random(n) >= stay
    steps = np.where(moves, rng.integers(1, max(n_states, 2), size=n), 0)
    firsts = np.append(0, np.cumsum(lengths)[:-1]).astype(int)
    steps[firsts] = 0
    walked = np.cumsum(steps)
    ids = sequence_ids(lengths)
    origin = rng.integers(n_states, size=len(lengths)) - walked[firsts]
    return (walked + origin[ids]) % n_states


def simulate(kind, lengths, n_states, seed=0, dim=4, n_categories=50, spread=1.0):
    """(X, states) of "gaussian", "poisson" or "categorical" emissions."""
    rng = np.random.default_rng(seed)
    z = chain(lengths, n_states, 0.9, rng)
    if kind == "gaussian":
        centres = spread * rng.standard_normal((n_states, dim))
        return centres[z] + rng.standard_normal((len(z), dim)), z
    if kind == "poisson":
        return rng.poisson(rng.gamma(2.0, 5.0, size=(n_states, dim))[z]), z
    p = rng.dirichlet(np.full(n_categories, 0.3), size=n_states).cumsum(axis=1)
    codes = (rng.random(len(z))[:, None] > p[z]).sum(axis=1)
    return np.minimum(codes, n_categories - 1)[:, None], z


def with_ids(X, lengths):
    """X behind a column of the ids of its sequences: sequence=0."""
    return np.column_stack([sequence_ids(lengths), X])


def lengths_of(ids):
    return np.diff(np.flatnonzero(np.r_[True, ids[1:] != ids[:-1], True]))


def forward(startprob, transmat, log_b, lengths):
    """The log likelihood of sequences whose steps have log densities (n, K)."""
    top = log_b.max(axis=1)
    b = np.exp(log_b - top[:, None])
    scales, t = np.empty(len(b)), 0
    for n in lengths:
        alpha = startprob
        for i in range(n):
            alpha = (alpha if i == 0 else alpha @ transmat) * b[t]
            scales[t] = alpha.sum()
            alpha = alpha / scales[t]
            t += 1
    return float(np.log(scales).sum() + top.sum())


def log_normal(X, means, covariances):
    """(n, K): log densities under each state."""
    out = np.empty((len(X), len(means)))
    for k, (mean, covariance) in enumerate(zip(means, covariances)):
        L = np.linalg.cholesky(covariance)
        white = np.linalg.solve(L, (X - mean).T)
        out[:, k] = -0.5 * (white**2).sum(axis=0) - np.log(np.diag(L)).sum()
    return out - 0.5 * X.shape[1] * np.log(2.0 * np.pi)


def as_matrices(covariances, n_states, dim):
    """Covariances of each state as matrices, from variances if they are such."""
    if covariances.shape == (n_states, dim) and covariances.ndim == 2:
        return np.array([np.diag(v) for v in covariances])
    return np.broadcast_to(covariances, (n_states, dim, dim))


def parameters_of(model, kind):
    """(startprob, transmat, emission parameters) of a fitted model of either system."""
    startprob, transmat = model.startprob_, model.transmat_
    if kind == "categorical":
        return startprob, transmat, (model.emissionprob_,)
    ours = isinstance(model, VariationalHMM)
    K, dim = model.means_.shape
    covariances = model.covariances_ if ours else model.covars_
    return startprob, transmat, (model.means_, as_matrices(covariances, K, dim))


def plug_in(parameters, kind, X, lengths):
    """Log likelihood a step under these values of the parameters."""
    startprob, transmat, emissions = parameters
    if kind == "categorical":
        with np.errstate(divide="ignore"):
            log_b = np.log(emissions[0][:, X[:, 0].astype(int)].T)
    else:
        log_b = log_normal(X, *emissions)
    return forward(startprob, transmat, log_b, lengths) / len(X)


def quietly(fit, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit(*args)


# %%
# The systems
# -----------


def hmmlearn_model(kind, n_states, covariance_type, vb, **params):
    """hmmlearn's estimator for a kind of emissions; None where there is none."""
    hmm, vhmm = import_module("hmmlearn.hmm"), import_module("hmmlearn.vhmm")
    logging.getLogger("hmmlearn").setLevel(logging.CRITICAL)
    if kind == "gaussian":
        make = vhmm.VariationalGaussianHMM if vb else hmm.GaussianHMM
        return make(n_states, covariance_type=covariance_type, **params)
    if kind == "categorical":
        make = vhmm.VariationalCategoricalHMM if vb else hmm.CategoricalHMM
        return make(n_states, **params)
    return None if vb else hmm.PoissonHMM(n_states, **params)


def best_hmmlearn(kind, n_states, covariance_type, vb, X, lengths, n_starts, **params):
    """The best of several default starts by its own objective."""
    fits = []
    for seed in range(n_starts):
        # The faster implementation, unless it underflows: results are the same.
        for implementation in ("scaling", "log"):
            model = hmmlearn_model(
                kind,
                n_states,
                covariance_type,
                vb,
                n_iter=1000,
                random_state=seed,
                implementation=implementation,
                **params,
            )
            try:
                with threadpool_limits(1), np.errstate(all="ignore"):
                    model.fit(X, lengths)
            except ValueError:
                continue
            if np.isfinite(model.monitor_.history[-1]):
                fits.append((model.monitor_.history[-1], -seed, model))
                break
    return max(fits)[2]


def skvi_params(kind, n_states, covariance_type="full", **params):
    given = {"n_components": n_states, "emissions": kind, **params}
    if kind == "gaussian":
        given["covariance_type"] = covariance_type
    return given


# %%
# Speed
# -----
# An iteration is what a run with many iterations takes longer than one with few, from
# the same start: validation, start and the end of a fit cancel.


class Timed:
    """A system: ``run(n)`` fits with n iterations and gives (seconds, iterations)."""

    few, cap = 1, 21

    def __init__(self, run):
        self.run = run
        self.clocks = {}

    def plan(self, budget):
        """How many iterations fill the time of a measurement, from a first run."""
        self.run(self.few)  # buffers, imports, compilation
        clock, _ = self.run(self.few)
        self.many = int(np.clip(self.few + budget / max(clock, 1e-9), 3, self.cap))
        return self

    def measure(self):
        for asked in (self.few, self.many, self.few):
            clock, made = self.run(asked)
            self.clocks.setdefault(made, []).append(clock)

    @property
    def iteration(self):
        low, high = min(self.clocks), max(self.clocks)
        best = min(self.clocks[high]) - min(self.clocks[low])
        return best / (high - low)


def clocked(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def timed_skvi(kind, X, lengths, n_states, covariance_type):
    """By warm starts from a posterior of a few steps, which is far from the end."""
    params = skvi_params(kind, n_states, covariance_type, init_params="kmeans")
    if kind == "categorical":
        params["n_categories"] = int(X.max()) + 1
    A = with_ids(X, lengths)
    first = VariationalHMM(**params, sequence=0, max_iter=1, tol=0.0, random_state=0)
    quietly(first.fit, A[:500])
    return warm_runs(first, A)


def warm_runs(first, X):
    """Runs that go on from a fit."""

    def run(n):
        model = copy.deepcopy(first).set_params(warm_start=True, max_iter=n)
        clock = clocked(lambda: quietly(model.fit, X))
        return clock, model.n_iter_

    return run


def hmmlearn_start(kind, X, lengths, n_states, covariance_type, vb):
    """Its default start, made once, as an estimator that starts from there."""
    start = hmmlearn_model(kind, n_states, covariance_type, vb, random_state=0)
    if start is None:
        return None
    start._init(X, lengths)
    if vb and kind == "categorical":
        # Its default underflows with implementation="scaling".
        rng = np.random.default_rng(0)
        size = start.emissionprob_posterior_.shape
        share = rng.dirichlet(np.full(size[1], 5.0), size=size[0])
        start.emissionprob_posterior_ = share * len(X) / n_states
    start._init = lambda *args: None
    return start


def timed_hmmlearn(start, X, lengths, implementation):
    def run(n):
        model = copy.copy(start)
        for name, value in vars(start).items():
            if isinstance(value, np.ndarray):
                setattr(model, name, value.copy())
        model.implementation, model.n_iter, model.tol = implementation, n, -np.inf
        model.monitor_ = type(start.monitor_)(-np.inf, n, False)
        clock = clocked(lambda: model.fit(X, lengths))
        return clock, model.monitor_.iter

    return run


def timed_dynamax(kind, X, lengths, n_states, covariance_type, start, double):
    """fit_em, compiled beforehand for each number of iterations; equal lengths only."""
    jax = import_module("jax")
    hmms = import_module("dynamax.hidden_markov_model")
    with jax.enable_x64(double):
        f = jax.numpy.float64 if double else jax.numpy.float32
        as_array = jax.numpy.asarray
        given = {
            "initial_probs": as_array(start.startprob_, f),
            "transition_matrix": as_array(np.maximum(start.transmat_, 1e-10), f),
        }
        dim, dtype = X.shape[1], f
        if kind == "gaussian" and covariance_type == "full":
            model = hmms.GaussianHMM(n_states, dim)
            given["emission_covariances"] = as_array(start.covars_, f)
        elif kind == "gaussian":
            model = hmms.DiagonalGaussianHMM(n_states, dim)
            given["emission_scale_diags"] = as_array(np.sqrt(start._covars_), f)
        elif kind == "categorical":
            n_categories = start.emissionprob_.shape[1]
            model = hmms.CategoricalHMM(n_states, 1, n_categories)
            given["emission_probs"] = as_array(start.emissionprob_[:, None], f)
            dtype = jax.numpy.int32
        else:
            model = hmms.PoissonHMM(n_states, dim)
            given["emission_rates"] = as_array(start.lambdas_, f)
        if kind == "gaussian":
            given["emission_means"] = as_array(start.means_, f)
        key = jax.random.PRNGKey(0)
        params, props = model.initialize(key, method="prior", **given)
        data = as_array(X, dtype)
        if len(lengths) > 1:
            data = data.reshape(len(lengths), lengths[0], -1)
    return compiled_em(model, params, props, data, double)


def compiled_em(model, params, props, data, double):
    jax, compiled = import_module("jax"), {}

    def run(n):
        # fit_em compiles anew in each call; compiled from outside it does not.
        with jax.enable_x64(double):
            if n not in compiled:
                compiled[n] = jax.jit(
                    lambda p, x: model.fit_em(p, props, x, num_iters=n, verbose=False)
                )
                jax.block_until_ready(compiled[n](params, data))
            again = clocked(lambda: jax.block_until_ready(compiled[n](params, data)))
            return again, n

    return run


def pinned():
    """Keep this process, and the threads that start from now on, on one core."""
    if hasattr(os, "sched_setaffinity"):
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(before)})
        return lambda: os.sched_setaffinity(0, before)
    return lambda: None


def speed(options):
    quick = options.quick
    T, repeats, budget = (5000, 1, 0.02) if quick else (100_000, 3, 1.0)
    heading("Time of an iteration")
    note(
        f"""
Milliseconds of an iteration on one core: the time of a long run minus that of a short
one, over the difference of their iterations, each the best of {repeats} runs, in
alternation. Every system goes from its own start, which is made beforehand: skvi from
the posterior of the first 500 steps, hmmlearn and dynamax from hmmlearn's default
(k-means centres; its VariationalCategoricalHMM from a milder one, as its default
underflows with "scaling"). log (the default) and scaling are hmmlearn's
implementations, EM and VB its estimators. dynamax: EM, compiled beforehand, in 32 and
64 bits. skvi computes in 64.
"""
    )
    workloads = [
        (kind, covariance_type, K, [T])
        for kind, covariance_type in (
            ("gaussian", "full"),
            ("gaussian", "diag"),
            ("categorical", None),
            ("poisson", None),
        )
        for K in ((3,) if quick else (3, 10, 30))
    ]
    workloads.append(("gaussian", "diag", 10, [50] * (T // 50)))
    release = pinned()
    clocks, ratios = [], []
    for workload in workloads:
        label, found = iteration_times(*workload, repeats, budget)
        clocks.append([label, *(milliseconds(t) for t in found.values())])
        ratios.append([label, *ratios_of(found)])
        print("  (" + ", ".join(clocks[-1]) + ")", flush=True)
    release()
    table(["ms an iteration", *found], clocks)
    note("How many times as long as skvi; default and faster of the implementations:")
    header = ["", "VB default", "VB faster", "EM default", "EM faster"]
    table([*header, "dynamax 32", "dynamax 64"], ratios)


SYSTEMS = ("EM log", "EM scaling", "VB log", "VB scaling", "dynamax 32", "dynamax 64")


def iteration_times(kind, covariance_type, K, lengths, repeats, budget):
    """(name of the workload, {system: seconds of an iteration})."""
    dim = 2 if kind == "poisson" else 4
    X, _ = simulate(kind, lengths, K, dim=dim)
    many = len(lengths) > 1
    label = " ".join(filter(None, [kind, covariance_type, f"K={K}"]))
    label += f", {len(lengths):,} x {lengths[0]}" if many else f", T={lengths[0]:,}"
    contenders = {"skvi": timed_skvi(kind, X, lengths, K, covariance_type)}
    em = None
    with threadpool_limits(1):
        for name in SYSTEMS[:4] if installed("hmmlearn") else ():
            algorithm, implementation = name.split()
            start = hmmlearn_start(
                kind, X, lengths, K, covariance_type, algorithm == "VB"
            )
            em = start if algorithm == "EM" else em
            if start is not None:
                run = timed_hmmlearn(start, X, lengths, implementation)
                contenders[name] = run
        if em is not None and installed("dynamax"):
            for name, double in zip(SYSTEMS[4:], (False, True)):
                contenders[name] = timed_dynamax(
                    kind, X, lengths, K, covariance_type, em, double
                )
        timers = {n: Timed(run).plan(budget) for n, run in contenders.items()}
        for _ in range(repeats):
            for timer in timers.values():
                timer.measure()
    names = ("skvi", *SYSTEMS)
    return label, {
        name: timers[name].iteration if name in timers else np.nan for name in names
    }


def ratios_of(found):
    """Of hmmlearn's default and faster implementation, and of dynamax, to skvi."""
    out = []
    for algorithm in ("VB", "EM"):
        both = found[f"{algorithm} log"], found[f"{algorithm} scaling"]
        out += [both[0], min(both)]
    out += [found["dynamax 32"], found["dynamax 64"]]
    return [times(value / found["skvi"]) for value in out]


# %%
# Time to the same likelihood
# ---------------------------


class Trace:
    """Parameters after each iteration, and when; looking does not count."""

    def __init__(self, kind):
        self.kind, self.clocks, self.parameters = kind, [], []

    def start(self):
        self.paused, self.begin = 0.0, time.perf_counter()

    def look(self, model):
        now = time.perf_counter()
        self.clocks.append(now - self.begin - self.paused)
        found = parameters_of(model, self.kind)
        self.parameters.append(copy.deepcopy(found))
        self.paused += time.perf_counter() - now

    def judged(self, X, lengths):
        """Plug-in log likelihood a step where it ends."""
        return plug_in(self.parameters[-1], self.kind, X, lengths)

    def first(self, target, X, lengths):
        """Seconds until the likelihood is at least the target, by bisection."""
        low, high = 0, len(self.parameters) - 1
        while low < high:
            middle = (low + high) // 2
            enough = plug_in(self.parameters[middle], self.kind, X, lengths) >= target
            low, high = (low, middle) if enough else (middle + 1, high)
        return self.clocks[low]


def path_of_skvi(kind, X, lengths, n_states, covariance_type, **given):
    path = Trace(kind)

    def look(fitted):
        path.look(fitted)
        return False

    params = skvi_params(kind, n_states, covariance_type, random_state=0, **given)
    A = with_ids(X, lengths)
    # Callbacks cost time of their own: seconds are those of a fit without any.
    bare = VariationalHMM(**params, sequence=0, max_iter=5000)
    clock = clocked(lambda: quietly(bare.fit, A))
    model = VariationalHMM(**params, sequence=0, max_iter=5000)
    model = model.set_callbacks(StopWhen(look))
    path.start()
    quietly(model.fit, A)
    return path, clock


def path_of_hmmlearn(kind, X, lengths, n_states, covariance_type, vb, implementation):
    path = Trace(kind)
    model = hmmlearn_model(
        kind,
        n_states,
        covariance_type,
        vb,
        n_iter=5000,
        tol=1e-6 * len(X),  # that of skvi is one a step
        random_state=0,
        implementation=implementation,
    )

    class Monitor(type(model.monitor_)):
        def report(self, log_prob):
            super().report(log_prob)
            path.look(model)

    model.monitor_ = Monitor(model.tol, model.n_iter, False)
    path.start()
    with threadpool_limits(1):
        model.fit(X, lengths)
    return path, path.clocks[-1]


def objective(options):
    quick = options.quick
    heading("Time to the same likelihood")
    note(
        """
Whole fits from everybody's own default start, until their bound (hmmlearn's EM: log
likelihood) rises by less than 1e-6 nats a step (skvi asks for more: that little is left
to go, too). "train", "test": log likelihood a step at the fitted values of the
parameters, computed by one function for all, on the data of the fit and on as many new
sequences. "skvi kmeans": with init_params="kmeans". "s": seconds of the fit. "s to
equal": until the likelihood of the training data is, within 1e-4 nats a step, that of
the worse of the row and skvi; "skvi's": skvi's until there; "ratio": of the two.
hmmlearn's k-means start (a random one for categories) often ends in a worse optimum,
which skvi's first iteration is above: its seconds are then those of its start.
"""
    )
    if not installed("hmmlearn"):
        print("  Left out: hmmlearn is not installed.")
        if not quick:
            return
    n = 5 if quick else 200
    problems = [
        ("gaussian", "full", 5 if quick else 10, 4),
        ("gaussian", "diag", 3 if quick else 10, 4),
        ("categorical", None, 3 if quick else 10, 1),
    ]
    rows = []
    for kind, covariance_type, K, dim in problems:
        lengths = [500] * (2 * n)
        X, _ = simulate(kind, lengths, K, seed=1, dim=dim, n_categories=20)
        half, own = 500 * n, lengths[:n]
        train, test = X[:half], X[half:]
        label = " ".join(filter(None, [kind, covariance_type, f"K={K}"]))
        paths = {"skvi": path_of_skvi(kind, train, own, K, covariance_type)}
        paths["skvi kmeans"] = path_of_skvi(
            kind, train, own, K, covariance_type, init_params="kmeans"
        )
        if installed("hmmlearn"):
            for vb in (True, False):
                # Its default start of categories underflows with the other.
                faster = "log" if vb and kind == "categorical" else "scaling"
                paths[f"{'VB' if vb else 'EM'} {faster}"] = path_of_hmmlearn(
                    kind, train, own, K, covariance_type, vb, faster
                )
        rows += objective_rows(f"{label}, {half:,}", paths, train, test, own)
    header = ["problem", "system", "iterations", "train", "test", "s"]
    table(header + ["s to equal", "skvi's", "ratio"], rows)


def objective_rows(label, paths, train, test, lengths):
    rows, (ours, whole) = [], paths["skvi"]
    # Seconds of iterations of a watched fit, in proportion those of one unwatched.
    share = whole / ours.clocks[-1]
    at_end = ours.judged(train, lengths)
    for name, (path, clock) in paths.items():
        end = path.judged(train, lengths)
        rows.append([label, name, len(path.clocks)])
        rows[-1] += [number(end), number(path.judged(test, lengths)), seconds(clock)]
        if not name.startswith("skvi"):
            target = min(end, at_end) - 1e-4
            mine = share * ours.first(target, train, lengths)
            theirs = path.first(target, train, lengths)
            rows[-1] += [seconds(theirs), seconds(mine), times(theirs / mine)]
        else:
            rows[-1] += [""] * 3
    return rows


# %%
# Held-out density
# ----------------

N_STARTS = 5


def held_out_problems(quick):
    """(name, kind, X, lengths, folds or share of training, numbers of states)."""
    n, T = (8, 100) if quick else (12, 250)
    rng = np.random.default_rng(0)
    z = chain([T] * n, 4, 0.92, rng)
    X = 1.2 * rng.standard_normal((4, 3))[z] + rng.standard_normal((len(z), 3))
    sizes = (4,) if quick else (3, 4, 6)
    yield "simulated", "gaussian", X, [T] * n, 4, sizes
    p = rng.dirichlet(np.full(10, 0.4), size=4).cumsum(axis=1)
    codes = np.minimum((rng.random(len(z))[:, None] > p[z]).sum(axis=1), 9)
    yield "simulated", "categorical", codes[:, None], [T] * n, 4, sizes
    if DATA is None or quick:
        return
    y = load("speed")
    yield "speed", "gaussian", y["rt"][:, None], y["lengths"], 3, (2, 3)
    for name in ("nile", "lynx"):
        y = np.log(load(name)["y"])[:, None]
        yield name, "gaussian", y, [len(y)], 0.7, (2, 3)
    returns = 100.0 * np.diff(np.log(load("sp500_daily")["price"]))[:, None]
    yield "sp500", "gaussian", returns, [len(returns)], 0.7, (2, 3, 4)
    counts = load("spikes_e060817terpi")["counts"].astype(int)
    # One code for the three neurons together: none, one, or more spikes of each.
    codes = np.minimum(counts, 2) @ [1, 3, 9]
    trials, n_bins = codes.shape
    yield "spikes", "categorical", codes.reshape(-1, 1), [n_bins] * trials, 5, (2, 4, 6)
    y = load("mocap6")
    yield "mocap6", "gaussian", y["X"], np.diff(y["seq_start"]), 6, (4, 8, 12)


def splits(ids, how):
    """(train, test): folds of whole sequences, or first and last steps of one."""
    if how < 1:
        first = int(how * len(ids))
        yield np.arange(first), np.arange(first, len(ids))
    else:
        yield from GroupKFold(how).split(ids, groups=ids)


def heldout(options):
    quick = options.quick
    heading("Held-out log density a step")
    note(
        f"""
hmmlearn's variational estimators and skvi with their defaults, but enough iterations;
hmmlearn has the best of {N_STARTS} starts by its own bound, skvi its single default
start (n_init=1), in the last column {N_STARTS}. Both are fitted to the training part
of each split and judged on the rest: folds of whole sequences, or the last 30 % of a
series. hmmlearn's score puts in the parameters' mean values. So does skvi's "plug-in";
its "score" is the predictive density of each step (Student-t and the like), which
allows for what is not known of the parameters anew at every step, and "draws" averages
the density of whole sequences over the posterior, score(n_samples=200). "worst": of
the score in a single split, and of the plug-in.
"""
    )
    rows = []
    for name, kind, X, lengths, how, sizes in held_out_problems(quick):
        kinds = ("full", "diag") if kind == "gaussian" and X.shape[1] > 1 else ("full",)
        for covariance_type in kinds:
            for K in sizes:
                found = held_out(kind, X, lengths, how, K, covariance_type, quick)
                label = f"{name}, {kind}"
                if len(kinds) > 1:
                    label += f" {covariance_type}"
                rows.append([f"{label} K={K}", *held_out_row(found)])
                print("  (" + ", ".join(rows[-1]) + ")", flush=True)
    header = ["data", "hmmlearn", "skvi", "score", "plug-in", "draws", "worst", "in"]
    note("Difference to hmmlearn's in nats a step (positive: skvi's is higher):")
    table([*header, f"n_init={N_STARTS}"], rows)


def held_out(kind, X, lengths, how, K, covariance_type, quick):
    """A row for each split: steps; hmmlearn; skvi's score, plug-in, draws, n_init."""
    ids, out = sequence_ids(lengths), []
    n_categories = int(X.max()) + 1 if kind == "categorical" else None
    for train, test in splits(ids, how):
        own, new = lengths_of(ids[train]), lengths_of(ids[test])
        peer = np.nan
        if installed("hmmlearn"):
            given = {"n_features": n_categories} if n_categories else {}
            best = best_hmmlearn(
                kind, K, covariance_type, True, X[train], own, N_STARTS, **given
            )
            peer = best.score(X[test], new) / len(test)
        A = with_ids(X, lengths)
        params = skvi_params(kind, K, covariance_type, sequence=0, random_state=0)
        if n_categories:
            params["n_categories"] = n_categories
        model = quietly(VariationalHMM(**params, max_iter=1000).fit, A[train])
        more = model
        if not quick:
            more = VariationalHMM(**params, max_iter=1000, n_init=N_STARTS)
            more = quietly(more.fit, A[train])
        out.append(
            [
                len(test),
                peer,
                model.score(A[test]),
                plug_in(parameters_of(model, kind), kind, X[test], new),
                model.score(A[test], n_samples=20 if quick else 200, random_state=0),
                more.score(A[test]),
            ]
        )
    return np.array(out)


def held_out_row(found):
    n, values = found[:, 0], found[:, 1:]
    peer, score, plugged, drawn, more = n @ values / n.sum()
    differences = (value - peer for value in (score, plugged, drawn))
    worst = (values[:, [1, 2]] - values[:, [0]]).min(axis=0)
    row = [number(peer), number(score), *(number(d, 4, "+") for d in differences)]
    row += [number(d, 3, "+") for d in worst]
    return [*row, number(more - peer, 4, "+")]


# %%
# What the fits find
# ------------------


def matched(labels, states):
    """Share of steps with the right label, under the best matching of the states."""
    table = confusion_matrix(labels, states)
    rows, columns = linear_sum_assignment(-table)
    return table[rows, columns].sum() / len(labels)


def regimes(options):
    quick = options.quick
    if DATA is None:
        heading("What the fits find in real series")
        print("  Left out: SKVI_DATA is not set.")
        return
    mocap(quick)
    weak_priors(quick)
    volatility(quick)
    coal()
    spikes(quick)


def mocap(quick):
    heading("Six motion-capture sequences, twelve labelled actions")
    sizes, n_init = ((12,), 1) if quick else ((8, 12, 16), 5)
    note(
        f"""
Default priors, the best of {n_init} starts by its own bound. Agreement of Viterbi paths
with the labels: adjusted Rand index, and accuracy under the best matching of states to
labels. Sticky: stickiness=50. Bounds are comparable among skvi's rows of one data set.
"""
    )
    y = load("mocap6")
    X, lengths, labels = y["X"], np.diff(y["seq_start"]), y["label"]
    A, rows = with_ids(X, lengths), []
    kinds = ("diag",) if quick else ("full", "diag")
    for covariance_type in kinds:
        for K in sizes:
            for name, given in {
                "skvi structured": {},
                "skvi sticky": {"stickiness": 50.0},
                "skvi mean_field": {"posterior": "mean_field"},
            }.items():
                params = skvi_params("gaussian", K, covariance_type, **given)
                model = VariationalHMM(
                    **params, sequence=0, n_init=n_init, random_state=0, max_iter=1000
                )
                path = quietly(model.fit, A).predict(A)
                rows.append([f"{covariance_type} K={K}", name, f"{model.elbo_:.0f}"])
                rows[-1] += [number(adjusted_rand_score(labels, path), 3)]
                rows[-1] += [number(matched(labels, path), 3)]
            for vb in (True, False) if installed("hmmlearn") else ():
                model = best_hmmlearn(
                    "gaussian", K, covariance_type, vb, X, lengths, n_init, tol=1e-3
                )
                path = model.predict(X, lengths)
                name = f"hmmlearn {'VB' if vb else 'EM'}"
                rows.append([f"{covariance_type} K={K}", name, ""])
                rows[-1] += [number(adjusted_rand_score(labels, path), 3)]
                rows[-1] += [number(matched(labels, path), 3)]
    table(["states", "fit", "elbo_", "Rand", "accuracy"], rows)


def weak_priors(quick):
    heading("Reaction times: the likelihood as the prior weakens")
    note(
        """
Log likelihood at the fitted values of the parameters, two states; the maximum is -84.34
(three series, means 5.511 and 6.385, sds 0.193 and 0.244). All priors are worth
"strength" steps.
"""
    )
    y, rows = load("speed"), []
    X, lengths = y["rt"][:, None], y["lengths"]
    for strength in (None, 1.0, 0.1, 0.01, 1e-4):
        given = {}
        if strength is not None:
            given = {
                "startprob_prior": strength,
                "transmat_prior": strength,
                "mean_precision_prior": strength,
                "degrees_of_freedom_prior": strength,
                "covariance_prior": strength * float(X.var()),
            }
        model = VariationalHMM(n_components=2, sequence=0, random_state=0, **given)
        model.fit(with_ids(X, lengths))
        found = plug_in(parameters_of(model, "gaussian"), "gaussian", X, lengths)
        order = np.argsort(model.means_[:, 0])
        rows.append(["defaults" if strength is None else f"{strength:g}"])
        rows[-1] += [number(found * len(X), 2), number(found * len(X) + 84.34, 2, "+")]
        rows[-1] += [" ".join(number(v, 3) for v in model.means_[order, 0])]
        sds = np.sqrt(model.covariances_[order, 0, 0])
        rows[-1] += [" ".join(number(v, 3) for v in sds), number(model.elbo_, 2)]
    table(["strength", "likelihood", "above", "means", "sds", "elbo_"], rows)


def bounds(X, sizes, **params):
    """(fits, elbo_ of each) over numbers of states."""
    fits = [
        quietly(VariationalHMM(n_components=K, random_state=0, **params).fit, X)
        for K in sizes
    ]
    return fits, [model.elbo_ for model in fits]


def bound_table(sizes, values):
    best = max(values)
    header = [
        "states",
        *(f"{K}{'*' if v == best else ''}" for K, v in zip(sizes, values)),
    ]
    table(header, [["elbo_ below the best", *(f"{best - v:.1f}" for v in values)]])


def volatility(quick):
    heading("Daily returns of the S&P 500")
    returns = 100.0 * np.diff(np.log(load("sp500_daily")["price"]))[:, None]
    sizes = range(1, 4 if quick else 8)
    fits, values = bounds(returns, sizes, n_init=1 if quick else 3)
    bound_table(sizes, values)
    model = fits[int(np.argmax(values))]
    order = np.argsort(model.covariances_[:, 0, 0])
    sds = np.sqrt(model.covariances_[order, 0, 0])
    stay = 1.0 / (1.0 - np.diag(model.transmat_)[order])
    rows = [["sd, percent", *(number(v, 2) for v in sds)]]
    rows += [["mean, percent", *(number(v, 2) for v in model.means_[order, 0])]]
    rows += [["days in a row", *(f"{v:.0f}" for v in stay)]]
    table(["regime", *range(1, len(sds) + 1)], rows)


def coal():
    heading("Coal-mining disasters a year")
    y = load("coal_disasters")
    counts, years = y["count"][:, None].astype(float), y["year"]
    sizes = range(1, 5)
    fits, values = bounds(counts, sizes, emissions="poisson", n_init=3)
    bound_table(sizes, values)
    model = fits[1]
    states = model.predict(counts)
    changes = years[np.flatnonzero(np.diff(states)) + 1].tolist()
    rates = model.rates_[:, 0]
    p = model.predict_proba(counts)[:, rates.argmax()]
    last = years[np.flatnonzero(p > 0.5)[-1]]
    note(
        f"""
Two states: rates {rates.max():.2f} and {rates.min():.2f} a year (known: 3.10 up to
1891, 0.90 after). The Viterbi path changes in {", ".join(map(str, changes))}; the last
year with the high rate more probable than not is {last}.
"""
    )


def spikes(quick):
    heading("Spike counts of three neurons in 20 trials")
    counts = load("spikes_e060817terpi")["counts"]
    trials, n_bins, neurons = counts.shape
    A = with_ids(counts.reshape(-1, neurons), [n_bins] * trials)
    sizes = range(1, 4 if quick else 9)
    given = {"emissions": "poisson", "sequence": 0, "n_init": 1 if quick else 3}
    _, values = bounds(A, sizes, **given)
    bound_table(sizes, values)


# %%
# Missing entries
# ---------------


def smoothed(startprob, transmat, log_b, lengths):
    """Probabilities of states (n, K): the forward-backward recursion as it stands."""
    b = np.exp(log_b - log_b.max(axis=1, keepdims=True))
    out, t = np.empty_like(b), 0
    for n in lengths:
        alphas, own = np.empty((n, b.shape[1])), b[t : t + n]
        alpha = startprob
        for i in range(n):
            alpha = (alpha if i == 0 else alpha @ transmat) * own[i]
            alphas[i] = alpha = alpha / alpha.sum()
        beta = np.ones(b.shape[1])
        for i in range(n - 1, -1, -1):
            out[t + i] = alphas[i] * beta / (alphas[i] @ beta)
            beta = transmat @ (own[i] * beta)
            beta /= beta.sum()
        t += n
    return out


def missing(options):
    quick = options.quick
    heading("30 % of the entries missing at random")
    note(
        """
Accuracy of the most probable state of each step, under the best matching, of fits to
complete data and to the same with 30 % of the entries missing. "oracle": who knows the
parameters of the simulation, or, for mocap6, the fit to the complete data, which then
reads the data with missing entries: what the lost information alone costs. "lost":
accuracy lost, by the fit and by the oracle. mocap6 counts agreement with the states of
the complete fit, and with the labels in brackets.
"""
    )
    rows = []
    n, T = (8 if quick else 40), 250
    for seed in range(1 if quick else 3):
        for spread in (1.0, 1.5):
            rows.append(missing_simulated(n, T, spread, seed))
    table(
        ["simulated", "", "complete", "missing", "lost", "oracle", "missing", "lost"],
        rows,
    )
    if DATA is None or quick:
        return
    y = load("mocap6")
    X, lengths, labels = y["X"], np.diff(y["seq_start"]), y["label"]
    complete = with_ids(X, lengths)
    rng, rows = np.random.default_rng(0), []
    holes = with_ids(np.where(rng.random(X.shape) < 0.3, np.nan, X), lengths)
    for covariance_type in ("full", "diag"):
        for K in (4, 8, 12):
            params = skvi_params("gaussian", K, covariance_type, n_init=5)
            make = VariationalHMM(**params, sequence=0, random_state=0, max_iter=1000)
            whole = quietly(make.fit, complete)
            states = whole.predict(complete, method="marginal")
            known = whole.predict(holes, method="marginal")
            fit = copy.deepcopy(make)
            found = quietly(fit.fit, holes).predict(holes, method="marginal")
            rows.append([f"{covariance_type} K={K}"])
            rows[-1] += [f"({matched(labels, states):.3f})"]
            rows[-1] += [
                f"{matched(states, path):.3f} ({matched(labels, path):.3f})"
                for path in (found, known)
            ]
    table(["mocap6", "complete", "fit to missing", "oracle, missing"], rows)


def missing_simulated(n, T, spread, seed):
    K, dim, stay, lengths = 4, 4, 0.9, [T] * n
    rng = np.random.default_rng(seed)
    z = chain(lengths, K, stay, rng)
    centres = spread * rng.standard_normal((K, dim))
    X = centres[z] + rng.standard_normal((len(z), dim))
    holes = np.where(rng.random(X.shape) < 0.3, np.nan, X)
    transmat = np.full((K, K), (1.0 - stay) / (K - 1))
    np.fill_diagonal(transmat, stay)
    row = []
    for data in (X, holes):
        A = with_ids(data, lengths)
        model = VariationalHMM(n_components=K, sequence=0, random_state=0)
        path = quietly(model.fit, A).predict(A, method="marginal")
        row.append(matched(z, path))
    for data in (X, holes):
        log_b = -0.5 * np.nansum((data[:, None] - centres) ** 2, axis=2)
        p = smoothed(np.full(K, 1.0 / K), transmat, log_b, lengths)
        row.append(np.mean(p.argmax(axis=1) == z))
    lost = [row[0] - row[1], row[2] - row[3]]
    cells = [*row[:2], lost[0], *row[2:], lost[1]]
    return [f"spread {spread:g}", f"seed {seed}", *(number(v, 3) for v in cells)]


# %%
# Memory
# ------

CHILD = """
import sys, tracemalloc, warnings
import numpy as np
from skvi import VariationalHMM

def resident(field):
    try:
        with open("/proc/self/status") as status:
            line = [line for line in status if line.startswith(field)][0]
        return 1024 * int(line.split()[1])
    except OSError:
        import resource
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

warnings.simplefilter("ignore")
path, K, what, how, posterior = sys.argv[1:]
X = np.load(path)
model = VariationalHMM(
    n_components=int(K), covariance_type="diag", posterior=posterior, random_state=0,
    max_iter=2, tol=0.0,
)
model.fit(X[:2000])  # lazy imports and buffers, and where the iteration starts
if what == "iteration":
    model.set_params(warm_start=True, max_iter=1)
else:
    model.set_params(max_iter=10)
if how == "resident":
    before = resident("VmRSS")
    model.fit(X)
    print(resident("VmHWM") - before)
else:
    tracemalloc.start()
    model.fit(X)
    print(tracemalloc.get_traced_memory()[1])
"""


def memory(options):
    T, K = (20_000, 5) if options.quick else (1_000_000, 10)
    heading("Peak memory")
    note(
        f"""
MB above what a fresh process has that holds the data ({T:,} steps, two features,
diagonal covariances, {K} states) and has fitted something small. "resident": of the
peak resident memory; "traced": of Python's tracemalloc. "iteration": fit(max_iter=1)
from a given posterior (two passes over the data, the last looks at the bound);
"fit": max_iter=10 from the default start. Bound: 3 * T * K * 8 bytes.
"""
    )
    X, _ = simulate("gaussian", [T], K, dim=2)
    limit, rows = 3 * T * K * 8, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "X.npy"
        np.save(path, X)
        for posterior in POSTERIORS[:1] if options.quick else POSTERIORS:
            for what in ("fit",) if options.quick else ("iteration", "fit"):
                rows.append([posterior, what])
                for how in ("resident",) if options.quick else ("resident", "traced"):
                    command = [sys.executable, "-W", "ignore", "-c", CHILD]
                    command += map(str, (path, K, what, how, posterior))
                    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
                    child = subprocess.run(
                        command,
                        capture_output=True,
                        check=True,
                        env=os.environ | threads,
                    )
                    used = int(child.stdout)
                    rows[-1] += [f"{used / 1e6:.0f}", f"{used / limit:.2f}"]
    header = ["posterior", "", "resident", "of the bound", "traced", "of the bound"]
    table(header[: len(rows[0])], rows)
    note(f"Bound: {limit / 1e6:.0f} MB.")


# %%
# Independent states
# ------------------


def structure(options):
    quick = options.quick
    heading("What independent states cost")
    n = 5000
    note(
        f"""
Two states that last ({n:,} steps, stays with probability 0.98), Gaussian with means -1
and 1 and sd 2: whoever looks at single steps cannot tell them apart. "log loss":
minus the mean log probability of the true state; "sure": share of steps with a
probability above 0.99; "right": share of these with the right state. "oracle" knows
the parameters. mean_field starts from where a chain's short runs lead, and keeps the
states they found; what it loses is how sure one can be.
"""
    )
    rows = []
    for seed in range(1 if quick else 5):
        rows += structure_rows(n, seed)
    table(
        ["seed", "posterior", "elbo_", "gap", "accuracy", "log loss", "sure", "right"],
        rows,
    )


def structure_rows(n, seed, stay=0.98, sd=2.0):
    rng = np.random.default_rng(seed)
    z = chain([n], 2, stay, rng)
    means = np.array([-1.0, 1.0])
    X = (means[z] + sd * rng.standard_normal(n))[:, None]
    transmat = np.array([[stay, 1.0 - stay], [1.0 - stay, stay]])
    log_b = -0.5 * ((X - means) / sd) ** 2
    rows, best = [], None
    for name in (*POSTERIORS, "oracle"):
        if name == "oracle":
            elbo, p = np.nan, smoothed(np.full(2, 0.5), transmat, log_b, [n])
        else:
            model = VariationalHMM(n_components=2, posterior=name, random_state=0)
            elbo = quietly(model.fit, X).elbo_
            p = model.predict_proba(X)[:, np.argsort(model.means_[:, 0])]
            best = elbo if best is None else best
        chosen = p.argmax(axis=1)
        loss = -np.mean(np.log(np.maximum(p[np.arange(n), z], 1e-300)))
        sure = p.max(axis=1) > 0.99
        right = np.mean(chosen[sure] == z[sure]) if sure.any() else np.nan
        row = [number(elbo, 1), number(best - elbo, 1)]
        row += [number(v, 3) for v in (np.mean(chosen == z), loss, sure.mean(), right)]
        rows.append([seed, name, *row])
    return rows


# %%
# Linear dynamical systems: the smoother
# --------------------------------------

SYSTEM_SIZES = ((1, 1), (5, 50), (10, 50))


def linear_system(K, dim, observations="gaussian", spread=1.0, seed=0):
    """Parameters as the constructor takes them: states that turn, and fade slowly.

    They move outputs (for counts: log rates) with the sd ``spread``.
    """
    rng = np.random.default_rng(seed)
    turn = 0.3 * rng.standard_normal((K, K))
    variance = 1.0 / (1.0 - 0.97**2)  # of the states, in the long run
    scale = spread / np.sqrt(K * variance)
    given = {
        "transition_matrix": 0.97 * scipy.linalg.expm(turn - turn.T),
        "observation_matrix": rng.normal(scale=scale, size=(dim, K)),
        "intercept": rng.normal(-1.0, 0.5, size=dim),
        "initial_mean": np.zeros(K),
        "initial_covariance": variance * np.eye(K),
    }
    if observations == "gaussian":
        given["noise_variance"] = rng.uniform(0.5, 1.5, size=dim)
    return given


def simulate_linear(given, T, seed=1):
    """(X, states) of a system; counts where no noise variance is given."""
    rng = np.random.default_rng(seed)
    A, C = given["transition_matrix"], given["observation_matrix"]
    states = rng.standard_normal((T, len(A)))
    states[0] = np.linalg.cholesky(given["initial_covariance"]) @ states[0]
    for t in range(1, T):
        states[t] += A @ states[t - 1]
    eta = states @ C.T + given["intercept"]
    if "noise_variance" not in given:
        return rng.poisson(np.exp(eta)).astype(float), states
    noise = np.sqrt(given["noise_variance"]) * rng.standard_normal(eta.shape)
    return eta + noise, states


def known_system(given, **params):
    K = len(given["transition_matrix"])
    return VariationalLinearDynamicalSystem(K, **given, **params)


# Smoothers: (call, read) with read(call()) the means, covariances and covariances of
# neighbours, (T - 1, K, K), of a state and the next.


def skvi_smoothers(given, X):
    model = known_system(given)
    smooth = copy.deepcopy(model).fit(X).smooth
    return {
        "skvi fit": (
            lambda: model.fit(X),
            lambda m: (m.states_, m.states_covariance_, m.lagged_states_covariance_),
        ),
        "skvi smooth": (lambda: smooth(X, return_cov=True), lambda found: found),
    }


def statsmodels_smoother(given, X, option=None):
    kalman = import_module("statsmodels.tsa.statespace.kalman_smoother")
    K, dim = len(given["transition_matrix"]), X.shape[1]
    model = kalman.KalmanSmoother(k_endog=dim, k_states=K, k_posdef=K)
    model.bind(X - given["intercept"])  # collapsing takes no intercept
    model["transition"] = given["transition_matrix"]
    model["selection"] = model["state_cov"] = np.eye(K)
    model["design"] = given["observation_matrix"]
    model["obs_cov"] = np.diag(given["noise_variance"])
    model.initialize_known(given["initial_mean"], given["initial_covariance"])
    wanted = ("SMOOTHER_STATE", "SMOOTHER_STATE_COV", "SMOOTHER_STATE_AUTOCOV")
    model.smoother_output = sum(getattr(kalman, name) for name in wanted)
    if option is not None:
        setattr(model, f"filter_{option}", True)

    def read(found):
        lagged = found.smoothed_state_autocov[..., :-1]
        return found.smoothed_state.T, found.smoothed_state_cov.T, lagged.T

    return model.smooth, read


def simdkalman_smoother(given, X):
    filters = import_module("simdkalman")
    A = given["transition_matrix"]
    model = filters.KalmanFilter(
        state_transition=A,
        process_noise=np.eye(len(A)),
        observation_model=given["observation_matrix"],
        observation_noise=np.diag(given["noise_variance"]),
    )

    def call():
        return model.compute(
            (X - given["intercept"])[None],
            0,
            given["initial_mean"][:, None],
            given["initial_covariance"],
            observations=False,
            gains=True,  # with these come the covariances of neighbours
        )

    def read(found):
        states, lagged = found.smoothed.states, found.pairwise_covariances[0, :-1]
        return states.mean[0], states.cov[0], lagged.transpose(0, 2, 1)

    return call, read


def dynamax_system(given, double, full):
    """(model, parameters, their properties), noise as a matrix or as variances."""
    jax = import_module("jax")
    systems = import_module("dynamax.linear_gaussian_ssm")
    dim, K = given["observation_matrix"].shape
    noise = given["noise_variance"]
    f = jax.numpy.float64 if double else jax.numpy.float32
    values = {
        "initial_mean": given["initial_mean"],
        "initial_covariance": given["initial_covariance"],
        "dynamics_weights": given["transition_matrix"],
        "dynamics_bias": np.zeros(K),
        "dynamics_covariance": np.eye(K),
        "emission_weights": given["observation_matrix"],
        "emission_bias": given["intercept"],
        "emission_covariance": np.diag(noise) if full else noise,
    }
    values = {name: jax.numpy.asarray(value, f) for name, value in values.items()}
    model = systems.LinearGaussianSSM(K, dim)
    return model, *model.initialize(**values)


def dynamax_smoother(given, X, double):
    jax = import_module("jax")
    systems = import_module("dynamax.linear_gaussian_ssm")
    with jax.enable_x64(double):
        # The faster of its two forms.
        full = X.shape[1] <= len(given["transition_matrix"])
        _, params, _ = dynamax_system(given, double, full)
        data = jax.numpy.asarray(X, params.initial.mean.dtype)
        smooth = jax.jit(systems.lgssm_smoother)

    def call():
        with jax.enable_x64(double):
            return jax.block_until_ready(smooth(params, data))

    def read(found):
        m, V = np.asarray(found.smoothed_means), np.asarray(found.smoothed_covariances)
        products = m[:-1, :, None] * m[1:, None]
        return m, V, np.asarray(found.smoothed_cross_covariances) - products

    return call, read


def statsmodels_options(given, X):
    names = [None, "univariate"]
    if X.shape[1] > len(given["transition_matrix"]):
        names.append("collapsed")
    return {
        f"statsmodels {name or ''}".strip(): statsmodels_smoother(given, X, name)
        for name in names
    }


def smoothers(given, X):
    contenders = skvi_smoothers(given, X)
    if installed("statsmodels"):
        contenders |= statsmodels_options(given, X)
    if installed("simdkalman"):
        contenders["simdkalman"] = simdkalman_smoother(given, X)
    if installed("dynamax"):
        for bits in (32, 64):
            contenders[f"dynamax {bits}"] = dynamax_smoother(given, X, bits == 64)
    return contenders


def alternated(calls, repeats):
    """({name: what it gave}, {name: best seconds}) after a first call of each."""
    results = {name: call() for name, call in calls.items()}
    clocks = dict.fromkeys(calls, np.inf)
    for _ in range(repeats):
        for name, call in calls.items():
            clocks[name] = min(clocks[name], clocked(call))
    return results, clocks


def disagreement(found, reference):
    """The largest difference of two smoothers, in the units of the state's sd."""
    sd = np.sqrt(np.diagonal(reference[1], axis1=1, axis2=2))
    units = (sd, sd[:, :, None] * sd[:, None], sd[:-1, :, None] * sd[1:, None])
    return max(
        float(np.abs((a - b) / unit).max())
        for a, b, unit in zip(found, reference, units)
    )


def raced(races, repeats):
    """(best seconds, disagreement with the first) of {race: contenders}; all agree."""
    pairs = {
        (r, name): pair for r, names in races.items() for name, pair in names.items()
    }
    calls = {key: call for key, (call, _) in pairs.items()}
    with threadpool_limits(1):
        results, best = alternated(calls, repeats)
    clocks, errors = {}, {}
    for race, names in races.items():
        clocks[race] = {name: best[race, name] for name in names}
        found = {name: pairs[race, name][1](results[race, name]) for name in names}
        first = next(iter(found.values()))
        errors[race] = {name: disagreement(f, first) for name, f in found.items()}
        for name, error in errors[race].items():
            assert error < (1e-2 if name.endswith("32") else 1e-5), (race, name, error)
    return clocks, errors


def fastest(clocks, start):
    return min((v for k, v in clocks.items() if k.startswith(start)), default=np.nan)


def lds_speed(options):
    T, repeats = (1000, 2) if options.quick else (10_000, 7)
    heading("Linear dynamical systems: smoothing with known parameters")
    note(
        f"""
Milliseconds on one core, the best of {repeats} runs in alternation, for means,
covariances and covariances of neighbouring states of {T:,} steps. "fit" of skvi, which
also computes the bound (here the log likelihood), from the data to fitted attributes;
"smooth" leaves the covariances of neighbours out. statsmodels: the faster of its
options (conventional, univariate and, with more outputs than states, collapsed).
dynamax: compiled beforehand, in 32 and 64 bits. skvi computes in 64. "differs": the
largest difference of a mean or covariance to skvi's, in sds of the state.
"""
    )
    peers = ("statsmodels", "simdkalman", "dynamax 32", "dynamax 64")
    release, clocks, ratios, apart = pinned(), [], [], []
    for K, dim in SYSTEM_SIZES:
        given = linear_system(K, dim)
        X, _ = simulate_linear(given, T)
        label = f"d={K}, {dim} outputs"
        found, errors = (
            out[label] for out in raced({label: smoothers(given, X)}, repeats)
        )
        row = [fastest(found, name) for name in ("skvi fit", "skvi smooth", *peers)]
        clocks.append([label, *map(milliseconds, row)])
        ratios.append([label, *(times(value / row[0]) for value in row[2:])])
        apart.append([label, *(f"{errors.get(name, np.nan):.0e}" for name in peers)])
    release()
    table(["ms", "fit", "smooth", *peers], clocks)
    if any(map(installed, PEERS[1:4])):
        note("How many times as long as skvi's fit:")
        table(["", *peers], ratios)
        table(["differs by", *peers], apart)


def lds_missing(options):
    T, repeats = (1000, 2) if options.quick else (10_000, 5)
    heading("Linear dynamical systems: missing data")
    note(
        f"""
Milliseconds as before, {T:,} steps, when nothing, a tenth of the entries or a tenth of
the steps is missing, and how many times as long as complete data; statsmodels with its
fastest option beside it.
"""
    )
    rng, release, rows = np.random.default_rng(0), pinned(), []
    for K, dim in SYSTEM_SIZES:
        given = linear_system(K, dim)
        X, _ = simulate_linear(given, T)
        cases = {
            "complete": X,
            "entries": np.where(rng.random(X.shape) < 0.1, np.nan, X),
            "steps": np.where(rng.random((T, 1)) < 0.1, np.nan, X),
        }
        races = {}
        for case, data in cases.items():
            races[case] = {"skvi": skvi_smoothers(given, data)["skvi fit"]}
            if installed("statsmodels"):
                peer = statsmodels_smoother(
                    given, data, "collapsed" if dim > K else None
                )
                races[case]["peer"] = peer
        found, _ = raced(races, repeats)
        ours = {case: clocks["skvi"] for case, clocks in found.items()}
        theirs = [clocks.get("peer", np.nan) for clocks in found.values()]
        rows.append([f"d={K}, {dim} outputs", *map(milliseconds, ours.values())])
        rows[-1] += [times(ours[c] / ours["complete"]) for c in ("entries", "steps")]
        rows[-1] += map(milliseconds, theirs)
    release()
    header = ["", "complete", "entries", "steps", "ratio", "ratio"]
    table([*header, *(f"statsmodels {case}" for case in cases)], rows)


# %%
# Linear dynamical systems: learning
# ----------------------------------


def timed_learning(X, K):
    """By warm starts, as with hidden Markov models."""
    first = VariationalLinearDynamicalSystem(K, max_iter=1, tol=0.0, random_state=0)
    quietly(first.fit, X[:500])
    return warm_runs(first, X)


def timed_pykalman(given, X):
    filters = import_module("pykalman")
    A = given["transition_matrix"]

    def run(n):
        model = filters.KalmanFilter(
            transition_matrices=A,
            observation_matrices=given["observation_matrix"],
            transition_covariance=np.eye(len(A)),
            observation_covariance=np.diag(given["noise_variance"]),
            transition_offsets=np.zeros(len(A)),
            observation_offsets=given["intercept"],
            initial_state_mean=given["initial_mean"],
            initial_state_covariance=given["initial_covariance"],
        )
        return clocked(lambda: model.em(X, n_iter=n, em_vars="all")), n

    return run


def lds_learning(options):
    T, repeats, budget = (500, 1, 0.02) if options.quick else (10_000, 5, 2.0)
    K, dim = 10, 50
    heading("Linear dynamical systems: time of an iteration of learning")
    note(
        f"""
All parameters learnt, d={K}, {dim} outputs, {T:,} steps, as with hidden Markov models:
the time of a long run minus that of a short one. skvi from the posterior of the first
500 steps; dynamax (EM, compiled beforehand) and pykalman (EM; a single iteration, timed
once) from the true values. skvi learns distributions of the parameters and their
relevances, the others values.
"""
    )
    given = linear_system(K, dim)
    X, _ = simulate_linear(given, T)
    contenders = {"skvi": timed_learning(X, K)}
    if installed("dynamax"):
        jax = import_module("jax")
        for name, double in zip(SYSTEMS[4:], (False, True)):
            with jax.enable_x64(double):
                system = dynamax_system(given, double, True)
                data = jax.numpy.asarray(X, system[1].initial.mean.dtype)
            contenders[name] = compiled_em(*system, data, double)
    release = pinned()
    with threadpool_limits(1):
        timers = {n: Timed(run).plan(budget) for n, run in contenders.items()}
        for _ in range(repeats):
            for timer in timers.values():
                timer.measure()
        found = {name: timer.iteration for name, timer in timers.items()}
        if installed("pykalman"):
            found["pykalman"], _ = timed_pykalman(given, X)(1)
    release()
    rows = [[n, milliseconds(t), times(t / found["skvi"])] for n, t in found.items()]
    table(["", "ms an iteration", "to skvi"], rows)


# %%
# Linear dynamical systems: counts
# --------------------------------


def log_mean_poisson(y, mean, variance, n_nodes=20):
    """Log of the Poisson density of counts, averaged over Gaussian log rates."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n_nodes)
    eta = mean[:, None] + np.sqrt(variance)[:, None] * nodes
    log_p = y[:, None] * eta - np.exp(eta) - gammaln(y + 1.0)[:, None]
    return logsumexp(log_p, axis=1, b=weights / weights.sum())


def dynamax_count_smoothers(given, X, double=True):
    """{name: call} of dynamax's Gaussian smoothers with moments of counts."""
    jax = import_module("jax")
    systems = import_module("dynamax.generalized_gaussian_ssm")
    np_, seen = jax.numpy, np.isfinite(X)
    with jax.enable_x64(double):
        value = {name: np_.asarray(array) for name, array in given.items()}
        data = np_.asarray(np.where(seen, X, 0.0))
        mask = np_.asarray(seen.astype(float))
        C, d = value["observation_matrix"], value["intercept"]
        # A missing count is always zero with variance one: it says nothing.
        params = systems.ParamsGGSSM(
            initial_mean=value["initial_mean"],
            initial_covariance=value["initial_covariance"],
            dynamics_function=lambda x, u: value["transition_matrix"] @ x,
            dynamics_covariance=np_.eye(C.shape[1]),
            emission_mean_function=lambda x, u: u * np_.exp(C @ x + d),
            emission_cov_function=lambda x, u: np_.diag(
                u * np_.exp(C @ x + d) + 1.0 - u
            ),
        )

    def caller(moments):
        smooth = jax.jit(
            lambda y, u: systems.conditional_moments_gaussian_smoother(
                params, moments, y, inputs=u
            )
        )

        def call():
            with jax.enable_x64(double):
                found = jax.block_until_ready(smooth(data, mask))
            m, V = found.smoothed_means, found.smoothed_covariances
            return np.asarray(m), np.asarray(V)

        return call

    return {
        "dynamax, extended Kalman": caller(systems.EKFIntegrals()),
        "dynamax, unscented Kalman": caller(systems.UKFIntegrals()),
    }


def lds_poisson(options):
    quick = options.quick
    T, K, repeats = (300, 2, 1) if quick else (10_000, 5, 3)
    heading("Linear dynamical systems: counts, with known parameters")
    note(
        f"""
{K} states, {T:,} steps, parameters known; log rates move with the sd "spread". Seconds
of a fit to complete counts with one and two workers (best of {repeats}; dynamax: its
smoother, compiled beforehand, in 64 bits), "rmse" of the means of the states, coverage
of their 90 % intervals, and, fitted to the same counts with a fifth of the entries
missing at random, log density of the counts left out, in nats a count: the Poisson
density averaged over the log rates' smoothed distribution, computed by one function for
all. "below": how much lower than the first row's, and its standard error. "oracle"
knows the states.
"""
    )
    header = ["", "", "1 worker", "2 workers", "rmse", "coverage"]
    rows = []
    for dim, spread in ((20, 0.7),) if quick else ((100, 0.7), (20, 1.4)):
        label = f"{dim} neurons, spread {spread:g}"
        rows += [[label, *row] for row in count_rows(T, K, dim, spread, repeats, quick)]
    table([*header, "log density", "below", "error"], rows)


def count_rows(T, K, dim, spread, repeats, quick):
    given = linear_system(K, dim, "poisson", spread)
    X, states = simulate_linear(given, T)
    out = np.random.default_rng(2).random(X.shape) < 0.2
    holes = np.where(out, np.nan, X)

    def densities(mean, cov):
        C = given["observation_matrix"]
        log_rate = mean @ C.T + given["intercept"]
        variance = np.einsum("tjk,sj,sk->ts", cov, C, C, optimize=True)
        return log_mean_poisson(X[out], log_rate[out], variance[out])

    def smoother(X, posterior, n_jobs=1):
        def call():
            model = known_system(
                given, observations="poisson", posterior=posterior, n_jobs=n_jobs
            )
            model.fit(X)
            return model.states_, model.states_covariance_

        return call

    calls, held_in = {}, {}
    for posterior in POSTERIORS:
        name = f"skvi {posterior}"
        held_in[name] = smoother(holes, posterior)
        calls |= {(name, n): smoother(X, posterior, n) for n in (1, 2)}
    if installed("dynamax") and not quick:
        held_in |= dynamax_count_smoothers(given, holes)
        peers = dynamax_count_smoothers(given, X)
        calls |= {(name, 1): call for name, call in peers.items()}
    rows, best = [], None
    with threadpool_limits(1):
        results, clocks = alternated(calls, repeats)
        for name, call in held_in.items():
            (m, V), found = results[name, 1], densities(*call())
            sd = np.sqrt(np.diagonal(V, axis1=1, axis2=2))
            inside = np.abs(states - m) < 1.6448536 * sd
            rows.append([name, seconds(clocks[name, 1])])
            rows[-1] += [seconds(clocks.get((name, 2), np.nan))]
            rows[-1] += [number(np.sqrt(np.mean((m - states) ** 2)))]
            best = found if best is None else best
            rows[-1] += [number(inside.mean(), 3), *density_cells(found, best)]
    found = densities(states, np.zeros((T, K, K)))
    return [*rows, ["oracle", *"----", *density_cells(found, best)]]


def density_cells(found, best):
    below = best - found
    error = below.std() / np.sqrt(len(below))
    return [number(found.mean(), 5), number(below.mean(), 5), number(error, 5)]


# %%
# Neurons that help each other
# ----------------------------


def kernel_rates(counts, ids, width, strength):
    """Rates of each neuron from its own counts, by a Gaussian kernel.

    Missing counts have no weight; a neuron's mean has that of ``strength`` steps. With
    ids (n_steps, n_neurons), rates are from the counts of other ids only.
    """
    seen = np.isfinite(counts)
    y, t = np.where(seen, counts, 0.0), np.arange(len(counts))
    kernel = np.exp(-0.5 * ((t[:, None] - t) / width) ** 2)
    total, weight = kernel @ y, kernel @ seen
    if ids is not None:
        for k in np.unique(ids):
            own = ids == k
            total -= np.where(own, kernel @ (own * y), 0.0)
            weight -= np.where(own, kernel @ (own & seen), 0.0)
    mean = (y.sum(axis=0) + 0.5) / seen.sum(axis=0)
    return (total + strength * mean) / (weight + strength)


def log_poisson(y, rate):
    return y * np.log(rate) - rate - gammaln(y + 1.0)


def best_kernels(counts, holes, ids):
    """{name: rates}: of the constant, and of the best kernels by two standards."""
    grid = [(w, s) for w in 2.0 ** np.arange(7) for s in 3.0 ** np.arange(7)]
    out, seen = np.isnan(holes), np.isfinite(holes)
    rates = [kernel_rates(holes, None, *point) for point in grid]
    found = [log_poisson(counts, rate)[out].sum() for rate in rates]
    # The same from the counts that are given, one stretch of a neuron after another.
    again = [
        log_poisson(counts, kernel_rates(holes, ids, *point))[seen].sum()
        for point in grid
    ]
    return {
        "constant rate": kernel_rates(holes, None, 1e9, 1e9),
        "kernel, best on the answer": rates[int(np.argmax(found))],
        "kernel, best on the rest": rates[int(np.argmax(again))],
    }


def lds_mcmaze(options):
    quick = options.quick
    heading("Held-out stretches of neurons")
    if DATA is None:
        print("  Left out: SKVI_DATA is not set.")
        return
    counts = load("mcmaze_trial748")["counts"].astype(float)
    counts = counts[:, counts.sum(axis=0) > 0]
    if quick:
        counts = counts[:, np.argsort(-counts.sum(axis=0))[:20]]
    sizes = (2,) if quick else (1, 2, 3)
    lengths, folds = ((40,), 1) if quick else ((10, 40), 4)
    T, n_neurons = counts.shape
    note(
        f"""
One reach of a monkey: {n_neurons} neurons, {T} bins of 20 ms, {counts.sum():.0f}
spikes. In each of {folds} fold(s), stretches of 10 or 40 bins of every neuron are
missing, a quarter of the counts, and other neurons' counts at that time are given.
Rates are predicted by the system, or from each neuron's own counts alone: its mean, and
Gaussian kernels whose width and shrinkage to the mean are the best for all neurons on
the very counts to be predicted, or on the counts given when their stretches are left
out one after another. Poisson log density of the held-out counts at the rates, above
that of the constant rate. "against": the best kernel on the answer; "worst": in a
single fold. d*: the size with the best bound in each fold. At most 100 iterations.
"""
    )
    rows = []
    for length in lengths:
        found, spikes = {}, []
        for fold in range(folds):
            group = np.random.default_rng(0).permutation(n_neurons) % 4
            ids = (np.arange(T) // length)[:, None] + 0 * group
            out = (ids + group) % 4 == fold
            holes = np.where(out, np.nan, counts)
            rates = best_kernels(counts, holes, ids)
            for posterior in POSTERIORS:
                models = [
                    VariationalLinearDynamicalSystem(
                        K,
                        observations="poisson",
                        posterior=posterior,
                        max_iter=3 if quick else 100,
                        tol=1e-5,
                        random_state=0,
                    )
                    for K in sizes
                ]
                fits = [quietly(model.fit, holes) for model in models]
                for K, fit in zip(sizes, fits):
                    rates[f"skvi {posterior}, d={K}"] = fit.predict(holes)
                best = max(range(len(fits)), key=lambda k: fits[k].elbo_)
                name = f"skvi {posterior}, d={sizes[best]}"
                rates[f"skvi {posterior}, d*"] = rates[name]
            for name, rate in rates.items():
                value = log_poisson(counts, rate)[out].sum()
                found.setdefault(name, []).append(value)
            spikes.append(counts[out].sum())
        base = np.array(found["constant rate"])
        kernel = np.array(found["kernel, best on the answer"])
        for name, values in found.items():
            gain, against = np.array(values) - base, np.array(values) - kernel
            rows.append([f"{length} bins", name])
            rows[-1] += [number(gain.sum() / np.sum(spikes), 4, "+")]
            rows[-1] += [number(4 * gain.sum() / folds / counts.size, 5, "+")]
            rows[-1] += [number(against.sum() / np.sum(spikes), 4, "+")]
            rows[-1] += [number((against / spikes).min(), 4, "+")]
    header = ["stretches", "", "nats a spike", "nats a count", "against", "worst"]
    table(header, rows)


# %%
# Variances of a local level
# --------------------------


def local_level_likelihood(y, level, noise, mean, variance):
    """Log likelihoods at arrays of variances, by the Kalman filter."""
    total = np.zeros(np.broadcast(level, noise).shape)
    for value in y:
        spread, error = variance + noise, value - mean
        total -= 0.5 * (np.log(2.0 * np.pi * spread) + error**2 / spread)
        mean = mean + variance / spread * error
        variance = variance * noise / spread + level
    return total


PRIORS = ("state_prior", "noise_prior")


def exact_variances(model, y, n=300):
    """Sds of the log variances of level and noise, integrated on a grid."""
    laws = model.state_prior_["level"], model.noise_prior_
    priors = np.array([[float(np.ravel(value)[0]) for value in law] for law in laws])
    # The likelihood does not end a small level variance; only its prior does.
    top = max(0.0, np.log(1.0 / priors[0, 1]) + 4.0)
    level = np.linspace(-14.0, top, int(n * (top + 14.0) / 14.0))[:, None]
    noise = np.linspace(-12.0, -8.0, n // 3)
    start = float(np.ravel(model.initial_mean_)[0])
    spread = float(np.ravel(model.initial_covariance_)[0])
    log_p = local_level_likelihood(y, np.exp(-level), np.exp(-noise), start, spread)
    for u, (shape, rate) in zip((level, noise), priors):
        log_p = log_p + shape * u - rate * np.exp(u)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    return [np.sqrt((p * u**2).sum() - (p * u).sum() ** 2) for u in (level, noise)]


def lds_variances(options):
    heading("The Nile: variances of level and noise")
    if DATA is None:
        print("  Left out: SKVI_DATA is not set.")
        return
    note(
        """
One over the expected precision, and the sd of the log variance, of the level's steps
and of the noise: maximum likelihood (statsmodels), and fits of the local level under
Gamma(eps, eps) priors of the precisions (units of the data) and the default. "exact":
the posterior with the same priors on a grid.
"""
    )
    y, rows = load("nile")["y"].astype(float), []
    if installed("statsmodels"):
        structural = import_module("statsmodels.tsa.statespace.structural")
        fit = structural.UnobservedComponents(y, "llevel").fit(disp=False)
        noise, level = fit.params
        rows.append(["maximum likelihood", "", number(level, 0), number(noise, 0)])
        rows[-1] += ["", ""]
    for eps in (None, 1e-2) if options.quick else (None, 1e-2, 1e-4, 1e-8):
        priors = {} if eps is None else dict.fromkeys(PRIORS, (eps, eps))
        label = "default" if eps is None else f"{eps:g}"
        for correction in ("variational", "linear_response"):
            model = VariationalLinearDynamicalSystem(
                structure="local_level",
                posterior_covariance=correction,
                max_iter=20_000,
                tol=1e-9,
                **priors,
            )
            quietly(model.fit, y[:, None])
            values = [model.state_variances_["level"], model.noise_variance_]
            sds = [model.log_variances_std_[name] for name in ("level", "noise")]
            rows.append([label, correction])
            rows[-1] += [number(float(v[0]), 0) for v in values]
            rows[-1] += [number(float(sd[0]), 3) for sd in sds]
        sds = exact_variances(model, y)
        rows.append([label, "exact", "", "", *(number(sd, 3) for sd in sds)])
    table(["prior", "", "level", "noise", "sd log level", "sd log noise"], rows)


# %%
# The peers' own environment
# --------------------------


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
        install = [python, "-m", "pip", "install", "--quiet", *PEERS]
        subprocess.run(install, check=True)
        command = [python, __file__, *arguments]
        return subprocess.run(command, check=False).returncode


SECTIONS = {
    "speed": speed,
    "objective": objective,
    "heldout": heldout,
    "regimes": regimes,
    "missing": missing,
    "memory": memory,
    "structure": structure,
    "lds-speed": lds_speed,
    "lds-missing": lds_missing,
    "lds-learning": lds_learning,
    "lds-poisson": lds_poisson,
    "lds-mcmaze": lds_mcmaze,
    "lds-variances": lds_variances,
}


def main():
    parser = argparse.ArgumentParser(description="Benchmark models of sequences.")
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
    for name, section in SECTIONS.items():
        if options.only is None or name in options.only:
            began = time.perf_counter()
            section(options)
            print(f"  ({time.perf_counter() - began:.0f} s)", flush=True)
    print(f"\nDone in {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
