"""Programs that some tests need and not every machine has."""

import os
import shutil

import pytest


def require(package, *names):
    """Return the path of the first of these programs that is installed.

    Without any of them the test is skipped, or fails where CI is set; so ask before anything else.

    Args:
        package: Debian's package that holds the program.
        names: what the program is called here or there.
    """
    path = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"
    for name in names:
        if program := shutil.which(name, path=path):
            return program
    missing = f"NOT TESTED: {names[0]} is not installed (apt-get install {package})"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)
