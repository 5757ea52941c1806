"""Model: what all families have in common, as scikit-learn estimators."""

import inspect

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from minivae.data import checks
from minivae.data.rows import BLOCK, fetch
from minivae.engine.layout import Layout
from minivae.engine.machine import check_device, machine, parse_device
from minivae.engine.state import Record, State
from minivae.engine.threads import count_sessions
from minivae.evaluation.point import Point
from minivae.evaluation.terms import draws, mean_terms
from minivae.evaluation.trace import trace
from minivae.files import document, storage
from minivae.kernels import BINARIZE
from minivae.models import checking, fitting, settings, tables
from minivae.models.callbacks import Callbacks, watched, with_callbacks
from minivae.training import loop, stopping
from minivae.training.checkpoints import Checkpoints
from minivae.training.loop import one_at_a_time


class Model(Callbacks, BaseEstimator):
    """A family's face, which has besides what scikit-learn wants

    program             its module, as engine/program.py says
    SETTINGS            {name: Setting} of its __init__
    score_kind          what `score_samples` gives: "exact", "lower bound", "estimate" or None
    sampling            "parallel", "sequential" (a variable after the other) or "chain" (Markov's)
    plan_settings()     {name: value} of the settings that shape the model: `make_plan`'s arguments
    sample, score_samples
    """

    program = None
    SETTINGS = {}
    SUITED = {}  # {"table", "few rows", "gaps", "bits" or "imputing": settings for such data, use}
    PUBLISHED = {}  # {name of a data set: ln p(x) of a big model, in nats per row}
    score_kind = None
    takes_tables = False  # whether X may have columns of several kinds; `schema` then says which
    takes_missing = False  # whether X may have NaN, which means missing
    likelihood_in_words = "a Bernoulli likelihood"  # where x must lie in [0, 1]
    instead_of_bernoulli = ""  # for other data than that, as the end of a sentence
    parts = ()  # names of parts that `load` can give alone, as their parameters begin
    schema_ = None  # of the table that a model of tables was trained on

    def __init_subclass__(cls):
        super().__init_subclass__()
        cls._parameter_constraints = {n: s.constraint for n, s in cls.SETTINGS.items()}
        cls.__doc__ = settings.described(inspect.getdoc(cls), cls.SETTINGS)

    # --- what a family may change ---------------------------------------------------------------

    def plan_settings(self): ...

    def _check_family(self):
        """Raise for settings that are wrong together."""

    def _check_width(self, n_features):
        """Raise where no such model is of so many columns; before anything is made of them."""

    def _for_use(self):
        """The layout of the same parameters for using the model."""
        return self.layout_

    def _weights(self, epoch=None):
        """{term: weight} of the loss, in an epoch from 0, or when all has been warmed up."""
        return self.program.weights()

    @property
    def is_bernoulli(self):
        """Whether x is 0 or 1 to the model, or between."""
        return True

    @property
    def on_unit_interval(self):
        """Whether x must lie in [0, 1]."""
        return self.is_bernoulli

    def held_out_score(self, X):
        """(score of each row of X (n,), in nats, in words how) or None: what training maximises."""
        return (self.score_samples(X), self.score_kind) if self.program.SCORE else None

    def _held_out(self, X):
        """{name: mean over the rows of X} for the history, of the score and of every term."""
        terms = {name: float(values.mean()) for name, values in self._terms(X).items()}
        return {**loop.score(self.program, terms), **terms}

    # --- state ----------------------------------------------------------------------------------

    @property
    def parameters_(self):
        """{name: view} of the live parameters, sharing memory with the model."""
        check_is_fitted(self)
        views = self.layout_.named_views(self.state_.theta).items()
        return {name: view for name, view in views if name.startswith(self.part_ or "")}

    @property
    def history_(self):
        """{name: list with one value per epoch}."""
        check_is_fitted(self)
        return self.record_.history

    @property
    def n_epochs_(self):
        """Passes made over data."""
        check_is_fitted(self)
        return self.state_.epochs

    @property
    def best_epoch_(self):
        """The epoch, from 1, with the best held-out score; None where no rows were held out."""
        best = stopping.best_epoch(stopping.held_out_scores(self.history_, self.program))
        return None if best is None else best + 1

    @property
    def _machine(self):
        return machine(self.program, self.device, self.matmul_precision)

    @property
    def _binarize_code(self):
        return BINARIZE.index(getattr(self, "binarize", None))

    def _session(self, n_rows, layout=None, theta=None):
        """A session for blocks of rows, or on other parameters for one batch of all."""
        layout, m = layout or self.layout_, self._machine
        rows = n_rows if theta is not None else min(max(1, BLOCK // layout.repeat), n_rows)
        theta = self.state_.theta if theta is None else theta
        session = m.session(m, layout, self._loss_weights(), theta, rows)
        session.workers = count_sessions(m, self.n_threads)
        return session

    def _loss_weights(self, epoch=None):
        """`_weights` as a tuple, in the order of the layout."""
        return tuple(map(self._weights(epoch).get, self.layout_.terms))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = self.on_unit_interval
        tags.input_tags.allow_nan = self.takes_missing
        return tags

    # --- checks ---------------------------------------------------------------------------------

    def check_data(self, X, name="X", X_valid=None):
        """X as this model can be trained on it, X_valid being held out; changes nothing.

        TypeError or ValueError with what is wrong, where, and what to do. A model that is fitted
        wants the features that it was fitted on, here of X alone.
        """
        self.check_settings()
        if not hasattr(self, "state_"):
            return checking.check_both(self, X, X_valid, name)
        self._check_loaded()
        checking.check_unchanged(self)
        return self._check_X(X)

    def check_settings(self, device=True):
        """Raise unless the settings are right, and (if device) this computer has the device."""
        settings.check_kinds(self, self.SETTINGS)  # before a check that cannot take a Fraction
        self._validate_params()
        settings.check(self, self.SETTINGS)
        parse_device(self.device)
        self._check_family()
        if device:
            check_device(self.device, self.matmul_precision)

    def _check_X(self, X):
        """X with the features of the model, which has parameters."""
        dtype, schema = self.state_.theta.dtype, self.schema_
        if schema is None:
            array = tables.as_numbers(self, X, dtype, None)
        else:
            checks.check_rows(X)
        validate_data(self, X, reset=False, skip_check_array=True)  # names, number of features
        if schema is not None:
            array = tables.as_numbers(self, X, dtype, schema)
        return checks.check_values(array, self, dtype, tables.labels(X, schema))

    def _check_X_to_train(self, X):
        """`check_data`, where a model without parameters gets its initial ones."""
        if hasattr(self, "state_"):
            return self.check_data(X)
        self.check_settings()
        schema = tables.new_schema(self, X)
        array = checking.check_new(self, X, schema)
        self._begin(X, array.shape[1], schema)
        return array

    def _check_loaded(self, part=None):
        """Raise unless the model has parameters, of this part or of all."""
        check_is_fitted(self)
        if self.part_ not in (None, part):
            raise ValueError(
                f"only the {self.part_} of this model was loaded; load(path) without part loads all"
            )

    def _check_to_score(self, X):
        """X, checked; warns where its Bernoulli likelihood would be none."""
        self._check_loaded()
        X = self._check_X(X)
        if self.is_bernoulli and getattr(self, "binarize", None) is None:
            checks.warn_of_grey(X)
        return X

    def _seed(self, random_state):  # None takes the estimator's own random_state
        return checks.seed_of(self.random_state if random_state is None else random_state)

    # --- training -------------------------------------------------------------------------------

    @one_at_a_time
    @with_callbacks
    def fit(self, X, y=None, *, X_valid=None, checkpoints=None):
        """Train from new parameters on X (n, D) for `epochs` passes, or until `patience` ends; y is
        ignored.

        X may be a SciPy sparse matrix, or an np.memmap of any real dtype: their rows are fetched
        as they are needed. A cupy.ndarray is trained on where it is. An array of another dtype than
        the model's is converted as a whole.
        X_valid (m, D): held-out rows, instead of the part of X that validation_fraction says; their
        score after each epoch is in `history_` as "valid_" + its name, beside that of every term of
        the loss. With patience the model is left with the parameters of the epoch with the best
        score, `best_epoch_`; the optimiser's moments are those of the last one.
        checkpoints: a folder where training leaves the model, as checkpoint.safetensors, after
        every epoch (some, if they take milliseconds), every minute and when it is interrupted, and
        the one with the best held-out score as best.safetensors. `load` and `resume` go on from
        there. A folder that has them already is refused.
        """
        self.check_settings()
        schema = tables.new_schema(self, X)
        array = checking.check_new(self, X, schema)
        X_valid = checking.check_valid(self, X_valid, array.shape, X, schema)
        keep = None if checkpoints is None else Checkpoints(self, checkpoints)
        if keep:
            keep.check_new()
        with loop.unchanged_by_errors(self):
            self._begin(X, array.shape[1], schema)
            array, X_valid = fitting.split(self, array, X_valid)
            last_epoch = fitting.last_epoch(self, array.shape[0])
            self.record_.settled = last_epoch if self.epochs is None else None
            self.record_.data = fitting.fingerprints(self, array, X_valid)
            if self.patience is not None:
                self.state_.best = self.state_.theta.copy()
            training = fitting.Training(self, X, array, X_valid, self.patience)
            if keep:
                keep.write()
        training.go(last_epoch, keep, watched(self, X, last_epoch))
        return self

    @one_at_a_time
    def resume(self, X, y=None, *, X_valid=None, checkpoints=None):
        """Go on with a `fit` that did not come to its end, until `epochs` passes are made.

        X and X_valid must be what `fit` was given, else ValueError says what differs. The model
        ends bit for bit as without the interruption (on the same machine and versions).
        checkpoints as in `fit`, in the same folder or another one.
        """
        self._check_loaded()
        array = self._check_X_to_train(X)
        X_valid = checking.check_valid(self, X_valid, array.shape, X, self.schema_)
        array, X_valid = fitting.split(self, array, X_valid)
        checks.compare_data(self.record_.data, fitting.fingerprints(self, array, X_valid))
        checking.check_patience(self)
        training = fitting.Training(self, X, array, X_valid, self.patience)
        keep = None if checkpoints is None else Checkpoints(self, checkpoints)
        if keep:
            keep.go_on()
        training.go(fitting.last_epoch(self, array.shape[0]), keep)
        return self

    @one_at_a_time
    def partial_fit(self, X, y=None):
        """Train for one more pass over the rows of X (n, D), from where it is; y is ignored."""
        with loop.unchanged_by_errors(self):
            array = self._check_X_to_train(X)
            training = fitting.Training(self, X, array)
        self.state_.begin_pass()
        self.state_.best = None
        self.record_.data = {}  # may be other data than those of the passes before
        training.go(self.state_.epochs + 1)
        return self

    def new_state(self, n_features, seed=None):
        """(seed, layout, State): new parameters, the optimiser at rest."""
        seed = checks.seed_of(self.random_state) if seed is None else seed
        shape = self.plan_settings()
        with checks.named_memory(", ".join(f"{name}={value}" for name, value in shape.items())):
            layout = Layout(self.program, n_features, **shape)
            return seed, layout, State.new(layout, seed, self.dtype)

    def _begin(self, X, n_features, schema):
        """Become a new model of X, which is n_features columns of numbers by the schema."""
        self.schema_ = schema
        made = self.new_state(n_features)
        validate_data(self, X, skip_check_array=True)  # names, number of features
        self.become(*made)

    def become(self, seed, layout, state, record=None, part=None):
        self.seed_, self.layout_, self.state_, self.part_ = seed, layout, state, part
        self.record_ = record or Record()

    def _recipe(self):
        binarize = getattr(self, "binarize", None)
        rate = settings.schedule(self.learning_rate)[0][1]
        return loop.make_recipe(self, self.seed_, rate, binarize, self._loss_weights())

    # --- use ------------------------------------------------------------------------------------

    def score(self, X, y=None, sample_weight=None):
        """Mean of `score_samples` over the rows of X, weighted by sample_weight (n,), in nats."""
        weights = checks.check_weights(sample_weight, X)
        return float(np.average(self.score_samples(X), weights=weights))

    def _terms(self, X, n_samples=1, seed=None):
        """{term: value of each row of X (n,), float64}, the mean over n_samples draws."""
        session, seed = self._session(X.shape[0]), self.seed_ if seed is None else seed
        return mean_terms(session, X, self._binarize_code, seed, n_samples)

    def _draws(self, n_samples, random_state):
        """x (n_samples, D) drawn from the model."""
        n_samples, seed = checks.check_count("n_samples", n_samples), self._seed(random_state)
        with checks.named_memory(f"n_samples={n_samples}"):
            return draws(self._session(n_samples, self._for_use()), n_samples, seed)

    # --- gradients ------------------------------------------------------------------------------

    def loss_and_gradients(self, X):
        """(loss, {name: gradient}) of the mean loss over X (n, D).

        A model that was not fitted is given its initial parameters first.
        """
        return self._point(X, {}).loss_and_gradients()

    def check_gradients(self, X, **options):
        """Compare every gradient on X (n, D) with finite differences, in float64, for fixed noise.

        Returns the Report of `minivae.gradcheck.check_gradient` (which takes the options): per
        parameter the worst relative error; `.passed`, `.worst`, and as text a table.
        """
        return self._point(X, {}, np.float64).check_gradients(**options)

    def trace(self, X):
        """Every array of one batch X (n, D), forward and gradient, in the order of the step.

        A mapping name -> array that prints as a table (evaluation/trace.py).
        """
        return self._trace(X, {})

    def _values(self, X, dtype=None):
        """The rows of X, checked, as an array (n, D)."""
        return fetch(self._check_X_to_train(X), slice(None), dtype or self.dtype)

    def _point(self, X, given, dtype=None, layout=None):
        """X (n, D) as one batch with the noise of step 0; given {region: values} replaces some."""
        values = self._values(X, dtype)
        session = self._session(len(values), layout, self.state_.theta.astype(values.dtype))
        return Point(session, values, given, self._binarize_code, self.seed_)

    def _trace(self, X, given):
        values = self._values(X)
        return trace(self.layout_, self._loss_weights(), self.state_.theta, values, given,
                     self._binarize_code, self.seed_)  # fmt: skip

    # --- files ----------------------------------------------------------------------------------

    @one_at_a_time
    def save(self, path):
        """Write the model, the optimiser's state and the history to path, as safetensors.

        Equal models give equal bytes: the seconds that epochs took are left out.
        """
        self._check_loaded()
        self.check_settings(device=False)
        checking.check_unchanged(self)
        storage.write(path, self.state_.arrays(self.layout_), document.facts_of(self))

    @classmethod
    def load(cls, path, part=None):
        """The model that `save` wrote to path, ready to use and to train on.

        part: one of the names in `parts`, which gives a model that can only do what that part does.
        StorageError for a file that is not a whole model of this family.
        """
        return document.load(path, part, cls._only)

    @classmethod
    def _only(cls, name):
        if name != cls.program.NAME:
            raise ValueError(f"it is a {name}, not a {cls.program.NAME}: minivae.load reads any")
        return cls
