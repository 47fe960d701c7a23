"""What a fit of a mixed-effects model tells: tables of effects and components."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skvi.distributions import LocationScaleMixture
from skvi.estimators.effects_tables import (
    EffectsTable,
    RandomEffects,
    VarianceComponents,
)
from skvi.estimators.linear_summary import LinearSummaryMixin
from skvi.models.mixed import NOISE


class MixedSummaryMixin(LinearSummaryMixin):
    """``summary``, ``random_effects_``, ``variance_components_``, covariances."""

    @property
    def coef_covariance_(self):
        """Posterior covariance of the weights, (n_features, n_features)."""
        check_is_fitted(self)
        p = len(self.X_scale_)
        scale = self._fitted_units.scale / self.X_scale_
        return self._fitted_law.common_covariance()[:p, :p] * np.outer(scale, scale)

    @property
    def random_effects_(self):
        """Table of the random effects of all factors."""
        check_is_fitted(self)
        return RandomEffects({name: self._effects_table(name) for name in self.levels_})

    def _effects_table(self, name):
        q, law, factors = self._fitted_q, self._fitted_law, self._fitted_factors
        at, scale = q.parts[f"effects_{name}"], self._fitted_effect_scale[name]
        position = list(q.components).index(name)
        return EffectsTable(
            name,
            self.levels_[name],
            ["intercept", *factors.slope_names[factors.names.index(name)]],
            law.mean[at] * scale,
            np.sqrt(law.effect_variances(position, at)) * scale,
            np.diag(law.components[name].wishart.inverse_mean) * scale**2,
        )

    @property
    def variance_components_(self):
        """Table of standard deviations and correlations."""
        check_is_fitted(self)
        law, factors = self._fitted_law, self._fitted_factors
        table = VarianceComponents()
        for name, slope_names in zip(factors.names, factors.slope_names):
            effects = ["intercept", *slope_names]
            pairs = zip(*np.triu_indices(len(effects), 1))
            names = [f"sd({name}: {effect})" for effect in effects]
            names += [f"corr({name}: {effects[a]}, {effects[b]})" for a, b in pairs]
            table.add(names, law.moments(name), self._fitted_effect_scale[name])
        if law.noise is not None:
            table.add(["sd(noise)"], law.moments(NOISE), self._fitted_units.scale)
        return table

    def _laws(self, rows, level=1.0, noise=False):
        """Gaussian laws of ``level * b + rows @ w``, in the data's units."""
        units = self._fitted_units
        level = np.broadcast_to(level, len(rows))
        shift = level * units.shift
        if self._fitted_frame.level:
            rows = np.column_stack([rows, level])
        law = self._fitted_law
        mean = rows @ law.mean[: rows.shape[1]]
        common = law.common_covariance()
        variance = np.maximum(np.einsum("na,ab,nb->n", rows, common, rows), 0.0)
        return [
            LocationScaleMixture(
                np.ones(1),
                np.array([np.inf]),
                (shift + units.scale * mean)[:, None],
                units.scale * np.sqrt(variance)[:, None],
            )
        ]

    def _output_names(self):
        return None

    def _summary_notes(self):
        table = self.variance_components_
        notes = {"elbo": self.elbo_}
        notes.update(
            (name, float(mean))
            for name, mean in zip(table.names, getattr(table, "mean", ()))
        )
        return notes
