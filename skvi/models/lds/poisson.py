r"""Poisson observations with a log link.

.. math::

    y_{ts} \sim \mathrm{Poisson}(\exp(c_s \cdot x_t + d_s))

With x~ = (x_t, 1) of mean m~ and covariance V~ and theta_s = (c_s, d_s) Gaussian and
independent, too,

.. math::

    E\log p(y_{ts} \mid \cdot) = y_{ts}\, E\theta_s' \tilde m_t
        - r_{ts} - \log y_{ts}!, \qquad r_{ts} = E \exp(\theta_s'\tilde x_t)

where the expected rate r is known in closed form (``kernels/expected_rates.pyx``). It
is log-convex in each of the two, so that the best q(x) given q(theta), and the best
q(theta) given q(x), are maxima of concave problems.

Local step. Natural gradients give each step a *site*, a precision W_t and a linear term
``W_t m_t + g_t``, from the derivatives of the expected log density:

.. math::

    W_t = \sum_s r_{ts}\,(C_{ts} + a_{ts} a_{ts}'), \qquad
    g_t = \sum_s (y_{ts} E c_s - r_{ts} a_{ts})

with a and C the mean and covariance of c_s under the law tilted by ``exp(theta'x)``
(c_s and zero where it is known). J with W_t in its blocks gives the next q(x): Newton's
method, with the curvature averaged over q. A sequence whose bound would fall goes half
the way. W_t is never negative, so that J is positive definite throughout; exponents are
cut at ``MOST``.

Global step. The same for theta_s with the sums over steps as its site, from one pass;
hyperparameters before it.
"""

import numpy as np

from skvi.distributions import Product, Regressions
from skvi.kernels import expected_rates
from skvi.models.lds.block import chunks
from skvi.models.lds.loadings import UnknownLoadings

MOST = 80.0  # of exponents
MAX_ITER = 200  # of a local step
TOL = 1e-10  # rise of a sequence's bound that ends it, relative to the bound
STEP_TOL = 1e-7  # moves of means, in sds, that it ends with, too
IMPATIENCE = 0.2  # of its first rise, that ends a local step within a fit
NAMES = "observation_matrix", "intercept", None


class PoissonObservations:
    """What columns with and without known loadings share: the local step."""

    moves = False  # whether the global step moves sites of its own
    counts = True

    # -- local step --------------------------------------------------------------------

    def chain(self, base, q, block, family):
        """The best q(x) of a block; in a fit, one that is better than the last."""
        # A first step goes to its end: what is far off misleads the global step.
        patient, sites = block.patient or block.memory is None, block.memory
        if sites is None:
            sites = self._first_sites(q, block)
        lengths, n = block.sequences.lengths, block.sequences.n_sequences
        tol = TOL if patient else 0.0
        best, first_gain = np.full(n, -np.inf), np.full(n, np.inf)
        kept, target, last = sites, sites, None
        rho, done = np.ones(n), np.zeros(n, dtype=bool)
        for _ in range(MAX_ITER):
            chain = self._with_sites(base, sites, block, family)
            found, wanted = self._sites(q, chain, block)
            bound = self._bounds(base, chain, block) + block.per_sequence(found)
            # A fall within rounding is none.
            rises = bound >= best - 1e-13 * (1.0 + np.abs(best))
            gain = np.where(rises, np.maximum(bound - best, 0.0), np.inf)
            first_gain = np.where(np.isinf(first_gain), gain, first_gain)
            small = gain <= tol * (1.0 + np.abs(bound))
            if patient:
                small &= self._moves(last, chain, block) <= STEP_TOL
            else:
                small |= gain <= IMPATIENCE * first_gain
            small &= np.isfinite(gain)
            done |= rises & small
            if done.all():
                break
            # What is done stays as it is, so that it does not depend on the others.
            keep = np.repeat(rises & ~done, lengths)[:, None]
            kept = tuple(_where(keep, new, old) for new, old in zip(sites, kept))
            target = tuple(_where(keep, new, old) for new, old in zip(wanted, target))
            best = np.where(rises, bound, best)
            last = chain.mean if last is None else np.where(keep, chain.mean, last)
            rho = np.where(rises, np.minimum(1.0, 2.0 * rho), 0.5 * rho)
            step = np.repeat(rho * ~done, lengths)[:, None]
            sites = tuple(
                _where(step > 0.0, _blend(old, new, step), now)
                for old, new, now in zip(kept, target, sites)
            )
        else:  # out of patience: the best that was found
            sites = kept
            chain = self._with_sites(base, sites, block, family)
            found, _ = self._sites(q, chain, block)
        block.memory = sites
        block.expected = chain, found  # log densities, for the statistics
        return chain

    @staticmethod
    def _with_sites(base, sites, block, family):
        precision, linear = sites
        kind = block.kinds[1]
        information = base.information[kind] + precision
        J = base.precision(information, np.arange(block.n_steps))
        return family.best(J, base.add_linear(linear.copy()))

    @staticmethod
    def _bounds(base, chain, block):
        """``E log p(x) + H[q(x)]`` of each sequence, but for what no step changes."""
        m, found, kind = chain.mean, chain.covariances, block.kinds[1]
        prior = base.precision(base.information)
        blocks, onward = prior.blocks[kind], prior.off
        V = found.variances[found.whose]
        each = -0.5 * np.einsum("tij,tij->t", blocks, V)
        each -= 0.5 * np.einsum("ti,tij,tj->t", m, blocks, m)
        inner = block.sequences.begins[1:-1] == 0
        lagged = found.lagged[found.whose[:-1]]
        cross = np.einsum("ij,tji->t", onward, lagged)
        cross += np.einsum("ti,ij,tj->t", m[1:], onward, m[:-1])
        each[1:] += cross * inner
        first = block.sequences.firsts
        each[first] += m[first] @ base.linear_of_first
        return block.per_sequence(each + chain.step_entropies())

    @staticmethod
    def _moves(last, chain, block):
        if last is None:
            return np.full(len(block.sequences.firsts), np.inf)
        moves = np.abs(chain.mean - last) / np.sqrt(chain.variance())
        return np.maximum.reduceat(moves.max(axis=1), block.sequences.firsts)

    def _sites(self, q, chain, block):
        """Expected log densities of steps, and the sites that they ask for."""
        T, d = chain.mean.shape
        value = np.empty(T)
        W, r = np.empty((T, d, d)), np.empty((T, d))
        for steps in chunks(T):
            rate, a, square = self._by_step(q, chain, block, steps)
            y, seen = block.filled[steps], _seen(block, steps)
            mean = self._theta(q)
            eta = chain.mean[steps] @ mean[:, :-1].T + mean[:, -1]
            value[steps] = np.sum(y * eta - rate * seen, axis=1)
            W[steps] = square
            gradient = y @ mean[:, :-1] - a
            r[steps] = np.einsum("tij,tj->ti", square, chain.mean[steps]) + gradient
        return value, (W, r)

    def _first_sites(self, q, block):
        """With nothing known of the states: rates between counts and a usual one."""
        theta, d = self._theta(q), self._theta(q).shape[1] - 1
        T, y = block.n_steps, block.filled
        seen = _seen(block, slice(None))
        rate = seen * (0.5 * (y + np.exp(np.minimum(theta[:, -1], MOST))) + 1e-3)
        C, outer = theta[:, :-1], theta[:, :-1, None] * theta[:, None, :-1]
        eta = np.log(np.where(rate > 0.0, rate, 1.0)) - theta[:, -1]
        W = (rate @ outer.reshape(len(theta), -1)).reshape(T, d, d)
        return W, (y - rate + rate * eta) @ C

    # -- global step -------------------------------------------------------------------

    def from_points(self, states, block):
        """The parameters' posterior if the states were known, about."""
        return self.prior()

    def statistics(self, q, chain, block):
        whose, value = block.expected
        if whose is not chain:
            value, _ = self._sites(q, chain, block)
        total = float(block.weight @ value) - block.log_factorials
        return {"log_density": total, **self._parameter_sites(q, chain, block)}

    def energy(self, values, q):
        return values["log_density"]


class KnownLogLoadings(PoissonObservations):
    """Known loadings and intercepts."""

    def __init__(self, matrix, intercept):
        self.matrix = matrix
        self.intercept = intercept
        self.theta = np.column_stack([matrix, intercept])

    def prior(self):
        return Product({})

    def _theta(self, q):
        return self.theta

    def _by_step(self, q, chain, block, steps):
        C = self.matrix
        outer = (C[:, :, None] * C[:, None, :]).reshape(len(C), -1)
        m, found = chain.mean[steps], chain.covariances
        V = found.variances[found.whose[steps]]
        exponent = m @ C.T + self.intercept + 0.5 * V.reshape(len(m), -1) @ outer.T
        rate = np.exp(np.minimum(exponent, MOST)) * _seen(block, steps)
        return rate, rate @ C, (rate @ outer).reshape(V.shape)

    def _parameter_sites(self, q, chain, block):
        return {}

    def global_step(self, values, warm):
        return warm

    def expected_log_prior(self, q):
        return 0.0

    def plug_in(self, draws, i):
        return self.matrix, self.intercept, None


class FreeLogLoadings(UnknownLoadings, PoissonObservations):
    """Unknown loadings: c_sk ~ N(0, 1 / gamma_k) and d_s ~ N(m_s, 1 / kappa)."""

    names = NAMES
    moves = True

    @staticmethod
    def _theta(q):
        return q["observation"].location

    def from_points(self, states, block):
        """One step of weighted least squares from rates near the counts."""
        y, seen = block.filled, _seen(block, slice(None)) * block.weight[:, None]
        mean = np.exp(self.intercept_mean)
        rate = 0.5 * (y + mean) + 1e-3
        working = np.log(rate) + (y - rate) / rate
        larger = np.column_stack([states, np.ones(len(states))])
        D, p = len(mean), larger.shape[1]
        P, theta = np.empty((D, p, p)), np.empty((D, p))
        for s in range(D):
            weighted = (seen[:, s] * rate[:, s])[:, None] * larger
            P[s] = larger.T @ weighted + np.eye(p)
            linear = weighted.T @ working[:, s] + self._prior_mean[s]
            theta[s] = np.linalg.solve(P[s], linear)
        rows = Regressions(theta, P, self.noise_prior, NAMES)
        return self.posterior(rows, self.relevance(rows))

    def _run(self, q, chain, block, steps, want_rows, linear, square):
        rows, m = q["observation"], chain.mean[steps]
        T, d = m.shape
        D, p = rows.location.shape
        larger, V = np.ones((T, p)), np.zeros((T, p, p))
        larger[:, :d] = m
        found = chain.covariances
        V[:, :d, :d] = found.variances[found.whose[steps]]
        roots = np.linalg.cholesky(rows.covariance_given_noise)
        roots = np.ascontiguousarray(np.broadcast_to(roots, (D, p, p)))
        counts = _seen(block, steps)
        if want_rows:
            counts = counts * block.weight[steps, None]
        rate = np.empty((T, D))
        location = np.ascontiguousarray(rows.location)
        expected_rates.sites(
            larger, V, location, roots, counts, MOST, want_rows, rate, linear, square
        )
        return rate

    def _by_step(self, q, chain, block, steps):
        T, d = chain.mean[steps].shape
        a, square = np.zeros((T, d)), np.zeros((T, d, d))
        rate = self._run(q, chain, block, steps, False, a, square)
        return rate, a, square

    def _parameter_sites(self, q, chain, block):
        location = q["observation"].location
        D, p = location.shape
        linear, square = np.zeros((D, p)), np.zeros((D, p, p))
        response = np.empty((D, p))
        for steps in chunks(block.n_steps):
            self._run(q, chain, block, steps, True, linear, square)
        response[:, :-1] = block.weighted_filled.T @ chain.mean
        response[:, -1] = block.weighted_filled.sum(axis=0)
        gradient = response - linear
        site = gradient + np.einsum("sij,sj->si", square, location)
        return {"site_linear": site, "site_precision": square}

    def global_step(self, values, warm, rho=1.0):
        old = warm["observation"]
        relevance = self.relevance(old)
        prior = self._prior_precision(relevance)
        P = values["site_precision"] + np.diag(prior)
        h = values["site_linear"] + prior * self._prior_mean
        if rho != 1.0:
            before = (old.precision @ old.location[..., None])[..., 0]
            P = (1.0 - rho) * old.precision + rho * P
            h = (1.0 - rho) * before + rho * h
        mean = np.linalg.solve(P, h[..., None])[..., 0]
        return self.posterior(Regressions(mean, P, old.noise, NAMES), relevance)

    def plug_in(self, draws, i):
        return draws["observation_matrix"][i], draws["intercept"][i], None


def _where(keep, new, old):
    return np.where(keep[..., None] if new.ndim == 3 else keep, new, old)


def _blend(old, new, step):
    step = step[..., None] if new.ndim == 3 else step
    return old + step * (new - old)


def _seen(block, steps):
    """One for each entry that is observed, (n, D)."""
    patterns, which = block.observed
    return patterns[which[steps]]
