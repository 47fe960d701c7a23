"""
Levels, seasons and common states of time series
================================================

A structural model takes a series apart: a level that drifts, a season that comes round,
noise. ``VariationalLinearDynamicalSystem`` has such models by name and learns how fast
each part moves; every part comes with an interval, and so does the forecast. Without a
name it learns the whole system, and how many states several series have in common.

Four data sets, one question each: how sure is the level of the Nile, and of its
variances? What did the British seat-belt law of 1983 do to drivers, and to those whom
it did not concern? How many will die in accidents next year, month by month? And what
do nine series of a national economy have in common?

The data are read from the folder ``timeseries`` in the one that the environment
variable ``SKVI_DATA`` names (``nile.npz``, ``seatbelts.csv.gz``, ``uscaccdeaths.npz``
and ``us_macro_quarterly.csv.gz``). Without it the page runs on simulated series of the
same shape, with a drop, a season and a cycle put into them; remarks about numbers hold
for the data only.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from skvi import VariationalLinearDynamicalSystem

try:
    import matplotlib.pyplot as plt
except ImportError:
    plt = None

parser = argparse.ArgumentParser(description="Structural models of time series.")
parser.add_argument("--quick", action="store_true", help="fewer draws and fits")
parser.add_argument(
    "--output", type=Path, default=Path(), help="folder for the picture"
)
args, _ = parser.parse_known_args()  # a notebook passes arguments of its own

DATA = os.environ.get("SKVI_DATA")
n_draws = 500 if args.quick else 4000


def table(name):
    """Columns of a compressed csv file."""
    path = Path(DATA) / "timeseries" / f"{name}.csv.gz"
    return np.genfromtxt(path, delimiter=",", names=True)


def series(name):
    """Times and values of a single series."""
    with np.load(Path(DATA) / "timeseries" / f"{name}.npz") as file:
        return file["time"], file["y"]


def seasonal_waves(n_months, rng):
    """A level and a season for the stand-ins, in units of the season."""
    month = np.arange(n_months)
    season = np.cos(2.0 * np.pi * (month - 6) / 12) + 0.4 * np.cos(np.pi * month / 3)
    return np.cumsum(0.1 * rng.standard_normal(n_months)), season


print("data" if DATA is not None else "simulated series (SKVI_DATA is not set)")

# %%
# A level
# -------
# ``structure="local_level"``: a random walk seen with noise. The precisions of both are
# unknown and have Gamma priors. q(states) is a chain, but q takes states and variances
# to be independent of each other, and a variance that is computed from states taken as
# known too well comes out too sure. ``posterior_covariance="linear_response"`` keeps
# the fit and repairs that: it asks how far the answers would move if the model
# were tilted a little.

if DATA is not None:
    years, flow = series("nile")
else:
    rng = np.random.default_rng(0)
    years = 1871.0 + np.arange(100)
    flow = 1100.0 + 38.0 * np.cumsum(rng.standard_normal(100))
    flow += 123.0 * rng.standard_normal(100)
Y = flow[:, None]
levels = {
    which: VariationalLinearDynamicalSystem(
        structure="local_level", posterior_covariance=which
    ).fit(Y)
    for which in ("variational", "linear_response")
}
nile = levels["linear_response"]
print("\nVARIANCES, and sds of their logarithms\n")
print(f"{'':<10}{'variance':>12}{'variational':>14}{'linear response':>18}")
for name, variance in (
    ("noise", nile.noise_variance_[0]),
    ("level", nile.state_variances_["level"][0]),
):
    sds = [float(fit.log_variances_std_[name][0]) for fit in levels.values()]
    print(f"{name:<10}{variance:12.0f}{sds[0]:14.2f}{sds[1]:18.2f}")
assert np.isclose(*[fit.elbo_ for fit in levels.values()])  # the fit is the same

nile_mean, nile_std = nile.smooth(Y, return_std=True)
nile_ahead = nile.forecast(Y, n_steps=10)

# %%
# Ninety of a hundred flows can be explained by a level that moved once, at the end of
# the century, when the first dam at Aswan was built. The model knows nothing of dams;
# its level falls within a few years.
#
# A law
# -----
# From February 1983 on, drivers and front passengers of cars in Great Britain had to
# wear seat belts. Passengers in the rear did not. Monthly numbers of killed and
# seriously injured, in logarithms, so that effects are percentages. In the presets each
# column of X is a series of its own, with its own variances; one fit takes all three.
#
# The law is not in the model. If it did something, the level has to drop. Draws of
# whole paths of states tell how sure that is: the mean level of the year after, less
# that of the year before, and the same for the two years up to each February before it.

names = ("drivers", "front", "rear")
if DATA is not None:
    belts = table("seatbelts")
    casualties = np.column_stack([belts[name] for name in names])
    law = int(np.argmax(belts["law"] > 0))
else:
    rng, law = np.random.default_rng(1), 169
    casualties = []
    for drop in (0.2, 0.3, 0.0):
        level, season = seasonal_waves(192, rng)
        level = 7.0 + 0.1 * level - drop * (np.arange(192) >= law)
        level = level + 0.15 * season + 0.06 * rng.standard_normal(192)
        casualties.append(np.exp(level))
    casualties = np.column_stack(casualties)
log_casualties = np.log(casualties)
months = 1969.0 + np.arange(len(casualties)) / 12.0

road = VariationalLinearDynamicalSystem(structure="seasonal", period=12)
road.fit(log_casualties)
road_mean, road_std = road.smooth(log_casualties, return_std=True)
n_states = road_mean.shape[1] // 3  # of one column; the first of each is its level
at_level = n_states * np.arange(3)

draws = road.sample_posterior(n_draws, random_state=0, X=log_casualties)["states"]
level_draws = draws[:, :, at_level]
changes = np.stack(
    [
        level_draws[:, start : start + 12].mean(axis=1)
        - level_draws[:, start - 12 : start].mean(axis=1)
        for start in range(law - 12 * 10, law + 1, 12)
    ]
)  # (years, draws, series)
print(f"\nCHANGE OF THE LEVEL in the year from {months[law]:.2f} on, in percent\n")
print(
    f"{'':<10}{'median':>8}{'90 % interval':>20}{'largest in the ten years before':>36}"
)
for j, name in enumerate(names):
    low, middle, high = 100.0 * np.expm1(
        np.quantile(changes[-1, :, j], [0.05, 0.5, 0.95])
    )
    before = 100.0 * np.expm1(np.median(changes[:-1, :, j], axis=1))
    print(
        f"{name:<10}{middle:8.1f}{f'{low:.1f} to {high:.1f}':>20}"
        f"{before[np.argmax(np.abs(before))]:36.1f}"
    )

# %%
# Next year
# ---------
# ``structure="basic_structural"`` adds a slope to the level. The last year of a series
# of deaths in accidents is held out; beside the forecast stands that of the same month
# of the year before.

if DATA is not None:
    when, deaths = series("uscaccdeaths")
else:
    rng = np.random.default_rng(2)
    when = 1973.0 + np.arange(72) / 12.0
    level, season = seasonal_waves(72, rng)
    deaths = 9000.0 + 1200.0 * (level + season) + 250.0 * rng.standard_normal(72)
n_known = len(deaths) - 12
past, future = deaths[:n_known, None], deaths[n_known:]
print("\nTWELVE MONTHS AHEAD\n")
print(f"{'':<20}{'rmse':>8}{'inside 90 %':>14}{'mean width':>12}{'elbo':>10}")
aheads = {}
for structure in ("seasonal", "basic_structural"):
    fit = VariationalLinearDynamicalSystem(
        structure=structure, period=12, posterior_covariance="linear_response"
    ).fit(past)
    aheads[structure] = fit.forecast(past, n_steps=12)
    ends = aheads[structure].interval(0.9)[0, :, 0]
    inside = np.sum((ends[:, 0] <= future) & (future <= ends[:, 1]))
    error = aheads[structure].mean[0, :, 0] - future
    print(
        f"{structure:<20}{np.sqrt(np.mean(error**2)):8.0f}{f'{inside} of 12':>14}"
        f"{np.mean(ends[:, 1] - ends[:, 0]):12.0f}{fit.elbo_:10.1f}"
    )
error = past[-12:, 0] - future
print(f"{'the year before':<20}{np.sqrt(np.mean(error**2)):8.0f}")

# %%
# States in common
# ----------------
# ``structure="free"`` learns the transition matrix and the loadings. Nine quarterly
# series of the economy of the United States, as growth rates or changes, each divided
# by its sd. A relevance for each state (automatic relevance determination) takes states
# that are not needed out of the loadings, and ``elbo_`` says how many are.
#
# To see what the states know, the last ten years of output (realgdp) are held out, as
# NaN, while the other series of these years are seen.

if DATA is not None:
    macro = table("us_macro_quarterly")
    growing = ("realgdp", "realcons", "realinv", "realgovt", "realdpi", "cpi", "m1")
    columns = {name: 100.0 * np.diff(np.log(macro[name])) for name in growing}
    columns |= {name: np.diff(macro[name]) for name in ("tbilrate", "unemp")}
    quarters = macro["year"][1:] + (macro["quarter"][1:] - 1.0) / 4.0
else:
    rng = np.random.default_rng(3)
    quarters = 1959.25 + np.arange(202) / 4.0
    turn = 0.9 * np.array([[0.92, 0.39], [-0.39, 0.92]])
    state, states = np.zeros(2), []
    for _ in quarters:
        state = turn @ state + rng.standard_normal(2)
        states.append(state)
    shown = np.array(states) @ rng.standard_normal((2, 9))
    shown += 2.0 * rng.standard_normal(shown.shape)
    columns = {f"series {j}": shown[:, j] for j in range(9)}
economy = np.column_stack(list(columns.values()))
economy = (economy - economy.mean(axis=0)) / economy.std(axis=0)
held_out = quarters >= quarters[-1] - 9.99
seen = economy.copy()
seen[held_out, 0] = np.nan

print(
    "\nSTATES IN COMMON   elbo in nats; held-out output: squared error and coverage\n"
)
print(
    f"{'states':<8}{'structured':>12}{'mean_field':>12}{'error':>8}{'inside 90 %':>13}"
)
numbers = (1, 2, 3, 4) if args.quick else (1, 2, 3, 4, 5, 6)
fits = {}
for k in numbers:
    for posterior in ("structured", "mean_field"):
        fits[k, posterior] = VariationalLinearDynamicalSystem(
            n_components=k, posterior=posterior, random_state=0
        ).fit(seen)
    fit = fits[k, "structured"]
    guess = fit.predict(seen)[held_out, 0]
    ends = fit.predict_interval(seen, confidence_level=0.9)[held_out, 0]
    truth = economy[held_out, 0]
    inside = np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1]))
    print(
        f"{k:<8}{fit.elbo_:12.1f}{fits[k, 'mean_field'].elbo_:12.1f}"
        f"{np.mean((guess - truth) ** 2):8.2f}{inside:13.0%}"
    )
baseline = np.mean((economy[held_out, 0] - economy[~held_out, 0].mean()) ** 2)
print(f"{'mean':<8}{'':>24}{baseline:8.2f}")
n_best = max(numbers, key=lambda k: fits[k, "structured"].elbo_)
best = fits[n_best, "structured"]
print(f"\nchosen: {n_best}; loadings on the states, sds in brackets\n")
for j, name in enumerate(columns):
    cells = "".join(
        f"{loading:8.2f} ({sd:.2f})"
        for loading, sd in zip(
            best.observation_matrix_[j], best.observation_matrix_std_[j]
        )
    )
    print(f"{name:<10}{cells}   noise {best.noise_variance_[j]:.2f}")

# %%
# The picture
# -----------
# Bands are 90 % intervals.

if plt is not None:
    blue, orange, grey = "#0072B2", "#D55E00", "0.45"
    z = 1.645
    fig, axes = plt.subplots(2, 2, figsize=(11.0, 7.6), layout="constrained")

    def band(ax, x, mean, std, color, label=None):
        """A line with its 90 % interval."""
        ax.fill_between(
            x, mean - z * std, mean + z * std, color=color, alpha=0.25, lw=0
        )
        ax.plot(x, mean, color=color, lw=1.6, label=label)

    ax = axes[0, 0]
    ax.plot(years, flow, ".", color=grey, label="flow of a year")
    band(ax, years, nile_mean[:, 0], nile_std[:, 0], blue, "level")
    ahead_years = years[-1] + np.arange(1, 11)
    low, high = nile_ahead.interval(0.9)[0, :, 0].T
    ax.fill_between(
        ahead_years, low, high, color=orange, alpha=0.25, lw=0, label="next ten flows"
    )
    ax.set_title("Nile" if DATA else "A simulated level", loc="left")
    ax.legend(fontsize="small", loc="upper right")

    ax = axes[0, 1]
    for j, (name, color) in enumerate(zip(names, (blue, orange, grey))):
        shift = road_mean[:, at_level[j]][:law].mean()
        ax.plot(months, log_casualties[:, j] - shift, color=color, lw=0.5, alpha=0.6)
        place = road_mean[:, at_level[j]] - shift
        band(ax, months, place, road_std[:, at_level[j]], color, name)
    ax.axvline(months[law], color="k", ls="--", lw=1)
    ax.set_ylabel("log, less the mean before the law")
    ax.set_title("Casualties on roads and their levels", loc="left")
    ax.legend(fontsize="small", loc="lower left")

    ax = axes[1, 0]
    ax.plot(when[:n_known], past[:, 0], color=grey, lw=1.2, label="seen")
    ahead = aheads["basic_structural"]
    low, high = ahead.interval(0.9)[0, :, 0].T
    ax.fill_between(
        when[n_known:], low, high, color=blue, alpha=0.25, lw=0, label="90 % interval"
    )
    ax.plot(when[n_known:], ahead.mean[0, :, 0], color=blue, lw=1.6, label="forecast")
    ax.plot(when[n_known:], future, "o", color=orange, ms=4, label="what happened")
    ax.set_title("Deaths in accidents, a month", loc="left")
    ax.legend(fontsize="small", loc="upper center", ncols=2)

    ax = axes[1, 1]
    recent = quarters >= quarters[-1] - 20.0
    guess, std = best.predict(seen, return_std=True)
    shown = slice(np.argmax(held_out), None)
    band(
        ax, quarters[shown], guess[shown, 0], std[shown, 0], blue, "told by the others"
    )
    ax.plot(quarters[recent], economy[recent, 0], color=grey, lw=1, label="output")
    ax.plot(quarters[held_out], economy[held_out, 0], "o", color=orange, ms=4)
    ax.axvline(quarters[shown][0], color="k", ls="--", lw=1)
    ax.set_ylabel("growth, sds")
    ax.set_xticks([1990, 1995, 2000, 2005, 2010])
    ax.set_title("Output, hidden from the dashed line on", loc="left")
    ax.legend(fontsize="small", loc="lower left")
    for ax in axes.ravel():
        ax.margins(x=0.01)

    if "sphinx_gallery" not in sys.modules:
        args.output.mkdir(parents=True, exist_ok=True)
        fig.savefig(args.output / "structural_series.png", dpi=120)
        print(f"\npicture: {args.output / 'structural_series.png'}")
