import re

import pytest

from helpers.pages import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
LINK = re.compile(r"\]\((?!https?:)([^)\s]*)\)")
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def anchors(page):
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page):
    for target in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {path}, which does not exist"
        assert not anchor or anchor in anchors(linked), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_a_page_names_exists(page):
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    named = re.findall(
        r"`((?:workflow|rules|tests|docs|envs|profiles|studies)/[\w./-]+\.\w+)`", text
    )
    introduced = re.findall(r"`([^`]+)`:\s*$", page.read_text(encoding="utf-8"), re.MULTILINE)
    missing = [path for path in named if not (ROOT / path).exists() and path not in introduced]
    assert not missing, f"{page.name} names {missing}"
