"""
Counts with exposure
====================

A group of policies with ten times as many holders files ten times as many claims. What
one wants to know is the rate: claims per holder, of which kinds of holders, and how
sure that is where holders are few. ``VariationalGLMRegressor`` takes the number of
holders as ``exposure``, the name of a column of X,

.. math::

    \\text{claims}_i \\sim \\mathrm{Poisson}(\\text{holders}_i \\, e^{\\eta_i}),
    \\qquad \\eta_i = \\text{level} + z_i \\cdot w,

and as it is a column, it goes wherever rows go: through a Pipeline, into folds, to new
data. Rates come with a posterior, counts to come with predictive intervals. Two checks
ask whether counts are Poisson at all: the negative binomial beside it, and replicated
data.

The data are the claims of a British car insurer in 1973, 64 groups by district, engine
and age, read from ``counts/insurance.csv.gz`` in the folder that the environment
variable ``SKVI_DATA`` names. Without it the page runs on simulated claims of the same
form, and remarks about numbers hold for the insurer's only. It needs pandas.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import gamma
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from skvi import VariationalGLMRegressor, unwrap
from skvi.metrics import elbo_scorer, log_predictive_density_scorer

try:
    import matplotlib.pyplot as plt
except ImportError:
    plt = None

parser = argparse.ArgumentParser(description="A regression of counts with exposure.")
parser.add_argument("--quick", action="store_true", help="fewer draws and folds")
parser.add_argument(
    "--output", type=Path, default=Path(), help="folder for the picture"
)
args, _ = parser.parse_known_args()  # a notebook passes arguments of its own

DATA = os.environ.get("SKVI_DATA")
n_draws = 1000 if args.quick else 4000
engines, ages = ["<1l", "1-1.5l", "1.5-2l", ">2l"], ["<25", "25-29", "30-35", ">35"]


def simulated():
    """Claims of the same form: every group once, and rates that multiply."""
    rng = np.random.default_rng(0)
    levels = {"District": range(1, 5), "Group": engines, "Age": ages}
    table = pd.MultiIndex.from_product(levels.values(), names=levels).to_frame(False)
    d, g, a = (table[name].factorize()[0] for name in levels)
    size = np.array([3.0, 4.0, 3.4, 2.0])[g] + np.array([0.0, 0.6, 0.8, 2.5])[a]
    table["Holders"] = np.ceil(np.exp(size + 1.9 - 0.5 * d)).astype(int)
    log_rate = -1.6 + np.array([0, 0, 0, 0.2])[d] + 0.18 * g - 0.18 * a
    table["Claims"] = rng.poisson(table["Holders"] * np.exp(log_rate))
    return table


if DATA is not None:
    claims = pd.read_csv(Path(DATA) / "counts" / "insurance.csv.gz")
else:
    print("SKVI_DATA is not set: these are simulated claims\n")
    claims = simulated()
X, y = claims.drop(columns="Claims"), claims["Claims"].to_numpy()
print(claims.describe().loc[["min", "50%", "max"], ["Holders", "Claims"]])

# %%
# A pipeline that lets the exposure through
# -----------------------------------------
# Each kind of district, engine and age becomes a column; none has to be left out, since
# the prior shrinks all alike. ``Holders`` is passed through, and with
# ``set_output("pandas")`` it still has its name when it arrives.

encoder = ColumnTransformer(
    [
        ("kinds", OneHotEncoder(sparse_output=False), ["District", "Group", "Age"]),
        ("holders", "passthrough", ["Holders"]),
    ],
    verbose_feature_names_out=False,
).set_output(transform="pandas")
pipeline = Pipeline(
    [("encode", encoder), ("model", VariationalGLMRegressor(exposure="Holders"))]
).fit(X, y)
model, Z = unwrap(pipeline, X)
print(f"\ncolumns of the model: {', '.join(Z.columns)}\n")

# %%
# Weights are logarithms of factors. What two kinds of holders differ by is a contrast,
# and its interval, taken to the exponential, that of the ratio of their rates.

contrasts = {
    "under 25 / over 35": {"Age_<25": 1, "Age_>35": -1},
    "over 2 l / under 1 l": {"Group_>2l": 1, "Group_<1l": -1},
    "district 4 / district 1": {"District_4": 1, "District_1": -1},
    "district 2 / district 1": {"District_2": 1, "District_1": -1},
}
table = model.summary(confidence_level=0.9, contrasts=contrasts)
print(table)
table = table.to_pandas()
print("\nRATIOS OF RATES with 90 % intervals\n")
for name, row in table.iterrows():
    low, mid, high = np.exp(row[["lower", "mean", "upper"]].astype(float))
    print(f"{name:<26}{mid:6.2f}   {low:.2f} to {high:.2f}")

# %%
# Columns of one factor add up to one, so their weights trade against each other.
# Independent weights (``posterior="mean_field"``) do not know that and are too sure of
# each by itself. Differences within a factor, which the data determine, they get right.

apart = VariationalGLMRegressor(exposure="Holders", posterior="mean_field").fit(Z, y)
print(f"\nbound: structured {model.elbo_:.2f}, mean_field {apart.elbo_:.2f}")
ratio = apart.coef_std_ / model.coef_std_
print(f"sds of mean_field, as a share of structured: {ratio.min():.2f} at the least")
apart_table = apart.summary(confidence_level=0.9, contrasts=contrasts).to_pandas()

# %%
# Rates, where holders are many and where they are few
# ----------------------------------------------------
# ``predict`` gives claims to expect of so many holders. The rate itself is uncertain
# through the weights only: draws of them, put through the exponential, are draws of
# rates. Beside them, what each group by itself would say (an exact interval of a
# Poisson rate). The model lends the small groups what it knows of their engine, age and
# district from all others.

features = Z.drop(columns="Holders").to_numpy(float)
holders = X["Holders"].to_numpy(float)


def rates(fit, features, n_draws):
    """Draws of claims per holder, rows by draws."""
    draws = fit.sample_posterior(n_samples=n_draws, random_state=0)
    return np.exp(features @ draws["coef"].T + draws["intercept"])


drawn = rates(model, features, n_draws)
rate_low, rate_high = np.quantile(drawn, [0.05, 0.95], axis=1)
alone_low = gamma.ppf(0.05, y) / holders
alone_low[y == 0] = 0.0
alone_high = gamma.ppf(0.95, y + 1) / holders
order = np.argsort(holders)
print("\nCLAIMS PER HOLDER, 90 % intervals\n")
print(
    f"{'district':<9}{'engine':<8}{'age':<7}{'holders':>8}{'claims':>8}"
    f"{'by itself':>19}{'the model':>19}"
)
for i in (*order[:4], *order[-4:]):
    row = claims.iloc[i]
    alone = f"{alone_low[i]:.3f} to {alone_high[i]:.3f}"
    pooled = f"{rate_low[i]:.3f} to {rate_high[i]:.3f}"
    print(
        f"{row.District:<9}{row.Group:<8}{row.Age:<7}{row.Holders:>8}{row.Claims:>8}"
        f"{alone:>19}{pooled:>19}"
    )

# %%
# Claims to come
# --------------
# ``predict_interval`` adds the chance of the counts to the uncertainty of rates. To see
# whether it can be trusted, each group is predicted by a fit that has not seen it. The
# same group with twice as many holders has its own interval: change the column.

folds = KFold(8, shuffle=True, random_state=0)
ends, expected = np.empty((len(y), 2)), np.empty(len(y))
for train, test in folds.split(X):
    pipeline.fit(X.iloc[train], y[train])
    expected[test] = pipeline.predict(X.iloc[test])
    last, Z_test = unwrap(pipeline, X.iloc[test])
    ends[test] = last.predict_interval(Z_test, confidence_level=0.9)
inside = (ends[:, 0] <= y) & (y <= ends[:, 1])
print(f"\n90 % intervals hold {inside.sum()} of {len(y)} held-out groups")

pipeline.fit(X, y)
mean, std = pipeline.predict(X.iloc[:1], return_std=True)
twice = X.iloc[:1].assign(Holders=2 * X["Holders"].iloc[0])
print(f"the first group: {mean[0]:.1f} +- {std[0]:.1f} claims,", end=" ")
mean, std = pipeline.predict(twice, return_std=True)
print(f"with twice the holders {mean[0]:.1f} +- {std[0]:.1f}")

# %%
# Poisson, or more dispersed?
# ---------------------------
# A Poisson count varies no more than its mean. Counts often vary more, because rows
# differ in what the columns do not say; the negative binomial has a number for that,
# its variance is the mean plus ``dispersion`` times the mean squared. Two judges: the
# bound, and the density of held-out groups. Both are asked twice, with all columns and
# without the age of the holders.

families = {"model__family": ["poisson", "negative_binomial"]}
everything = np.arange(len(y))
n_repeats = 1 if args.quick else 5
repeats = [
    split
    for seed in range(n_repeats)
    for split in KFold(8, shuffle=True, random_state=seed).split(X)
]
kinds = {
    "all columns": ["District", "Group", "Age"],
    "without age": ["District", "Group"],
}
print(f"\n{'':<14}{'family':<20}{'elbo':>9}{'held-out density':>18}{'dispersion':>12}")
found = {}
for name, columns in kinds.items():
    candidate = pipeline.set_params(
        encode__transformers=[
            ("kinds", OneHotEncoder(sparse_output=False), columns),
            ("holders", "passthrough", ["Holders"]),
        ]
    )
    by_density = GridSearchCV(
        candidate, families, scoring=log_predictive_density_scorer, cv=repeats
    ).fit(X, y)
    by_elbo = GridSearchCV(
        candidate, families, scoring=elbo_scorer, cv=[(everything, everything)]
    ).fit(X, y)
    for k, family in enumerate(families["model__family"]):
        fit = clone(candidate).set_params(model__family=family).fit(X, y)
        found[name, family] = unwrap(fit, X)
        last = found[name, family][0]
        dispersion = "" if family == "poisson" else f"{last.dispersion_:.4f}"
        print(
            f"{name:<14}{family:<20}{by_elbo.cv_results_['mean_test_score'][k]:9.2f}"
            f"{by_density.cv_results_['mean_test_score'][k]:18.3f}{dispersion:>12}"
        )

# %%
# With all columns the Poisson is enough: the negative binomial sends its dispersion
# towards zero and pays for having it. Without the age, groups differ by more than
# chance, and both judges want the dispersion.
#
# Do replicated data look like the data?
# --------------------------------------
# ``sample_y`` draws whole sets of claims: weights from the posterior, then counts. Of
# each set, and of the data, we take how much groups differ: the squared distances from
# the claims that one rate for all would make, in units of the Poisson variance. A model
# that is right puts the data among its replicates.


def spread(counts):
    """How much rates differ between groups; 1 for counts of one rate."""
    even = holders[:, None] * counts.sum(axis=0) / holders.sum()
    return np.mean((counts - even) ** 2 / even, axis=0)


observed, checks = spread(y[:, None])[0], {}
print(f"\nPOSTERIOR PREDICTIVE CHECK: groups differ by {observed:.2f} in the data\n")
for (name, family), (last, rows) in found.items():
    replicated = last.sample_y(rows, n_samples=n_draws, random_state=0)
    checks[name, family] = values = spread(replicated)
    low, high = np.quantile(values, [0.05, 0.95])
    share = np.mean(values >= observed)
    print(
        f"{name:<14}{family:<20}replicates {low:5.2f} to {high:5.2f}   "
        f"P(replicate is larger) {share:.3f}"
    )

# %%
# The picture
# -----------

if plt is not None:
    blue, orange, green = "#0072B2", "#D55E00", "#009E73"
    fig, axes = plt.subplots(2, 2, figsize=(12, 9), layout="constrained")

    # Districts apart, the small ones where raw rates say least
    ax = axes[0, 0]
    place, ticks = 0.0, []
    for engine in engines:
        ticks.append(place + 1.5)
        for age in ages:
            same = (claims["Group"] == engine) & (claims["Age"] == age)
            for i in np.flatnonzero(same & (claims["District"] == 4)):
                label = place == 0.0
                ax.plot([place - 0.16] * 2, [alone_low[i], alone_high[i]], color="0.6")
                ax.plot(
                    place - 0.16,
                    y[i] / holders[i],
                    "o",
                    color="0.4",
                    ms=2.0 + 0.35 * np.sqrt(holders[i]),
                    label="claims / holders, by itself" if label else None,
                )
                ax.plot(
                    [place + 0.2] * 2,
                    [rate_low[i], rate_high[i]],
                    color=blue,
                    lw=5,
                    alpha=0.5,
                )
                ax.plot(
                    place + 0.2,
                    drawn[i].mean(),
                    "o",
                    color=blue,
                    ms=5,
                    label="the model" if label else None,
                )
            place += 1.0
        place += 0.8
    ax.set_xticks(ticks, [f"{engine}" for engine in engines])
    ax.set_xlabel("engine; in each, age from under 25 to over 35")
    ax.set_ylabel("claims per holder")
    ax.set_ylim(0.0, 0.6)
    ax.set_title("Rates of district 4, 90 % intervals")
    ax.legend(fontsize="small", loc="upper left")

    ax = axes[0, 1]
    for state, color in ((inside, blue), (~inside, orange)):
        text = "inside" if color == blue else "outside"
        relative = ends[state] / expected[state, None]
        ax.vlines(holders[state], *relative.T, color=color, lw=3, alpha=0.35)
        seen = y[state] / expected[state]
        ax.plot(holders[state], seen, "o", color=color, ms=4, label=f"observed, {text}")
    ax.axhline(1.0, color="0.4", lw=1)
    ax.set_xscale("log")
    ax.set_ylim(-0.05, 3.6)
    ax.set_xlabel("holders")
    ax.set_ylabel("claims / expected claims")
    ax.set_title(f"Held-out groups: 90 % intervals hold {inside.sum()} of {len(y)}")
    ax.legend(fontsize="small", loc="upper right")

    ax = axes[1, 0]
    for k, name in enumerate(contrasts):
        for shift, rows, color, label in (
            (0.12, table, blue, "structured"),
            (-0.12, apart_table, orange, "mean_field"),
        ):
            low, mid, high = np.exp(
                rows.loc[name, ["lower", "mean", "upper"]].astype(float)
            )
            at = len(contrasts) - k + shift
            ax.plot([low, high], [at, at], color=color, lw=5, alpha=0.45)
            ax.plot(mid, at, "o", color=color, label=label if k == 0 else None)
    ax.axvline(1.0, color="0.4", lw=1)
    ax.set_yticks(range(len(contrasts), 0, -1), list(contrasts))
    ax.set_xscale("log")
    ax.set_xticks([0.8, 1, 1.25, 1.5, 2], ["0.8", "1", "1.25", "1.5", "2"])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("ratio of rates")
    ax.set_title("Whose rates are higher, 90 % intervals")
    ax.legend(fontsize="small", loc="lower right")

    ax = axes[1, 1]
    shown = {
        ("all columns", "poisson"): blue,
        ("without age", "poisson"): orange,
        ("without age", "negative_binomial"): green,
    }
    most = max(np.quantile(checks[key], 0.995) for key in shown)
    for key, color in shown.items():
        label = ", ".join(key).replace("_", " ")
        bins = np.linspace(0.0, most, 50)
        ax.hist(checks[key], bins, density=True, color=color, alpha=0.45, label=label)
    ax.axvline(observed, color="0.1", lw=2, label="the data")
    ax.set_xlim(0.0, None)
    ax.set_yticks([])
    ax.set_xlabel("how much rates of groups differ, replicates and data")
    ax.set_title("Are the counts Poisson?")
    ax.legend(fontsize="small")

    if "sphinx_gallery" not in sys.modules:
        args.output.mkdir(parents=True, exist_ok=True)
        fig.savefig(args.output / "counts_with_exposure.png", dpi=120)
        print(f"\npicture: {args.output / 'counts_with_exposure.png'}")
