"""Check a gradient written by hand against numbers that need only the forward pass.

Small inputs are checked coordinate by coordinate, large ones along random directions, by central
differences or the complex step. How: see `_central`, `_complex` and `_common_factor`.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

ROUNDING = 40 * float(np.finfo(np.float64).eps)  # the 40 is derived in `_central`
SMALLEST_STEP = 1e-7  # below it rounding leaves too few digits
COMPLEX_STEP = 1e-30  # nothing is subtracted, so it can be as small as we like
TOLERANCES = {"central": 1e-6, "complex": 1e-12}
JUMPS, NOT_ANALYTIC = "jumps", "is not analytic"
MEANINGS = {  # of analytic / numeric where it is a whole n or 1/n
    "0": " is a path missing?",
    "1": "",
    "2": " is a factor 1/2 lost, or a path counted twice?",
    "1/2": " is a factor 2 lost, as of a square, or one of two paths?",
    "n": " is a sum taken where forward takes a mean?",
    "1/n": " is a mean taken twice, or where forward takes a sum?",
}


class Number(NamedTuple):
    """A derivative found by calling `forward` only."""

    low: float  # bounds, equal but at a kink
    high: float
    noise: float  # doubt of the bounds in absolute terms,
    tolerance: float  # and relative to them
    halving_ratio: float | None = None
    trouble: str = ""  # JUMPS or NOT_ANALYTIC,
    why: str = ""  # and how that was seen

    def compare(self, analytic):
        """Relative error as in `check_gradient`, and the nearest value between the bounds."""
        numeric = min(max(self.low, analytic), self.high)
        if self.trouble == JUMPS or analytic == numeric:
            return 0.0, numeric  # at a jump there is nothing to compare with
        scale = max(abs(analytic), abs(self.low), abs(self.high), self.noise / self.tolerance)
        error = abs(analytic - numeric) / scale
        return math.inf if math.isnan(error) else error, numeric


@dataclass(frozen=True)
class InputReport:
    """What was found for one input of `check_gradient`."""

    name: str
    shape: tuple
    kind: str  # "coordinates", "directions" or "not differentiated"
    checked: int = 0  # coordinates or directions, of which
    failed: int = 0  # have an error above the tolerance,
    kinks: int = 0  # lie at a kink, where the gradient may be anything between two slopes,
    jumps: int = 0  # lie at a jump (or an infinite slope), where there is no gradient,
    not_analytic: int = 0  # were compared with central differences, not the complex step
    halving_ratio: float | None = None  # mean where it stands out of the rounding; smooth: near 4
    factor: float | None = None  # analytic / numeric, if all that failed have it in common
    failure: str = ""  # where to look, what is wrong there and perhaps why; empty if passed
    error: float = 0.0  # worst relative error, and where it was met
    index: tuple | int | None = None  # of a coordinate, or number of a direction
    analytic: float = math.nan
    numeric: float = math.nan


@dataclass(frozen=True)
class Report:
    """Result of `check_gradient`, made to be printed."""

    method: str
    tolerance: float
    inputs: dict[str, InputReport]

    @classmethod
    def merged(cls, reports):
        """One report of several, which are of different inputs, one method and one tolerance."""
        rows = [((r.method, r.tolerance), *item) for r in reports for item in r.inputs.items()]
        kinds, names = sorted({kind for kind, *_ in rows}), [name for _, name, _ in rows]
        if len(kinds) != 1 or len(set(names)) < len(names):
            raise ValueError(f"reports must share method, tolerance and no input: {kinds}, {names}")
        return cls(*kinds[0], {name: x for _, name, x in rows})

    @property
    def worst(self):
        """Largest relative error of all inputs."""
        return max(x.error for x in self.inputs.values())

    @property
    def kinks(self):
        """Number of kinks met in all inputs."""
        return sum(x.kinks for x in self.inputs.values())

    @property
    def passed(self):
        """True if all could be compared, not only kinks, and no error exceeds the tolerance."""
        return not any(x.failure for x in self.inputs.values())

    def raise_if_failed(self):
        """Raise AssertionError with the whole table unless the check passed."""
        if not self.passed:
            raise AssertionError(str(self))

    def __str__(self):
        rows = [("input", "shape", "checked", "failed", "kinks", "jumps", "ratio", "worst error")]
        for x in self.inputs.values():
            ratio = "-" if x.halving_ratio is None else f"{x.halving_ratio:.2f}"
            cells = (f"{x.checked} {x.kind}", x.failed, x.kinks, x.jumps, ratio, f"{x.error:.1e}")
            cells = (x.kind, *"-----") if x.kind == "not differentiated" else cells
            rows.append(tuple(map(str, (x.name, x.shape, *cells))))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"gradient check: method {self.method}, tolerance {self.tolerance:g}"]
        lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        verdict = [f"FAILED, look at {x.failure}" for x in self.inputs.values() if x.failure]
        return "\n".join(lines + (verdict or [f"PASSED, worst error {self.worst:.1e}"]))


def check_gradient(
    forward, backward, inputs, *, names=None, dout=None, method="central", tolerance=None,
    step=1e-3, max_coordinates=1000, n_directions=20, seed=0,
):  # fmt: skip
    """Compare the gradients from `backward` with numbers n found by calling `forward`.

    Checked is ``a = dL/dx_j``, ``L = sum_i sum(dout_i * output_i)``, for every coordinate of an
    input of at most `max_coordinates` entries, else ``a = sum(dL/dx * v)`` along `n_directions`
    random unit vectors v. The relative error is::

        |a - n| / max(|a|, |n|, noise / tolerance),   noise = 40 eps ||dout * outputs|| / h

    noise bounds the rounding error of n at the step h used; ten times the disagreement of the step
    halvings, if that is more. So an entry too small to be resolved is judged in absolute terms.
    At a kink n is the nearest value between the one-sided slopes; a jump always fails.

    Parameters
    ----------
    forward, backward : callable
        ``forward(*inputs)`` returns an array or a tuple of them, ``backward(*inputs, *dout)`` one
        gradient per input, in argument order, None for an input that is not differentiated.
    inputs, names : sequence of float64 arrays, sequence of str
        The point of the check, handed on as copies; what the report calls the inputs.
    dout : array or tuple of arrays
        Weights of the outputs; default standard normal, so that every output counts.
    method, tolerance : {"central", "complex"}, float
        "central" takes any function and recognises kinks and jumps; default tolerance 1e-6.
        "complex" is exact to rounding, default 1e-12, but `forward` must be analytic and take
        complex128. The check fails where it is not, unless the gradient is wrong likewise.
    step : float
        First step of the central differences, times max(1, |x_j|) for a coordinate or
        max(1, ||x||) for a direction. It falls tenfold, down to 1e-7, until the halvings agree.
    seed : int
        Fixes `dout` and the directions: same seed, same report.

    TypeError says that an input, output or gradient is not float64 (complex step: the outputs not
    complex128), ValueError that shapes or numbers of arrays are wrong or an input was modified.
    """
    if method not in TOLERANCES:
        raise ValueError(f"method must be 'central' or 'complex', got {method!r}")
    tolerance = float(TOLERANCES[method] if tolerance is None else tolerance)
    if not min(tolerance, step, n_directions) > 0:
        raise ValueError("tolerance, step and n_directions must be positive")
    if isinstance(inputs, np.ndarray) or not len(inputs):
        raise TypeError("inputs must be a tuple or list of arrays; for one array x write [x]")
    names = [f"inputs[{i}]" for i in range(len(inputs))] if names is None else list(names)
    if len(names) != len(inputs) or len(set(names)) != len(names):
        raise ValueError(f"names must be {len(inputs)} different names, one per input, got {names}")
    inputs = _checked("{}", list(inputs), names)
    copies = _checked("{}", inputs, names)
    rng = np.random.default_rng(seed)
    # A step may leave the domain, below 0 in a logarithm: no warning, a smaller one is tried.
    with np.errstate(all="ignore"):
        outputs = _checked("output {} of forward", forward(*copies))
        _require_untouched("forward", copies, inputs, names)
        dout = [rng.standard_normal(f.shape) for f in outputs] if dout is None else dout
        dout = _checked("dout[{}]", dout, range(len(outputs)), outputs)
        weights, base = _flatten(dout), _flatten(outputs)
        gradients = _checked("gradient of {}", backward(*copies, *dout), names, inputs)
        _require_untouched("backward", copies, inputs, names)
        if all(gradient is None for gradient in gradients):
            raise ValueError("backward returned None for every input: there is nothing to check")
        points = [x.astype(np.complex128) for x in inputs] if method == "complex" else copies
        reports = {}
        for i, (name, x, gradient) in enumerate(zip(names, inputs, gradients, strict=True)):
            kind = "coordinates" if x.size <= max_coordinates else "directions"
            kind = "not differentiated" if gradient is None else kind
            found = []
            for index, v in _directions(x.shape, kind, n_directions, rng):
                # A coordinate is read, not summed: a nan elsewhere must not reach it.
                analytic = float(gradient[index] if kind == "coordinates" else (gradient * v).sum())
                move = partial(_move, forward, i, x, v)
                find = partial(_central, weights, base, step, partial(move, copies), x, v)
                if method == "complex":
                    find = partial(_complex, weights, partial(move, points), analytic, find)
                found.append((index, analytic, find(tolerance)))
            points[i][...] = copies[i][...] = x
            _require_untouched("forward", points, inputs, names)
            reports[name] = _summary(name, x.shape, kind, found)
    return Report(method, tolerance, reports)


def _central(weights, base, step, move, x, v, tolerance):
    """The derivative by central differences, or its bounds at a kink, or word of a jump.

    Let phi(t) be the weighted outputs at x + t v. Taylor's series around t = 0 gives::

        D(h) = (phi(h) - phi(-h)) / (2 h) = phi' + h^2 phi'''/6 + h^4 phi^(5)/120 + ...

    Half the step leaves a quarter of the leading error: for a smooth function the halving ratio
    (D(h) - D(h/2)) / (D(h/2) - D(h/4)) is near 4. Richardson's R(h) = (4 D(h/2) - D(h)) / 3
    cancels the h^2 term, and R(h) - R(h/2) is zero exactly where the ratio is 4. One level more,
    (16 R(h/2) - R(h)) / 15, cancels the h^4 term too. This is the value used: D(h/4) is there
    anyway, the error falls as h^6, and rounding grows only to twice that of R(h).

    D is blind to a kink at x itself (relu at 0: 1/2 for every h), the one-sided quotients
    q(h) = (phi(h) - phi(0)) / h and q(-h) are not. In 2 q(h/2) - q(h) the h term cancels, the h^2
    term is the same on both sides: right minus left is the jump of the slope plus O(h^3).

    A step is good if R(h) - R(h/2) and the jumps at h and h/2 stay within a tenth of the tolerance
    or ten times the noise. If not, a smaller step may leave a kink or strong curvature behind; but
    noise grows, so they must fall, and exceed it before. If no step is good x is at a kink: the
    gradient must lie between the one-sided derivatives, give or take their doubt.

    Noise: rounding errors eps |f| of the outputs put phi off by eps ||dout * f||. The jump at h/2
    suffers most, by a factor 2 (1 + 2 + 1) / (h/4) + (1 + 2 + 1) / (h/2) = 40 / h.

    Or x is at a jump. Let Q(h) be the larger of |q(h)| and |q(-h)|. If phi(h) - phi(0) goes as h^p,
    Q(h/4) / Q(h) = 4^(1-p): 4 at a jump, 2 at a root, 1 at a kink. A kink just beside x is on one
    side, where q runs from the slope at x, which the other side keeps, to that beyond the kink: so
    Q does not grow as h falls. Rounding puts q(h/4) off by at most noise/5, q(h) by noise/20. Where
    Q(h/4) exceeds the noise, a ratio of 1 is seen as 1 / (0.8 - 0.05) = 4/3 at most. So it is a
    jump if the smallest step has more than 3/2 and no step a larger Q, which curvature would give.
    A jump below h times the slope passes for a kink beside x.
    """
    reach, best, sides, jump = 0.0, math.inf, ([], []), ()
    scale = max(1.0, np.linalg.norm(x[v != 0]))  # |x_j| for a coordinate
    steps = max(1, 1 + round(math.log10(step / SMALLEST_STEP)))
    for power in range(steps if np.isfinite(base).all() else 0):
        h = scale * step / 10**power
        t = np.outer((h, -h), (1, 1 / 2, 1 / 4))  # rows: right and left of x
        terms = [weights * (move(s) - base) for s in t.flat]  # subtract first, sum later
        q = np.reshape([term.sum() for term in terms], t.shape) / t
        if not np.isfinite(q).all():
            continue
        level = np.linalg.norm(weights * base) + max(np.linalg.norm(terms[i]) for i in (0, 3))
        noise = ROUNDING * level / h
        d = q.mean(axis=0)  # D(h), D(h/2), D(h/4)
        r = (4 * d[1:] - d[:-1]) / 3  # R(h), R(h/2)
        one_sided = 2 * q[:, 1:] - q[:, :-1]
        reach = max(reach, np.abs(q).max())
        disagreement = np.abs([r[0] - r[1], *(one_sided[0] - one_sided[1])]).max()
        limit = max(min(10 * noise, best / 2), tolerance / 10 * reach)
        if noise <= best and disagreement <= limit:
            value = float(16 * r[1] - r[0]) / 15
            ratio = (d[0] - d[1]) / (d[1] - d[2]) if abs(d[1] - d[2]) > 10 * noise else None
            return Number(value, value, max(noise, 10 * disagreement), tolerance, ratio)
        best = min(best, disagreement)
        for side, (coarse, fine) in zip(sides, one_sided, strict=True):
            side.append((abs(fine - coarse) + noise, float(fine)))
        coarse, _, fine = np.abs(q).max(axis=0)  # Q(h), Q(h/2), Q(h/4)
        jump = (fine * h / 4, h / 4) if fine > max(noise, 1.5 * coarse) and fine == reach else ()
    if not sides[0]:
        return Number(math.nan, math.nan, math.nan, tolerance)
    if jump:
        why = "sum(dout * outputs) changes by {:.3g} in a step of {:.2g}: no gradient exists there"
        return Number(math.nan, math.nan, 0.0, tolerance, None, JUMPS, why.format(*jump))
    bounds = [float(slope + s * doubt) for doubt, slope in map(min, sides) for s in (-1, 1)]
    return Number(min(bounds), max(bounds), 0.0, tolerance)


def _complex(weights, move, analytic, central, tolerance):
    """The derivative by the complex step, or by `central` where that refutes it.

    For an analytic function phi(i h) = phi + i h phi' - h^2 phi''/2 - i h^3 phi'''/6 + ..., hence
    Im phi(i h) / h = phi' - h^2 phi'''/6 + ... Nothing is subtracted, so h = 1e-30 loses no digit
    and the h^2 term vanishes. The noise is that of Im f. Not analytic: `abs`, `.real`, `.conj`.

    These make the number wrong, not the gradient. Where the two disagree, central differences are
    asked, at their own tolerance. If they agree with the number, the gradient is wrong. If not, or
    if they see a kink or a jump, forward is not analytic, and the gradient is compared with them.
    """
    outputs = move(1j * COMPLEX_STEP)
    if not np.iscomplexobj(outputs):
        raise TypeError("forward made complex inputs real, so it is not analytic: use 'central'")
    terms = weights * outputs.imag / COMPLEX_STEP
    value = float(terms.sum()) if np.isfinite(outputs).all() else math.nan
    number = Number(value, value, ROUNDING * np.linalg.norm(terms), tolerance)
    if number.compare(analytic)[0] <= tolerance:
        return number
    judge = central(max(tolerance, TOLERANCES["central"]))
    agrees = judge.low == judge.high and judge.compare(number.low)[0] <= judge.tolerance
    if agrees or math.isnan(judge.noise):
        return number
    why = f"complex step {number.low:.10g}, central differences {judge.compare(analytic)[1]:.10g}, "
    why += f"analytic {analytic:.10g}; use method='central'"
    return judge if judge.trouble else judge._replace(trouble=NOT_ANALYTIC, why=why)


def _summary(name, shape, kind, found):
    """InputReport of `found`: the index, the analytic value and the Number of each check."""
    if not found:
        return InputReport(name, shape, kind)
    one, numbers = kind[:-1], [number for *_, number in found]
    excess = np.array([number.compare(a)[0] / number.tolerance for _, a, number in found])
    index, analytic, number = found[excess.argmax()]
    error, numeric = number.compare(analytic)
    n_failed, kinks = int((excess > 1).sum()), sum(n.low < n.high for n in numbers)
    factor, *lines = _common_factor(one, found, excess > 1)
    if n_failed:
        values = f"analytic {analytic:.10g}, numeric {numeric:.10g}, relative error {error:.1e}"
        lines.insert(0, f"{n_failed} of {len(found)} failed, worst at {one} {index}: {values}")
    counts = [len(found), n_failed, kinks]
    for trouble in (JUMPS, NOT_ANALYTIC):
        met = [f"{one} {index}: {n.why}" for index, _, n in found if n.trouble == trouble]
        counts.append(len(met))
        lines += [f"forward {trouble} at {len(met)} of {len(found)}, first at {x}" for x in met[:1]]
    if kinks == len(found) and not n_failed:
        lines.append("only kinks, nothing was compared; move the point a little")
    text = f"{name}: " + "\n  ".join(lines) if lines else ""
    ratios = [number.halving_ratio for number in numbers if number.halving_ratio is not None]
    counts.append(float(np.mean(ratios)) if ratios else None)
    return InputReport(name, shape, kind, *counts, factor, text, error, index, analytic, numeric)


def _common_factor(one, found, failed):
    """The factor analytic / numeric that all that failed have in common, and words for it.

    A number n is known to u = max(tolerance |n|, noise), at a kink to half the width. That a = r t
    for a t within u of n means |a - r n| <= |r| u. The best n, of the least d = u / |n|, gives
    r = a / n to |r| d, so all must have |a - r n| <= |r| (u + d |n|). Numbers with d > 1/100 prove
    little. Of others, two failures have r in common, and one has if r has a meaning: 0, or a whole
    n or 1/n with 2 n d <= 1/100, the chance of any other ratio to be as near to a whole n.
    """
    rows = [(a, (n.low + n.high) / 2, n.noise, n.tolerance, n.high - n.low) for _, a, n in found]
    a, n, noise, tolerance, width = np.array(rows).T
    u = np.maximum(tolerance * np.abs(n), np.maximum(noise, width / 2))
    doubts = np.where(failed & (u / np.abs(n) <= 1 / 100), u / np.abs(n), math.inf)
    r, d = float((a / n)[doubts.argmin()]), float(doubts.min())
    fits = np.abs(a - r * n) <= np.abs(r) * (u + d * np.abs(n))
    n_or_1_over_n = max(abs(r), 1 / abs(r)) if r else 0.0
    whole = np.rint(n_or_1_over_n)
    named = abs(n_or_1_over_n - whole) <= whole * d and 200 * whole * d <= 1
    if math.isinf(d) or not fits[failed].all() or np.isfinite(doubts).sum() + named < 2:
        return (None,)
    text, meaning = f"{r:.{1 + math.ceil(-math.log10(d))}g}", ""  # digits enough to tell r from 1
    if named:
        side = "n" if np.rint(abs(r)) == whole else "1/n"
        plain = side.replace("n", f"{whole:.0f}")
        text = "-" * (r < 0) + plain
        meaning = ":" + " is the sign wrong?" * (r < 0) + MEANINGS.get(plain, MEANINGS[side])
    which = "every" if fits[np.isfinite(n)].all() else "every failing"
    return r, f"analytic is {text} times numeric in {which} {one}{meaning}"


def _directions(shape, kind, n_directions, rng):
    """Yield (index, unit vector) for every coordinate, or (number, random unit vector)."""
    indices = {"coordinates": np.ndindex(shape), "directions": range(n_directions)}
    for index in indices.get(kind, ()):
        v = np.zeros(shape) if kind == "coordinates" else rng.standard_normal(shape)
        if kind == "coordinates":
            v[index] = 1.0
        yield index, v / np.linalg.norm(v)


def _move(forward, i, x, v, points, t):
    """Outputs at `points`, but with x + t v as input i."""
    points[i][...] = x + t * v
    return _flatten(forward(*points))


def _flatten(arrays):
    arrays = arrays if isinstance(arrays, (tuple, list)) else [arrays]
    return np.concatenate([np.ravel(array) for array in arrays])


def _checked(what, arrays, names=None, like=None):
    """Copies of `arrays`, which must be float64 and have the shapes of `like`; None stays None."""
    arrays = arrays if isinstance(arrays, (tuple, list)) else [arrays]
    names = [what.format(name) for name in (range(len(arrays)) if names is None else names)]
    if len(arrays) != len(names):
        raise ValueError(f"expected {len(names)} arrays, {', '.join(names)}, got {len(arrays)}")
    arrays = [None if array is None and like else np.array(array) for array in arrays]
    for i, (name, array) in enumerate(zip(names, arrays, strict=True)):
        if array is not None and like and array.shape != like[i].shape:
            raise ValueError(f"{name} must have shape {like[i].shape}, got {array.shape}")
        if array is not None and array.dtype != np.float64:
            raise TypeError(
                f"{name} has dtype {array.dtype}, expected float64: else rounding hides errors. "
                "Convert inputs with .astype(np.float64), avoid casts on the way, and let integers "
                "such as labels come from outside"
            )
    return arrays


def _require_untouched(who, copies, inputs, names):
    for name, copy, x in zip(names, copies, inputs, strict=True):
        if not np.array_equal(copy, x, equal_nan=True):
            raise ValueError(f"{who} modified {name} in place; let it write into a new array")
