"""The contract: what every row of tests/cases.py must satisfy (docs/design.md, 7).

The numbers in test names are those of the design's list.
"""

import inspect
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

import skvi
from cases import CASES
from skvi.inference.drivers import Batch, StochasticState
from skvi.metrics import elbo_scorer


def each(condition):
    """Run a test on the rows for which the condition holds."""
    rows = [case for case in CASES if condition(case)]
    return pytest.mark.parametrize("case", rows, ids=lambda case: case.name)


each_case = each(lambda case: True)
BY_NAME = {case.name: case for case in CASES}


@pytest.fixture(scope="module")
def fitted():
    """Every row's fit to its own data, made once."""
    cache = {}

    def get(case):
        if case.name not in cache:
            X, y = case.data(np.random.default_rng(0))
            cache[case.name] = (case.estimator().fit(X, y), X, y)
        return cache[case.name]

    return get


def bound_samples(case, model, X, y, n):
    """log p - log q at draws from q."""
    draws = case.kind.draws(model, X, n, 0)
    return case.kind.log_joint(model, X, y, draws) - case.kind.log_q(model, X, draws)


def minus_log_q(case, model, X, y, n):
    return -case.kind.log_q_of_entropy(model, X, case.kind.draws(model, X, n, 1))


def sharp(error, samples, *args):
    """As many samples as this standard error takes, in nats."""
    spread = samples(*args, n=2_000).std()
    return samples(*args, n=1_000 + int((spread / error) ** 2))


def picked(rows, y):
    """Rows of y, where there is one."""
    return None if y is None else y[rows]


def rows_and_targets(X, y):
    """What fit takes: (X,) of a density, else (X, y)."""
    return (X,) if y is None else (X, y)


def agrees(samples, elbo):
    """Within four standard errors, which must be sharp enough to see 0.1 nats."""
    error = samples.std() / np.sqrt(len(samples))
    assert error < 0.02
    # Exact posteriors have no Monte Carlo error, only rounding.
    return abs(samples.mean() - elbo) <= 4.0 * error + 1e-9 * abs(elbo)


# -- 1 ---------------------------------------------------------------------------------


@each_case
def test_1_elbo_is_the_monte_carlo_average(case, fitted):
    model, X, y = fitted(case)
    samples = sharp(0.014, bound_samples, case, model, X, y)
    assert agrees(samples, model.elbo_)
    assert not agrees(samples, model.elbo_ + 0.1)
    assert not agrees(samples, model.elbo_ - 0.1)
    assert sum(model.elbo_terms_.values()) == pytest.approx(model.elbo_, abs=1e-9)
    assert set(model.elbo_terms_) == {"log_likelihood", "log_prior", "entropy"}
    assert model.elbo_path_[-1] == pytest.approx(model.elbo_, rel=1e-12)
    entropies = sharp(0.018, minus_log_q, case, model, X, y)
    assert agrees(entropies, model.elbo_terms_["entropy"])


@each_case
def test_1_exact_posteriors_give_the_log_evidence(case, fitted):
    model, X, y = fitted(case)
    # log p(x, z) - log q(z) is constant, and then log p(x), exactly if q = p(z | x).
    spread = bound_samples(case, model, X, y, n=200).std()
    assert (spread < 1e-8 * (1.0 + abs(model.elbo_))) == case.exact


# -- 2 ---------------------------------------------------------------------------------


@each_case
def test_2_the_path_never_falls(case, fitted):
    model, X, _ = fitted(case)
    assert model.converged_
    path = model.elbo_path_
    assert np.all(np.diff(path) >= -1e-12 * (abs(model.elbo_) + len(X)))


@each(lambda case: case.kind.ends_at_maximum)
def test_2_a_fit_ends_at_a_maximum(case, fitted):
    model, X, y = fitted(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onward = case.kind.onward(model, X, y)
    assert onward.elbo_ - model.elbo_ <= 10 * case.kind.tol(model, X)
    assert model.posterior_.distance(onward.posterior_) < 0.01


@each(lambda case: case.kind.ends_at_maximum and not case.exact)
@pytest.mark.parametrize("sd", [0.1, 0.5])
def test_2_perturbations_do_not_raise_the_bound(case, fitted, sd):
    model, X, y = fitted(case)
    start, bound = case.kind.bound(model, X, y)
    best = bound(start)
    assert best == pytest.approx(model.elbo_, abs=1e-8 * abs(model.elbo_))
    rng = np.random.default_rng(0)
    for _ in range(20):
        moved = start + sd * rng.standard_normal(start.shape)
        assert bound(moved) <= best + 10 * case.kind.tol(model, X)


# -- 3 ---------------------------------------------------------------------------------


@each(lambda case: case.larger is not None)
def test_3_a_larger_family_has_the_higher_bound(case, fitted):
    model, X, y = fitted(case)
    larger, _, _ = fitted(BY_NAME[case.larger])
    larger = case.kind.enlarged(model, larger, X, y)
    assert larger.elbo_ >= model.elbo_ - case.kind.tol(model, X)


# -- 4 ---------------------------------------------------------------------------------


def assert_same_fit(case, a, b, tolerance=1e-8, attributes=None):
    assert a.elbo_ == pytest.approx(b.elbo_, rel=tolerance, abs=tolerance)
    assert a.n_iter_ == b.n_iter_ or tolerance > 1e-8
    theirs = case.kind.attributes(b)
    for name, (value, unit) in (attributes or case.kind.attributes)(a).items():
        gap = np.abs(value - theirs[name][0]) / unit
        assert np.max(gap) < tolerance, name


@each_case
def test_4_order_and_number_of_jobs_do_not_matter(case, fitted):
    model, X, y = fitted(case)
    rng = np.random.default_rng(1)
    other, Xo, yo, attributes = case.kind.reordered(model, X, y, rng)
    other.fit(Xo, yo)
    assert_same_fit(case, other, model, case.kind.reordering, attributes)
    if "n_jobs" in model.get_params():
        assert_same_fit(case, clone(model).set_params(n_jobs=2).fit(X, y), model)


@each(lambda case: case.kind.weighted)
def test_4_weights_count_rows(case, fitted):
    model, X, y = fitted(case)
    counts = np.arange(len(X)) % 3
    rows = np.repeat(np.arange(len(X)), counts)
    weighted = case.kind.same_start(model).fit(X, y, sample_weight=counts)
    repeated = case.kind.same_start(model).fit(X[rows], picked(rows, y))
    assert_same_fit(case, weighted, repeated, case.kind.weighting)
    samples = bound_samples(case, weighted, X[rows], picked(rows, y), n=4_000)
    assert abs(samples.mean() - weighted.elbo_) < 5 * samples.std() / 60 + 1e-7


@each(lambda case: case.kind.incremental)
def test_4_partial_fit_in_any_split_is_the_batch_answer(case, fitted):
    model, X, y = fitted(case)
    for cuts in ([1], [2, 5], [len(X) - 1]):
        parts = case.estimator()
        for rows in reversed(np.split(np.arange(len(X)), cuts)):
            parts.partial_fit(X[rows], y[rows])
        assert parts.elbo_ == pytest.approx(model.elbo_, rel=1e-8)
        assert model.posterior_.distance(parts.posterior_) < 1e-2
        assert parts.n_samples_seen_ == len(X)


@each(lambda case: case.kind.one_step is not None)
def test_4_a_full_step_of_partial_fit_is_an_iteration(case, fitted):
    model, X, y = fitted(case)
    inner, block, starts = case.kind.one_step(model, *rows_and_targets(X, y))
    for q in starts:
        streamed = StochasticState().step(inner, q, block, 1.0)
        batch = Batch(inner, [block])
        assert streamed.distance(batch.advance(q, batch.evaluate(q))) == 0.0


@each(lambda case: case.kind.streams and not case.kind.incremental)
def test_4_partial_fit_ends_near_fit(case, fitted):
    model, X, y = fitted(case)
    many, blocks = case.kind.stream(model, X, np.random.default_rng(0))
    data = rows_and_targets(many, None if y is None else np.tile(y, 8))

    def part(rows):
        return [values[rows] for values in data]

    parts = clone(model).partial_fit(*part(blocks[0]))
    # The first block chooses where both climb from; one step a block is a short climb.
    whole = pickle.loads(pickle.dumps(parts)).set_params(warm_start=True).fit(*data)
    for rows in blocks[1:] + 9 * blocks:
        parts.partial_fit(*part(rows))
    assert case.kind.n_seen(parts) == 10 * len(many)
    assert parts.score(*data) > whole.score(*data) - 0.1


# -- 5 ---------------------------------------------------------------------------------


@each_case
def test_5_attributes_are_those_of_the_draws(case, fitted):
    model, _, _ = fitted(case)
    all_draws = model.sample_posterior(40_000, random_state=2)
    for name, (mean, sd, covariance) in case.kind.moments(model).items():
        draws = all_draws[name]
        error = draws.std(axis=0) / np.sqrt(len(draws))
        assert np.all(np.abs(draws.mean(axis=0) - mean) <= 5 * error + 1e-12), name
        if sd is None:
            continue
        np.testing.assert_allclose(draws.std(axis=0), sd, rtol=0.05, atol=1e-12)
        if covariance is None:
            continue
        dim = np.shape(mean)[-1]
        variance = np.diagonal(covariance, axis1=-2, axis2=-1)
        np.testing.assert_allclose(variance, sd**2, rtol=1e-8, atol=1e-15)
        for each, unit, expected in zip(
            np.moveaxis(draws.reshape(len(draws), -1, dim), 1, 0),
            np.where(sd > 0.0, sd, 1.0).reshape(-1, dim),
            covariance.reshape(-1, dim, dim),
        ):
            scale = np.outer(unit, unit)
            observed = np.atleast_2d(np.cov(each.T)) / scale
            np.testing.assert_allclose(observed, expected / scale, atol=0.06)


# -- 6 ---------------------------------------------------------------------------------


@each_case
def test_6_float32_agrees_with_float64_on_the_rounded_data(case, fitted):
    _, X, y = fitted(case)
    X32 = X.astype(np.float32)
    single = case.estimator().fit(X32, y)
    double = case.estimator().fit(X32.astype(np.float64), y)
    assert abs(single.elbo_ - double.elbo_) < 1e-3 * len(X)
    theirs = case.kind.attributes(double)
    for name, (value, unit) in case.kind.attributes(single).items():
        gap = np.abs(value - theirs[name][0]) / unit
        assert np.max(gap) < case.kind.single, name


@each_case
@pytest.mark.parametrize("c", [2.0**-30, 2.0**40, 1e-9, 1e9])
def test_6_scaling_changes_units_only(case, fitted, c):
    model, X, y = fitted(case)
    exact = np.log2(c) % 1 == 0
    tolerance = 1e-12 if exact else case.kind.path
    here = case.kind.outputs(model, X)
    for other, Xc, yc, change, back in case.kind.rescaled(case, X, y, c):
        other.fit(Xc, yc)
        assert other.elbo_ == pytest.approx(model.elbo_ + change, abs=1e-6)
        for a, b in zip(back(other, Xc), here):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@each_case
@pytest.mark.parametrize("shift", [1e3, 1e9])
def test_6_shifts_move_predictions_only(case, fitted, shift):
    _, X, y = fitted(case)
    rounding = shift * np.finfo(float).eps
    moved = case.kind.shifted(case, X, y, shift)
    if moved is None:
        return  # the origin is part of the model
    far, Xs, ys, back = moved
    far.fit(Xs, ys)
    # the same rounded data, near the origin
    near, _, _, at_origin = case.kind.shifted(case, X, y, 0.0)
    Xn = case.kind.moved(near, Xs, -shift)
    near.fit(Xn, ys if ys is y else ys - shift)  # counts and classes stay
    assert far.elbo_ == pytest.approx(near.elbo_, abs=1e-6)
    for a, b in zip(back(far, Xs), at_origin(near, Xn)):
        assert np.max(np.abs(a - b)) < 1e-6 + case.kind.path + 1e3 * rounding


# -- 7 ---------------------------------------------------------------------------------


@each_case
def test_7_saves_and_loads(case, fitted):
    model, X, _ = fitted(case)
    payload = skops.io.dumps(model)
    trusted = skops.io.get_untrusted_types(data=payload)
    assert all(name.startswith("skvi.") for name in trusted)
    for copy in (
        pickle.loads(pickle.dumps(model)),
        skops.io.loads(payload, trusted=trusted),
    ):
        for a, b in zip(case.kind.outputs(copy, X), case.kind.outputs(model, X)):
            np.testing.assert_array_equal(a, b)
        a, b = (case.kind.draws(fit, X, 5, 0) for fit in (copy, model))
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
        assert copy.elbo_ == model.elbo_


@each_case
def test_7_works_inside_scikit_learn(case, fitted):
    _, X, y = fitted(case)
    estimator = case.kind.quick(case.estimator())
    assert type(estimator).__name__ in estimator._repr_html_()
    frame = pd.DataFrame(X, columns=[f"f{j}" for j in range(X.shape[1])])
    named = clone(estimator).fit(frame, y)
    assert list(named.feature_names_in_) == list(frame.columns)
    with pytest.raises(ValueError, match="feature names"):
        getattr(named, case.kind.answer)(frame[frame.columns[::-1]])
    pipeline = make_pipeline(case.kind.first_step(), estimator)
    scores = cross_val_score(pipeline, X, y, cv=3, scoring=case.kind.scoring)
    assert np.all(np.isfinite(scores))
    everything = np.arange(len(X))
    key = f"{pipeline.steps[-1][0]}__posterior"
    search = GridSearchCV(
        pipeline,
        {key: ["mean_field", "structured"]},
        scoring=elbo_scorer,
        cv=[(everything, everything)],
    ).fit(frame, y)
    last, seen = skvi.unwrap(search, frame)
    assert last.elbo_ == pytest.approx(search.best_score_)
    if case.kind.families_differ(estimator):
        assert search.best_params_[key] == "structured"
    assert seen.shape == X.shape


@each_case
def test_7_a_failing_call_loses_nothing(case, fitted):
    model, X, y = fitted(case)
    model = clone(model).fit(X, y)
    before = dict(model.__dict__)
    for args, kwargs, message in case.kind.unusable(X, y):
        for method in ["fit", "partial_fit"][: 1 + case.kind.streams]:
            with pytest.raises(ValueError, match=message):
                getattr(model, method)(*args, **kwargs)
    model.set_params(max_iter=0)
    with pytest.raises(ValueError, match="max_iter"):
        model.fit(X[:, :1], y)
    model.set_params(max_iter=before["max_iter"])
    assert model.__dict__.keys() == before.keys()
    assert all(model.__dict__[name] is before[name] for name in before)


# -- 8 ---------------------------------------------------------------------------------


def test_8_every_public_estimator_and_posterior_has_a_row():
    public = {
        name
        for name, value in vars(skvi).items()
        if inspect.isclass(value) and name in skvi.__all__
    }
    choices = (
        "covariance_type",
        "emission",
        "emissions",
        "observations",
        "structure",
        "family",
        "link",
        "weight_concentration_prior_type",
        "prior",
    )
    estimators = [case.estimator() for case in CASES]
    for name in public:
        constraints = getattr(skvi, name)._parameter_constraints
        rows = [e for e in estimators if type(e).__name__ == name]
        for choice in {"posterior", *choices} & constraints.keys():
            seen = {(e.posterior, getattr(e, choice)) for e in rows}
            for posterior in constraints["posterior"][0].options:
                for option in constraints[choice][0].options:
                    if choice != "posterior" or option == posterior:
                        assert (posterior, option) in seen
    assert len({case.name for case in CASES}) == len(CASES)
