"""Data sets come in as their publishers lay them out, or are refused with one clear sentence."""

import errno
import io
import json
import os
from pathlib import Path

import datasets as hf
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from helpers.loopback_hub import SHA, Hub, serve, use
from prunecal.core import disk_errors
from prunecal.core.errors import PrunecalError
from prunecal.datasets import check, pope, scienceqa
from prunecal.sources import hub, safe_paths


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write(path: Path, rows: list[dict], schema: pa.Schema) -> Path:
    """Write parquet in the form of the Hub's copies: an image is its bytes and a file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
    return path


TEXT = pa.string()
IMAGE = pa.struct({"bytes": pa.binary(), "path": TEXT})
POPE = pa.schema(
    {
        **dict.fromkeys(("id", "question_id", "question", "answer", "image_source"), TEXT),
        "image": IMAGE,
        "category": TEXT,
    },
    {"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})},
)
SCIENCEQA = pa.schema(
    {
        "image": IMAGE,
        "question": TEXT,
        "choices": pa.list_(TEXT),
        "answer": pa.int8(),
        **dict.fromkeys(("hint", "task", "grade", "subject", "topic", "category", "skill"), TEXT),
        **dict.fromkeys(("lecture", "solution"), TEXT),
    }
)


def pope_rows() -> list[dict]:
    """Return two subsets, two images, a yes- and a no-question each."""
    rows = []
    for category, absent in (("adversarial", "fork"), ("random", "boat")):
        for number, (image, thing, answer) in enumerate(
            [("a", "dog", "yes"), ("a", absent, "no"), ("b", "cup", "yes"), ("b", absent, "no")]
        ):
            rows.append(
                {
                    "id": str(len(rows)),
                    "question_id": str(number + 1),
                    "question": f"Is there a {thing} in the image?",
                    "answer": answer,
                    "image_source": f"COCO_val2014_{image}",
                    "image": {"bytes": png(ord(image)), "path": None},
                    "category": category,
                }
            )
    return rows


def scienceqa_row(**changes) -> dict:
    row = dict.fromkeys(SCIENCEQA.names, "")
    return {
        **row,
        "image": {"bytes": png(1), "path": None},
        "question": "Which one floats?",
        "choices": ["a stone", "a cork"],
        "answer": 1,
        "subject": "natural science",
        **changes,
    }


@pytest.fixture
def pope_folder(tmp_path) -> Path:
    """Return a folder in the Hub's layout: two shards, and a second copy that is not wanted."""
    rows = pope_rows()
    write(tmp_path / "data" / "test-00000-of-00002.parquet", rows[:3], POPE)
    write(tmp_path / "data" / "test-00001-of-00002.parquet", rows[3:], POPE)
    write(tmp_path / "Full" / "random-00000-of-00001.parquet", rows, POPE)
    return tmp_path


def expected_pope() -> pd.DataFrame:
    ask = "\nAnswer the question using a single word or phrase."
    return pd.DataFrame(
        {
            "question_id": [f"{r['category']}-{r['question_id']}" for r in pope_rows()],
            "image_id": [r["image_source"] for r in pope_rows()],
            "subset": [r["category"] for r in pope_rows()],
            "text": [r["question"] + ask for r in pope_rows()],
            "options": [["Yes", "No"]] * 8,
            "label": [0, 1] * 4,
        }
    )


POPE_IMAGES = [("COCO_val2014_a", png(ord("a"))), ("COCO_val2014_b", png(ord("b")))]


def test_pope_is_read_from_a_folder_in_the_hubs_layout(pope_folder):
    found = pope.load(pope.Params(path=pope_folder))
    pd.testing.assert_frame_equal(found.questions, expected_pope())
    assert list(found.images) == POPE_IMAGES
    check("pope", found.questions)


def test_pope_is_read_from_the_hub_at_its_revision(pope_folder, tmp_path, monkeypatch):
    files = {
        path.relative_to(pope_folder).as_posix(): path.read_bytes()
        for path in pope_folder.rglob("*.parquet")
    }
    remote = Hub("lmms-lab/POPE", "dataset", {**files, "README.md": b"# POPE"})
    remote.faults["data/test-00000-of-00002.parquet"] = "cut"
    remote.faults["data/test-00001-of-00002.parquet"] = "altered"
    with serve(remote) as address:
        use(monkeypatch, address, tmp_path / "cache")
        found = pope.load(pope.Params(revision=SHA))
    pd.testing.assert_frame_equal(found.questions, expected_pope())
    assert list(found.images) == POPE_IMAGES
    assert found.revision == SHA
    assert set(remote.got) == {name for name in files if name.startswith("data/")}


def write_original(folder: Path) -> pope.Params:
    """Write POPE as its authors do: JSON lines that name images of a folder."""
    for row in pope_rows():
        line = {
            "question_id": int(row["question_id"]),
            "image": f"{row['image_source']}.jpg",
            "text": row["question"],
            "label": row["answer"],
        }
        with (folder / f"coco_pope_{row['category']}.json").open("a") as file:
            file.write(json.dumps(line) + "\n")
    for image_id, content in POPE_IMAGES:
        (folder / f"{image_id}.jpg").write_bytes(content)
    return pope.Params(questions=folder, images=folder)


def test_pope_is_read_from_its_authors_files(tmp_path):
    found = pope.load(write_original(tmp_path))
    pd.testing.assert_frame_equal(found.questions, expected_pope())
    assert list(found.images) == POPE_IMAGES


def test_a_list_of_files_keeps_its_order(tmp_path):
    write_original(tmp_path)
    files = [tmp_path / "coco_pope_random.json", tmp_path / "coco_pope_adversarial.json"]
    found = pope.load(pope.Params(questions=files, images=tmp_path))
    assert list(found.questions["subset"].unique()) == ["random", "adversarial"]


def test_the_revision_of_local_files_follows_their_content_not_their_place(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    params = write_original(one), write_original(two)
    assert pope.load(params[0]).revision == pope.load(params[1]).revision
    (two / "COCO_val2014_a.jpg").write_bytes(png(99))
    assert pope.load(params[0]).revision != pope.load(params[1]).revision


def real_pope() -> Path | None:
    """Return the folder of POPE's official files: PRUNECAL_POPE, or beside the checkout."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data" / "pope"
    folder = Path(os.environ.get("PRUNECAL_POPE", beside))
    return folder if list(folder.glob("coco_pope_*.json")) else None


@pytest.mark.skipif(real_pope() is None, reason="no POPE files: set PRUNECAL_POPE to their folder")
def test_the_official_files_hold_9000_rows_and_5127_distinct_pairs(tmp_path):
    names = set()
    for path in real_pope().glob("*.json"):
        names |= {json.loads(line)["image"] for line in path.read_text().splitlines()}
    for number, name in enumerate(sorted(names)):
        (tmp_path / name).write_bytes(png(number))  # stand-ins
    found = pope.load(pope.Params(questions=real_pope(), images=tmp_path))
    check("pope", found.questions)
    questions = found.questions
    assert len(questions) == 9000
    assert questions["subset"].value_counts().to_dict() == dict.fromkeys(
        ("random", "popular", "adversarial"), 3000
    )
    assert (questions["label"] == 0).sum() == 4500
    assert len(questions.drop_duplicates(["image_id", "text"])) == 5127
    assert [image_id for image_id, _ in found.images] == list(questions["image_id"].unique())
    assert questions["image_id"].nunique() == 500
    assert found.edition.startswith("release 3 of three, commit 109985c: 9,000 questions, 5,127 d")


def polls(rows, distinct, random=3000):
    """Return questions of three subsets in which some pairs of image and text repeat."""
    texts = [f"text {number}" for number in range(distinct)]
    texts += texts[: rows - distinct]
    subsets = ["random"] * random + ["popular"] * (rows - random)
    pairs = zip(texts, subsets, strict=True)
    return [{"image_id": "i", "text": text, "subset": subset} for text, subset in pairs]


@pytest.mark.parametrize(
    ("questions", "source", "expected"),
    [
        (polls(8910, 5000, 2910), "coco", "release 1 of three, commit e3e3926: 8,910 questions"),
        (polls(9000, 5170), "coco", "release 2 of three, commit edebdda, as on the Hub: 9,000 q"),
        (polls(9000, 5127), "coco", "release 3 of three, commit 109985c: 9,000 questions, 5,127"),
        (polls(8999, 5127), "coco", "no complete release: 8,999 questions, 5,127 distinct pairs"),
        (polls(9000, 5127), "gqa", "the questions about images of gqa: 9,000 questions, 5,127"),
    ],
)
def test_pope_says_which_of_its_releases_it_is(questions, source, expected):
    assert pope.edition(questions, source).startswith(expected)


def test_scienceqa_keeps_questions_with_an_image_and_their_letters(tmp_path):
    rows = [
        scienceqa_row(image=None),
        scienceqa_row(hint="Think of density."),
        scienceqa_row(choices=list("pqrst"), answer=4, subject="social science"),
        scienceqa_row(image={"bytes": png(2), "path": None}, hint=None),
    ]
    write(tmp_path / "data" / "test-00000-of-00001-abc.parquet", rows, SCIENCEQA)
    write(tmp_path / "data" / "train-00000-of-00001-abc.parquet", rows, SCIENCEQA)
    found = scienceqa.load(scienceqa.Params(path=tmp_path))
    questions = found.questions
    check("scienceqa", questions)
    assert list(questions["question_id"]) == ["row-1", "row-2", "row-3"]
    assert list(questions["subset"]) == ["natural science", "social science", "natural science"]
    assert list(questions["options"]) == [["A", "B"], ["A", "B", "C", "D", "E"], ["A", "B"]]
    assert list(questions["label"]) == [1, 4, 1]
    assert questions["text"][0].startswith("Context: Think of density.\nWhich one floats?\nA. a st")
    assert questions["text"][2].startswith("Which one floats?\nA. a stone\nB. a cork\nAnswer with")
    ids = list(questions["image_id"])
    assert ids[0] == ids[1] != ids[2], "the same picture is the same image"
    assert list(found.images) == [(ids[0], png(1)), (ids[2], png(2))]


@pytest.mark.parametrize(
    ("choices", "fault"),
    [
        (["a stone", "a stone"], "two equal choices"),
        (["a stone", "a cork", "a cork "], "two equal choices"),
        (["caf\u00e9", "cafe\u0301"], "two equal choices"),
        (["a stone", ""], "an empty choice"),
        (["a stone", " \u00a0"], "an empty choice"),
    ],
)
def test_choices_that_leave_no_single_right_letter_are_refused_by_question(
    tmp_path, choices, fault
):
    rows = [scienceqa_row(), scienceqa_row(choices=choices, answer=0)]
    write(tmp_path / "test-0.parquet", rows, SCIENCEQA)
    with pytest.raises(PrunecalError, match=f"question 'row-1' has {fault} among"):
        scienceqa.load(scienceqa.Params(path=tmp_path))


def test_choices_that_differ_in_case_alone_are_asked(tmp_path):
    write(
        tmp_path / "test-0.parquet", [scienceqa_row(choices=["Peter Pan", "peter pan"])], SCIENCEQA
    )
    assert len(scienceqa.load(scienceqa.Params(path=tmp_path)).questions) == 1


def test_scienceqa_is_read_from_the_hub(tmp_path, monkeypatch):
    path = write(tmp_path / "test.parquet", [scienceqa_row()], SCIENCEQA)
    files = {"data/test-00000-of-00001.parquet": path.read_bytes()}
    with serve(Hub("derek-thomas/ScienceQA", "dataset", files)) as address:
        use(monkeypatch, address, tmp_path / "cache")
        found = scienceqa.load(scienceqa.Params(revision=SHA))
        assert hub.locate("derek-thomas/ScienceQA", SHA, "dataset", ["data/test-*.parquet"])
    assert len(found.questions) == 1
    assert list(found.images)[0][1] == png(1)


def write_plain(path: Path, row: dict) -> None:
    """Write one row as any other program would, without the datasets library's metadata."""
    with path.open("wb") as file:
        pq.write_table(pa.table({name: pa.array([value]) for name, value in row.items()}), file)


def test_plain_parquet_without_the_librarys_metadata_is_read_too(tmp_path):
    write_plain(tmp_path / "test-0.parquet", scienceqa_row())
    found = scienceqa.load(scienceqa.Params(path=tmp_path))
    assert [content for _, content in found.images] == [png(1)]


@pytest.mark.parametrize("loader", [pope, scienceqa])
def test_the_hubs_copy_is_pinned_by_default_and_another_must_be(loader):
    params = loader.Params()
    assert params.repo == loader.Params.REPO
    assert len(params.revision) == 40
    assert loader.Params(**params.model_dump(mode="json")) == params
    with pytest.raises(ValidationError, match="give the revision"):
        loader.Params(repo="someone/else")


@pytest.mark.parametrize("loader", [pope, scienceqa])
def test_two_sources_are_refused(loader):
    with pytest.raises(ValidationError, match="give one of repo, path"):
        loader.Params(path="here", repo="someone/else", revision=SHA)


def test_questions_without_images_are_refused():
    with pytest.raises(ValidationError, match="`questions` and `images` together"):
        pope.Params(questions="here")


def spoil(folder: Path, text: str, change: str) -> None:
    path = folder / "coco_pope_random.json"
    path.write_text(path.read_text().replace(text, change, 1))


@pytest.mark.parametrize(
    ("text", "change", "message"),
    [
        ('"label": "no"', '"label": "maybe"', "random.json line 2: the answer is 'maybe'; make it"),
        ('"label"', '"lable"', "random.json line 1 lacks 'label'; give it"),
        ("}", "", "random.json line 1 is not JSON .*; correct the line"),
        ('"question_id": 1', '"question_id": true', "line 1 has True as its 'question_id'"),
        ("Is there a dog in the image?", "  ", "line 1 has '  ' as its 'text'; give it"),
        ("{", "[{", "random.json line 1 is not JSON .*; correct the line"),
        ("2014_a.jpg", "2014_zzz.jpg", "zzz.jpg is missing; put it there .*1 of the 3 images"),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, change, message):
    params = write_original(tmp_path)
    spoil(tmp_path, text, change)
    with pytest.raises(PrunecalError, match=message):
        pope.load(params)


@pytest.mark.parametrize(
    ("source", "image"), [("gqa", "2405722.jpg"), ("aokvqa", "COCO_val2014_000000461331.jpg")]
)
def test_pope_of_other_sources_than_coco_loads_from_its_original_files(tmp_path, source, image):
    (tmp_path / image).write_bytes(png(1))
    for subset, answer in (("random", "no"), ("adversarial", "yes")):
        line = {"question_id": 1, "image": image, "text": "Is there a dog?", "label": answer}
        (tmp_path / f"{source}_pope_{subset}.json").write_text(json.dumps(line) + "\n")
    dataset = pope.load(pope.Params(questions=tmp_path, images=tmp_path))
    check("pope", dataset.questions)
    assert dataset.questions["question_id"].tolist() == ["adversarial-1", "random-1"]
    assert dataset.questions["label"].tolist() == [0, 1]
    assert list(dataset.images) == [(image.removesuffix(".jpg"), png(1))]


def test_files_of_two_sources_in_one_folder_are_refused(tmp_path):
    line = {"question_id": 1, "image": "a.png", "text": "Is there a dog?", "label": "no"}
    for source in ("coco", "gqa"):
        (tmp_path / f"{source}_pope_random.json").write_text(json.dumps(line))
    with pytest.raises(PrunecalError, match="are both of the subset 'random'"):
        pope.load(pope.Params(questions=tmp_path, images=tmp_path))


def test_scienceqa_in_the_layout_of_lmms_lab_loads(tmp_path):
    rows = [scienceqa_row(), scienceqa_row(image=None), scienceqa_row(answer=0)]
    for name in ("ScienceQA-IMG", "ScienceQA-FULL"):
        write(tmp_path / name / "test-00000-of-00001.parquet", rows, SCIENCEQA)
    for files, folder in (
        ("ScienceQA-FULL/test-*.parquet", tmp_path),
        ("data/test-*.parquet", tmp_path / "ScienceQA-IMG"),
    ):
        dataset = scienceqa.load(scienceqa.Params(path=folder, files=files))
        check("scienceqa", dataset.questions)
        assert dataset.questions["question_id"].tolist() == ["row-0", "row-2"]
        assert dataset.questions["label"].tolist() == [1, 0]
        assert len(list(dataset.images)) == 1


def test_a_folder_without_question_files_is_named(tmp_path):
    with pytest.raises(PrunecalError, match=r"has no \*_pope_\*.json; give `questions:`"):
        pope.load(pope.Params(questions=tmp_path, images=tmp_path))


def test_a_question_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PrunecalError, match="nowhere.json is missing; give `questions:`"):
        pope.load(pope.Params(questions=tmp_path / "nowhere.json", images=tmp_path))


def json_lines(folder: Path, names: list[str], file: str = "coco_pope_random.json") -> pope.Params:
    """Write a question on each image, and images of those names whose bytes all differ."""
    lines = [
        {"question_id": number, "image": name, "text": "Is there a dog?", "label": "yes"}
        for number, name in enumerate(names)
    ]
    (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(number))
    return pope.Params(questions=folder, images=folder)


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["train/0001.png", "val/0001.png"], ["train/0001.png", "val/0001.png"]),
        (["1.jpg", "1.png", "2.png"], ["1.jpg", "1.png", "2"]),
        (["v1.0", "v1.1"], ["v1.0", "v1.1"]),
        (["v1.0.png", "v1.1.png"], ["v1.0", "v1.1"]),
        (["a.png", "a.png.jpg", "b/a"], ["a.png", "a.png.jpg", "b/a"]),
        ([".png", "x/.png"], [".png", "x/.png"]),
    ],
)
def test_two_image_names_are_two_images(tmp_path, names, ids):
    found = pope.load(json_lines(tmp_path, names))
    assert list(found.questions["image_id"]) == ids
    assert list(found.images) == [(image, png(number)) for number, image in enumerate(ids)]
    rows = [
        {**pope_rows()[0], "question_id": str(number), "image_source": name}
        | {"image": {"bytes": png(number), "path": None}}
        for number, name in enumerate(names)
    ]
    write(tmp_path / "test-0.parquet", rows, POPE)
    found = pope.load(pope.Params(path=tmp_path))
    assert list(found.questions["image_id"]) == ids
    assert list(found.images) == [(image, png(number)) for number, image in enumerate(ids)]


def test_one_name_written_in_two_ways_is_one_image(tmp_path):
    json_lines(tmp_path, ["x/a.png"])
    path = tmp_path / "coco_pope_random.json"
    line = json.loads(path.read_text())
    other = {**line, "question_id": 1, "image": "x/./a.png"}
    path.write_text(json.dumps(line) + "\n" + json.dumps(other))
    found = pope.load(pope.Params(questions=tmp_path, images=tmp_path))
    assert list(found.questions["image_id"]) == ["a", "a"]
    assert list(found.images) == [("a", png(0))]


def test_another_picture_under_a_name_that_is_taken_is_refused(tmp_path):
    rows = pope_rows()
    same = io.BytesIO()  # other bytes, the same pixels
    Image.open(io.BytesIO(png(ord("a")))).save(same, "PNG", compress_level=1)
    assert same.getvalue() != png(ord("a"))
    rows[1]["image"] = {"bytes": same.getvalue(), "path": None}
    write(tmp_path / "test-0.parquet", rows, POPE)
    assert list(pope.load(pope.Params(path=tmp_path)).images) == POPE_IMAGES
    rows[5]["image"] = {"bytes": png(7), "path": None}
    write(tmp_path / "test-0.parquet", rows, POPE)
    message = "row 5 has another image .* under the name 'COCO_val2014_a'; give each"
    with pytest.raises(PrunecalError, match=message):
        list(pope.load(pope.Params(path=tmp_path)).images)


def test_two_files_of_one_subset_are_refused(tmp_path):
    for folder, name in (("a", "coco_pope_random.json"), ("b", "other_random.jsonl")):
        (tmp_path / folder).mkdir()
        json_lines(tmp_path / folder, [f"{folder}.png"], name)
    files = [tmp_path / "a" / "coco_pope_random.json", tmp_path / "b" / "other_random.jsonl"]
    with pytest.raises(PrunecalError, match=r"b/other_random.* and .*a/coco_pope_random.*'random'"):
        pope.load(pope.Params(questions=files, images=tmp_path / "a"))


def test_copies_that_an_editor_keeps_are_not_read(tmp_path):
    params = json_lines(tmp_path, ["a.png"])
    for ending in ("~", ".bak", ".orig"):
        (tmp_path / f"coco_pope_random.json{ending}").write_text("{}")
    assert len(pope.load(params).questions) == 1


@pytest.mark.parametrize("space", ["\u2028", "\u2029", "\x85", "\u000b", "\x1c", "\x1e"])
def test_a_line_ends_at_a_line_feed_alone(tmp_path, space):
    params = json_lines(tmp_path, ["a.png", "b.png"])
    path = tmp_path / "coco_pope_random.json"
    text = space if space.isprintable() or ord(space) > 31 else json.dumps(space)[1:-1]
    path.write_text(path.read_text().replace("a dog", f"a{text}dog"), encoding="utf-8")
    assert list(pope.load(params).questions["text"].str.contains(f"a{space}dog")) == [True, True]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text + b"\n  \n",
        lambda text: text.replace(b"\n", b"\n\n"),
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.removesuffix(b"\n"),
    ],
    ids=["byte-order mark", "blank last lines", "blank lines", "CRLF", "no last line feed"],
)
def test_harmless_forms_of_text_files_are_read(tmp_path, change):
    params = json_lines(tmp_path, ["a.png", "b.png"])
    before = pope.load(params).questions
    path = tmp_path / "coco_pope_random.json"
    path.write_bytes(change(path.read_bytes()))
    pd.testing.assert_frame_equal(pope.load(params).questions, before)


def test_a_key_that_is_repeated_and_text_that_is_not_utf_8_are_named(tmp_path):
    params = json_lines(tmp_path, ["a.png"])
    path = tmp_path / "coco_pope_random.json"
    path.write_text(path.read_text().replace('"label"', '"label": "no", "label"'))
    with pytest.raises(PrunecalError, match="line 1 is not JSON .a key is repeated.; correct"):
        pope.load(params)
    path.write_text('{"label": "é"}', encoding="utf-16")
    with pytest.raises(PrunecalError, match="random.json line 1 is not UTF-8 text"):
        pope.load(params)


LITERAL = [
    "set[1]",
    "what?",
    "s*",
    "a::b",
    "file:",
    "o'brien",
    'a "b"',
    "with{brace}",
    "{}",
    "$(x)",
]


@pytest.mark.parametrize("name", [*LITERAL, "$(x)", "https:", "a%20b", "~"])
def test_local_paths_are_literal(tmp_path, name):
    for folder, seed in ((name, 1), ("set1", 2), ("whatx", 3), ("sx", 4)):
        (tmp_path / folder / "data").mkdir(parents=True)
        row = scienceqa_row(image={"bytes": png(seed), "path": None})
        write_plain(tmp_path / folder / "data" / "test-0.parquet", row)
    found = scienceqa.load(scienceqa.Params(path=tmp_path / name))
    assert [content for _, content in found.images] == [png(1)]
    found = pope.load(json_lines(tmp_path / name, ["[x].png"]))
    assert [content for _, content in found.images] == [png(0)]


def test_a_file_that_is_named_exactly_is_that_file(tmp_path):
    for name, seed in (("test[1].parquet", 1), ("test1.parquet", 2)):
        row = scienceqa_row(image={"bytes": png(seed), "path": None})
        write(tmp_path / name, [row], SCIENCEQA)
    found = scienceqa.load(scienceqa.Params(path=tmp_path, files="test[1].parquet"))
    assert [content for _, content in found.images] == [png(1)]


def test_local_parquet_is_read_without_a_cache(tmp_path, monkeypatch):
    write(tmp_path / "test-0.parquet", [scienceqa_row()], SCIENCEQA)
    cache = tmp_path / "cache"
    for name in ("HF_HOME", "HF_DATASETS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(cache))
    found = scienceqa.load(scienceqa.Params(path=tmp_path))
    assert len(list(found.images)) == 1
    assert not cache.exists()


@pytest.mark.parametrize("code", ["EACCES", "EIO", "ESTALE", "ENOSPC", "ENOENT"])
def test_a_fault_of_the_disk_is_not_told_as_damaged_data(tmp_path, monkeypatch, code):
    path = write(tmp_path / "test-0.parquet", [scienceqa_row()], SCIENCEQA)
    number = getattr(errno, code)

    def fail(*_, **__):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", fail)
    with pytest.raises((PrunecalError, OSError)) as caught:
        scienceqa.load(scienceqa.Params(path=tmp_path))
    if not isinstance(caught.value, PrunecalError):
        assert disk_errors.fault(caught.value) is not None, "told by cli.run"
    assert "damaged" not in str(caught.value)
    assert "test-0.parquet" in str(caught.value)


def kinds_of_no_file(path: Path) -> None:
    """Put something else than a regular file at a path, by its last letter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.stem[-1]:
        case "p":
            os.mkfifo(path)
        case "d":
            path.symlink_to("/dev/zero")
        case "l":
            path.symlink_to("../../blobs/gone")
        case "f":
            path.mkdir()


def test_links_out_of_a_folder_are_refused_and_those_of_the_hubs_cache_followed(tmp_path):
    snapshot = tmp_path / "repo" / "snapshots" / "abc"
    for folder in (snapshot, tmp_path / "repo" / "blobs", tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
    blob, secret = tmp_path / "repo" / "blobs" / "a1", tmp_path / "elsewhere" / "secret"
    for path, target in ((snapshot / "a", blob), (snapshot / "b", secret), (snapshot / "c", "a")):
        path.symlink_to(target)
    blob.touch()
    secret.touch()
    safe_paths.refuse_links_out(snapshot, [snapshot / "a", snapshot / "c"])
    with pytest.raises(PrunecalError, match=r"abc/b is a link to .*secret, outside of .*abc; put"):
        safe_paths.refuse_links_out(snapshot, [snapshot / "a", snapshot / "b"])


@pytest.mark.parametrize(
    ("letter", "fault"),
    [
        ("p", "is a pipe or device instead of a file"),
        ("d", "is a pipe or device instead of a file"),
        ("l", "is a link to ../../blobs/gone, which does not exist"),
        ("f", "is a folder instead of a file"),
    ],
)
def test_pipes_devices_folders_and_dangling_links_are_named_at_once(tmp_path, letter, fault):
    kinds_of_no_file(tmp_path / "parquet" / f"test-{letter}.parquet")
    with pytest.raises(PrunecalError, match=f"test-{letter}.parquet {fault}; "):
        pope.load(pope.Params(path=tmp_path / "parquet"))
    questions = tmp_path / "questions" / f"coco_pope_{letter}.json"
    kinds_of_no_file(questions)
    with pytest.raises(PrunecalError, match=f"coco_pope_{letter}.json {fault}; "):
        pope.load(pope.Params(questions=[questions], images=tmp_path))
    params = json_lines(tmp_path, [f"{letter}.png"])
    (tmp_path / f"{letter}.png").unlink()
    kinds_of_no_file(tmp_path / f"{letter}.png")
    if letter in "dl":  # it leads out of the folder
        fault = "which is outside"
    with pytest.raises(PrunecalError, match=fault):
        pope.load(params)


def test_a_file_that_vanishes_while_it_is_read_is_named(tmp_path):
    found = pope.load(json_lines(tmp_path, ["a.png", "b.png"]))
    (tmp_path / "b.png").unlink()
    with pytest.raises(PrunecalError, match=r"b.png cannot be read .No such file.*; restore"):
        list(found.images)


def saved(folder: Path, rows: list[dict], features: dict) -> hf.Dataset:
    """Save rows as a user of the datasets library does, in two shards."""
    data = hf.Dataset.from_list(rows, features=hf.Features(features))
    data.save_to_disk(folder, num_shards=2)
    return data


SAVED_SCIENCEQA = {
    "image": hf.Image(),
    "question": hf.Value("string"),
    "choices": hf.List(hf.Value("string")),
    "answer": hf.Value("int8"),
    "hint": hf.Value("string"),
    "subject": hf.Value("string"),
}
MALFORMED = [
    "{}",
    '{"_data_files": 5}',
    '{"_data_files": [{"filename": "a"}, 5]}',
    '{"_data_files": []}',
    '{"_data_files": [{"filename": "../a"}]}',
]


def saved_rows() -> list[dict]:
    rows = [scienceqa_row(question=f"Which is {number}?") for number in range(5)]
    return [{key: row[key] for key in SAVED_SCIENCEQA} for row in rows]


def test_a_data_set_saved_by_the_library_is_read_from_its_folder(tmp_path):
    """As the parquet files of the same rows are; the folder's name is no pattern or address."""
    write(tmp_path / "hub" / "test-0.parquet", saved_rows(), SCIENCEQA)
    expected = scienceqa.load(scienceqa.Params(path=tmp_path / "hub"))
    folder = tmp_path / "mine[1]::x"
    saved(tmp_path / "plain", saved_rows(), SAVED_SCIENCEQA)
    (tmp_path / "plain").rename(folder)
    found = scienceqa.load(scienceqa.Params(path=folder))
    pd.testing.assert_frame_equal(found.questions, expected.questions)
    assert list(found.images) == list(expected.images)
    assert sorted(path.name for path in folder.iterdir()) == [
        "data-00000-of-00002.arrow", "data-00001-of-00002.arrow", "dataset_info.json", "state.json",
    ]  # fmt: skip


def test_of_several_saved_splits_the_one_of_the_pattern_is_read(tmp_path):
    data = saved(tmp_path / "test", saved_rows(), SAVED_SCIENCEQA)
    hf.DatasetDict({"test": data, "validation": data.select([0])}).save_to_disk(tmp_path / "both")
    whole = scienceqa.load(scienceqa.Params(path=tmp_path / "both"))
    one = scienceqa.Params(path=tmp_path / "both", files="data/validation-*.parquet")
    assert (len(whole.questions), len(scienceqa.load(one).questions)) == (5, 1)
    other = scienceqa.Params(path=tmp_path / "both", files="data/train-*.parquet")
    with pytest.raises(PrunecalError, match="no split 'train' .it has: test, validation"):
        scienceqa.load(other)


@pytest.mark.parametrize("state", MALFORMED)
def test_a_saved_folder_whose_list_of_files_is_malformed_is_named(tmp_path, state):
    saved(tmp_path, saved_rows(), SAVED_SCIENCEQA)
    (tmp_path / "state.json").write_text(state)
    with pytest.raises(PrunecalError, match="state.json"):
        scienceqa.load(scienceqa.Params(path=tmp_path))


def test_a_damaged_saved_file_is_named(tmp_path):
    saved(tmp_path, saved_rows(), SAVED_SCIENCEQA)
    path = tmp_path / "data-00001-of-00002.arrow"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(PrunecalError, match="data-00001-of-00002.arrow"):
        list(scienceqa.load(scienceqa.Params(path=tmp_path)).images)


def test_a_folder_without_parquet_files_is_named(tmp_path):
    with pytest.raises(PrunecalError, match=r"has no file data/test-\*.parquet or .*`path:`"):
        scienceqa.load(scienceqa.Params(path=tmp_path))


def test_a_missing_column_is_named(tmp_path):
    schema = POPE.remove(POPE.get_field_index("category"))
    write(tmp_path / "test-0.parquet", pope_rows(), schema)
    with pytest.raises(PrunecalError, match="test-0.parquet lacks the column 'category'; use"):
        pope.load(pope.Params(path=tmp_path))


def test_an_answer_that_is_neither_yes_nor_no_is_named(tmp_path):
    rows = pope_rows()
    rows[5]["answer"] = "perhaps"
    write(tmp_path / "test-0.parquet", rows, POPE)
    with pytest.raises(PrunecalError, match="row 5: the answer is 'perhaps'"):
        pope.load(pope.Params(path=tmp_path))


@pytest.mark.parametrize("cut", [lambda old: old[:-100], lambda old: old[:4] + b"0" * 40])
def test_a_damaged_parquet_file_is_named(pope_folder, cut):
    path = pope_folder / "data" / "test-00001-of-00002.parquet"
    path.write_bytes(cut(path.read_bytes()))
    with pytest.raises(
        PrunecalError, match="test-00001.* is a damaged parquet file .*; copy or download it again"
    ):
        pope.load(pope.Params(path=pope_folder))


def test_a_folder_that_lacks_a_part_of_the_split_is_refused_and_one_part_by_name_is_not(
    pope_folder,
):
    (pope_folder / "data" / "test-00001-of-00002.parquet").unlink()
    with pytest.raises(PrunecalError, match=r"has 1 of the 2 parts of test and lacks part 00001"):
        pope.load(pope.Params(path=pope_folder))
    first = "data/test-00000-of-00002.parquet"
    assert len(pope.load(pope.Params(path=pope_folder, files=first)).questions) == 3


@pytest.mark.parametrize(
    "name", ["test-00000-of-00002 (1).parquet", "test-00000-of-00002-b.parquet"]
)
def test_a_part_that_is_there_twice_is_refused(pope_folder, name):
    part = pope_folder / "data" / "test-00000-of-00002.parquet"
    (part.parent / name).write_bytes(part.read_bytes() + b" ")
    with pytest.raises(PrunecalError, match=r"are both part 00000 of test, .*; remove one"):
        pope.load(pope.Params(path=pope_folder))


def test_a_copy_under_a_name_without_a_number_is_refused(pope_folder):
    part = pope_folder / "data" / "test-00000-of-00002.parquet"
    (part.parent / "test-copy.parquet").write_bytes(part.read_bytes())
    with pytest.raises(PrunecalError, match="test-copy.parquet is a copy of .*would count twice"):
        pope.load(pope.Params(path=pope_folder))


def test_a_pattern_does_not_lead_out_of_its_folder(pope_folder):
    params = pope.Params(path=pope_folder / "data", files="../data/test-*.parquet")
    with pytest.raises(PrunecalError, match="names no files below .*leads out of it"):
        pope.load(params)


def test_a_path_that_no_file_system_takes_is_named(tmp_path):
    with pytest.raises(PrunecalError, match="a{100}"):
        scienceqa.load(scienceqa.Params(path=tmp_path / ("a" * 5000)))


@pytest.mark.parametrize("column", ["question", "subject"])
def test_a_blank_text_is_named(tmp_path, column):
    write_plain(tmp_path / "test-0.parquet", scienceqa_row(**{column: " \n"}))
    with pytest.raises(PrunecalError, match=f"row 0 has no {column}"):
        scienceqa.load(scienceqa.Params(path=tmp_path))


def test_an_image_that_is_not_embedded_is_named(tmp_path):
    row = scienceqa_row(image={"bytes": None, "path": "elsewhere.png"})
    write_plain(tmp_path / "test-0.parquet", row)
    with pytest.raises(PrunecalError, match="images by path only; embed their bytes"):
        scienceqa.load(scienceqa.Params(path=tmp_path))


def good() -> pd.DataFrame:
    return expected_pope()


def spoiled(column: str, row: int, value: object) -> pd.DataFrame:
    questions = good()
    values = questions[column].astype(object).tolist()
    values[row] = value
    return questions.assign(**{column: pd.Series(values, dtype=object)})


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        (good().drop(columns="subset"), "lack the column 'subset'; have its loader"),
        (good().iloc[:0], "there are no questions; check its source"),
        (spoiled("label", 3, 2), r"row 3 .*label 2, outside its options \['Yes', 'No'\]; give"),
        (spoiled("label", 3, -1), "row 3 .*label -1, outside"),
        (spoiled("label", 0, float("nan")), "row 0 .*label nan, outside"),
        (
            spoiled("question_id", 7, "random-1"),
            "row 7 repeats question id 'random-1' of row 4",
        ),
        (spoiled("image_id", 2, None), "row 2 .*has None as its image_id; give it some text"),
        (spoiled("text", 2, " "), "row 2 .*has ' ' as its text"),
        (spoiled("text", 1, "an <image>?"), "row 1 .*holds <image> in its text; take it out"),
        (spoiled("text", 1, "half \ud800"), "row 1 .*unpaired surrogate in its text"),
        (spoiled("subset", 2, "all"), "row 2 .*is in the subset 'all', a name that tables give"),
        (spoiled("subset", 2, "Chosen by outcome: x"), "row 2 .*, a name that tables give"),
        (spoiled("subset", 2, "unique"), "row 2 .*is in the subset 'unique'.*; rename the subset"),
        (spoiled("options", 4, ["Yes", " "]), r"row 4 .*options \['Yes', ' '\]; give each some"),
        (spoiled("options", 4, ["Yes", None]), "row 4 .*; give each some text"),
        (spoiled("options", 4, "Yes,No"), "row 4 .* has 'Yes,No' as its options; give a list of t"),
        (spoiled("options", 4, None), "row 4 .* has None as its options; give a list of texts"),
        (spoiled("options", 4, ["Yes"]), r"row 4 .*options \['Yes'\]; give at least two"),
        (spoiled("options", 4, ["No", "No"]), "row 4 .*give at least two different"),
        (spoiled("options", 4, ["No", "No "]), "row 4 .*give at least two different"),
        (spoiled("options", 4, ["\u00e9", "e\u0301"]), "row 4 .*give at least two different"),
        (spoiled("options", 4, [["No"], ["Yes"]]), "row 4 .*; give each some text"),
        (spoiled("label", 3, 1.0), r"row 3 .*label 1\.0, outside"),
        (spoiled("label", 3, True), "row 3 .*label True, outside"),  # noqa: FBT003
        (spoiled("subset", 2, "All "), "row 2 .*is in the subset 'All '.*; rename the subset"),
        (spoiled("subset", 7, "random "), "the subsets 'random' and 'random ' look the same"),
        (spoiled("subset", 7, "ran\u200bdom"), r"'ran\\u200bdom' look the same"),
        (
            spoiled("question_id", 7, "random-1 "),
            "the ids 'random-1' and 'random-1 ' look the same",
        ),
        (
            spoiled("image_id", 1, good()["image_id"][0] + "\u200b"),
            "the image ids '.*' and '.*' look the same",
        ),
        (spoiled("image_id", 3, "a\0"), r"row 3 .*control character '\\x00' in its image_id"),
        (spoiled("text", 3, "\x1b[2J?"), r"row 3 .*control character '\\x1b' in its text"),
        (spoiled("options", 4, ["No", "\x7f"]), r"row 4 .*character '\\x7f' in its options"),
    ],
)
def test_questions_that_no_stage_could_use_are_named(questions, message):
    with pytest.raises(PrunecalError, match=f"^mine: .*{message}"):
        check("mine", questions)


@pytest.mark.parametrize("original", [False, True], ids=["Hub's layout", "authors' files"])
def test_pope_of_the_first_image_alone_has_its_questions_and_no_others(
    pope_folder, tmp_path_factory, original
):
    source = {"path": pope_folder}
    if original:
        folder = tmp_path_factory.mktemp("original")
        write_original(folder)
        source = {"questions": folder, "images": folder}
    whole = pope.load(pope.Params(**source)).questions
    part = pope.load(pope.Params(**source, first_images=1))
    kept = whole["image_id"] == whole["image_id"][0]
    expected = whole[kept].reset_index(drop=True)
    pd.testing.assert_frame_equal(part.questions.reset_index(drop=True), expected)
    assert [name for name, _ in part.images] == [whole["image_id"][0]]
    assert 0 < len(expected) < len(whole)
