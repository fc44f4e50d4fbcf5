"""Text from data, results and settings comes out of every page as text, whatever it holds."""

import base64
import csv
import zlib
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from helpers.hostile_study import EVIL, EVIL_NAME, blocks, study, write
from helpers.markup import Page
from helpers.plugin_texts import PLUGINS, settings_with
from helpers.stages import define, write_first_page, write_single_questions
from prunecal.figures import pooling
from prunecal.report import all_cells, html
from prunecal.report.studies import findings
from prunecal.statistics.tables import write_csv
from prunecal.study.settings import Study

REPORTS = Path(__file__).parents[2] / "reports"
SEPARATORS = "\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"  # each starts a line for str.splitlines
DIRECTIVE = "\n\n.. raw:: html\n\n   <script>alert(1)</script>\n\n.. include:: /etc/passwd\n\n"


def test_every_text_of_the_settings_that_is_free_is_changed():
    changed = study(lambda text: f"{text} {EVIL}")
    values = [
        (name, " ".join(value) if isinstance(value, dict | list) else str(value))
        for block, _ in blocks(Study, changed)
        for name, value in block.items()
        if name not in ("models", "datasets", "imported", "strategies", "budgets", "expect")
    ]
    free = {name for name, value in values if EVIL in value}
    assert {"title", "path", "source", "subset", "file", "parameters"} <= free
    assert ("family", EVIL_NAME) in values
    for name, loader in PLUGINS:
        given = settings_with(name, loader, "x")[0] if name == "datasets" else {}
        assert given.keys() <= free


def test_plugins_other_than_loaders_take_no_free_text():
    others = [plugin for plugin in PLUGINS if plugin[0] != "datasets"]
    assert [plugin for plugin in others if settings_with(*plugin, EVIL)[0]] == []


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write(tmp_path_factory.mktemp("plain"), lambda text: f"{text} x")


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    return write(tmp_path_factory.mktemp("evil"), lambda text: f"{text} {EVIL}")


def past(results, folder):
    define(results, folder)
    return (folder / "provenance.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("make", [write_first_page, write_single_questions, define, past])
def test_a_page_has_the_same_elements_whatever_its_texts_hold(make, plain, evil, tmp_path):
    expected, found = (Page(make(results, tmp_path)) for results in (plain, evil))
    assert found.elements == expected.elements
    assert EVIL in found.text


def rates_of(model):
    """Return provenance.csv of a model of which operations per token are known."""
    rows = {"model": [model], "decoder_gflop_per_prompt": [4.0], "visual_tokens_per_layer": [2.0]}
    return pd.DataFrame(rows)


@pytest.mark.parametrize("column", ["model", "dataset", "subset", "strategy"])
def test_the_table_of_all_cells_has_the_same_elements(column, plain):
    metrics = pooling.read(plain / "metrics.parquet")
    changed = metrics.assign(**{column: metrics[column] + EVIL})
    shown = [
        all_cells.every_cell(one) | all_cells.explorer(one, provenance) | {"bundle": "let vega;"}
        for one, provenance in ((metrics, rates_of("toy-llava")), (changed, rates_of(EVIL)))
    ]
    texts = [html.render("cells", title="All cells", **values) for values in shown]
    pages, found = [*map(Page, texts)], shown[1]
    assert pages[0].elements == pages[1].elements
    # what the script unpacks it writes as text; strategies are shown by name
    text = zlib.decompress(base64.b64decode(found["packed"])).decode()
    assert (EVIL in text.split("\n")[0]) == (column != "strategy")
    assert "innerHTML" not in texts[1]
    assert EVIL not in texts[1]  # but escaped within scripts
    evil_name = f"{found['strategies'][0]['name']}{EVIL}"  # of the chart's legend
    more = found | {"strategies": [found["strategies"][0] | {"name": evil_name}]}
    page = Page(html.render("cells", title="All cells", **more))
    assert page.elements == pages[0].elements


def test_the_comparison_of_two_studies_has_the_same_elements():
    row = {"effect": "pruning", "metric": "ece", "p_adjusted": 0.01, "share": 0.5, "paired": True}
    row |= dict.fromkeys(("in_a", "in_b", "interaction", "ci_low", "ci_high"), 0.1)
    pages = [
        Page(
            html.render("studies", title="Two", findings=findings([row | names]), figure=b"<svg/>")
        )
        for names in (dict.fromkeys(("a", "b", "strategy"), text) for text in ("x", EVIL))
    ]
    assert pages[0].elements == pages[1].elements
    assert EVIL in pages[1].text


class Closed:
    """Stands for the settings: whoever reads any of them fails."""

    def __getattr__(self, name):
        raise AssertionError(f"a caption reads {name!r} of the settings")

    __getitem__ = __getattr__


def published(name, monkeypatch, config=REPORTS / "docutils.conf", **values):
    """Return a text of the report as Snakemake makes HTML of it, by the report's own settings."""
    from docutils.core import publish_parts
    from docutils.writers import get_writer_class
    from jinja2 import Environment

    if config:
        monkeypatch.setenv("DOCUTILSCONFIG", str(config))
    text = (REPORTS / name).read_text(encoding="utf-8")
    environment = Environment(trim_blocks=True, lstrip_blocks=True)  # noqa: S701  Snakemake's own
    text = environment.from_string(text).render(values)
    return publish_parts(text, writer=get_writer_class("html")())["html_body"]


@pytest.mark.parametrize("path", sorted((REPORTS / "captions").glob("*.rst")), ids=lambda p: p.stem)
def test_a_caption_shows_names_alone_and_as_text(path, monkeypatch):
    name = "a.b_c-_"  # letters, digits and these: all that names of models and data sets may hold
    names = SimpleNamespace(**dict.fromkeys(("model", "dataset", "strategy", "parameter"), name))
    snakemake = SimpleNamespace(config=Closed(), wildcards=names)
    shown = published(f"captions/{path.name}", monkeypatch, snakemake=snakemake)
    assert "system-message" not in shown
    assert "<a " not in shown
    assert ("wildcards" in path.read_text(encoding="utf-8")) == (name in Page(shown).text)


@pytest.mark.parametrize("separator", SEPARATORS)
def test_no_text_of_the_first_page_becomes_a_directive(separator, tmp_path, monkeypatch):
    text = DIRECTIVE.replace("\n", separator)
    path = tmp_path / "summary.html"
    html.write(path, "studies", title=text, findings={text: [text]}, figure=b"<svg/>")
    file = SimpleNamespace(target="summary.html", path=path)
    shown = published("workflow.rst", monkeypatch, files=[file])
    page = Page(shown)
    kinds = [element[0] for element in page.elements]
    assert "script" not in kinds
    assert kinds.count("h2") == 1
    assert page.text.count(".. include:: /etc/passwd") == 4  # title twice, heading, sentence
    assert "system-message" not in shown
    assert "root:" not in page.text


def test_a_long_line_does_not_hide_the_first_page(tmp_path, monkeypatch):
    path = tmp_path / "summary.html"
    html.write(path, "studies", title="a" * 20_000, findings={}, figure=b"<svg/>" * 10_000)
    file = SimpleNamespace(target="summary.html", path=path)
    shown = published("workflow.rst", monkeypatch, files=[file])
    assert "a" * 20_000 in shown
    monkeypatch.delenv("DOCUTILSCONFIG")  # as `snakemake --report FILE` alone
    html.write(path, "studies", title="short", findings={}, figure=b"<svg/>" * 10_000)
    assert "<h1>short</h1>" in published("workflow.rst", monkeypatch, config=None, files=[file])


def test_captions_can_insert_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCUTILSCONFIG", str(REPORTS / "docutils.conf"))
    from docutils.core import publish_parts

    (tmp_path / "secret.txt").write_text("a secret")
    for directive in (
        ".. include:: {}", ".. raw:: html\n   :file: {}", ".. csv-table::\n   :file: {}",
        ".. literalinclude:: {}",
    ):  # fmt: skip
        text = directive.format(tmp_path / "secret.txt")
        parts = publish_parts(text, writer="html", settings_overrides={"report_level": 5})
        assert "a secret" not in parts["html_body"]


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1+cmd|' /C calc'!A0", "-2", "@SUM(1)"])
def test_a_text_that_a_spreadsheet_computes_is_unchanged_in_csv(tmp_path, text):
    rows = [{"subset": text, "statement": f"{text}, {EVIL}", "value": 0.5}]
    write_csv(tmp_path / "table.csv", rows, ["subset", "statement", "value"])
    (row,) = csv.DictReader((tmp_path / "table.csv").read_text(encoding="utf-8").splitlines())
    assert row == {"subset": text, "statement": f"{text}, {EVIL}", "value": "0.5"}
