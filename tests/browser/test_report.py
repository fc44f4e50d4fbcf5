"""The report, made by the workflow's own rules from made-up results, opened in a browser."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from helpers import chromium, hostile_study, synthetic_results
from helpers.hostile_study import EVIL, EVIL_NAME
from helpers.programs import require
from prunecal.calibration.catalogue import metric_name
from prunecal.report import all_cells, html
from prunecal.storage import files

ROOT = Path(__file__).resolve().parents[2]
RULES = [
    "draw_budget",
    "draw_sweep",
    "draw_pareto",
    "draw_cost",
    "draw_forest",
    "draw_reliability",
    "draw_risk_coverage",
    "draw_kept_tokens",
    "mechanisms",
    "draw_explanations",
    "trust",
    "trust_page",
    "examples",
    "methods",
    "tables",
    "latex",
    "archive",
    "summary",
    "html_report",
]
SECRET = "a-token-that-lies-in-a-file"
TITLE = """A made-up study {{{{ braces }}}} {{}} {{title}} 100 % %s `link <javascript:alert(1)>`_

.. raw:: html

   <img src=x onerror="window.PWNED=1">

.. include:: {0}

.. csv-table::
   :file: {0}

"""
LARGEST = 7e6  # bytes of a report


@pytest.fixture(scope="module")
def program():
    """Chromium's path; every other fixture asks for it first."""
    return require("chromium", "chromium", "chromium-browser")


@pytest.fixture(scope="module")
def folder(program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "token").write_text(SECRET)
    results = hostile_study.write(folder, lambda text: f"{text} {EVIL}", read=True)
    settings = files.read_json(results / "study.json")
    settings["title"] = f"{TITLE.format(folder / 'token')}{EVIL}"
    files.write_json(results / "study.json", settings)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    shutil.copytree(ROOT / "reports", folder / "reports", ignore=shutil.ignore_patterns("*.html"))
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile"]
    command += ["--cores", "2", "--workflow-profile", "none", "--allowed-rules", *RULES]
    command += ["--configfile", "config.yaml", "--", "reports/report.html"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    made = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


@pytest.fixture(scope="module")
def browser(program):
    with chromium.browser(program) as page:
        yield page


@pytest.fixture
def page(browser, folder):
    browser.errors.clear()
    browser.requests.clear()
    browser.open(folder / "reports" / "report.html", 1280)
    browser.until("document.querySelector('.prose h1')")
    yield browser
    browser.run("new Promise(done => setTimeout(done, 100))")  # what is still to be said
    assert browser.errors == []
    outside = [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))]
    assert outside == []


def test_report_is_small_enough_to_send(folder):
    assert (folder / "reports" / "report.html").stat().st_size < LARGEST


def test_a_title_is_text_that_runs_and_reads_nothing(page, folder):
    assert ".. raw:: html" in page.run("document.querySelector('.prose h1').innerText")
    captions = page.run("Object.values(results).map(item => item.caption).join('')")
    assert "PWNED" not in captions
    assert "javascript:alert" not in captions
    read = "fetch(item.data_uri).then(response => response.text())"
    contents = page.run(f"Promise.all(Object.values(results).map(item => {read}))")
    assert any(".. include::" in content for content in contents)  # the first page
    report = (folder / "reports" / "report.html").read_text(encoding="utf-8")
    assert all(SECRET not in content for content in (report, *contents))
    assert page.run("window.PWNED === undefined")


PAGES = {  # texts of the study that each page shows
    "summary.html": [EVIL, EVIL_NAME],
    "examples.html": [EVIL, EVIL_NAME],
    "methods.html": [EVIL],
    "provenance.html": [EVIL],
    "trust.html": [EVIL_NAME],
    "tables/cells.html": [EVIL, EVIL_NAME],
}


@pytest.mark.parametrize("name", PAGES)
def test_every_text_of_settings_data_and_results_is_text_on_every_page(browser, folder, name):
    browser.errors.clear()
    browser.open(folder / "results" / name, 1280)
    if name.endswith("cells.html"):
        browser.run("ready")
        browser.run("explored.then(() => set(true)).then(() => null)")
    for text in PAGES[name]:
        assert browser.run(f"document.body.textContent.includes({json.dumps(text)})"), text
    assert browser.run("document.querySelectorAll('img[src=x], [href^=javascript]').length") == 0
    assert browser.errors == []


def test_tables_of_the_study_are_latex_that_reads_nothing(folder, tmp_path):
    pdflatex = require("texlive-latex-recommended", "pdflatex")
    used = r"\documentclass{article}\usepackage{booktabs,graphicx,pdflscape}\begin{document}"
    tables = sorted((folder / "results" / "tables").glob("*.tex"))
    texts = [path.read_text(encoding="utf-8") for path in tables]
    (tmp_path / "token.tex").write_text(SECRET)
    (tmp_path / "all.tex").write_text("\n\\clearpage\n".join([used, *texts, r"\end{document}"]))
    command = [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "-recorder", "all.tex"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert made.returncode == 0, made.stdout
    assert "token" not in (tmp_path / "all.fls").read_text()
    assert sum(r"\textbackslash{}input\{token\}" in text for text in texts) >= 8


def test_first_page_says_what_was_found_and_of_which_model(page):
    text = page.run("document.querySelector('.prose').innerText")
    assert "A made-up study" in text
    assert text.index("toy-llava") < text.index("Findings")
    assert "contradicted" in text
    assert page.run("document.querySelectorAll('.prose table').length") >= 4
    assert page.run("document.querySelector('.prose img').decode().then(() => true)")


def test_every_figure_and_table_loads(page):
    items = page.run("Object.entries(results).map(([path, item]) => [path, item.mime_type])")
    assert len(items) >= 14
    uris = page.run("Object.values(results).map(item => item.data_uri)")
    assert any(uri.startswith("blob:") for uri in uris)
    assert max(map(len, uris)) < 1e6  # of 2 MB of data, Chromium opens none
    for path, mime in items:
        if mime in ("image/svg+xml", "text/html"):
            kind = "img" if mime == "image/svg+xml" else "html"
            page.run(
                f"app.setView({{content: '{kind}', contentPath: results['{path}'].data_uri}}), 0"
            )
        if mime == "image/svg+xml":
            page.until(f"document.querySelector('.p-3 > img')?.src === results['{path}'].data_uri")
            assert page.run("document.querySelector('.p-3 > img').decode().then(() => true)"), path
            assert page.run("document.querySelector('.p-3 > img').naturalWidth") > 300, path
        elif mime == "text/html":
            page.until(f"document.querySelector('iframe')?.src === results['{path}'].data_uri")
            page.until_in_frame("document.body?.innerText.length > 100")
        else:
            size = f"fetch(results['{path}'].data_uri).then(r => r.text()).then(t => t.length)"
            assert page.run(size) > 100, path


def test_a_figure_is_enlarged_by_keyboard_and_every_link_has_a_name(page):
    first = "Object.values(results).find(item => item.mime_type === 'image/svg+xml')"
    page.until("document.querySelector('.vega-embed summary')?.ariaLabel")
    assert page.run("document.querySelector('.claims summary').ariaLabel === null")
    page.run("app.showCategory(Object.keys(categories)[0]), 0")
    page.run(f"app.setView({{content: 'img', contentPath: ({first}).data_uri}}), 0")
    figure = "document.querySelector('.p-3 > img[role=button]')"
    page.until(f"{figure}?.getAttribute('aria-label').includes(({first}).labels.figure)")
    while not page.run(f"document.activeElement === {figure}"):
        page.press("Tab")
        assert page.run("document.activeElement !== document.body"), "the figure is not reached"
    assert page.run(f"parseFloat(getComputedStyle({figure}).outlineWidth)") >= 2
    assert page.run(f"document.querySelector('[role=main]').contains({figure})")
    width = page.run(f"{figure}.width")
    for key in ("Enter", "Space"):
        page.press(key)
        assert page.run(f"[{figure}.width > {width}, {figure}.ariaPressed]") == [True, "true"]
        page.run("document.activeElement.blur()")
        page.press("Escape")
        assert page.run(f"[{figure}.width, {figure}.ariaPressed]") == [width, "false"]
        assert page.run(f"document.activeElement === {figure}")
    links = page.run(
        "[...document.querySelectorAll('#app a')].map(a => a.textContent || a.ariaLabel)"
    )
    assert all(links)
    assert len(set(links)) == len(links)


def test_categories_are_numbered_and_items_have_captions(page):
    found = page.run("Object.keys(categories)")
    assert all(name[0].isdigit() and name[1:3] == ". " for name in found), found
    captions = page.run("Object.values(results).map(item => item.caption)")
    assert all(len(caption) > 40 for caption in captions)


def test_markup_in_a_question_appears_as_text(page):
    shown = page.run("document.querySelector('.prose').innerText")
    assert synthetic_results.HOSTILE in shown
    assert page.run("document.querySelectorAll('.prose script, .prose b').length") == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_first_page_is_readable(page, folder, width):
    page.open(folder / "reports" / "report.html", width)
    page.until("document.querySelector('.prose h1')")
    assert page.run("document.documentElement.scrollWidth") <= width
    page.run("document.querySelector('.prose table').style.minWidth = '3000px'")  # it must scroll
    left, right, menu = page.run(
        "(box => [box('.prose').left, box('.prose').right, box('nav').right])"
        "(name => document.querySelector(name).getBoundingClientRect())"
    )
    ends = "[...document.querySelectorAll('nav')].map(one => one.getBoundingClientRect().right)"
    assert max(page.run(ends)) <= width
    assert left >= (menu if width > 700 else 0)
    assert right <= width
    assert right - left >= min(700, 0.85 * width)
    size = page.run("parseFloat(getComputedStyle(document.querySelector('.prose p')).fontSize)")
    assert size >= 13


def test_first_page_is_readable_by_itself(browser, folder):
    browser.open(folder / "results" / "summary.html", 390)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.run("getComputedStyle(document.querySelector('table')).borderCollapse") == (
        "collapse"
    )


def test_single_questions_can_be_searched_and_unfolded_by_keyboard(browser, folder):
    browser.errors.clear()
    browser.open(folder / "results" / "examples.html", 390)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    shown = "[...document.querySelectorAll('details')].filter(one => !one.hidden)"
    everything = browser.run(f"{shown}.length")
    browser.run("search.value = 'toy-sqa'; search.dispatchEvent(new Event('input')), null")
    assert 0 < browser.run(f"{shown}.length") < everything
    closed = f"{shown}.find(one => !one.open)"
    focus = "one => (one.querySelector('summary').focus(), one.matches(':focus-within'))"
    assert browser.run(f"({focus})({closed})")
    assert synthetic_results.HOSTILE in browser.run("document.body.textContent")
    assert browser.run("document.querySelectorAll('details script, details b').length") == 0
    assert browser.errors == []


def test_methods_are_readable_on_a_phone(browser, folder):
    browser.open(folder / "results" / "methods.html", 390)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.run("document.querySelectorAll('dt').length") >= 7  # a metric each


def test_cells_can_be_searched_and_sorted(browser, folder):
    browser.open(folder / "results" / "tables" / "cells.html", 1280)
    browser.run("ready")
    rows = "[...document.querySelectorAll('#cells tbody tr')]"
    everything = browser.run("rows.length")
    browser.run("search.value = 'toy-sqa saliency'; search.dispatchEvent(new Event('input')), null")
    found = browser.run(f"{rows}.map(row => row.innerText)")
    assert 0 < len(found) < everything
    assert all("toy-sqa" in row and "Saliency" in row for row in found)
    column = "[...document.querySelectorAll('#cells th')].findIndex(th => th.innerText === 'ECE')"
    for order in (1, -1):
        browser.run(f"document.querySelectorAll('th button')[{column}].click(), null")
        values = browser.run(f"{rows}.map(row => parseFloat(row.children[{column}].innerText))")
        assert values == sorted(values, reverse=order < 0)
    assert browser.errors == []


def test_the_explorer_draws_what_its_controls_select(browser, folder):
    browser.open(folder / "results" / "tables" / "cells.html", 1280)
    browser.run("explored.then(() => null)")
    metrics = pd.read_parquet(folder / "results" / "metrics.parquet")

    def drawn():
        return browser.run(
            "(([...tr]) => tr.map(one => [...one.cells].map(td => td.textContent)))"
            "(document.querySelectorAll('#numbers tr'))"
        )

    def choose(**values):
        for name, value in values.items():
            browser.run(f"document.getElementById('{name}').value = '{value}', null")
        browser.run("draw().then(() => null)")

    labels = browser.run("[...metric.options].map(option => option.text)")
    assert len(labels) == metrics["metric"].nunique()
    browser.run("set(true).then(() => null)")
    choose(dataset="toy-sqa", metric=labels.index(metric_name("brier")))
    here = metrics.query("dataset == 'toy-sqa' and subset == 'all' and metric == 'brier'")
    assert len(drawn()) == len(here)
    assert sorted(row[3] for row in drawn()) == sorted(f"{v:.4f}" for v in here["value"])
    assert browser.run("document.querySelectorAll('#chart .mark-symbol path').length") == len(here)
    browser.run("document.getElementById('none').click(), null")
    browser.until("document.querySelectorAll('#numbers tr').length === 0")
    assert "select other" in browser.run("document.getElementById('drawn').innerText")
    assert browser.errors == []


def test_fifty_thousand_cells_open_and_sort_two_hundred_at_a_time(browser, tmp_path):
    rows = 50_000
    metrics = ["accuracy", "ece", "ece_debiased", "brier", "aurc", "nll", "tokens_per_layer"]
    metrics = all_cells.in_order(metrics)
    value = np.random.default_rng(0).random((rows, len(metrics)))
    frame = pd.DataFrame(
        {
            "model": "llava",
            "dataset": [f"data-{row % 12}" for row in range(rows)],
            "subset": "all",
            "strategy": [f"scope-{row % 200}" for row in range(rows)],
            "budget": range(rows),
        }
    )
    texts = frame.assign(**{metric: value[:, at] for at, metric in enumerate(metrics)})
    costs = ["decoder_gflop_per_prompt", "visual_tokens_per_layer"]
    provenance = pd.DataFrame({"model": ["llava"], costs[0]: [5.0], costs[1]: [1.0]})
    names, packed = list(frame.columns), texts.to_numpy().tolist()
    listed = [
        [*map(str, row[:5]), *(part for one in row[5:] for part in (f"{one:.4f}", "[0.1, 0.2]"))]
        for row in packed
    ]
    page = all_cells.packed([*names, *metrics], len(names), listed)
    cells = frame.assign(family=frame["strategy"], metric=np.resize(metrics, rows))
    page |= all_cells.explorer(cells, provenance) | {
        "bundle": html.deflated(all_cells.vega_scripts().encode())
    }
    html.write(tmp_path / "cells.html", "cells", title="All cells", **page)
    browser.errors.clear()
    browser.open(tmp_path / "cells.html", 1280)
    browser.run("explored.then(() => null)")
    sorting = "start = performance.now(); document.querySelectorAll('th button')[6].click();"
    took = browser.run(f"let {sorting} performance.now() - start")
    assert took < 20_000, f"sorted in {took:.0f} ms"  # hundreds, on an idle machine
    shown = browser.run(
        "[...document.querySelectorAll('#cells tbody tr')].map(r => r.children[6].innerText)"
    )
    values = [float(text.split()[0]) for text in shown]
    assert values == sorted(values)
    assert values[0] == round(value[:, 1].min(), 4)
    assert len(values) == 200  # what no browser takes long to lay out
    assert "NaN" not in browser.run("document.getElementById('chart').innerHTML")
    browser.run("document.getElementById('against').value = 'operations', null")
    browser.run("draw().then(() => null)")
    costs = value[frame["dataset"] == "data-0", metrics.index("tokens_per_layer")]
    told = "[...document.querySelectorAll('#numbers tr')].map(r => Number(r.cells[2].innerText))"
    drawn = browser.run(f"document.querySelector('details').open = true, {told}")
    assert set(drawn) <= {round(cost * 5, 3) for cost in costs}
    assert len(drawn) > 100
    browser.run("more.click(), null")
    assert browser.run("document.querySelectorAll('#cells tbody tr').length") == 2 * len(values)
