"""Tables of the weights of a linear model, and of linear combinations of them."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skvi.estimators.prediction import check_probability
from skvi.estimators.summary import Summary, contrast_row


class LinearSummaryMixin:
    """``summary`` for estimators that know the laws of linear combinations.

    ``_laws(rows, level, noise=False)`` lists, by output, the law of ``level * b + rows
    @ w`` in the data's units, for rows in standard units; ``_output_names()`` names
    the outputs (None: there is one), ``_summary_notes()`` has figures of the whole fit.
    """

    def summary(self, confidence_level=0.95, contrasts=None):
        """Tabulate the posterior of the weights, or of linear combinations of them.

        Parameters
        ----------
        confidence_level : float, default=0.95
            Probability of the central intervals.

        contrasts : dict of str to (array-like of shape (n_features,) or dict), \
                default=None
            Linear combinations of the weights by name: one coefficient a feature, or
            a dict of feature name (or "intercept") to coefficient. None tabulates
            every weight and the intercept.

        Returns
        -------
        summary : Summary
            Prints as text and, in notebooks, as HTML; ``to_pandas()``. With arrays
            ``mean``, ``sd``, ``lower``, ``upper``, ``probability_positive``.

        Examples
        --------
        >>> from sklearn.datasets import load_diabetes
        >>> from skvi import VariationalBayesianRegression
        >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
        >>> model = VariationalBayesianRegression().fit(X[["bmi", "bp"]], y)
        >>> model.summary(contrasts={"bmi - bp": {"bmi": 1, "bp": -1}})
        VariationalBayesianRegression (95% intervals)
                  mean   sd  lower  upper  P(> 0)
        bmi - bp ...
        """
        check_is_fitted(self)
        check_probability(confidence_level, "confidence_level")
        names = self._feature_names()
        if contrasts is None:
            contrasts = {name: {name: 1.0} for name in names}
            if self.fit_intercept:
                contrasts["intercept"] = {"intercept": 1.0}
        if not contrasts:
            raise ValueError(
                "contrasts={} names no linear combination; leave it None for a table "
                "of all weights."
            )
        names_and_one = [*names, "intercept"] if self.fit_intercept else names
        rows = np.stack(
            [contrast_row(k, v, names_and_one) for k, v in contrasts.items()]
        )
        level = rows[:, -1] if self.fit_intercept else np.zeros(len(rows))
        # The intercept is the level at the mean of X less what the weights make of it.
        rows = rows[:, : len(names)] - np.outer(level, self.X_offset_)
        tail = 0.5 * (1.0 - confidence_level)
        table = self._tabulate(rows / self.X_scale_, tail, level)
        names, outputs = list(contrasts), self._output_names()
        if outputs is not None:
            names = [f"{output}: {name}" for name in names for output in outputs]
        notes = self._summary_notes()
        return Summary(type(self).__name__, names, table, confidence_level, notes)

    def _tabulate(self, rows, tail, level):
        """(rows, targets, 5): mean, sd, interval and P(> 0) of level * b + rows @ w."""
        step = max(1, (1 << 20) // max(1, rows.shape[1]))
        parts = []
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            laws = self._laws(rows[some], level=level[some], noise=False)
            columns = [
                [
                    law.mean,
                    np.sqrt(law.variance()),
                    *law.quantile([tail, 1.0 - tail]).T,
                    1.0 - law.cdf(np.zeros(len(law.mean))),
                ]
                for law in laws
            ]
            parts.append(np.transpose(columns, (2, 0, 1)))
        return np.concatenate(parts)

    def _feature_names(self):
        """Names of the columns of X without those that have a role."""
        default = [f"x{j}" for j in range(self.n_features_in_)]
        names = np.asarray(getattr(self, "feature_names_in_", default), dtype=object)
        return list(names[getattr(self, "_fitted_kept", slice(None))])
