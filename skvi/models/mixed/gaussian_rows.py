"""Mixed effects with Gaussian noise: every update is an exact maximum."""

import numpy as np

from skvi.distributions import InverseWishart
from skvi.distributions.gaussian import LOG_2PI
from skvi.models.base import Statistics
from skvi.models.mixed.model import FIRST_VARIANCE, N_STEPS, MixedModel
from skvi.models.mixed.posterior import MixedPosterior, block_sums

LARGEST_WEIGHT = 1e12  # of a row, in standard units


class GaussianRows(MixedModel):
    """Gaussian noise: conjugate."""

    def normal(self, block):
        """The normal matrix and its right-hand side, formed once."""
        if block.memory is None:
            target = block.weight * (block.y - block.offset)
            block.memory = block.rows.gram(block.weight), block.rows.tdot(target)
        return block.memory

    def statistics(self, q, block):
        gram, linear = self.normal(block)
        residual = block.y - block.offset - block.rows.dot(q.gaussian.mean)
        return Statistics(
            {
                "gram": gram,
                "linear": linear,
                "square": float(block.weight @ residual**2),
                "count": float(block.weight.sum()),
            }
        )

    def start(self, block, before=None):
        gram, linear = self.normal(block)
        noise = InverseWishart(4.0, 4.0 * FIRST_VARIANCE)
        components = None
        if before is not None:
            components, noise = before.components, before.noise
        values = {"gram": gram, "linear": linear}
        return self.posterior(values, self.first_components(components), noise)

    def global_step(self, values, warm, rho=1.0):
        square = values["square"] + self._trace(warm)
        noise = self.noise_prior.absorb(
            values["count"], np.array([[square]]), warm.noise, N_STEPS
        )
        return self.posterior(values, self.absorb(warm), noise)

    def posterior(self, values, components, noise):
        weight = noise.mean_precision[0, 0]
        if weight > LARGEST_WEIGHT:
            raise np.linalg.LinAlgError(
                "The noise variance falls to zero: rows are fitted exactly, and the "
                "prior of the noise does not keep it up. Give noise_sd_prior="
                "('inverse_wishart', scale, dof), or weight_precision a larger value."
            )
        gaussian = self.family.gaussian(
            weight * values["gram"],
            weight * values["linear"],
            self.ridge,
            self.precisions(components),
        )
        return MixedPosterior(gaussian, self.parts, components, noise)

    def at(self, coordinates, values, warm):
        components, noise, _ = self._components_at(coordinates, warm)
        return self.posterior(values, components, noise)

    def _trace(self, q):
        """``sum_i weight_i Var eta_i``."""
        precisions = self.precisions(q.components)
        weight = q.noise.mean_precision[0, 0]
        return self._trace_at(q.gaussian.precision, q.block_sums, precisions, weight)

    def _trace_at(self, precision, block_sums, precisions, weight):
        inside = self.layout.dim
        inside -= np.sum(self.ridge * np.diag(precision.common_covariance()))
        for each, block_sum in zip(precisions, block_sums):
            inside -= np.sum(each * block_sum)
        return inside / weight

    def effects(self, block, precisions, warm, family=None, settled=None):
        """q(theta) at known precisions of components and noise."""
        *precisions, weight = precisions
        gram, linear = (weight[0, 0] * part for part in self.normal(block))
        return (family or self.family).gaussian(gram, linear, self.ridge, precisions)

    @staticmethod
    def log_likelihood(block, gaussian, squares, precisions):
        """``E log p(y)`` at a known precision of the noise."""
        weight = precisions[-1][0, 0]
        logs = block.weight.sum() * (LOG_2PI - np.log(weight))
        return -0.5 * (logs + weight * squares[-1][0, 0])

    def squares(self, block, gaussian, precisions):
        """Expected squares of effects, summed over levels, and of residuals."""
        *precisions, weight = precisions
        sums = block_sums(gaussian.precision, len(precisions))
        residual = block.y - block.offset - block.rows.dot(gaussian.mean)
        square = block.weight @ residual**2 + self._trace_at(
            gaussian.precision, sums, precisions, weight[0, 0]
        )
        return [*self.scatters(gaussian, sums), np.array([[square]])]

    def expected_log_likelihood(self, values, q):
        n = values["count"]
        square = values["square"] + self._trace(q)
        logs = n * (LOG_2PI + q.noise.mean_log_det)
        return -0.5 * (logs + q.noise.mean_precision[0, 0] * square)
