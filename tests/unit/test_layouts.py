"""Further benchmarks in their published layouts load right or are refused in one sentence."""

import json
from functools import partial

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from helpers import benchmarks
from helpers.benchmarks import png, text
from prunecal.datasets import table, vlmevalkit


def struct(seed: int) -> dict:
    return {"bytes": png(seed), "path": None}


def parquet(folder, rows):
    path = folder / "test.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


load, refusal = partial(benchmarks.load, table), partial(benchmarks.refusal, table)
REAL_WORLD = "Which is it?\nA. {}\nB. Two\nC. Three\nPlease answer directly with only the letter."
V_STAR = "Which side?\n(A) left\n(B) right\nAnswer with the option's letter from the given choices."


def test_real_world_qa_has_its_choices_in_the_question(tmp_path):
    row = {"image": struct(1), "question": REAL_WORLD.format("One"), "answer": "C"}
    row["image_path"] = "images/a.webp"
    (question,), _ = load(parquet(tmp_path, [row]), letters="auto")
    assert (question["options"], question["label"]) == (["A", "B", "C"], 2)
    # the same file has questions without choices
    free = {**row, "question": "How many cars?", "answer": "2"}
    assert "row 1 has no choices from A on" in refusal(
        parquet(tmp_path, [row, free]), letters="auto"
    )
    assert "set `letters: auto`" in refusal(parquet(tmp_path, [row]), letters=4)


def test_v_star_has_two_or_four_choices(tmp_path):
    four = "What colour?\n(A) red\n(B) blue\n(C) green\n(D) black\nAnswer with the letter."
    rows = [
        {"image": struct(at), "text": asked, "category": category, "label": "B", "question_id": at}
        for at, (asked, category) in enumerate([(four, "direct"), (V_STAR, "relative")])
    ]
    names = {"question": "text", "answer": "label", "subset": "category"}
    questions, _ = load(parquet(tmp_path, rows), letters="auto", **names)
    assert [question["options"] for question in questions] == [list("ABCD"), list("AB")]
    assert [question["label"] for question in questions] == [1, 1]
    assert "has the choices A to B in its question, not 4" in refusal(
        parquet(tmp_path, rows), letters=4, **names
    )


def test_cv_bench_answers_with_letters_in_brackets(tmp_path):
    row = {
        "idx": 0, "type": "2D", "task": "Count", "image": struct(1), "question": "How many?",
        "choices": ["3", "2", "1", "0"], "answer": "(C)", "source": "ADE20K", "prompt": "x",
    }  # fmt: skip
    (question,), _ = load(parquet(tmp_path, [row]), options="choices", subset="task")
    assert (question["label"], question["subset"]) == (2, "Count")  # not the choice "3"


def test_mme_names_both_questions_of_an_image_alike(tmp_path):
    rows = [
        {"question_id": "code_reasoning/0020.png", "image": struct(1), "question": asked,
         "answer": answer, "category": "code_reasoning"}
        for asked, answer in (("Is it a? Please answer yes or no.", "Yes"), ("Is it b?", "No"))
    ]  # fmt: skip
    settings = {"form": "yes-no", "subset": "category", "image_id": "question_id"}
    questions, images = load(parquet(tmp_path, rows), **settings)
    assert [question["label"] for question in questions] == [0, 1]
    assert len(images) == 1
    assert "repeats the id" in refusal(
        parquet(tmp_path, rows), question_id="question_id", **settings
    )


@pytest.mark.parametrize("first", ["image_1", "Image_0", "image0"])
def test_a_row_with_further_images_beside_the_named_one_is_refused(tmp_path, first):
    second = first[:-1] + str(int(first[-1]) + 1)
    row = {
        "id": "validation_Art_1", "question": "<image 1> or <image 2>?", first: struct(1),
        second: None, "options": "['a', 'b']", "answer": "B",
    }  # fmt: skip
    several = {**row, "id": "validation_Art_2", second: struct(2)}
    settings = {"options": "options", "image": first}
    assert "row 1 has a further image in" in refusal(
        parquet(tmp_path, [row, several]), **settings
    )  # MMMU, BLINK, NaturalBench
    (question,), _ = load(parquet(tmp_path, [{**row, second: None, "more": 1}]), **settings)
    assert question["label"] == 1


def test_science_qa_of_lmms_lab_has_hints_and_indices(tmp_path):
    rows = [
        {"image": struct(1), "question": "Which?", "choices": ["a", "b", "c"][: 2 + at],
         "answer": at, "hint": hint, "task": "closed choice", "subject": "natural science"}
        for at, hint in ((0, ""), (1, "Look at it."))
    ]  # fmt: skip
    questions, _ = load(parquet(tmp_path, rows), options="choices", hint="hint", subset="subject")
    assert [question["label"] for question in questions] == [0, 1]
    assert "Look at it." in questions[1]["text"]
    assert questions[0]["options"] == ["A", "B"]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("answers", ["nokia", "nokia", "Nokia"]),  # TextVQA
        ("answers", ["unanswerable", "grey"]),  # VizWiz-VQA
        ("answer", "table"),  # GQA, MM-Vet
    ],
)
def test_free_form_answers_are_short_ones_or_refused(tmp_path, column, value):
    row = {"question_id": "7", "image": struct(1), "question": "What is it?", column: value}
    path = parquet(tmp_path, [row])
    (question,), _ = load(path, form="short-answer", answer=column)
    assert question["answers"] == ([*dict.fromkeys(value)] if isinstance(value, list) else [value])
    assert "make it yes or no" in refusal(path, form="yes-no", answer=column)


def test_answers_of_vqa_are_objects_and_those_of_chart_qa_may_look_like_lists(tmp_path):
    row = {"question_id": "7", "image": struct(1), "question": "What is it?"}
    given = [
        {"answer": text, "answer_confidence": "yes", "answer_id": 1} for text in ("a", "b", "a")
    ]
    (question,), _ = load(
        parquet(tmp_path, [row | {"answers": given}]), form="short-answer", answer="answers"
    )
    assert question["answers"] == ["a", "b"]
    chart = [row | {"answer": text} for text in ("14", "[0.5, 2]")]
    said = refusal(parquet(tmp_path, chart), form="short-answer")
    assert "row 1 has the answer '[0.5, 2]', which may be one text or a list of numbers" in said


def test_math_vista_mixes_questions_with_and_without_choices(tmp_path):
    row = {"decoded_image": struct(1), "image": "images/1.jpg", "question": "How many?",
           "choices": ["1", "2"], "answer": "2"}  # fmt: skip
    settings = {"options": "choices", "image": "decoded_image", "answer_is": "text"}
    (question,), _ = load(parquet(tmp_path, [row]), **settings)
    assert question["label"] == 1
    rows = [row, {**row, "choices": None, "answer": "7"}]
    path = parquet(tmp_path, rows)
    assert "row 1 has no choices; add them, or leave" in refusal(path, **settings)
    assert len(load(path, leave_out={"choices": None}, **settings)[0]) == 1
    words = "no row is left; correct `where:` and `leave_out:`"
    assert words in refusal(path, leave_out={"question": "How many?"}, **settings)


def written(folder, content, name="t.json"):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_slake_and_path_vqa_are_yes_or_no_where_the_study_says(tmp_path):
    rows = [
        {"qid": at, "image": text(at), "question": "Is it?", "answer": answer, "q_lang": language,
         "answer_type": kind, "modality": "MRI"}
        for at, (answer, language, kind) in enumerate(
            [("Liver", "en", "OPEN"), ("Yes", "en", "CLOSED"), ("是", "zh", "CLOSED"),
             ("No", "en", "CLOSED")])
    ]  # fmt: skip
    path = written(tmp_path, rows)
    asked = {"form": "yes-no", "where": {"q_lang": "en", "answer_type": "closed"}}
    questions, images = load(path, subset="modality", **asked)
    assert [(one["question_id"], one["label"]) for one in questions] == [("row-1", 0), ("row-3", 1)]
    assert len(images) == 2
    yes_or_no = yaml.safe_load("{answer: [yes, 'no']}")
    questions, _ = load(path, form="yes-no", where=yes_or_no)
    assert [one["question_id"] for one in questions] == ["row-1", "row-3"]
    words = "no row has 'fr' as its q_lang (rows have 'en', 'zh'); correct `where:`"
    assert words in refusal(path, form="yes-no", where={"q_lang": "fr"})
    assert "no row is left" in refusal(path, form="yes-no", where={"q_lang": "zh", "qid": 1.0})


def test_muir_bench_and_seed_bench_2_have_rows_of_several_images(tmp_path):
    row = {"idx": "0", "question": "<image>\nHow many?", "options": ["a", "b"], "answer": "B",
           "image_list": [struct(1)]}  # fmt: skip
    path = parquet(tmp_path, [{**row, "image_list": [struct(1), struct(2)]}, row])
    settings = {"options": "options", "image": "image_list"}
    assert "row 0 has 2 images; give questions" in refusal(path, **settings)
    (question,), _ = load(path, several_images="skip", **settings)
    assert (question["question_id"], question["text"][:9]) == ("row-1", "How many?")


@pytest.mark.parametrize("name", ["image2", "image_2", "image-2", "view"])
def test_a_further_image_in_a_numbered_column_or_in_lists_of_any_form_is_seen(tmp_path, name):
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    row = {"question": ["Is it so?"], "answer": ["Yes"], "image": [png(1)]}
    table = pa.table({**row, name: pa.array([[struct(2)]], pa.large_list(kind))})
    path = tmp_path / "t.parquet"
    pq.write_table(table, path)
    assert f"row 0 has a further image in '{name}'" in refusal(path, form="yes-no")


def test_nlvr2_has_its_second_image_in_a_column_of_another_name(tmp_path):
    row = {"question": "Is it so?", "answer": "True", "left_image": struct(1),
           "right_image": struct(2), "figures": [struct(3)]}  # fmt: skip
    settings = {"form": "yes-no", "image": "left_image"}
    path = parquet(tmp_path, [row, row | {"right_image": None, "figures": []}])
    words = refusal(path, **settings)
    assert "row 0 has a further image in 'right_image'" in words
    assert "`several_images: named`" in words
    assert len(load(path, several_images="skip", **settings)[0]) == 1
    (first, _), images = load(path, several_images="named", **settings)
    assert (first["label"], images[0][1]) == (0, png(1))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"A": "x", "B": "y", "C": None}, "AB"),
        ('{"a": "x", "b": "y", "c": "z"}', "ABC"),
        ({"B": "x", "A": "y"}, "give a list of texts, or an object with the keys A, B"),
        ({"a": {"rawText": "x"}, "b": {"rawText": "y"}}, "give a list of texts"),  # TQA
        ("2,3", "give a list of texts"),  # IconQA
        ("['x' 'y']", "give a list of texts"),  # as NumPy prints a list
    ],
)
def test_options_may_be_an_object_by_letter(tmp_path, options, expected):
    rows = [{"question": "Which?", "options": options, "answer": "B", "image": text(1)}]
    path = written(tmp_path, rows)
    if len(expected) > 3:
        assert expected in refusal(path, options="options")
    else:
        (question,), _ = load(path, options="options")
        assert (question["options"], question["label"]) == (list(expected), 1)


def test_q_bench_fills_choices_that_are_not_there(tmp_path):
    names = [f"option{at}" for at in range(4)]
    row = {"question": "How clear?", "image": text(1), "correct_choice": "B"}
    row |= dict(zip(names, ("High", "Low", "N/A", "N/A"), strict=True))
    path, settings = written(tmp_path, [row]), {"options": names, "answer": "correct_choice"}
    assert 'set `absent: nan` if that is one, or `absent: "N/A"`' in refusal(path, **settings)
    assert load(path, absent="N/A", **settings)[0][0]["options"] == ["A", "B"]
    assert "two equal choices" in refusal(path, absent="nan", **settings)
    row["option3"] = "None"  # as Python writes it
    assert '`absent: "None"` if there is none' in refusal(written(tmp_path, [row]), **settings)


@pytest.mark.parametrize(
    ("question", "count"),
    [
        ("Which has vitamin C.\n(A) red\n(B) blue", 2),
        ("Points A, B and C.\nA. red\nB. blue\nC. grey\nD. black", 4),
        ("Options: A: x, B: y, C: z", 3),
        ("哪个？\nA、甲\nB、乙", 2),
        ("Is A: left of B: or C: ?\n(A) yes\n(B) no", None),
    ],
)
def test_letters_before_choices_follow_each_other(tmp_path, question, count):
    path = written(tmp_path, [{"question": question, "answer": "B", "image": text(1)}])
    if count is None:
        assert "choices A to B and A to C" in refusal(path, letters="auto")
    (read,), _ = load(path, letters=count or 2)
    assert len(read["options"]) == (count or 2)


ASKED = {"question": "Is it?", "answer": "yes", "image": "aGk="}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (json.dumps({"info": {}, "questions": [ASKED]}), "is one object with the keys 'info', "),
        (json.dumps({"info": {}, "data": [ASKED]}, indent=1), "is one object with the keys 'info"),
        (json.dumps({"1": ASKED}), "is one object with the keys '1'; give"),  # by question id
        ([{**ASKED, "image": "https://example.org/a.jpg"}], "entry 0 has the address"),
        ([{"caption": "x"}], "lacks the column 'question' (it has caption)"),
        ([{**ASKED, "image": {"url": "a.jpg"}}], "has {'url': 'a.jpg'} as its image; give bytes"),
        ([{**ASKED, "image": "00000042"}], "neither base64 (too short)"),
        ([{"image": "a.jpg", "conversations": [{"from": "human", "value": "What?"}]}],
         "lacks the column 'question' (it has image, conversations)"),
    ],
)  # fmt: skip
def test_json_of_another_shape_is_refused_by_what_it_is(tmp_path, content, words):
    assert words in refusal(written(tmp_path, content), form="yes-no", images=tmp_path)


def test_whole_numbers_that_pandas_wrote_with_a_point_are_whole(tmp_path):
    rows = [
        {"id": float(at), "question": "Which?", "options": '["a", "b", "c"]', "answer": answer,
         "image": text(at)}
        for at, answer in enumerate(("2.0", "0.0"))
    ]  # fmt: skip
    questions, _ = load(written(tmp_path, rows), options="options", question_id="id")
    assert [(one["question_id"], one["label"]) for one in questions] == [("0", 2), ("1", 0)]


@pytest.mark.parametrize(
    ("name", "change", "options", "label"),
    [
        ("RealWorldQA", {"C": None, "D": None, "answer": "B"}, ["A", "B"], 1),
        ("MMVP", {"A": "(a) Open", "B": "(b) Closed", "C": None, "D": None}, ["A", "B"], 0),
        ("AI2D_TEST", {"answer": "D"}, list("ABCD"), 3),
        ("ScienceQA_TEST", {"hint": "A map.", "D": None, "answer": "C"}, list("ABC"), 2),
        ("MMT-Bench_VAL", {"E": "e", "answer": "E", "l2-category": "x"}, list("ABCDE"), 4),
    ],
)
def test_tsv_files_of_vlmevalkit_load(tmp_path, name, change, options, label):
    row = {"index": 7, "image": text(1), "question": "Which?", "A": "a", "B": "b", "C": "c",
           "D": "d", "answer": "A", "category": "x"} | change  # fmt: skip
    path = tmp_path / f"{name}.tsv"
    pd.DataFrame([row]).to_csv(path, sep="\t", index=False)
    (question,), _ = benchmarks.load(vlmevalkit, path)
    assert (question["options"], question["label"]) == (options, label)


def test_mm_vet_of_vlmevalkit_is_refused(tmp_path):
    path = tmp_path / "MMVet.tsv"
    row = {"index": 0, "question": "x?", "answer": "-1<AND>-5", "image": text(1), "category": "ocr"}
    pd.DataFrame([row]).to_csv(path, sep="\t", index=False)
    assert "make it yes or no" in benchmarks.refusal(vlmevalkit, path)
