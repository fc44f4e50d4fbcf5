import importlib.util
import re
import tomllib

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from safetensors.numpy import save_file

from helpers import hub_llava, pages
from helpers.tiny_llava import png
from prunecal.study import resources

ROOT = pages.ROOT
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
PYTHON = [block for block in pages.blocks(README) if block.language == "python"]


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_the_readme_s_examples_run_on_the_results_of_a_study(block, tmp_path, results):
    (tmp_path / "results").symlink_to(results)
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    assert pages.run(block, tmp_path).strip()


def test_one_command_runs_the_study_and_one_the_tests_each_with_its_own_set_up():
    commands = [line for line in TEXT.splitlines() if line.startswith("python3 -m venv .venv")]
    study, tests = commands
    assert study.endswith(".venv/bin/snakemake --cores all")
    assert re.search(r"\.venv/bin/pytest\S*$|\.venv/bin/pytest ", tests)


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "pictures" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_graph_of_rules_is_that_of_the_embedded_study():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    [drawn] = re.findall(r"```mermaid\n(.*?)\n```", page, re.DOTALL)
    assert drawn == script("rulegraph").graph(), (
        "put the output of docs/pictures/rulegraph.py into CONTRIBUTING.md"
    )


def test_the_picture_shows_the_first_question_that_random_pruning_alone_gets_wrong(tmp_path):
    pipeline = script("pipeline")
    data, cells = tmp_path / pipeline.DATA, tmp_path / pipeline.CELLS
    data.mkdir(parents=True)
    image = {"image_id": ["b", "a"], "bytes": [png(Image.new("RGB", (120, 120)))] * 2}
    pd.DataFrame(image).to_parquet(data / "images.parquet")
    texts = ["Is there a one or a two?", "Is there a one?", "Is there a two?", "Is there a six?"]
    columns = {"text": texts, "image_id": list("abab"), "label": [0] * 4}
    questions = pd.DataFrame(columns | {"options": [["Yes", "No"]] * 4})
    questions.to_parquet(data / "questions.parquet")
    right, wrong = [2.0, 0.0], [0.0, 2.0]
    logits = {"full": [right] * 4, "scope-alpha0": [right] * 4}
    logits["random-seed0"] = [wrong, right, wrong, wrong]
    frames = []
    for strategy, budget in pipeline.ROWS.values():
        (cells / strategy / str(budget)).mkdir(parents=True)
        path = cells / strategy / str(budget) / "predictions.parquet"
        pd.DataFrame({"logits": logits[strategy], "label": [0] * 4}).to_parquet(path)
        order = np.tile(np.arange(100, dtype=np.int16), (2, 1))
        save_file({"order": order}, cells / strategy / "ranking.safetensors")
        frames.append(pipeline.probabilities(tmp_path, strategy, budget))
    assert pipeline.pick(frames, questions["text"]) == 2
    assert pipeline.kept(tmp_path, "random-seed0", 20, 0).sum() == 20
    pipeline.main(tmp_path, tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").stat().st_size > 10_000


def test_the_citation_has_the_project_s_version_and_both_versions_of_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    papers = {paper["version"]: paper for paper in citation["references"]}
    assert {version: len(paper["authors"]) for version, paper in papers.items()} == {
        "v1": 1,
        "v2": 6,
    }


def test_what_the_documentation_needs_is_pinned():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    pins = (ROOT / "envs" / "requirements-docs.txt").read_text()
    for requirement in extras["docs"]:
        assert re.match(r"[\w-]+", requirement)[0] + "==" in pins


def test_what_the_papers_study_needs_is_what_the_code_requests_for_it():
    """Weights of 14.1 GB; 500 and 2,017 images with 576 tokens of 1,024 values in 16 bits."""
    weights = sum(map(hub_llava.true_bytes, hub_llava.shapes().values()))
    features = [images * 576 * 1024 * 2 / 1e9 for images in (500, 2017)]
    start = resources.GPU_START_MB * resources.MEGABYTE / 1e9
    device = weights / 1e9 * resources.WITH_ACTIVATIONS
    main = [start + size for size in features]
    assert f"{weights / 1e9:.1f} GB of weights in 16 bits" in TEXT
    assert f"{start:.0f} GB with CUDA's libraries" in TEXT
    assert f"features, {features[1]:.1f} GB at most" in TEXT
    assert f"{sum(features):.0f} GB of cached vision features" in TEXT
    assert f"| `infer`, twice | {main[0]:.0f} and {main[1]:.0f} GB | {device:.0f} GB |" in TEXT
    needs = {"GPU": device, "main memory": max(main)}
    for what, needed in needs.items():
        assert needed < int(re.search(rf"^\| {what} \| (\d+) GB", TEXT, re.MULTILINE)[1])
