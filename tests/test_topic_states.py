"""What a topic model keeps between calls: blocks, backends, snapshots, streams."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from scipy import special

from skvi import VariationalTopicModel
from skvi.callbacks import StopWhen

rng = np.random.default_rng(0)
TOPICS = rng.dirichlet(np.full(30, 0.2), size=3)
X = np.array(
    [rng.multinomial(40, rng.dirichlet([0.3] * 3) @ TOPICS) for _ in range(100)], float
)
POSTERIORS = ("structured", "mean_field")
each_posterior = pytest.mark.parametrize("posterior", POSTERIORS)


def topic_model(posterior, **params):
    return VariationalTopicModel(3, posterior=posterior, random_state=0, **params)


@each_posterior
@pytest.mark.parametrize("memory_budget", [0.0, 100.0])
def test_other_backends_give_the_same_fit(posterior, memory_budget):
    model = topic_model(posterior, block_size=25, memory_budget=memory_budget)
    model.set_params(max_iter=60, tol=1e-3).fit(X)
    with parallel_config(backend="loky", n_jobs=2):
        other = pickle.loads(pickle.dumps(model)).fit(X)
        shares = model.transform(X)
    assert other.elbo_ == model.elbo_
    np.testing.assert_array_equal(other.components_, model.components_)
    np.testing.assert_array_equal(shares, model.transform(X))


@each_posterior
def test_another_block_size_finds_the_documents_of_the_fit(posterior):
    model = topic_model(posterior, block_size=10).fit(X)
    shares = model.transform(X)
    elbo = model.elbo_
    model.set_params(block_size=512)
    draws = model.sample_posterior(200, 0, X=X)
    assert np.abs(draws["proportions"].mean(axis=0) - shares).max() < 0.2
    model.set_params(warm_start=True, max_iter=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert model.fit(X).elbo_ >= elbo - 1e-6


@each_posterior
def test_a_snapshot_goes_on_by_itself(posterior):
    class Keep:
        snapshots = []

        def __call__(self, fitted):
            self.snapshots.append((fitted, fitted.components_.copy(), fitted.elbo_))
            return False

    keep = Keep()
    keep.snapshots = []
    topic_model(posterior).set_callbacks(StopWhen(keep)).fit(X)
    fitted, components, elbo = keep.snapshots[0]
    assert fitted.n_samples_seen_ == len(X) and fitted.elbo_ == elbo
    np.testing.assert_array_equal(fitted.components_, components)
    before = fitted.sample_posterior(5, 0, X=X)["proportions"]
    np.testing.assert_allclose(before.sum(axis=2), 1.0)
    fitted.partial_fit(X[:20])
    assert fitted.n_samples_seen_ == len(X) + 20


@each_posterior
def test_a_few_documents_after_many_count_for_little(posterior):
    model = topic_model(posterior).fit(X)
    before = model.components_
    model.partial_fit(X[:1])
    assert np.abs(model.components_ - before).max() < 0.02
    model.partial_fit(np.zeros((4, 30)))
    assert model.n_samples_seen_ == len(X) + 5


def test_partial_fit_keeps_to_one_posterior():
    model = topic_model("structured").partial_fit(X)
    with pytest.raises(ValueError, match="posterior='mean_field' differs"):
        model.set_params(posterior="mean_field").partial_fit(X)


@each_posterior
def test_frames_are_scored_without_a_warning(posterior):
    frame = pd.DataFrame(X, columns=[f"w{j}" for j in range(30)])
    model = topic_model(posterior).fit(frame)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.score(frame) == pytest.approx(-np.log(model.perplexity(frame)))
        assert model.responsibilities(frame.iloc[[0]]).shape[1] == 3


def test_coherence_is_that_of_the_topics_that_were_fitted():
    model = topic_model("structured").fit(X)
    coherence = model.coherence(X)
    model.set_params(n_components=5)
    np.testing.assert_array_equal(model.coherence(X), coherence)
    with pytest.raises(ValueError, match="no pair"):
        topic_model("structured").fit(X[:, :1] + 1.0).coherence(X[:, :1])


@each_posterior
@pytest.mark.parametrize("factor", [1.0, 1e3, 1e6, 1e9])
def test_one_topic_has_the_evidence_of_any_number_of_tokens(posterior, factor):
    model = VariationalTopicModel(
        1, posterior=posterior, doc_topic_prior=1.0, topic_word_prior=0.7
    ).fit(X * factor)
    N, total = X.sum(axis=0) * factor, X.sum() * factor
    evidence = special.gammaln(0.7 * 30) - special.gammaln(0.7 * 30 + total)
    evidence += np.sum(special.gammaln(0.7 + N) - special.gammaln(0.7))
    assert model.elbo_ == pytest.approx(evidence, rel=1e-11, abs=1e-3)


def test_topics_with_next_to_no_tokens():
    few = np.random.default_rng(0).poisson(0.3, (20, 15)).astype(float)
    priors = {"doc_topic_prior": 0.01, "topic_word_prior": 0.01}
    model = VariationalTopicModel(10, random_state=0, tol=1e-9, **priors).fit(few)
    draws = model.sample_posterior(20_000, 0, X=few)["topics"]
    np.testing.assert_allclose(model.components_, draws.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(model.components_std_, draws.std(axis=0), atol=0.05)
    assert np.all(model.components_std_ <= 0.5)


@each_posterior
@pytest.mark.parametrize("max_iter", [1, 2, 5, 30])
def test_max_iter_is_kept_to(posterior, max_iter):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = topic_model(posterior, max_iter=max_iter, tol=0.0).fit(X)
    assert model.n_iter_ <= max_iter


def test_counts_beyond_floating_point_are_an_error():
    with pytest.raises(ValueError, match="are not exact in floating point"):
        topic_model("structured").fit(X * 1e100)
