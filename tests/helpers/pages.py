"""The code blocks of a documentation page, and a copy of the project in which to run them.

A block whose last sentence of introduction names a file in backticks and ends in a colon is that
file: it is created, appended ("At the end of `f`:") or inserted ("In `f`, before `line`:"). Other
`bash` and `python` blocks are run, `python` blocks with only `text` between them in one session;
each line of a `text` block must be in what the block before it printed.
"""

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "config.yaml", "pyproject.toml", "rules", "profiles", "workflow")
PARTS += ("envs", "reports", "tests")
NEXT = "-- next block --"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(
    r"(?P<end>At\s+the\s+end\s+of\s+)?`(?P<path>[\w./-]+\.\w+)`"
    r"(?:,\s+before\s+`(?P<before>[^`]+)`)?:\s*\Z"
)


class Block(NamedTuple):
    language: str
    text: str
    introduction: str


def blocks(page):
    """Return a page's code blocks in order, each with the text between it and the block before."""
    text, last, found = page.read_text(encoding="utf-8"), 0, []
    for fence in FENCE.finditer(text):
        found.append(Block(fence[1], fence[2], text[last : fence.start()]))
        last = fence.end()
    return found


def copy_project(folder, results):
    """Copy the project's code and some finished results into a new folder."""
    for part in PARTS:
        if (ROOT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.html")
            shutil.copytree(ROOT / part, folder / part, ignore=ignored)
        else:
            shutil.copy(ROOT / part, folder / part)
    shutil.copytree(results, folder / "results")


def follow(page, folder, without=()):
    """Do what a page says, in `folder`; fail with the output of a command that fails.

    Args:
        page: the page.
        folder: from `copy_project`.
        without: modules that bash commands cannot import.
    """
    printed, absent, session = "", folder / "absent", []
    for name in without:
        absent.mkdir(exist_ok=True)
        (absent / f"{name}.py").write_text(f"raise ImportError('{name} is not installed')")
    given = blocks(page)
    for place, block in enumerate(given):
        if block.language == "text":
            missing = [line for line in block.text.splitlines() if line.strip() not in printed]
            assert not missing, f"{page.name} promises {missing}; printed was:\n{printed}"
        elif file := FILE.search(block.introduction):
            _write(folder / file["path"], block.text, file["end"], file["before"])
        elif block.language == "bash":
            printed = run(block, folder, [absent])
        elif block.language == "python":
            session = session or _session(given[place:], folder)
            printed = session.pop(0)


def _session(given, folder):
    """Run the Python blocks up to the first of another kind; return what each of them printed."""
    kinds = itertools.takewhile(lambda block: block.language in ("python", "text"), given)
    texts = [block.text for block in kinds if block.language == "python"]
    script = Block("python", f"\nprint({NEXT!r})\n".join(texts), "")
    return run(script, folder).split(f"{NEXT}\n")


def run(block, folder, first=()):
    """Run a block of bash or Python, with folders to import from first; return what it printed."""
    program = ["bash", "-euc"] if block.language == "bash" else [sys.executable, "-c"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    places = os.pathsep.join(map(str, [*first, folder / "workflow"]))
    done = subprocess.run(
        [*program, block.text],
        cwd=folder,
        env=os.environ | {"PATH": path, "PYTHONPATH": places},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{block.text}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def _write(path, text, at_end, before):
    path.parent.mkdir(parents=True, exist_ok=True)
    if at_end:
        text = f"{path.read_text(encoding='utf-8')}\n\n{text}"
    elif before:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        [at] = [at for at, line in enumerate(lines) if line.strip().startswith(before)]
        text = "".join([*lines[:at], text, *lines[at:]])
    else:
        assert not path.exists(), f"{path.name} exists already"
    path.write_text(text, encoding="utf-8")
