"""
Calm and stormy markets
=======================

Daily returns of a share index have no trend to speak of, but they come in spells: weeks
of small moves, weeks of large ones. A hidden Markov model takes a spell for a *regime*,
a state that lasts from day to day and says how large returns are. ``VariationalHMM``
finds the regimes, says how sure it is of each day's, how many of them the data bear
out, and what to expect of the days to come.

The page chooses the number of regimes by ``elbo_``, shows what the two posterior
families make of the same days, and counts how often intervals for the next twenty days
are right in years that the model has not seen.

The data are the closing prices of the S&P 500 from 1999 to 2018, if the environment
variable ``SKVI_DATA`` names a folder that holds ``timeseries/sp500_daily.npz`` (arrays
``date`` and ``price``). Without it the page runs on simulated returns: twenty years of
a Markov chain of three regimes with Gaussian returns, whose levels and spells resemble
those of the index. What is printed first says which of the two it was; remarks about
the S&P 500 hold for the index only.
"""

import argparse
import os
import sys
from datetime import datetime
from pathlib import Path

import numpy as np

from skvi import VariationalHMM, sequence_ids

try:
    import matplotlib.dates as mdates
    import matplotlib.pyplot as plt
except ImportError:
    plt = None

parser = argparse.ArgumentParser(description="Volatility regimes of daily returns.")
parser.add_argument("--quick", action="store_true", help="fewer repetitions")
parser.add_argument(
    "--output", type=Path, default=Path(), help="folder for the picture"
)
args, _ = parser.parse_known_args()  # a notebook passes arguments of its own

# %%
# The data
# --------
# Returns in percent. The first half is there to learn from, the second is held out.

DATA = os.environ.get("SKVI_DATA")


def simulated_returns(n_days, rng):
    """Returns of three regimes, each of which lasts for weeks or months."""
    stay, sds = np.array([0.99, 0.98, 0.96]), np.array([0.6, 1.2, 2.8])
    drifts = np.array([0.07, 0.0, -0.15])
    transmat = np.array([[0.0, 0.9, 0.1], [0.7, 0.0, 0.3], [0.1, 0.9, 0.0]])
    state, returns = 0, np.empty(n_days)
    for day in range(n_days):
        if rng.random() > stay[state]:
            state = rng.choice(3, p=transmat[state])
        returns[day] = drifts[state] + sds[state] * rng.standard_normal()
    return returns


if DATA is not None:
    with np.load(Path(DATA) / "timeseries" / "sp500_daily.npz") as file:
        dates = np.array(
            [datetime.strptime(day, "%m/%d/%Y") for day in file["date"][1:]],
            dtype="datetime64[D]",
        )
        returns = 100.0 * np.diff(np.log(file["price"]))
    source = "S&P 500"
else:
    returns = simulated_returns(5030, np.random.default_rng(5))
    dates = np.busday_offset("1999-01-05", np.arange(5030), roll="forward")
    source = "simulated returns (SKVI_DATA is not set)"

# %%
# A model sees sequences through a column of X that holds an id for each row, here the
# second one. All days are one sequence; further down there are many.

X = np.column_stack([returns, np.zeros(len(returns))])
n_train = len(X) // 2
train = X[:n_train]
print(
    f"{source}: {n_train} days from {dates[0]} to learn from, "
    f"{len(X) - n_train} from {dates[n_train]} held out"
)

# %%
# How many regimes?
# -----------------
# ``elbo_`` has every constant of the model, so it compares numbers of regimes on the
# days that they were fitted to. Beside it stands the log density of the held-out days,
# each given all days before it: ``score_samples`` runs through the whole sequence and
# the held-out end is averaged. The last column is the same with the halves swapped.
#
# On the S&P 500 one regime is out of the question, and two are not enough. From three
# on the gains are small: one more describes tails and transitions, and no new kind of
# market. Without ``SKVI_DATA`` the truth is three.

numbers = range(1, 6)
posteriors = ("structured", "mean_field")
later_first = np.concatenate([X[n_train:], train])


def fit_regimes(k, posterior, rows):
    """One fit; the ids stand in the column with index 1."""
    model = VariationalHMM(
        n_components=k, posterior=posterior, sequence=1, random_state=0
    )
    return model.fit(rows)


fits, held_out, swapped = {}, {}, {}
for posterior in posteriors:
    fits[posterior] = [fit_regimes(k, posterior, train) for k in numbers]
    held_out[posterior] = np.array(
        [fit.score_samples(X)[n_train:].mean() for fit in fits[posterior]]
    )
    n_later = len(X) - n_train
    swapped[posterior] = np.array(
        [
            fit_regimes(k, posterior, X[n_train:])
            .score_samples(later_first)[n_later:]
            .mean()
            for k in numbers
        ]
    )

print("\nHOW MANY REGIMES?   elbo in nats, held out and swapped in nats a day\n")
print(f"{'':<9}{'structured':^33}{'mean_field':^33}")
print(f"{'regimes':<9}" + 2 * f"{'elbo':>11}{'held out':>11}{'swapped':>11}")
for i, k in enumerate(numbers):
    cells = "".join(
        f"{fits[posterior][i].elbo_:11.1f}{held_out[posterior][i]:11.4f}"
        f"{swapped[posterior][i]:11.4f}"
        for posterior in posteriors
    )
    print(f"{k:<9}{cells}")

elbos = {
    posterior: np.array([fit.elbo_ for fit in models])
    for posterior, models in fits.items()
}
best = int(np.argmax(elbos["structured"]))
n_regimes = numbers[best]
one, structured, mean_field = (
    fits["structured"][0],
    fits["structured"][best],
    fits["mean_field"][best],
)
assert np.all(elbos["structured"] > elbos["mean_field"] - 1e-6)
assert n_regimes > 1
print(f"\nchosen: {n_regimes}")

# %%
# What are the regimes?
# ---------------------
# The numbers of the states mean nothing, so the regimes are put in the order of their
# standard deviations. Draws from the posterior give an interval for anything that can
# be computed from the parameters, such as how long a regime lasts on average,
# :math:`1 / (1 - A_{kk})`.


def by_size(model):
    """The states from the calmest to the wildest."""
    return np.argsort(model.covariances_.ravel())


draws = structured.sample_posterior(n_samples=4000, random_state=0)
sds = draws["precisions"].reshape(4000, n_regimes) ** -0.5
days = 1.0 / (1.0 - np.diagonal(draws["transmat"], axis1=1, axis2=2))
share = structured.predict_proba(train).mean(axis=0)
print("\nREGIMES with 90 % intervals\n")
print("sd of a day, %             mean of a day, %           lasts, days    share")
for k in by_size(structured):
    cells = ""
    for law, middle in (
        (sds[:, k], np.median(sds[:, k])),
        (draws["means"][:, k, 0], structured.means_[k, 0]),
    ):
        low, high = np.quantile(law, [0.05, 0.95])
        cells += f"{middle:5.2f}  ({low:5.2f} to {high:5.2f})    "
    low, high = np.quantile(days[:, k], [0.05, 0.95])
    print(f"{cells}{low:4.0f} to {high:4.0f}{share[k]:9.0%}")

# %%
# The mean-field bargain
# ----------------------
# ``posterior="structured"`` keeps the states of a sequence together, as a Markov chain.
# ``"mean_field"`` takes them to be independent: each day knows of its neighbours only
# what they are on average. In a sticky chain that is an echo. A day that may be stormy
# makes its neighbours more likely to be, which tells the day what it has told them,
# until all of them are certain. The bound above is lower for it, by tens of nats.
#
# How certain, and how often rightly so? On returns of the market nobody knows. On
# returns that a fitted model draws itself the regimes are known. Two regimes are enough
# for this question. Both posteriors are fitted to sequences drawn from the structured
# fit. The log loss is what a day's regime costs under ``predict_proba``, in nats;
# "sure" is the part of the days with a probability above 99 %, and "wrong" the part of
# these whose regime is the other one.

two = {posterior: fits[posterior][1] for posterior in posteriors}
n_sets = 2 if args.quick else 20
counts = {posterior: [] for posterior in posteriors}
for seed in range(n_sets):
    drawn, truth = two["structured"].sample(n_train, random_state=seed)
    stormy = truth == by_size(two["structured"])[1]
    drawn = np.column_stack([drawn, np.zeros(n_train)])
    for posterior, found in counts.items():
        model = fit_regimes(2, posterior, drawn)
        p = model.predict_proba(drawn)[:, by_size(model)[1]]
        p_true = np.clip(np.where(stormy, p, 1.0 - p), 1e-12, 1.0)
        sure = np.abs(p - 0.5) > 0.49
        found.append(
            (
                model.elbo_,
                np.mean(p_true > 0.5),
                -np.log(p_true).mean(),
                sure.mean(),
                np.mean(p_true[sure] < 0.5),
            )
        )

print(f"\nTHE MEAN-FIELD BARGAIN, {n_sets} drawn sequences of {n_train} days\n")
print(f"{'':<12}{'elbo':>9}{'accuracy':>11}{'log loss':>11}{'sure':>8}{'wrong':>8}")
for posterior, found in counts.items():
    bound, accuracy, loss, sure, wrong = np.mean(found, axis=0)
    print(
        f"{posterior:<12}{bound:9.1f}{accuracy:11.1%}{loss:11.3f}{sure:8.0%}"
        f"{wrong:8.1%}"
    )

# %%
# The most probable regimes are as good under mean-field, and so are its predictions of
# returns, in the table above and in the one below. It is its certainty about regimes
# that is not to be trusted.
#
# The next twenty days
# --------------------
# ``forecast`` carries the state of the last day forward and mixes the regimes'
# predictive laws. From a stormy day on intervals are wide and shrink towards what is
# usual; from a calm one they widen.
#
# To see how often intervals are right, a forecast is made every twenty days of the
# held-out years. Each starts from the 250 days before it, which are made a sequence of
# their own, so one call answers for all. What happened then is not told to the model.

horizon, memory = 20, 250
origins = np.arange(n_train, len(X) - horizon + 1, horizon)
before = origins[:, None] + np.arange(-memory, 0)
histories = np.column_stack(
    [returns[before].ravel(), sequence_ids([memory] * len(origins))]
)
happened = returns[origins[:, None] + np.arange(horizon)]  # (origins, days)

forecasts = {
    "one regime": one.forecast(histories, n_steps=horizon),
    "mean_field": mean_field.forecast(histories, n_steps=horizon),
    "structured": structured.forecast(histories, n_steps=horizon),
}
# Thirds of the origins, by how wild the structured fit takes the next day to be.
third = np.searchsorted(
    np.quantile(forecasts["structured"].std()[:, 0, 0], [1 / 3, 2 / 3]),
    forecasts["structured"].std()[:, 0, 0],
)
coverage, sums_inside = {}, {}
for name, forecast in forecasts.items():
    ends = forecast.interval(0.9)[:, :, 0]  # (origins, days, 2)
    inside = (ends[..., 0] <= happened) & (happened <= ends[..., 1])
    coverage[name] = [inside.mean()] + [inside[third == i].mean() for i in range(3)]
    # Days of one path share its regimes: only joint draws give the sum its law.
    paths = forecast.sample(1000, random_state=0)[..., 0].sum(axis=2)
    low, high = np.quantile(paths, [0.05, 0.95], axis=0)
    total = happened.sum(axis=1)
    sums_inside[name] = np.mean((low <= total) & (total <= high))

print(
    f"\nCOVERAGE of 90 % intervals for the next {horizon} days, {len(origins)} "
    "forecasts\n"
)
print(
    f"{'':<12}{'all days':>9}   {'calm':>8}{'middle':>8}{'stormy':>8}   sum of 20 days"
)
for name in forecasts:
    everything, *parts = coverage[name]
    cells = "".join(f"{part:8.0%}" for part in parts)
    print(f"{name:<12}{everything:9.0%}   {cells}   {sums_inside[name]:14.0%}")

# %%
# One regime has one width for all times: too wide where it is calm and too narrow, or
# right by luck, where it is not. The other two tell the regime from the days before,
# and little of this pattern is left. (A share in the table is off by a percent or two
# by chance alone.)
#
# The picture
# -----------
# At the top the returns of all years, coloured by the most probable path of regimes,
# and the probabilities of the regimes. All of it is from the fit to the first half. The
# year below is the one in which the two posteriors differ most; its returns are grey.

if plt is not None:
    shades = plt.get_cmap("viridis_r")(np.linspace(0.08, 0.95, n_regimes))
    blue, orange, grey = "#0072B2", "#D55E00", "0.45"
    order = by_size(structured)
    path = np.argsort(order)[structured.predict(X)]
    proba = structured.predict_proba(X)[:, order]
    fig, axes = plt.subplot_mosaic(
        [["returns"] * 6, ["regimes"] * 6, ["year"] * 4 + ["choice"] * 2]
        + [["calm"] * 2 + ["stormy"] * 2 + ["coverage"] * 2],
        figsize=(11.0, 11.5),
        height_ratios=[1.25, 0.8, 1.0, 1.1],
        layout="constrained",
    )

    ax = axes["returns"]
    for k, shade in enumerate(shades):
        sd = np.sqrt(structured.covariances_.ravel()[order[k]])
        ax.vlines(
            dates[path == k],
            0.0,
            returns[path == k],
            color=shade,
            lw=0.7,
        )
        ax.plot([], [], color=shade, lw=5, label=f"sd {sd:.1f} %")
    ax.set_ylabel("return of a day, %")
    ax.set_title(f"{source}: the most probable path of regimes", loc="left")
    ax.legend(fontsize="small", loc="upper right", ncols=n_regimes)
    ax = axes["regimes"]
    ax.stackplot(dates, proba.T, colors=shades, lw=0)
    ax.set_ylim(0.0, 1.0)
    ax.set_ylabel("probability")
    ax.set_title("What the regime of a day may have been", loc="left")
    for ax in (axes["returns"], axes["regimes"]):
        ax.set_xlim(dates[0], dates[-1])
        ax.axvline(dates[n_train], color="k", ls="--", lw=1)
    axes["returns"].annotate(
        "held out from here",
        (dates[n_train], 0.04),
        xycoords=("data", "axes fraction"),
        xytext=(5, 0),
        textcoords="offset points",
        fontsize="small",
    )

    ax = axes["year"]
    stormy = {
        posterior: fit.predict_proba(X)[:, by_size(fit)[1]]
        for posterior, fit in two.items()
    }
    differ = np.abs(stormy["structured"] - stormy["mean_field"])
    start = int(np.argmax(np.convolve(differ, np.ones(250), mode="valid")))
    year = slice(start, start + 250)
    for (posterior, p), color in zip(stormy.items(), (blue, orange)):
        ax.plot(dates[year], p[year], color=color, lw=1.6, label=posterior)
    behind = ax.twinx()  # the returns, for the eye only
    behind.vlines(dates[year], 0.0, returns[year], color="0.8", lw=1.2)
    behind.set_yticks([])
    behind.set_ylim(*(1.05 * np.abs(returns[year]).max() * np.array([-1.0, 1.0])))
    ax.set_zorder(behind.get_zorder() + 1)
    ax.patch.set_visible(False)
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlim(dates[start], dates[start + 249])
    ax.xaxis.set_major_formatter(mdates.ConciseDateFormatter(mdates.AutoDateLocator()))
    ax.set_ylabel("probability of stormy")
    ax.set_title(f"Two regimes, a year from {dates[start]}", loc="left")
    above = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.98), "frameon": False}
    ax.legend(fontsize="small", ncols=2, **above)

    ax = axes["choice"]
    lines = (
        ("elbo, structured", elbos["structured"], "o-", blue),
        ("elbo, mean_field", elbos["mean_field"], "o-", orange),
        ("held out, structured", held_out["structured"] * n_train, "s--", grey),
    )
    for label, values, style, color in lines:
        ax.plot(numbers, values - values[0], style, color=color, label=label)
    ax.set_xticks(numbers)
    ax.set_xlabel("regimes")
    ax.set_ylabel("nats above one regime")
    ax.set_title("How many regimes?", loc="left")
    ax.legend(fontsize="small", loc="lower right")

    # A calm forecast and a stormy one: those at the ends of the ranking.
    sd_ahead = forecasts["structured"].std()[:, 0, 0]
    ends = {level: forecasts["structured"].interval(level) for level in (0.5, 0.9)}
    plain = forecasts["one regime"].interval(0.9)
    reach = 1.1 * np.abs(happened).max()
    for name, i in (("calm", np.argmin(sd_ahead)), ("stormy", np.argmax(sd_ahead))):
        ax = axes[name]
        ahead = np.arange(1, horizon + 1)
        past = np.arange(-39, 1)
        ax.vlines(past, 0.0, returns[origins[i] - 40 : origins[i]], color=grey, lw=1.2)
        for level, alpha in ((0.9, 0.25), (0.5, 0.4)):
            low, high = ends[level][i, :, 0].T
            label = f"{level * 100:.0f} % interval"
            ax.fill_between(
                ahead, low, high, color=blue, alpha=alpha, lw=0, label=label
            )
        ax.plot(ahead, plain[i, :, 0, 0], ":k", lw=1.2, label="90 %, one regime")
        ax.plot(ahead, plain[i, :, 0, 1], ":k", lw=1.2)
        ax.plot(ahead, happened[i], "o", color=orange, ms=3.5, label="what happened")
        ax.set_ylim(-reach, reach)
        ax.set_xlabel(f"days from {dates[origins[i] - 1]}")
        ax.set_title(f"Forecast, {name}", loc="left")
    axes["calm"].set_ylabel("return of a day, %")
    axes["calm"].legend(fontsize="small", loc="upper left")

    ax = axes["coverage"]
    place = np.arange(3)
    for (name, color), shift in zip(
        (("one regime", grey), ("mean_field", orange), ("structured", blue)),
        (-0.2, 0.0, 0.2),
    ):
        ax.plot(place + shift, coverage[name][1:], "o", color=color, ms=7, label=name)
    ax.axhline(0.9, color="k", lw=1, zorder=0)
    ax.set_ylim(0.79, 1.01)
    ax.set_xticks(place, ["calm", "middle", "stormy"])
    ax.set_xlabel("third of the forecasts")
    ax.set_title("Inside the 90 % interval", loc="left")
    ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    ax.legend(fontsize="small", loc="lower center", ncols=1)

    if "sphinx_gallery" not in sys.modules:
        args.output.mkdir(parents=True, exist_ok=True)
        fig.savefig(args.output / "regimes.png", dpi=120)
        print(f"\npicture: {args.output / 'regimes.png'}")
