"""Callbacks: watch an iterative fit, or stop it.

scikit-learn's callbacks (:mod:`sklearn.callback`) work on every iterative estimator of
skvi. A progress bar, which needs the package `rich`::

    from skvi.callbacks import ProgressBar

    estimator.set_callbacks(ProgressBar()).fit(X, y)

Set on a Pipeline or a search, it shows the bars of the estimators inside too (raise
``max_propagation_depth`` for deeper ones). ``ScoringMonitor(scoring=...)`` logs a score
on the training data at each iteration, and :class:`StopWhen` ends the fit early.
``set_callbacks()`` without arguments removes them all. Callbacks are not parameters:
``clone`` keeps them, ``get_params`` does not show them.

For contributors: an estimator derives from `CallbackSupportMixin`, its fit is decorated
with `with_callbacks`, and :func:`fit_task` calls the hooks.
"""

from sklearn.callback import (
    CallbackSupportMixin,
    FitCallback,
    ProgressBar,
    ScoringMonitor,
    with_callbacks,
)

__all__ = [
    "CallbackSupportMixin",
    "FitCallback",
    "ProgressBar",
    "ScoringMonitor",
    "StopWhen",
    "fit_task",
    "with_callbacks",
]


class StopWhen:
    """Stop a fit as soon as a condition holds.

    Set it on the iterative estimator itself, also inside a Pipeline or search. Each fit
    of each restart is looked at on its own. (scikit-learn 1.9's own estimators report
    to callbacks, but do not stop for them yet.)

    Parameters
    ----------
    condition : callable
        ``condition(fitted_estimator) -> bool``, called after each iteration with an
        estimator that is fitted as if it had stopped there.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skvi import VariationalBayesianRegression
    >>> from skvi.callbacks import StopWhen
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = VariationalBayesianRegression(posterior="mean_field")
    >>> model = model.set_callbacks(StopWhen(lambda fitted: fitted.n_iter_ >= 2))
    >>> bool(model.fit(X, y).n_iter_ <= 3)
    True
    """

    def __init__(self, condition):
        if not callable(condition):
            raise TypeError(
                f"condition must be a callable of a fitted estimator, got "
                f"{condition!r}; pass, for example, lambda fitted: fitted.n_iter_ > 9."
            )
        self.condition = condition

    def setup(self, estimator, context):
        """Do nothing: there is no state."""

    def teardown(self, estimator, context):
        """Do nothing: there is no state."""

    def on_fit_task_begin(self, estimator, context):
        """Do nothing: the condition is looked at when an iteration ends."""

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        """Ask for a stop if the condition holds.

        Parameters
        ----------
        estimator : estimator
            The estimator that is being fitted.

        context : sklearn.callback.CallbackContext
            The task that ends.

        fitted_estimator : estimator, default=None
            The estimator as if its fit had stopped here.

        Returns
        -------
        stop : bool
        """
        # Restarts and the fit itself are tasks too; only iterations have no subtasks.
        is_iteration = context.max_subtasks == 0 and context.parent is not None
        if not is_iteration or fitted_estimator is None:
            return False
        return bool(self.condition(fitted_estimator))


class FitTask:
    """A fit or a part of it, as a ``with`` block that calls the callbacks' hooks.

    Made by :func:`fit_task` and :meth:`subtask`. Without callbacks all of it does
    nothing, and `subtask` returns the task itself.

    Attributes
    ----------
    attributes : callable, dict or None
        Set inside the block: the fitted attributes that make the estimator usable as
        if its fit had stopped at the end of the block, or a function that returns
        them. A function is called only if a callback asks. None: it is not usable.

    stop : bool
        After the block: whether a callback asked to stop the loop around it.
    """

    def __init__(self, context=None, attributes=None, **hook_arguments):
        self._context = context
        self._hook_arguments = hook_arguments
        self.attributes = attributes
        self.stop = False

    def subtask(self, name, max_subtasks=0):
        """Make a task within this one.

        Parameters
        ----------
        name : str
            What a progress bar calls it.

        max_subtasks : int or None, default=0
            The largest number of tasks within it; None if it is not known.

        Returns
        -------
        task : FitTask
            To be entered with ``with``. To run subtasks in parallel, make them all
            before the first one starts.
        """
        if self._context is None:
            return self
        context = self._context.subcontext(task_name=name, max_subtasks=max_subtasks)
        return FitTask(context, **self._hook_arguments)

    def __enter__(self):
        if self._context is not None:
            self._context.call_on_fit_task_begin(**self._hook_arguments)
        return self

    def __exit__(self, exception_type, exception, traceback):
        # A fit that fails ends no task: `with_callbacks` tears the callbacks down.
        if self._context is not None and exception_type is None:
            self.stop = self._context.call_on_fit_task_end(
                reconstruction_attributes=self.attributes, **self._hook_arguments
            )


def fit_task(estimator, X=None, y=None, *, sample_weight=None, max_subtasks=None):
    """Announce a fit to the estimator's callbacks.

    Parameters
    ----------
    estimator : estimator
        The estimator that is being fitted, with a fit decorated by `with_callbacks`.
        It sets its fitted attributes before the block of the returned task ends.

    X : array-like, default=None
        The training data as the user passed it, for callbacks that score.

    y : array-like, default=None
        The training target.

    sample_weight : array-like, default=None
        The training weights.

    max_subtasks : int or None, default=None
        The largest number of subtasks, such as ``estimator.max_iter``; it is an error
        to start more. None if it is not known.

    Returns
    -------
    task : FitTask
        To be entered with ``with``.

    Examples
    --------
    >>> from sklearn.base import BaseEstimator
    >>> from skvi.callbacks import (
    ...     CallbackSupportMixin, StopWhen, fit_task, with_callbacks
    ... )
    >>> class Halving(CallbackSupportMixin, BaseEstimator):
    ...     def __init__(self, max_iter=100):
    ...         self.max_iter = max_iter
    ...
    ...     @with_callbacks
    ...     def fit(self, X, y=None):
    ...         self.level_ = 1.0
    ...         with fit_task(self, X, y, max_subtasks=self.max_iter) as fit:
    ...             for _ in range(self.max_iter):
    ...                 with fit.subtask("iteration") as iteration:
    ...                     self.level_ /= 2
    ...                     iteration.attributes = lambda: {"level_": self.level_}
    ...                 if iteration.stop:
    ...                     break
    ...         return self
    >>> halving = Halving().set_callbacks(StopWhen(lambda fitted: fitted.level_ < 0.1))
    >>> halving.fit(None).level_
    0.0625
    """
    if not getattr(estimator, "_skl_callbacks", None):
        return FitTask()
    context = estimator._init_callback_context(max_subtasks=max_subtasks)
    return FitTask(
        context,
        attributes={},  # at its end the estimator itself is fitted
        estimator=estimator,
        X=X,
        y=y,
        metadata=None if sample_weight is None else {"sample_weight": sample_weight},
    )
