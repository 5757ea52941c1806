"""The scalar formulas of the CPU's kernels, over their whole range."""

import numpy as np
import pytest
from scipy import special

from minivae.kernels.support import formulas


@formulas.jit
def cosine(u):
    return formulas.turn(u)[0]


@formulas.jit
def sine(u):
    return formulas.turn(u)[1]


UNIT = np.linspace(0, 1, 200_001)
UNIFORM = UNIT[1:] - 2.5e-6  # as uniforms, none at a quarter, where cos or sin is 0
SMALL, POSITIVE = np.geomspace(1e-37, 1, 200_000), np.geomspace(1.2e-38, 3.4e38, 200_000)
WHOLE = np.r_[-SMALL, SMALL, np.linspace(-86.9, 88.7, 200_000)]  # below -86.98 exp gives 0

# Formula, the same by NumPy or scipy, where, and the largest relative error measured on x86.
FORMULAS = {
    "exp": (formulas.exp, np.exp, WHOLE),  # 1.3e-7
    "log": (formulas.log, np.log, np.r_[POSITIVE, UNIT + 0.5]),  # 2.3e-7
    "log1p_unit": (formulas.log1p_unit, np.log1p, np.r_[SMALL, UNIT]),  # 2.3e-7
    "tanh": (formulas.tanh, np.tanh, WHOLE),  # 2.0e-7
    "sigmoid": (formulas.sigmoid, special.expit, WHOLE),  # 1.8e-7
    "softplus": (formulas.softplus, lambda x: np.logaddexp(0, x), WHOLE),  # 2.7e-7
    "softplus'": (formulas.softplus_derivative, lambda y: -np.expm1(-y), abs(WHOLE)),  # 2.3e-7
    "cos": (cosine, lambda u: np.cos(2 * np.pi * u), UNIFORM),  # 1.5e-7
    "sin": (sine, lambda u: np.sin(2 * np.pi * u), UNIFORM),  # 1.5e-7
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula_in_float32_over_its_whole_range(name):
    formula, exact, x = FORMULAS[name]

    @formulas.jit
    def loop(x, out):
        for i in range(x.size):
            out[i] = formula(x[i])

    x = x.astype(np.float32)
    found, expected = np.empty_like(x), exact(x.astype(np.float64))
    loop(x, found)
    assert (abs(found - expected) <= 3e-7 * abs(expected)).all()  # the bound in formulas.py
