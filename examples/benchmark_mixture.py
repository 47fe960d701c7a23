"""
Benchmark: Gaussian mixtures
============================

``VariationalGaussianMixture`` beside scikit-learn's ``BayesianGaussianMixture``: time
to the same value of the same objective from the same start, held-out density, the
number of components that the evidence bound chooses, mass of the densities, missing
entries, memory, and how often a default fit lands where the best of many lands. Every
table says what it compares.

.. code-block:: sh

    python examples/benchmark_mixture.py            # most of an hour
    python examples/benchmark_mixture.py --quick    # smaller and fewer: a minute
    python examples/benchmark_mixture.py --only speed --only memory

Both run in one process, and times are ratios of paired runs; memory is that of a fresh
process each. Fewer BLAS threads: set ``OPENBLAS_NUM_THREADS``. With the environment
variable ``SKVI_DATA`` set to a folder that holds ``mixture/faithful.npz`` and its like
(array X), more real data sets take part.

What "the same objective" means. The evidence lower bound of the conjugate model, in
nats a row, judged for both by one pass over the rows: posterior parameters are handed
to it, and it completes them with the best responsibilities. scikit-learn's own
``lower_bound_`` leaves out constants, so it is not used for that. With
``covariance_type="full"`` and a Dirichlet prior of the weights the two are the same
model, and all priors are given to both explicitly. With ``"diag"`` they are not:
scikit-learn takes the expected log determinant from a Wishart in all dimensions, which
is not conjugate to independent precisions. Both are then given the same degrees of
freedom and scale, skvi's precisions having Gamma(dof / 2, covariance_prior / 2) priors,
and scikit-learn's parameters are judged as those of such Gammas.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
import scipy
import sklearn
from scipy import stats
from scipy.special import logsumexp
from sklearn.cluster import kmeans_plusplus
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer
from sklearn.metrics import adjusted_rand_score, pairwise_distances_argmin
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.model_selection import ShuffleSplit
from threadpoolctl import threadpool_info, threadpool_limits

import skvi
from skvi import VariationalGaussianMixture
from skvi.distributions import (
    DiagonalNormalGamma,
    Dirichlet,
    NormalWishart,
    Wishart,
)
from skvi.distributions.student_mixture import StudentMixture
from skvi.inference.drivers import Batch
from skvi.models.mixture import (
    Frame,
    MixturePosterior,
    Rows,
    Settings,
    Totals,
    search,
    starts,
)

DATA = os.environ.get("SKVI_DATA")
TYPES = ("full", "tied", "diag", "spherical")
SYSTEMS = {
    "skvi": VariationalGaussianMixture,
    "scikit-learn": BayesianGaussianMixture,
}


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
    print(f"  {joblib.cpu_count()} cores")
    for pool in threadpool_info():
        print(
            f"  {pool['user_api']}: {pool['prefix']} {pool['version'] or ''}, "
            f"{pool['num_threads']} threads unless a table says otherwise"
        )


def real_data(*names):
    """(name, X, labels or None); those that need SKVI_DATA only with it."""
    loaders = {
        "iris": load_iris,
        "wine": load_wine,
        "breast_cancer": load_breast_cancer,
        "digits": load_digits,
    }
    for name in names:
        if name in loaders:
            bunch = loaders[name]()
            yield name, bunch.data, bunch.target
        elif name == "digits, 20 PCs":
            bunch = load_digits()
            X = PCA(20, svd_solver="full").fit_transform(bunch.data)
            yield name, X, bunch.target
        elif DATA is not None:
            with np.load(Path(DATA) / "mixture" / f"{name}.npz") as file:
                X = file["X"].astype(float)
                yield name, X, file["label"] if "label" in file else None


def subsample(X, size):
    """At most so many rows, always the same ones."""
    if len(X) <= size:
        return X
    return X[np.sort(np.random.default_rng(0).choice(len(X), size, replace=False))]


def mean_and_error(values):
    values = np.asarray(values, dtype=float)
    return values.mean(), values.std(ddof=1) / np.sqrt(len(values))


# %%
# One objective for both
# ----------------------
# A posterior is a tuple of numpy arrays: concentration of the weights, mean precision,
# means, degrees of freedom, inverse scale (a covariance times its degrees of freedom);
# in the units of a frame.


def components_of(kind, mean_precision, means, dof, inverse_scale):
    """q(means, precisions) of full or diagonal covariances."""
    if kind == "full":
        return NormalWishart(means, mean_precision, Wishart(dof, inverse_scale))
    return DiagonalNormalGamma(means, mean_precision, 0.5 * dof, 0.5 * inverse_scale)


def parameters_of_sklearn(model):
    """scikit-learn's arrays, in the data's units."""
    dof = model.degrees_of_freedom_
    per_entry = dof.reshape(-1, *[1] * (model.covariances_.ndim - 1))
    return (
        model.weight_concentration_,
        model.mean_precision_,
        model.means_,
        dof,
        model.covariances_ * per_entry,
    )


def parameters_of_skvi(q):
    """skvi's arrays, in the units of its frame; nothing that is derived from them."""
    if isinstance(q.components, NormalWishart):
        wishart = q.components.wishart
        precision = wishart.dof, wishart.inverse_scale
    else:
        noise = q.components.noise
        precision = 2.0 * noise.shape, 2.0 * noise.rate
    components = q.components
    return (
        q.weights.concentration,
        components.mean_precision,
        components.location,
        *precision,
    )


class Judge:
    """The evidence lower bound of posteriors, nats a row, from one pass over X."""

    def __init__(self, X, kind, priors):
        estimator = VariationalGaussianMixture(covariance_type=kind, **priors)
        self.kind, self.n = kind, len(X)
        self.frame = Frame.of(X)
        rows = Rows(X, None, self.frame)
        totals = Totals.of(rows, products=kind == "full")
        attributes = estimator._frame_attributes(totals, self.frame, rows)
        self.model, self.log_units = attributes.model, attributes.log_units
        self.batch = Batch(self.model, self.model.blocks(rows))

    def __call__(self, parameters, frame):
        concentration, *rest = (np.asarray(p, dtype=float) for p in parameters)
        components = components_of(self.kind, *rest).rescaled(
            frame.unit / self.frame.unit,
            (frame.centre - self.frame.centre) / self.frame.unit,
        )
        q = MixturePosterior(Dirichlet(concentration), components, self.model.geometry)
        terms = self.model.elbo_terms(self.batch.evaluate(q), q)
        return (sum(terms.values()) + self.log_units) / self.n

    def first(self, trace, target):
        """The first iteration whose bound is at least the target, or None.

        By bisection: the bound rises along both paths.
        """
        values = {}

        def value(i):
            if i not in values:
                values[i] = self(trace.parameters[i], trace.frame)
            return values[i]

        low, high = 0, len(trace.parameters) - 1
        if not value(high) >= target:
            return None
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if value(middle) >= target else (middle + 1, high)
        return low


# %%
# Speed
# -----
# Both systems' own ``fit``, whose start alone is replaced by given labels. A first run
# goes on until convergence and keeps the parameters of every iteration; from these the
# judge finds the iteration that reaches the target. Timed runs stop there by
# themselves, and all of their time counts.

PER_ROW = 1e-4  # nats: how close to scikit-learn's end
TOL = 1e-7  # nats a row and iteration, at which both have converged
MAX_ITER = 1000


class Traced:
    """Parameters after each iteration, and the units they are in."""

    def __init__(self):
        self.parameters = []
        self.frame = None


class SklearnFromLabels(BayesianGaussianMixture):
    """BayesianGaussianMixture from given labels."""

    def _initialize_parameters(self, X, random_state, xp=None):
        resp = np.zeros((len(X), self.n_components), dtype=X.dtype)
        resp[np.arange(len(X)), self.labels] = 1.0
        self._initialize(X, resp)

    def _m_step(self, X, log_resp, xp=None):
        super()._m_step(X, log_resp, xp=xp)
        self.trace.parameters.append(parameters_of_sklearn(self))


class SkviFromLabels(VariationalGaussianMixture):
    """VariationalGaussianMixture from given labels."""

    def _search(self, rows, totals, frame_of_fit, task):
        model = frame_of_fit.model
        self.trace.frame = frame_of_fit.frame

        def on_iteration(fit):
            self.trace.parameters.append(parameters_of_skvi(fit.posterior))
            return len(self.trace.parameters) == self.stop_at

        q = starts.start(model, rows, self.labels)
        settings = Settings(self.max_iter, self.tol)
        return search.run(model, rows, q, settings, self.n_jobs, on_iteration)


def run_sklearn(X, kind, priors, labels, stop_at=None):
    """(seconds, trace) of a fit; one that stops after so many iterations if asked."""
    # tol is one of the whole bound.
    limits = (
        {"tol": TOL * len(X), "max_iter": MAX_ITER}
        if stop_at is None
        else {"tol": 0.0, "max_iter": stop_at}
    )
    model = SklearnFromLabels(covariance_type=kind, reg_covar=0.0, **limits, **priors)
    model.labels, model.trace = labels, Traced()
    model.trace.frame = Frame(np.zeros(X.shape[1]), np.ones(X.shape[1]))
    return timed(model, X)


def run_skvi(X, kind, priors, labels, stop_at=None, n_jobs=1):
    model = SkviFromLabels(
        covariance_type=kind, tol=TOL, max_iter=MAX_ITER, n_jobs=n_jobs, **priors
    )
    model.labels, model.stop_at, model.trace = labels, stop_at, Traced()
    return timed(model, X)


def timed(model, X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        start = time.perf_counter()
        model.fit(X)
        return time.perf_counter() - start, model.trace


def blobs(n, dim, n_components, spread, kind, seed=0):
    """Rows of groups with centres N(0, spread^2) and unit-sized, correlated noise."""
    rng = np.random.default_rng(seed)
    centres = spread * rng.standard_normal((n_components, dim))
    z = rng.integers(n_components, size=n)
    X = rng.standard_normal((n, dim))
    if kind == "diag":
        X *= (0.5 + rng.random((n_components, dim)))[z]
    else:
        mixing = np.eye(dim) + 0.3 * rng.standard_normal((n_components, dim, dim))
        for k in range(n_components):
            X[z == k] = X[z == k] @ mixing[k].T
    X += centres[z]
    return X


def speed_priors(X, kind, n_components):
    return {
        "n_components": n_components,
        "weight_concentration_prior_type": "dirichlet_distribution",
        "weight_concentration_prior": 1.0 / n_components,
        "mean_precision_prior": 1.0,
        "mean_prior": X.mean(axis=0),
        "degrees_of_freedom_prior": X.shape[1] + 2.0,
        "covariance_prior": np.cov(X.T) if kind == "full" else X.var(axis=0),
    }


def nearest_centres(X, n_components, seed):
    """Labels to start from: the nearest of centres by k-means++."""
    centres, _ = kmeans_plusplus(X, n_components, random_state=seed)
    return pairwise_distances_argmin(X, centres)


def speed(quick):
    repeats = 1 if quick else 3
    heading("Speed beside BayesianGaussianMixture")
    note(
        f"""
Seconds of the whole fit until the bound is within {PER_ROW:g} nats a row of
scikit-learn's converged one on the float64 data; medians of {repeats} paired repeats,
and the median and range of the ratios. Same priors, same labels to start from
(k-means++ centres, found beforehand). "iterations": until there / until converged
(rise below {TOL:g} nats a row, or {MAX_ITER}); "ms": an iteration until converged.
"end": skvi's converged bound minus scikit-learn's, nats a row. BELOW: never came that
close, which counts as not reached. scikit-learn runs with the default threads (see
"What ran"), and so does BLAS under skvi's n_jobs=1. "centres": standard deviation of
the centres of the groups.
"""
    )
    problems = [
        (100_000, 10, 20, "full", 3.0),
        (100_000, 10, 20, "full", 0.7),
        (1_000_000, 5, 10, "diag", 1.0),
        (20_000, 100, 10, "full", 0.5),
        (5000, 5, 20, "full", 1.0),
    ]
    if quick:
        problems = [(4000, 5, 5, "full", 3.0), (10_000, 5, 5, "diag", 1.0)]
        problems += [(1500, 30, 4, "full", 0.7)]
    for n, dim, K, kind, spread in problems:
        X = blobs(n, dim, K, spread, kind)
        priors, labels = speed_priors(X, kind, K), nearest_centres(X, K, 1)
        name = f"{n:,} x {dim} {kind}, K={K}"
        table(  # at once: some problems take minutes
            ["problem", "centres", "X", "n_jobs", "sklearn iterations", "ms", "s"]
            + ["skvi iterations", "ms", "s", "ratio", "range", "end"],
            speed_rows([name, f"{spread:g}"], X, kind, priors, labels, repeats),
        )


def speed_rows(label, X, kind, priors, labels, repeats):
    judge, target, rows = Judge(X, kind, priors), None, []
    for dtype in (np.float64, np.float32):
        x = X.astype(dtype)

        def run(contender, stop_at=None, x=x):
            if contender == "scikit-learn":
                return run_sklearn(x, kind, priors, labels, stop_at)
            return run_skvi(x, kind, priors, labels, stop_at, n_jobs=contender)

        contenders = ("scikit-learn", 1, 2)
        ends, stops, lengths, pace = {}, {}, {}, {}
        for who in contenders:
            seconds, trace = run(who)
            ends[who] = judge(trace.parameters[-1], trace.frame)
            if target is None:
                target = ends[who] - PER_ROW
            stops[who] = judge.first(trace, target)
            lengths[who] = len(trace.parameters)
            pace[who] = 1e3 * seconds / lengths[who]
            del trace
        times = {who: np.full(repeats, np.nan) for who in contenders}
        for repeat in range(repeats):
            for who in contenders:
                if stops[who] is not None:
                    times[who][repeat], _ = run(who, stops[who] + 1)

        def cells(who, stops=stops, lengths=lengths, pace=pace, times=times):
            reached = stops[who] is not None
            return [
                f"{stops[who] + 1 if reached else '-'}/{lengths[who]}",
                f"{pace[who]:.1f}",
                f"{np.median(times[who]):.3f}" if reached else "-",
            ]

        for who in (1, 2):
            rows.append([*label, np.dtype(dtype).name, who])
            rows[-1] += [*cells("scikit-learn"), *cells(who)]
            below = [w for w in ("scikit-learn", who) if stops[w] is None]
            if below:
                whose = "sklearn " if below == ["scikit-learn"] else ""
                rows[-1] += [f"{whose}BELOW", "-"]
            else:
                ratio = times["scikit-learn"] / times[who]
                rows[-1] += [f"{np.median(ratio):.1f}x"]
                rows[-1] += [f"{ratio.min():.1f} .. {ratio.max():.1f}"]
            rows[-1] += [f"{ends[who] - target - PER_ROW:+.1e}"]
    return rows


def basins(quick):
    n_starts = 3 if quick else 20
    heading("Where the same start leads")
    note(
        f"""
The comparison of speed supposes that both climb the same hill, which longer steps may
leave. Here {n_starts} pairs of data and start a problem, small ones, float64: how often
skvi's converged bound is more than {PER_ROW:g} nats a row below scikit-learn's, equal,
or above, the mean and the extremes of the difference, and iterations until within
{PER_ROW:g} of scikit-learn's end where both came there (medians). One thread each.
"""
    )
    problems = [(1500, 30, 4, "full", 0.7), (3000, 10, 20, "full", 0.7)]
    problems += [(5000, 5, 20, "full", 1.0), (10_000, 5, 10, "diag", 1.0)]
    jobs = [
        joblib.delayed(one_basin)(*problem, seed)
        for problem in (problems[:1] if quick else problems)
        for seed in range(n_starts)
    ]
    found = np.array(joblib.Parallel(n_jobs=-1)(jobs)).reshape(-1, n_starts, 3)
    rows = []
    for (n, dim, K, kind, spread), ends in zip(problems, found):
        gap, sklearn_at, skvi_at = ends.T
        reached = ~np.isnan(skvi_at)
        low, high = np.sum(gap < -PER_ROW), np.sum(gap > PER_ROW)
        rows.append([f"{n:,} x {dim} {kind}, K={K}", f"{spread:g}"])
        rows[-1] += [low, n_starts - low - high, high, f"{gap.mean():+.4f}"]
        rows[-1] += [f"{gap.min():+.4f} .. {gap.max():+.4f}"]
        for at in (sklearn_at, skvi_at):
            rows[-1] += [f"{np.median(at[reached]):.0f}" if reached.any() else "-"]
    table(
        ["problem", "centres", "below", "equal", "above", "mean", "range"]
        + ["sklearn it", "skvi it"],
        rows,
    )


def one_basin(n, dim, K, kind, spread, seed):
    """(skvi's end minus scikit-learn's, iterations of both until its end)."""
    with threadpool_limits(1):
        X = blobs(n, dim, K, spread, kind, seed)
        priors, labels = speed_priors(X, kind, K), nearest_centres(X, K, seed)
        judge = Judge(X, kind, priors)
        _, peer = run_sklearn(X, kind, priors, labels)
        _, own = run_skvi(X, kind, priors, labels)
        end = judge(peer.parameters[-1], peer.frame)
        stops = [judge.first(trace, end - PER_ROW) for trace in (peer, own)]
        return [judge(own.parameters[-1], own.frame) - end] + [
            np.nan if stop is None else stop + 1 for stop in stops
        ]


# %%
# Held-out density
# ----------------


def exact_predictive(model, X):
    """Log density of rows, scikit-learn's posterior integrated out (full or diag)."""
    _, *parameters = parameters_of_sklearn(model)
    components = components_of(model.covariance_type, *parameters)
    return StudentMixture(model.weights_, *components.predictive()).log_density(X)


def heldout(quick):
    n_splits = 2 if quick else 10
    heading("Held-out log density")
    note(
        f"""
Mean log density of a fifth of the rows, fits to the rest, {n_splits} random splits;
each system with its own default priors and initialisation, K components. "+-": standard
error over splits of the difference, skvi minus scikit-learn (splits share rows).
"integrated": scikit-learn's parameters, but the density that integrates over their
posterior, where its score_samples does not integrate to one. Seconds: mean fit, one
thread each. scikit-learn has max_iter=1000.
digits has columns without spread, where either density rests on the floor that its
prior (or reg_covar) puts under the variance: its first principal components have none.
"""
    )
    sizes = {"iris": 5, "wine": 5, "breast_cancer": 5, "faithful": 5}
    sizes |= {"gvhd_pos": 10, "shuttle": 10, "digits": 10, "digits, 20 PCs": 10}
    if quick:
        sizes = {"iris": 5, "wine": 5, "faithful": 5}
    if DATA is None:
        print("  SKVI_DATA is not set: without faithful, gvhd and shuttle.")
    rows = []
    for name, X, _ in real_data(*sizes):
        X, K = subsample(X, 10_000), sizes[name]
        for kind in ("full", "diag"):
            label = [f"{name} {X.shape[0]:,} x {X.shape[1]}", kind, K]
            with threadpool_limits(1):
                rows.append(label + heldout_row(X, kind, K, n_splits))
    table(
        ["data", "covariance", "K", "skvi", "sklearn", "difference"]
        + ["integrated", "skvi s", "sklearn s"],
        rows,
    )


def heldout_row(X, kind, K, n_splits):
    makers = {
        "skvi": lambda seed: VariationalGaussianMixture(
            n_components=K, covariance_type=kind, random_state=seed
        ),
        "scikit-learn": lambda seed: BayesianGaussianMixture(
            n_components=K, covariance_type=kind, max_iter=1000, random_state=seed
        ),
    }
    scores = {name: [] for name in [*makers, "integrated"]}
    seconds = {name: [] for name in makers}
    failures = {name: [] for name in makers}
    splits = ShuffleSplit(n_splits, test_size=0.2, random_state=0)
    for seed, (train, test) in enumerate(splits.split(X)):
        for name, make in makers.items():
            start = time.perf_counter()
            try:
                model = make(seed).fit(X[train])
                seconds[name].append(time.perf_counter() - start)
                scores[name].append(model.score(X[test]))
            except ValueError as error:
                failures[name].append(str(error).split(".")[0][:40])
                scores[name].append(np.nan)
        good = not np.isnan(scores["scikit-learn"][-1])
        integrated = exact_predictive(model, X[test]).mean() if good else np.nan
        scores["integrated"].append(integrated)
    difference, error = mean_and_error(
        np.subtract(scores["skvi"], scores["scikit-learn"])
    )

    def cell(name):
        failed = failures.get(name)
        if failed:
            return f"failed {len(failed)}/{n_splits}: {failed[0]}"
        return f"{np.mean(scores[name]):.3f}"

    return [
        cell("skvi"),
        cell("scikit-learn"),
        f"{difference:+.3f} +- {error:.3f}",
        cell("integrated"),
        *(f"{np.mean(seconds[name] or [np.nan]):.2f}" for name in makers),
    ]


# %%
# The number of components
# ------------------------

APART = 6.0  # sds between neighbouring centres


def simulate(seed):
    """(X, K*): spherical unit clusters, each centre 6 sds from its nearest one."""
    rng = np.random.default_rng(seed)
    dim, K = int(rng.integers(2, 11)), int(rng.integers(2, 7))
    centres = np.zeros((1, dim))
    while len(centres) < K:
        step = rng.standard_normal(dim)
        step *= APART / np.linalg.norm(step)
        new = centres[rng.integers(len(centres))] + step
        if np.min(np.linalg.norm(centres - new, axis=1)) >= APART - 1e-9:
            centres = np.vstack([centres, new])
    sizes = rng.integers(50, 101, size=K)
    return np.concatenate(
        [c + rng.standard_normal((n, dim)) for c, n in zip(centres, sizes)]
    ), K


def chosen(seed):
    """K*, and the K chosen by each criterion, of one simulation."""
    X, true = simulate(seed)
    sizes = range(1, true + 4)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        elbo = {
            (kind, K): VariationalGaussianMixture(
                n_components=K, covariance_type=kind, random_state=0
            )
            .fit(X)
            .elbo_
            for kind in TYPES
            for K in sizes
        }
        bic = {K: GaussianMixture(K, random_state=0).fit(X).bic(X) for K in sizes}
    out = {"elbo_, all four types": max(elbo, key=elbo.get)[1]}
    for kind in TYPES:
        out[f"elbo_, {kind}"] = max(sizes, key=lambda K: elbo[kind, K])
    out["BIC of GaussianMixture, full"] = min(bic, key=bic.get)
    return true, out


def components(quick):
    n = 3 if quick else 200
    heading("The number of components")
    note(
        f"""
{n} simulations: 2 to 10 columns, K* = 2 to 6 spherical clusters of 50 to 100 rows and
unit sd, neighbouring centres {APART:g} sds apart and no pair closer. n_components from
1 to K* + 3, the one with the highest elbo_ (or the lowest BIC, n_init=1) chosen.
Default priors. Share that is right, with its exact 95 % interval.
"""
    )
    found = joblib.Parallel(n_jobs=-1)(
        joblib.delayed(chosen)(seed) for seed in range(n)
    )
    true = np.array([K for K, _ in found])
    rows = []
    for name in found[0][1]:
        K = np.array([out[name] for _, out in found])
        low, high = stats.binomtest(int(np.sum(K == true)), n).proportion_ci()
        wrong = [str(seed) for seed in np.flatnonzero(K != true)]
        rows.append([name, f"{np.mean(K == true):.3f}", f"{low:.3f} .. {high:.3f}"])
        rows[-1] += [np.sum(K < true), np.sum(K > true)]
        rows[-1] += [", ".join(wrong[:8]) or "-"]
    table(
        ["criterion", "right", "interval", "too few", "too many", "wrong at seeds"],
        rows,
    )


# %%
# Mass
# ----


def covariance_matrices(model):
    """Covariances of all components, (K, D, D), whatever the covariance type."""
    K, dim = model.means_.shape
    covariance, identity = model.covariances_, np.eye(dim)
    return {
        "full": lambda: covariance,
        "tied": lambda: np.tile(covariance, (K, 1, 1)),
        "diag": lambda: covariance[:, :, None] * identity,
        "spherical": lambda: covariance[:, None, None] * identity,
    }[model.covariance_type]()


def mass(model, n_draws, seed=0):
    """Integral of exp(score_samples) by importance sampling, and its standard error.

    From Student-t laws of three degrees of freedom around the components, half of the
    draws with the components' covariances for shape and half with four times these.
    """
    rng = np.random.default_rng(seed)
    laws = [
        stats.multivariate_t(mean, widening * shape, df=3)
        for mean, shape in zip(model.means_, covariance_matrices(model))
        for widening in (1.0, 4.0)
    ]
    sizes = rng.multinomial(n_draws, np.full(len(laws), 1.0 / len(laws)))
    X = np.concatenate(
        [
            law.rvs(size, random_state=rng).reshape(size, -1)
            for law, size in zip(laws, sizes)
        ]
    )
    proposal = logsumexp([law.logpdf(X) for law in laws], axis=0) - np.log(len(laws))
    return mean_and_error(np.exp(model.score_samples(X) - proposal))


def density(quick):
    n_draws = 20_000 if quick else 200_000
    heading("Mass of the predictive density")
    note(
        f"""
Integral of exp(score_samples), by importance sampling with {n_draws:,} draws; +-: its
standard error. Three groups of 50 rows, K = 3, default priors.
"""
    )
    rows = []
    with threadpool_limits(1):
        for dim in (2, 10, 30):
            X = blobs(150, dim, 3, 3.0, "full", seed=1)
            for kind in TYPES:
                cells = []
                for make in SYSTEMS.values():
                    model = make(n_components=3, covariance_type=kind, random_state=0)
                    value, error = mass(model.fit(X), n_draws)
                    cells.append(f"{value:.4f} +- {error:.4f}")
                rows.append([dim, kind, *cells])
    table(["columns", "covariance", *SYSTEMS], rows)


# %%
# Missing entries
# ---------------


def missing(quick):
    repeats, share = 2 if quick else 5, 0.3
    heading("Missing entries")
    note(
        f"""
{share:.0%} of the entries missing at random, {repeats} times; means, standard errors.
skvi fits the incomplete rows; the other fills them with IterativeImputer first and
fits BayesianGaussianMixture (max_iter=1000) to the result. Error: root mean square of
the filled entries, in sds of their columns. Agreement: adjusted Rand index with the
known labels of crabs, and for gvhd with the labels of the same system's fit to the
complete rows. "complete": labels from the complete rows.
"""
    )
    if DATA is None:
        print("  SKVI_DATA is not set: skipped (needs crabs and gvhd).")
        return
    rows = []
    for name, X, labels in real_data("crabs", "gvhd_pos"):
        K = {"crabs": 4, "gvhd_pos": 8}[name]
        X = subsample(X, 600 if quick else 3000)
        for system, fill in {"skvi": by_skvi, "scikit-learn": by_imputer}.items():
            with threadpool_limits(1), warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                complete = SYSTEMS[system](
                    n_components=K, random_state=0, max_iter=1000
                ).fit_predict(X)
                truth = complete if labels is None else labels
                errors, agreement, seconds = [], [], []
                for seed in range(repeats):
                    gone = np.random.default_rng(seed).random(X.shape) < share
                    start = time.perf_counter()
                    filled, found = fill(np.where(gone, np.nan, X), K, seed)
                    seconds.append(time.perf_counter() - start)
                    scaled = (filled - X) / X.std(axis=0)
                    errors.append(np.sqrt(np.mean(scaled[gone] ** 2)))
                    agreement.append(adjusted_rand_score(truth, found))
            rows.append([f"{name} {X.shape[0]:,} x {X.shape[1]}", K, system])
            rows[-1] += ["{:.3f} +- {:.3f}".format(*mean_and_error(errors))]
            rows[-1] += ["{:.3f} +- {:.3f}".format(*mean_and_error(agreement))]
            rows[-1] += [f"{adjusted_rand_score(truth, complete):.3f}"]
            rows[-1] += [f"{np.mean(seconds):.2f}"]
    table(["data", "K", "fit", "error", "agreement", "complete", "seconds"], rows)


def by_skvi(X, K, seed):
    model = VariationalGaussianMixture(n_components=K, random_state=seed).fit(X)
    return model.impute(X), model.predict(X)


def by_imputer(X, K, seed):
    filled = IterativeImputer(random_state=seed).fit_transform(X)
    model = BayesianGaussianMixture(n_components=K, random_state=seed, max_iter=1000)
    return filled, model.fit_predict(filled)


# %%
# Memory
# ------

CHILD = """
import sys
import numpy as np
from sklearn.mixture import BayesianGaussianMixture
from skvi import VariationalGaussianMixture

def peak():
    try:
        with open("/proc/self/status") as status:
            line = [line for line in status if line.startswith("VmHWM")][0]
        return 1024 * int(line.split()[1])
    except OSError:
        import resource
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

n, dim, K, kind, name = *map(int, sys.argv[1:4]), *sys.argv[4:6]
systems = {"skvi": VariationalGaussianMixture, "scikit-learn": BayesianGaussianMixture}

def fit(X):
    systems[name](
        n_components=K, covariance_type=kind, max_iter=3, random_state=0
    ).fit(X)

rng = np.random.default_rng(0)
fit(rng.standard_normal((500, dim)))  # lazy imports and buffers
centres = rng.standard_normal((K, dim))
X = np.empty((n, dim))
for start in range(0, n, 10_000):  # leaves no peak of its own
    part = X[start : start + 10_000]
    part[:] = rng.standard_normal(part.shape) + centres[rng.integers(K, size=len(part))]
before = peak()
fit(X)
print(peak() - before)
"""


def memory(quick):
    heading("Peak memory of fit")
    note(
        """
By how much a default fit (three iterations of each run) raises the peak resident memory
of a fresh process that holds the data; one thread.
"""
    )
    n, dim, K = (100_000, 5, 10) if quick else (1_000_000, 5, 10)
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    rows = []
    for kind in ("diag", "full"):
        for name in SYSTEMS:
            command = [sys.executable, "-W", "ignore", "-c", CHILD]
            command += [str(n), str(dim), str(K), kind, name]
            child = subprocess.run(
                command, capture_output=True, check=True, env=os.environ | one_thread
            )
            rows.append([f"{n:,} x {dim} {kind}, K={K}", name])
            rows[-1] += [f"{8 * n * dim / 1e6:.0f} MB"]
            rows[-1] += [f"{int(child.stdout) / 1e6:.0f} MB"]
    table(["problem", "fit", "X", "above X"], rows)


# %%
# Starts
# ------

KINDS = ("kmeans", "k-means++", "random_from_data")


def bound_a_row(system, seed, X, **parameters):
    """The system's own bound after a fit, nats a row, and the seconds it took."""
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        start = time.perf_counter()
        model = SYSTEMS[system](n_components=10, random_state=seed, **parameters)
        model.fit(X)
        bound = model.elbo_ if system == "skvi" else model.lower_bound_
        return bound / len(X), time.perf_counter() - start


def landing(quick):
    n_states, n_full = (2, 4) if quick else (100, 40)
    heading("Where default fits land")
    note(
        f"""
digits{" (a quarter of its rows)" if quick else ""}, K = 10, full covariances.
Reference: the best of {n_full} starts, each run to the end, a third each of
{", ".join(KINDS)}. Share of the default fits with random
states 0 ... {n_states - 1} whose bound is at most 0.05 nats a row below it.
Each system is compared with its own best, by its own bound under its own default
priors: scikit-learn's leaves out constants only, so its differences are those of the
true one. "median", "worst" and "best" of the default fits, and the median of the single
starts, are relative to the reference, nats a row.
"""
    )
    X = load_digits().data
    if quick:
        X = X[::4]
    rows, run = [], joblib.Parallel(n_jobs=-1)
    for system in SYSTEMS:
        full = run(
            joblib.delayed(bound_a_row)(
                system, 1000 + i, X, init_params=KINDS[i % len(KINDS)], max_iter=1000
            )
            for i in range(n_full)
        )
        default = run(
            joblib.delayed(bound_a_row)(system, state, X) for state in range(n_states)
        )
        (bound, seconds), (single, of_single) = (
            np.transpose(default),
            np.transpose(full),
        )
        gap, single = bound - single.max(), single - single.max()
        rows.append([system, f"{np.mean(gap >= -0.05):.2f}"])
        rows[-1] += [f"{g:+.3f}" for g in (np.median(gap), gap.min(), gap.max())]
        rows[-1] += [f"{seconds.mean():.2f}", f"{np.median(single):+.3f}"]
        rows[-1] += [f"{of_single.mean():.2f}"]
    table(
        ["fit", "share", "median", "worst", "best", "s a fit"]
        + ["single starts", "s a start"],
        rows,
    )


SECTIONS = {
    "memory": memory,
    "density": density,
    "missing": missing,
    "heldout": heldout,
    "components": components,
    "starts": landing,
    "basins": basins,
    "speed": speed,
}


def main():
    parser = argparse.ArgumentParser(description="Benchmark Gaussian mixtures.")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer runs")
    parser.add_argument("--only", action="append", choices=sorted(SECTIONS))
    options = parser.parse_args()
    start = time.perf_counter()
    versions()
    for name, section in SECTIONS.items():
        if options.only is None or name in options.only:
            began = time.perf_counter()
            section(options.quick)
            print(f"  ({time.perf_counter() - began:.0f} s)")
    print(f"\nDone in {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
