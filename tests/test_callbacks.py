"""A fit announces itself to scikit-learn's callbacks, and stops when they ask."""

import threading

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skvi.callbacks import (
    CallbackSupportMixin,
    FitCallback,
    ProgressBar,
    ScoringMonitor,
    StopWhen,
    fit_task,
    with_callbacks,
)
from skvi.metrics import elbo_scorer

X = np.arange(12.0).reshape(6, 2)
Y = X[:, 0] + 1


class Walk(CallbackSupportMixin, RegressorMixin, BaseEstimator):
    """Walks towards the mean of y, halving the distance at each iteration."""

    def __init__(self, max_iter=6, n_init=None, fail_at=None):
        self.max_iter = max_iter
        self.n_init = n_init
        self.fail_at = fail_at

    @with_callbacks
    def fit(self, X, y, sample_weight=None):
        max_subtasks = self.max_iter if self.n_init is None else self.n_init
        with fit_task(
            self, X, y, sample_weight=sample_weight, max_subtasks=max_subtasks
        ) as task:
            if self.n_init is None:
                state = self._run(task, y)
            else:
                for i in range(self.n_init):
                    with task.subtask(f"start {i}", self.max_iter) as start:
                        state = self._run(start, y)
                    if start.stop:
                        break
            self._set(**state)
        return self

    def _run(self, task, y):
        level = 0.0
        for t in range(self.max_iter):
            with task.subtask("iteration") as iteration:
                if t == self.fail_at:
                    raise RuntimeError("failed")
                level += (np.mean(y) - level) / 2
                state = {"level_": level, "n_iter_": t + 1, "elbo_": -1 / (t + 1)}
                iteration.attributes = lambda state=state: self._attributes(**state)
            if iteration.stop:
                break
        return state

    built = 0

    def _attributes(self, **state):
        type(self).built += 1
        return state

    def _set(self, **state):
        for name, value in state.items():
            setattr(self, name, value)

    def predict(self, X):
        return np.full(len(X), self.level_)


class Recorder:
    """Writes down every hook that is called."""

    def __init__(self, stop_at=()):
        self.record = []
        self.stop_at = stop_at

    def setup(self, estimator, context):
        self.record.append("setup")

    def teardown(self, estimator, context):
        self.record.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.record.append(f"begin {context.task_name} {context.task_id}")

    def on_fit_task_end(
        self,
        estimator,
        context,
        *,
        X=None,
        y=None,
        metadata=None,
        fitted_estimator=None,
    ):
        self.record.append(f"end {context.task_name} {context.task_id}")
        self.X, self.y, self.metadata = X, y, metadata
        if fitted_estimator is not None:
            self.last = fitted_estimator.n_iter_
        return f"{context.task_name} {context.task_id}" in self.stop_at


def traces(estimator):
    return [name for name in vars(estimator) if "callback" in name]


def test_hooks_are_called_in_order():
    recorder = Recorder()
    assert isinstance(recorder, FitCallback)
    model = Walk(max_iter=2).set_callbacks(recorder)
    weight = np.ones(6)
    model.fit(X, Y, sample_weight=weight)
    assert recorder.record == [
        "setup",
        "begin fit 0",
        "begin iteration 0",
        "end iteration 0",
        "begin iteration 1",
        "end iteration 1",
        "end fit 0",
        "teardown",
    ]
    assert recorder.X is X
    assert recorder.y is Y
    assert recorder.metadata["sample_weight"] is weight
    assert recorder.last == 2
    assert traces(model) == ["_skl_callbacks"]
    assert traces(model.set_callbacks()) == []


def test_restarts_are_tasks_with_tasks():
    recorder = Recorder()
    Walk(max_iter=1, n_init=2).set_callbacks(recorder).fit(X, Y)
    assert recorder.record[1:-1] == [
        "begin fit 0",
        "begin start 0 0",
        "begin iteration 0",
        "end iteration 0",
        "end start 0 0",
        "begin start 1 1",
        "begin iteration 0",
        "end iteration 0",
        "end start 1 1",
        "end fit 0",
    ]


def test_restarts_made_before_they_run_in_parallel():
    class Parallel(Walk):
        @with_callbacks
        def fit(self, X, y):
            with fit_task(self, X, y, max_subtasks=self.n_init) as task:
                starts = [
                    task.subtask(f"start {i}", self.max_iter)
                    for i in range(self.n_init)
                ]

                def run(start):
                    with start:
                        self._set(**self._run(start, y))

                threads = [threading.Thread(target=run, args=(s,)) for s in starts]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            return self

    recorder = Recorder()
    Parallel(max_iter=3, n_init=4).set_callbacks(recorder).fit(X, Y)
    for i in range(4):
        assert recorder.record.count(f"end start {i} {i}") == 1
    for t in range(3):
        assert recorder.record.count(f"end iteration {t}") == 4
    assert recorder.record[-2:] == ["end fit 0", "teardown"]


@pytest.mark.parametrize(
    ("stop_at", "n_ends"), [("iteration 1", 2 + 2 + 2 + 1), ("start 0 0", 6 + 1 + 1)]
)
def test_a_callback_stops_its_own_level(stop_at, n_ends):
    recorder = Recorder(stop_at=[stop_at])
    Walk(n_init=2).set_callbacks(recorder).fit(X, Y)
    assert sum(line.startswith("end") for line in recorder.record) == n_ends


def test_without_callbacks_nothing_happens(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a context was made")

    monkeypatch.setattr(CallbackSupportMixin, "_init_callback_context", refuse)
    Walk.built = 0
    for n_init in (None, 2):
        model = Walk(n_init=n_init).fit(X, Y)
        assert model.n_iter_ == 6
        assert traces(model) == []
    assert Walk.built == 0
    task = fit_task(model)
    assert task.subtask("iteration") is task


def test_attributes_are_built_only_if_a_callback_asks():
    class Blind(Recorder):
        def on_fit_task_end(self, estimator, context):
            self.record.append("end")

    Walk.built = 0
    Walk().set_callbacks(Blind()).fit(X, Y)
    assert Walk.built == 0
    Walk().set_callbacks(Recorder()).fit(X, Y)
    assert Walk.built == 6


def test_a_failing_fit_tears_down_and_ends_no_task():
    recorder = Recorder()
    model = Walk(fail_at=1).set_callbacks(recorder)
    with pytest.raises(RuntimeError, match="failed"):
        model.fit(X, Y)
    assert recorder.record[-2:] == ["begin iteration 1", "teardown"]
    assert "end fit 0" not in recorder.record
    assert traces(model) == ["_skl_callbacks"]


def test_more_iterations_than_announced_is_an_error():
    class TooMany(Walk):
        @with_callbacks
        def fit(self, X, y):
            with fit_task(self, X, y, max_subtasks=1) as task:
                self._set(**self._run(task, y))

    with pytest.raises(ValueError, match="maximum number of children"):
        TooMany(max_iter=2).set_callbacks(Recorder()).fit(X, Y)


# StopWhen


def test_stop_when():
    stop = StopWhen(lambda fitted: abs(fitted.level_ - Y.mean()) < 1)
    model = Walk().set_callbacks(stop).fit(X, Y)
    assert model.n_iter_ == 3  # 6 -> 3, 1.5, 0.75
    assert Walk().set_callbacks(StopWhen(lambda fitted: False)).fit(X, Y).n_iter_ == 6


def test_stop_when_stops_iterations_not_restarts():
    seen = []
    stop = StopWhen(lambda fitted: seen.append(fitted.n_iter_) or fitted.n_iter_ == 2)
    Walk(n_init=3).set_callbacks(stop).fit(X, Y)
    assert seen == [1, 2, 1, 2, 1, 2]


def test_stop_when_inside_a_search():
    model = Walk().set_callbacks(StopWhen(lambda fitted: fitted.n_iter_ == 2))
    assert clone(model).fit(X, Y).n_iter_ == 2
    search = GridSearchCV(
        make_pipeline(StandardScaler(), model), {"walk__max_iter": [1, 5]}, cv=2
    ).fit(X, Y)
    assert search.best_estimator_[-1].n_iter_ == min(
        2, search.best_params_["walk__max_iter"]
    )


def test_stop_when_needs_a_condition():
    with pytest.raises(TypeError, match=r"condition must be a callable .* got 5"):
        StopWhen(5)


# scikit-learn's own callbacks


def test_scoring_monitor_follows_a_fit():
    monitor = ScoringMonitor(scoring="neg_mean_absolute_error")
    Walk(max_iter=3).set_callbacks(monitor).fit(X, Y)
    rows = monitor.get_logs().data
    # The root task, scored at the end, comes before the iterations.
    assert [row["task_name"] for row in rows] == ["fit"] + ["iteration"] * 3
    scores = [row["neg_mean_absolute_error"] for row in rows]
    assert scores[1] < scores[2] < scores[3] == scores[0]


def test_scoring_monitor_takes_the_elbo():
    monitor = ScoringMonitor(scoring=elbo_scorer)
    Walk(max_iter=3).set_callbacks(monitor).fit(X, Y)
    scores = [row["score"] for row in monitor.get_logs().data]
    assert scores == [-1 / 3, -1, -1 / 2, -1 / 3]


@pytest.mark.parametrize("n_init", [None, 2])
def test_progress_bar(n_init, capsys):
    pytest.importorskip("rich")
    Walk(n_init=n_init).set_callbacks(ProgressBar()).fit(X, Y)
    shown = capsys.readouterr().out
    assert "Walk - fit" in shown
    assert ("start 1" in shown) == (n_init is not None)
    assert "100%" in shown


def test_progress_bar_on_a_search(capsys):
    pytest.importorskip("rich")
    search = GridSearchCV(Walk(), {"max_iter": [1, 2]}, cv=2)
    search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(X, Y)
    assert "Walk - fit" in capsys.readouterr().out


def test_only_fit_callbacks_are_accepted():
    with pytest.raises(TypeError, match="FitCallback protocol"):
        Walk().set_callbacks(LinearRegression())
