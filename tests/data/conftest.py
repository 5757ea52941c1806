"""Nothing from outside the tests."""

import pooch
import pytest


@pytest.fixture(autouse=True)
def no_outside(monkeypatch):
    """No folder from the environment and no network, whatever machine runs the tests."""
    monkeypatch.delenv("MINIVAE_DATA_DIR", raising=False)
    monkeypatch.setattr(pooch, "retrieve", lambda *a, **k: pytest.fail("unexpected download"))
