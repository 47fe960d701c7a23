r"""Streams: a block beside the past, and statistics in the units of another frame.

The past has no rows left. Its sites stand for them: as the parabola

.. math::

    s^T m - \tfrac12 m^T S m - \tfrac12 \mathrm{tr}(S V)

in the bound, which a step on a new block must not lower.

With ``theta_old = B theta_new + d`` a Gaussian site (S, s) becomes
``(B'SB, B'(s - S d))``: what streams have added up stays right when their running means
and scales move.
"""

import numpy as np

from skvi.linalg import DenseGram


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


class WithPast:
    """The model of one block, scaled up, blended with the statistics of earlier ones.

    Parameters
    ----------
    model : GLMModel
    past : Statistics
    rho, scale : float
        Weight of the block, and how many times its rows stand for.
    """

    def __init__(self, model, past, rho, scale):
        self.model = model
        self.past = past
        self.rho = rho
        self.scale = scale

    def __getattr__(self, name):
        return getattr(self.model, name)

    def statistics(self, q, block):
        new = self.model.statistics(q, block)
        blended = self.past.blend(new, self.rho, self.scale)
        remembered = (1.0 - self.rho) * self._parabola(q)
        own = self.rho * self.scale * new.values["log_likelihood"]
        return blended.with_values(
            {**blended.values, "log_likelihood": remembered + own}
        )

    def _parabola(self, q):
        S, s = self.past.values["precision"], self.past.values["linear"]
        m = q.gaussian.mean
        total = s @ m - 0.5 * m @ S @ m
        total -= 0.5 * q.gaussian.precision.trace_solve(DenseGram(S))
        if "dispersion" in self.past.values:
            W, linear = self.past.values["dispersion"]
            mean, variance = q.dispersion_law
            total += linear * mean - 0.5 * W * (mean**2 + variance)
        return total

    def cold(self, block, centre, law):
        """The posterior of the past's sites and the block's working responses."""
        new = self.model.working(block, centre).values
        past = self.model.sites(self.past.values, law)
        sites = {
            name: (1.0 - self.rho) * v + self.rho * self.scale * new[name]
            for name, v in past.items()
        }
        if "dispersion" in sites:
            sites["dispersion"] = past["dispersion"]
        return self.model.posterior(sites, self.model.first_weight_precision())
