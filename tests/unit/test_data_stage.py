"""The data stage writes questions and images whole, the same bytes each time, or not at all."""

import io
import json
import subprocess
import sys
from argparse import Namespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from prunecal import data, datasets
from prunecal.core.errors import PrunecalError
from prunecal.core.parameters import Parameters
from prunecal.datasets import Dataset, pope
from prunecal.storage import files


def encoded(seed: int, kind: str) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


IMAGES = {"b": encoded(0, "JPEG"), "a": encoded(1, "PNG")}


@pytest.fixture
def source(tmp_path):
    """POPE in its authors' layout: two images, one question each."""
    folder = tmp_path / "source"
    folder.mkdir()
    lines = [
        {"question_id": 1, "image": "b.jpg", "text": "Is there a <b>dog</b>?", "label": "yes"},
        {"question_id": 2, "image": "a.jpg", "text": "Is there a cup?", "label": "no"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "coco_pope_random.json").write_text(text)
    for name, content in IMAGES.items():
        (folder / f"{name}.jpg").write_bytes(content)
    return folder


def run(source, out, name="polls"):
    """Run the stage as the workflow does; return its exit status and what it said."""
    params = json.dumps({"questions": str(source), "images": str(source)})
    command = [sys.executable, "-m", "prunecal.data", "--dataset", name, "--loader", "pope"]
    command += ["--params", params, "--questions", str(out / "questions.parquet")]
    command += ["--images", str(out / "images.parquet"), "--log", str(out / "log.txt")]
    return subprocess.run(command, capture_output=True, text=True, cwd="workflow", check=False)


@pytest.fixture(autouse=True)
def _at_root(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)


def test_questions_and_images_are_written_with_what_determines_them(source, tmp_path):
    done = run(source, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    questions = files.read_table(tmp_path / "out" / "questions.parquet")
    assert [str(field.type).replace("element", "item") for field in questions.schema] == [
        *["string"] * 4,
        "list<item: string>",
        "int8",
    ]
    first = questions.to_pylist()[0]
    assert first["text"].startswith("Is there a <b>dog</b>?\n")
    del first["text"]
    assert first == {
        "question_id": "random-1",
        "image_id": "b",
        "subset": "random",
        "options": ["Yes", "No"],
        "label": 0,
    }
    images = files.read_table(tmp_path / "out" / "images.parquet").to_pylist()
    assert images == [{"image_id": name, "bytes": content} for name, content in IMAGES.items()]
    facts = files.read_facts(tmp_path / "out" / "images.parquet")
    assert facts == files.read_facts(tmp_path / "out" / "questions.parquet")
    assert facts["dataset"] == "polls"
    assert facts["loader"] == "pope"
    assert facts["revision"].startswith("sha256:")
    assert str(tmp_path) not in json.dumps(facts)


def test_the_same_source_elsewhere_gives_the_same_bytes(source, tmp_path):
    moved = source.rename(tmp_path / "moved").resolve()
    run(moved, tmp_path / "one")
    moved.rename(source)
    run(source, tmp_path / "two")
    for name in ("questions.parquet", "images.parquet"):
        one, two = (tmp_path / folder / name for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("content", [b"no image", IMAGES["a"][:700], IMAGES["b"][:700], b""])
def test_an_image_that_cannot_be_decoded_is_named_and_nothing_is_left(source, tmp_path, content):
    (source / "a.jpg").write_bytes(content)
    out = tmp_path / "out"
    found = pope.load(pope.Params(questions=source, images=source))
    message = "polls: the image 'a' cannot be decoded .*; replace it by a whole PNG or JPEG"
    with pytest.raises(PrunecalError, match=message):
        data.write_images(out / "images.parquet", "polls", found, {})
    assert list(out.iterdir()) == []


def test_a_fault_ends_with_one_sentence_and_the_traceback_in_the_log(source, tmp_path):
    (source / "a.jpg").unlink()
    done = run(source, tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        f"{source}/a.jpg is missing; put it there or correct `images:` (1 of the 2 images "
        f"that the questions name cannot be used)"
    ]
    assert "Traceback" in (tmp_path / "out" / "log.txt").read_text()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["log.txt"]


@pytest.mark.parametrize(
    ("images", "fault"),
    [
        (["b"], "expected the image 'a', got no further image"),
        (["a", "b"], "expected the image 'b', got the image 'a'"),
        (["b", "b"], "expected the image 'a', got the image 'b'"),
        (["b", "a", "a"], "expected no further image, got the image 'a'"),
    ],
)
def test_an_image_out_of_turn_is_named(tmp_path, images, fault):
    questions = pd.DataFrame({"image_id": ["b", "a", "b"]})
    found = Dataset(questions, ((name, IMAGES[name]) for name in images), "1")
    with pytest.raises(PrunecalError, match=fault):
        data.write_images(tmp_path / "images.parquet", "polls", found, {})


def test_images_go_to_disk_a_group_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "GROUP_BYTES", 5_000)
    contents = {str(number): encoded(number, "PNG") for number in range(9)}
    assert all(2_500 < len(content) < 5_000 for content in contents.values()), "two to a group"
    found = Dataset(pd.DataFrame({"image_id": list(contents)}), contents.items(), "1")
    assert data.write_images(tmp_path / "images.parquet", "polls", found, {}) == 9
    assert pq.ParquetFile(tmp_path / "images.parquet").num_row_groups == 5
    table = files.read_table(tmp_path / "images.parquet")
    assert dict(zip(*table.to_pydict().values(), strict=True)) == contents


def test_an_unknown_setting_is_named(tmp_path):
    arguments = ["--dataset", "polls", "--loader", "pope", "--params", '{"split": "x"}']
    arguments += ["--questions", str(tmp_path / "q"), "--images", str(tmp_path / "i")]
    done = subprocess.run(
        [sys.executable, "-m", "prunecal.data", *arguments],
        capture_output=True,
        text=True,
        cwd="workflow",
        check=False,
    )
    assert done.returncode == 1
    assert "data set polls: 'split' is unknown; known are wording, repo" in done.stderr


@pytest.mark.parametrize(
    ("options", "label"), [(129, 0), (200, 150), (128, 128)], ids=["129", "200", "no such label"]
)
def test_options_beyond_what_a_column_holds_are_refused(tmp_path, options, label):
    row = {"question_id": "1", "image_id": "b", "subset": "s", "text": "Which?", "label": label}
    questions = pd.DataFrame([{**row, "options": [f"o{number}" for number in range(options)]}])
    with pytest.raises(PrunecalError, match="row 0 .*(at most 128|outside its options)"):
        datasets.check("many", questions)


def test_as_many_options_as_a_column_holds_are_written(tmp_path):
    row = {"question_id": "1", "image_id": "b", "subset": "s", "text": "Which?", "label": 127}
    questions = pd.DataFrame([{**row, "options": [f"o{number}" for number in range(128)]}])
    datasets.check("many", questions)
    assert data.questions_table(questions)["label"].to_pylist() == [127]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned an object of the type NoneType; have it return Dataset(questions, im"),
        ((pd.DataFrame(), [], "1"), "returned an object of the type tuple; have it return Data"),
        (Dataset([], [], "1"), "returned questions of the type list; have it return Dataset"),
        (Dataset(pd.DataFrame(), [], None), "returned the revision None; have it return Dataset("),
    ],
)
def test_what_a_loader_returns_is_refused_unless_it_is_a_pinned_data_set(
    monkeypatch, returned, message
):
    def load(params):
        return returned

    monkeypatch.setattr(pope, "load", load)
    monkeypatch.setattr(pope, "Params", Parameters)
    with pytest.raises(PrunecalError) as caught:
        data.main(Namespace(dataset="mine", loader="pope", params="{}"))
    assert str(caught.value).startswith(f"`load` of {pope.__file__} {message}")


def test_settings_that_are_no_json_are_refused(tmp_path):
    with pytest.raises(PrunecalError, match="--params '{images: 8}' is no JSON .* double quotes"):
        data.main(Namespace(dataset="mine", loader="pope", params="{images: 8}"))
