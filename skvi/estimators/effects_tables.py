"""Tables of random effects and of variance components."""

from abc import ABC, abstractmethod
from html import escape

import numpy as np
from scipy import special

N_NODES = 40  # of correlations
TAILS = np.array([0.025, 0.975])
EFFECTS_HEAD = ["group", "level", "effect", "mean", "sd", "shrinkage"]
LONGEST = 60  # rows of a table that are printed


class _Table(ABC):
    """Rows of cells that print as text and, in notebooks, as HTML."""

    _title = ""

    @abstractmethod
    def _cells(self):
        """(head, rows) of the table, names in the first columns."""

    def _printed(self):
        head, rows = self._cells()
        left_out = len(rows) - LONGEST
        if left_out > 0:
            rows = rows[:LONGEST]
        text = [
            [
                *map(str, row[: self._n_names]),
                *(f"{c:.4g}" for c in row[self._n_names :]),
            ]
            for row in rows
        ]
        return head, text, max(left_out, 0)

    def __repr__(self):
        head, rows, left_out = self._printed()
        widths = [max(map(len, column)) for column in zip(head, *rows)]
        lines = [self._title]
        for row in [head, *rows]:
            cells = [
                c.ljust(w) if k < self._n_names else c.rjust(w)
                for k, (c, w) in enumerate(zip(row, widths))
            ]
            lines.append("  ".join(cells).rstrip())
        if left_out:
            lines.append(f"... and {left_out} more rows: see to_pandas()")
        return "\n".join(lines)

    def _repr_html_(self):
        head, rows, left_out = self._printed()
        top = "".join(f"<th>{escape(c)}</th>" for c in head)
        body = ""
        for row in rows:
            names = "".join(f"<th>{escape(c)}</th>" for c in row[: self._n_names])
            cells = "".join(f"<td>{escape(c)}</td>" for c in row[self._n_names :])
            body += f"<tr>{names}{cells}</tr>"
        note = f"<br>... and {left_out} more rows" if left_out else ""
        return (
            f"<table><caption>{escape(self._title)}{note}</caption>"
            f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
        )

    def to_pandas(self):
        """The table as a pandas DataFrame."""
        import pandas as pd

        head, rows = self._cells()
        return pd.DataFrame(rows, columns=head)


class EffectsTable(_Table):
    """Random effects of one factor.

    Attributes
    ----------
    group : str
        Name of the factor.
    levels : ndarray of shape (n_levels,)
    effects : list of str
        "intercept" and the names of the slopes.
    mean, sd : ndarrays of shape (n_levels, n_effects)
        Posterior mean and sd.
    shrinkage : ndarray of shape (n_levels, n_effects)
        Posterior variance over the variance among levels: 0 where the level's own rows
        decide, 1 where all comes from the other levels.
    """

    _n_names = 3

    def __init__(self, group, levels, effects, mean, sd, among):
        self.group = group
        self.levels = levels
        self.effects = list(effects)
        self.mean = mean
        self.sd = sd
        self.shrinkage = np.minimum(sd**2 / among, 1.0)
        self._title = f"Random effects of {group}"

    def _cells(self):
        rows = []
        for g, level in enumerate(self.levels):
            for k, effect in enumerate(self.effects):
                numbers = self.mean[g, k], self.sd[g, k], self.shrinkage[g, k]
                rows.append([self.group, level, effect, *map(float, numbers)])
        return EFFECTS_HEAD, rows


class RandomEffects(_Table):
    """Random effects of all factors; by name of a factor an EffectsTable."""

    _n_names = 3
    _title = "Random effects"

    def __init__(self, tables):
        self._tables = tables

    def __getitem__(self, group):
        if group not in self._tables:
            raise KeyError(
                f"{group!r} is no grouping factor; the factors are "
                f"{list(self._tables)}."
            )
        return self._tables[group]

    def __iter__(self):
        return iter(self._tables)

    def __len__(self):
        return len(self._tables)

    def _cells(self):
        tables = self._tables.values()
        return EFFECTS_HEAD, [row for table in tables for row in table._cells()[1]]


class VarianceComponents(_Table):
    """Standard deviations and correlations among levels, and of the noise.

    Attributes
    ----------
    names : list of str
    mean, sd, lower, upper : ndarrays of shape (n_names,)
        Posterior mean and sd, and the central 95 % interval.
    log_mean, log_sd : ndarrays of shape (n_names,)
        Mean and sd of the log of a standard deviation; NaN for correlations.
    """

    _n_names = 1
    _title = "Variance components (95% intervals)"

    def __init__(self):
        self.names = []
        self._rows = []
        self._set_columns()

    def add(self, names, moments, units):
        """Standard deviations and correlations of one component.

        Parameters
        ----------
        names : list of str
            Of the standard deviations, then of the correlations.
        moments : Moments
        units : array
            Of the standard deviations.
        """
        q = len(moments.log_mean)
        logs = moments.log_mean + np.log(units)
        draws = None
        if moments.draws is not None:
            draws = moments.draws.copy()
            draws[:, :q] = np.exp(draws[:, :q] + np.log(units))
            draws[:, q:] = np.tanh(draws[:, q:])
        for k, name in enumerate(names[:q]):
            if draws is None:
                numbers = _of_inverse_gamma(logs[k], moments.shape)
            else:
                numbers = _of_draws(draws[:, k])
            self._add(name, *numbers, logs[k], moments.log_sd[k])
        for k, name in enumerate(names[q:]):
            if draws is None:
                numbers = _of_angle(moments.angle_mean[k], moments.angle_sd[k])
            else:
                numbers = _of_draws(draws[:, q + k])
            self._add(name, *numbers, np.nan, np.nan)

    def _add(self, name, *numbers):
        self.names.append(name)
        self._rows.append([float(number) for number in numbers])
        self._set_columns()

    def _set_columns(self):
        columns = np.array(self._rows).reshape(-1, 6).T
        self.mean, self.sd, self.lower, self.upper = columns[:4]
        self.log_mean, self.log_sd = columns[4:]

    def _cells(self):
        head = ["component", "mean", "sd", "lower", "upper"]
        rows = [[name, *row[:4]] for name, row in zip(self.names, self._rows)]
        return head, rows


def _of_inverse_gamma(log_mean, shape):
    """Mean, sd and interval of the root of an inverse gamma variable."""
    root = np.exp(log_mean + 0.5 * special.psi(shape))  # of the rate
    mean = sd = np.inf
    if shape > 0.5:
        mean = root * np.exp(special.gammaln(shape - 0.5) - special.gammaln(shape))
    if shape > 1.0:
        sd = np.sqrt(root**2 / (shape - 1.0) - mean**2)
    return mean, sd, *(root / np.sqrt(special.gammaincinv(shape, TAILS[::-1])))


def _of_angle(mean, sd):
    """The same of a correlation, by the Gaussian law of its inverse tangent."""
    nodes, weights = special.roots_hermitenorm(N_NODES)
    values, weights = np.tanh(mean + sd * nodes), weights / weights.sum()
    average = weights @ values
    spread = np.sqrt(weights @ (values - average) ** 2)
    return average, spread, *np.tanh(mean + sd * special.ndtri(TAILS))


def _of_draws(values):
    return values.mean(), values.std(), *np.quantile(values, TAILS)
