"""
Partial pooling
===============

How much radon is there in the houses of a county? With 116 houses measured one looks at
those. With two it would be unwise to believe them, and as unwise to ignore them and
report the mean of the state. *Partial pooling* does neither: counties have intercepts
of their own, which come from one distribution, whose spread is learnt with the rest.
Each county is drawn towards the others as far as its own houses leave it uncertain.
``VariationalMixedEffectsRegressor`` does it with a column that says which county a row
is from, ``groups="county"``.

This page draws county intercepts without pooling and with it, asks which posterior to
trust (independent blocks, or one Gaussian for all effects) beside draws of the exact
one, scores all of it on rows and on whole groups that were held out, and ends with
slopes that differ from subject to subject.

The data are 919 houses of Minnesota's 85 counties and the reaction times of 18 people
who slept too little, ``mixed/radon.csv.gz`` and ``mixed/sleepstudy.csv.gz`` in the
folder that the environment variable ``SKVI_DATA`` names. Without it the page runs on
simulated data of the same shape, and remarks about numbers hold for the real data only.
It needs pandas.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import multivariate_normal
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from skvi import VariationalMixedEffectsRegressor
from skvi.metrics import log_predictive_density_scorer

try:
    import matplotlib.pyplot as plt
except ImportError:
    plt = None

parser = argparse.ArgumentParser(description="Partial pooling with mixed effects.")
parser.add_argument("--quick", action="store_true", help="fewer draws and folds")
parser.add_argument(
    "--output", type=Path, default=Path(), help="folder for the pictures"
)
args, _ = parser.parse_known_args()  # a notebook passes arguments of its own

DATA = os.environ.get("SKVI_DATA")
n_draws = 1000 if args.quick else 4000
n_folds = 5 if args.quick else 10
n_repeats = 1 if args.quick else 5


def simulated():
    """Stand-ins for both tables: a few large groups and many small ones; slopes."""
    rng = np.random.default_rng(0)
    sizes = np.ceil(np.exp(rng.normal(1.7, 1.0, 85))).astype(int)
    county = np.repeat(np.arange(85), sizes)
    uranium = rng.normal(-0.1, 0.4, 85)
    own = 1.5 + 0.7 * uranium + rng.normal(0.0, 0.15, 85)
    floor = (rng.random(len(county)) < 0.17).astype(int)
    houses = pd.DataFrame(
        {
            "floor": floor,
            "county": [f"COUNTY {k:02d}" for k in county],
            "log_radon": own[county] - 0.65 * floor + rng.normal(0, 0.73, len(county)),
            "log_uranium": uranium[county],
        }
    )
    subject, days = np.divmod(np.arange(180), 10)
    intercepts, slopes = rng.normal(251, 25, 18), rng.normal(10.5, 6, 18)
    times = intercepts[subject] + slopes[subject] * days + rng.normal(0, 26, 180)
    return houses, pd.DataFrame(
        {"Reaction": times, "Days": days, "Subject": 308 + subject}
    )


if DATA is not None:
    radon = pd.read_csv(Path(DATA) / "mixed" / "radon.csv.gz")
    sleep = pd.read_csv(Path(DATA) / "mixed" / "sleepstudy.csv.gz")
else:
    print("SKVI_DATA is not set: these are simulated houses and sleepers\n")
    radon, sleep = simulated()
log_radon = radon.pop("log_radon").to_numpy()
houses = radon["county"].value_counts().sort_index().to_numpy()
print(
    f"{len(radon)} houses in {len(houses)} counties, {houses.min()} to {houses.max()}"
)

# %%
# None, all, some
# ---------------
# All three are the same model, with another spread of the counties. Complete pooling
# has no counties: a spread of zero. No pooling fixes the spread at three times that of
# all houses, so that nothing holds a county's intercept but its own houses. (An inverse
# Wishart prior of a million degrees of freedom is a known variance.) Partial pooling
# learns it.


def candidates(group, slopes=None):
    """The three models; `group` is a column, which may have random slopes."""
    free = dict(groups=group, random_slopes=slopes)
    return {
        "no pooling": VariationalMixedEffectsRegressor(
            **free, sd_prior=("inverse_wishart", 3.0, 1e6)
        ),
        "complete pooling": VariationalMixedEffectsRegressor(),
        "partial pooling": VariationalMixedEffectsRegressor(**free),
    }


fits = {
    name: model.fit(
        radon[["floor"] if model.groups is None else ["floor", "county"]], log_radon
    )
    for name, model in candidates("county").items()
}
partial = fits["partial pooling"]
print(f"\n{partial.summary()}\n")
print(partial.variance_components_)


def county_intercepts(model):
    """Mean and 90 % interval of the log radon in a county's basements."""
    draws = model.sample_posterior(n_samples=n_draws, random_state=0)
    own = draws["intercept"][:, None] + draws["effects_county"][:, :, 0]
    mean = model.intercept_ + model.random_effects_["county"].mean[:, 0]
    return mean, *np.quantile(own, [0.05, 0.95], axis=0)


intercepts = {
    name: county_intercepts(fits[name]) for name in ("no pooling", "partial pooling")
}
everywhere = fits["complete pooling"].intercept_

# %%
# The table of random effects says how far each county differs from the rest, how sure
# that is, and its shrinkage: the posterior variance as a share of the variance among
# counties. It is one where a county's houses say nothing and zero where they say all.

effects = partial.random_effects_["county"]
by_size = np.argsort(houses, kind="stable")
print("\nCOUNTIES with the fewest houses, and with the most\n")
print(f"{'':<22}{'houses':>7}{'alone':>8}{'pooled':>8}{'sd':>7}{'shrinkage':>11}")
for g in (*by_size[:4], *by_size[-4:]):
    print(
        f"{effects.levels[g]:<22}{houses[g]:>7}{intercepts['no pooling'][0][g]:8.2f}"
        f"{intercepts['partial pooling'][0][g]:8.2f}{effects.sd[g, 0]:7.2f}"
        f"{effects.shrinkage[g, 0]:11.2f}"
    )

# %%
# What a column says of a county
# ------------------------------
# Soil is measured, too: its uranium, one number for each county. A column of that kind
# could not stand beside county dummies. Here it explains a part of what counties differ
# by, and what remains to the random effects is less. Counties are now drawn to a line
# instead of a mean. Same rows and target, so the bound says what it is worth.

model = VariationalMixedEffectsRegressor(groups="county").fit(radon, log_radon)
print(f"\n{'':<24}{'sd(county)':>11}{'elbo':>10}")
for name, fit in (("floor", partial), ("floor and uranium", model)):
    spread = fit.variance_components_.mean[0]
    print(f"{name:<24}{spread:11.2f}{fit.elbo_:10.1f}")
print(f"{'floor, no counties':<24}{'':>11}{fits['complete pooling'].elbo_:10.1f}")
print(f"\n{model.summary()}")

# %%
# Old and new counties
# --------------------
# ``predict`` knows the counties of the fit. A county that it has not seen is one more
# draw from the distribution of counties: its interval has their spread in it.
# ``include_random=False`` asks that of every row.

largest = effects.levels[by_size[-1]]
asked = pd.DataFrame({"floor": 0, "county": [largest, "a new one"], "log_uranium": 0.0})
print("\nA HOUSE of a known county, and of one that is new: mean, 90 % interval\n")
for (county, mean), (low, high) in zip(
    zip(asked["county"], model.predict(asked)),
    model.predict_interval(asked, confidence_level=0.9),
):
    print(f"{county:<22}{mean:6.2f}   {low:.2f} to {high:.2f}")
print()
for name, fit in (("with uranium", model), ("without", partial)):
    columns = asked[list(fit.feature_names_in_)]
    known, new = fit.predict(columns, return_std=True)[1]
    print(f"sd {name:<14}{known:.3f} in the known county, {new:.3f} in the new")

# %%
# Mean field and structured
# -------------------------
# The effects of counties and the intercept hang together: raise all counties and lower
# the intercept, and no house notices. ``posterior="structured"``, the default, is one
# Gaussian over all of them, with a sparse precision. ``"mean_field"`` gives each county
# and the fixed effects a Gaussian of their own, and takes the rest to be known when it
# says how sure one of them is. Means are nearly the same, sds are not.
#
# Neither knows that effects and their spread are uncertain together, and both are too
# sure of a spread, above all of a small one. ``posterior_covariance="linear_response"``
# repairs that; it makes a difference where groups are few, as in sleepstudy.
#
# Beside them stand draws of the exact posterior under the same priors, by NUTS (where
# the folder of data has them; else the structured fit with linear response takes their
# place). Those priors are on raw columns: a column of ones as the intercept and
# ``fit_intercept=False`` leave columns uncentred, and what is passed is converted.


def reference(name):
    """Posterior means and sds of a long run of NUTS, by parameter, or None."""
    path = Path(DATA or "") / "reference" / f"{name}.json"
    if DATA is None or not path.exists():
        return None
    stored = json.loads(path.read_text())
    return dict(zip(stored["parameters"], stored["sd"]))


def with_raw_priors(X, y, group, slopes, weight_sd, sd_scales, noise_scale):
    """Keywords that put half-normal priors on sds, in the units of the table."""
    root_mean_square = np.sqrt(np.mean(y**2))
    columns = X.drop(columns=group)
    scales = np.sqrt((columns**2).mean())
    by_effect = [sd_scales[0]] + [s * scales[c] for s, c in zip(sd_scales[1:], slopes)]
    return dict(
        groups=group,
        random_slopes=slopes or None,
        fit_intercept=False,
        weight_precision=(root_mean_square / (weight_sd * scales.to_numpy())) ** 2,
        sd_prior=("half_normal", [s / root_mean_square for s in by_effect]),
        noise_sd_prior=("half_normal", noise_scale / root_mean_square),
    )


KINDS = {
    "mean_field": dict(posterior="mean_field"),
    "structured": dict(),
    "with linear response": dict(posterior_covariance="linear_response"),
}
radon_ones = radon.assign(intercept=1.0)[
    ["intercept", "log_uranium", "floor", "county"]
]
sleep_ones = sleep.assign(intercept=1.0)[["intercept", "Days", "Subject"]]
reaction = sleep["Reaction"].to_numpy()
problems = {
    "radon": (
        radon_ones,
        log_radon,
        with_raw_priors(radon_ones, log_radon, "county", [], 10.0, [1.0], 1.0),
        {
            "intercept": ["mu_alpha"],
            "log_uranium": ["beta[0]"],
            "floor": ["beta[1]"],
            "sd(county)": ["sigma_alpha"],
            "sd(noise)": ["sigma_y"],
            "counties": [f"u[{g}]" for g in range(85)],
        },
    ),
    "sleepstudy": (
        sleep_ones,
        reaction,
        with_raw_priors(
            sleep_ones, reaction, "Subject", ["Days"], 1000.0, [50.0, 20.0], 50.0
        ),
        {
            "intercept": ["beta[0]"],
            "Days": ["beta[1]"],
            "sd(intercepts)": ["sd_intercept"],
            "sd(slopes)": ["sd_slope"],
            "sd(noise)": ["sigma"],
            "intercepts": [f"u[{2 * g}]" for g in range(18)],
            "slopes": [f"u[{2 * g + 1}]" for g in range(18)],
        },
    ),
}


def posterior_sds(fit, names):
    """Posterior sds of a fit, in the order of `names`: fixed, components, effects."""
    components = fit.variance_components_
    of_sds = [s for n, s in zip(components.names, components.sd) if n.startswith("sd(")]
    (factor,) = fit.levels_
    of_effects = list(fit.random_effects_[factor].sd.T)
    return dict(zip(names, [*fit.coef_std_, *of_sds, *of_effects]))


ratios = {}
for problem, (X, y, keywords, names) in problems.items():
    sds, bounds = {}, {}
    for kind, extra in KINDS.items():
        fit = VariationalMixedEffectsRegressor(**keywords, **extra).fit(X, y)
        sds[kind], bounds[kind] = posterior_sds(fit, names), fit.elbo_
    exact = reference(f"{problem}_lmm")
    base = "NUTS" if exact else "structured with linear response"
    print(f"\nSDS of {problem}, as a share of those of {base}\n")
    print(f"{'':<18}" + "".join(f"{kind:>22}" for kind in KINDS))
    for name, keys in names.items():
        truth = (
            np.array([exact[key] for key in keys])
            if exact
            else sds["with linear response"][name]
        )
        row = ""
        for kind in KINDS:
            share = np.atleast_1d(sds[kind][name] / truth)
            ratios[problem, name, kind] = share
            cell = f"{share.mean():.2f}"
            if len(share) > 1:
                cell = f"{share.min():.2f} to {share.max():.2f}"
            row += f"{cell:>22}"
        print(f"{name:<18}{row}")
    print(f"{'elbo':<18}" + "".join(f"{bounds[kind]:22.2f}" for kind in KINDS))

# %%
# The sd of counties, given their uranium, is what these data tell least about, and q by
# itself has a quarter of its uncertainty.
#
# What it is worth
# ----------------
# Groups are a column of X, so a Pipeline carries them through its transformers, and
# both kinds of folds make sense: rows held out ask about new houses in known counties,
# counties held out about new counties.

floors = ColumnTransformer(
    [("floor", OneHotEncoder(drop="if_binary", sparse_output=False), ["floor"])],
    remainder="passthrough",
    verbose_feature_names_out=False,
).set_output(transform="pandas")
pipeline = make_pipeline(floors, VariationalMixedEffectsRegressor(groups="county"))
print("\nLOG PREDICTIVE DENSITY of held-out houses, nats a house, by a Pipeline")
for name, folds in (
    ("houses held out", KFold(n_folds, shuffle=True, random_state=0)),
    ("counties held out", GroupKFold(n_folds, shuffle=True, random_state=0)),
):
    scores = cross_val_score(
        pipeline,
        radon,
        log_radon,
        groups=radon["county"] if isinstance(folds, GroupKFold) else None,
        scoring=log_predictive_density_scorer,
        cv=folds,
        error_score="raise",
    )
    print(f"{name:<20}{scores.mean():.3f}")

# %%
# Now beside the other two, with uranium and without. Rows held out are scored one by
# one. Of a group that is held out the rows are scored together, by the joint density of
# all of them: complete pooling expects them to differ from each other as rows of
# different groups do, while in truth they have something in common, whatever it is. No
# pooling has nothing to say of new groups. (If all rows of a county are in the fold,
# it is given the word of complete pooling.) Standard errors allow for rows of a group
# going together.


def one_by_one(model, X, y, labels):
    """Log predictive density of each row."""
    return model.log_predictive_density(X, y)


def together(model, X, y, labels):
    """Joint log density of the rows of each group, in equal shares."""
    out = np.empty(len(y))
    for label in np.unique(labels):
        rows = labels == label
        mean, covariance = model.predict(X[rows], return_cov=True)
        out[rows] = multivariate_normal(mean, covariance).logpdf(y[rows]) / rows.sum()
    return out


def densities(X, y, group, folds, score, slopes=None):
    """Log density of each row by a fit to other folds, for each model."""
    models = candidates(group, slopes)
    found = {name: np.empty(len(y)) for name in models}
    labels = X[group].to_numpy()
    for train, test in folds:
        for name, model in models.items():
            columns = X.drop(columns=group) if model.groups is None else X
            model.fit(columns.iloc[train], y[train])
            found[name][test] = score(model, columns.iloc[test], y[test], labels[test])
        unseen = test[~np.isin(labels[test], labels[train])]
        found["no pooling"][unseen] = found["complete pooling"][unseen]
    return found


settings = {
    "radon by floor": (radon[["floor", "county"]], log_radon, "county", None),
    "radon by floor and uranium": (radon, log_radon, "county", None),
    "sleepstudy": (sleep[["Days", "Subject"]], reaction, "Subject", "Days"),
}
leads = {}
shuffles = "one shuffle" if n_repeats == 1 else f"means of {n_repeats} shuffles"
print(f"\nABOVE COMPLETE POOLING, nats a row (standard error), {shuffles}\n")
print(f"{'':<46}{'no pooling':>18}{'partial pooling':>18}")
for setting, (X, y, group, slopes) in settings.items():
    for held_out, folder, score in (
        ("rows", KFold, one_by_one),
        ("groups", GroupKFold, together),
    ):
        gains = {"no pooling": 0.0, "partial pooling": 0.0}
        for seed in range(n_repeats):
            splitter = folder(n_folds, shuffle=True, random_state=seed)
            labels = X[group] if held_out == "groups" else None
            folds = splitter.split(X, y, labels)
            found = densities(X, y, group, folds, score, slopes)
            for name in gains:
                gain = found[name] - found["complete pooling"]
                gains[name] = gains[name] + gain / n_repeats
        row = f"{setting + ', ' + held_out + ' held out':<46}"
        for name, gain in gains.items():
            around = pd.Series(gain - gain.mean()).groupby(X[group].to_numpy()).sum()
            error = np.sqrt((around**2).sum()) / len(gain)
            leads[setting, held_out, name] = gain.mean(), error
            cell = f"{gain.mean():.3f} ({error:.3f})" if gain.any() else "-"
            row += f"{cell:>18}"
        print(row)

# %%
# Houses of known counties are better predicted than by either extreme, and so are those
# of a new county, together. With uranium there is little left that counties differ by,
# complete pooling is nearly right, and partial pooling finds that out; no pooling pays
# for 85 intercepts. People differ more than counties, and in slopes.
#
# Slopes that differ
# ------------------
# Reaction times grow with the days of little sleep, by more in some people than in
# others. ``random_slopes="Days"`` gives each subject a slope besides the intercept;
# both come from one bivariate distribution, whose correlation is learnt with the rest.

sleepers = VariationalMixedEffectsRegressor(groups="Subject", random_slopes="Days")
sleepers = sleepers.fit(sleep[["Days", "Subject"]], reaction)
alone = candidates("Subject", "Days")["no pooling"]
alone = alone.fit(sleep[["Days", "Subject"]], reaction)
print(f"\n{sleepers.summary()}\n")
print(f"{sleepers.variance_components_}\n")
print(sleepers.random_effects_.to_pandas().head(4).round(2))

# %%
# The pictures
# ------------

if plt is not None:
    blue, orange, green, grey = "#0072B2", "#D55E00", "#009E73", "0.45"
    fig, axes = plt.subplots(2, 2, figsize=(12, 9), layout="constrained")

    # Counties of the same size beside each other
    rng = np.random.default_rng(0)
    place = houses * np.exp(rng.uniform(-0.09, 0.09, len(houses)))
    for ax, name, color in (
        (axes[0, 0], "no pooling", orange),
        (axes[0, 1], "partial pooling", blue),
    ):
        mean, low, high = intercepts[name]
        ax.vlines(place, low, high, color=color, lw=1, alpha=0.5)
        ax.plot(place, mean, "o", color=color, ms=4, label="a county, 90 % interval")
        ax.axhline(everywhere, color="0.1", ls="--", lw=1.2, label="complete pooling")
        ax.set_xscale("log")
        ax.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
        ax.set_ylim(-0.6, 3.7)
        ax.set_xlabel("houses measured in the county")
        ax.set_ylabel("log radon in a basement (log pCi/L)")
        ax.set_title(name.capitalize())
        ax.legend(fontsize="small", loc="upper right")

    ax = axes[1, 0]
    once = radon.drop_duplicates("county").sort_values("county")
    uranium = once["log_uranium"].to_numpy()
    own = model.random_effects_["county"]
    names = [c for c in model.feature_names_in_ if c != "county"]
    slope = model.coef_[names.index("log_uranium")]
    line = model.intercept_ + slope * uranium
    at = line + own.mean[:, 0]
    ax.vlines(
        uranium,
        at - own.sd[:, 0],
        at + own.sd[:, 0],
        color=blue,
        lw=1,
        alpha=0.5,
    )
    ax.plot(uranium, at, "o", color=blue, ms=4, label="a county ± 1 sd of its effect")
    ends = np.array([uranium.min(), uranium.max()])
    ax.plot(
        ends,
        model.intercept_ + slope * ends,
        color="0.1",
        lw=1.5,
        label="counties of that uranium",
    )
    ax.set_xlabel("log uranium in the soil (log ppm)")
    ax.set_ylabel("log radon in a basement (log pCi/L)")
    ax.set_title("With uranium: drawn to a line")
    ax.legend(fontsize="small", loc="upper left")

    ax = axes[1, 1]
    count = np.geomspace(1, houses.max(), 100)
    for fit, color, label in (
        (partial, blue, "floor"),
        (model, orange, "floor and uranium"),
    ):
        ax.plot(
            place,
            fit.random_effects_["county"].shrinkage[:, 0],
            "o",
            color=color,
            ms=4,
            alpha=0.8,
            label=label,
        )
        variance = fit.covariances_["county"][0, 0]
        curve = 1.0 / (1.0 + count * variance / fit.noise_variance_)
        ax.plot(count, curve, color=color, lw=1.2)
    ax.set_xscale("log")
    ax.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    ax.set_ylim(0.0, 1.03)
    ax.set_xlabel("houses measured in the county")
    ax.set_ylabel("shrinkage (0: own houses, 1: all counties)")
    ax.set_title("How far a county is pulled to the others")
    ax.legend(fontsize="small", loc="upper right", title="columns")

    second = plt.figure(figsize=(14, 5.6), layout="constrained")
    left, middle, right = second.subfigures(1, 3, width_ratios=[1.25, 0.85, 1.0])

    ax = left.subplots()
    colors = dict(zip(KINDS, (orange, blue, green)))
    marks = dict(zip(KINDS, "osD"))
    rows = [(problem, name) for problem in problems for name in problems[problem][3]]
    spots = {row: -k - (row[0] == "sleepstudy") for k, row in enumerate(rows)}
    for k, (kind, color) in enumerate(colors.items()):
        for row, spot in spots.items():
            share = ratios[*row, kind]
            at = spot + 0.24 * (1 - k)
            ax.plot([share.min(), share.max()], [at, at], color=color, lw=3, alpha=0.5)
            ax.plot(
                np.median(share),
                at,
                marks[kind],
                color=color,
                ms=5,
                label=kind if row == rows[0] else None,
            )
    ax.axvline(1.0, color="0.1", lw=1)
    ax.set_yticks(list(spots.values()), [name for _, name in rows])
    for problem in problems:
        top = max(spot for row, spot in spots.items() if row[0] == problem)
        ax.text(0.02, top + 0.55, problem, weight="bold", va="center")
    ax.set_ylim(min(spots.values()) - 0.6, 1.0)
    ax.set_xlim(0.0, 1.3)
    ax.set_xlabel(f"posterior sd / that of {base}")
    ax.set_title("How sure: posteriors beside the exact one")
    ax.legend(fontsize="small", loc="lower left", bbox_to_anchor=(0.0, 0.0))

    panels = middle.subplots(3, 1)
    for ax, setting in zip(panels, settings):
        groups = {"county": "counties", "Subject": "subjects"}[settings[setting][2]]
        for k, name in enumerate(("no pooling", "partial pooling")):
            for row, held_out in enumerate(("rows", "groups")):
                if (name, held_out) == ("no pooling", "groups"):
                    continue  # that is complete pooling
                lead, error = leads[setting, held_out, name]
                ax.errorbar(
                    lead,
                    -row + (0.12 - 0.24 * k) * (row == 0),
                    xerr=2 * error,
                    fmt="os"[k],
                    color=(orange, blue)[k],
                    label=name if row == 0 else None,
                )
        ax.axvline(0.0, color="0.1", ls="--", lw=1.2, label="complete pooling")
        ax.set_yticks([0, -1], ["rows\nheld out", f"{groups}\nheld out"])
        ax.set_ylim(-1.5, 0.5)
        ax.set_title(f"Held out: {setting}", fontsize="medium")
    panels[1].legend(fontsize="x-small", loc="lower left")
    panels[2].set_xlabel(
        "log density a row, above complete pooling\n(nats, bars: 2 se)"
    )

    ax = right.subplots()
    raw = alone.random_effects_["Subject"].mean + [alone.intercept_, alone.coef_[0]]
    pulled = sleepers.random_effects_["Subject"].mean + [
        sleepers.intercept_,
        sleepers.coef_[0],
    ]
    for start, end in zip(raw, pulled):
        ax.annotate("", end, start, arrowprops=dict(arrowstyle="->", color=grey))
    ax.plot(*raw.T, "o", color=orange, ms=5, label="no pooling")
    ax.plot(*pulled.T, "s", color=blue, ms=5, label="partial pooling")
    centre = np.array([sleepers.intercept_, sleepers.coef_[0]])
    ax.plot(*centre, "*", color="0.1", ms=13, label="population")
    circle = np.linspace(0.0, 2 * np.pi, 200)
    root = np.linalg.cholesky(sleepers.covariances_["Subject"])
    for radius in (1.0, 2.0):
        ring = centre[:, None] + radius * root @ [np.cos(circle), np.sin(circle)]
        ax.plot(*ring, color=blue, lw=0.8, alpha=0.6)
    ax.set_xlabel("reaction time of a subject at day 0 (ms)")
    ax.set_ylabel("slope of a subject (ms a day)")
    ax.set_title("Subjects, drawn to where subjects are")
    ax.legend(fontsize="small")

    if "sphinx_gallery" not in sys.modules:
        args.output.mkdir(parents=True, exist_ok=True)
        fig.savefig(args.output / "hierarchy.png", dpi=120)
        second.savefig(args.output / "hierarchy_posteriors.png", dpi=120)
        print(f"\npictures: {args.output / 'hierarchy.png'}, hierarchy_posteriors.png")
