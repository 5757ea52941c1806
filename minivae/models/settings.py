"""The settings of a model, each said once: default, what is allowed, and what it means.

From a family's table {name: Setting} come the checks of the estimator, the options of the command
with their help, and the list of parameters in the class's docstring.
"""

import math
import textwrap
from dataclasses import dataclass, replace
from numbers import Integral, Real

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from minivae.kernels import BINARIZE, OPTIMIZERS, PRECISIONS

EPOCHS, UPDATES = 20, 3000  # by default so many passes, and more if those are too few updates
MOST = 2**63  # whole numbers end here, as they do in the files and in compiled code
LAYERS = "positive integers, one per hidden layer"
RATES = "a positive, finite number, or a list of (epochs, rate) of such"


@dataclass(frozen=True)
class Setting:
    """One parameter of an estimator."""

    default: object
    constraint: list  # of scikit-learn: any of these
    help: str
    kind: str = ""  # how it is written: see options.KINDS; shape and choice; "": in Python alone
    choices: tuple = ()
    option: str = ""  # its name in a shell, where that is another one
    expected: str = ""  # of a number, of sizes or of a schedule: what is allowed, in words

    @property
    def of(self):
        """The values that are allowed, in words."""
        if self.choices:
            words = "{" + ", ".join(map(repr, self.choices)) + "}"
            return words if len(words) < 80 else "str"  # the help names them
        words = {"whole": "int", "real": "float", "truth": "bool", "sizes": "tuple of int",
                 "schema": "dict", "shape": "(int, int)",
                 "schedule": "float, or list of (epochs, rate)"}  # fmt: skip
        return words.get(self.kind, "")


def whole(default, text, low=1, none=False, high=None):
    """A whole number from low to high, or of at least low; none: or None."""
    end = Interval(Integral, low, MOST, closed="left")
    if high is not None:
        end = Interval(Integral, low, high, closed="both")
    constraint = [end, *([None] if none else [])]
    expected = f"a whole number from {low} to {high or '2**63 - 1'}{', or None' if none else ''}"
    return Setting(default, constraint, text, "whole", expected=expected)


def real(default, text, low=0, high=None, closed="left"):
    """A real number."""
    expected = f"a finite number, {'at least' if closed in ('left', 'both') else 'above'} {low}"
    if high is not None:
        expected += f" and {'at most' if closed in ('right', 'both') else 'below'} {high}"
    constraint = [Interval(Real, low, high, closed=closed)]
    return Setting(default, constraint, text, "real", expected=expected)


def choice(default, choices, text):
    """One of some words; None may be among them."""
    words = {word for word in choices if word is not None}
    constraint = [StrOptions(words), *([None] if None in choices else [])]
    return Setting(default, constraint, text, "choice", tuple(choices))


def truth(default, text):
    """True or False."""
    return Setting(default, ["boolean"], text, "truth")


SIZES = Setting(
    (400,),
    ["array-like"],
    "units of each hidden layer, from the data to the codes, and backwards from these; or none",
    "sizes",
    option="hidden",
    expected=LAYERS,
)


def epochs(usual):
    """The setting of a family whose class says EPOCHS = usual, if that is not EPOCHS here."""
    return whole(
        None,
        f"passes over the data; if not given, {usual}, or as many as {UPDATES} updates take where "
        "the data are few, and a default schedule of rates grows with them",
        none=True,
    )


SHAPE = "(height, width), positive whole numbers of which one may be -1"
MOST_PIXELS = 2**16  # for each there is a row of whole numbers: who forges a file gets no more
IMAGE_SHAPE = Setting(
    None,
    ["array-like", None],
    "(height, width) of a row that is an image, whose columns are its pixels, line by line; -1: as "
    "many as there are, so (1, -1) is a line; if not given, a square",
    "shape",
    expected=SHAPE,
)
BINARIZED = choice(
    None,
    BINARIZE,
    "make grey values 0 or 1: 'stochastic', with probability x afresh at every use, or "
    "'threshold', by x >= 1/2; if not given, they stay as they are",
)
COMMON = {
    "optimizer": choice("adam", OPTIMIZERS, "rule of updates"),
    "learning_rate": Setting(
        1e-3,
        [Interval(Real, 0, None, closed="neither"), list, tuple],
        "size of updates, or a schedule of (epochs, rate), one after the other, whose last rate "
        "goes on",
        "schedule",
        expected=RATES,
    ),
    "momentum": real(0.0, "of sgd, at least 0 and below 1", high=1),
    "weight_decay": real(0.0, "so many times a parameter is added to its gradient"),
    "batch_size": whole(128, "rows per update"),
    "epochs": epochs(EPOCHS),
    "validation_fraction": real(
        0.0,
        "part of the rows that fit holds out, drawn by the seed, and scores after each epoch; of "
        "no use where it is given X_valid",
        high=1,
    ),
    "patience": whole(
        None,
        "epochs without a better held-out score, before training stops; fit then leaves the best "
        "epoch's parameters; if not given, it never stops, and leaves the last one's",
        none=True,
    ),
    "dtype": choice("float32", ("float32", "float64"), "of parameters and all computations"),
    "device": Setting(
        "cpu",
        [str],
        "'cpu': compiled; 'reference': plain NumPy; 'cuda' or 'cuda:1': a GPU (docs/gpu.md); "
        "'auto': a GPU that works, else cpu",
        "device",
        ("cpu", "reference", "auto", "cuda"),
    ),
    "matmul_precision": choice(
        "float32", PRECISIONS, "of a GPU's products of float32 matrices; TF32 keeps 10 of 23 bits"
    ),
    "n_threads": whole(
        None,
        "threads of an update; if not given, as many as pay; results do not depend on it",
        none=True,
    ),
    "random_state": Setting(
        None,
        [Interval(Integral, 0, MOST - 1, closed="both"), np.random.RandomState, None],
        "seed of every random number that the model draws",
    ),
    "verbose": Setting(0, ["verbose"], "1 shows a progress bar"),
}


def with_defaults(settings, **defaults):
    """The settings, some with another default."""
    return settings | {name: replace(settings[name], default=d) for name, d in defaults.items()}


def described(doc, settings):
    """A docstring with the list of parameters in place of {settings}; python -OO leaves none."""
    entries = []
    for name, setting in settings.items():
        of = f"{setting.of}, " if setting.of else ""
        text = textwrap.fill(setting.help, 96, initial_indent="    ", subsequent_indent="    ")
        entries.append(f"{name} : {of}default {setting.default!r}\n{text}")
    return doc and doc.replace("{settings}", "\n".join(entries))


def check(model, settings):
    """Raise ValueError, with the argument's name, for what scikit-learn's constraints let pass."""
    for name, setting in settings.items():
        value = getattr(model, name)
        check_value(name, setting, value)
        if name == "random_state" and isinstance(value, bool | np.bool_):
            raise ValueError(f"{name} must be a number, got {value!r}")


def check_value(name, setting, value):
    """Raise ValueError unless a number, sizes or a schedule is what the setting may be. Other kinds
    are left to scikit-learn."""
    if setting.kind in ("whole", "real"):
        if not is_allowed(setting, value):
            raise ValueError(f"{name} must be {setting.expected}, got {value!r}")
    elif setting.kind == "sizes":
        check_sizes(name, value)
    elif setting.kind == "shape":
        check_shape(name, value)
    elif setting.kind == "schedule":
        schedule(value, name)


def check_kinds(model, settings):
    """Raise for a real number of a kind that neither NumPy nor a file can hold."""
    for name in settings:
        value = getattr(model, name)
        if isinstance(value, Real) and not is_plain(value):
            raise ValueError(f"{name} must be an int or a float, got {value!r}: use float(...)")


def is_allowed(setting, value):
    """Whether it is a number in the setting's interval, finite and no truth value; or None, where
    the setting may be."""
    if value is None:
        return None in setting.constraint
    right = isinstance(value, Real) and not isinstance(value, bool | np.bool_) and is_finite(value)
    return right and setting.constraint[0].is_satisfied_by(value)


def check_sizes(name, sizes):
    """Raise unless sizes are positive whole numbers, one per layer."""
    fits = isinstance(sizes, list | tuple) or getattr(sizes, "ndim", 0) == 1
    if not fits or not all(is_whole(n) and 1 <= n < MOST for n in sizes):
        raise ValueError(f"{name} must hold {LAYERS}, such as (400,), got {sizes!r}")


def check_shape(name, shape):
    """Raise unless it is None, or the height and the width of an image."""
    sides = shape if isinstance(shape, list | tuple) else ()
    right = len(sides) == 2 and all(is_whole(n) and (n == -1 or 1 <= n < MOST) for n in sides)
    if shape is not None and (not right or max(sides) == -1):
        raise ValueError(f"{name} must be {SHAPE}, or None for a square, got {shape!r}")


def image_size(shape, n_features):
    """(height, width) of an image of so many pixels, for a setting image_shape that is allowed."""
    if n_features > MOST_PIXELS:
        raise ValueError(f"n_features={n_features}: an image has {MOST_PIXELS:,} pixels at most")
    if shape is None:
        side = math.isqrt(n_features)
        if side * side != n_features:
            raise ValueError(
                f"n_features={n_features} is no square: set image_shape=(height, width), whose "
                "product it is; (1, -1) is a line"
            )
        return side, side
    height, width = map(int, shape)
    height = n_features // width if height == -1 else height
    width = n_features // height if width == -1 else width
    if height * width != n_features:
        raise ValueError(
            f"image_shape={shape!r} does not fit n_features={n_features}: that is height times "
            "width"
        )
    return height, width


def schedule(rate, name="learning_rate"):
    """[(epochs, rate), ...] of plain numbers; one number is a schedule of one rate."""
    one = isinstance(rate, Real) and not isinstance(rate, bool | np.bool_)
    try:
        steps = [(1, rate)] if one else [(epochs, value) for epochs, value in rate]
    except (TypeError, ValueError):
        steps = []
    right = [
        is_whole(epochs) and 1 <= epochs < MOST and is_plain(value)
        and not isinstance(value, bool | np.bool_) and is_finite(value) and value > 0
        for epochs, value in steps
    ]  # fmt: skip
    if not right or not all(right):
        raise ValueError(
            f"{name} must be {RATES}, such as [(10, 0.002), (5, 0.0002)], got {rate!r}"
        )
    return [(int(epochs), float(value)) for epochs, value in steps]


def is_plain(value):
    """Whether it is a number of Python's own, or of NumPy's."""
    return isinstance(value, int | float | np.integer | np.floating)


def is_whole(value):
    """Whether it is a whole number, and not a truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool | np.bool_)


def is_finite(value):
    """Whether a real number is one that float64 can hold."""
    try:
        return math.isfinite(float(value))
    except OverflowError:  # an integer with hundreds of digits
        return False
