"""
How sure is a classifier, and where?
====================================

Logistic regression finds a border between two classes, and far from the border it is
sure of the class, however far the rows are that it has seen. But a border that few rows
have drawn may run differently, and the further out, the more that matters.
``VariationalLogisticClassifier`` keeps a posterior of the weights, and its
``predict_proba`` averages the probability over it.

This page draws both, for straight and for curved borders, and shows what becomes of a
posterior that takes weights to be independent, what happens when a border separates the
classes perfectly, and what the average is worth in log loss on rows that were held out.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.special import expit
from scipy.stats import norm
from sklearn.datasets import load_breast_cancer, load_diabetes, make_moons
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from skvi import VariationalLogisticClassifier

try:
    import matplotlib.pyplot as plt
except ImportError:
    plt = None

parser = argparse.ArgumentParser(description="The posterior of a classifier.")
parser.add_argument("--quick", action="store_true", help="fewer repetitions")
parser.add_argument(
    "--output", type=Path, default=Path(), help="folder for the picture"
)
args, _ = parser.parse_known_args()  # a notebook passes arguments of its own

# %%
# Two columns that say nearly the same
# ------------------------------------
# Eighty rows; the class depends on the sum of two columns that go together. That sum
# varies much and its weight becomes known. The difference of the columns varies little,
# and whether it matters, and which way, these rows hardly tell.

rng = np.random.default_rng(1)
shared = rng.standard_normal((80, 1))
X = shared + 0.2 * rng.standard_normal((80, 2))
y = rng.random(80) < expit(1.2 * X.sum(axis=1))

model = VariationalLogisticClassifier().fit(X, y)
print(f"correlation of the columns: {np.corrcoef(X.T)[0, 1]:.2f}\n")
print(model.summary(contrasts={"x0": [1, 0], "x1": [0, 1]}))
print(model.summary(contrasts={"x0 + x1": [1, 1], "x0 - x1": [1, -1]}))

# %%
# Far from the data
# -----------------
# Four ways to a probability: scikit-learn's point estimate; the posterior mean put in
# as if it were known; and the average over the posterior, with correlations and
# without. We walk away from the middle of the data, along them and across.
#
# A point estimate becomes sure in every direction. The average cannot: at a great
# distance the probability is that of the border being on this side, P(w . d > 0) for
# the direction d, and says how well the direction is known. Along the data that is
# nearly one. Across it is not far from 1/2, which it is under the prior, to which the
# data have added little.

point = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
apart = VariationalLogisticClassifier(posterior="mean_field").fit(X, y)


def plug_in(model, X):
    """Probability with the posterior mean as if it were the truth."""
    return expit(X @ model.coef_[0] + model.intercept_[0])


ways = {
    "LogisticRegression": lambda X: point.predict_proba(X)[:, 1],
    "posterior mean, plugged in": lambda X: plug_in(model, X),
    "structured": lambda X: model.predict_proba(X)[:, 1],
    "mean_field": lambda X: apart.predict_proba(X)[:, 1],
}
directions = {"along": np.array([1.0, 1.0]), "across": np.array([-1.0, 1.0])}
centre, distances = X.mean(axis=0), np.array([0.0, 2.0, 5.0, 20.0, 1000.0])
print("\nPROBABILITY of the second class, by distance from the middle of the data")
for name, direction in directions.items():
    path = centre + distances[:, None] * direction / np.linalg.norm(direction)
    print(f"\n{name + ' the data':<28}" + "".join(f"{d:8.0f}" for d in distances))
    for way, probability in ways.items():
        print(f"{way:<28}" + "".join(f"{p:8.3f}" for p in probability(path)))
    slope = model.coef_[0] @ direction
    limit = norm.cdf(slope / np.sqrt(direction @ model.coef_covariance_ @ direction))
    print(f"{'P(w . d > 0), structured':<28}{limit:40.3f}")

# %%
# What mean field leaves out
# --------------------------
# The posterior of the two weights is a narrow ridge: their sum is known, their
# difference is not. Independent weights cannot say so. They are too sure of the
# difference, and a little unsure of the sum. Near the data both posteriors give the
# same probabilities; across the data, where only the difference counts, they do not.

print("\nSD OF WEIGHTS, and the bound\n")
print(f"{'':<12}{'x0':>8}{'x1':>8}{'x0 + x1':>10}{'x0 - x1':>10}{'elbo':>10}")
for name, fit in (("structured", model), ("mean_field", apart)):
    sd = [
        np.sqrt(np.array(c) @ fit.coef_covariance_ @ np.array(c))
        for c in ([1, 0], [0, 1], [1, 1], [1, -1])
    ]
    cells = f"{sd[0]:8.2f}{sd[1]:8.2f}{sd[2]:10.2f}{sd[3]:10.2f}"
    print(f"{name:<12}{cells}{fit.elbo_:10.2f}")

grid = np.linspace(-7.0, 7.0, 141)
plane = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
maps = {way: probability(plane) for way, probability in ways.items()}
difference = np.abs(maps["structured"] - maps["mean_field"])
at_rows = np.abs(ways["structured"](X) - ways["mean_field"](X))
worst = plane[np.argmax(difference)]
print(f"\nlargest difference at the rows: {at_rows.max():.3f}")
print(f"on the map: {difference.max():.3f}, at ({worst[0]:.1f}, {worst[1]:.1f})")

# %%
# Curved borders
# --------------
# The same with squares and the product of two columns as further columns, in a
# Pipeline. Borders bend; far away the squares decide, of which the data know least.

bent_X, bent_y = make_moons(100, noise=0.25, random_state=0)
bent_X = StandardScaler().fit_transform(bent_X)


def curved(classifier):
    """A pipeline that lets the border bend."""
    return make_pipeline(
        PolynomialFeatures(2, include_bias=False), StandardScaler(), classifier
    )


curves = {
    "LogisticRegression": curved(LogisticRegression()),
    "structured": curved(VariationalLogisticClassifier()),
    "mean_field": curved(VariationalLogisticClassifier(posterior="mean_field")),
}
curved_maps = {
    way: pipeline.fit(bent_X, bent_y).predict_proba(plane)[:, 1]
    for way, pipeline in curves.items()
}
squares = curves["structured"][:-1]
curved_maps["posterior mean, plugged in"] = plug_in(
    curves["structured"][-1], squares.transform(plane)
)
distance = np.linalg.norm(plane, axis=1)
far = distance > 6.0
print("\nSURE of a class to 99 % on the map, further than 6 from the middle\n")
print(f"{'':<28}{'straight':>10}{'curved':>10}")
for way in ways:
    shares = [np.mean(np.abs(m[way][far] - 0.5) > 0.49) for m in (maps, curved_maps)]
    print(f"{way:<28}{shares[0]:10.0%}{shares[1]:10.0%}")

# %%
# Perfect separation
# ------------------
# Ten rows, five of each class, and a gap between them. The likelihood is highest for a
# weight of infinity: an estimate without a penalty is whatever it was when the
# optimiser stopped. A posterior is not at a loss. Steep slopes fit well, but the prior
# has few of them, and any border in the gap fits. So the weight has a mean and an sd,
# and in the gap the probability goes up slowly.

gap_X = np.array([-2.0, -1.6, -1.1, -0.9, -0.5, 0.6, 0.8, 1.3, 1.5, 2.1])[:, None]
gap_y = gap_X[:, 0] > 0

print("\nPERFECT SEPARATION\n")
for tol in (1e-2, 1e-4, 1e-6, 1e-8):
    free = LogisticRegression(C=np.inf, tol=tol, max_iter=10_000).fit(gap_X, gap_y)
    print(f"no penalty, tol={tol:g}: weight {free.coef_[0, 0]:.1f}")
gap_model = VariationalLogisticClassifier().fit(gap_X, gap_y)
print(gap_model.summary())
draws = gap_model.sample_posterior(n_samples=4000, random_state=0)
borders = -draws["intercept"][:, 0] / draws["coef"][:, 0, 0]
low, high = np.quantile(borders, [0.05, 0.95])
print(f"the border: {low:.2f} to {high:.2f} with probability 0.9")

# %%
# What it is worth
# ----------------
# Log loss on held-out rows punishes those who were sure and wrong. Two data sets of
# medicine: is a tumour benign (thirty columns, and classes that a border nearly
# separates), and has diabetes progressed by more than the median (ten columns, and much
# chance)? Two ways to come by eighty training rows. Drawn at random they are like the
# rows to be predicted. Or they are the neighbours of one row, as the patients of one
# clinic may be alike, and the classifier is used on all others.


def at_random(X, y, size, rng):
    """Training rows, like the others."""
    return rng.permutation(len(y))[:size]


def alike(X, y, size, rng):
    """Training rows near to a row drawn at random, eight of each class at least."""
    Z = StandardScaler().fit_transform(X)
    while True:
        distance = np.linalg.norm(Z - Z[rng.integers(len(Z))], axis=1)
        rows = np.argsort(distance)[:size]
        if np.bincount(y[rows], minlength=2).min() >= 8:
            return rows


cancer, diabetes = load_breast_cancer(), load_diabetes()
above = (diabetes.target > np.median(diabetes.target)).astype(int)
searched = LogisticRegressionCV(
    Cs=10,
    l1_ratios=(0,),
    scoring="neg_log_loss",
    use_legacy_attributes=False,
    max_iter=1000,
)
candidates = {
    "LogisticRegression": make_pipeline(StandardScaler(), LogisticRegression()),
    "LogisticRegressionCV": make_pipeline(StandardScaler(), searched),
    "mean_field": VariationalLogisticClassifier(posterior="mean_field"),
    "structured": VariationalLogisticClassifier(),
}
names = [*list(candidates)[:2], "plugged in", *list(candidates)[2:]]
settings = {
    "cancer, at random": (cancer.data, cancer.target, at_random),
    "cancer, alike": (cancer.data, cancer.target, alike),
    "diabetes, at random": (diabetes.data, above, at_random),
    "diabetes, alike": (diabetes.data, above, alike),
}
n_splits = 5 if args.quick else 20
losses = {setting: {name: [] for name in names} for setting in settings}
for setting, (data, target, draw) in settings.items():
    rng = np.random.default_rng(0)
    for _ in range(n_splits):
        train = draw(data, target, 80, rng)
        test = np.setdiff1d(np.arange(len(target)), train)
        probabilities = {
            name: candidate.fit(data[train], target[train]).predict_proba(data[test])
            for name, candidate in candidates.items()
        }
        probabilities["plugged in"] = plug_in(candidates["structured"], data[test])
        for name, probability in probabilities.items():
            losses[setting][name].append(log_loss(target[test], probability))


def with_error(values):
    """Mean and its standard error."""
    return np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))


print(f"\nLOG LOSS of held-out rows, means of {n_splits} splits +- standard errors\n")
print(f"{'':<22}" + "".join(f"{setting:>21}" for setting in settings))
for name in names:
    cells = "".join(
        "{:12.3f} +- {:.3f}".format(*with_error(losses[setting][name])).rjust(21)
        for setting in settings
    )
    print(f"{name:<22}{cells}")

# %%
# Diabetes is what averaging is for: with training rows that are alike, the average is
# ahead of its own mean plugged in, and that of the searched penalty. On rows drawn at
# random the leads are the same way and smaller. Tumours are nearly separable, and with
# rows drawn at random the average is a little too modest: it allows for borders in
# thirty dimensions, where real tumours vary in a few, and the mean plugged in does
# better. There, too, independent weights cost the most, as many columns go together.
#
# The picture
# -----------

if plt is not None:
    colors = ["#D55E00", "#0072B2"]
    shade = plt.get_cmap("RdBu")
    fig = plt.figure(figsize=(12, 9), layout="constrained")
    panels = fig.subplot_mosaic(
        [[c for c in row for _ in range(3)] for row in ("ABCD", "EFGH")]
        + [list("IIIIJJJJKKKK")],
        height_ratios=[1, 1, 1.15],
    )
    rows_of = (("ABCD", X, y, maps), ("EFGH", bent_X, bent_y, curved_maps))
    for letters, rows, classes, drawn in rows_of:
        for letter, way in zip(letters, ways):
            ax = panels[letter]
            values = drawn[way].reshape(141, 141)
            image = ax.pcolormesh(
                grid, grid, values, cmap=shade, vmin=0, vmax=1, rasterized=True
            )
            ax.contour(grid, grid, values, [0.01, 0.99], colors="0.2", linewidths=0.8)
            for c in (0, 1):
                face = dict(color=colors[c], mec="white", mew=0.4, ms=5)
                ax.plot(*rows[classes == c].T, "o", **face)
            ax.set_aspect("equal")
            ax.set_xlim(-7, 7)
            ax.set_ylim(-7, 7)
            ax.set_xticks([-5, 0, 5] if letter in "EFGH" else [])
            ax.set_yticks([-5, 0, 5] if letter in "AE" else [])
            if letter in "ABCD":
                ax.set_title(way)
    panels["A"].set_ylabel("straight border")
    panels["E"].set_ylabel("curved border")
    bar = fig.colorbar(
        image,
        ax=[panels[c] for c in "ABCDEFGH"],
        ticks=[0.01, 0.5, 0.99],
        pad=0.01,
        aspect=40,
    )
    bar.ax.set_yticklabels(["1 %", "1/2", "99 %"])

    ax = panels["I"]
    steps = np.linspace(-12.0, 12.0, 241)
    path = centre + steps[:, None] * directions["across"] / np.sqrt(2.0)
    ax.axhline(0.5, color="0.8", lw=1)
    styles = ["0.45", "0.1", "#0072B2", "#E69F00"]
    for (way, probability), color in zip(ways.items(), styles):
        dashed = "--" if color.startswith("0") else "-"
        ax.plot(
            steps,
            probability(path),
            dashed,
            color=color,
            lw=2,
            label=way.split(", ")[-1],
        )
    across = (X - centre) @ directions["across"] / np.sqrt(2.0)
    ax.plot(across, np.full(len(X), 0.02), "|", color="0.3", ms=7)
    ax.set_xlabel("distance from the middle, across the data")
    ax.set_ylabel("probability")
    ax.set_ylim(0, 1)
    ax.set_title("Walking away from the data")
    ax.legend(fontsize="small", loc="upper right")

    ax = panels["J"]
    line = np.linspace(-3.0, 3.0, 201)[:, None]
    each = expit(line * draws["coef"][:, 0, 0] + draws["intercept"][:, 0])
    low, high = np.quantile(each, [0.05, 0.95], axis=1)
    ax.fill_between(line[:, 0], low, high, color=colors[1], alpha=0.2, lw=0)
    ax.plot(line, each[:, :25], color=colors[1], lw=0.4, alpha=0.5)
    ax.plot(
        line,
        gap_model.predict_proba(line)[:, 1],
        color=colors[1],
        lw=2,
        label="average",
    )
    ax.plot(
        line,
        free.predict_proba(line)[:, 1],
        "--",
        color="0.1",
        lw=1.5,
        label="no penalty",
    )
    for c in (0, 1):
        own = gap_X[gap_y == c, 0]
        ax.plot(own, np.full(len(own), c), "o", color=colors[c], ms=6, mec="white")
    ax.set_xlabel("x")
    ax.set_ylim(-0.06, 1.06)
    ax.set_title("Perfect separation")
    ax.legend(fontsize="small", loc="center left")

    # Differences of the same splits, in which what splits have in common cancels
    ax = panels["K"]
    shown = dict(zip(names, ("0.6", "0.45", "0.1", "#E69F00")))
    for row, (setting, found) in enumerate(losses.items()):
        for k, (name, color) in enumerate(shown.items()):
            lead, error = with_error(
                np.subtract(found[name], losses[setting]["structured"])
            )
            ax.errorbar(
                lead,
                -row - 0.15 * (k - 1.5),
                xerr=error,
                fmt="o",
                ms=5,
                color=color,
                label=name if row == 0 else None,
            )
    ax.axvline(0.0, color="#0072B2", lw=2, label="structured")
    ax.set_yticks([0, -1, -2, -3], [s.replace(", ", ",\n") for s in settings])
    ax.locator_params(axis="x", nbins=5)
    ax.set_xlabel("log loss of held-out rows, above structured's")
    ax.set_title("Right of the line: structured is better")
    ax.legend(fontsize="small")

    if "sphinx_gallery" not in sys.modules:
        args.output.mkdir(parents=True, exist_ok=True)
        fig.savefig(args.output / "classification_uncertainty.png", dpi=120)
        print(f"\npicture: {args.output / 'classification_uncertainty.png'}")
