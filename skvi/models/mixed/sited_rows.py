"""Mixed effects with other likelihoods: Gaussian sites in place of rows."""

from functools import partial

import numpy as np

from skvi.inference.acceleration import Anderson
from skvi.inference.drivers import Damped
from skvi.inference.engine import climb
from skvi.models.base import Statistics
from skvi.models.mixed.model import MixedModel
from skvi.models.mixed.posterior import MixedPosterior, block_sums

N_FIRST = 3  # updates of components for the first sites, which cost no pass
MOST_COORDINATES = 1 << 18  # of sites that are extrapolated
MOST_PASSES = 100  # of the rows, until sites have settled
N_PLAIN = 2  # of these before the first extrapolation
SETTLED = 1e-7  # posterior sds
SETTLED_BOUND = 1e-6  # nats


class SitedRows(MixedModel):
    """Other likelihoods: Gaussian sites in place of rows."""

    def statistics(self, q, block):
        return Statistics(self._statistics(q.gaussian, block))

    def _statistics(self, gaussian, block):
        mean = block.rows.dot(gaussian.mean)
        variance = np.maximum(gaussian.precision.of_predictors(block.rows), 0.0)
        found = self.likelihood.expect(block.y, mean + block.offset, variance)
        W = block.weight * found.curvature
        values = self._sites(block, W, block.weight * found.gradient + W * mean)
        values["log_likelihood"] = float(block.weight @ found.value)
        return values

    @staticmethod
    def _sites(block, W, h):
        return {"gram": block.rows.gram(W), "linear": block.rows.tdot(h)}

    def start(self, block, before=None):
        """The posterior to start from: another fit's after a step, or a cold one."""
        cold = self.cold(block, before)
        if before is None or before.parts.keys() != self.parts.keys():
            return cold
        if before.gaussian.precision.layout != self.layout:
            return cold
        driver = Damped(self, [block])
        try:
            with np.errstate(all="ignore"):
                values = self._statistics(before.gaussian, block)
                warm = self.posterior(values, before.components)
        except np.linalg.LinAlgError:
            return cold
        return warm if driver.bound(warm) > driver.bound(cold) else cold

    def cold(self, block, before=None):
        """The posterior of working responses; of another fit's components, if given."""
        centre = self.likelihood.centre(block.y, block.weight, block.offset)
        W, eta = self.likelihood.start(block.y, block.offset, centre, None)
        W = block.weight * W
        values = self._sites(block, W, W * (eta - block.offset))
        components = None if before is None else before.components
        q = self.posterior(values, self.first_components(components))
        if components is None:
            for _ in range(N_FIRST):
                q = self.posterior(values, self.absorb(q))
        return q

    def global_step(self, values, warm, rho=1.0):
        components = self.absorb(warm)
        if rho == 1.0:
            return self.posterior(values, components)
        # The prior's part of the natural parameter goes no further than the sites'.
        sites = {
            name: (1.0 - rho) * warm.sites[name] + rho * values[name]
            for name in ("gram", "linear")
        }
        now = self.precisions(components)
        between = [
            (1.0 - rho) * old + rho * new
            for old, new in zip(warm.sites["precisions"], now)
        ]
        return self.posterior(sites, components, precisions=between)

    def coordinates(self, q):
        """Components and sites, unless those are very many."""
        gram = q.sites["gram"].coordinates()
        if len(gram) > MOST_COORDINATES:
            return super().coordinates(q)
        return np.concatenate([super().coordinates(q), q.sites["linear"], gram])

    def at(self, coordinates, values, warm):
        components, _, rest = self._components_at(coordinates, warm)
        if len(rest):
            linear, gram = np.split(rest, [self.layout.dim])
            values = {"linear": linear, "gram": warm.sites["gram"].at(gram)}
        return self.posterior(values, components)

    def effects(self, block, precisions, warm, family=None, settled=SETTLED):
        """q(theta), its sites settled, at known precisions of components."""
        model = KnownComponents(self, precisions, family or self.family)
        fit = climb(
            model,
            Damped(model, [block], trusting=True),
            model.posterior(model._statistics(warm, block)),
            max_iter=MOST_PASSES,
            tol=SETTLED_BOUND,
            distance_tol=settled,
            accelerator=partial(Anderson, n_plain=N_PLAIN),
        )
        if not fit.converged:
            raise np.linalg.LinAlgError(
                "Random effects do not settle where variance components are moved: a "
                "prior of smaller scale in sd_prior may help."
            )
        return fit.posterior.gaussian

    def log_likelihood(self, block, gaussian, squares, precisions):
        """``E log p(y)``."""
        return self._statistics(gaussian, block)["log_likelihood"]

    def squares(self, block, gaussian, precisions):
        """Expected squares of effects, summed over levels."""
        sums = block_sums(gaussian.precision, len(precisions))
        return self.scatters(gaussian, sums)

    def posterior(self, values, components, noise=None, precisions=None):
        if precisions is None:
            precisions = self.precisions(components)
        gram, linear = values["gram"], values["linear"]
        gaussian = self.family.gaussian(gram, linear, self.ridge, precisions)
        sites = {"gram": gram, "linear": linear, "precisions": precisions}
        return MixedPosterior(gaussian, self.parts, components, None, sites)

    def expected_log_likelihood(self, values, q):
        return values["log_likelihood"]


class KnownComponents(SitedRows):
    """The same rows with known variance components: what their response needs."""

    def __init__(self, model, precisions, family):
        super().__init__(
            model.likelihood,
            model.layout,
            model.parts,
            model.ridge,
            model.priors,
            None,
            family,
        )
        self.known = precisions
        self.log_dets = [-np.linalg.slogdet(each)[1] for each in precisions]

    def posterior(self, values, components=None, noise=None, precisions=None):
        return super().posterior(values, {}, precisions=self.known)

    def absorb(self, q):
        return {}

    def precisions(self, components):
        return self.known

    def expected_log_prior(self, q):
        sums = block_sums(q.gaussian.precision, len(self.known))
        scatters = self.scatters(q.gaussian, sums)
        return self.log_prior_of_effects(
            q.gaussian, scatters, self.known, self.log_dets
        )
