"""Devices in memory, compiled once for all tests of this folder."""

import pytest
from emulator import ORDERS, Emulator


@pytest.fixture(scope="session")
def devices():
    """One device for each order of threads and blocks."""
    return [Emulator(order) for order in ORDERS]


@pytest.fixture(scope="session")
def device(devices):
    """A device whose threads run in a shuffled order."""
    return devices[-1]
