"""From an estimator's parameters to a model in standard units.

Standard units are those of a Frame: each column of X about zero and of order one. The
states of a structural series are in the units of their column; those of the free
structure have no units, because their noise is one.
"""

from dataclasses import dataclass

import numpy as np

from skvi.distributions import Gamma, PointMass
from skvi.estimators.priors import gamma_pair
from skvi.models.lds import (
    COMPONENTS,
    FAMILIES,
    FreeDynamics,
    FreeInitial,
    FreeLoadings,
    FreeLogLoadings,
    KnownDynamics,
    KnownInitial,
    KnownLoadings,
    KnownLogLoadings,
    LDSModel,
    StructuralDynamics,
    Structure,
)

# Of columns of A and C: a state at rest has a relevance of about the number of
# entries of X, which a prior must let it reach.
RELEVANCE = 0.5, 1e-4
FIRST = 0.5, 0.5  # precisions of first states
NOISE_SHARE = 0.1  # of the variance of differences: prior variances of a series
SHARES = {"level": 0.1, "slope": 0.01, "seasonal": 0.01}
LOG_RATE_SHARE = 0.1  # what stands for that variance where steps are counts
SPREADS = {"level": 10.0, "slope": 1.0, "seasonal": 4.0}  # of first states


@dataclass(frozen=True)
class Setup:
    """A model, and how its numbers are said in the data's units.

    Attributes
    ----------
    model : LDSModel
    state_unit, state_shift : arrays of shape (K,)
    scale : array of shape (D,)
        Variances of differences in standard units, about which variances are sought.
    priors : dict
        Fitted attributes: the resolved priors in the data's units.
    """

    model: LDSModel
    state_unit: np.ndarray
    state_shift: np.ndarray
    scale: np.ndarray
    priors: dict


def set_up(estimator, frame, totals):
    """The Setup of an estimator and some data."""
    check_combination(estimator)
    if estimator.structure == "free":
        return _free(estimator, frame, totals)
    return _structural(estimator, frame, totals)


def lags(estimator):
    """Of the differences that default priors rest on."""
    if estimator.structure == "free" or estimator.observations == "poisson":
        return ()
    components = COMPONENTS[estimator.structure]
    if "seasonal" in components and estimator.period is not None:
        return 1, int(estimator.period)
    return (1, 1) if "slope" in components else (1,)


def check_combination(estimator):
    """Errors for parameters that would mean nothing together."""
    e = estimator
    preset, counts = e.structure != "free", e.observations == "poisson"

    def refuse(name, remedy):
        value = getattr(e, name)
        if value is not None:
            raise ValueError(f"{name}={value!r} means nothing {remedy}.")

    if preset:
        what = f'with structure={e.structure!r}: leave it None, or set structure="free"'
        for name in (
            "transition_matrix",
            "transition_covariance",
            "observation_matrix",
            "intercept",
            "transition_prior",
            "observation_prior",
            "initial_prior",
            "intercept_precision_prior",
        ):
            refuse(name, what)
        if e.n_components != 1:
            raise ValueError(
                f"n_components={e.n_components!r} is the number of states of "
                f'structure="free"; structure={e.structure!r} says how many there are: '
                "leave n_components=1."
            )
        if "seasonal" in COMPONENTS[e.structure]:
            if e.period is None:
                raise ValueError(
                    f"period=None: structure={e.structure!r} needs the number of steps "
                    "of a season, such as period=12 for months."
                )
        else:
            refuse("period", what.replace('"free"', '"seasonal"'))
    else:
        what = 'with structure="free": it is for the named structures, leave it None'
        for name in ("period", "state_variances", "state_prior"):
            refuse(name, what)
        if e.posterior_covariance != "variational":
            raise ValueError(
                f"posterior_covariance={e.posterior_covariance!r} corrects the "
                'variances of the named structures; structure="free" has "variational" '
                "only."
            )
        if e.transition_matrix is None:
            refuse("transition_covariance", "without transition_matrix: give both")
        else:
            refuse("transition_prior", "with transition_matrix, which is known")
        if e.observation_matrix is None:
            refuse("intercept", "without observation_matrix: give both")
        else:
            known = "with observation_matrix, which is known"
            refuse("observation_prior", known)
            refuse("intercept_precision_prior", known)
        if e.initial_mean is not None or e.initial_covariance is not None:
            refuse("initial_prior", "with a known law of the first state")
    if counts:
        what = 'with observations="poisson", whose noise has no parameter'
        refuse("noise_variance", what)
        refuse("noise_prior", what)
    elif e.noise_variance is not None:
        refuse("noise_prior", "with noise_variance, which is known")


# -- the free structure ----------------------------------------------------------------


def _free(e, frame, totals):
    K, D = e.n_components, len(frame.unit)
    priors, counts = {}, e.observations == "poisson"
    if e.transition_matrix is None:
        law = _relevance(e.transition_prior, K, "transition_prior", priors)
        dynamics = FreeDynamics(law)
    else:
        A = _array(e.transition_matrix, (K, K), "transition_matrix")
        Q = np.eye(K)
        if e.transition_covariance is not None:
            Q = _covariance(e.transition_covariance, K, "transition_covariance")
        dynamics = KnownDynamics(A, _inverse(Q))
    if e.initial_mean is None and e.initial_covariance is None:
        initial = FreeInitial(
            _relevance(e.initial_prior, K, "initial_prior", priors, FIRST)
        )
    else:
        initial = _known_initial(e, np.zeros(K), np.eye(K), K, priors)
    noise = None if counts else _noise_prior(e, frame, totals, priors, 1.0, 1.0)
    if e.observation_matrix is not None:
        C = _array(e.observation_matrix, (D, K), "observation_matrix")
        d = (
            np.zeros(D)
            if e.intercept is None
            else _array(e.intercept, (D,), "intercept")
        )
        C, d = C / frame.unit[:, None], (d - frame.centre) / frame.unit
        observations = KnownLogLoadings(C, d) if counts else KnownLoadings(C, d, noise)
    else:
        law = _relevance(e.observation_prior, K, "observation_prior", priors)
        kappa = e.intercept_precision_prior
        kappa = 0.1 if kappa is None else float(kappa)
        mean = _log_means(totals) if counts else totals.mean
        priors["intercept_prior_"] = frame.centre + frame.unit * mean
        priors["intercept_precision_prior_"] = kappa
        if counts:
            observations = FreeLogLoadings(law, mean, kappa)
        else:
            observations = FreeLoadings(law, mean, kappa, noise)
    model = LDSModel(dynamics, initial, observations, FAMILIES[e.posterior])
    return Setup(model, np.ones(K), np.zeros(K), np.ones(D), priors)


def _relevance(value, K, name, priors, default=RELEVANCE):
    shape, rate = gamma_pair(value, default, name)
    priors[f"{name}_"] = (shape, rate)
    return Gamma(np.full(K, shape), np.full(K, rate))


# -- named structures ------------------------------------------------------------------


def _structural(e, frame, totals):
    D, counts = len(frame.unit), e.observations == "poisson"
    structure = Structure.named(e.structure, D, e.period)
    K, priors = len(structure.matrix), {}
    scale = np.full(D, LOG_RATE_SHARE) if counts else totals.rough_variance
    unit = np.empty(K)
    laws, resolved = {}, {}
    known = _by_component(e.state_variances, structure, "state_variances")
    pairs = _by_component(e.state_prior, structure, "state_prior", pairs=True)
    for name, members in structure.members.items():
        unit[members] = frame.unit[:, None]
        if known.get(name) is not None:
            if pairs.get(name) is not None and isinstance(e.state_prior, dict):
                raise ValueError(
                    f"state_prior={e.state_prior!r} means nothing for {name!r}, whose "
                    "variance is known: leave it out."
                )
            value = _variances(known[name], D, f"state_variances[{name!r}]")
            laws[name] = PointMass(frame.unit**2 / value)
            continue
        default = 0.5, 0.5 * SHARES[name] * scale * frame.unit**2
        shape, rate = _pair(pairs.get(name), default, D, "state_prior")
        resolved[name] = (shape, rate)
        laws[name] = Gamma(np.full(D, shape), rate / frame.unit**2)
    priors["state_prior_"] = resolved
    dynamics = StructuralDynamics(structure.matrix, structure.members, laws)
    spread = np.empty(K)
    variance = np.ones(D) if counts else totals.variance
    change = scale if counts else totals.change_variance
    for name, members in structure.members.items():
        size = change if name == "slope" else variance
        spread[members] = SPREADS[name] * size[:, None]
    mean = np.zeros(K)
    level = structure.members["level"][:, 0]
    mean[level] = _log_means(totals) if counts else totals.mean
    shift = np.zeros(K)
    shift[level] = frame.centre
    initial = _known_initial(
        e,
        mean * unit + shift,
        np.diag(spread * unit**2),
        K,
        priors,
        unit,
        shift,
    )
    if counts:
        observations = KnownLogLoadings(structure.loadings, np.zeros(D))
    else:
        noise = _noise_prior(e, frame, totals, priors, 0.5, None)
        observations = KnownLoadings(structure.loadings, np.zeros(D), noise)
    model = LDSModel(dynamics, initial, observations, FAMILIES[e.posterior])
    return Setup(model, unit, shift, scale, priors)


def _by_component(value, structure, name, pairs=False):
    """A dict by component, from one, or from one value for all."""
    components = list(structure.members)
    if value is None:
        return {}
    if isinstance(value, dict):
        unknown = [key for key in value if key not in components]
        if unknown:
            raise ValueError(
                f"{name}={value!r} names {unknown}; the components are {components}."
            )
        return value
    if pairs:
        return dict.fromkeys(components, value)
    raise ValueError(
        f"{name}={value!r} must be a dict by component, such as "
        f"{{{components[0]!r}: 1.0}}; the components are {components}."
    )


# -- what both have --------------------------------------------------------------------


def _noise_prior(e, frame, totals, priors, shape, share):
    """q's prior of noise precisions; a share of the variance (None: of differences)."""
    D = len(frame.unit)
    if e.noise_variance is not None:
        value = _variances(e.noise_variance, D, "noise_variance")
        return PointMass(frame.unit**2 / value)
    variance = totals.variance if share else NOISE_SHARE * totals.rough_variance
    default = shape, 0.5 * variance * frame.unit**2
    shape, rate = _pair(e.noise_prior, default, D, "noise_prior")
    priors["noise_prior_"] = (shape, rate)
    return Gamma(np.full(D, shape), rate / frame.unit**2)


def _known_initial(e, mean, covariance, K, priors, unit=1.0, shift=0.0):
    """The law of first states, given in the data's units."""
    if e.initial_mean is not None:
        mean = _array(e.initial_mean, (K,), "initial_mean")
    if e.initial_covariance is not None:
        covariance = _covariance(e.initial_covariance, K, "initial_covariance")
    priors["initial_mean_"], priors["initial_covariance_"] = mean, covariance
    unit = np.broadcast_to(unit, (K,))
    inner = covariance / unit / unit[:, None]
    return KnownInitial((mean - shift) / unit, _inverse(inner))


def _pair(value, default, D, name):
    """(shape, rates (D,)) of a Gamma law, from a shape and a rate or one a column."""
    if value is None:
        shape, rate = default
    else:
        try:
            shape, rate = value
            shape, rate = float(shape), np.asarray(rate, dtype=np.float64)
        except (TypeError, ValueError):
            shape, rate = np.nan, np.array(np.nan)
        right = rate.shape in {(), (D,)} and np.all((rate > 0.0) & (rate < np.inf))
        if not (right and 0.0 < shape < np.inf):
            raise ValueError(
                f"{name}={value!r} must be a pair (shape, rate) of positive numbers, "
                f"such as (0.5, 1.0); the rate may be one for each of the {D} columns."
            )
    return shape, np.broadcast_to(rate, (D,)).astype(np.float64)


def _log_means(totals):
    return np.log((totals.sum + 0.5) / np.maximum(totals.n, 1.0))


def _array(value, shape, name):
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.full((), np.nan)
    if array.shape != shape or not np.all(np.isfinite(array)):
        raise ValueError(
            f"{name} must be an array of finite numbers of shape {shape}, got "
            f"{value!r}. (The number of states is n_components.)"
        )
    return array


def _variances(value, D, name):
    array = np.asarray(value, dtype=np.float64) if _numeric(value) else np.nan
    if np.shape(array) not in {(), (D,)} or not np.all(
        (array > 0.0) & np.isfinite(array)
    ):
        raise ValueError(
            f"{name}={value!r} must be a positive number, or one for each of the {D} "
            "columns."
        )
    return np.broadcast_to(array, (D,))


def _numeric(value):
    try:
        return np.asarray(value).dtype.kind in "fiu"
    except ValueError:  # of ragged lists
        return False


def _covariance(value, K, name):
    """A covariance from a number, K variances or a matrix."""
    array = np.asarray(value, dtype=np.float64) if _numeric(value) else None
    if array is not None and array.ndim < 2 and array.shape in {(), (K,)}:
        array = np.diag(np.broadcast_to(array, (K,)))
    shape_is_right = array is not None and array.shape == (K, K)
    if not shape_is_right or not np.all(np.isfinite(array)):
        raise ValueError(
            f"{name} must be a number, {K} variances or a matrix of shape {(K, K)}, "
            f"got {value!r}."
        )
    symmetric = np.allclose(array, array.T, rtol=1e-8, atol=0.0)
    if not symmetric or not np.all(np.linalg.eigvalsh(array) > 0.0):
        raise ValueError(
            f"{name}={value!r} must be symmetric and positive definite: give a state "
            "that is all but known a small variance."
        )
    return array


def _inverse(matrix):
    inverse = np.linalg.inv(matrix)
    return 0.5 * (inverse + inverse.T)
