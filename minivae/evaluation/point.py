"""One batch with fixed noise: its loss, its gradients, and whether these are right."""

import numpy as np

from minivae.evaluation.gradcheck import Report, check_gradient


class Point:
    """Rows values (n, D) as one batch of a session, with the noise of step 0.

    given {region: values} replaces some of what was loaded, such as noise.
    """

    def __init__(self, session, values, given, binarize, seed):
        self.session, self.layout = session, session.layout
        self.batch = session.put(values)
        session.load(self.batch, binarize, seed, 0)
        for name, array in given.items():
            session.upload(array, session.view(name, self.batch.B))

    def compute(self):
        """Terms and gradient for the parameters that the session has now."""
        self.session.step.loss_and_gradient(self.session.task, self.batch)

    def losses(self, names=None):
        """The loss of each row (n,), after `compute`, in the model's dtype; names: of some terms
        alone."""
        task, losses = self.session.task, 0
        terms = self.session.download(self.session.terms(self.batch.B))
        for name, weight, term in zip(self.layout.terms, task.recipe.weights, terms, strict=True):
            if names is None or name in names:
                losses = losses + task.theta.dtype.type(weight) * term
        return losses

    def gradients(self):
        """{name: gradient} of the mean loss, after `compute`."""
        gradient = np.array(self.session.download(self.session.task.gradient))
        return self.layout.named_views(gradient)

    def loss_and_gradients(self):
        """(mean loss, {name: gradient})."""
        self.compute()
        return float(self.losses().mean()), self.gradients()

    def check_gradients(self, **options):
        """Report of `check_gradient` on the mean loss by every parameter, or on that of the
        program's LOSSES which it descends; the session's dtype is float64."""
        losses = getattr(self.layout.program, "LOSSES", {"": None})
        return Report.merged([self._check(*one, options) for one in losses.items()])

    def _check(self, prefix, terms, options):
        """Of the parameters whose names begin so, on the mean of these terms."""
        session = self.session
        theta = np.array(session.download(session.task.theta))
        views = self.layout.named_views(theta)
        views = {name: view for name, view in views.items() if name.startswith(prefix)}

        def evaluate(values):
            for view, value in zip(views.values(), values, strict=True):
                view[...] = value
            session.upload(theta, session.task.theta)
            self.compute()

        def forward(*values):
            evaluate(values)
            return self.losses(terms)

        def backward(*values_and_dlosses):
            evaluate(values_and_dlosses[:-1])
            gradients = self.gradients()
            return [gradients[name] for name in views]

        start = [view.copy() for view in views.values()]
        mean = np.full(self.batch.B, 1 / self.batch.B)
        return check_gradient(forward, backward, start, names=list(views), dout=[mean], **options)
