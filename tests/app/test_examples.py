"""examples/gradient_by_hand.py: its formulas, minivae and finite differences agree."""

import re
import runpy
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_every_number_by_hand_is_that_of_minivae(capsys):
    """Tolerances: sums of a few numbers of size 1 in float64; and of the finite difference with
    h = 1e-5, rounding of 1e-16 / h and truncation of h^2."""
    found = runpy.run_path(str(EXAMPLES / "gradient_by_hand.py"))
    assert found["worst"]["minivae"] < 1e-14
    assert found["worst"]["numeric"] < 1e-9
    assert set(found["PARAMETERS"].values()) == found["gradients"].keys()
    printed = capsys.readouterr().out
    near = [float(word) for word in re.findall(r"[-+]\d\.\d{6}\b", printed)]
    for name, array in found["trace"].items():  # but what was given, and what is written over
        if name not in ("x", "eps") and "(" not in name:
            gaps = [min(abs(number - value) for value in near) for number in array.ravel()]
            assert max(gaps) < 1e-6, name
    assert 0 < found["expected"] - found["fall"] < 0.05 * found["expected"]  # of the second order
