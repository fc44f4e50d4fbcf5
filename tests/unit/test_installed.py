"""Installed and away from its checkout, the package draws every figure and page of a study."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import synthetic_results
from prunecal.study.report_items import TRUST_TABLES

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
STAGES = """
import json, runpy, sys
import prunecal
for stage, words in json.loads(sys.stdin.read()):
    sys.argv = [stage, *words]
    runpy.run_module(stage, run_name="__main__", alter_sys=True)
print(prunecal.__file__)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a folder into which pip installed a copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "workflow", source / "workflow")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--target", folder / "site", source]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder / "site"


def figures():
    """List the modules of figures that are run."""
    paths = (ROOT / "workflow" / "prunecal" / "figures").glob("*.py")
    return {path.stem for path in paths if "__main__" in path.read_text(encoding="utf-8")}


def commands(results, out):
    """Return every stage that draws or writes for readers, with its arguments."""
    predictions = sorted(results.glob("*/*/*/*/predictions.parquet"))
    rankings = sorted(results.glob("*/*/*/ranking.safetensors"))
    questions = sorted(results.glob("datasets/*/questions.parquet"))
    images = sorted(results.glob("datasets/*/images.parquet"))
    manifests = sorted(results.glob("models/*/manifest.json"))
    here = {
        name: ["--" + name, results / file]
        for name, file in (
            ("study", "study.json"),
            ("metrics", "metrics.parquet"),
            ("comparisons", "comparisons.parquet"),
            ("claims", "claims.json"),
            ("detectable", "detectable.csv"),
        )
    }
    model, dataset = synthetic_results.MODEL, synthetic_results.DATASETS[0]
    curve = manifests[0].with_name("weights") / "learning_curve.csv"
    drawn = {
        "budget": [*here["metrics"], "--draw", "ece"],
        "sweep": [*here["metrics"], "--parameter", "alpha"],
        "pareto": here["metrics"],
        "cost": [*here["metrics"], "--provenance", out / "provenance.csv"],
        "forest": [*here["comparisons"], "--metric", "ece"],
        "reliability": ["--predictions", *predictions],
        "risk_coverage": ["--predictions", *predictions],
        "kept_tokens": [
            "--rankings", *rankings[:3], "--budget", 8, "--images", images[0],
            "--image-mode", "pad", "--manifest", manifests[0], "--model", model,
            "--dataset", dataset,
        ],
        "learning_curve": ["--curve", curve, "--model", model],
        "explanations": [*here["metrics"], "--tables", out, "--bins", 15],
        "speed": ["--benchmark", ROOT / "benchmarks" / "speed.json", "--table", out / "speed.csv"],
    }  # fmt: skip
    assert set(drawn) == figures()
    yield "prunecal.mechanisms", [
        "--scores", *sorted(results.glob("scores/*/*.safetensors")),
        "--unpruned", *sorted(results.glob("*/*/full/*/predictions.parquet")),
        "--features", *sorted(results.glob("*/*/features.safetensors")),
        "--rankings", *rankings, "--folder", out,
    ]  # fmt: skip
    yield "prunecal.report.methods", [
        *here["study"], *here["metrics"], "--manifests", *manifests, "--predictions", *predictions,
        "--page", out / "methods.html", "--provenance", out / "provenance.html",
        "--table", out / "provenance.csv",
    ]  # fmt: skip
    yield "prunecal.report.tables", [
        *here["metrics"], *here["comparisons"], *here["claims"], "--questions", *questions,
        "--provenance", out / "provenance.csv",
        "--csv", out / "headline.csv", "--latex", out / "headline.tex",
        "--claims-csv", out / "claims.csv", "--datasets-csv", out / "datasets.csv",
        "--page", out / "cells.html",
    ]  # fmt: skip
    yield "prunecal.report.latex", [
        *here["metrics"], "--tables", out / "claims.csv", "--folder", out,
    ]  # fmt: skip
    for name, words in drawn.items():
        yield f"prunecal.figures.{name}", [*words, "--folder", out]
    yield "prunecal.report.single_questions", [
        "--predictions", *predictions, "--rankings", *rankings, "--questions", *questions,
        "--images", *images, "--manifests", *manifests, "--output", out / "examples.html",
    ]  # fmt: skip
    scores = sorted(results.glob("scores/*/*.safetensors"))
    yield "prunecal.trust", [
        "--scores", *scores, "--predictions", *predictions, "--folder", out,
    ]  # fmt: skip
    trust = [out / f"{name}.csv" for name in TRUST_TABLES]
    yield "prunecal.report.trust", [
        *here["study"], *here["metrics"], "--page", out / "trust.html", "--figures", out,
        "--tables", *trust,
    ]  # fmt: skip
    yield "prunecal.report.first_page", [
        *here["study"], *here["metrics"], *here["comparisons"], "--matched", out / "matched.csv",
        *here["detectable"], *here["claims"], "--trust", *trust, "--datasets", out / "datasets.csv",
        "--provenance", out / "provenance.csv", "--figure", out / "budget_ece.svg",
        "--out", out / "summary.html",
    ]  # fmt: skip
    yield "prunecal.compare_studies", ["--studies", results, results, "--folder", out / "studies"]


def test_the_installed_package_draws_every_figure_and_page(installed, tmp_path):
    strategies = ["full", {"strategy": "scope", "alpha": [0.0, 1.0]}, "saliency"]
    results = synthetic_results.write(
        tmp_path / "study", synthetic_results.study(strategies, [4, 8])
    )
    synthetic_results.write_sources(results)
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    every = [(stage, [str(word) for word in words]) for stage, words in commands(results, out)]
    done = subprocess.run(
        [sys.executable, "-c", STAGES],
        input=json.dumps(every),
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path(done.stdout.splitlines()[-1]).is_relative_to(installed)
    assert len([*out.rglob("*.svg")]) >= 15
    assert len([*out.rglob("*.html")]) == 7
    assert [*elsewhere.iterdir()] == []


def test_every_file_of_the_package_that_is_not_code_is_installed(installed):
    package = ROOT / "workflow" / "prunecal"
    data = {
        path.relative_to(package)
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and ".egg-info" not in str(path)
    }
    assert data
    assert all((installed / "prunecal" / path).is_file() for path in data)
