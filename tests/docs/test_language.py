"""The words of the project: phrases that are not the field's English, each with a better one."""

import re

import pytest

from helpers.pages import ROOT

BETTER = {
    r"make (?:it|them|the file|this cell) again": "delete FILE and run snakemake again",
    r"; (?:infer|rank|encode) (?:(?:it|this cell) )?again": "a command, as above",
    r"stands? there\b": "is, or is defined",
    r"\banew\b": "again, or re- (recompute, rewrite)",
    r"half a character": "an unpaired surrogate (invalid Unicode)",
    r"\bwhoever\b": "any library, any user",
    r"\bwas due\b": "expected A, got B",
    r"leads? out of (?:its|the) folder": "escapes its folder (path traversal)",
    r"\bspeaks? of\b": "is about, names",
    r"may be chance": "not significant",
    r"held against": "compared with, checked against",
    r"is no (?:study|score file|image|file|folder|table|list|mapping|number)\b": "is not a",
    r"\bat hand\b": "available, given",
    r"\bstrangers?\b": "untrusted sources",
    r"by its words alone": "lexically",
    r"beside it says": "its provenance.json says",
}
TEXTS = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("reports/**/*.rst"),
    *ROOT.glob("workflow/**/*.py"),
    *ROOT.glob("workflow/**/*.j2"),
    *ROOT.glob("rules/*"),
    *ROOT.glob("studies/*.yaml"),
    ROOT / "config.yaml",
]


@pytest.mark.parametrize("phrase", BETTER)
def test_no_text_has_a_phrase_that_the_glossary_replaces(phrase):
    pattern = re.compile(rf"{phrase}".replace(" ", r"\s+"), re.IGNORECASE)
    places = [
        f"{path.relative_to(ROOT)}: {match[0]!r}"
        for path in TEXTS
        if path.is_file()
        for text in [path.read_text(encoding="utf-8")]
        for match in pattern.finditer(text)
    ]
    assert not places, f"write {BETTER[phrase]!r} instead of {phrase!r}: {', '.join(places)}"


def test_every_term_in_bold_in_the_readme_is_in_the_glossary():
    readme, glossary = (ROOT / name for name in ("README.md", "docs/glossary.md"))
    background = readme.read_text(encoding="utf-8").split("## Background")[1].split("\n## ")[0]
    terms = re.findall(r"\*\*(.+?)\*\*", background)
    assert len(terms) >= 6
    known = glossary.read_text(encoding="utf-8").lower()
    names = [re.sub(r"s?( [pα])?$", "", term.lower()) for term in terms]
    assert [name for name in names if name not in known] == []
