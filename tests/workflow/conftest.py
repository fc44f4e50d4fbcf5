"""One finished small study; each test works in a copy of it."""

import shutil
import subprocess

import pytest

from helpers.small_project import Project


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Run the small study once; return the folder in which it ran and a copy of all it left."""
    folder = tmp_path_factory.mktemp("workflow") / "study"
    Project.create(folder).run()
    copy = folder.with_name("finished")
    folder.rename(copy)
    return folder, copy


@pytest.fixture
def project(finished):
    """Return the finished study at the path at which it ran, undisturbed by other tests."""
    folder, copy = finished
    subprocess.run(["cp", "-a", copy, folder], check=True)  # keeps times, as a user's folder does
    project = Project(folder)
    yield project
    project.kill()
    shutil.rmtree(folder)


@pytest.fixture
def undisturbed(finished):
    """Return the finished study itself, to compare with."""
    return Project(finished[1])
