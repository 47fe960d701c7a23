r"""Statistics in the units of another frame.

With ``theta_old = B theta_new + d`` a Gaussian site (S, s) becomes
``(B'SB, B'(s - S d))``: what streams have added up stays right when their running means
and scales move.
"""

import numpy as np


def moved(statistics, n_outputs, weight, before, after):
    """Statistics of ColumnSites in other units.

    Parameters
    ----------
    statistics : Statistics
    n_outputs : int
    weight : float
        Of the rows that they are of.
    before, after : tuples (Frame, Units)
    """
    (frame, units), (new_frame, new_units) = before, after
    ratio = new_units.scale / units.scale
    B = ratio * frame.moved_to(new_frame).T
    d = np.zeros(len(B))
    if frame.level:
        d[-1] = (new_units.shift - units.shift) / units.scale
    values = dict(statistics.values)
    K, width = n_outputs, len(B)
    S = values["precision"].reshape(K, width, K, width)
    s = values["linear"].reshape(K, width)
    s = s - np.einsum("kilj,j->ki", S, d)
    values["linear"] = (s @ B).ravel()
    S = np.einsum("ia,kilj,jb->kalb", B, S, B, optimize=True)
    values["precision"] = S.reshape(K * width, K * width)
    if "dispersion" in values and units.location:
        W, linear = values["dispersion"]
        values["dispersion"] = np.array([W, linear - W * 2.0 * np.log(ratio)])
    if units.location:
        values["log_likelihood"] += weight * np.log(ratio)
    return statistics.with_values(values)
