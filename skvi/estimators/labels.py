"""Labels of classes."""

import numpy as np
from sklearn.utils.validation import column_or_1d


def log_probabilities_of(logs, y, classes):
    """Of each row's own label, from the log probabilities of all classes."""
    labels = column_or_1d(y)
    if len(labels) != len(logs):
        raise ValueError(
            f"X has {len(logs)} rows, but y has {len(labels)} labels: pass one label a "
            "row."
        )
    unknown = np.setdiff1d(labels, classes)
    if unknown.size:
        raise ValueError(
            f"y holds {unknown.tolist()}, which are not among the classes of the fit, "
            f"{classes.tolist()}."
        )
    return logs[np.arange(len(logs)), np.searchsorted(classes, labels)]
