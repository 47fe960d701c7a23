r"""Structural time series: known dynamics by name, of which the variances are unknown.

Each column of y is a series of its own. Its state stacks the components:

- level: ``level_t = level_{t-1} (+ slope_{t-1}) + w``
- slope: ``slope_t = slope_{t-1} + w``
- seasonal of period s, in trigonometric form: for each frequency
  :math:`\lambda_j = 2 \pi j / s`, j = 1, ..., s // 2, a pair that turns by
  :math:`\lambda_j` a step (one number that changes its sign for j = s / 2); all of
  their noises have one variance. y sees the first of each pair.

Reference: Harvey (1989), Forecasting, structural time series models and the Kalman
filter, sections 2.3.2 to 2.3.4.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag

COMPONENTS = {
    "local_level": ("level",),
    "local_linear_trend": ("level", "slope"),
    "seasonal": ("level", "seasonal"),
    "basic_structural": ("level", "slope", "seasonal"),
}


@dataclass(frozen=True)
class Structure:
    """The dynamics of all columns.

    Attributes
    ----------
    matrix : array of shape (K, K)
        A.
    loadings : array of shape (D, K)
        C.
    members : dict of str to array of int of shape (D, n)
        The states of each component, by column.
    names : list of str
        Of the states of one column.
    """

    matrix: np.ndarray
    loadings: np.ndarray
    members: dict
    names: list

    @classmethod
    def named(cls, structure, n_columns, period=None):
        components = COMPONENTS[structure]
        blocks, loads, sizes, names = [], [], {}, []
        for component in components:
            block, load = _seasonal(period) if component == "seasonal" else _plain()
            load = load if component != "slope" else np.zeros(1)
            blocks.append(block)
            loads.append(load)
            sizes[component] = len(load)
            each = [component] if len(load) == 1 else _numbered(component, len(load))
            names.extend(each)
        matrix = block_diag(*blocks)
        if "slope" in components:
            matrix[0, 1] = 1.0
        load, K = np.concatenate(loads), len(matrix)
        columns = np.arange(n_columns)[:, None] * K
        members, start = {}, 0
        for component, size in sizes.items():
            members[component] = columns + np.arange(start, start + size)
            start += size
        return cls(
            np.kron(np.eye(n_columns), matrix),
            np.kron(np.eye(n_columns), load),
            members,
            names,
        )


def _plain():
    return np.ones((1, 1)), np.ones(1)


def _numbered(name, n):
    return [f"{name}{k}" for k in range(n)]


def _seasonal(period):
    blocks, loads = [], []
    for j in range(1, period // 2 + 1):
        if 2 * j == period:
            blocks.append(-np.ones((1, 1)))
            loads.append([1.0])
            continue
        angle = 2.0 * np.pi * j / period
        c, s = np.cos(angle), np.sin(angle)
        blocks.append(np.array([[c, s], [-s, c]]))
        loads.append([1.0, 0.0])
    return block_diag(*blocks), np.concatenate(loads)
