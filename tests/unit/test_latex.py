"""Tables for papers: complete, in readers' words, and LaTeX whatever the texts hold."""

import re
import subprocess

import pandas as pd
import pytest

from helpers import synthetic_results
from helpers.programs import require
from helpers.stages import define, explain, run, tabulate
from prunecal.calibration import catalogue
from prunecal.core.errors import PrunecalError
from prunecal.figures import naming
from prunecal.report import latex, tables

HOSTILE = "50 % of a_b & {c}\n\n\\input{x} [*] #1 ~ ^ < > | $x$ αρΔ·−"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with each table of a made-up study as CSV and as LaTeX."""
    strategies = ["full", "saliency", {"strategy": "scope", "alpha": [0.0, 1.0]}, "fastv"]
    results = synthetic_results.write(
        tmp_path_factory.mktemp("study"), synthetic_results.study(strategies, [4, 8])
    )
    synthetic_results.write_sources(results)
    folder = results / "tables"
    explain(results, folder)
    (results / "detectable.csv").rename(folder / "detectable.csv")
    define(results, folder)
    tabulate(results, folder)
    made = [path for path in sorted(folder.glob("*.csv")) if path.stem != "headline"]
    run(latex, tables=made, folder=folder)
    return folder


def entries(line):
    """Return the cells of a table's line."""
    return re.split(r"(?<!\\)&", line.removesuffix(r"\\"))


def check(text):
    """Assert that braces, environments and columns match, and that nothing active is left."""
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert "%" not in code.replace(r"\%", "")
    assert "#" not in code.replace(r"\#", "")
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", code):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    assert len(re.findall(r"(?<!\\)\$", code)) % 2 == 0
    assert re.findall(r"\\begin\{(\w+)\}", code) == re.findall(r"\\end\{(\w+)\}", code)[::-1]
    parts = code.split(r"\begin{longtable}")[1:]
    lines = []
    for part in parts:
        kinds = re.fullmatch(r"\{((?:[lr]|p\{\d+pt\})+)\}", part.splitlines()[0])[1]
        columns = len(re.sub(r"\{.*?\}", "", kinds))
        mine = [line for line in part.splitlines() if re.search(r"(?<!\\)&", line)]
        assert {len(entries(line.strip())) for line in mine} == {columns}
        lines.append(mine)
    return lines


def document(texts):
    body = "\n\\clearpage\n".join(texts)
    used = r"\documentclass{article}\usepackage{booktabs,longtable,pdflscape}"
    return f"{used}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"


def test_every_table_has_a_well_formed_twin(folder):
    for source in sorted(folder.glob("*.csv")):
        text = source.with_suffix(".tex").read_text()
        heads = 2  # on the first page, and on those that follow
        for lines in check(text):
            assert len(lines) == heads + len(pd.read_csv(source))
        assert f"% from {source.name}\n" in text
    assert len(list(folder.glob("*.tex"))) == 8


@pytest.fixture
def pdflatex():
    return require("texlive-latex-recommended", "pdflatex")


def test_tables_compile_and_fit_the_page(pdflatex, folder, tmp_path):
    texts = [path.read_text() for path in sorted(folder.glob("*.tex"))]
    texts.append(latex.longtable(pd.DataFrame({"subset": [HOSTILE, "x"], "rho": [1, 2]}), "x"))
    (tmp_path / "all.tex").write_text(document(texts))
    command = [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    for _ in range(3):  # longtable settles its columns' widths over several runs
        made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert made.returncode == 0, made.stdout
    assert "Overfull \\hbox" not in made.stdout


def measured(numbers, rows=3):
    """Return a table of numbers with intervals."""
    kinds = ("", "_low", "_high")
    columns = {f"m{number}{kind}": [0.1234] * rows for number in range(numbers) for kind in kinds}
    return pd.DataFrame({"strategy": [f"scope-{row}" for row in range(rows)]} | columns)


def test_a_narrow_table_is_set_as_it_is():
    text = latex.longtable(measured(2), "x.csv")
    assert r"\usepackage{booktabs,longtable}" in text
    assert r"\begingroup" not in text
    assert "0.1234 [0.1234, 0.1234]" in text


@pytest.mark.parametrize(
    ("numbers", "turned", "parts"),
    [(3, False, 1), (5, True, 1), (7, True, 2), (11, True, 3)],
)
def test_a_wide_table_turns_the_page_and_comes_in_parts(numbers, turned, parts):
    text = latex.longtable(measured(numbers), "x.csv")
    assert len(check(text)) == parts
    assert r"\begingroup\footnotesize" in text
    assert (r"\usepackage{booktabs,longtable,pdflscape}" in text) is turned
    assert (r"\begin{landscape}" in text) is turned
    assert text.count("scope-1") == parts  # each part names its rows
    for number in range(numbers):
        assert f"M{number}" in text


def test_long_texts_are_paragraphs_and_digests_short():
    frame = pd.DataFrame(
        {"text": ["many words " * 9, "few"], "predictions_sha256": ["ab" * 32] * 2}
    )
    frame.loc[1, "predictions_sha256"] = "cd" * 32
    text = latex.longtable(frame, "x.csv")
    check(text)
    assert r"\begin{longtable}{p{130pt}l}" in text
    assert "ab" * 6 in text
    assert "ab" * 7 not in text


def test_a_column_without_numbers_is_left_out():
    frame = pd.DataFrame({"strategy": ["a", "b"], "rho": [1.0, 2.0], "seconds": [None, None]})
    assert "Seconds" not in latex.longtable(frame, "x.csv")


def test_stars_mark_what_differs(folder):
    table, text = pd.read_csv(folder / "headline.csv"), (folder / "headline.tex").read_text()
    stars = sum((table[f"{metric}_p_adjusted"] < 0.05).sum() for metric in tables.METRICS)
    assert 0 < text.count("{*}") == stars < len(table) * len(tables.METRICS)
    assert "% * differs from the unpruned model: adjusted p < 0.05\n" in text


def test_numbers_stand_beside_their_intervals(folder):
    first = pd.read_csv(folder / "matched.csv").iloc[0]
    text = (folder / "matched.tex").read_text()
    numbers = [f"{first[name]:.4f}" for name in ("beyond", "ci_low", "ci_high")]
    shown = [number.replace("-", "$-$") for number in numbers]
    assert f"{shown[0]} [{shown[1]}, {shown[2]}]" in text
    assert "ci" not in text.lower().split()
    assert "% Model: toy-llava\n" in text  # the only one: no column


def test_headings_are_readers_words(folder):
    texts = ((folder / f"{name}.tex").read_text() for name in ("matched", "correlations"))
    matched, correlations = (text.replace(r" \\ ", " ") for text in texts)
    for words in ("Data set", "Tokens", r"$\Delta$ Accuracy", r"$\Delta$ ECE beyond it"):
        assert words in matched
    assert r"Spearman's $\rho$" in correlations
    assert "Share of saliency kept" in correlations
    assert "saliency_share" not in correlations.replace("\\", "")
    for path in folder.glob("*.tex"):
        head = next(line for line in path.read_text().splitlines() if "&" in line)
        assert "_" not in head


def test_hostile_texts_stay_texts():
    frame = pd.DataFrame({"dataset": [HOSTILE] * 2, "subset": [HOSTILE, "[x]"], "rho": [0.5, -1]})
    text = latex.longtable(frame, "x.csv")
    check(text)
    assert r"\input" not in text.replace("% Data set:", "").split("\\begin")[1]
    assert all(line.startswith(("%", "\\")) or "&" in line for line in text.splitlines())
    assert "{[}x{]} & $-$1" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.12345, "0.1235"),
        (-0.5, "$-$0.5000"),
        (3.0, "3"),
        (0.0, "0"),
        (0.0009, "0.0009"),
        (-1.26e-5, r"$-$1.3e$-$05"),
        (float("nan"), "--"),
        (float("-inf"), r"$-$inf"),
        (True, "yes"),
        (7, "7"),
        ("a-b", "a-b"),
    ],
)
def test_entries_of_each_kind(value, shown):
    assert latex._text(value, "beyond") == shown


def test_a_table_without_rows_keeps_its_head(tmp_path):
    (tmp_path / "correlations.csv").write_text("model,rho,ci_low,ci_high\n")
    latex.convert(tmp_path / "correlations.csv", tmp_path)
    (lines,) = check((tmp_path / "correlations.tex").read_text())
    assert len(lines) == 2


def test_a_missing_or_empty_file_is_named(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    for name in ("empty", "missing"):
        with pytest.raises(PrunecalError, match=rf"{name}\.csv is no CSV table .*run the workflow"):
            latex.convert(tmp_path / f"{name}.csv", tmp_path)


def test_a_subset_called_na_is_no_missing_number(tmp_path):
    (tmp_path / "detectable.csv").write_text("subset,minimum_detectable\nNA,0.1\nall,\n")
    latex.convert(tmp_path / "detectable.csv", tmp_path)
    text = (tmp_path / "detectable.tex").read_text()
    assert "NA & 0.1000" in text
    assert "all & --" in text


def test_headings_name_metrics_and_changes_alike():
    assert naming.heading("ece") == catalogue.metric_name("ece") == "ECE"
    assert naming.heading("ece_delta") == "Δ ECE"
    assert naming.heading("some_parameter") == "Some parameter"
