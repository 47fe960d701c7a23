"""Tables of random effects and of variance components."""

from html import escape

import numpy as np
from scipy import special, stats

N_NODES = 40  # of correlations
N_POINTS = 2000  # of a law that has no closed form
MOST_SKEWNESS = 2.0
EFFECTS_HEAD = ["group", "level", "effect", "mean", "sd", "shrinkage"]
LONGEST = 60  # rows of a table that are printed


class _Table:
    """Rows of cells that print as text and, in notebooks, as HTML."""

    _title = ""

    def _cells(self):
        raise NotImplementedError

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

    def add_sds(self, names, moments, units):
        """Standard deviations, by what is known of their logs."""
        if moments.shape is not None:
            laws = [moments.shape] * len(names)
            read = _of_inverse_gamma
        else:
            laws, read = moments.log_skewness, _of_skewed_log
        logs = moments.log_mean + np.log(units)
        for name, mean, sd, law in zip(names, logs, moments.log_sd, laws):
            self._add(name, *read(mean, sd, law), mean, sd)

    def add_correlation(self, name, angle_mean, angle_sd):
        """A correlation, by the Gaussian law of its inverse hyperbolic tangent."""
        nodes, weights = special.roots_hermitenorm(N_NODES)
        values = np.tanh(angle_mean + angle_sd * nodes)
        weights = weights / weights.sum()
        mean = weights @ values
        sd = np.sqrt(weights @ (values - mean) ** 2)
        reach = special.ndtri(0.975) * angle_sd
        ends = np.tanh([angle_mean - reach, angle_mean + reach])
        self._add(name, mean, sd, *ends, np.nan, np.nan)

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


def _of_inverse_gamma(log_mean, log_sd, shape):
    """Mean, sd and interval of the root of an inverse gamma variable."""
    root = np.exp(log_mean + 0.5 * special.psi(shape))  # of the rate
    mean = sd = np.inf
    if shape > 0.5:
        mean = root * np.exp(special.gammaln(shape - 0.5) - special.gammaln(shape))
    if shape > 1.0:
        sd = np.sqrt(root**2 / (shape - 1.0) - mean**2)
    return mean, sd, *(root / np.sqrt(special.gammaincinv(shape, [0.975, 0.025])))


def _of_skewed_log(log_mean, log_sd, skewness):
    """The same where the log has these moments: a gamma law of either sign."""
    law = stats.pearson3(np.clip(skewness, -MOST_SKEWNESS, MOST_SKEWNESS))
    values = np.exp(log_mean + log_sd * law.ppf((np.arange(N_POINTS) + 0.5) / N_POINTS))
    ends = np.exp(log_mean + log_sd * law.ppf([0.025, 0.975]))
    return values.mean(), values.std(), *ends
