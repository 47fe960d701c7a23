"""
Uncertainty through pipelines, searches and target transforms
=============================================================

skvi's estimators are ordinary scikit-learn estimators, so they are scaled, expanded,
searched and cross-validated like any other. This page shows that their uncertainty
comes along: model selection by predictive density and by ELBO, and predictive quantiles
that survive a Pipeline, a GridSearchCV and a TransformedTargetRegressor.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from skvi import VariationalBayesianRegression, unwrap
from skvi.metrics import elbo_scorer, log_predictive_density_scorer

try:
    import matplotlib.pyplot as plt
except ImportError:
    plt = None

parser = argparse.ArgumentParser(description="Predictive uncertainty in scikit-learn.")
parser.add_argument("--quick", action="store_true", help="fewer outer folds")
parser.add_argument(
    "--output", type=Path, default=Path(), help="folder for the picture"
)
args, _ = parser.parse_known_args()  # a notebook passes arguments of its own
n_folds, n_outer = 5, 2 if args.quick else 3

# %%
# A pipeline, searched by predictive density
# ------------------------------------------
# Which polynomial degree, prior and posterior predict best? The mean squared error
# would look at the means alone. The log predictive density of held-out rows judges the
# whole distribution, its width included.

X, y = load_diabetes(return_X_y=True, scaled=False)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)

pipeline = Pipeline(
    [
        ("scale", StandardScaler()),
        ("expand", PolynomialFeatures(include_bias=False)),
        ("model", VariationalBayesianRegression()),
    ]
)
grid = {
    "expand__degree": [1, 2],
    "model__prior": ["ridge", "ard"],
    "model__posterior": ["structured", "mean_field"],
}
by_density = GridSearchCV(
    pipeline, grid, scoring=log_predictive_density_scorer, cv=n_folds
).fit(X_train, y_train)

# %%
# Searched by ELBO
# ----------------
# The ELBO needs no held-out rows: every candidate is fitted once, to all of the
# training rows, and scored on that fit. A search does this when its only "split" trains
# and tests on everything.

everything = np.arange(len(y_train))
all_rows = [(everything, everything)]
by_elbo = GridSearchCV(pipeline, grid, scoring=elbo_scorer, cv=all_rows)
by_elbo.fit(X_train, y_train)

found = by_density.cv_results_
by_fold = np.stack([found[f"split{k}_test_score"] for k in range(n_folds)], axis=1)
deficit = by_fold - by_fold[by_density.best_index_]
error = deficit.std(axis=1, ddof=1) / np.sqrt(n_folds)
print(
    "Held-out density in nats a row, and its difference from the best; ELBO in nats\n"
)
print(
    f"{'degree':<8}{'prior':<7}{'posterior':<12}{'density':>9}{'difference':>20}"
    f"{'elbo':>11}"
)
for k, candidate in enumerate(found["params"]):
    print(
        f"{candidate['expand__degree']:<8}{candidate['model__prior']:<7}"
        f"{candidate['model__posterior']:<12}{by_fold[k].mean():9.3f}"
        f"{deficit[k].mean():10.4f} +- {error[k]:.4f}"
        f"{by_elbo.cv_results_['mean_test_score'][k]:11.2f}"
    )
print("\nchosen by density:", by_density.best_params_)
print("chosen by elbo:   ", by_elbo.best_params_)

# %%
# The two degrees predict held-out rows equally well, as far as five folds can tell: the
# best of each differ by a small part of the standard error. The ELBO prefers degree 1
# by 16 nats: the 55 extra columns of degree 2 cost more evidence than they earn.
# Mean-field falls 3 nats short of the structured posterior at degree 1 and 19 at degree
# 2, where more columns correlate. On rows that neither search has seen:

test_scores = {}
print()
for label, search in (("density", by_density), ("elbo", by_elbo)):
    last, Z_test = unwrap(search, X_test)
    test_scores[label] = last.log_predictive_density(Z_test, y_test)
    print(f"test density, chosen by {label:<9}{test_scores[label].mean():.3f}")
difference = test_scores["elbo"] - test_scores["density"]
error = difference.std(ddof=1) / np.sqrt(len(y_test))
print(f"difference                       {difference.mean():.3f} +- {error:.3f}")

# %%
# A lead of one and a half standard errors for the ELBO's choice.
#
# A whole search can be cross-validated in turn, which tells the density to expect on
# new rows with the choosing included.

scores = cross_val_score(
    by_density, X_train, y_train, scoring=log_predictive_density_scorer, cv=n_outer
)
print(f"\nnested cross-validation: {scores.mean():.3f} (folds {scores.round(3)})")

# %%
# Quantiles through a Pipeline and a search
# -----------------------------------------
# A Pipeline hands the arguments of ``predict`` to its last step, so ``quantiles`` just
# works. A search takes X alone; ask its ``best_estimator_``, or let :func:`skvi.unwrap`
# open whatever it is given, down to the last estimator and the rows that this one sees.
# That reaches everything else too: intervals, draws, summaries.

levels = [0.05, 0.5, 0.95]
chosen = by_elbo.best_estimator_
quantiles = chosen.predict(X_test, quantiles=levels)

model, Z_test = unwrap(by_elbo, X_test)
np.testing.assert_allclose(model.predict(Z_test, quantiles=levels), quantiles)
interval = model.predict_interval(Z_test, confidence_level=0.9)
np.testing.assert_allclose(interval, quantiles[:, [0, 2]])
print(f"\nunwrapped: {model}, rows {Z_test.shape}")


def coverage(ends):
    """Share of the test rows between the lower and the upper quantile."""
    return np.mean((ends[:, 0] <= y_test) & (y_test <= ends[:, -1]))


print(f"90 % intervals hold {coverage(quantiles):.1%} of the test rows")
print(f"lowest 5 % quantile: {quantiles.min():.1f}")

# %%
# A positive target
# -----------------
# Progression cannot be negative, which those intervals do not know. Regress its
# logarithm, then: TransformedTargetRegressor fits log y and takes predictions back by
# the exponential. A standard deviation cannot be taken back like that; quantiles can,
# because a monotone function maps the quantiles of one law to those of the other.

log_target = TransformedTargetRegressor(chosen, func=np.log, inverse_func=np.exp)
log_target.fit(X_train, y_train)
log_quantiles = log_target.predict(X_test, quantiles=levels)

inner, Z_test = unwrap(log_target, X_test)
np.testing.assert_allclose(
    log_quantiles, np.exp(inner.predict(Z_test, quantiles=levels)), rtol=1e-12
)
print("\nquantiles of y are the exponentials of those of log y")
print(f"90 % intervals hold {coverage(log_quantiles):.1%} of the test rows")
print(f"lowest 5 % quantile: {log_quantiles.min():.1f}")

# %%
# Which target describes y best?
# ------------------------------
# Both scorers look through the transform and add the logarithm of its derivative. So
# they speak of y itself, whatever the regression is of, and compare fairly.

targets = {"y": (None, None), "sqrt y": (np.sqrt, np.square), "log y": (np.log, np.exp)}
print(
    f"\n{'target':<9}{'held-out density':>17}{'elbo':>11}{'90 % coverage':>15}"
    f"{'lowest 5 % quantile':>21}"
)
predicted, elbos = {}, {}
for label, (func, inverse_func) in targets.items():
    regressor = TransformedTargetRegressor(chosen, func=func, inverse_func=inverse_func)
    scores = cross_val_score(
        regressor, X_train, y_train, scoring=log_predictive_density_scorer, cv=n_folds
    )
    regressor.fit(X_train, y_train)
    elbos[label] = elbo_scorer(regressor, X_train, y_train)
    predicted[label] = regressor.predict(X_test, quantiles=levels)
    print(
        f"{label:<9}{scores.mean():17.3f}{elbos[label]:11.2f}"
        f"{coverage(predicted[label]):15.1%}{predicted[label].min():21.1f}"
    )

# %%
# The square root wins by more than 13 nats, and the held-out rows agree; the logarithm
# overdoes it. (Squaring is monotone for positive roots only. The quantiles that it
# takes back here are all positive.)
#
# The picture
# -----------

if plt is not None:
    blue, orange = "#0072B2", "#D55E00"
    fig, axes = plt.subplots(1, 3, figsize=(11, 4.2), sharey=True, layout="constrained")
    order = np.argsort(predicted["y"][:, 1])
    rank = np.arange(len(order))
    for ax, (label, ends) in zip(axes, predicted.items()):
        low, median, high = ends[order].T
        observed = y_test[order]
        out = (observed < low) | (high < observed)
        ax.fill_between(
            rank, low, high, color=blue, alpha=0.2, lw=0, label="5 % to 95 %"
        )
        ax.plot(rank, median, color=blue, label="median")
        ax.plot(rank[~out], observed[~out], ".", color="0.25", label="observed, inside")
        ax.plot(
            rank[out],
            observed[out],
            "X",
            color=orange,
            mec="white",
            ms=8,
            label="observed, outside",
        )
        ax.axhline(0.0, color="0.45", lw=1)
        ax.set_title(f"regression of {label}, elbo {elbos[label]:.1f}")
        ax.set_xlabel("test patient, by prediction")
    axes[0].set_ylabel("progression")
    axes[0].legend(fontsize="small", loc="upper left")

    if "sphinx_gallery" not in sys.modules:
        args.output.mkdir(parents=True, exist_ok=True)
        fig.savefig(args.output / "pipeline_uncertainty.png", dpi=120)
        print(f"picture: {args.output / 'pipeline_uncertainty.png'}")
