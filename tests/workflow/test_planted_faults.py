"""More than twenty faults planted in a finished study: `verify` names each and no sound file.

The study has a trained model and one in a local folder, a generated data set and local files.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from safetensors.numpy import load_file, save_file

from helpers.small_project import Project
from helpers.tiny_llava import picture, png
from prunecal.storage import files

TINY = "results/tiny/polls"
SCORES = "results/scores/tiny/polls.safetensors"
OLD = 10**18  # nanoseconds: a time in 2001


class Results:
    """The study's folder, in which a fault is planted."""

    def __init__(self, folder):
        self.folder = folder
        base = yaml.safe_load((folder / "config.yaml").read_text())
        self.settings = base | yaml.safe_load((folder / "small.yaml").read_text())

    def __truediv__(self, name):
        return self.folder / name

    def verify(self):
        """Return what verify says of the study, run as the rule runs it."""
        command = ["-m", "prunecal.verify", "results", "--log", "logs/verify.log"]
        done = subprocess.run(
            [sys.executable, *command, "--settings", json.dumps(self.settings)],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(self.folder / "workflow")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Run the small study with a local model and local data, as far as its tables."""
    folder = tmp_path_factory.mktemp("planted") / "study"
    project = Project.create(folder)
    project.run("results/models/tiny/manifest.json")
    shutil.copytree(folder / "results" / "models" / "tiny" / "weights", folder / "given")
    (folder / "images").mkdir()
    lines = []
    for number in range(4):
        (folder / "images" / f"{number}.png").write_bytes(png(picture(number)))
        row = {"question_id": number, "image": f"{number}.png", "text": "Is there a cat?"}
        lines.append(json.dumps(row | {"label": "yes" if number % 2 else "no"}))
    (folder / "coco_pope_random.json").write_text("\n".join(lines))
    given = {"name": "given", "family": "llava", "visual_tokens": 100, "path": "given"}
    local = {"name": "local", "loader": "pope", "images": "images"}
    local["questions"] = ["coco_pope_random.json"]
    settings = project.settings
    project.change(models=[*settings["models"], given], datasets=[*settings["datasets"], local])
    project.run(
        *project.cells(), "results/metrics.csv", "results/claims.json", "results/study.json"
    )
    return folder


@pytest.fixture
def results(whole, tmp_path):
    subprocess.run(["cp", "-a", whole, tmp_path / "study"], check=True)
    return Results(tmp_path / "study")


def flip(path):
    """Alter a byte, and let the file keep its size and times."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def put(source, target):
    """Put a file in another's place, with its checksum, so that it is whole."""
    for one, other in ((source, target), *[tuple(map(files.checksum_file, (source, target)))]):
        shutil.copy2(one, other)


def edit(results, module, old, new):
    path = results / "workflow" / "prunecal" / module
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def trained_weights(results):
    flip(results / "results/models/tiny/weights/model.safetensors")
    return "results/models/tiny/weights/model.safetensors"


def local_weights_swapped(results):
    path = results / "given/model.safetensors"
    status, tensors = path.stat(), load_file(path)
    save_file({name: values * 2 for name, values in tensors.items()}, path, {"format": "pt"})
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    return "given/model.safetensors"


def local_tokenizer(results):
    path = results / "given/tokenizer.json"
    path.write_text(path.read_text().replace("<image>", "<picture>"))
    return "given/tokenizer.json"


def local_file_added(results):
    (results / "given/added_tokens.json").write_text('{"cat": 900}')
    return "given/added_tokens.json"


def local_answer(results):
    path = results / "coco_pope_random.json"
    path.write_text(path.read_text().replace("yes", "no"))
    os.utime(path, ns=(OLD, OLD))
    return "results/datasets/local/questions.parquet"


def local_image(results):
    (results / "images/2.png").write_bytes(png(picture(9)))
    os.utime(results / "images/2.png", ns=(OLD, OLD))
    return "results/datasets/local/questions.parquet"


def questions_cut(results):
    path = results / "results/datasets/polls/questions.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    return "results/datasets/polls/questions.parquet"


def images_of_another_set(results):
    target = results / "results/datasets/polls/images.parquet"
    put(results / "results/datasets/local/images.parquet", target)
    return "results/datasets/polls/images.parquet"


def setting_of_data(results):
    results.settings["datasets"][0]["images"] = 7
    return "results/datasets/polls/questions.parquet"


def setting_of_training(results):
    results.settings["models"][0]["train"]["seed"] = 1
    return "results/models/tiny/manifest.json"


def setting_of_the_model(results):
    results.settings["models"][0]["image"] = "crop"
    return f"{TINY}/features.safetensors", f"{TINY}/saliency/20/predictions.parquet"


def setting_of_inference(results):
    results.settings["inference"]["batch_tokens"] = 100
    return f"{TINY}/saliency/20/predictions.parquet"


def setting_of_budgets(results):
    results.settings["budgets"] = [20]
    return SCORES, "results/study.json"


def setting_of_bins(results):
    results.settings["statistics"]["bins"] = 10
    return SCORES


def setting_of_resamples(results):
    results.settings["statistics"]["resamples"] = 200
    return SCORES


def setting_of_the_level(results):
    results.settings["statistics"]["level"] = 0.9
    return "results/metrics.parquet", "results/comparisons.parquet"


def setting_of_the_title(results):
    results.settings["title"] = "Another title"
    return "results/study.json"


def code_of_inference(results):
    edit(results, "engine/session.py", '"positions", "original"', '"positions", "compact"')
    return f"{TINY}/saliency/20/predictions.parquet"


def code_of_a_strategy(results):
    edit(results, "strategies/saliency.py", "descending=True", "descending=False")
    return f"{TINY}/saliency/ranking.safetensors"


def code_of_scores(results):
    edit(results, "calibration/equal_mass.py", "BLOCK = ", "BLOCK = 1 + ")
    return SCORES


def cell_of_another_budget(results):
    for name in ("predictions.parquet", "provenance.json"):
        put(results / TINY / "saliency/5" / name, results / TINY / "saliency/20" / name)
    return f"{TINY}/saliency/20/predictions.parquet"


def cell_of_another_model(results):
    for name in ("predictions.parquet", "provenance.json"):
        path = f"polls/saliency/20/{name}"
        put(results / "results/given" / path, results / "results/tiny" / path)
    return f"{TINY}/saliency/20/predictions.parquet"


def cell_flipped(results):
    flip(results / TINY / "full/100/predictions.parquet")
    return f"{TINY}/full/100/predictions.parquet"


def cell_without_provenance(results):
    path = results / TINY / "full/100/provenance.json"
    path.unlink()
    files.checksum_file(path).unlink()
    return f"{TINY}/full/100/predictions.parquet"


def ranking_of_another_strategy(results):
    source = results / TINY / "scope-alpha0/ranking.safetensors"
    put(source, results / TINY / "saliency/ranking.safetensors")
    return f"{TINY}/saliency/ranking.safetensors"


def stored_cell(results):
    path = sorted((results / "results/.cells").glob("*/*/predictions.parquet"))[0]
    flip(path)
    return str(path.relative_to(results.folder))


def table_edited(results):
    path = results / "results/metrics.csv"
    path.write_text(path.read_text().replace("saliency", "scope", 1))
    return "results/metrics.csv"


def table_edited_and_recorded(results):
    table_edited(results)
    files.record(results / "results/metrics.csv")
    return "results/metrics.csv"


def scores_of_another_model(results):
    put(results / "results/scores/given/polls.safetensors", results / SCORES)
    return SCORES, "results/metrics.parquet"


def cells_exchanged_beneath_the_tables(results):
    """Let the predictions be others, with all that belongs to them, as another study's run does."""
    path = results / TINY / "full/100/predictions.parquet"
    table = files.read_table(path)
    files.write_table(path, table.slice(0, len(table) - 1), files.read_facts(path))
    note = files.read_json(path.with_name("provenance.json"))
    files.write_json(
        path.with_name("provenance.json"), note | {"predictions_sha256": files.recorded(path)}
    )
    return SCORES, "results/metrics.parquet", "results/comparisons.csv", "results/claims.json"


def claims_of_other_tests(results):
    with (results / "reports/claims.yaml").open("a") as file:
        file.write("# another claim\n")
    return "results/claims.json"


def table_deleted(results):
    (results / "results/detectable.csv").unlink()
    return "results/detectable.csv"


FAULTS = [
    trained_weights,
    local_weights_swapped,
    local_tokenizer,
    local_file_added,
    local_answer,
    local_image,
    questions_cut,
    images_of_another_set,
    setting_of_data,
    setting_of_training,
    setting_of_the_model,
    setting_of_inference,
    setting_of_budgets,
    setting_of_bins,
    setting_of_resamples,
    setting_of_the_level,
    setting_of_the_title,
    code_of_inference,
    code_of_a_strategy,
    code_of_scores,
    cell_of_another_budget,
    cell_of_another_model,
    cell_flipped,
    cell_without_provenance,
    ranking_of_another_strategy,
    stored_cell,
    table_edited,
    table_edited_and_recorded,
    scores_of_another_model,
    cells_exchanged_beneath_the_tables,
    claims_of_other_tests,
    table_deleted,
]


def test_no_sound_file_is_called_bad(results):
    assert results.verify() == (0, "0 damaged files\n")
    for path in results.folder.rglob("*"):
        path.touch()
    shutil.rmtree(results / ".snakemake")
    shutil.rmtree(results / "given")  # where nothing can be known, nothing is held against a file
    shutil.rmtree(results / "images")
    code, said = results.verify()
    assert (code, said.splitlines()[-1]) == (0, "0 damaged files")
    assert "the weights of given are not checked" in said
    assert "data set local is not checked" in said


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_named(results, plant):
    names = plant(results)
    code, said = results.verify()
    assert code == 1
    named = {line.split()[0] for line in said.splitlines() if line.startswith(("results", "given"))}
    assert set([names] if isinstance(names, str) else names) <= named
