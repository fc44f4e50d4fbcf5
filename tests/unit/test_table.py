"""Tables of any benchmark load as the study names their columns, or are refused by file and row."""

import base64
import csv
import json
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from helpers import benchmarks
from helpers.benchmarks import png, text
from prunecal.core.errors import PrunecalError
from prunecal.datasets import table

LETTER = "\nAnswer with the option's letter from the given choices directly."
WORD = "\nAnswer the question using a single word or phrase."
SHAPES = {"question": "Which shape?", "choices": ["disc", "square", "star"]}
load = partial(benchmarks.load, table)
refusal = partial(benchmarks.refusal, table)


def struct(seed: int) -> dict:
    return {"bytes": png(seed), "path": f"{seed}.png"}


def parquet(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def delimited(path: Path, rows: list[dict]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(
            file, list(rows[0]), delimiter="," if path.suffix == ".csv" else "\t"
        )
        writer.writeheader()
        writer.writerows(rows)
    return path


# -- the layouts of benchmarks, from their published schemas ---------------------------------------


def test_seed_bench_of_lmms_lab_has_a_list_of_one_image_and_choices_in_columns(tmp_path):
    row = {
        "answer": "B", "choice_a": "One", "choice_b": "Two", "choice_c": "Three",
        "choice_d": "Four", "data_id": "1", "data_type": "image", "question": "How many?",
        "question_id": "7", "question_type_id": 5, "image": [struct(1)], "segment": None,
    }  # fmt: skip
    (question,), images = load(
        parquet(tmp_path / "seed.parquet", [row]),
        options=[f"choice_{letter}" for letter in "abcd"],
        question_id="question_id",
        subset="data_type",
    )
    assert question["text"] == f"How many?\nA. One\nB. Two\nC. Three\nD. Four{LETTER}"
    assert (question["options"], question["label"]) == (list("ABCD"), 1)
    assert (question["question_id"], question["subset"]) == ("7", "image")
    assert images == [(question["image_id"], png(1))]


def test_mmbench_of_lmms_lab_writes_nan_for_missing_choices_and_hints(tmp_path):
    row = {
        "index": 241, "question": "Which?", "hint": "nan", "answer": "A", "A": "cat", "B": "None",
        "C": "nan", "D": "nan", "category": "identity", "image": struct(1), "source": "x",
        "L2-category": "y", "comment": "nan", "split": "dev",
    }  # fmt: skip
    (question,), _ = load(
        parquet(tmp_path / "dev.parquet", [row]),
        options=list("ABCD"),
        hint="hint",
        question_id="index",
        subset="category",
    )
    assert question["text"] == f"Which?\nA. cat\nB. None{LETTER}"
    assert question["question_id"] == "241"


def test_mmstar_holds_its_choices_in_the_question(tmp_path):
    row = {
        "index": 0, "question": "Which?\nOptions: A: a, B: b, C: c, D: d", "image": png(2),
        "answer": "D", "category": "logic", "l2_category": "x", "meta_info": {"source": "s"},
    }  # fmt: skip
    (question,), _ = load(parquet(tmp_path / "val.parquet", [row]), letters=4, subset="category")
    assert question["text"] == row["question"] + LETTER
    assert (question["options"], question["label"]) == (list("ABCD"), 3)


def test_ai2d_writes_an_index_as_text(tmp_path):
    rows = [
        {
            "question": "Which?",
            "options": ["a", "b", "c", "d"],
            "answer": answer,
            "image": struct(1),
        }
        for answer in ("0", "3")
    ]
    questions, images = load(parquet(tmp_path / "test.parquet", rows), options="options")
    assert [question["label"] for question in questions] == [0, 3]
    assert len(images) == 1  # both rows have the same bytes


def test_a_okvqa_has_a_list_and_an_index(tmp_path):
    row = {
        "image": struct(1), "question_id": "22MexNkBPpdZGX6sxbxVBH", "question": "What?",
        "choices": ["ride", "shovel"], "correct_choice_idx": 1, "direct_answers": "['ride']",
    }  # fmt: skip
    other = {**row, "question_id": "x", "correct_choice_idx": 0}
    questions, _ = load(
        parquet(tmp_path / "val.parquet", [row, other]),
        options="choices",
        answer="correct_choice_idx",
        question_id="question_id",
    )
    assert [question["label"] for question in questions] == [1, 0]


def test_blink_writes_letters_in_brackets_and_has_rows_of_several_images(tmp_path):
    row = {
        "idx": "val_Counting_1", "question": "How many?", "sub_task": "Counting",
        "image_1": struct(1), "image_2": None, "choices": ["1", "2"], "answer": "(B)",
    }  # fmt: skip
    (question,), _ = load(
        parquet(tmp_path / "val.parquet", [row]),
        options="choices",
        image="image_1",
        subset="sub_task",
    )
    assert question["label"] == 1


def test_mmmu_writes_options_as_a_python_list_in_text(tmp_path):
    row = {
        "id": "validation_Art_1", "question": "<image 1> Which?", "image_1": struct(1),
        "options": "['It\\'s a', \"b\", 'c', 'd', 'e', 'f']", "answer": "F",
    }  # fmt: skip
    (question,), _ = load(
        parquet(tmp_path / "val.parquet", [row]), options="options", image="image_1"
    )
    assert "A. It's a\n" in question["text"]
    assert question["label"] == 5


def test_hallusion_bench_says_yes_by_1_and_has_rows_without_image(tmp_path):
    rows = [
        {"category": "VD", "question": "Is it?", "gt_answer": "1", "image": struct(1)},
        {"category": "VS", "question": "Is it?", "gt_answer": "0", "image": None},
        {"category": "VD", "question": "Is it not?", "gt_answer": "0", "image": struct(2)},
    ]
    path = parquet(tmp_path / "image.parquet", rows)
    settings = {"form": "yes-no", "answer": "gt_answer", "subset": "category"}
    assert "row 1 has no image" in refusal(path, **settings)
    settings["without_image"] = "skip"
    assert "1 is yes" in refusal(path, **settings)
    questions, _ = load(path, answer_is="flag", **settings)
    assert [question["label"] for question in questions] == [0, 1]
    floats = [row | {"gt_answer": float(row["gt_answer"])} for row in rows]  # nullable in pandas
    path = parquet(tmp_path / "floats.parquet", floats)
    assert load(path, answer_is="flag", **settings)[0] == questions
    assert [question["question_id"] for question in questions] == ["row-0", "row-2"]
    assert questions[0]["text"] == "Is it?" + WORD


# -- forms of files and values ---------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_each_format_gives_the_same_questions(tmp_path, suffix):
    rows = [
        {
            "question": 'A "star", or\tnot?\nSay.',
            "A": "yes,",
            "B": "né",
            "answer": "B",
            "image": text(1),
        },
        {"question": "Which?", "A": "a", "B": "b", "answer": "A", "image": text(2)},
    ]
    path = tmp_path / f"table.{suffix}"
    if suffix == "parquet":
        parquet(path, rows)
    elif suffix == "jsonl":
        lines(path, rows)
    elif suffix == "json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        delimited(path, rows)
    questions, images = load(path, options=["A", "B"])
    assert questions[0]["text"] == f'A "star", or\tnot?\nSay.\nA. yes,\nB. né{LETTER}'
    assert [image for _, image in images] == [png(1), png(2)]


def test_images_are_read_from_files_below_the_folder_that_is_named(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.PNG").write_bytes(png(1))
    path = lines(tmp_path / "t.jsonl", [{**SHAPES, "answer": "star", "image": "a.PNG"}])
    assert "set `images:`" in refusal(path, options="choices")
    questions, images = load(path, options="choices", images=tmp_path / "images")
    assert questions[0]["label"] == 2
    assert images[0][1] == png(1)
    path = lines(tmp_path / "t.jsonl", [{**SHAPES, "answer": "star", "image": "../t.png"}])
    assert "outside" in refusal(path, options="choices", images=tmp_path / "images")
    path = lines(tmp_path / "t.jsonl", [{**SHAPES, "answer": "star", "image": "b.png"}])
    assert "b.png is missing" in refusal(path, options="choices", images=tmp_path / "images")


def test_another_image_behind_the_same_name_is_another_revision(tmp_path):
    path = lines(tmp_path / "t.jsonl", [{**SHAPES, "answer": "star", "image": "a.png", "id": "a"}])
    revisions = set()
    for seed in (1, 2):
        (tmp_path / "a.png").write_bytes(png(seed))
        params = table.Params(path=path, options="choices", images=tmp_path, image_id="id")
        revisions.add(table.load(params).revision)
    assert len(revisions) == 2


def test_one_name_for_two_images_is_refused_by_both_rows(tmp_path):
    rows = [{**SHAPES, "answer": "star", "image": text(seed), "id": "a"} for seed in (1, 1, 2)]
    message = refusal(lines(tmp_path / "t.jsonl", rows), options="choices", image_id="id")
    assert "line 3 has another image than" in message
    assert "line 1 under the name 'a'" in message


def test_an_image_that_is_none_is_told_by_its_row(tmp_path):
    from prunecal import data

    rows = [{**SHAPES, "answer": "star", "image": base64.b64encode(b"no image" * 9).decode()}]
    dataset = table.load(table.Params(path=lines(tmp_path / "t.jsonl", rows), options="choices"))
    with pytest.raises(PrunecalError, match=r"t.jsonl line 1: the image .* cannot be decoded"):
        data.write_images(tmp_path / "images.parquet", "test", dataset, {})


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "expected"),
    [(["A", "c"], [0, 2]), ([0, 2], [0, 2]), (["square", "Star"], [1, 2]), (["0", "1"], [0, 1])],
)
def test_answers_are_read_as_letter_index_or_text(tmp_path, answers, expected):
    rows = [{**SHAPES, "answer": answer, "image": text(1)} for answer in answers]
    questions, _ = load(lines(tmp_path / "t.jsonl", rows), options="choices")
    assert [question["label"] for question in questions] == expected


def test_answers_that_can_be_read_in_two_ways_are_refused(tmp_path):
    row = {"question": "Which?", "choices": ["B", "A"], "answer": "A", "image": text(1)}
    path = lines(tmp_path / "t.jsonl", [row])
    assert "can be read as letter or as text" in refusal(path, options="choices")
    assert load(path, options="choices", answer_is="text")[0][0]["label"] == 1
    rows = [{**SHAPES, "answer": answer, "image": text(1)} for answer in (1, 2)]
    path = lines(tmp_path / "t.jsonl", rows)
    assert "counted from 0 or from 1" in refusal(path, options="choices")
    assert [q["label"] for q in load(path, options="choices", answer_is="number")[0]] == [0, 1]


@pytest.mark.parametrize(
    ("rows", "reading", "expected"),
    [
        ([("1.0 2.0 4.0", one) for one in ("2.0", "1.0", "1.0")], None, [1, 0, 0]),
        ([("1.0 2.0 4.0", "2.0"), ("0.0 2.5 0.5", "0.0")], None, [1, 0]),
        ([("a b c", "2.0"), ("0.5 1.5 d", "0.0")], None, [2, 0]),
        ([("1.0 2.0 4.0", "2.0"), ("a b c", "0.0")], "index", [2, 0]),
        ([("1 2 4", "2.0"), ("1 2 4", "1.0")], "text", [1, 0]),
    ],
)
def test_decimal_options_are_answers_by_their_text(tmp_path, rows, reading, expected):
    rows = [{**SHAPES, "choices": a.split(), "answer": b, "image": text(1)} for a, b in rows]
    path = lines(tmp_path / "t.jsonl", rows)
    assert [
        question["label"] for question in load(path, options="choices", answer_is=reading)[0]
    ] == expected


def test_answers_that_may_be_counted_or_be_texts_are_refused_by_all_their_readings(tmp_path):
    row = {**SHAPES, "choices": ["1", "2", "4"], "answer": "2", "image": text(1)}
    words = refusal(lines(tmp_path / "t.jsonl", [row]), options="choices")
    assert "`answer_is: index` or `answer_is: number`, or `answer_is: text`" in words
    mixed = [{**row, "answer": "2.0", "choices": list("abc")}, {**row, "choices": ["2.0", "b"]}]
    words = refusal(lines(tmp_path / "t.jsonl", mixed), options="choices")
    assert "has the answer '2.0', which is no" in words
    assert "set `answer_is: index` if" in words


def test_values_of_where_and_leave_out_are_alike_in_all_formats_or_told(tmp_path, caplog):
    rows = [{**SHAPES, "id": f"{at}.0", "answer": "A", "image": text(at)} for at in (1, 2)]
    path = delimited(tmp_path / "t.csv", rows)
    settings = {"options": "choices", "question_id": "id"}
    (question,), _ = load(path, leave_out={"id": 2}, **settings)
    assert question["question_id"] == "1.0"
    assert "no row has" not in caplog.text
    flags = delimited(tmp_path / "f.csv", [rows[0] | {"x": "Off"}, rows[1] | {"x": "on"}])
    (question,), _ = load(flags, where={"x": False}, **settings)  # `x: off` in YAML
    assert question["question_id"] == "1.0"
    load(path, leave_out={"id": [2, 7, None]}, where={"id": [1, 8]}, **settings)
    told = [one.message for one in caplog.records if one.message.startswith("no row has")]
    assert told == [
        "no row has 8 as its id (where)",
        "no row has 7 as its id (leave_out)",
        "no row has null as its id (leave_out)",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answer": "D"}, "which is no letter, index or text of its 3 options"),
        ({"answer": None}, "has the answer None"),
        ({"choices": "no list"}, "has the options 'no list'; give a list"),
        ({"choices": ["one"]}, "has 1 options"),
        ({"choices": ["red", "red", "blue"]}, "has two equal choices among"),
        ({"choices": ["B. red", "A. blue"]}, "has choices with letters in another order"),
        ({"choices": ["a b", "a\u00a0b"]}, "has two equal choices among"),
        ({"question": " "}, "as its question; give it some text"),
        ({"question": "\u200b"}, "as its question; give it some text"),
        ({"question": "What <image>?"}, "holds <image> in its text"),
        ({"image": [text(1), text(2)]}, "has 2 images"),
        ({"image": "nonsense!"}, "neither base64"),
        ({"image": "\ud800.png"}, "'\\ud800.png'"),
        ({"image": ""}, "has no image"),
        ({"category": " "}, "as its category"),
        ({"category": "all"}, "is in the subset 'all'"),
        ({"id": "first"}, "line 1; give every question its own id"),
    ],
)
def test_a_bad_row_is_refused_by_file_and_line(tmp_path, change, words):
    row = {**SHAPES, "answer": "A", "image": text(1), "category": "x", "id": "first"}
    path = lines(tmp_path / "t.jsonl", [row, {**row, "id": "second", **change}])
    message = refusal(path, options="choices", subset="category", question_id="id")
    assert "t.jsonl line 2" in message
    assert words in message
    assert "\n" not in message


def test_a_column_that_is_not_there_is_told_with_those_that_are(tmp_path):
    for path in (
        lines(tmp_path / "t.jsonl", [{**SHAPES, "image": text(1)}]),
        delimited(tmp_path / "t.csv", [{"question": "x", "image": text(1), "choices": "[]"}]),
        parquet(tmp_path / "t.parquet", [{**SHAPES, "image": png(1)}]),
    ):
        assert f"{path.name} lacks the column 'answer'" in refusal(path, options="choices")
    (tmp_path / "t.csv").write_text("question;image;answer\n")
    words = "t.csv line 1 has values between ';'; save t.csv with ',' between them"
    assert words in refusal(tmp_path / "t.csv", options="choices")


def test_damaged_tables_are_refused_by_line(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("question,choices,answer,image\na,b\n")
    assert "t.csv line 2 has 2 values for 4 columns" in refusal(path, options="choices")
    path.write_text('question,choices,answer,image\n"a"b,c,d,e\n')
    assert "t.csv line 2 cannot be read as csv" in refusal(path, options="choices")
    path.write_text("question,question,answer,image,choices\n")
    assert "more than one column 'question'" in refusal(path, options="choices")
    path.write_text("")
    assert "t.csv is empty" in refusal(path, options="choices")
    path = tmp_path / "t.xlsx"
    path.write_text("")
    assert "is not a table" in refusal(path, options="choices")
    path = tmp_path / "t.jsonl"
    path.write_text("[1]")
    assert "entry 0 is 1; give an object" in refusal(path, options="choices")
    path.write_text('{"a":' + "[" * 200_000)
    assert "t.jsonl line 1 is not JSON" in refusal(path, options="choices")


def test_one_bad_line_does_not_have_the_whole_file_read_again(tmp_path, monkeypatch):
    path = lines(tmp_path / "t.jsonl", [{**SHAPES, "answer": "disc", "image": text(1)}])
    path.write_text(path.read_text() + "{\n")
    monkeypatch.setattr(Path, "read_bytes", None)
    assert "t.jsonl line 2 is not JSON" in refusal(path, options="choices")


def test_settings_that_do_not_go_together_are_refused(tmp_path):
    for settings, words in (
        ({}, "either `path:` or `repo:`"),
        ({"repo": "a/b", "options": "c"}, "give the revision"),
        ({"repo": "a/b", "revision": "0" * 40, "options": "c"}, "give `files:`"),
        ({"repo": "a/b", "revision": "main", "files": "*", "options": "c"}, "give the commit, 40"),
        ({"path": tmp_path}, "either `options:` or"),
        ({"path": tmp_path, "form": "yes-no", "letters": 2}, "name no others"),
        ({"path": tmp_path, "letters": 2, "answer_is": "flag"}, "belongs to `form: yes-no`"),
    ):
        with pytest.raises(ValidationError, match=words):
            table.Params(**settings)
    assert "is a folder; give `files:`" in refusal(tmp_path, letters=2)


def test_a_folder_of_parts_is_one_table(tmp_path):
    for part, answer in enumerate(("disc", "star")):
        rows = [{**SHAPES, "answer": answer, "image": png(part)}]
        parquet(tmp_path / "data" / f"val-{part:05}-of-00002.parquet", rows)
    questions, images = load(tmp_path, files="data/val-*.parquet", options="choices")
    assert [question["label"] for question in questions] == [0, 2]
    assert [question["question_id"] for question in questions] == ["row-0", "row-1"]
    assert len(images) == 2
