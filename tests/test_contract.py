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
from sklearn.base import clone, is_regressor
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skvi
from cases import CASES
from skvi.metrics import elbo_scorer, log_predictive_density_scorer


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


def bound_samples(case, model, X, y, n=80_000, **kwargs):
    draws = model.sample_posterior(n, random_state=0)
    log_q = model.posterior_.log_density(draws)
    return case.log_joint(model, X, y, draws, **kwargs) - log_q


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
    samples = bound_samples(case, model, X, y)
    assert agrees(samples, model.elbo_)
    assert not agrees(samples, model.elbo_ + 0.1)
    assert not agrees(samples, model.elbo_ - 0.1)
    assert sum(model.elbo_terms_.values()) == pytest.approx(model.elbo_, abs=1e-9)
    assert set(model.elbo_terms_) == {"log_likelihood", "log_prior", "entropy"}
    assert model.elbo_path_[-1] == pytest.approx(model.elbo_, rel=1e-12)
    entropy = -model.posterior_.log_density(model.sample_posterior(80_000, 1))
    assert agrees(entropy, model.elbo_terms_["entropy"])


@each_case
def test_1_exact_posteriors_give_the_log_evidence(case, fitted):
    model, X, y = fitted(case)
    # log p(x, z) - log q(z) is constant, and then log p(x), exactly if q = p(z | x).
    spread = bound_samples(case, model, X, y, n=200).std()
    assert (spread < 1e-8 * (1.0 + abs(model.elbo_))) == case.exact


# -- 2 ---------------------------------------------------------------------------------


@each_case
def test_2_the_path_never_falls_and_ends_at_a_maximum(case, fitted):
    model, X, y = fitted(case)
    assert model.converged_
    path = model.elbo_path_
    assert np.all(np.diff(path) >= -1e-12 * (abs(model.elbo_) + len(X)))
    onward = clone(model).set_params(warm_start=True, tol=0.0).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onward.set_params(max_iter=1).fit(X, y)
    assert onward.elbo_ - model.elbo_ <= 10 * model.tol
    assert model.posterior_.distance(onward.posterior_) < 0.01


@each(lambda case: case.bound is not None)
@pytest.mark.parametrize("sd", [0.1, 0.5])
def test_2_perturbations_do_not_raise_the_bound(case, fitted, sd):
    model, X, y = fitted(case)
    start, scale, bound = case.bound(model, X, y)
    best = bound(start)
    assert best == pytest.approx(model.elbo_, abs=1e-8 * abs(model.elbo_))
    rng = np.random.default_rng(0)
    for _ in range(20):
        moved = start + sd * scale * rng.standard_normal(start.shape)
        assert bound(moved) <= best + 10 * model.tol


# -- 3 ---------------------------------------------------------------------------------


@each(lambda case: case.larger is not None)
def test_3_a_larger_family_has_the_higher_bound(case, fitted):
    model, _, _ = fitted(case)
    larger, _, _ = fitted(BY_NAME[case.larger])
    assert larger.elbo_ >= model.elbo_ - model.tol


# -- 4 ---------------------------------------------------------------------------------


def assert_same_fit(a, b, tolerance=1e-8):
    assert a.elbo_ == pytest.approx(b.elbo_, rel=tolerance, abs=tolerance)
    assert a.n_iter_ == b.n_iter_
    if is_regressor(a):
        scale = a.coef_std_
        np.testing.assert_allclose(a.coef_ / scale, b.coef_ / scale, atol=tolerance)
        np.testing.assert_allclose(a.coef_std_, b.coef_std_, rtol=tolerance)
    else:
        assert a.posterior_.distance(b.posterior_) < tolerance


@each_case
def test_4_order_of_rows_and_number_of_jobs_do_not_matter(case, fitted):
    model, X, y = fitted(case)
    order = np.random.default_rng(1).permutation(len(X))
    assert_same_fit(clone(model).fit(X[order], y[order]), model)
    assert_same_fit(clone(model).set_params(n_jobs=2).fit(X, y), model)


@each_case
def test_4_weights_count_rows(case, fitted):
    _, X, y = fitted(case)
    counts = np.arange(len(X)) % 3
    weighted = case.estimator().fit(X, y, sample_weight=counts)
    repeated = case.estimator().fit(np.repeat(X, counts, 0), np.repeat(y, counts))
    assert_same_fit(weighted, repeated)
    samples = bound_samples(
        case, weighted, X, y, n=4_000, sample_weight=counts.astype(float)
    )
    assert abs(samples.mean() - weighted.elbo_) < 5 * samples.std() / 60 + 1e-7


@each_case
def test_4_partial_fit_in_any_split_is_the_batch_answer(case, fitted):
    model, X, y = fitted(case)
    for cuts in ([1], [2, 5], [len(X) - 1]):
        parts = case.estimator()
        for rows in reversed(np.split(np.arange(len(X)), cuts)):
            parts.partial_fit(X[rows], y[rows])
        assert parts.elbo_ == pytest.approx(model.elbo_, rel=1e-8)
        assert model.posterior_.distance(parts.posterior_) < 1e-2
        assert parts.n_samples_seen_ == len(X)


# -- 5 ---------------------------------------------------------------------------------


@each_case
def test_5_attributes_are_those_of_the_draws(case, fitted):
    model, _, _ = fitted(case)
    draws = model.sample_posterior(40_000, random_state=2)
    coef = draws["coef"]
    error = coef.std(axis=0) / np.sqrt(len(coef))
    assert np.all(np.abs(coef.mean(axis=0) - model.coef_) < 5 * error)
    np.testing.assert_allclose(coef.std(axis=0), model.coef_std_, rtol=0.05)
    covariance = model.coef_covariance_
    if not isinstance(covariance, np.ndarray):
        covariance = covariance @ np.eye(len(model.coef_))
    scale = np.outer(model.coef_std_, model.coef_std_)
    np.testing.assert_allclose(np.diag(covariance), model.coef_std_**2, rtol=1e-8)
    np.testing.assert_allclose(np.cov(coef.T) / scale, covariance / scale, atol=0.06)
    assert draws["noise_precision"].mean() == pytest.approx(
        model.noise_precision_, rel=0.03
    )


# -- 6 ---------------------------------------------------------------------------------


@each_case
def test_6_float32_agrees_with_float64_on_the_rounded_data(case, fitted):
    _, X, y = fitted(case)
    X32 = X.astype(np.float32)
    single = case.estimator().fit(X32, y)
    double = case.estimator().fit(X32.astype(np.float64), y)
    assert abs(single.elbo_ - double.elbo_) < 1e-3 * len(X)
    np.testing.assert_allclose(single.coef_, double.coef_, atol=1e-3)


def known_noise_in_units(case, c):
    tau = case.params.get("noise_precision")
    return {} if tau is None else {"noise_precision": tau / c**2}


@each_case
@pytest.mark.parametrize("c", [2.0**-30, 2.0**40, 1e-9, 1e9])
def test_6_scaling_changes_units_only(case, fitted, c):
    model, X, y = fitted(case)
    exact = np.log2(c) % 1 == 0
    tolerance = 1e-12 if exact else 1e-7
    n = len(X)
    # a column, then y
    Xc = X.copy()
    Xc[:, 1] *= c
    other = case.estimator().fit(Xc, y)
    assert other.elbo_ == pytest.approx(model.elbo_, abs=1e-6)
    np.testing.assert_allclose(other.predict(Xc), model.predict(X), rtol=tolerance)
    other = case.estimator(**known_noise_in_units(case, c)).fit(X, y * c)
    assert other.elbo_ == pytest.approx(model.elbo_ - n * np.log(c), abs=1e-6)
    np.testing.assert_allclose(other.predict(X) / c, model.predict(X), rtol=tolerance)


@each(lambda case: case.params.get("fit_intercept", True))
@pytest.mark.parametrize("shift", [1e3, 1e9])
def test_6_shifts_move_predictions_only(case, fitted, shift):
    _, X, y = fitted(case)
    rounding = shift * np.finfo(float).eps
    # the same rounded data, near the origin
    Xs, ys = X + shift, y + shift
    near = case.estimator().fit(Xs - shift, ys - shift)
    far = case.estimator().fit(Xs, ys)
    assert far.elbo_ == pytest.approx(near.elbo_, abs=1e-6)
    difference = (far.predict(Xs) - shift) - near.predict(Xs - shift)
    spread = near.predict(Xs - shift, return_std=True)[1]
    assert np.max(np.abs(difference) / spread) < 1e-6 + 1e3 * rounding


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
        np.testing.assert_array_equal(copy.predict(X), model.predict(X))
        np.testing.assert_array_equal(
            copy.predict(X, return_std=True)[1], model.predict(X, return_std=True)[1]
        )
        a, b = copy.sample_posterior(5, 0), model.sample_posterior(5, 0)
        np.testing.assert_array_equal(a["coef"], b["coef"])
        assert copy.elbo_ == model.elbo_


@each_case
def test_7_works_inside_scikit_learn(case, fitted):
    _, X, y = fitted(case)
    estimator = case.estimator()
    assert type(estimator).__name__ in estimator._repr_html_()
    frame = pd.DataFrame(X, columns=[f"f{j}" for j in range(X.shape[1])])
    named = clone(estimator).fit(frame, y)
    assert list(named.feature_names_in_) == list(frame.columns)
    with pytest.raises(ValueError, match="feature names"):
        named.predict(frame[frame.columns[::-1]])
    pipeline = make_pipeline(StandardScaler(), estimator)
    scores = cross_val_score(
        pipeline, X, y, cv=3, scoring=log_predictive_density_scorer
    )
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
    assert search.best_params_[key] == "structured"
    assert seen.shape == X.shape


@each_case
def test_7_a_failing_call_loses_nothing(case, fitted):
    model, X, y = fitted(case)
    model = clone(model).fit(X, y)
    before = dict(model.__dict__)
    bad = X.copy()
    bad[0, 0] = np.nan
    for method in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match="NaN"):
            method(bad, y)
        with pytest.raises(ValueError):
            method(X, y[:-1])
    model.set_params(max_iter=0)
    with pytest.raises(ValueError, match="max_iter"):
        model.fit(X[:, :2], y)
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
    rows = {(case.make.__name__, case.estimator().posterior) for case in CASES}
    for name in public:
        options = getattr(skvi, name)._parameter_constraints["posterior"][0].options
        assert {(name, option) for option in options} <= rows
    assert len({case.name for case in CASES}) == len(CASES)
