"""What zero and one mean for the response, and running totals of it.

Counts and classes have a linear predictor without units: only its origin moves. Real
responses are shifted and scaled.
"""

from dataclasses import dataclass

import numpy as np

from skvi.models.glm.data import ColumnTotals

MAD = 1.4826  # sds of a Gaussian to a median absolute deviation


@dataclass(frozen=True)
class Units:
    """``linear predictor = shift + scale * (that in standard units)``.

    Attributes
    ----------
    shift, scale : float
    location : bool
        Whether the response itself is measured in these units.
    """

    shift: float = 0.0
    scale: float = 1.0
    location: bool = False

    def inward(self, y, offset):
        """(y, offset) of rows in standard units."""
        if self.location:
            return (y - offset - self.shift) / self.scale, np.zeros_like(offset)
        return y, offset + self.shift


def in_other_units(law, before, after):
    """The law (mean, variance) of a log dispersion, or None, in other units."""
    if law is None or not after.location:
        return law
    return law[0] + 2.0 * np.log(before.scale / after.scale), law[1]


@dataclass(frozen=True)
class CountTotals:
    """Counts and exposures, added up."""

    counts: float
    log_exposure: float

    @classmethod
    def of(cls, y, weight, offset):
        most = offset.max()
        exposure = np.log(weight @ np.exp(offset - most)) + most
        return cls(float(weight @ y), float(exposure))

    def __add__(self, other):
        exposure = np.logaddexp(self.log_exposure, other.log_exposure)
        return CountTotals(self.counts + other.counts, float(exposure))

    def units(self, centre, centred):
        if centre is None:
            # Half a count more, so that there is a rate even without counts.
            rate = np.log(self.counts + 0.5) - self.log_exposure
            centre = rate if centred else 0.0
        return Units(float(centre))


@dataclass(frozen=True)
class LocationTotals:
    """Mean and spread of a response less its offset."""

    columns: ColumnTotals

    @classmethod
    def of(cls, y, weight, offset):
        return cls(ColumnTotals.of((y - offset)[:, None], weight))

    def __add__(self, other):
        return type(self)(self.columns + other.columns)

    def units(self, centre, centred):
        frame = self.columns.frame(centred)
        if centre is None:
            centre = frame.offset[0] if centred else 0.0
        return Units(float(centre), float(_checked(frame.scale[0])), True)


@dataclass(frozen=True)
class RobustTotals:
    """Median and median absolute deviation of the first rows; later ones keep them."""

    median: float
    scale: float

    @classmethod
    def of(cls, y, weight, offset):
        y = y - offset
        median = _median(y, weight)
        scale = MAD * _median(np.abs(y - median), weight)
        if not scale > 8.0 * np.finfo(np.float64).eps * abs(median):
            frame = ColumnTotals.of(y[:, None], weight).frame(True)
            scale = frame.scale[0]
        return cls(median, float(scale))

    def __add__(self, other):
        return self

    def units(self, centre, centred):
        if centre is None:
            centre = self.median if centred else 0.0
        return Units(float(centre), _checked(self.scale), True)


@dataclass(frozen=True)
class ClassTotals:
    """Classes, and successes of trials, have no units."""

    @classmethod
    def of(cls, y, weight, offset):
        return cls()

    def __add__(self, other):
        return self

    def units(self, centre, centred):
        return Units(0.0 if centre is None else float(centre))


def _median(y, weight):
    return float(np.quantile(y, 0.5, weights=weight, method="inverted_cdf"))


def _checked(scale):
    with np.errstate(over="ignore", under="ignore"):
        if not 0.0 < np.float64(scale) ** 2 < np.inf:
            raise ValueError(
                f"y has a standard deviation of {scale:.3g}, whose square is no float: "
                "measure y in other units."
            )
    return scale
