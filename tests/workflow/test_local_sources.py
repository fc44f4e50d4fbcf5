"""Models and data sets in local folders are inputs: changed files are read again."""

import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

DATA = "results/datasets/local/questions.parquet"
MODEL = "results/models/given/manifest.json"


@pytest.fixture(scope="module")
def obtained(undisturbed, tmp_path_factory):
    """Point the small study at a local model and at POPE's original files, and obtain both."""
    project = undisturbed.copy(tmp_path_factory.mktemp("local") / "study")
    folder = project.folder
    shutil.copytree(folder / "results" / "models" / "tiny" / "weights", folder / "given")
    (folder / "images").mkdir()
    lines = []
    for number in range(2):
        name = f"COCO_val2014_{number:012d}.jpg"
        (folder / "images" / name).write_bytes(png(number))
        row = {"question_id": number, "image": name, "text": "Is there a cat?", "label": "yes"}
        lines.append(json.dumps(row))
    (folder / "coco_pope_random.json").write_text("\n".join(lines))
    data = {"name": "local", "loader": "pope", "images": "images"}
    data["questions"] = ["coco_pope_random.json"]
    model = {"name": "given", "family": "llava", "visual_tokens": 100, "path": "given"}
    project.change(models=[model], datasets=[data])
    project.run(DATA, MODEL)
    return project


@pytest.fixture
def local(obtained, tmp_path):
    """Return a copy of that study."""
    return obtained.copy(tmp_path / "study")


def png(value):
    content = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(content, "PNG")
    return content.getvalue()


def test_changed_local_files_are_read_again_and_touched_ones_are_not(local):
    for path in [*local.folder.glob("images/*"), *local.folder.glob("given/*")]:
        os.utime(path)
    os.utime(local.folder / "coco_pope_random.json")
    assert local.plan(DATA, MODEL) == set()
    for name, job in (
        ("images/COCO_val2014_000000000000.jpg", "Prepare the data set local"),
        ("coco_pope_random.json", "Prepare the data set local"),
        ("given/tokenizer.json", "Obtain the model given"),
    ):
        path = local.folder / name
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        assert local.plan(DATA, MODEL) == {job}
        path.write_bytes(content)


def test_local_files_replaced_by_older_ones_are_read_again(local):
    """As `cp -p`, `mv`, `rsync` and `tar` put them there."""
    question, weights = local.folder / "coco_pope_random.json", local.folder / "given/config.json"
    for path, old, new in ((question, "yes", "no"), (weights, "llava", "llama")):
        path.write_text(path.read_text().replace(old, new))
        os.utime(path, ns=(10**18, 10**18))
    assert local.plan(DATA, MODEL) == {"Prepare the data set local", "Obtain the model given"}


def test_a_missing_local_source_is_named_by_the_stage(local):
    shutil.rmtree(local.folder / "images")
    shutil.rmtree(local.folder / "given")
    said = local.run(DATA, MODEL, "--forceall", fails=True)
    assert "given is not a folder; give the model's folder as `path:`" in said
    assert "images" in said
    assert "MissingInputException" not in said
