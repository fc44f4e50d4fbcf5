"""A digest changes when what a stage computes may change, and only then: shown on a small package.

tests/unit/test_edits.py shows it on prunecal itself.
"""

import hashlib
import os
import subprocess
import sys

import pytest

from prunecal.caching import code_files, fingerprint, reach
from prunecal.caching.reach import Reach
from prunecal.storage.checksums import file_digest

FILES = {
    "__init__": "",
    "core/__init__": "",
    "core/errors": "def cut(text):\n    return text[:200]\n",
    "storage/__init__": "VERSION = 1\n",
    "strategies/__init__": """from typing import Protocol


class Strategy(Protocol):
    LABEL: str
    NESTED: bool = True

    def rank(self, x: int) -> int:
        "Rank."


def protocol(plugin):
    return Protocol if hasattr(plugin, "unused") else Strategy


def refuse_contradictions(plugin):
    if not hasattr(plugin, "rank"):
        raise ValueError(plugin)
""",
    "strategies/one": """LABEL = "One"


def rank(x):
    return x


def unused(x):
    return x
""",
    "strategies/two": 'LABEL = "Two"\n\n\ndef rank(x):\n    return -x\n',
    "plugins": """def load(folder, name):
    return __import__(f'pack.{folder}.{name}')


def declared(folder, plugin, name):
    protocol = __import__(f'pack.{folder}').protocol
    return getattr(plugin, name, getattr(protocol(plugin), name))
""",
    "stage": '''"""A stage."""
import argparse
import logging
from typing import TYPE_CHECKING

from pack import helper, plugins
from pack.core.errors import cut
from pack.deep import Model, Params, twice
from pack.refusals import check

if TYPE_CHECKING:
    from pack.annotated import Kind

log = logging.getLogger("pack")


def run(x: int, parameter: "Kind" = 3) -> float:
    """Run it."""
    strategy = plugins.load("strategies", "one")
    what = f"run {strategy.LABEL}"
    if x < 0:
        reason = f"{cut(str(x))} is negative"
        raise ValueError(f"{reason}; give a positive number")
    count = len(str(x))
    log.info("%s: %d digits", what, count)
    assert x < 9, "too large"
    check(x)
    total = 0.0
    for step in progress(range(x), what=what, unit="step"):
        total += twice(helper.half(step), Params())  # a comment
    total += plugins.declared("strategies", strategy, "NESTED")
    return strategy.rank(total) + Model(parameter).size(), strategy.LABEL


def progress(items, **options):
    return items


def unused():
    log.debug("unused")
    return 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A stage.")
    parser.add_argument("--x", type=int, default=1, help="a number")
    run(parser.parse_args().x)
''',
    "helper": """def half(x):
    from pack.lazy import TWO

    if fault(x):
        raise ValueError(fault(x))
    return x / TWO if default() == "a" else x


def fault(x):
    if x % 2:
        return f"{x} is odd"
    return None


def default():
    return "a"
""",
    "refusals": """FAULTS = {"odd": "is odd"}
KEYS = {"a": 1, "b": 2}


def check(x):
    for key, fault in FAULTS.items():
        if key == "odd" and x % 2:
            raise ValueError(f"{x} {fault}")
    check_file(x, "give another")
    fault = f"{x} is low" if KEYS["a"] else "high"
    view = x[0]
    view += 1
    return x, fault


def check_file(x, remedy):
    return x
""",
    "lazy": "TWO = 2\nTHREE = 3\nSIX = TWO * THREE\n\n\ndef other():\n    return SIX\n",
    "deep": """from dataclasses import dataclass

from pydantic import BaseModel, Field

from pack.deeper import TABLE


class Params(BaseModel):
    factor: float = Field(2.0, ge=0, description="Factor.")


@dataclass
class Model:
    width: int

    def size(self) -> int:
        return self.width

    def other(self) -> int:
        return 1


def twice(x, params):
    return TABLE["two"] * params.factor * x
""",
    "deeper": 'TABLE = {"two": 2}\n',
    "annotated": "Kind = int\n",
    "imported": "X = 1\n",
}
LAZILY = """import importlib

MODULES = {"half": "halves"}


def __getattr__(name):
    return getattr(importlib.import_module(f"pack.lazily.{MODULES[name]}"), name)
"""
CACHED = (fingerprint._digest, code_files.code_path, code_files.files_beside, code_files._words)


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "pack"
    for name, text in FILES.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(code_files, "ROOT", tmp_path)
    yield folder
    forget()


def forget():
    """Forget what was read, as a fresh process would."""
    for cached in CACHED:
        cached.cache_clear()
    reach._modules.clear()


def stage_digest(*plugins):
    forget()
    return fingerprint.source_digest("pack.stage", *plugins)


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("stage", "  # a comment", "  # another comment"),
        ("stage", '"""A stage."""', '"""Something else\n\n    at length."""'),
        ("stage", '    """Run it."""\n', ""),
        ("stage", "helper.half(step), Params()", "\n            helper.half(step),\n Params(),"),
        ("helper", "def half", "\n\n\ndef half"),
        ("deeper", "TABLE", "'Numbers.'\nTABLE"),
        ("stage", "; give a positive number", "; give another"),
        ("stage", 'raise ValueError(f"{reason}; give a positive number")', "raise ValueError"),
        ("stage", "give a positive number\")", 'give a positive number") from None'),
        ("stage", 'reason = f"{cut(str(x))} is negative"', 'reason = "wrong"'),
        ("stage", '    log.info("%s: %d digits", what, count)\n', ""),
        ("stage", '"%s: %d digits", what, count', '"%d digits of %s", count, what'),
        ("stage", "count = len(str(x))\n    log.info(\"%s: %d digits\", what, count)",
         "digits = len(str(x))\n    log.warning(\"%s: %d digits\", what, digits)"),
        ("stage", "    total = 0.0\n", "    total = 0.0\n    if x:\n        log.info('it')\n"),
        ("stage", '"too large"', '"much too large"'),
        ("stage", 'f"run {strategy.LABEL}"', 'f"running {strategy.LABEL}"'),
        ("stage", 'unit="step"', 'unit="round"'),
        ("stage", "x: int, parameter: \"Kind\" = 3) -> float", "x, parameter=3)"),
        ("stage", "import Kind", "import Kind as Sort"),
        ("stage", 'help="a number"', 'help="a whole number", metavar="X"'),
        ("stage", 'description="A stage."', 'description="The stage."'),
        ("stage", "return 1\n", "return 2\n"),
        ("stage", "    for step in progress(range(x)", "    for at in progress(range(x)"),
        ("annotated", "int", "float"),
        ("strategies/one", 'LABEL = "One"', 'LABEL = "First"'),
        ("strategies/one", "def unused(x):\n    return x", "def unused(x):\n    return 2 * x"),
        ("deep", 'description="Factor."', 'description="A factor."'),
        ("deep", "ge=0", "gt=0, le=9"),
        ("deep", "width: int", "width: float"),
        ("deep", "return 1", "return 2"),
        ("lazy", "THREE = 3", "THREE = 4"),
        ("core/errors", "200", "100"),
        ("helper", 'return f"{x} is odd"', 'return "odd"'),
        ("imported", "X = 1", "X = 2"),
        ("stage", "import argparse\nimport logging", "import logging\nimport argparse"),
        ("stage", "import helper, plugins", "import plugins, helper"),
        ("stage", "from pack.core.errors import cut", "from pack.core.errors import cut, cut as c"),
        ("refusals", '"is odd"', '"is not even"'),
        ("refusals", '"give another"', '"give one more"'),
        ("refusals", "is low", "is too low"),
        ("strategies/__init__", "LABEL: str", "LABEL: str\n    PER: int"),
        ("strategies/__init__", "NESTED: bool", "NESTED: int"),
        ("strategies/__init__", "x: int) -> int", "x, y)"),
        ("strategies/__init__", '"Rank."', "..."),
        ("strategies/__init__", "if not hasattr", "if hasattr"),
    ],
)  # fmt: skip
def test_what_changes_no_number_keeps_the_digest(package, file, old, new):
    before = stage_digest("pack.strategies.one")
    change(package / f"{file}.py", old, new)
    if "for at" in new:
        change(package / "stage.py", "helper.half(step)", "helper.half(at)")
    assert stage_digest("pack.strategies.one") == before


def test_a_touched_file_keeps_the_digest(package):
    before = stage_digest()
    for path in package.iterdir():
        os.utime(path, (1, 1))
    assert stage_digest() == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("stage", "x < 0", "x < 1"),
        ("stage", "raise ValueError", "raise TypeError"),
        ("stage", 'raise ValueError(f"{reason}; give a positive number")', "x = 0"),
        ("stage", "total += twice", "total -= twice"),
        ("stage", "assert x < 9", "assert x < 8"),
        ("stage", '"Kind" = 3', '"Kind" = 4'),
        ("stage", "default=1", "default=2"),
        ("stage", "type=int", "type=float"),
        ("stage", "range(x)", "range(x + 1)"),
        ("stage", "total = 0.0", "total = 0"),
        ("stage", 'log.info("%s: %d digits", what, count)', 'log.info("%d", next(items))'),
        ("stage", "return items", "return list(items)[1:]"),
        ("helper", "/ TWO", "// TWO"),
        ("lazy", "TWO = 2", "TWO = 2.0"),
        ("helper", 'return "a"', 'return "b"'),
        ("helper", "if x % 2:", "if x % 3:"),
        ("deep", "Field(2.0", "Field(3.0"),
        ("deep", "factor: float", "factor: int"),
        ("deep", "class Params(BaseModel):", "class Params(BaseModel, frozen=True):"),
        ("deep", "return self.width", "return self.width + 1"),
        ("deep", "params.factor * x", "params.factor + x"),
        ("deeper", '"two": 2', '"two": 3'),
        ("strategies/one", "return x", "return x + 1"),
        ("__init__", "", "import warnings\n\nwarnings.simplefilter('error')\n"),
        ("deeper", "TABLE", "VERSION = 2\nTABLE"),
        ("storage/__init__", "VERSION = 1", "VERSION = 2"),
        ("helper", "def half", "ANOTHER = 1\n\n\ndef half"),
        (
            "stage",
            "import Model, Params, twice",
            "import Model, Params, twice as other, other as twice",
        ),
        ("stage", "from pack.refusals import check", "from math import floor as check"),
        ("refusals", "view += 1", "view += 2"),
        ("refusals", "x[0]", "x[1]"),
        ("refusals", '{"odd":', '{"even":'),
        ("refusals", 'KEYS["a"]', 'KEYS["b"]'),
        ("refusals", "check_file(x,", "check_file(x + 1,"),
        ("refusals", "raise ValueError", "return"),
        ("stage", "total += twice(helper.half(step), Params())", "break"),
        ("strategies/__init__", "NESTED: bool = True", "NESTED: bool = False"),
        ("strategies/one", "def unused", "def other"),
        ("strategies/__init__", '"Rank."', '"Rank."\n        return x'),
        ("strategies/__init__", "else Strategy", "else object"),
    ],
)
def test_what_may_change_a_number_changes_the_digest(package, file, old, new):
    before = stage_digest("pack.strategies.one")
    change(package / f"{file}.py", old, new)
    assert stage_digest("pack.strategies.one") != before


MAIN = "if __name__ == '__main__':\n    C()\n"
FIRST, SECOND = (f"def f():\n    return {number}\n\n" for number in (1, 2))
CHECKING = "def f():\n    if TYPE_CHECKING:\n        x = 1\n    else:\n        x = {}\n    return x"
FIELDS = "@dataclass\nclass C:\n    {}\n    x: {}"
READ = """from dataclasses import dataclass, InitVar, KW_ONLY
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    pass
"""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("else:\n    TWO = 2", "else:\n    TWO = 3"),
        (CHECKING.format(2), CHECKING.format(3)),
        (FIRST + SECOND, SECOND + FIRST),
        ("TWO = 1\nTWO = 2", "TWO = 2\nTWO = 1"),
        (FIELDS.format("_: KW_ONLY", "int"), FIELDS.format("_: int", "int")),
        (FIELDS.format("y: int", "InitVar[int]"), FIELDS.format("y: int", "int")),
    ],
    ids=["else of checking", "inner else", "functions", "constants", "keywords", "of __init__"],
)
def test_what_python_takes_differently_has_another_digest(package, one, other):
    found = []
    for code in (one, other):
        uses = "".join(f"\nprint({name})" for name in ("TWO", "f", "C") if name in code)
        (package / "stage.py").write_text(f"{READ}{code}\n{uses}\n")
        found.append(stage_digest())
    assert found[0] != found[1]


@pytest.mark.parametrize(
    "code",
    [
        "import pack.helper\npack.helper.half(1)",
        "import pack.helper as h\nh.half(1)",
        "from pack import helper as h\nh.half(1)",
        "from pack.helper import half\nhalf(1)",
        "from pack.helper import half as h\nh(1)",
        "from . import helper\nhelper.half(1)",
        "from .helper import half\nhalf(1)",
        "from pack.helper import *\nhalf(1)",
        "from pack.sub import helper\nhelper(1)",
        "from pack.sub.inner import h\nh(1)",
        "def f():\n    from pack import helper\n    return helper.half(1)\nf()",
        "def f(module):\n    return module.half(1)\n\nfrom pack import helper\nf(helper)",
        "from pack import helper\ngetattr(helper, 'half')(1)",
        "from pack import helper\nNAMES = ['half']\n[getattr(helper, name) for name in NAMES]",
        "try:\n    from pack.helper import half\nexcept ImportError:\n    half = abs\nhalf(1)",
        "from pack import helper\nTABLE = {'a': helper.half}\nTABLE['a'](1)",
        "from pack import helper\nhalf = lambda x, h=helper.half: h(x)\nhalf(1)",
        "from pack.helper import half\n\nclass C:\n    def __call__(self):\n        half(1)\nC()()",
        "from pack.helper import half\n\nclass C:\n    def m(self):\n        half(1)\nC().m()",
        "from pack.helper import half\n\nclass C(list):\n    def hook(self):\n        half(1)\nC()",
        "from pack.helper import half\n\nclass A:\n    def run(self):\n        self.m()\n\n"
        "class C(A):\n    def m(self):\n        half(1)\nC().run()",
        "from pack.sub import Hooked, helper\n\nclass C(Hooked):\n    def hook(self):\n"
        "        helper(1)\nC()",
        "from pack.helper import half\n\n@print\ndef registered():\n    half(1)",
        "import sys\nimport subprocess\nsubprocess.run([sys.executable, '-m', 'pack.helper'])",
        "from pack import helper\nfor name in vars(helper):\n    print(name)",
        "from pack.lazily import half\nhalf(1)",
    ],
)
def test_whatever_way_a_function_is_reached_it_counts(package, code):
    (package / "sub").mkdir()
    (package / "sub" / "__init__.py").write_text(
        "from ..helper import half as helper\n\n\nclass Hooked(list):\n    pass\n"
    )
    (package / "sub" / "inner.py").write_text("from . import helper as h\n")
    (package / "lazily").mkdir()
    (package / "lazily" / "__init__.py").write_text(LAZILY)
    (package / "lazily" / "halves.py").write_text("from ..helper import half\n")
    (package / "stage.py").write_text(code)
    before = stage_digest()
    change(package / "helper.py", "/ TWO", "// TWO")
    assert stage_digest() != before


def test_a_method_that_nothing_calls_does_not_count_unless_a_library_may_call_it(package):
    (package / "base.py").write_text(
        "class Own:\n    def run(self):\n        return 1\n\n\nclass Hooked(list):\n    pass\n"
    )
    same = {}
    for base in ("Own", "base.Own", "Hooked", "list"):
        imports = "from pack import base\nfrom pack.base import Hooked, Own\n"
        code = f"{imports}\n\nclass C({base}):\n    def hook(self):\n        return 1\n\n\n{MAIN}"
        digests = set()
        for text in (code, code.replace("return 1", "return 2")):
            (package / "stage.py").write_text(text)
            digests.add(stage_digest())
        same[base] = len(digests) == 1
    assert same == {"Own": True, "base.Own": True, "Hooked": False, "list": False}


def test_all_plugins_of_a_folder_count_unless_some_are_named(package):
    every, one = stage_digest(), stage_digest("pack.strategies.one")
    change(package / "strategies" / "two.py", "return -x", "return x")
    assert stage_digest() != every
    assert stage_digest("pack.strategies.one") == one


def test_all_entries_of_a_mapping_count_unless_some_are_named(package):
    entries = "ONE = 1\nTWO = 2\nTABLE = {'one': ONE, 'two': TWO}\n"
    (package / "entries.py").write_text(entries)
    (package / "stage.py").write_text("from pack.entries import TABLE\nTABLE['one']")
    named = [f"pack.entries.TABLE[{name}]" for name in ("one", "two")]
    before = [stage_digest(), *map(stage_digest, named)]
    for old, new, same in (("= 2", "= 3", 1), ("'two'", "'three'", 1), ("= 1", "= 5", 2)):
        change(package / "entries.py", old, new)
        after = [stage_digest(), *map(stage_digest, named)]
        assert [one == other for one, other in zip(before, after, strict=True)] == [
            at == same for at in range(3)
        ]
        (package / "entries.py").write_text(entries)


def test_labels_and_descriptions_count_for_pages_alone(package):
    def digests():
        forget()
        names = ("pack.stage", "pack.strategies.one")
        return fingerprint.source_digest(*names), fingerprint.page_digest(*names)

    for file, old, new in (
        ("strategies/one", '"One"', '"First"'),
        ("deep", '"Factor."', '"A factor."'),
    ):
        before = digests()
        change(package / f"{file}.py", old, new)
        numbers, page = digests()
        assert numbers == before[0]
        assert page != before[1]


def test_a_file_beside_the_code_counts_where_it_is_named(package):
    (package / "table.csv").write_text("1")
    (package / "other.csv").write_text("1")
    (package / "stage.py").write_text("open('table.csv')")
    before = stage_digest()
    (package / "other.csv").write_text("2")
    assert stage_digest() == before
    (package / "table.csv").write_text("2")
    assert stage_digest() != before


def test_modules_that_import_each_other_have_a_digest(package):
    change(package / "deeper.py", "TABLE", "from pack import stage\n\nTABLE")
    before = stage_digest()
    assert len(before) == 16
    change(package / "deeper.py", "2", "4")
    assert stage_digest() != before


def test_several_modules_have_one_digest_whatever_their_order(package):
    names = ("pack.stage", "pack.imported")
    assert fingerprint.source_digest(*names) == fingerprint.source_digest(*reversed(names))
    assert fingerprint.source_digest(*names) != fingerprint.source_digest("pack.stage")


def test_an_unknown_module_is_refused(package):
    with pytest.raises(ModuleNotFoundError, match="pack.nowhere is not a module"):
        fingerprint.source_digest("pack.nowhere")


@pytest.mark.parametrize("page", [False, True])
def test_a_record_tells_whether_its_code_has_changed(package, page):
    record = fingerprint.code_record("pack.stage", "pack.strategies.one", page=page)
    assert not fingerprint.is_outdated(record)
    change(package / "strategies" / "one.py", '"One"', '"First"')
    forget()
    assert fingerprint.is_outdated(record) == page
    change(package / "lazy.py", "2", "3")
    forget()
    assert fingerprint.is_outdated(record)
    (package / "stage.py").unlink()
    forget()
    assert fingerprint.is_outdated(record)


@pytest.fixture
def derived(package, monkeypatch):
    """Return a function that lists what is derived for a digest when a file keeps digests."""
    monkeypatch.setattr(fingerprint, "ROOT", package.parent)
    monkeypatch.setattr(fingerprint, "__name__", "pack.caching.fingerprint")

    def walks():
        forget()
        calls = []
        with monkeypatch.context() as patch:
            patch.setattr(fingerprint, "_known", [])
            patch.setattr(fingerprint, "Reach", lambda *a, **k: calls.append(a) or Reach(*a, **k))
            fingerprint.remember(package.parent / "kept" / "digests.json")
            digest = fingerprint.source_digest("pack.stage")
            fingerprint._known[0].keep()  # as at the end of the process
        assert digest == stage_digest()
        return calls

    return walks


def test_a_kept_digest_is_derived_again_when_a_byte_of_the_code_has_changed(derived, package):
    assert derived()
    assert not derived()
    change(package / "deeper.py", "2", "4")
    assert derived()
    assert not derived()
    (package / "table.csv").write_text("1")  # a file beside the code
    assert derived()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"code": 1}', "\xff"])
def test_kept_digests_that_cannot_be_read_are_derived_again(derived, package, text):
    derived()
    (package.parent / "kept" / "digests.json").write_text(text, encoding="latin-1")
    assert derived()
    assert not derived()


def test_kept_digests_are_of_one_kind_of_digest_alone(package, monkeypatch):
    monkeypatch.setattr(fingerprint, "_known", [])
    monkeypatch.setattr(fingerprint, "ROOT", package.parent)
    fingerprint.remember(package.parent / "digests.json")
    names = ("pack.stage", "pack.strategies.one")
    both = [fingerprint.source_digest(*names), fingerprint.page_digest(*names)]
    forget()
    assert both == [fingerprint.source_digest(*names), fingerprint.page_digest(*names)]
    assert len(set(both)) == 2


def test_a_files_digest_is_its_sha256(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1000)
    assert file_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_digest_is_the_same_in_every_process():
    """Python orders sets by a seed of the process; a digest that followed it would rerun jobs."""
    stages = ["report.methods", "report.single_questions", "figures.kept_tokens", "infer", "score"]
    code = (
        "import sys\n"
        "from prunecal.caching.fingerprint import page_digest, source_digest\n"
        "names = [f'prunecal.{name}' for name in sys.argv[1:]]\n"
        "print([digest(name) for name in names for digest in (page_digest, source_digest)])\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code, *stages],
            env=os.environ | {"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(code_files.ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(4)
    }
    assert len(said) == 1
