"""Text from data, results and settings comes out of every page as text, whatever it holds."""

from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from helpers import synthetic_results
from helpers.stages import define, run, write_first_page
from prunecal.figures import pooling
from prunecal.report import html, single_questions, tables
from prunecal.report.studies import findings
from prunecal.storage import files

EVIL = "</td></script><script>alert('x')</script><img src=x onerror=\"alert(1)\"><!-- &lt;&amp ' \""
SETTINGS = synthetic_results.study(
    ["full", "saliency", {"strategy": "scope", "alpha": [0.0, 1.0]}], [4, 8]
)
CAPTIONS = [
    path
    for path in sorted((Path(__file__).parents[2] / "reports" / "captions").glob("*.rst"))
    if "{{" in path.read_text(encoding="utf-8")
]


class Page(HTMLParser):
    """Keeps a page's elements with the names of their attributes, and its text, in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, *sorted(name for name, _ in attributes)))

    def handle_comment(self, _):
        self.elements.append("comment")

    def handle_data(self, data):
        self.text += data


def spoil_table(path, names, change):
    """Change the texts in some columns of a parquet file, within lists too."""
    table, facts = files.read_table(path), files.read_facts(path)
    for name in set(names) & set(table.column_names):
        values = table.column(name).to_pylist()
        new = [[*map(change, one)] if isinstance(one, list) else change(one) for one in values]
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(new, table.schema.field(name).type))
    files.write_table(path, table, facts)


def write(folder, change):
    """Write a made-up study with all its texts changed."""
    results = synthetic_results.write(folder, SETTINGS)
    synthetic_results.write_sources(results)
    asked = ("question_id", "image_id", "subset", "text", "options")
    for path in results.rglob("*.parquet"):
        if path.name in ("questions.parquet", "images.parquet", "predictions.parquet"):
            spoil_table(path, asked, change)
    for path in results.rglob("ranking.safetensors"):
        file = files.open_arrays(path)
        facts = files.array_facts(file)
        facts["image_id"] = [*map(change, facts["image_id"])]
        files.write_arrays(path, {"order": file.get_tensor("order")}, facts)
    study = files.read_json(results / "study.json")
    study["title"] = change(study["title"])
    study["models"][0]["path"] = change(study["models"][0]["path"])
    files.write_json(results / "study.json", study)
    claims = files.read_json(results / "claims.json")
    for claim in claims:
        claim["id"], claim["statement"] = change(claim["id"]), change(claim["statement"])
        claim["evidence"]["words"] = [*map(change, claim["evidence"]["words"])]
    files.write_json(results / "claims.json", claims)
    for path in results.rglob("provenance.json"):
        note = files.read_json(path)
        changed = {key: change(note[key]) for key in ("device", "platform")}
        versions = {name: change(number) for name, number in note["versions"].items()}
        files.write_json(path, note | changed | {"versions": versions})
    return results


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write(tmp_path_factory.mktemp("plain"), lambda text: f"{text} x")


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    return write(tmp_path_factory.mktemp("evil"), lambda text: f"{text} {EVIL}")


def write_single_questions(results, folder):
    cells = results / synthetic_results.MODEL
    run(
        single_questions,
        predictions=sorted(cells.glob("*/*/*/predictions.parquet")),
        rankings=sorted(cells.glob("*/*/ranking.safetensors")),
        questions=sorted(results.glob("datasets/*/questions.parquet")),
        images=sorted(results.glob("datasets/*/images.parquet")),
        output=folder / "page.html",
    )
    return (folder / "page.html").read_text(encoding="utf-8")


def past(results, folder):
    define(results, folder)
    return (folder / "provenance.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("make", [write_first_page, write_single_questions, define, past])
def test_a_page_has_the_same_elements_whatever_its_texts_hold(make, plain, evil, tmp_path):
    expected, found = (Page(make(results, tmp_path)) for results in (plain, evil))
    assert found.elements == expected.elements
    assert EVIL in found.text


@pytest.mark.parametrize("column", ["model", "dataset", "subset", "strategy"])
def test_the_table_of_all_cells_has_the_same_elements(column, plain):
    metrics = pooling.read(plain / "metrics.parquet")
    changed = metrics.assign(**{column: metrics[column] + EVIL})
    expected, found = (
        Page(html.render("cells", title="All cells", **tables.every_cell(frame)))
        for frame in (metrics, changed)
    )
    assert found.elements == expected.elements
    assert EVIL in found.text


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


@pytest.mark.parametrize("path", CAPTIONS, ids=lambda path: path.stem)
def test_a_caption_of_the_report_has_the_same_elements(path):
    from docutils.core import publish_parts
    from docutils.writers import get_writer_class
    from jinja2 import Template

    pages = []
    for text in ("x", EVIL):
        given = dict.fromkeys(("model", "dataset", "strategy", "parameter"), text)
        snakemake = SimpleNamespace(config={"title": text}, wildcards=SimpleNamespace(**given))
        caption = Template(path.read_text(encoding="utf-8")).render(snakemake=snakemake)
        writer = get_writer_class("html")()  # as Snakemake makes pages of them
        pages.append(Page(publish_parts(caption, writer=writer)["body"]))
    assert pages[0].elements == pages[1].elements
    assert "<script>" in pages[1].text
