"""scikit-learn's callbacks: they are told of every epoch, and may end `fit`.

It has them since 1.9. With an older version there are none, and what is here does nothing.
"""

from copy import deepcopy

try:
    from sklearn.callback import CallbackSupportMixin as Callbacks
    from sklearn.callback import with_callbacks
except ImportError:

    class Callbacks:
        """No `set_callbacks`: this version of scikit-learn has none."""

    def with_callbacks(method):
        return method


class Epochs:
    """The epochs of a `fit` as tasks, of which the model's callbacks are told."""

    def __init__(self, model, X, n_epochs):
        self.model, self.X = model, X
        self.fit = model._init_callback_context(max_subtasks=n_epochs)
        self.epoch = None
        self.fit.call_on_fit_task_begin(estimator=model, X=X)

    def begin(self):
        """An epoch begins."""
        self.epoch = self.fit.subcontext(task_name="epoch")
        self.epoch.call_on_fit_task_begin(estimator=self.model, X=self.X)

    def end(self):
        """An epoch was made: whether a callback wants it to be the last one."""
        return self.epoch.call_on_fit_task_end(
            estimator=self.model, X=self.X, reconstruction_attributes=self._copied
        )

    def close(self):
        """The last epoch was made."""
        self.fit.call_on_fit_task_end(
            estimator=self.model, X=self.X, reconstruction_attributes=self._copied
        )

    def _copied(self):
        """What of the model training goes on to change."""
        return {name: deepcopy(getattr(self.model, name)) for name in ("state_", "record_")}


def watched(model, X, n_epochs):
    """The Epochs of a `fit` on X, or None where there are no callbacks."""
    return Epochs(model, X, n_epochs) if hasattr(model, "set_callbacks") else None
