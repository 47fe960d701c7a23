"""
How many components?
====================

Three ways to choose the number of components of a mixture, on simulated data where the
answer is known and on the wines that come with scikit-learn:

- by ``elbo_``, the lower bound of the log evidence, from one fit a candidate to all
  rows;
- by the held-out log density of cross-validation, from one fit a candidate and fold;
- by ``lower_bound_`` of scikit-learn's ``BayesianGaussianMixture``, from which the
  constants that depend on the number of components are missing, so that it cannot
  choose.
"""

import argparse
import sys
import warnings
from math import lgamma
from pathlib import Path

import numpy as np
from scipy.stats import chi2
from sklearn.datasets import load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import BayesianGaussianMixture
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skvi import VariationalGaussianMixture
from skvi.metrics import elbo_scorer

try:
    import matplotlib.pyplot as plt
except ImportError:
    plt = None

parser = argparse.ArgumentParser(description="Choosing the number of components.")
parser.add_argument("--quick", action="store_true", help="fewer data sets")
parser.add_argument(
    "--output", type=Path, default=Path(), help="folder for the picture"
)
args, _ = parser.parse_known_args()  # a notebook passes arguments of its own
n_sets = 2 if args.quick else 12

# scikit-learn's mixture is not always done in 500 iterations, which is not the point.
warnings.filterwarnings("ignore", category=ConvergenceWarning, module="sklearn")

# %%
# Simulated data
# --------------
# Four Gaussians that touch.

true_weights = [0.35, 0.3, 0.2, 0.15]
true_means = np.array([[0.0, 0.0], [4.0, 0.5], [0.5, 4.0], [5.0, 5.0]])
true_roots = np.linalg.cholesky(
    [
        [[1.0, 0.7], [0.7, 1.0]],
        [[1.0, -0.5], [-0.5, 0.8]],
        [[0.6, 0.0], [0.0, 1.2]],
        [[1.2, 0.3], [0.3, 0.5]],
    ]
)


def make_data(n_rows, rng):
    """Rows of the four Gaussians."""
    labels = rng.choice(4, size=n_rows, p=true_weights)
    noise = rng.standard_normal((n_rows, 2))
    return true_means[labels] + np.einsum("nij,nj->ni", true_roots[labels], noise)


candidates = np.arange(1, 7 if args.quick else 8)
folds = KFold(3, shuffle=True, random_state=0)


def three_criteria(X):
    """Of every number of components: elbo, held-out density, scikit-learn's bound."""
    rows = []
    for n_components in candidates:
        model = VariationalGaussianMixture(n_components=n_components, random_state=0)
        held_out = cross_val_score(model, X, cv=folds).mean()
        peer = BayesianGaussianMixture(
            n_components=n_components, n_init=3, max_iter=500, random_state=0
        ).fit(X)
        rows.append((model.fit(X).elbo_, held_out, peer.lower_bound_))
    return np.array(rows).T


rng = np.random.default_rng(0)
X = make_data(200, rng)
elbo, held_out, peer = three_criteria(X)

print("ONE DATA SET of 200 rows, true number 4\n")
print(f"{'K':>3}{'elbo_':>11}{'held-out / row':>16}{'sklearn lower_bound_':>22}")
for k, *values in zip(candidates, elbo, held_out, peer):
    print(f"{k:3d}{values[0]:11.2f}{values[1]:16.4f}{values[2]:22.2f}")
best = candidates[np.argmax(elbo)]
assert best == 4

# %%
# Up to four components ``elbo_`` rises by ten nats or more a component, and it falls
# after. It falls slowly, as the prior on weights leaves superfluous components with a
# row or none: a fit with six is nearly one with four. Held-out density does not
# notice them, and where it is highest among four and more is a matter of luck.
#
# In any units
# ------------
# All constants are in ``elbo_``, and the default priors follow the scale of the data.
# Rescaling n rows of D columns by c therefore lowers it by n D log c, the change of the
# density, for each number of components: differences stay what they were.

rescaled = VariationalGaussianMixture(n_components=4, random_state=0).fit(1000.0 * X)
expected = elbo[3] - X.size * np.log(1000.0)
print(f"\nin units of 1/1000: elbo_ {rescaled.elbo_:.4f}, expected {expected:.4f}")
assert abs(rescaled.elbo_ - expected) < 1e-3

# %%
# The labels
# ----------
# ``elbo_`` describes one labelling of the components. Under a prior that treats them
# alike there are K! equally good ones, so the log evidence may be higher by up to log
# K!, and by log(K + 1) more for K + 1 components than for K. A difference as small as
# that, here between four and five, says that the additional component is not needed,
# not that it is wrong. ``weights_`` tells the same: it has hardly a row.

print("\nK    elbo_ + log K!    components with more than 5 rows")
for k in candidates:
    model = VariationalGaussianMixture(n_components=int(k), random_state=0).fit(X)
    held = np.sum(model.weights_ * len(X) > 5.0)
    print(f"{k}{model.elbo_ + lgamma(k + 1.0):17.2f}{held:12d}")

# %%
# Many data sets
# --------------
# How often does each criterion choose what?

chosen = []
for _ in range(n_sets):
    scores = three_criteria(make_data(200, rng))
    chosen.append(candidates[np.argmax(scores, axis=1)])
chosen = np.array(chosen).T
counts = np.array([[np.sum(row == k) for k in candidates] for row in chosen])
names = ["elbo_", "held-out density", "sklearn lower_bound_"]

print(f"\nCHOICES in {n_sets} data sets of 200 rows, true number 4\n")
print(f"{'K':<22}" + "".join(f"{k:5d}" for k in candidates))
for name, row in zip(names, counts):
    print(f"{name:<22}" + "".join(f"{count:5d}" for count in row))

# %%
# A search over everything
# ------------------------
# 178 wines from three cultivars. ``elbo_scorer`` makes a GridSearchCV choose by
# ``elbo_``; the one "split" trains on all rows and tests on all rows, because nothing
# is held out. The steps in front are the same for all candidates, as they must be: a
# density of other columns is not comparable. The covariance type is chosen along with
# the number of components.

wine = load_wine()
everything = np.arange(len(wine.data))
pipeline = make_pipeline(
    StandardScaler(),
    PCA(2),
    VariationalGaussianMixture(random_state=0),
)
prefix = "variationalgaussianmixture__"
types = ["full", "tied", "diag", "spherical"]
numbers = np.arange(1, 6 if args.quick else 7)
grid = {f"{prefix}covariance_type": types, f"{prefix}n_components": numbers}
search = GridSearchCV(
    pipeline, grid, scoring=elbo_scorer, cv=[(everything, everything)]
).fit(wine.data)

table = search.cv_results_["mean_test_score"].reshape(len(types), len(numbers))
print("\nWINE, two principal components: elbo_\n")
print(f"{'':<10}" + "".join(f"{k:9d}" for k in numbers))
for name, row in zip(types, table):
    print(f"{name:<10}" + "".join(f"{value:9.1f}" for value in row))

model = search.best_estimator_[-1]
agreement = adjusted_rand_score(wine.target, search.predict(wine.data))
print(
    f"\nchosen: {model.n_components} components, {model.covariance_type}; adjusted "
    f"Rand index with the cultivars {agreement:.2f}"
)

# %%
# The cultivars were not shown to the fit. Cross-validation, with three times as many
# fits, says that two are too few, and little about more than three.

search_cv = GridSearchCV(
    pipeline,
    {**grid, f"{prefix}covariance_type": ["full"]},
    cv=folds,
).fit(wine.data)
by_density = search_cv.cv_results_["mean_test_score"]
print("\nheld-out log density a row, full:", by_density.round(3))

# %%
# What neither can do
# -------------------
# Both count Gaussians, not species. A cultivar with a skew distribution takes two
# Gaussians, and two species whose measurements overlap take one: for the three species
# of iris ``elbo_`` asks for two components, as BIC does.

iris = load_iris().data
flowers = GridSearchCV(
    VariationalGaussianMixture(random_state=0),
    {"n_components": [1, 2, 3, 4]},
    scoring=elbo_scorer,
    cv=[(np.arange(150), np.arange(150))],
).fit(iris)
print(
    "\nIRIS elbo_, 1 to 4 components:", flowers.cv_results_["mean_test_score"].round(1)
)

# %%
# The picture
# -----------


def ellipse(mean, covariance, mass=0.9):
    """Points on the contour of a Gaussian that holds ``mass``."""
    angle = np.linspace(0.0, 2.0 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    radius = np.sqrt(chi2.ppf(mass, df=2))
    return mean[:, None] + radius * np.linalg.cholesky(covariance) @ circle


if plt is not None:
    blue, orange, green, grey = "#0072B2", "#D55E00", "#009E73", "0.55"
    fig, axes = plt.subplots(2, 2, figsize=(10, 8), layout="constrained")

    ax = axes[0, 0]
    ax.axvline(4, color="0.85", lw=6, zorder=0)
    for values, color, marker, label in (
        (elbo, blue, "o", "elbo_"),
        (held_out * len(X), orange, "s", "held-out density, all rows"),
        (peer, grey, "^", "sklearn lower_bound_"),
    ):
        ax.plot(candidates, values - values.max(), marker + "-", color=color)
        ax.plot([], [], marker + "-", color=color, label=label)
    ax.set_ylim(-60.0, 4.0)
    ax.set_xlabel("number of components")
    ax.set_ylabel("nats below the highest")
    ax.set_title("One data set, true number 4")
    ax.legend(fontsize="small", loc="lower right")

    ax = axes[0, 1]
    for shift, name, row, color in zip(
        (-0.27, 0.0, 0.27), names, counts, (blue, orange, grey)
    ):
        ax.bar(candidates + shift, row, 0.25, color=color, label=name)
    ax.set_xticks(candidates)
    ax.set_xlabel("number chosen")
    ax.set_ylabel("data sets")
    ax.yaxis.get_major_locator().set_params(integer=True)
    ax.set_title(f"{n_sets} data sets, true number 4")
    ax.legend(fontsize="small", loc="upper left")

    ax = axes[1, 0]
    for name, row, marker, color in zip(
        types, table, "os^v", (blue, orange, green, grey)
    ):
        ax.plot(numbers, row, marker + "-", color=color, label=name)
    ax.set_ylim(table.max() - 90.0, table.max() + 8.0)
    ax.set_xticks(numbers)
    ax.set_xlabel("number of components")
    ax.set_ylabel("elbo_ (nats)")
    ax.set_title("Wine, number and covariance type")
    ax.legend(fontsize="small", loc="lower right")

    ax = axes[1, 1]
    points = search.best_estimator_[:-1].transform(wine.data)
    for target, color, marker in zip(range(3), (blue, orange, green), "osv"):
        which = wine.target == target
        ax.plot(
            *points[which].T,
            marker,
            color=color,
            ms=4,
            alpha=0.8,
            label=f"cultivar {target + 1}",
        )
    for mean, covariance in zip(model.means_, model.covariances_):
        ax.plot(*ellipse(mean, covariance), color="0.2", lw=1.3)
    ax.set_xlabel("first principal component")
    ax.set_ylabel("second principal component")
    ax.set_title(f"Wine, the {model.n_components} components chosen")
    ax.legend(fontsize="small", loc="lower left")

    if "sphinx_gallery" not in sys.modules:
        args.output.mkdir(parents=True, exist_ok=True)
        fig.savefig(args.output / "how_many_components.png", dpi=120)
        print(f"\npicture: {args.output / 'how_many_components.png'}")
