"""Each test works in a copy of one finished small study."""

import shutil

import pytest


@pytest.fixture
def project(undisturbed, tmp_path):
    """Return a copy of the finished study."""
    project = undisturbed.copy(tmp_path / "study")
    yield project
    project.kill()
    shutil.rmtree(project.folder)
