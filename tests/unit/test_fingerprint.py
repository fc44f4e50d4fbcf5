import hashlib
import os

import pytest

from prunecal.caching import fingerprint
from prunecal.storage.checksums import file_digest

STAGE = '''"""A stage."""
from pack import helper
from pack.deep import twice


def run(x):
    """Run it."""
    return twice(helper.half(x))  # a comment
'''
HELPER = "def half(x):\n    return x / 2\n"
DEEP = "from pack.deeper import TWO\n\n\ndef twice(x):\n    return TWO * x\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "pack"
    folder.mkdir()
    files = {
        "__init__": "",
        "stage": STAGE,
        "helper": HELPER,
        "deep": DEEP,
        "deeper": "TWO = 2\n",
        "unused": "X = 1\n",
    }
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path)
    fingerprint._parse.cache_clear()
    yield folder
    fingerprint._parse.cache_clear()


def stage_digest():
    """Return the digest as a fresh process would."""
    fingerprint._parse.cache_clear()
    return fingerprint.source_digest("pack.stage")


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("stage", "  # a comment", "  # another comment"),
        ("stage", '"""A stage."""', '"""Something else\n\n    at length."""'),
        ("stage", '    """Run it."""\n', ""),
        ("stage", "twice(helper.half(x))", "twice(\n        helper.half(x),\n    )"),
        ("helper", "def half", "\n\n\ndef half"),
        ("deep", "    return", "    'Double it.'\n    return"),
        ("unused", "X = 1", "X = 2"),
    ],
)
def test_what_changes_no_meaning_keeps_the_digest(package, file, old, new):
    before = stage_digest()
    change(package / f"{file}.py", old, new)
    assert stage_digest() == before


def test_a_touched_file_keeps_the_digest(package):
    before = stage_digest()
    for path in package.iterdir():
        os.utime(path, (1, 1))
    assert stage_digest() == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("stage", "twice(helper", "twice(-helper"),
        ("helper", "/ 2", "/ 3"),
        ("deep", "TWO * x", "TWO + x"),
        ("deeper", "TWO = 2", "TWO = 2.0"),
        ("__init__", "", "import os\n"),
        ("helper", "def half(x)", "def half(x=1)"),
    ],
)
def test_a_change_of_meaning_in_any_imported_module_changes_the_digest(package, file, old, new):
    before = stage_digest()
    change(package / f"{file}.py", old, new)
    assert stage_digest() != before


@pytest.mark.parametrize(
    "line",
    [
        "import pack.helper",
        "from pack import helper as h",
        "from pack.helper import half",
        "from . import helper",
        "from .helper import half",
        "from pack.sub import helper",
        "def f():\n    from pack import helper\n",
        "if False:\n    import pack.helper\n",
    ],
)
def test_every_form_of_import_is_followed(package, line):
    (package / "sub").mkdir()
    (package / "sub" / "__init__.py").write_text("from ..helper import half as helper\n")
    (package / "stage.py").write_text(line)
    before = stage_digest()
    change(package / "helper.py", "/ 2", "/ 3")
    assert stage_digest() != before


def test_modules_that_import_each_other_have_a_digest(package):
    change(package / "helper.py", "def half", "from pack import stage\n\n\ndef half")
    before = stage_digest()
    assert len(before) == 16
    change(package / "deeper.py", "2", "4")
    assert stage_digest() != before


def test_several_modules_have_one_digest_whatever_their_order(package):
    assert fingerprint.source_digest("pack.stage", "pack.unused") == fingerprint.source_digest(
        "pack.unused", "pack.stage"
    )
    assert fingerprint.source_digest("pack.stage", "pack.unused") != fingerprint.source_digest(
        "pack.stage"
    )


def test_an_unknown_module_is_refused(package):
    with pytest.raises(ModuleNotFoundError, match="pack.nowhere is not a module"):
        fingerprint.source_digest("pack.nowhere")


def test_other_peoples_modules_are_left_out(package):
    before = stage_digest()
    (package / "stage.py").write_text(STAGE + "import json\n")
    assert stage_digest() != before
    assert set(fingerprint._parse("pack.stage")[1]) == {"pack", "pack.helper", "pack.deep"}


def test_the_stages_follow_their_helpers():
    followed = fingerprint._parse("prunecal.rank")[1]
    assert {"prunecal.storage.files", "prunecal.core.plugins"} <= set(followed)


def test_a_files_digest_is_its_sha256(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1000)
    assert file_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
