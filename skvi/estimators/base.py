"""What every estimator of skvi shares: one posterior, and everything read off it."""

import functools
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skvi._sklearn import Interval, StrOptions
from skvi.callbacks import CallbackSupportMixin


def as_generator(random_state):
    """A numpy Generator from scikit-learn's random_state (None, int, RandomState)."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    return np.random.default_rng(
        check_random_state(random_state).randint(2**31, size=4)
    )


def check_count(value, name, what="the number of draws"):
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive integer: {what}.")


def keeps_fit_on_error(method):
    """Decorator of ``fit``-like methods: a failing call loses nothing fitted before."""

    @functools.wraps(method)
    def guarded(self, *args, **kwargs):
        before = dict(self.__dict__)
        try:
            return method(self, *args, **kwargs)
        except BaseException:
            # Callback bookkeeping stays: its own teardown is still to come.
            fitted = {k for k in self.__dict__ if _is_fitted_state(k)}
            for name in fitted - before.keys():
                del self.__dict__[name]
            for name in before:
                if _is_fitted_state(name):
                    self.__dict__[name] = before[name]
            raise

    return guarded


def _is_fitted_state(name):
    return name.endswith("_") or name.startswith("_fitted")


class VariationalEstimator(CallbackSupportMixin, BaseEstimator):
    """Base of the estimators.

    A subclass fits a posterior (``posterior_``) and sets, from nothing but it and the
    names and scales of the data, its fitted attributes.
    """

    _parameter_constraints = {
        "posterior": [StrOptions({"mean_field", "structured"})],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0.0, None, closed="left")],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
    }

    def sample_posterior(self, n_samples=1000, random_state=None):
        """Draw the model's variables from the posterior.

        Parameters
        ----------
        n_samples : int, default=1000
            Number of draws.

        random_state : int, RandomState instance or None, default=None
            Determines the draws; pass an int for the same ones every time.

        Returns
        -------
        draws : dict of str to ndarray of shape (n_samples, ...)
            By name of the variable, in the data's units. ``posterior_.log_density``
            takes them.
        """
        check_is_fitted(self)
        check_count(n_samples, "n_samples")
        return self._draw(int(n_samples), as_generator(random_state))

    def _draw(self, n, rng):
        return self.posterior_.sample(n, rng)

    def _report(self, iteration, elbo):
        """``verbose``: a line an iteration, at powers of two unless verbose > 1."""
        if self.verbose > 1 or (self.verbose and iteration & (iteration - 1) == 0):
            print(f"[{type(self).__name__}] iteration {iteration}: elbo {elbo:.6f}")
