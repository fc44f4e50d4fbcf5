"""Whatever a data set's files hold, the data stage makes questions of it or names what is wrong."""

import argparse
import io
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from helpers.fuzzing import NUMBERS, WORDS, damaged, fuzzed, json_text, result_or_sentence, spoilt
from prunecal import data
from prunecal.sources import image_files
from prunecal.storage import files


def picture(kind="PNG"):
    file = io.BytesIO()
    Image.effect_noise((9, 8), 60).convert("RGB").save(file, kind)
    return file.getvalue()


PICTURES = [picture(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")]
POPE = [
    {
        "question_id": str(number),
        "question": f"Is there a {thing} in the image?",
        "answer": ("yes", "no")[number % 2],
        "image_source": f"COCO_{number // 2}",
        "image": {"bytes": PICTURES[number // 2], "path": None},
        "category": "random",
    }
    for number, thing in enumerate(["dog", "fork", "cup", "boat"])
]
SCIENCEQA = [
    {
        "image": {"bytes": PICTURES[0], "path": None} if number else None,
        "question": "Which one floats?",
        "choices": ["a stone", "a cork", "a cup"][: 2 + number % 2],
        "answer": number % 2,
        "hint": "One is light." if number else None,
        "subject": "natural science",
    }
    for number in range(4)
]
LINES = [
    {"question_id": number, "image": f"{number % 2}.png", "text": "Is it?", "label": "no"}
    for number in range(4)
]


@fuzzed(15)
@given(content=st.sampled_from(PICTURES).flatmap(damaged))
@example(content=PICTURES[0])
def test_any_picture(content):
    image = result_or_sentence(image_files.decoded, "images.parquet", "one", content)
    assert image is None or image.size[0] > 0
    if content == PICTURES[0]:
        assert image.size == (9, 8)


SOUND_WORDS = WORDS.filter(lambda word: not any("\ud800" <= sign <= "\udfff" for sign in word))
KINDS = {  # Arrow's type, values
    "texts": (pa.string(), SOUND_WORDS),
    "large texts": (pa.large_string(), SOUND_WORDS),
    "whole numbers": (pa.int64(), st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 6)),
    "numbers": (pa.float64(), NUMBERS.filter(lambda number: isinstance(number, float))),
    "truths": (pa.bool_(), st.booleans()),
    "bytes": (pa.binary(), st.binary(max_size=20) | st.sampled_from(PICTURES)),
    "nothing": (pa.null(), st.none()),
    "lists": (pa.list_(pa.string()), st.lists(SOUND_WORDS | st.none(), max_size=7)),
    "lists of numbers": (pa.list_(pa.int8()), st.lists(st.integers(-128, 127), max_size=3)),
    "pictures": (
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        st.fixed_dictionaries(
            {
                "bytes": st.none() | st.sampled_from(PICTURES).flatmap(damaged),
                "path": st.none() | SOUND_WORDS,
            }
        ),
    ),
    "other pairs": (pa.struct([("x", pa.int8())]), st.fixed_dictionaries({"x": st.just(1)})),
}
OWN = {"image": "pictures", "choices": "lists", "answer": "whole numbers"}  # else texts


@st.composite
def tables(draw, rows):
    """Return a table of a data set of which one or two columns are not as they should be."""
    table = pa.Table.from_pylist(rows)
    for name in draw(st.sets(st.sampled_from(table.column_names), min_size=1, max_size=2)):
        deed = draw(st.sampled_from(["own kind", "own kind", "other kind", "no column"]))
        at = table.column_names.index(name)
        if deed == "no column":
            table = table.remove_column(at)
            continue
        kind, values = KINDS[
            OWN.get(name, "texts")
            if deed == "own kind" and name != "answer"
            else draw(st.sampled_from(list(KINDS)))
        ]
        count = len(rows)
        column = draw(st.lists(values | st.none(), min_size=count, max_size=count))
        table = table.set_column(at, name, pa.array(column, kind))
    return table[: draw(st.sampled_from([4, 4, 4, 1, 0]))]


def prepared(loader, folder, params):
    """Run the data stage and return its questions."""
    questions, images = folder / "questions.parquet", folder / "images.parquet"
    data.main(
        argparse.Namespace(
            dataset="mine",
            loader=loader,
            params=json.dumps(params),
            questions=questions,
            images=images,
        )
    )
    found = files.read_table(questions)
    shown = files.read_table(images, ["image_id", "bytes"])
    assert set(found["image_id"].to_pylist()) == set(shown["image_id"].to_pylist())
    assert all(
        label < len(options)
        for label, options in zip(
            found["label"].to_pylist(), found["options"].to_pylist(), strict=True
        )
    )
    return found.to_pylist()


def from_parquet(loader, content):
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if isinstance(content, bytes):
            (folder / "test-0.parquet").write_bytes(content)
        else:
            pq.write_table(content, folder / "test-0.parquet")
        return result_or_sentence(prepared, loader, folder, {"path": str(folder)})


def whole(rows):
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


@fuzzed(15)
@given(content=tables(POPE) | damaged(whole(POPE)))
@example(content=whole(POPE))
def test_any_parquet_file_of_pope(content):
    found = from_parquet("pope", content)
    assert found is None or found[0]["text"].endswith("a single word or phrase.")
    if content == whole(POPE):
        assert len(found) == 4


@fuzzed(15)
@given(content=tables(SCIENCEQA) | damaged(whole(SCIENCEQA)))
@example(content=whole(SCIENCEQA))
def test_any_parquet_file_of_scienceqa(content):
    found = from_parquet("scienceqa", content)
    assert found is None or found[0]["options"][:2] == ["A", "B"]
    if content == whole(SCIENCEQA):
        assert len(found) == 3


def lines(rows):
    return "\n".join(map(json_text, rows)).encode()


@fuzzed(20)
@given(
    content=spoilt(LINES).map(lambda rows: lines(rows) if isinstance(rows, list) else b"{")
    | damaged(lines(LINES)),
    image=st.just(PICTURES[0]) | st.sampled_from(PICTURES).flatmap(damaged),
)
@example(content=lines(LINES), image=PICTURES[0])
@example(content=lines([LINES[0] | {"text": "\ud800"}]), image=PICTURES[0])
@example(content=lines([LINES[0] | {"image": "\ud800.png"}]), image=PICTURES[0])
@example(content=lines([LINES[0] | {"image": "x" * 5000}]), image=PICTURES[0])
def test_any_original_lines_of_pope(content, image):
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        path = folder / "coco_pope_random.json"
        path.write_bytes(content)
        for number in range(2):
            (folder / f"{number}.png").write_bytes(image)
        params = {"questions": str(path), "images": str(folder)}
        found = result_or_sentence(prepared, "pope", folder, params)
    if content == lines(LINES) and image == PICTURES[0]:
        assert len(found) == 4
