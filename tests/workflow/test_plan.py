"""Every study is planned by Snakemake, from data to report, without running anything."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PARTS = ["Snakefile", "config.yaml", "rules", "workflow", "profiles", "studies", "reports"]
PAPER = "studies/llava-1.5-7b.yaml"
LABELS = [
    *(f"random-seed{seed}" for seed in range(3)),
    "saliency",
    *(f"scope-alpha{alpha}" for alpha in ("0", "0.25", "0.5", "0.75", "1")),
    *(f"scope-alpha0-gap_power{power}" for power in ("0.5", "2", "3")),
    "fastv-layer2",
    "fastv-two-pass-layer2",
]
OTHERS = (
    *("dart-layer2", "divprune", "hiprune", "pdrop"),
    *("prumerge", "sparsevlm", "visionzip", "vispruner"),
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__", "*.html")
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
        options = {"ignore": ignored} if (ROOT / part).is_dir() else {}
        copy(ROOT / part, folder / part, **options)
    return folder


def snakemake(checkout, *options):
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *options],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )


def plan(checkout, *options):
    """Return the rule that would make each file of the study."""
    done = snakemake(checkout, "--cores", "2", "--summary", *options)
    assert done.returncode == 0, done.stderr
    header, *lines = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    assert header[:3] == ["output_file", "date", "rule"]
    assert {line[-1] for line in lines} == {"update pending"}
    return {line[0]: line[2] for line in lines}


def cells(model, dataset, full, budgets, labels=LABELS):
    folder = f"results/{model}/{dataset}"
    named = [("full", full), *((label, budget) for label in labels for budget in budgets)]
    return {f"{folder}/{label}/{budget}/predictions.parquet" for label, budget in named}


def predictions(made):
    return {path for path in made if path.endswith("predictions.parquet")}


def test_the_papers_study_is_planned_from_the_hub_to_the_report(checkout):
    made = plan(checkout, "--configfile", PAPER)
    assert predictions(made) == {
        path
        for dataset in ("pope", "scienceqa-img")
        for path in cells("llava-1.5-7b", dataset, 576, (64, 128, 192))
    }
    for name in ("metrics.parquet", "comparisons.parquet", "claims.json", "summary.html"):
        assert f"results/llava-1.5-7b/{name}" in made
    files = Counter(made.values())
    assert (files["data"], files["model"], files["encode"]) == (4, 1, 2)
    # an order per data set; FastV's strategies have none, the unpruned model has
    ranked = [count for name, count in files.items() if name.startswith("rank_")]
    assert ranked == [1 + 3 + 1 + 8] * 2
    assert sum(name.startswith("infer_") for name in files) == 2  # one load per data set
    assert "train" not in files


def test_a_dry_run_of_the_papers_study_needs_no_flag_more_and_writes_no_results(checkout):
    done = snakemake(checkout, "-n", "--configfile", PAPER)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "This was a dry-run" in done.stdout
    assert sorted(path.name for path in checkout.iterdir()) == sorted([*PARTS, ".snakemake"])


@pytest.mark.slow
def test_the_papers_study_downloads_nothing_where_there_is_no_gpu(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    study = ("--cores", "1", "--configfile", checkout / PAPER, "--directory", tmp_path)
    done = snakemake(checkout, *study)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "the study asks for a GPU (inference.device or gpus_per_job), but " in said
    assert "Traceback" not in said
    assert "Obtain the model" not in said
    done = snakemake(checkout, *study, "prefetch")  # for a cluster's nodes
    assert "not in the Hub's cache" in done.stdout + done.stderr
    assert "asks for a GPU" not in done.stdout + done.stderr


def test_the_embedded_study_is_planned_from_training_to_the_report(checkout):
    made = plan(checkout)
    assert predictions(made) == {
        path
        for dataset in ("digits-pope", "digits-sqa")
        for path in cells("digits-llava", dataset, 100, (40, 20, 10, 5), [*LABELS, *OTHERS])
    }
    assert made["results/models/digits-llava/manifest.json"] == "train"
    assert {"results/metrics.parquet", "results/comparisons.parquet", "results/claims.json"} <= set(
        made
    )


def test_budgets_given_on_the_command_line_are_planned(checkout):
    made = plan(checkout, "--config", "budgets=[7]")
    assert cells("digits-llava", "digits-sqa", 100, (7,)) <= set(made)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("budgets=[101]", "config: budgets: 101 visual tokens are not between 1 and the 100 that"),
        ("inference={thread: 2}", "config: inference: 'thread' is unknown (did you mean 'threads'"),
    ],
)
def test_a_wrong_setting_stops_snakemake_with_one_sentence(checkout, setting, message):
    done = snakemake(checkout, "-n", "--config", setting)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert message in said
    assert "Traceback" not in said


HOSTILE = "{input} {wildcards.model} {{output}} {0} {"


def test_settings_are_no_format_strings(checkout, tmp_path):
    settings, answers = tmp_path / "study.yaml", tmp_path / "answers.csv"
    answers.touch()
    shared = {"model": "m", "dataset": "d", "budget": 9, "file": str(answers)}
    odd = {"strategy": "odd", "family": HOSTILE[:100], "parameters": {HOSTILE: HOSTILE}}
    texts = {"title": HOSTILE, "study": "hostile", "imported": [shared, shared | odd]}
    settings.write_text(yaml.safe_dump(texts))
    target = "results/hostile/study.json"
    options = ("--configfile", str(settings), "--cores", "1")
    done = snakemake(checkout, target, *options, "--directory", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / target).read_text())["title"] == HOSTILE
    rules = ("all", "verify", "repair", "repair_outdated")
    done = snakemake(checkout, "-n", *rules, *options)
    assert done.returncode == 0, done.stderr
    assert all(f"\n{rule} " in done.stdout for rule in rules)  # of the table of jobs


def test_a_local_path_that_snakemake_would_misread_is_refused_in_one_sentence(checkout, tmp_path):
    data = tmp_path / "with{brace}"
    data.mkdir()
    (data / "test.parquet").touch()
    entry = {"name": "local", "loader": "scienceqa", "path": str(data)}
    settings = tmp_path / "study.yaml"
    settings.write_text(yaml.safe_dump({"datasets": [entry]}))
    done = snakemake(checkout, "-n", "--configfile", str(settings), "--cores", "1")
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "holds braces, which Snakemake takes for a wildcard; rename it" in said
    assert "Traceback" not in said


def test_two_studies_are_compared_by_the_name_of_the_target(checkout, tmp_path):
    folders = [tmp_path / "results", tmp_path / "results" / "llava-1.5-7b"]
    for folder in folders:
        (folder / "scores" / "m").mkdir(parents=True)
        (folder / "scores" / "m" / "d.safetensors").touch()
        (folder / "study.json").touch()
    target = "results/studies/results-vs-llava-1.5-7b/comparison.html"
    options = ("-n", "-p", "--allowed-rules", "compare_studies", "--directory", str(tmp_path))
    done = snakemake(checkout, target, *options)
    assert done.returncode == 0, done.stderr
    assert "--studies results results/llava-1.5-7b --folder" in done.stdout
