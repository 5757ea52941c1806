"""The tables that the tests of kernels run over, and devices in memory."""

import pytest
from emulator import EMULATED, ORDERS, Emulator
from kernel_checks import hosted_table

from minivae.kernels import tables


@pytest.fixture(scope="session")
def devices():
    """One device in memory for each order of threads and blocks."""
    return [Emulator(order) for order in ORDERS]


@pytest.fixture(scope="session")
def device(devices):
    """A device in memory whose threads run in a shuffled order."""
    return devices[-1]


@pytest.fixture(scope="session", params=["reference", "cpu", pytest.param("cuda", marks=EMULATED)])
def k(request):
    """Each of the three tables, for NumPy arrays."""
    if request.param == "cuda":
        return hosted_table(request.getfixturevalue("device"))
    return tables.reference if request.param == "reference" else tables.cpu()
