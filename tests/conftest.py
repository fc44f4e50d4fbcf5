"""What every test starts from."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _all_numbers():
    """Undo what stages set for their own process: arithmetic without denormal numbers."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)
