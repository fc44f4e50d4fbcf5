"""What every test starts from, and which tests are slow: those in some of the folders."""

import sys

import pytest

SLOW = ("browser", "fuzz", "slurm", "workflow")
# they start Snakemake on all cores and kill it at chosen moments: never two at a time
SERIAL = ("browser", "slurm", "workflow")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    """Mark tests by their folder; spread them over pytest-xdist's workers by file."""
    for item in items:
        folder = item.path.parent.name
        if folder in SLOW:
            item.add_marker(folder)
            item.add_marker("slow")
        group = "serial" if folder in SERIAL else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(autouse=True)
def _all_numbers():
    """Undo what stages set for their own process: arithmetic without denormal numbers."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """Return the results of the whole made-up study, for tests that only read them."""
    from helpers import synthetic_results  # it takes seconds, which not every test needs

    return synthetic_results.write(tmp_path_factory.mktemp("study"))
