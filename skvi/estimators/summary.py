"""The table that ``summary()`` returns: text, HTML, pandas."""

from html import escape

import numpy as np

COLUMNS = ("mean", "sd", "lower", "upper", "P(> 0)")


class Summary:
    """Posterior summaries of named quantities.

    Attributes
    ----------
    names : list of str
    mean, sd, lower, upper, probability_positive : ndarrays of shape (n_names,)
        Posterior mean and sd, ends of the central interval, and P(quantity > 0).
    confidence_level : float
        Probability of the interval.
    notes : dict of str to float
        Figures of the whole fit, such as the ELBO.
    """

    def __init__(self, title, names, values, confidence_level, notes):
        self.title = title
        self.names = list(names)
        (
            self.mean,
            self.sd,
            self.lower,
            self.upper,
            self.probability_positive,
        ) = np.asarray(values, dtype=np.float64).reshape(-1, 5).T
        self.confidence_level = confidence_level
        self.notes = notes

    def _rows(self):
        table = np.column_stack(
            [self.mean, self.sd, self.lower, self.upper, self.probability_positive]
        )
        return [
            [*(f"{value:.4g}" for value in row[:4]), f"{row[4]:.3f}"] for row in table
        ]

    def __repr__(self):
        rows = self._rows()
        width = max([len(name) for name in self.names], default=0)
        widths = [
            max(len(c), *(len(row[k]) for row in rows)) if rows else len(c)
            for k, c in enumerate(COLUMNS)
        ]
        lines = [f"{self.title} ({self.confidence_level:.0%} intervals)"]
        head = "  ".join(c.rjust(w) for c, w in zip(COLUMNS, widths))
        lines.append(" " * width + "  " + head)
        for name, row in zip(self.names, rows):
            cells = "  ".join(c.rjust(w) for c, w in zip(row, widths))
            lines.append(f"{name.ljust(width)}  {cells}")
        lines.extend(f"{key}: {value:.6g}" for key, value in self.notes.items())
        return "\n".join(lines)

    def _repr_html_(self):
        head = "".join(f"<th>{escape(c)}</th>" for c in COLUMNS)
        body = "".join(
            f"<tr><th>{escape(name)}</th>"
            + "".join(f"<td>{cell}</td>" for cell in row)
            + "</tr>"
            for name, row in zip(self.names, self._rows())
        )
        notes = "; ".join(f"{escape(k)}: {v:.6g}" for k, v in self.notes.items())
        caption = f"{escape(self.title)} ({self.confidence_level:.0%} intervals)"
        return (
            f"<table><caption>{caption}<br>{notes}</caption>"
            f"<thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
        )

    def to_pandas(self):
        """The table as a pandas DataFrame, one row a quantity."""
        import pandas as pd

        data = [self.mean, self.sd, self.lower, self.upper, self.probability_positive]
        return pd.DataFrame(dict(zip(COLUMNS, data)), index=self.names)


def contrast_row(name, weights, feature_names):
    """One coefficient a name, from a dict or an array (without the intercept)."""
    p = len(feature_names)
    if isinstance(weights, dict):
        unknown = [key for key in weights if key not in feature_names]
        if unknown:
            raise ValueError(
                f"contrasts[{name!r}] names {unknown}, which are not features; the "
                f"features are {feature_names}."
            )
        row = np.zeros(p)
        for key, value in weights.items():
            row[feature_names.index(key)] = value
        return row
    row = np.asarray(weights, dtype=np.float64)
    n_features = p - (feature_names[-1:] == ["intercept"])
    if row.shape != (n_features,):
        raise ValueError(
            f"contrasts[{name!r}] has shape {row.shape}; give one coefficient for each "
            f"of the {n_features} features, or a dict by feature name."
        )
    return np.concatenate([row, np.zeros(p - n_features)])
