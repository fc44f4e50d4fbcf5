"""Every command that a page names could be run: modules, options, rules and files exist."""

import re
import shlex
from importlib.util import find_spec

import pytest
from snakemake.cli import get_argument_parser

from helpers.pages import ROOT, blocks

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "envs" / "README.md"]
COMMAND = re.compile(r"(?:\.venv/bin/|[A-Z_]+=\S+ )*(snakemake|python|make|pytest)\b(.*)")
CODE = "".join(path.read_text() for path in [ROOT / "Snakefile", *ROOT.glob("rules/*.smk")])
RULES = set(re.findall(r"^rule (\w+):", CODE, re.MULTILINE))
TARGETS = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def commands(page):
    """Return the commands of a page, in its text and its bash blocks: a program and its words."""
    text = page.read_text(encoding="utf-8")
    spans = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    lines = "".join(block.text for block in blocks(page) if block.language == "bash")
    spans += lines.replace("\\\n", " ").splitlines()
    parts = [" ".join(part.split()) for span in spans for part in re.split(r"&&|\|", span)]
    return [(match[1], match[2]) for part in parts if (match := COMMAND.fullmatch(part))]


def test_the_pages_name_commands_of_every_kind():
    named = [command for page in PAGES for command in commands(page)]
    assert {program for program, _ in named} == {"snakemake", "python", "make", "pytest"}
    assert len(named) > 80


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_names_could_be_run(page):
    text = page.read_text(encoding="utf-8")
    # files that the page has its reader make
    made = set(re.findall(r"`([\w./-]+)`(?:, before `[^`]+`)?:\s*$", text, re.MULTILINE))
    made |= set(re.findall(r"--study (\S+)", text))
    for program, rest in commands(page):
        words = shlex.split(rest, comments=True)
        missing = {name for name in needs(program, words) - made if not (ROOT / name).exists()}
        assert not missing, f"{page.name}: `{program}{rest}` needs {missing}"


def needs(program, words):
    """Return the files, rules and modules without which a command would fail."""
    if program == "make":
        return set(words) - set(TARGETS)
    if program == "pytest":
        return {word for word in words if word.startswith("tests/")}
    if program == "python" and words[:1] == ["-m"]:
        path = f"workflow/{words[1].replace('.', '/')}.py"
        return set() if "<" in path or find_spec(words[1]) else {path}
    if program == "python":
        return set(words[:1])
    options = get_argument_parser().parse_args(words)  # exits if an option is unknown
    targets = {target for target in options.targets or () if "/" not in target}
    free = options.dryrun or options.unlock or options.workflow_profile  # need no --cores
    cores = set() if free or "--cores" in words else {"--cores"}
    return {str(path) for path in options.configfile or ()} | targets - RULES | cores
