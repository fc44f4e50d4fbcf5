"""Tables for papers: complete, in readers' words, and LaTeX whatever the texts hold."""

import re
import subprocess

import pandas as pd
import pytest

from helpers import synthetic_results
from helpers.programs import require
from helpers.stages import ask_trust, define, explain, run, tabulate
from prunecal.calibration import catalogue
from prunecal.core.errors import PrunecalError
from prunecal.figures import labels, naming
from prunecal.report import latex, tables

UNKNOWN = "日本 עברית \u202e \x00 \x1b \x7f \ufeff 😀 \u2028 ∑ ẞ ỗ"  # to pdfTeX
LATIN = "Škoda, señor, Ångström, œuvre, straße, “quoted” – naïve, 5 °C ± 1 ×"
HOSTILE = "50 % of a_b & {c}\n\n\\input{x} [*] #1 ~ ^ < > | $x$ αρΔ·−"


NAMES = labels.names_of(synthetic_results.metrics(synthetic_results.study())[0])


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
    ask_trust(results, folder)
    (results / "detectable.csv").rename(folder / "detectable.csv")
    define(results, folder)
    tabulate(results, folder)
    made = [path for path in sorted(folder.glob("*.csv")) if path.stem != "headline"]
    run(latex, tables=made, folder=folder, metrics=results / "metrics.parquet")
    return folder


def entries(line):
    """Return the cells of a table's line."""
    return re.split(r"(?<!\\)&", line.removesuffix(r"\\"))


def check(text):
    """Assert that braces, environments and columns match, and that nothing active is left."""
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    code = code.replace(latex.FIT, "{{")
    assert "%" not in code.replace(r"\%", "")
    assert "#" not in code.replace(r"\#", "")
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", code):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    assert len(re.findall(r"(?<!\\)\$", code)) % 2 == 0
    assert re.findall(r"\\begin\{(\w+)\}", code) == re.findall(r"\\end\{(\w+)\}", code)[::-1]
    tables = []
    for part in code.split(r"\begin{tabular}")[1:]:
        kinds = re.fullmatch(r"\{((?:[lr]|p\{\d+em\})+)\}", part.splitlines()[0])[1]
        columns = len(re.sub(r"\{.*?\}", "", kinds))
        head, *rows = [line.strip() for line in part.splitlines() if line.endswith(r"\\")]
        assert {len(entries(line)) for line in (head, *rows)} == {columns}
        if tables and tables[-1][0] == head:  # goes on after a break of the page
            tables[-1] += rows
        else:
            tables.append([head, *rows])
    return tables


def document(texts):
    body = "\n\\clearpage\n".join(texts)
    used = r"\documentclass{article}\usepackage{booktabs,graphicx,pdflscape}"
    return f"{used}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"


def test_every_table_has_a_well_formed_twin(folder):
    for source in sorted(folder.glob("*.csv")):
        text = source.with_suffix(".tex").read_text()
        for lines in check(text):
            assert len(lines) == 1 + len(pd.read_csv(source))
        assert f"% from {source.name}\n" in text
    assert len(list(folder.glob("*.tex"))) == 12


@pytest.fixture
def pdflatex():
    return require("texlive-latex-recommended", "pdflatex")


def test_tables_compile_and_fit_the_page(pdflatex, folder, tmp_path):
    texts = [path.read_text() for path in sorted(folder.glob("*.tex"))]
    hostile = [HOSTILE, "x", "W" * 500, "many words " * 90, UNKNOWN, LATIN]
    texts.append(latex.table(pd.DataFrame({"subset": hostile, "rho": range(6)}), "x"))
    (tmp_path / "all.tex").write_text(document(texts))
    command = [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout
    assert "Overfull" not in made.stdout


def measured(numbers, rows=3):
    """Return a table of numbers with intervals."""
    kinds = ("", "_low", "_high")
    columns = {f"m{number}{kind}": [0.1234] * rows for number in range(numbers) for kind in kinds}
    return pd.DataFrame({"strategy": [f"scope-{row}" for row in range(rows)]} | columns)


def test_a_narrow_table_stays_upright():
    text = latex.table(measured(2), "x.csv")
    assert r"\usepackage{booktabs,graphicx}" in text
    assert "landscape" not in text
    assert "0.1234 {[}0.1234, 0.1234{]}" in text


@pytest.mark.parametrize(
    ("numbers", "turned", "parts"), [(3, False, 1), (4, True, 1), (7, True, 2), (11, True, 3)]
)
def test_a_wide_table_turns_the_page_and_comes_in_parts(numbers, turned, parts):
    text = latex.table(measured(numbers), "x.csv")
    assert len(check(text)) == parts
    assert (r"\usepackage{booktabs,graphicx,pdflscape}" in text) is turned
    assert (r"\begin{landscape}" in text) is turned
    assert text.count("scope-1") == parts  # each part names its rows
    for number in range(numbers):
        assert f"M{number}" in text


def test_a_long_table_goes_on_after_a_break_with_its_head():
    text = latex.table(measured(1, rows=100), "x.csv")
    assert text.count(r"\begin{tabular}") == 3
    (lines,) = check(text)
    assert [line.split(" & ")[0] for line in lines[1:]] == [f"scope-{row}" for row in range(100)]
    tall = latex.table(pd.DataFrame({"text": ["word " * 200, "a", "b"]}), "x.csv")
    assert tall.count(r"\begin{tabular}") == 1


def test_long_texts_are_paragraphs_and_digests_short():
    frame = pd.DataFrame(
        {"text": ["many words " * 9, "few"], "predictions_sha256": ["ab" * 32] * 2}
    )
    frame.loc[1, "predictions_sha256"] = "cd" * 32
    text = latex.table(frame, "x.csv")
    check(text)
    assert r"\begin{tabular}{p{24em}l}" in text
    assert "ab" * 6 in text
    assert "ab" * 7 not in text


def test_a_column_without_numbers_is_left_out():
    frame = pd.DataFrame({"strategy": ["a", "b"], "rho": [1.0, 2.0], "seconds": [None, None]})
    assert "Seconds" not in latex.table(frame, "x.csv")


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
    assert f"{shown[0]} {{[}}{shown[1]}, {shown[2]}{{]}}" in text
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
    text = latex.table(frame, "x.csv")
    check(text)
    assert r"\input" not in text.replace("% Data set:", "").split("\\begin")[1]
    assert all(not line or line[0] in "%\\" or "&" in line for line in text.splitlines())
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
    assert latex.escape(latex._text(value, "beyond")) == shown


def test_a_table_without_rows_keeps_its_head(tmp_path):
    (tmp_path / "correlations.csv").write_text("model,rho,ci_low,ci_high\n")
    latex.convert(tmp_path / "correlations.csv", tmp_path, NAMES)
    (lines,) = check((tmp_path / "correlations.tex").read_text())
    assert len(lines) == 1


def test_a_missing_or_empty_file_is_named(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    for name in ("empty", "missing"):
        with pytest.raises(PrunecalError, match=rf"{name}\.csv is not a CSV table .*run snakemake"):
            latex.convert(tmp_path / f"{name}.csv", tmp_path, NAMES)


def test_a_subset_called_na_is_no_missing_number(tmp_path):
    (tmp_path / "detectable.csv").write_text("subset,minimum_detectable\nNA,0.1\nall,\n")
    latex.convert(tmp_path / "detectable.csv", tmp_path, NAMES)
    text = (tmp_path / "detectable.tex").read_text()
    assert "NA & 0.1000" in text
    assert "all & --" in text


def test_names_that_look_like_numbers_stay_as_they_are(tmp_path):
    rows = "dataset,subset,p\n007,1e3,0.5\nTrue,1.50,0.25\n"
    (tmp_path / "detectable.csv").write_text(rows)
    latex.convert(tmp_path / "detectable.csv", tmp_path, NAMES)
    text = (tmp_path / "detectable.tex").read_text()
    assert "007 & 1e3 & 0.5000" in text
    assert "True & 1.50 & 0.2500" in text


def test_headings_name_metrics_and_changes_alike():
    assert naming.heading("ece") == catalogue.metric_name("ece") == "ECE"
    assert naming.heading("ece_delta") == "Δ ECE"
    assert naming.heading("some_parameter") == "Some parameter"


def test_tables_call_strategies_as_figures_do_unpruned_first(tmp_path):
    families = {"fastv-layer2": "fastv", "full": "full", "random-seed1": "random"}
    rows = [
        f"m,d,{strategy},{family},{budget},0.5"
        for strategy, family in families.items()
        for budget in (16, 4)
    ]
    head = "model,dataset,strategy,family,budget,rho"
    (tmp_path / "mechanisms.csv").write_text("\n".join([head, *rows, ""]))
    latex.convert(tmp_path / "mechanisms.csv", tmp_path, NAMES)
    (lines,) = check((tmp_path / "mechanisms.tex").read_text())
    assert [entries(line)[0].strip() for line in lines[1:]] == [
        "Unpruned", "Unpruned", "Random seed 1", "Random seed 1", "FastV", "FastV",
    ]  # fmt: skip
    assert "4 &" in lines[1]
    for kind, called in (("", "Random seed 0"), (",seeds", "Random (mean of 3 seeds)")):
        text = f"{head}{kind}\nm,d,random-seed0,random,4,0.5{',3' if kind else ''}\n"
        (tmp_path / "trust.csv").write_text(text)
        latex.convert(tmp_path / "trust.csv", tmp_path, NAMES)
        assert called in (tmp_path / "trust.tex").read_text()


def test_metrics_are_in_the_order_of_the_catalogue(tmp_path):
    rows = "metric,minimum_detectable\naurc,0.1\nmade_up,0.2\naccuracy,0.3\nece,0.4\n"
    (tmp_path / "detectable.csv").write_text(rows)
    latex.convert(tmp_path / "detectable.csv", tmp_path, NAMES)
    (lines,) = check((tmp_path / "detectable.tex").read_text())
    assert [entries(line)[0].strip() for line in lines[1:]] == [
        "Accuracy", "ECE", "AURC", "made up",
    ]  # fmt: skip


def test_labels_in_a_claims_words_become_names():
    text = "ECE of scope-alpha0 at 5 tokens minus full; scope-alpha0.25, scope-alpha0-gap_power2."
    assert labels.in_text(text, NAMES) == (
        "ECE of SCOPE α = 0 at 5 tokens minus Unpruned; SCOPE α = 0.25, SCOPE α = 0, p = 2."
    )
    assert labels.in_text("slope of ECE over alpha at 5 tokens", NAMES) == (
        "slope of ECE over α at 5 tokens"
    )
