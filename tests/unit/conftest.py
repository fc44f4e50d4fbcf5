import pytest

from helpers import synthetic_results


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """Return the results of the whole made-up study, for tests that only read them."""
    return synthetic_results.write(tmp_path_factory.mktemp("study"))
