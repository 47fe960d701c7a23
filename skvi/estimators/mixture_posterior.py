"""What a fitted mixture says of its parameters."""

import numpy as np
from scipy import stats
from sklearn.utils.validation import check_is_fitted

from skvi.estimators.base import as_generator
from skvi.estimators.prediction import check_probability
from skvi.estimators.summary import Summary
from skvi.models.mixture import local


class MixtureSummaryMixin:
    """Moments, intervals and draws of weights, means and precisions.

    ``_local_law(X)`` gives the model, posterior and rows whose local variables are
    drawn.
    """

    @property
    def means_covariance_(self):
        """Posterior covariance of each mean, (n_components, n_features, n_features)."""
        check_is_fitted(self)
        return self.posterior_.covariance("means")

    @property
    def means_std_(self):
        """Posterior standard deviations of the means, (n_components, n_features)."""
        check_is_fitted(self)
        return np.sqrt(self.posterior_.components.variance("means"))

    def sample_posterior(self, n_samples=1000, random_state=None, X=None):
        """Draw the model's variables from the posterior.

        Parameters
        ----------
        n_samples : int, default=1000
            Number of draws.

        random_state : int, RandomState instance or None, default=None
            Determines the draws; pass an int for the same ones every time.

        X : array-like of shape (n_rows, n_features), default=None
            Rows whose local variables are drawn, too.

        Returns
        -------
        draws : dict of str to ndarray of shape (n_samples, ...)
            ``weights`` (n_components,), ``means`` (n_components, n_features),
            ``precisions`` (as ``precisions_``), in the data's units. With `X` also
            ``assignments`` (n_rows,), ``scales`` (n_rows,) of Student-t emissions, and
            ``missing``, the NaN entries in the order of X's rows, where covariances are
            full or tied.
        """
        draws = super().sample_posterior(n_samples, random_state)
        if X is not None:
            rng = as_generator(random_state).spawn(1)[0]
            draws.update(local.sample(*self._local_law(X), int(n_samples), rng))
        return draws

    def log_posterior_density(self, draws, X=None):
        """Log density of draws under the posterior.

        Parameters
        ----------
        draws : dict
            As ``sample_posterior`` returns them.

        X : array-like of shape (n_rows, n_features), default=None
            The rows given there; their local variables are then counted.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        total = self.posterior_.log_density(draws)
        if X is None:
            return total
        return total + local.log_density(*self._local_law(X), draws)

    def weights_interval(self, confidence_level=0.95):
        """Central posterior intervals of the weights of the components.

        Parameters
        ----------
        confidence_level : float, default=0.95
            Probability of each interval, strictly between 0 and 1.

        Returns
        -------
        interval : ndarray of shape (n_components, 2)
            Of the Beta law with the mean and variance of each weight: exact for a
            Dirichlet and for the first stick, a close approximation for later ones.
        """
        check_is_fitted(self)
        check_probability(confidence_level, "confidence_level")
        weights = self.posterior_.weights
        mean, variance = weights.mean, weights.variance()
        out = np.repeat(mean[:, None], 2, axis=1)
        free = (variance > 0.0) & (mean < 1.0) & (mean > 0.0)
        mean, variance = mean[free], variance[free]
        total = mean * (1.0 - mean) / variance - 1.0
        tail = 0.5 * (1.0 - confidence_level)
        law = stats.beta(mean * total, (1.0 - mean) * total)
        out[free] = np.column_stack([law.ppf(tail), law.ppf(1.0 - tail)])
        return out

    def summary(self, confidence_level=0.95):
        """Table of the weights and means of the components.

        Parameters
        ----------
        confidence_level : float, default=0.95
            Probability of the central intervals, strictly between 0 and 1.

        Returns
        -------
        summary : Summary
            Mean, sd, interval and P(> 0) of ``weight[k]`` and ``mean[k, feature]``;
            prints as text, HTML in notebooks, ``to_pandas()``.
        """
        check_is_fitted(self)
        check_probability(confidence_level, "confidence_level")
        tail = 0.5 * (1.0 - confidence_level)
        weights = self.posterior_.weights
        interval = self.weights_interval(confidence_level)
        sd = np.sqrt(weights.variance())
        rows = [np.column_stack([weights.mean, sd, interval, np.ones(len(sd))])]
        df, loc, scale = self.posterior_.components.means_law()
        law = stats.t(df, loc, scale)
        ends = [law.ppf(tail), law.ppf(1.0 - tail), law.sf(0.0)]
        columns = [self.means_, self.means_std_, *ends]
        rows.append(np.stack(columns, axis=-1).reshape(-1, 5))
        names = getattr(self, "feature_names_in_", None)
        if names is None:
            names = [f"x{j}" for j in range(self.n_features_in_)]
        K = range(len(sd))
        labels = [f"weight[{k}]" for k in K]
        labels += [f"mean[{k}, {name}]" for k in K for name in names]
        return Summary(
            type(self).__name__,
            labels,
            np.concatenate(rows),
            confidence_level,
            {"elbo": self.elbo_},
        )
