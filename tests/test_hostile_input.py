"""What hostile input does: checked here, and written to docs/hostile_input.md.

Each row either fits, and its check says what holds, or raises one clear error. The
page is compared with what this test finds; set SKVI_WRITE_DOCS=1 to write it anew.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from skvi import (
    VariationalBayesianRegression,
    VariationalGaussianMixture,
    VariationalGLMRegressor,
    VariationalHMM,
    VariationalLinearDynamicalSystem,
    VariationalLogisticClassifier,
    VariationalMixedEffectsClassifier,
    VariationalMixedEffectsRegressor,
    VariationalTopicModel,
    sequence_ids,
)

PAGE = Path(__file__).parents[1] / "docs" / "hostile_input.md"
HEAD = """# Hostile input

What the estimators do with input that breaks naive code. The tables are written by
`tests/test_hostile_input.py`, which checks every sentence in them.
"""


@dataclass(frozen=True)
class Table:
    """A section of the page: rows of (title, X, y, parameters, check)."""

    make: type
    about: str
    params: list
    usable: Callable
    rows: list

    @property
    def head(self):
        return (
            f"\n## {self.make.__name__}\n\n{self.about}\n\n"
            "| input | what happens |\n| --- | --- |\n"
        )


# -- VariationalBayesianRegression -----------------------------------------------------

rng = np.random.default_rng(0)
X = rng.standard_normal((30, 4))
Y = X @ [1.0, 2.0, 0.0, -1.0] + rng.standard_normal(30)
WIDE = rng.standard_normal((10, 500))
FLAT = {"weight_precision_prior": (1e-6, 1e-6), "noise_precision_prior": (1e-6, 1e-6)}


def replaced(array, where, value):
    out = np.array(array, dtype=float)
    out[where] = value
    return out


def reference(params):
    return VariationalBayesianRegression(**params).fit(X, Y)


def close(a, b, tolerance=1e-6):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.max(np.abs(b)))


def usable(model, rows):
    """Predictions, intervals and draws are numbers."""
    mean, std = model.predict(rows, return_std=True)
    assert np.all(np.isfinite(mean)) and np.all(std > 0)
    assert np.all(np.isfinite(model.predict_interval(rows)))
    assert np.all(np.isfinite(model.sample_posterior(10, 0)["coef"]))
    assert np.isfinite(model.elbo_) and model.converged_


def constant_target(model, params):
    assert np.all(model.coef_ == 0.0)
    close(model.predict(X), 7.0)
    assert np.all(model.predict(X, return_std=True)[1] < 1.0)
    return (
        "fits; weights are 0, predictions that constant, with noise that the prior "
        "and n bound below"
    )


def constant_column(model, params):
    bare = VariationalBayesianRegression(**params, weight_precision_prior=(2.0, 0.5))
    bare.fit(np.delete(X, 1, axis=1), Y)
    same = VariationalBayesianRegression(**params, weight_precision_prior=(2.0, 0.5))
    same.fit(replaced(X, np.s_[:, 1], 0.1), Y)
    assert abs(model.coef_[1]) < 1e-12
    if params == {"posterior": "structured", "prior": "ridge"}:
        close(
            same.predict(replaced(X, np.s_[:, 1], 0.1)), bare.predict(X[:, [0, 2, 3]])
        )
        assert same.elbo_ == pytest.approx(bare.elbo_, abs=1e-9)
    return (
        "fits; its weight stays at the prior, with mean 0, and (exact posterior) the "
        "ELBO and predictions are those without it"
    )


def duplicated_column(model, params):
    close(model.coef_[0], model.coef_[4], 1e-3)
    sd = model.summary(contrasts={"sum": [1, 0, 0, 0, 1]}).sd[0]
    assert sd < 0.5
    return "fits; the two share the weight, and the sd of their sum stays small"


def one_row(model, params):
    assert np.all(model.coef_ == 0.0)
    close(model.predict(X[:1]), Y[:1])
    return (
        "fits; weights are 0, the prediction is y; the structured posterior, a "
        "Student-t of 1.5 degrees of freedom, reports infinite stds and finite "
        "intervals"
    )


def two_rows(model, params):
    assert model.noise_collapse_probability_ < 0.5
    return "fits; intervals are wide and the noise does not collapse"


def wide(model, params):
    assert model.noise_collapse_probability_ < 0.05
    return "fits without a p x p matrix; the noise does not collapse"


def scaled(factor):
    def check(model, params):
        units = reference(params)
        close(model.coef_ / factor, units.coef_)
        close(model.elbo_, units.elbo_ - len(Y) * np.log(factor))
        return "fits; everything in those units, the ELBO moved by -n log c"

    return check


def scaled_column(factor):
    def check(model, params):
        units = reference(params)
        close(model.coef_[2] * factor, units.coef_[2])
        close(model.elbo_, units.elbo_)
        return "fits; that weight in those units, nothing else changes"

    return check


def shifted(model, params):
    units = reference(params)
    close(model.coef_, units.coef_, 1e-4)
    close(model.elbo_, units.elbo_, 1e-5)
    return "fits; the same weights, up to the rounding of the shifted numbers"


def exact_fit(model, params):
    close(model.coef_, [1.0, 2.0, 0.0, -1.0], 0.01)
    assert model.noise_collapse_probability_ > 0.9
    return (
        "fits; `noise_collapse_probability_` is near 1, and the noise is what the "
        "prior leaves"
    )


def outlier(model, params):
    assert model.noise_variance_ > 1e9
    return "fits; a Gaussian likelihood follows it: the noise and intervals widen"


def weights_fixed_tiny(model, params):
    close(
        model.predict(np.c_[X, X[:, 0]]), np.c_[np.ones(30), X] @ least_squares(), 0.01
    )
    return "fits; least squares, with the sd of their difference that of the prior"


def least_squares():
    return np.linalg.lstsq(np.c_[np.ones(30), X], Y, rcond=None)[0]


NAN = "contains NaN"
ROWS = [
    ("y constant", X, np.full(30, 7.0), {}, constant_target),
    ("a constant column", replaced(X, np.s_[:, 1], 0.1), Y, {}, constant_column),
    ("a duplicated column", np.c_[X, X[:, 0]], Y, {}, duplicated_column),
    (
        "a duplicated column, `weight_precision=1e-12`",
        np.c_[X, X[:, 0]],
        Y,
        {"weight_precision": 1e-12},
        weights_fixed_tiny,
    ),
    ("one row", X[:1], Y[:1], {}, one_row),
    ("two rows", X[:2], Y[:2], {}, two_rows),
    ("10 rows, 500 columns", WIDE, Y[:10], {}, wide),
    ("y * 1e-12", X, Y * 1e-12, {}, scaled(1e-12)),
    ("y * 1e12", X, Y * 1e12, {}, scaled(1e12)),
    (
        "one column * 1e6",
        X * [1, 1, 1e6, 1],
        Y,
        {},
        scaled_column(1e6),
    ),
    ("one column * 1e160", X * [1, 1, 1e160, 1], Y, {}, scaled_column(1e160)),
    ("X + 1e9", X + 1e9, Y, {}, shifted),
    ("y without noise", X, X @ [1.0, 2.0, 0.0, -1.0], {}, exact_fit),
    ("an outlier of 1e6 in y", X, replaced(Y, 3, 1e6), {}, outlier),
    ("NaN in X", replaced(X, (0, 0), np.nan), Y, {}, "Input X contains NaN"),
    ("infinity in X", replaced(X, (0, 0), np.inf), Y, {}, "Input X contains infinity"),
    ("NaN in y", X, replaced(Y, 0, np.nan), {}, "Input y contains NaN"),
    ("strings in X", np.full((30, 2), "a"), Y, {}, "could not convert string to float"),
    ("no rows", X[:0], Y[:0], {}, "Found array with 0 sample(s)"),
    ("no columns", X[:, :0], Y, {}, "Found array with 0 feature(s)"),
    ("complex X", X + 1j, Y, {}, "Complex data not supported"),
    ("y * 1e200", X, Y * 1e200, {}, "y has a standard deviation of"),
    (
        "one row under near-improper priors",
        X[:1],
        Y[:1],
        FLAT,
        "The data say nothing about the weights",
    ),
]
REGRESSION = Table(
    VariationalBayesianRegression,
    "With both posteriors and both priors.",
    [
        {"posterior": posterior, "prior": prior}
        for posterior in ("structured", "mean_field")
        for prior in ("ridge", "ard")
    ],
    usable,
    ROWS,
)


# -- VariationalGaussianMixture --------------------------------------------------------

GROUPS = np.repeat([0, 1, 2], [12, 18, 30])
Z = rng.standard_normal((60, 2)) + np.array([[0, 0], [20, 5], [-5, 20]])[GROUPS]
HOLES = replaced(Z, rng.random(Z.shape) < 0.2, np.nan)


def fitted(params, rows=Z):
    return VariationalGaussianMixture(**params).fit(rows)


def usable_density(model, rows):
    """Densities, probabilities, draws and the posterior's moments are numbers."""
    for values in (
        model.score_samples(rows),
        model.predict_proba(rows),
        model.sample(5)[0],
        model.sample_posterior(5, 0)["precisions"],
        model.means_,
        model.covariances_,
        model.means_covariance_,
        model.elbo_,
    ):
        assert np.all(np.isfinite(values))
    close(model.weights_.sum(), 1.0)
    assert model.converged_


def groups_found(labels, expected=GROUPS):
    assert adjusted_rand_score(expected, labels) == 1.0


def nothing_more(model, params):
    return "fits; all that is fitted is a number"


def same_row(row):
    def check(model, params):
        close(model.means_, np.tile(row, (3, 1)))
        return "fits; all means are that row"

    return check


def two_values(model, params):
    labels = model.predict([[1.0, 2.0], [50.0, 2.5]])
    assert labels[0] != labels[1]
    return "fits; each has a component"


def labels_stay(rows):
    def check(model, params):
        groups_found(model.predict(rows))
        return "fits; the labels are those without it"

    return check


def positive_definite(model, params):
    if model.covariances_.ndim > 1 and params["covariance_type"] in ("full", "tied"):
        assert np.all(np.linalg.eigvalsh(model.covariances_) > 0.0)
    else:
        assert np.all(model.covariances_ > 0.0)
    return "fits; covariances are positive definite"


def in_units(factor):
    def check(model, params):
        here = fitted(params)
        assert np.array_equal(model.predict(Z * factor), here.predict(Z))
        close(model.elbo_, here.elbo_ - Z.size * np.log(factor))
        return "fits; the labels are the same, the ELBO moved by -n D log c"

    return check


def far_away(model, params):
    groups_found(model.predict(Z + FAR))
    close(model.means_ - FAR, fitted(params).means_, 1e-4)
    return "fits; the same labels, and means up to the rounding of the shifted numbers"


def own_component(model, params):
    labels = model.predict(replaced(Z, 3, 1e6))
    assert np.sum(labels == labels[3]) == 1
    assert len(np.unique(np.delete(labels, 3))) == 1
    return (
        "fits; it is a component, and the rest is one, too: scales and priors are "
        "those of all rows"
    )


def holes(model, params):
    known = ~np.isnan(HOLES).any(axis=1)
    groups_found(model.predict(Z[known]), GROUPS[known])
    return "fits; they are integrated out, and the groups are found"


def unknown_row(model, params):
    close(model.predict_proba(np.full((1, 2), np.nan))[0], model.weights_)
    groups_found(model.predict(Z))
    return "fits; its components have the probabilities of their weights"


FAR = 1e8 * Z.std(axis=0)
MIXTURE = Table(
    VariationalGaussianMixture,
    "Three components, with all covariance types and both posteriors.",
    [
        {
            "n_components": 3,
            "covariance_type": covariance_type,
            "posterior": posterior,
            "random_state": 0,
        }
        for covariance_type in ("full", "tied", "diag", "spherical")
        for posterior in ("structured", "mean_field")
    ],
    usable_density,
    [
        ("one row", Z[:1], None, {}, same_row(Z[0])),
        ("two rows", Z[:2], None, {}, nothing_more),
        ("identical rows", np.full((20, 2), 0.1), None, {}, same_row([0.1, 0.1])),
        ("rows of zeros", np.zeros((20, 2)), None, {}, same_row([0.0, 0.0])),
        (
            "two different rows, ten times each",
            np.repeat([[1.0, 2.0], [50.0, 2.5]], 10, axis=0),
            None,
            {},
            two_values,
        ),
        ("one column", Z[:, :1], None, {}, nothing_more),
        (
            "a constant column",
            np.c_[Z, np.full(60, 0.1)],
            None,
            {},
            labels_stay(np.c_[Z, np.full(60, 0.1)]),
        ),
        (
            "a column that is the sum of others",
            np.c_[Z, Z.sum(axis=1)],
            None,
            {},
            labels_stay(np.c_[Z, Z.sum(axis=1)]),
        ),
        ("8 rows, 40 columns", WIDE[:8, :40], None, {}, positive_definite),
        ("X * 1e-150", Z * 1e-150, None, {}, in_units(1e-150)),
        ("X * 1e-8", Z * 1e-8, None, {}, in_units(1e-8)),
        ("X * 1e150", Z * 1e150, None, {}, in_units(1e150)),
        ("X + 1e8 standard deviations", Z + FAR, None, {}, far_away),
        ("a row at 1e6", replaced(Z, 3, 1e6), None, {}, own_component),
        ("a fifth of the entries NaN", HOLES, None, {}, holes),
        (
            "a row that is all NaN",
            np.r_[Z, [[np.nan, np.nan]]],
            None,
            {},
            unknown_row,
        ),
        (
            "a column that is all NaN",
            replaced(Z, np.s_[:, 1], np.nan),
            None,
            {},
            "Column(s) [1] of X hold no number at all (only NaN): drop them",
        ),
        (
            "infinity in X",
            replaced(Z, (0, 0), np.inf),
            None,
            {},
            "Input X contains infinity",
        ),
        (
            "strings in X",
            np.full((30, 2), "a"),
            None,
            {},
            "could not convert string to float",
        ),
        ("complex X", Z + 1j, None, {}, "Complex data not supported"),
        ("no rows", Z[:0], None, {}, "Found array with 0 sample(s)"),
        ("no columns", Z[:, :0], None, {}, "Found array with 0 feature(s)"),
    ],
)


# -- VariationalTopicModel -------------------------------------------------------------

SUBJECT = np.arange(40) % 2
WORDS = rng.poisson(np.where(SUBJECT[:, None] == np.arange(8) // 4, 6.0, 0.1))
WORDS = WORDS.astype(float)


def usable_topics(model, rows):
    """Topics, proportions, perplexities and draws are numbers."""
    close(model.components_.sum(axis=1), 1.0)
    close(model.transform(rows).sum(axis=1), 1.0)
    for values in (
        model.components_std_,
        model.doc_topic_posterior(rows).interval(0.9),
        model.perplexity(rows, method="elbo"),
        model.sample_posterior(5, 0)["topics"],
        model.elbo_,
    ):
        assert np.all(np.isfinite(values))
    assert model.converged_


def topics_of(params, rows=WORDS):
    return VariationalTopicModel(**params).fit(rows)


def subjects_found(model, rows=WORDS):
    assert adjusted_rand_score(SUBJECT, model.transform(rows).argmax(axis=1)) == 1.0


def prior_of_empty(model, params):
    rows = np.r_[WORDS, np.zeros((3, 8))]
    alpha = model.doc_topic_prior_
    close(model.transform(rows)[-3:], np.tile(alpha / alpha.sum(), (3, 1)))
    subjects_found(model, rows[:40])
    close(model.elbo_, topics_of(params).elbo_)
    return "fits; they have the prior's proportions, and the rest is as without them"


def unseen_word(model, params):
    assert np.all(model.components_[:, 8] < 0.1)
    subjects_found(model, np.c_[WORDS, np.zeros(40)])
    return "fits; all topics give it what the prior does"


def same_as_dense(model, params):
    close(model.elbo_, topics_of(params).elbo_, 1e-12)
    return "fits; the same as the sums, dense"


def same_proportions(model, params):
    theta = model.transform(WORDS[:1])
    close(model.transform(np.tile(WORDS[:1], (30, 1))), np.tile(theta, (30, 1)))
    return "fits; they have the same proportions"


def huge_count(model, params):
    assert model.transform(replaced(WORDS, (0, 0), 1e4))[0].max() > 0.99
    assert model.components_[:, 0].max() > 0.9
    return "fits; the word has a topic to itself"


def stored_twice():
    half = np.floor(WORDS / 2.0)
    parts = np.c_[half, WORDS - half].ravel()
    return sparse.csr_array(
        (parts, np.tile(np.arange(8), 80), 16 * np.arange(41)), shape=(40, 8)
    )


def fractions(model, params):
    subjects_found(model, WORDS / 3.0)
    with pytest.raises(ValueError, match="not whole numbers"):
        model.sample_posterior(5, 0, X=WORDS / 3.0)
    return "fits; as counts do, but there are no tokens whose topics could be drawn"


NO_WORD = "X holds no word at all"
TOPICS = Table(
    VariationalTopicModel,
    "Two topics, with both posteriors, the structured one in both of its forms.",
    [
        {"n_components": 2, "random_state": 0, **form}
        for form in (
            {"posterior": "structured"},
            {"posterior": "structured", "memory_budget": 0.0},
            {"posterior": "mean_field"},
        )
    ],
    usable_topics,
    [
        ("one document", WORDS[:1], None, {}, nothing_more),
        ("one document of one word", np.eye(8)[:1], None, {}, nothing_more),
        ("two documents", WORDS[:2], None, {}, nothing_more),
        ("one column", WORDS[:, :1] + 1.0, None, {}, nothing_more),
        (
            "the same document 30 times",
            np.tile(WORDS[:1], (30, 1)),
            None,
            {},
            same_proportions,
        ),
        ("empty documents", np.r_[WORDS, np.zeros((3, 8))], None, {}, prior_of_empty),
        ("a word of no document", np.c_[WORDS, np.zeros(40)], None, {}, unseen_word),
        ("a count of 1e4", replaced(WORDS, (0, 0), 1e4), None, {}, huge_count),
        ("numbers that are not whole", WORDS / 3.0, None, {}, fractions),
        ("a count of 1e9", replaced(WORDS, (0, 0), 1e9), None, {}, nothing_more),
        (
            "sparse X, entries stored in two parts",
            stored_twice(),
            None,
            {},
            same_as_dense,
        ),
        ("documents that are all empty", np.zeros((5, 8)), None, {}, NO_WORD),
        (
            "negative counts",
            replaced(WORDS, (0, 0), -1.0),
            None,
            {},
            "Negative values in data",
        ),
        ("NaN in X", replaced(WORDS, (0, 0), np.nan), None, {}, "Input X contains NaN"),
        (
            "infinity in X",
            replaced(WORDS, (0, 0), np.inf),
            None,
            {},
            "Input X contains infinity",
        ),
        (
            "strings in X",
            np.full((30, 2), "a"),
            None,
            {},
            "could not convert string to float",
        ),
        ("complex X", WORDS + 1j, None, {}, "Complex data not supported"),
        ("no rows", WORDS[:0], None, {}, "Found array with 0 sample(s)"),
        ("no columns", WORDS[:, :0], None, {}, "Found array with 0 feature(s)"),
    ],
)


# -- VariationalHMM --------------------------------------------------------------------

STATES = np.repeat([0, 1, 0, 1, 0, 1], [15, 25, 20, 20, 10, 30])
STEPS = rng.standard_normal((120, 2)) + np.array([[0.0, 0.0], [12.0, 6.0]])[STATES]
COUNTS = rng.poisson(np.array([[2.0, 30.0], [25.0, 3.0]])[STATES]).astype(float)
CODES = (2 * STATES[:, None] + (rng.random((120, 2)) < 0.5)).astype(float)  # 0 to 3
BITS = (rng.random((120, 8)) < np.where(STATES == 1, 0.95, 0.05)[:, None]).astype(float)
TRIALS = sequence_ids([40, 40, 40]).astype(float)
HOLED_STEPS = replaced(STEPS, rng.random(STEPS.shape) < 0.2, np.nan)
GAP = replaced(STEPS, np.s_[50:54], np.nan)  # inside a run of one state
POISSON = {"emissions": "poisson"}
CATEGORICAL = {"emissions": "categorical"}
BERNOULLI = {"emissions": "bernoulli"}
BY_TRIAL = {"sequence": 2}
WEIGHTED = {"sequence": 2, "sequence_weight": 3}


def usable_sequences(model, rows):
    """Densities, states, draws and forecasts are numbers."""
    draws = model.sample_posterior(5, 0)
    ahead = model.forecast(rows, n_steps=3)
    for values in (
        model.score_samples(rows),
        model.score(rows),
        model.sample(5, random_state=0)[0],
        *draws.values(),
        model.log_posterior_density(draws),
        model.transmat_std_,
        model.elbo_,
    ):
        assert np.all(np.isfinite(values))
    for law in (
        model.predict_proba(rows),
        model.startprob_,
        model.transmat_,
        ahead.state_probabilities,
    ):
        assert np.all(law >= 0.0)
        close(law.sum(axis=-1), 1.0)
    for method in ("viterbi", "marginal"):
        path = model.predict(rows, method=method)
        assert path.shape == (len(rows),) and path.dtype.kind == "i"
        assert np.all((path >= 0) & (path < model.n_components))
    assert model.converged_


def hmm_of(params, rows=STEPS, **extra):
    return VariationalHMM(**{**params, **extra}).fit(rows)


def states_found(labels, expected=STATES):
    assert adjusted_rand_score(expected, labels) == 1.0


def states_stay(rows, sentence="fits; the states are found"):
    def check(model, params):
        states_found(model.predict(rows))
        return sentence

    return check


def same_step(row):
    def check(model, params):
        close(model.means_, np.tile(row, (2, 1)))
        return "fits; all means are that step"

    return check


def no_transition(model, params):
    prior = model.transmat_prior_
    close(model.transmat_, prior / prior.sum(axis=1, keepdims=True))
    states_found(model.predict(np.c_[STEPS, np.arange(120.0)]))
    return "fits; a mixture, with the transition matrix that of the prior"


def unknown_steps(model, params):
    known = ~np.isnan(GAP[:, 0])
    states_found(model.predict(GAP)[known], STATES[known])
    states_found(model.predict(GAP))
    return "fits; their states are told by their neighbours"


def holed_steps(model, params):
    states_found(model.predict(HOLED_STEPS))
    return "fits; they are integrated out, and the states are found"


def step_in_units(factor):
    def check(model, params):
        here = hmm_of(params)
        assert np.array_equal(model.predict(STEPS * factor), here.predict(STEPS))
        close(model.elbo_, here.elbo_ - STEPS.size * np.log(factor))
        return "fits; the states are the same, the ELBO moved by -n D log c"

    return check


def steps_far_away(model, params):
    states_found(model.predict(STEPS + FAR_STEPS))
    close(model.means_ - FAR_STEPS, hmm_of(params).means_, 1e-4)
    return "fits; the same states, and means up to the rounding of the shifted numbers"


def own_state(model, params):
    labels = model.predict(OUTLIER)
    assert np.sum(labels == labels[3]) == 1
    if params["covariance_type"] != "tied":
        states_found(np.delete(labels, 3), np.delete(STATES, 3))
    return (
        "fits; it has a state to itself, and those of the others are found (not with "
        "the one tied covariance, which it widens)"
    )


def one_for_the_rest(model, params):
    labels = model.predict(OUTLIER)
    assert np.sum(labels == labels[3]) == 1
    return "fits; it has a state to itself, and all others share one"


def outlier_later(model, params):
    usable_sequences(model, OUTLIER)
    states_found(np.delete(model.predict(OUTLIER), 3), np.delete(STATES, 3))
    return "densities and states are numbers; the states of the others stay"


def outlier_beyond(model, params):
    rows = replaced(STEPS, 3, 1e200)
    assert np.all(np.isfinite(model.predict_proba(rows)))
    states_found(np.delete(model.predict(rows), 3), np.delete(STATES, 3))
    return "probabilities are numbers; the states of the others stay"


def every_step_twice(model, params):
    states_found(model.predict(np.repeat(STEPS, 2, axis=0)), np.repeat(STATES, 2))
    return "fits; the states are found"


def weight_of_zero(model, params):
    bare = hmm_of(params, np.c_[STEPS, TRIALS][:80], sequence=2)
    close(model.elbo_, bare.elbo_)
    close(model.means_, bare.means_)
    return "fits; as without it"


def low_rates(model, params):
    used = np.unique(model.predict(np.zeros((30, 2))))
    assert np.all(model.rates_[used] < 0.1)
    return "fits; rates are near zero"


def zero_column(model, params):
    assert np.all(model.rates_[:, 2] < 0.1)
    states_found(model.predict(np.c_[COUNTS, np.zeros(120)]))
    return "fits; its rates are near zero, the states are those without it"


def unseen_category(model, params):
    rows = replaced(CODES, (5, 0), 4.0)
    with pytest.raises(ValueError, match="n_categories"):
        model.predict(rows)
    known = hmm_of(params, CODES, emissions="categorical", n_categories=5)
    states_found(known.predict(rows))
    assert np.all(known.emissionprob_[:, 4] < 0.1)
    return (
        "`ValueError` that names `n_categories`; with `n_categories=5` it is a "
        "category that nobody saw, of the prior's small probability"
    )


def refused_after(call, exceptions, message, sentence):
    """A check: the fitted estimator refuses what comes next, and stays fitted."""

    def check(model, params):
        before = model.elbo_
        with pytest.raises(exceptions, match=message):
            call(model)
        assert model.elbo_ == before
        return sentence

    return check


FAR_STEPS = 1e8 * STEPS.std(axis=0)
OUTLIER = replaced(STEPS, 3, 1e6 * STEPS.std(axis=0))
BACK = np.r_[TRIALS[:80], np.zeros(40)]
HMM = Table(
    VariationalHMM,
    "Two states, with both posteriors. Emissions are Gaussian, with all covariance "
    "types, where the input does not say otherwise.",
    [
        {
            "n_components": 2,
            "covariance_type": covariance_type,
            "posterior": posterior,
            "random_state": 0,
        }
        for covariance_type in ("full", "tied", "diag", "spherical")
        for posterior in ("structured", "mean_field")
    ],
    usable_sequences,
    [
        ("one step", STEPS[:1], None, {}, same_step(STEPS[0])),
        ("two steps", STEPS[:2], None, {}, nothing_more),
        ("3 steps, 8 states", STEPS[:3], None, {"n_components": 8}, nothing_more),
        ("constant data", np.full((20, 2), 0.1), None, {}, same_step([0.1, 0.1])),
        ("zeros", np.zeros((20, 2)), None, {}, same_step([0.0, 0.0])),
        (
            "sequences that are all of one step",
            np.c_[STEPS, np.arange(120.0)],
            None,
            BY_TRIAL,
            no_transition,
        ),
        ("a step at 1e6 standard deviations", OUTLIER, None, {}, one_for_the_rest),
        (
            "the same, 3 states",
            OUTLIER,
            None,
            {"n_components": 3},
            own_state,
        ),
        (
            "the same in `predict` and `score`, not in `fit`",
            STEPS,
            None,
            {},
            outlier_later,
        ),
        (
            "a step at 1e200 in `predict`, not in `fit`",
            STEPS,
            None,
            {},
            outlier_beyond,
        ),
        ("every step twice", np.repeat(STEPS, 2, axis=0), None, {}, every_step_twice),
        (
            "a constant column",
            np.c_[STEPS, np.full(120, 0.1)],
            None,
            {},
            states_stay(np.c_[STEPS, np.full(120, 0.1)]),
        ),
        (
            "a duplicated column",
            np.c_[STEPS, STEPS[:, 0]],
            None,
            {},
            states_stay(np.c_[STEPS, STEPS[:, 0]]),
        ),
        ("8 steps, 40 columns", WIDE[:8, :40], None, {}, nothing_more),
        (
            "X * 1e-300",
            STEPS * 1e-300,
            None,
            {},
            "X has a column whose standard deviation is about",
        ),
        ("X * 1e-150", STEPS * 1e-150, None, {}, step_in_units(1e-150)),
        ("X * 1e-8", STEPS * 1e-8, None, {}, step_in_units(1e-8)),
        ("X * 1e150", STEPS * 1e150, None, {}, step_in_units(1e150)),
        ("X + 1e8 standard deviations", STEPS + FAR_STEPS, None, {}, steps_far_away),
        ("a fifth of the entries NaN", HOLED_STEPS, None, {}, holed_steps),
        ("four steps that are all NaN", GAP, None, {}, unknown_steps),
        (
            "a column that is all NaN",
            replaced(STEPS, np.s_[:, 1], np.nan),
            None,
            {},
            "Feature(s) [1] of X hold no number at all (only NaN): drop them",
        ),
        (
            "infinity in X",
            replaced(STEPS, (0, 0), np.inf),
            None,
            {},
            "Input X contains infinity",
        ),
        (
            "`lengths=` in `fit`",
            STEPS,
            None,
            {},
            refused_after(
                lambda model: model.fit(STEPS, lengths=[40, 80]),
                TypeError,
                "takes no `lengths`.*sequence_ids",
                "`TypeError`: VariationalHMM.fit takes no `lengths`: mark the "
                "sequences by a column of X ...",
            ),
        ),
        (
            "an id that comes back",
            np.c_[STEPS, BACK],
            None,
            BY_TRIAL,
            "sequence: id 0.0 comes back at row 80",
        ),
        (
            "an id that is NaN",
            np.c_[STEPS, replaced(TRIALS, 7, np.nan)],
            None,
            BY_TRIAL,
            "sequence must name a column of ids without missing values",
        ),
        (
            "a name of a column that is not there",
            STEPS,
            None,
            {"sequence": "trial"},
            "sequence='trial' names a column, but X (ndarray) has no column names",
        ),
        (
            "a sequence of weight 0",
            np.c_[STEPS, TRIALS, TRIALS < 2.0],
            None,
            WEIGHTED,
            weight_of_zero,
        ),
        (
            "a weight that varies within a sequence",
            np.c_[STEPS, TRIALS, np.arange(120.0)],
            None,
            WEIGHTED,
            "sequence_weight must name a column that is constant in each sequence",
        ),
        (
            "negative weights",
            np.c_[STEPS, TRIALS, np.full(120, -1.0)],
            None,
            WEIGHTED,
            "sequence_weight must name a column of numbers that are not negative",
        ),
        (
            "weights that are all 0",
            np.c_[STEPS, TRIALS, np.zeros(120)],
            None,
            WEIGHTED,
            "sequence_weight is zero for every sequence",
        ),
        ("counts that are all 0", np.zeros((30, 2)), None, POISSON, low_rates),
        (
            "a column of counts that are all 0",
            np.c_[COUNTS, np.zeros(120)],
            None,
            POISSON,
            zero_column,
        ),
        (
            "counts of up to 4e299",
            COUNTS * 1e298,
            None,
            POISSON,
            nothing_more,
        ),
        (
            "counts that are not whole",
            COUNTS / 3.0,
            None,
            POISSON,
            states_stay(COUNTS / 3.0),
        ),
        (
            "negative counts",
            replaced(COUNTS, (0, 0), -1.0),
            None,
            POISSON,
            "Negative values in data",
        ),
        ("bits that are all 0", np.zeros((30, 2)), None, BERNOULLI, nothing_more),
        (
            "bits of 0 and 7",
            7.0 * BITS,
            None,
            BERNOULLI,
            states_stay(BITS, "fits; what is above zero is a one"),
        ),
        ("negative bits", -BITS, None, BERNOULLI, "Negative values in data"),
        ("one category", np.zeros((30, 1)), None, CATEGORICAL, nothing_more),
        (
            "a category in `predict`, not in `fit`",
            CODES,
            None,
            CATEGORICAL,
            unseen_category,
        ),
        (
            "categories with fractions",
            CODES + 0.4,
            None,
            CATEGORICAL,
            states_stay(CODES, "fits; fractions are cut off"),
        ),
        (
            "a category coded 1e9",
            replaced(CODES, (5, 0), 1e9),
            None,
            CATEGORICAL,
            "X has the code 1000000000; categories are numbered",
        ),
        (
            "negative categories",
            replaced(CODES, (5, 0), -1.0),
            None,
            CATEGORICAL,
            "Negative values in data",
        ),
        (
            "fewer features in `predict`",
            STEPS,
            None,
            {},
            refused_after(
                lambda model: model.predict(STEPS[:, :1]),
                ValueError,
                "X has 1 features, but VariationalHMM is expecting 2 features",
                "`ValueError`: X has 1 features, but VariationalHMM is expecting 2 "
                "features ...",
            ),
        ),
        (
            "sparse X",
            STEPS,
            None,
            {},
            refused_after(
                lambda model: model.fit(sparse.csr_array(COUNTS)),
                TypeError,
                "Sparse data was passed",
                "`TypeError`: Sparse data was passed for X, but dense data is "
                "required ...",
            ),
        ),
        ("1-D X", STEPS[:, 0], None, {}, "Expected 2D array, got 1D array instead"),
        (
            "strings in X",
            np.full((30, 2), "a"),
            None,
            {},
            "could not convert string to float",
        ),
        ("complex X", STEPS + 1j, None, {}, "Complex data not supported"),
        ("no steps", STEPS[:0], None, {}, "Found array with 0 sample(s)"),
        ("no columns", STEPS[:, :0], None, {}, "Found array with 0 feature(s)"),
        (
            "no column but the ids",
            TRIALS[:, None],
            None,
            {"sequence": 0},
            "Found array with 0 feature(s)",
        ),
    ],
)


# -- VariationalLinearDynamicalSystem --------------------------------------------------

PULSE = np.zeros(60)
for t in range(1, 60):
    PULSE[t] = 0.85 * PULSE[t - 1] + rng.standard_normal()
WALKS = PULSE[:, None] * [2.0, -3.0]
SERIES = WALKS + 0.5 * rng.standard_normal((60, 2))
NUMBERS = rng.poisson(np.exp(1.5 + 0.1 * WALKS)).astype(float)
RUNS = sequence_ids([20, 20, 20]).astype(float)
HOLED_SERIES = replaced(SERIES, rng.random(SERIES.shape) < 0.2, np.nan)
PAUSE = replaced(SERIES, np.s_[30:34], np.nan)
COUNTED = {"observations": "poisson"}
FREE = {"structure": "free"}
FAR_SERIES = 1e8 * SERIES.std(axis=0)
SPIKE = replaced(SERIES, 3, 1e6 * SERIES.std(axis=0))


def usable_systems(model, rows):
    """States, densities, predictions, forecasts and draws are numbers."""
    draws = model.sample_posterior(5, 0, X=rows)
    ahead = model.forecast(rows, n_steps=3)
    for values in (
        model.transform(rows),
        model.smooth(rows, return_cov=True)[1],
        model.predict(rows),
        model.predict_interval(rows),
        model.score_samples(rows),
        model.score(rows),
        model.sample(5, random_state=0)[0],
        ahead.mean,
        ahead.interval(0.9),
        *draws.values(),
        model.log_posterior_density(draws, X=rows),
        model.elbo_,
    ):
        assert np.all(np.isfinite(values))
    # infinite where a Student-t has too few degrees of freedom
    assert np.all(model.predict(rows, return_std=True)[1] > 0.0)
    assert np.all(ahead.std() > 0.0)
    assert np.all(model.states_covariance_.diagonal(axis1=1, axis2=2) > 0.0)
    assert model.converged_


def lds_of(params, rows=SERIES, **extra):
    return VariationalLinearDynamicalSystem(**{**params, **extra}).fit(rows)


def follows(rows, sentence, tolerance=1.0):
    """A check: predictions are near the walks below the noise."""

    def check(model, params):
        gap = model.predict(rows)[:, :2] - WALKS
        assert np.sqrt(np.mean(gap**2)) < tolerance
        return sentence

    return check


def constant_series(model, params):
    close(model.predict(np.full((20, 2), 0.1)), 0.1, 1e-4)
    return "fits; predictions are that constant"


def constant_feature(model, params):
    rows = np.c_[SERIES, np.full(60, 0.1)]
    close(model.predict(rows)[:, 2], 0.1, 1e-2)
    assert np.sqrt(np.mean((model.predict(rows)[:, :2] - WALKS) ** 2)) < 1.0
    return "fits; it is predicted to be that constant, the others as without it"


def unknown_between(model, params):
    mean, std = model.predict(PAUSE, return_std=True)
    assert np.all(std[31:33] > std[20])
    assert np.all(np.abs(mean - WALKS)[30:34] < 4.0 * std[30:34])
    return "fits; they are told by their neighbours, with a wider interval"


def series_in_units(factor):
    def check(model, params):
        here = lds_of(params)
        close(model.elbo_, here.elbo_ - SERIES.size * np.log(factor))
        close(model.predict(SERIES * factor) / factor, here.predict(SERIES))
        return "fits; predictions in those units, the ELBO moved by -n D log c"

    return check


def series_far_away(model, params):
    here = lds_of(params)
    close(model.predict(SERIES + FAR_SERIES) - FAR_SERIES, here.predict(SERIES), 1e-3)
    return "fits; the same, up to the rounding of the shifted numbers"


def spike_followed(model, params):
    assert np.all(model.noise_variance_ > 1e6)
    return "fits; a Gaussian likelihood follows it: the noise and intervals widen"


def spike_later(model, params):
    usable_systems(model, SPIKE)
    return "states and densities are numbers"


def weightless_run(model, params):
    bare = lds_of(params, np.c_[SERIES, RUNS][:40], sequence=2)
    close(model.elbo_, bare.elbo_)
    rows = np.c_[SERIES, RUNS, RUNS < 2.0]
    close(model.predict(rows)[:40], bare.predict(np.c_[SERIES, RUNS][:40]))
    return "fits; as without it"


def rates_near_zero(model, params):
    assert np.all(model.predict(np.zeros((30, 2))) < 0.2)
    return "fits; predictions are near zero"


def zero_feature(model, params):
    mean = model.predict(np.c_[NUMBERS, np.zeros(60)])
    assert np.all(mean[:, 2] < 0.2) and np.all(mean[:, :2] > 0.2)
    return "fits; it is predicted to be near zero"


SYSTEMS = Table(
    VariationalLinearDynamicalSystem,
    "One free state, and a local level of each column, with both posteriors. "
    "Observations are Gaussian where the input does not say otherwise.",
    [
        {**structure, "posterior": posterior, "random_state": 0}
        for structure in ({}, {"structure": "local_level"})
        for posterior in ("structured", "mean_field")
    ],
    usable_systems,
    [
        ("one step", SERIES[:1], None, {}, nothing_more),
        ("two steps", SERIES[:2], None, {}, nothing_more),
        (
            "3 steps, 8 free states",
            SERIES[:3],
            None,
            {**FREE, "n_components": 8},
            nothing_more,
        ),
        (
            "3 free states of 2 columns",
            SERIES,
            None,
            {**FREE, "n_components": 3},
            follows(SERIES, "fits; what is not needed is switched off"),
        ),
        ("one column", SERIES[:, :1], None, {}, nothing_more),
        ("constant data", np.full((20, 2), 0.1), None, {}, constant_series),
        ("zeros", np.zeros((20, 2)), None, {}, nothing_more),
        (
            "a constant column",
            np.c_[SERIES, np.full(60, 0.1)],
            None,
            {},
            constant_feature,
        ),
        (
            "a duplicated column",
            np.c_[SERIES, SERIES[:, 0]],
            None,
            {},
            nothing_more,
        ),
        (
            "sequences that are all of one step, initial_covariance=1",
            np.c_[SERIES, np.arange(60.0)],
            None,
            # Nothing else says what the scale of the free state is.
            {**BY_TRIAL, "initial_covariance": 1.0},
            nothing_more,
        ),
        ("8 steps, 40 columns", WIDE[:8, :40], None, {}, nothing_more),
        ("a step at 1e6 standard deviations", SPIKE, None, {}, spike_followed),
        (
            "the same in `transform` and `score`, not in `fit`",
            SERIES,
            None,
            {},
            spike_later,
        ),
        (
            "X * 1e-300",
            SERIES * 1e-300,
            None,
            {},
            "X has a column whose standard deviation is about",
        ),
        (
            "X * 1e300",
            SERIES * 1e300,
            None,
            {},
            "X has a column whose standard deviation is about",
        ),
        ("X * 1e-150", SERIES * 1e-150, None, {}, series_in_units(1e-150)),
        ("X * 1e-8", SERIES * 1e-8, None, {}, series_in_units(1e-8)),
        ("X * 1e150", SERIES * 1e150, None, {}, series_in_units(1e150)),
        ("X + 1e8 standard deviations", SERIES + FAR_SERIES, None, {}, series_far_away),
        (
            "a fifth of the entries NaN",
            HOLED_SERIES,
            None,
            {},
            follows(HOLED_SERIES, "fits; they are integrated out", 1.5),
        ),
        ("four steps that are all NaN", PAUSE, None, {}, unknown_between),
        (
            "a column that is all NaN",
            replaced(SERIES, np.s_[:, 1], np.nan),
            None,
            {},
            "Feature(s) [1] of X hold no number at all (only NaN): drop them",
        ),
        (
            "infinity in X",
            replaced(SERIES, (0, 0), np.inf),
            None,
            {},
            "Input X contains infinity",
        ),
        (
            "`lengths=` in `fit`",
            SERIES,
            None,
            {},
            refused_after(
                lambda model: model.fit(SERIES, lengths=[20, 40]),
                TypeError,
                "takes no `lengths`.*sequence_ids",
                "`TypeError`: VariationalLinearDynamicalSystem.fit takes no `lengths`: "
                "mark the sequences by a column of X ...",
            ),
        ),
        (
            "an id that comes back",
            np.c_[SERIES, np.r_[RUNS[:40], np.zeros(20)]],
            None,
            BY_TRIAL,
            "sequence: id 0.0 comes back at row 40",
        ),
        (
            "an id that is NaN",
            np.c_[SERIES, replaced(RUNS, 7, np.nan)],
            None,
            BY_TRIAL,
            "sequence must name a column of ids without missing values",
        ),
        (
            "a sequence of weight 0",
            np.c_[SERIES, RUNS, RUNS < 2.0],
            None,
            WEIGHTED,
            weightless_run,
        ),
        (
            "negative weights",
            np.c_[SERIES, RUNS, np.full(60, -1.0)],
            None,
            WEIGHTED,
            "sequence_weight must name a column of numbers that are not negative",
        ),
        (
            "weights that are all 0",
            np.c_[SERIES, RUNS, np.zeros(60)],
            None,
            WEIGHTED,
            "sequence_weight is zero for every sequence",
        ),
        ("counts that are all 0", np.zeros((30, 2)), None, COUNTED, rates_near_zero),
        (
            "a column of counts that are all 0",
            np.c_[NUMBERS, np.zeros(60)],
            None,
            COUNTED,
            zero_feature,
        ),
        ("counts of up to 1e9", NUMBERS * 1e8, None, COUNTED, nothing_more),
        (
            "a count of 1e6",
            replaced(NUMBERS, (3, 0), 1e6),
            None,
            COUNTED,
            nothing_more,
        ),
        ("counts that are not whole", NUMBERS / 3.0, None, COUNTED, nothing_more),
        (
            "negative counts",
            replaced(NUMBERS, (0, 0), -1.0),
            None,
            COUNTED,
            "Negative values in data",
        ),
        (
            "fewer features in `transform`",
            SERIES,
            None,
            {},
            refused_after(
                lambda model: model.transform(SERIES[:, :1]),
                ValueError,
                "X has 1 features, but VariationalLinearDynamicalSystem is expecting 2",
                "`ValueError`: X has 1 features, but VariationalLinearDynamicalSystem "
                "is expecting 2 features ...",
            ),
        ),
        (
            "strings in X",
            np.full((30, 2), "a"),
            None,
            {},
            "could not convert string to float",
        ),
        ("complex X", SERIES + 1j, None, {}, "Complex data not supported"),
        ("no steps", SERIES[:0], None, {}, "Found array with 0 sample(s)"),
        ("no columns", SERIES[:, :0], None, {}, "Found array with 0 feature(s)"),
        (
            "no column but the ids",
            RUNS[:, None],
            None,
            {"sequence": 0},
            "Found array with 0 feature(s)",
        ),
    ],
)


# -- VariationalLogisticClassifier -----------------------------------------------------

SCORE = X @ [1.0, -2.0, 0.5, 0.0]
YES = (SCORE + rng.logistic(size=30) > 0.0).astype(int)
APART = (X[:, 0] > 0.0).astype(int)
THREE = np.argsort(np.argsort(SCORE + rng.logistic(size=30))) // 10
FEW = np.arange(10) % 2


def usable_classifier(model, rows):
    """Probabilities, weights, their law and draws are numbers."""
    p = model.predict_proba(rows)
    assert np.all((p >= 0.0) & (p <= 1.0))
    close(p.sum(axis=1), 1.0)
    for values in (
        model.decision_function(rows),
        model.predict_log_proba(rows),
        model.coef_,
        model.intercept_,
        model.sample_posterior(5, 0)["coef"],
        model.elbo_,
    ):
        assert np.all(np.isfinite(values))
    assert np.all(model.coef_std_ > 0.0) and np.all(model.intercept_std_ > 0.0)
    assert np.all(np.isin(model.predict(rows), model.classes_))
    assert model.converged_


def classifier_of(params, rows=X, labels=YES, **extra):
    return VariationalLogisticClassifier(**{**params, **extra}).fit(rows, labels)


def separated(rows, labels):
    def check(model, params):
        assert model.score(rows, labels) == 1.0
        assert np.all(model.predict_proba(rows) < 1.0)
        largest = np.max(np.abs(model.coef_) * model.X_scale_)
        assert largest < 30.0  # prior sds of one or two, not the way to infinity
        return (
            "fits; all rows are told right, and weights are as large as their prior "
            "lets them be"
        )

    return check


def separated_freely(model, params):
    assert model.score(X, APART) == 1.0
    assert np.all(np.abs(model.coef_) * model.X_scale_ > 0.0)
    return "fits; weights are huge, and so are their standard deviations"


def label_kinds(labels):
    def check(model, params):
        assert list(model.classes_) == sorted(set(labels))
        here = classifier_of(params)
        close(model.elbo_, here.elbo_)
        assert np.array_equal(model.predict(X), model.classes_[here.predict(X)])
        return "fits; predictions are these labels"

    return check


def weightless_column(constant):
    """That says nothing of y: the weight is as in the prior."""

    def check(model, params):
        assert np.all(np.abs(model.coef_[..., 1]) < 1e-9)
        rows = X[:, [0, 2, 3]]
        bare = type(model)(**{**params, "weight_precision": 1.0})
        same = type(model)(**{**params, "weight_precision": 1.0})
        target = YES if model is classifier_like(model) else NUMBER
        bare.fit(rows, target)
        same.fit(replaced(X, np.s_[:, 1], constant), target)
        close(same.elbo_, bare.elbo_)
        return (
            "fits; its weight stays at the prior, with mean 0, and (`weight_precision` "
            "given) the ELBO is that without it"
        )

    return check


def classifier_like(model):
    return model if isinstance(model, VariationalLogisticClassifier) else None


def shared_weight(model, params):
    a, b = model.coef_[..., 0], model.coef_[..., 4]
    close(a, b, 1e-3)
    return "fits; the two share the weight"


def column_in_units(factor):
    def check(model, params):
        here = type(model)(**params)
        here.fit(X, YES if classifier_like(model) else NUMBER)
        close(model.coef_[..., 2] * factor, here.coef_[..., 2], 1e-5)
        close(model.elbo_, here.elbo_)
        return "fits; that weight in those units, nothing else changes"

    return check


def columns_far_away(model, params):
    here = type(model)(**params)
    here.fit(X, YES if classifier_like(model) else NUMBER)
    close(model.coef_, here.coef_, 1e-4)
    close(model.elbo_, here.elbo_, 1e-5)
    return "fits; the same weights, up to the rounding of the shifted numbers"


def towards_even(model, params):
    p = model.predict_proba(X * 1e6)
    here = model.predict_proba(X)
    assert np.all(p < 1.0 - 1e-9)
    assert np.mean(p.max(axis=1)) > np.mean(here.max(axis=1))
    return "probabilities are those of the sign of the linear predictor; none is 0 or 1"


def rare_class(model, params):
    p = model.predict_proba(X)[:, 1]
    assert np.mean(p) < 0.2
    return "fits; probabilities are small"


def weights_of_classes(model, params):
    assert model.intercept_std_[0] > classifier_of(params).intercept_std_[0]
    return "fits; as if there were as many rows as that"


def refused_fit(estimator, rows, target, match, sentence, method="fit", **kwargs):
    """Of a row whose own fit is fine: another call that must fail."""

    def check(model, params):
        other = estimator(**params) if estimator else model
        with pytest.raises(ValueError, match=match):
            getattr(other, method)(rows, target, **kwargs)
        return sentence

    return check


LOGISTIC = Table(
    VariationalLogisticClassifier,
    "With both links and both posteriors, and either prior.",
    [
        {"posterior": "structured"},
        {"posterior": "mean_field", "prior": "ard"},
        {"posterior": "structured", "link": "probit", "prior": "ard"},
        {"posterior": "mean_field", "link": "probit"},
    ],
    usable_classifier,
    [
        ("perfect separation", X, APART, {}, separated(X, APART)),
        (
            "perfect separation, `weight_precision=1e-4`",
            X,
            APART,
            {"weight_precision": 1e-4},
            separated_freely,
        ),
        (
            "10 rows, 500 columns",
            WIDE,
            FEW,
            {},
            separated(WIDE, FEW),
        ),
        ("one class", X, np.zeros(30, dtype=int), {}, "y holds one class only"),
        ("one row", X[:1], YES[:1], {}, "y holds one class only"),
        ("two rows, one of each class", X[:2], FEW[:2], {}, nothing_more),
        ("one row of a class", X, np.arange(30) // 29, {}, rare_class),
        (
            "labels that are strings",
            X,
            np.array(["no", "yes"])[YES],
            {},
            label_kinds(["no", "yes"]),
        ),
        ("labels that are booleans", X, YES == 1, {}, label_kinds([False, True])),
        ("labels -1 and 1", X, 2 * YES - 1, {}, label_kinds([-1, 1])),
        (
            "labels that are not classes",
            X,
            Y,
            {},
            "Unknown label type: continuous",
        ),
        (
            'three classes, `link="probit"`',
            X,
            THREE,
            {"link": "probit"},
            "link='probit' is for two classes, but y has 3: use link='logit'",
        ),
        (
            "a constant column",
            replaced(X, np.s_[:, 1], 0.1),
            YES,
            {},
            weightless_column(0.1),
        ),
        ("a duplicated column", np.c_[X, X[:, 0]], YES, {}, shared_weight),
        ("one column * 1e6", X * [1, 1, 1e6, 1], YES, {}, column_in_units(1e6)),
        ("one column * 1e160", X * [1, 1, 1e160, 1], YES, {}, column_in_units(1e160)),
        (
            "one column * 1e-160",
            X * [1, 1, 1e-160, 1],
            YES,
            {},
            column_in_units(1e-160),
        ),
        ("X + 1e9", X + 1e9, YES, {}, columns_far_away),
        ("an entry of 1e9", replaced(X, (3, 0), 1e9), YES, {}, nothing_more),
        ("X * 1e6 in `predict_proba`, not in `fit`", X, YES, {}, towards_even),
        ("zeros", np.zeros((30, 2)), YES, {}, nothing_more),
        (
            "`class_weight={0: 1e-3, 1: 1e-3}`",
            X,
            YES,
            {"class_weight": {0: 1e-3, 1: 1e-3}},
            weights_of_classes,
        ),
        ("NaN in X", replaced(X, (0, 0), np.nan), YES, {}, "Input X contains NaN"),
        (
            "infinity in X",
            replaced(X, (0, 0), np.inf),
            YES,
            {},
            "Input X contains infinity",
        ),
        ("NaN in y", X, replaced(YES, 0, np.nan), {}, "Input y contains NaN"),
        (
            "strings in X",
            np.full((30, 2), "a"),
            YES,
            {},
            "could not convert string to float",
        ),
        ("complex X", X + 1j, YES, {}, "Complex data not supported"),
        ("no rows", X[:0], YES[:0], {}, "Found array with 0 sample(s)"),
        ("no columns", X[:, :0], YES, {}, "Found array with 0 feature(s)"),
        (
            "weights that are all 0",
            X,
            YES,
            {},
            refused_fit(
                VariationalLogisticClassifier,
                X,
                YES,
                "at least one non-zero",
                "`ValueError`: Sample weights must contain at least one non-zero "
                "number ...",
                sample_weight=np.zeros(30),
            ),
        ),
        (
            "a class in `partial_fit` that was not in `classes`",
            X,
            YES,
            {},
            refused_fit(
                None,
                X,
                np.full(30, 7),
                "7",
                "`ValueError`: y holds [7], which are not among the classes ...",
                method="partial_fit",
            ),
        ),
    ],
)


# -- VariationalGLMRegressor -----------------------------------------------------------

NUMBER = rng.poisson(np.exp(0.5 + 0.5 * SCORE)).astype(float)
TIME = rng.uniform(0.5, 4.0, 30)
GAUSSIAN = {"family": "gaussian"}
ROBUST = {"family": "student_t"}
BY_TIME = {"exposure": 4}
MOVED = {"offset": 4}


def usable_regressor(model, rows):
    """Predictions, intervals, weights, their law and draws are numbers."""
    mean, std = model.predict(rows, return_std=True)
    for values in (
        mean,
        std,
        model.predict_interval(rows),
        model.coef_,
        model.intercept_,
        model.sample_posterior(5, 0)["coef"],
        model.sample_y(rows, 5, 0),
        model.elbo_,
    ):
        assert np.all(np.isfinite(values))
    assert np.all(std > 0.0)
    if model.family in ("poisson", "negative_binomial"):
        assert np.all(mean > 0.0)
    assert np.all(model.coef_std_ > 0.0) and model.intercept_std_ > 0.0
    assert model.converged_


def glm_of(params, rows=X, target=NUMBER, **extra):
    return VariationalGLMRegressor(**{**params, **extra}).fit(rows, target)


def small_rates(model, params):
    assert np.all(model.predict(X) < 0.3)
    return "fits; rates are small, as far as the prior and n let them be"


def large_rates(model, params):
    total = np.sum(NUMBER * 1e6)
    close(model.predict(X).sum(), total, 1e-2 if model.family == "poisson" else 0.5)
    return "fits; predictions are of that size"


def followed_count(model, params):
    assert model.predict(X)[3] > 1e3
    return "fits; the rate of that row follows it"


def other_time_unit(factor):
    def check(model, params):
        here = glm_of(params, np.c_[X, TIME], exposure=4)
        close(model.elbo_, here.elbo_)
        close(model.coef_, here.coef_, 1e-5)
        close(model.intercept_, here.intercept_ - np.log(factor))
        return "fits; the rate is per that unit, nothing else changes"

    return check


def offset_as_intercept(model, params):
    here = glm_of(params)
    close(model.elbo_, here.elbo_)
    close(model.intercept_ + 300.0, here.intercept_, 1e-4)
    return "fits; the intercept makes up for it"


def target_in_units(factor):
    def check(model, params):
        here = glm_of({**params, "family": model.family}, X, Y)
        close(model.coef_ / factor, here.coef_, 1e-5)
        close(model.elbo_, here.elbo_ - len(Y) * np.log(factor))
        return "fits; everything in those units, the ELBO moved by -n log c"

    return check


def target_far_away(model, params):
    here = glm_of({**params, "family": model.family}, X, Y)
    close(model.coef_, here.coef_, 1e-4)
    close(model.intercept_ - 1e9, here.intercept_, 1e-3)
    return "fits; the same weights, up to the rounding of the shifted numbers"


def outlier_left_alone(model, params):
    here = glm_of({**params, "family": "student_t"}, X, Y)
    assert np.all(np.abs(model.coef_ - here.coef_) < 1.5 * here.coef_std_)
    return "fits; the weights are those without it, about"


def outlier_followed(model, params):
    assert model.dispersion_ > 1e6
    return "fits; a Gaussian likelihood follows it: the noise and intervals widen"


def constant_predictions(model, params):
    close(model.predict(X), 7.0, 1e-3)
    return "fits; predictions are that constant"


def no_noise(model, params):
    close(model.coef_, [1.0, 2.0, 0.0, -1.0], 0.05)
    return "fits; the noise is what the prior leaves"


GLM = Table(
    VariationalGLMRegressor,
    "Poisson and negative binomial counts where the input does not say otherwise, with "
    "both posteriors.",
    [
        {"family": family, "posterior": posterior}
        for family in ("poisson", "negative_binomial")
        for posterior in ("structured", "mean_field")
    ],
    usable_regressor,
    [
        ("counts that are all 0", X, np.zeros(30), {}, small_rates),
        ("one count that is not 0", X, np.eye(30)[3], {}, small_rates),
        ("counts of up to 1e7", X, NUMBER * 1e6, {}, large_rates),
        ("a count of 1e6", X, replaced(NUMBER, 3, 1e6), {}, followed_count),
        ("counts that are not whole", X, NUMBER / 3.0, {}, nothing_more),
        ("counts that are all the same", X, np.full(30, 4.0), {}, nothing_more),
        (
            "negative counts",
            X,
            replaced(NUMBER, 2, -1.0),
            {},
            "y must hold counts for family=",
        ),
        ("one row", X[:1], NUMBER[:1], {}, nothing_more),
        ("two rows", X[:2], NUMBER[:2], {}, nothing_more),
        ("10 rows, 500 columns", WIDE, NUMBER[:10], {}, nothing_more),
        (
            "a constant column",
            replaced(X, np.s_[:, 1], 0.1),
            NUMBER,
            {},
            weightless_column(0.1),
        ),
        ("a duplicated column", np.c_[X, X[:, 0]], NUMBER, {}, shared_weight),
        ("one column * 1e6", X * [1, 1, 1e6, 1], NUMBER, {}, column_in_units(1e6)),
        (
            "one column * 1e160",
            X * [1, 1, 1e160, 1],
            NUMBER,
            {},
            column_in_units(1e160),
        ),
        ("X + 1e9", X + 1e9, NUMBER, {}, columns_far_away),
        ("an entry of 1e6", replaced(X, (3, 0), 1e6), NUMBER, {}, nothing_more),
        (
            "exposures * 1e-300",
            np.c_[X, TIME * 1e-300],
            NUMBER,
            BY_TIME,
            other_time_unit(1e-300),
        ),
        (
            "exposures * 1e300",
            np.c_[X, TIME * 1e300],
            NUMBER,
            BY_TIME,
            other_time_unit(1e300),
        ),
        (
            "exposures from 1e-6 to 1e6",
            np.c_[X, np.logspace(-6, 6, 30)],
            NUMBER,
            BY_TIME,
            nothing_more,
        ),
        (
            "an exposure of 0",
            np.c_[X, replaced(TIME, 2, 0.0)],
            NUMBER,
            BY_TIME,
            "exposure must name a column of finite positive numbers, got",
        ),
        (
            "negative exposures",
            np.c_[X, -TIME],
            NUMBER,
            BY_TIME,
            "exposure must name a column of finite positive numbers, got",
        ),
        (
            "NaN in the offset",
            np.c_[X, replaced(TIME, 2, np.nan)],
            NUMBER,
            MOVED,
            "offset must name a column of finite numbers, got",
        ),
        (
            "an offset that is not a number",
            np.c_[X.astype(object), np.full(30, "a")],
            NUMBER,
            MOVED,
            "offset must name a column of finite numbers, but its values are not",
        ),
        (
            "an offset of 300",
            np.c_[X, np.full(30, 300.0)],
            NUMBER,
            MOVED,
            offset_as_intercept,
        ),
        (
            "an exposure that X has no column for",
            X,
            NUMBER,
            {"exposure": 9},
            "exposure=9",
        ),
        (
            "an exposure by name, X without names",
            X,
            NUMBER,
            {"exposure": "time"},
            "exposure='time'",
        ),
        (
            "one column as offset and exposure",
            np.c_[X, TIME],
            NUMBER,
            {**MOVED, **BY_TIME},
            "already stands in",
        ),
        (
            "an exposure of what is not counted",
            np.c_[X, TIME],
            Y,
            {**BY_TIME, **GAUSSIAN},
            "exposure=4",
        ),
        (
            "no column but the exposure",
            TIME[:, None],
            NUMBER,
            {"exposure": 0},
            "Found array with 0 feature(s)",
        ),
        (
            '`family="gaussian"`, y constant',
            X,
            np.full(30, 7.0),
            GAUSSIAN,
            constant_predictions,
        ),
        (
            '`family="gaussian"`, y * 1e-12',
            X,
            Y * 1e-12,
            GAUSSIAN,
            target_in_units(1e-12),
        ),
        ('`family="gaussian"`, y * 1e12', X, Y * 1e12, GAUSSIAN, target_in_units(1e12)),
        ('`family="gaussian"`, y + 1e9', X, Y + 1e9, GAUSSIAN, target_far_away),
        (
            '`family="gaussian"`, an outlier of 1e6',
            X,
            replaced(Y, 3, 1e6),
            GAUSSIAN,
            outlier_followed,
        ),
        (
            '`family="gaussian"`, y without noise',
            X,
            X @ [1.0, 2.0, 0.0, -1.0],
            GAUSSIAN,
            no_noise,
        ),
        (
            '`family="student_t"`, y constant',
            X,
            np.full(30, 7.0),
            ROBUST,
            constant_predictions,
        ),
        (
            '`family="student_t"`, y * 1e-12',
            X,
            Y * 1e-12,
            ROBUST,
            target_in_units(1e-12),
        ),
        ('`family="student_t"`, y * 1e12', X, Y * 1e12, ROBUST, target_in_units(1e12)),
        ('`family="student_t"`, y + 1e9', X, Y + 1e9, ROBUST, target_far_away),
        (
            '`family="student_t"`, an outlier of 1e6',
            X,
            replaced(Y, 3, 1e6),
            ROBUST,
            outlier_left_alone,
        ),
        (
            '`family="student_t"`, an outlier of 1e100',
            X,
            replaced(Y, 3, 1e100),
            ROBUST,
            outlier_left_alone,
        ),
        (
            '`family="student_t"`, y without noise',
            X,
            X @ [1.0, 2.0, 0.0, -1.0],
            ROBUST,
            no_noise,
        ),
        (
            '`family="student_t"`, three values of y in four the same',
            X,
            np.where(np.arange(30) % 4 == 0, Y, 0.0),
            ROBUST,
            nothing_more,
        ),
        ("NaN in X", replaced(X, (0, 0), np.nan), NUMBER, {}, "Input X contains NaN"),
        (
            "infinity in X",
            replaced(X, (0, 0), np.inf),
            NUMBER,
            {},
            "Input X contains infinity",
        ),
        ("NaN in y", X, replaced(NUMBER, 0, np.nan), {}, "Input y contains NaN"),
        (
            "infinity in y",
            X,
            replaced(NUMBER, 0, np.inf),
            {},
            "Input y contains infinity",
        ),
        ("strings in y", X, np.full(30, "a"), {}, "could not convert string to float"),
        (
            "strings in X",
            np.full((30, 2), "a"),
            NUMBER,
            {},
            "could not convert string to float",
        ),
        ("complex X", X + 1j, NUMBER, {}, "Complex data not supported"),
        ("no rows", X[:0], NUMBER[:0], {}, "Found array with 0 sample(s)"),
        ("no columns", X[:, :0], NUMBER, {}, "Found array with 0 feature(s)"),
        ("two targets", X, np.c_[NUMBER, NUMBER], {}, "y should be a 1d array"),
    ],
)


# -- VariationalMixedEffectsRegressor --------------------------------------------------

LEVELS = np.arange(30) % 6
GROUPED = np.c_[X, LEVELS]
WORDS_OF_LEVELS = np.array(["a", "b", "c", "d", "e", "f"], dtype=object)[LEVELS]
OWN = {"groups": 4}
TRIED = np.full(30, 8.0)
WON = np.minimum(NUMBER, 8.0)
BINOMIAL = {"family": "binomial", "trials": 5}


def usable_effects(model, rows):
    """Predictions, intervals, tables and draws are numbers."""
    draws = model.sample_posterior(5, 0)
    tables = [model.random_effects_[name] for name in model.levels_]
    if hasattr(model, "classes_"):
        p = model.predict_proba(rows)
        assert np.all((p >= 0.0) & (p <= 1.0))
        close(p.sum(axis=1), 1.0)
        found = [model.decision_function(rows)]
        assert np.all(np.isin(model.predict(rows), model.classes_))
    else:
        mean, std = model.predict(rows, return_std=True)
        assert np.all(std > 0.0)
        found = [mean, std, model.predict_interval(rows), model.sample_y(rows, 5, 0)]
        if model.family != "gaussian":
            assert np.all(mean >= 0.0)
    found += [model.coef_, model.intercept_, model.elbo_, *draws.values()]
    found += [table.mean for table in tables] + [table.sd for table in tables]
    for values in found:
        assert np.all(np.isfinite(values))
    assert np.all(np.ravel(model.coef_std_) > 0.0)
    assert all(np.all(table.sd > 0.0) for table in tables)
    assert model.converged_


def effects_of(params, rows=GROUPED, target=NUMBER, **extra):
    return VariationalMixedEffectsRegressor(**{**params, **extra}).fit(rows, target)


def like(model, rows, target, **params):
    """Another fit with the same parameters."""
    return type(model)(**{**model.get_params(), **params}).fit(rows, target)


def named_groups(names):
    """Whose levels in their sorted order are those of LEVELS."""

    def check(model, params):
        target = YES if classifier_of_groups(model) else NUMBER
        here = like(model, GROUPED, target)
        close(model.elbo_, here.elbo_)
        close(model.random_effects_["x4"].mean, here.random_effects_["x4"].mean, 1e-5)
        return "fits; the levels are these, as if they were numbered"

    return np.c_[X.astype(object), np.asarray(names, dtype=object)[LEVELS]], check


def classifier_of_groups(model):
    return isinstance(model, VariationalMixedEffectsClassifier)


def missing_level(model, params):
    assert len(model.levels_["x4"]) == 6
    target = YES if classifier_of_groups(model) else NUMBER
    here = like(model, GROUPED, target)
    close(model.elbo_, here.elbo_)
    return "fits; what is missing is a level of its own"


def new_level(model, params):
    rows = replaced(GROUPED, np.s_[:, 4], 99.0)
    method = "predict_proba" if classifier_of_groups(model) else "predict"
    answer = getattr(model, method)
    close(answer(rows), answer(GROUPED, include_random=False))
    return "predictions integrate it over the distribution of levels"


def new_missing_level(model, params):
    rows = replaced(GROUPED, np.s_[:, 4], np.nan)
    method = "predict_proba" if classifier_of_groups(model) else "predict"
    answer = getattr(model, method)
    close(answer(rows), answer(GROUPED, include_random=False))
    return "predictions integrate it as any other level that fit has not seen"


def level_of_one_row(model, params):
    table = model.random_effects_["x4"]
    alone = list(table.levels).index(7.0)
    assert table.sd[alone, 0] == table.sd.max()
    assert table.shrinkage[alone, 0] == table.shrinkage.max()
    return "fits; that effect is the least certain and the most shrunken one"


def one_effect(model, params):
    assert model.random_effects_["x4"].mean.shape == (1, 1)
    return "fits; that effect and the intercept share what they explain"


def shared_effects(model, params):
    a, b = (model.random_effects_[name].mean for name in ("x4", "x5"))
    close(a, b, 1e-2)
    return "fits; the two share the effects"


def only_groups(model, params):
    assert np.shape(model.coef_)[-1] == 0
    return "fits; there is the intercept, and there are the effects"


def mixed_zero_weight(constant):
    def check(model, params):
        assert np.all(np.abs(np.ravel(model.coef_)[1]) < 1e-9)
        rows = np.c_[X[:, [0, 2, 3]], LEVELS]
        here = like(model, rows, NUMBER, groups=3)
        close(model.elbo_, here.elbo_)
        return (
            "fits; its weight stays at the prior, with mean 0, and the ELBO is that "
            "without it"
        )

    return check


def mixed_shared_weight(model, params):
    close(np.ravel(model.coef_)[0], np.ravel(model.coef_)[4], 1e-3)
    return "fits; the two share the weight"


def mixed_column_in_units(factor):
    def check(model, params):
        here = effects_of(params)
        close(model.coef_[2] * factor, here.coef_[2], 1e-5)
        close(model.elbo_, here.elbo_)
        return "fits; that weight in those units, nothing else changes"

    return check


def mixed_slope_in_units(factor):
    def check(model, params):
        here = effects_of(params, random_slopes=2)
        close(
            model.random_effects_["x4"].mean[:, 1] * factor,
            here.random_effects_["x4"].mean[:, 1],
            1e-4,
        )
        close(model.elbo_, here.elbo_)
        return "fits; those slopes in those units, nothing else changes"

    return check


def mixed_columns_far_away(model, params):
    here = effects_of(params)
    close(model.coef_, here.coef_, 1e-4)
    close(model.elbo_, here.elbo_, 1e-5)
    return "fits; the same weights, up to the rounding of the shifted numbers"


def mixed_target_in_units(factor):
    def check(model, params):
        here = effects_of({**params, "family": "gaussian"}, target=Y)
        close(model.coef_ / factor, here.coef_, 1e-5)
        close(model.elbo_, here.elbo_ - len(Y) * np.log(factor))
        return "fits; everything in those units, the ELBO moved by -n log c"

    return check


def mixed_target_far_away(model, params):
    here = effects_of({**params, "family": "gaussian"}, target=Y)
    close(model.coef_, here.coef_, 1e-4)
    close(model.intercept_ - 1e9, here.intercept_, 1e-3)
    return "fits; the same weights, up to the rounding of the shifted numbers"


def mixed_outlier(model, params):
    assert model.noise_variance_ > 1e6
    return "fits; a Gaussian likelihood follows it: the noise and intervals widen"


def mixed_no_noise(model, params):
    close(model.coef_, [1.0, 2.0, 0.0, -1.0], 0.05)
    return "fits; the noise is what the prior leaves"


def constant_by_group(model, params):
    effects = model.random_effects_["x4"].mean[:, 0]
    assert np.all(np.diff(effects) > 0.0)
    assert np.corrcoef(model.predict(GROUPED), LEVELS)[0, 1] > 0.99
    return "fits; effects are nearly the groups' values"


def mixed_large_rates(model, params):
    close(model.predict(GROUPED).sum(), np.sum(NUMBER * 1e6), 1e-2)
    return "fits; predictions are of that size"


def mixed_followed_count(model, params):
    assert model.predict(GROUPED)[3] > 1e3
    return "fits; the rate of that row follows it"


def mixed_small_rates(model, params):
    assert np.all(np.abs(model.predict(GROUPED)) < 1.0)
    return "fits; predictions are small"


def mixed_time_unit(factor):
    def check(model, params):
        rows = np.c_[GROUPED, TIME]
        here = effects_of({**params, "family": "poisson"}, rows, exposure=5)
        close(model.elbo_, here.elbo_)
        close(model.coef_, here.coef_, 1e-5)
        close(model.intercept_, here.intercept_ - np.log(factor))
        return "fits; the rate is per that unit, nothing else changes"

    return check


def surely(p):
    def check(model, params):
        rows = np.c_[GROUPED, TRIED]
        gap = np.abs(model.predict(rows) / 8.0 - p)
        assert np.all(gap < 0.2) and np.all(gap > 0.0)
        return "fits; probabilities are near that, as the prior and n let them be"

    return check


MIXED = Table(
    VariationalMixedEffectsRegressor,
    "Gaussian responses and Poisson counts where the input does not say otherwise, "
    "with both posteriors; the last column of X holds the groups.",
    [
        {**OWN, "family": family, "posterior": posterior}
        for family in ("gaussian", "poisson")
        for posterior in ("structured", "mean_field")
    ],
    usable_effects,
    [
        (
            "one level for all rows",
            replaced(GROUPED, np.s_[:, 4], 3.0),
            NUMBER,
            {},
            one_effect,
        ),
        (
            "a level a row",
            np.c_[X, np.arange(30)],
            NUMBER,
            {},
            nothing_more,
        ),
        (
            "a level seen once",
            replaced(GROUPED, (3, 4), 7.0),
            NUMBER,
            {},
            level_of_one_row,
        ),
        ("a level that fit has not seen", GROUPED, NUMBER, {}, new_level),
        (
            "a missing level where fit has seen none",
            GROUPED,
            NUMBER,
            {},
            new_missing_level,
        ),
        (
            "missing levels (NaN)",
            replaced(GROUPED, np.s_[LEVELS == 5, 4], np.nan),
            NUMBER,
            {},
            missing_level,
        ),
        (
            "missing levels (None among strings)",
            named_groups(["a", "b", "c", "d", "e", None])[0],
            NUMBER,
            {},
            missing_level,
        ),
        *[
            (f"levels that are {words}", rows, NUMBER, {}, check)
            for words, (rows, check) in {
                "strings": named_groups(list("abcdef")),
                "strings of no or several words": named_groups(
                    ["", " ", "a b", "\u00e9", "\u0101", "\u4e2d"]
                ),
                "dates": named_groups(
                    np.arange("2024-01", "2024-07", dtype="datetime64[M]").tolist()
                ),
                "huge integers": named_groups([2**70 + i for i in range(6)]),
                "near each other (1 + 1e-15 k)": named_groups(
                    [1.0 + 4e-16 * k for k in range(6)]
                ),
            }.items()
        ],
        (
            "a second factor that is the first one again",
            np.c_[GROUPED, LEVELS],
            NUMBER,
            {"groups": [4, 5]},
            shared_effects,
        ),
        (
            "a second factor that is constant",
            np.c_[GROUPED, np.ones(30)],
            NUMBER,
            {"groups": [4, 5]},
            nothing_more,
        ),
        (
            "more effects than rows",
            np.c_[X, np.arange(30), np.arange(30)[::-1]],
            NUMBER,
            {"groups": [4, 5], "random_slopes": [0, 1]},
            nothing_more,
        ),
        (
            "no feature but the groups",
            LEVELS[:, None],
            NUMBER,
            {"groups": 0},
            only_groups,
        ),
        (
            "a slope in levels that have one row each",
            np.c_[X, np.arange(30)],
            NUMBER,
            {"random_slopes": 1},
            nothing_more,
        ),
        (
            "a slope of a column * 1e9",
            GROUPED * [1, 1, 1e9, 1, 1],
            NUMBER,
            {"random_slopes": 2},
            mixed_slope_in_units(1e9),
        ),
        (
            "a slope of a column + 3",
            GROUPED + [0, 0, 3, 0, 0],
            NUMBER,
            {"random_slopes": 2},
            nothing_more,
        ),
        (
            "a slope of a constant column",
            replaced(GROUPED, np.s_[:, 2], 2.0),
            NUMBER,
            {"random_slopes": 2},
            "random_slopes=2: ['x2'] hold one value only",
        ),
        (
            "a slope that is the column of the groups",
            GROUPED,
            NUMBER,
            {"random_slopes": 4},
            "random_slopes names column 4 (position 4 of X), which has",
        ),
        (
            "a slope that X has no column for",
            GROUPED,
            NUMBER,
            {"random_slopes": 9},
            "random_slopes=9 is out of range",
        ),
        (
            "a slope of a factor that there is not",
            GROUPED,
            NUMBER,
            {"random_slopes": {2: 1}},
            "random_slopes has [2], which are not in groups=[4]",
        ),
        (
            "slopes without groups",
            GROUPED,
            NUMBER,
            {"groups": None, "random_slopes": 1},
            "random_slopes=1 vary by group, but groups=None",
        ),
        (
            "a column named twice",
            GROUPED,
            NUMBER,
            {"groups": [4, 4]},
            "groups=[4, 4] names 4 twice",
        ),
        (
            "a column named twice, once from the end",
            GROUPED,
            NUMBER,
            {"groups": [4, -1]},
            "groups=[4, -1]: column -1 (position 4 of X) already stands in",
        ),
        (
            "one column as groups and offset",
            GROUPED,
            NUMBER,
            {"offset": 4},
            "offset=4: column 4 (position 4 of X) already stands in groups=[4]",
        ),
        (
            "groups that X has no column for",
            GROUPED,
            NUMBER,
            {"groups": 9},
            "groups=9 is out of range",
        ),
        (
            "groups by name, X without names",
            GROUPED,
            NUMBER,
            {"groups": "school"},
            "names a column, but X (ndarray) has no column names",
        ),
        ("one row", GROUPED[:1], NUMBER[:1], {}, nothing_more),
        ("two rows", GROUPED[:2], NUMBER[:2], {}, nothing_more),
        (
            "10 rows, 100 columns",
            np.c_[WIDE[:, :100], LEVELS[:10]],
            NUMBER[:10],
            {"groups": 100},
            nothing_more,
        ),
        (
            "a constant column",
            replaced(GROUPED, np.s_[:, 1], 0.1),
            NUMBER,
            {"weight_precision": 1.0},
            mixed_zero_weight(0.1),
        ),
        (
            "a duplicated column",
            np.c_[X, X[:, 0], LEVELS],
            NUMBER,
            {"groups": 5},
            mixed_shared_weight,
        ),
        (
            "one column * 1e6",
            GROUPED * [1, 1, 1e6, 1, 1],
            NUMBER,
            {},
            mixed_column_in_units(1e6),
        ),
        (
            "one column * 1e160",
            GROUPED * [1, 1, 1e160, 1, 1],
            NUMBER,
            {},
            mixed_column_in_units(1e160),
        ),
        ("X + 1e9", np.c_[X + 1e9, LEVELS], NUMBER, {}, mixed_columns_far_away),
        (
            "an entry of 1e6",
            np.c_[replaced(X, (0, 0), 1e6), LEVELS],
            NUMBER,
            {},
            nothing_more,
        ),
        ("y that is 0", GROUPED, np.zeros(30), {}, mixed_small_rates),
        ("one y that is not 0", GROUPED, np.eye(30)[3], {}, mixed_small_rates),
        (
            '`family="poisson"`, counts of up to 1e7',
            GROUPED,
            NUMBER * 1e6,
            {"family": "poisson"},
            mixed_large_rates,
        ),
        (
            '`family="poisson"`, a count of 1e6',
            GROUPED,
            replaced(NUMBER, 3, 1e6),
            {"family": "poisson"},
            mixed_followed_count,
        ),
        (
            '`family="poisson"`, counts that are not whole',
            GROUPED,
            NUMBER / 3.0,
            {"family": "poisson"},
            nothing_more,
        ),
        (
            '`family="poisson"`, negative counts',
            GROUPED,
            replaced(NUMBER, 2, -1.0),
            {"family": "poisson"},
            "y must hold counts for family=",
        ),
        (
            '`family="poisson"`, exposures * 1e-300',
            np.c_[GROUPED, TIME * 1e-300],
            NUMBER,
            {"family": "poisson", "exposure": 5},
            mixed_time_unit(1e-300),
        ),
        (
            '`family="poisson"`, an exposure of 0',
            np.c_[GROUPED, replaced(TIME, 2, 0.0)],
            NUMBER,
            {"family": "poisson", "exposure": 5},
            "exposure must name a column of finite positive numbers, got",
        ),
        (
            '`family="binomial"`, all trials succeed',
            np.c_[GROUPED, TRIED],
            TRIED,
            BINOMIAL,
            surely(1.0),
        ),
        (
            '`family="binomial"`, no trial succeeds',
            np.c_[GROUPED, TRIED],
            np.zeros(30),
            BINOMIAL,
            surely(0.0),
        ),
        (
            '`family="binomial"`, 1e9 trials a row',
            np.c_[GROUPED, np.full(30, 1e9)],
            np.round(1e9 / (1.0 + np.exp(-SCORE))),
            BINOMIAL,
            nothing_more,
        ),
        (
            '`family="binomial"`, more successes than trials',
            np.c_[GROUPED, TRIED],
            replaced(WON, 2, 9.0),
            BINOMIAL,
            "y[2]=9.0 is more than its 8 trial(s)",
        ),
        (
            '`family="binomial"`, successes that are not whole',
            np.c_[GROUPED, TRIED],
            WON / 3.0,
            BINOMIAL,
            "y must hold whole numbers for family='binomial', got",
        ),
        (
            '`family="binomial"`, no trial in a row',
            np.c_[GROUPED, replaced(TRIED, 2, 0.0)],
            np.zeros(30),
            BINOMIAL,
            "trials must name a column of finite positive numbers, got",
        ),
        (
            '`family="gaussian"`, y constant',
            GROUPED,
            np.full(30, 7.0),
            GAUSSIAN,
            nothing_more,
        ),
        (
            '`family="gaussian"`, y constant in each level',
            GROUPED,
            LEVELS.astype(float),
            GAUSSIAN,
            constant_by_group,
        ),
        (
            '`family="gaussian"`, y * 1e-12',
            GROUPED,
            Y * 1e-12,
            GAUSSIAN,
            mixed_target_in_units(1e-12),
        ),
        (
            '`family="gaussian"`, y * 1e12',
            GROUPED,
            Y * 1e12,
            GAUSSIAN,
            mixed_target_in_units(1e12),
        ),
        (
            '`family="gaussian"`, y + 1e9',
            GROUPED,
            Y + 1e9,
            GAUSSIAN,
            mixed_target_far_away,
        ),
        (
            '`family="gaussian"`, an outlier of 1e6',
            GROUPED,
            replaced(Y, 3, 1e6),
            GAUSSIAN,
            mixed_outlier,
        ),
        (
            '`family="gaussian"`, y without noise',
            GROUPED,
            X @ [1.0, 2.0, 0.0, -1.0],
            GAUSSIAN,
            mixed_no_noise,
        ),
        (
            "NaN in X",
            replaced(GROUPED, (0, 0), np.nan),
            NUMBER,
            {},
            "Input X contains NaN",
        ),
        (
            "infinity in X",
            replaced(GROUPED, (0, 0), np.inf),
            NUMBER,
            {},
            "Input X contains infinity",
        ),
        (
            "NaN in y",
            GROUPED,
            replaced(NUMBER, 0, np.nan),
            {},
            "Input y contains NaN",
        ),
        (
            "strings in y",
            GROUPED,
            np.full(30, "a"),
            {},
            "could not convert string to float",
        ),
        (
            "strings in a feature",
            np.c_[WORDS_OF_LEVELS, GROUPED[:, 1:].astype(object)],
            NUMBER,
            {},
            "could not convert string to float",
        ),
        ("no rows", GROUPED[:0], NUMBER[:0], {}, "Found array with 0 sample(s)"),
        (
            "two targets",
            GROUPED,
            np.c_[NUMBER, NUMBER],
            {},
            "y should be a 1d array",
        ),
    ],
)


# -- VariationalMixedEffectsClassifier -------------------------------------------------

LABELS_BY_LEVEL = (LEVELS > 2).astype(int)


def levels_apart(model, params):
    effects = model.random_effects_["x4"].mean[:, 0]
    assert effects[:3].max() < effects[3:].min() and np.all(np.abs(effects) < 20.0)
    assert model.score(GROUPED, LABELS_BY_LEVEL) == 1.0
    return "fits; effects are as large as the prior of their sd lets them be"


def rows_apart(model, params):
    assert model.score(GROUPED, APART) == 1.0
    assert np.all(np.abs(np.ravel(model.coef_)) * model.X_scale_ < 30.0)
    return "fits; weights are as large as their prior lets them be"


def grouped_label_kinds(labels):
    def check(model, params):
        assert list(model.classes_) == sorted(set(labels))
        here = like(model, GROUPED, YES)
        close(model.elbo_, here.elbo_)
        assert np.array_equal(
            model.predict(GROUPED), model.classes_[here.predict(GROUPED)]
        )
        return "fits; predictions are these labels"

    return check


def rare_label(model, params):
    assert np.mean(model.predict_proba(GROUPED)[:, 1]) < 0.2
    return "fits; probabilities are small"


MIXED_CLASSES = Table(
    VariationalMixedEffectsClassifier,
    "With both links and both posteriors; the last column of X holds the groups.",
    [
        {**OWN, "link": link, "posterior": posterior}
        for link in ("logit", "probit")
        for posterior in ("structured", "mean_field")
    ],
    usable_effects,
    [
        ("levels of one class each", GROUPED, LABELS_BY_LEVEL, {}, levels_apart),
        ("classes that a column separates", GROUPED, APART, {}, rows_apart),
        (
            "a level a row",
            np.c_[X, np.arange(30)],
            YES,
            {},
            nothing_more,
        ),
        ("a level that fit has not seen", GROUPED, YES, {}, new_level),
        (
            "a missing level where fit has seen none",
            GROUPED,
            YES,
            {},
            new_missing_level,
        ),
        (
            "missing levels (NaN)",
            replaced(GROUPED, np.s_[LEVELS == 5, 4], np.nan),
            YES,
            {},
            missing_level,
        ),
        (
            "levels that are strings",
            named_groups(list("abcdef"))[0],
            YES,
            {},
            named_groups(list("abcdef"))[1],
        ),
        (
            "a slope in levels that have one row each",
            np.c_[X, np.arange(30)],
            YES,
            {"random_slopes": 1},
            nothing_more,
        ),
        (
            "labels that are strings",
            GROUPED,
            np.where(YES == 1, "yes", "no"),
            {},
            grouped_label_kinds(["no", "yes"]),
        ),
        (
            "labels that are booleans",
            GROUPED,
            YES == 1,
            {},
            grouped_label_kinds([False, True]),
        ),
        ("a class with one row", GROUPED, np.eye(30, dtype=int)[3], {}, rare_label),
        ("two rows", GROUPED[:2], [0, 1], {}, nothing_more),
        (
            "10 rows, 100 columns",
            np.c_[WIDE[:, :100], LEVELS[:10]],
            FEW,
            {"groups": 100},
            nothing_more,
        ),
        ("one class", GROUPED, np.zeros(30), {}, "y holds one class only"),
        (
            "three classes",
            GROUPED,
            THREE,
            {},
            "Only binary classification is supported",
        ),
        (
            "labels that are numbers of a scale",
            GROUPED,
            SCORE,
            {},
            "Unknown label type",
        ),
        (
            "NaN in X",
            replaced(GROUPED, (0, 0), np.nan),
            YES,
            {},
            "Input X contains NaN",
        ),
        (
            "a column named twice",
            GROUPED,
            YES,
            {"groups": [4, 4]},
            "groups=[4, 4] names 4 twice",
        ),
    ],
)


# -- the page --------------------------------------------------------------------------

TABLES = [REGRESSION, MIXTURE, TOPICS, HMM, SYSTEMS, LOGISTIC, GLM]
TABLES += [MIXED, MIXED_CLASSES]
EVERY_ROW = [(table, *row) for table in TABLES for row in table.rows]


def outcome(table, title, rows, target, extra, check):
    """The line of a row, after checking it for all of the table's parameters."""
    sentences = set()
    for params in table.params:
        estimator = table.make(**{**params, **extra})
        if callable(check):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                estimator.fit(rows, target)
                table.usable(estimator, rows)
                sentences.add(check(estimator, params))
        elif extra and params != table.params[0]:
            continue  # one refusal says it: of a proper prior, of a role's column
        else:
            with pytest.raises(ValueError) as caught:
                estimator.fit(rows, target)
            assert check in str(caught.value)
            assert not hasattr(estimator, "elbo_")
            sentences.add(f"`ValueError`: {check} ...")
    (sentence,) = sentences
    return f"| {title} | {sentence} |"


def lines_of_page():
    return PAGE.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    "row", EVERY_ROW, ids=[f"{row[0].make.__name__}-{row[1]}" for row in EVERY_ROW]
)
def test_hostile_input(row):
    line = outcome(*row)
    if not os.environ.get("SKVI_WRITE_DOCS"):
        section = "\n".join(lines_of_page()).split("\n## ")
        (section,) = [s for s in section if s.startswith(row[0].make.__name__)]
        assert line in section.splitlines()


def test_the_page_has_exactly_these_rows():
    if os.environ.get("SKVI_WRITE_DOCS"):
        text = HEAD
        for table in TABLES:
            text += table.head
            text += "".join(outcome(table, *row) + "\n" for row in table.rows)
        PAGE.write_text(text, encoding="utf-8")
    lines = [line for line in lines_of_page() if line[:1] == "|"]
    assert len(lines) == len(EVERY_ROW) + 2 * len(TABLES)
