"""VLMEvalKit's TSV files load as that project reads them, or are refused by file and line."""

import csv
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from helpers import benchmarks
from helpers.benchmarks import png, text
from prunecal.datasets import vlmevalkit

LETTER = "\nAnswer with the option's letter from the given choices directly."
WORD = "\nAnswer the question using a single word or phrase."
load = partial(benchmarks.load, vlmevalkit)
refusal = partial(benchmarks.refusal, vlmevalkit)


def tsv(folder: Path, rows: list[dict], name: str = "MMBench_DEV_EN.tsv") -> Path:
    """Write a file as that project dumps its frames, what is missing as nothing."""
    path = folder / name
    pd.DataFrame(rows).to_csv(path, sep="\t", index=False, encoding="utf-8")
    return path


def mmbench() -> list[dict]:
    """Return rows of which the first shares the image of the third."""
    row = {
        "index": 0, "question": "Which of these\nis \"it\"?", "hint": None, "A": "None", "B": "NA",
        "C": None, "D": None, "answer": "A", "category": "logic", "image": "1000002",
        "source": "x", "l2-category": "y", "comment": None, "split": "dev",
    }  # fmt: skip
    second = {**row, "index": 1, "hint": "Look.", "C": "c", "D": "d", "answer": "D"}
    third = {**row, "index": 1000002, "image": text(2), "category": "ocr"}
    return [row, {**second, "image": text(1)}, third]


def test_mmbench_loads_with_hints_missing_choices_and_shared_images(tmp_path):
    questions, images = load(tsv(tmp_path, mmbench()))
    assert questions[0]["text"] == f'Which of these\nis "it"?\nA. None\nB. NA{LETTER}'
    assert questions[1]["text"].startswith('Look.\nWhich of these\nis "it"?\nA. None\n')
    assert [question["options"] for question in questions] == [["A", "B"], list("ABCD"), ["A", "B"]]
    assert [question["label"] for question in questions] == [0, 3, 0]
    assert [question["question_id"] for question in questions] == ["0", "1", "1000002"]
    assert [question["subset"] for question in questions] == ["logic", "logic", "ocr"]
    assert questions[0]["image_id"] == questions[2]["image_id"] != questions[1]["image_id"]
    assert [image for _, image in images] == [png(2), png(1)]


def test_yes_no_benchmarks_have_no_lettered_columns(tmp_path):
    rows = [
        {"index": i, "category": "VD", "question": "Is it?", "answer": answer, "image": image}
        for i, (answer, image) in enumerate([("Yes", text(1)), ("No", "0"), ("Yes", None)])
    ]
    questions, images = load(tsv(tmp_path, rows, "HallusionBench.tsv"))
    assert [question["label"] for question in questions] == [0, 1]  # the third has no image
    assert questions[0]["options"] == ["Yes", "No"]
    assert questions[0]["text"] == "Is it?" + WORD
    assert len(images) == 1


def test_a_list_of_one_image_is_taken_and_of_several_refused(tmp_path):
    rows = mmbench()[1:]
    rows[0]["image"] = str([text(1)])
    assert load(tsv(tmp_path, rows))[1][0][1] == png(1)
    rows[0]["image"] = str([text(1), text(2)])
    assert "has 2 images" in refusal(tsv(tmp_path, rows))
    rows += [{**rows[0], "index": 8, "image": str(rows[0]["index"])}]
    path = tsv(tmp_path, rows)
    questions, images = load(path, several_images="skip")
    assert len(questions) == len(images) == len(rows) - 2
    where = {"index": [row["index"] for row in rows[1:]]}
    assert "refers to the image of row" in refusal(path, where=where)
    where["index"].pop()
    assert load(path, where=where)[0] == questions
    assert "as its category" in refusal(path, where={"category": "none"})


def test_damaged_images_of_rows_that_are_left_out_matter_where_a_row_refers_to_them(tmp_path):
    rows = mmbench()
    rows += [{**rows[1], "index": 3, "image": "!" * 100}]
    path = tsv(tmp_path, [rows[-1], *rows[:-1]])
    assert "line 2 has '!!!" in refusal(path)
    questions, images = load(path, leave_out={"index": [3, 1000002]})  # 0 shows that of 1000002
    assert [question["question_id"] for question in questions] == ["0", "1"]
    assert [image for _, image in images] == [png(2), png(1)]
    rows[0]["image"] = "3"
    assert "has '!!!" in refusal(tsv(tmp_path, rows), leave_out={"index": 3})


def test_a_file_with_local_images_takes_them_from_their_folder(tmp_path):
    rows = [{**mmbench()[1], "image_path": "a.jpg"}]
    del rows[0]["image"]
    (tmp_path / "a.jpg").write_bytes(png(1))
    assert load(tsv(tmp_path, rows), images=tmp_path)[1][0][1] == png(1)
    assert "set `images:`" in refusal(tsv(tmp_path, rows))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": "77"}, "refers to the image of row '1000002', which holds none"),
        ({"image": "0"}, "refers to the image of row '1000002', which holds none"),
        ({"index": 0}, "repeats the index '0'"),
        ({"index": "9" * 5000}, "refers to the image of row '1000002'"),
        ({"answer": "C"}, "has the answer 'C', which is no letter of its 2 options"),
        ({"answer": "a word"}, "which is no letter"),
        ({"A": None, "B": None}, "has 0 options"),
        ({"A": None}, "has nothing in 'A' but an option after it"),
        ({"A": "x", "B": "x "}, "has two equal choices among"),
        ({"question": None}, "has no question"),
        ({"category": None}, "as its subset; give it some text"),
        ({"image": "x" * 65 + "?"}, "neither base64"),
    ],
)
def test_a_bad_row_is_refused_by_file_and_line(tmp_path, change, words):
    rows = mmbench()
    rows[2].update(change)
    message = refusal(tsv(tmp_path, rows))
    assert "MMBench_DEV_EN.tsv line " in message
    assert words in message


@pytest.mark.parametrize("column", ["index", "question", "answer", "image"])
def test_a_file_without_a_column_is_refused(tmp_path, column):
    rows = [{key: value for key, value in row.items() if key != column} for row in mmbench()]
    assert "lacks the column" in refusal(tsv(tmp_path, rows))


def test_other_files_and_free_form_answers_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("index,question,answer,image\n")
    assert "is no .tsv file" in refusal(tmp_path / "a.csv")
    assert "missing" in refusal(tmp_path / "b.tsv")
    rows = [{"index": 0, "question": "What is 3 + 4?", "answer": "7", "image": text(1)}]
    assert "line 2 has the answer '7'; make it yes or no" in refusal(tsv(tmp_path, rows))
    path = tmp_path / "quoted.tsv"
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([["index", "question"], ["1"]])
    assert "lacks the column 'image'" in refusal(path)
