"""Answers from elsewhere become ordinary cells with the same numbers, or are refused by row."""

import json
import math
import re
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

import prunecal
from helpers import synthetic_results
from helpers.stages import run
from prunecal import claims, compare, imported, score, verify
from prunecal.caching import library_versions, lineage, outdated
from prunecal.core.errors import PrunecalError
from prunecal.figures import mechanisms
from prunecal.imports import __main__ as imports
from prunecal.imports.option_scores import row_scores
from prunecal.imports.questions import label
from prunecal.statistics.predictions import read_cell
from prunecal.statistics.readouts import row_means
from prunecal.statistics.recomputed import first_difference, other_values
from prunecal.storage import files
from prunecal.storage.arrays import open_arrays, write_arrays
from prunecal.storage.checksums import file_digest
from prunecal.study.cells import load_study
from prunecal.study.design import Design

ROOT = Path(__file__).parents[2]
LEVELS = {"resamples": 100, "costly_resamples": 50}


def study_of(folder: Path, *paths: Path, **options) -> dict:
    """Return the study that the command writes for files."""
    columns = [f"{key}={value}" for key, value in options.pop("columns", {}).items()]
    given = [f"--{key}={value}" for key, value in options.items()]
    given += ["--columns", *columns] if columns else []
    out = folder / "again.yaml"
    imports.main(imports.arguments_of([*map(str, paths), "--study", str(out), *given]))
    return yaml.safe_load(out.read_text(encoding="utf-8"))


def import_all(settings: dict, results: Path) -> None:
    """Run the stage as the rules do."""
    design = Design(load_study(settings))
    for dataset, entry in design.imported_datasets.items():
        path = results / "datasets" / dataset / "questions.parquet"
        run(imported, cells=json.dumps([entry.model_dump(mode="json")]), make_questions=path)
    for (model, dataset), entries in design.imported.items():
        run(
            imported,
            cells=json.dumps([entry.model_dump(mode="json") for entry in entries]),
            questions=results / "datasets" / dataset / "questions.parquet",
            folder=results / model / dataset,
        )


def evaluate(results: Path) -> dict[str, str]:
    """Score, compare and test the claims; return the digests of what comes out."""
    scores = []
    for task in sorted({path.parents[2] for path in results.glob("*/*/*/*/predictions.parquet")}):
        out = results / "scores" / task.parent.name / f"{task.name}.safetensors"
        run(
            score,
            predictions=sorted(task.glob("*/*/predictions.parquet")),
            questions=results / "datasets" / task.name / "questions.parquet",
            output=out,
            **LEVELS,
        )
        scores.append(out)
    run(compare, scores=scores, folder=results)
    run(claims, claims=ROOT / "reports" / "claims.yaml", scores=scores, output=results / "c.json")
    names = ("metrics.parquet", "metrics.csv", "comparisons.parquet", "comparisons.csv", "c.json")
    return {name: file_digest(results / name) for name in names}


def few_cells() -> dict:
    """Return a made-up study of few cells, with swept parameters, a seed and one that is null."""
    strategies = ["full", {"strategy": "random", "seed": [0, 1]}, {"strategy": "scope", "alpha": 0}]
    strategies.append("visionzip")
    return synthetic_results.study() | {"strategies": strategies, "budgets": [8]}


@pytest.mark.slow
def test_a_study_exported_and_imported_again_gives_the_same_bytes(tmp_path):
    results = synthetic_results.write(tmp_path / "a", few_cells())
    written = []
    for suffix in (".parquet", ".jsonl", ".csv"):
        exported = tmp_path / f"answers{suffix}"
        prunecal.load(results).export(exported)
        again = tmp_path / suffix / "results"
        import_all(study_of(tmp_path, exported), again)
        paths = sorted(again.rglob("predictions.parquet"))
        written.append([files.read_table(path) for path in paths])
    assert written[0] == written[1] == written[2]
    assert evaluate(again) == evaluate(results)
    with pytest.raises(PrunecalError, match="ends in none of"):
        prunecal.load(results).export(tmp_path / "answers.xlsx")


def test_shares_are_budgets_of_imported_cells_and_each_is_found_again(tmp_path):
    kept = {"full": ("all", 100, 40), "a": ("25.0 %", 25, 10), "b": (60, 60, 40), "c": (50, 50, 40)}
    rows = [
        {**row, "strategy": "full" if name == "full" else "mine", "budget": budget,
         "n_visual": count, "image_id": f"i{at}"}
        for name, (budget, *counts) in kept.items()
        for at, (row, count) in enumerate(zip(answers(), counts, strict=True))
    ]  # fmt: skip
    settings, results = study_of(tmp_path, lines(tmp_path, rows)), tmp_path / "results"
    assert [one["budget"] for one in settings["imported"]] == ["all", "25%", 60, 50]
    settings["study"] = ""
    import_all(settings, results)
    assert list(outdated.of_other_settings(results, load_study(settings), settings)) == []
    evaluated = evaluate(results)
    files.write_json(results / "study.json", settings)
    study = prunecal.load(results)
    assert study.metrics.groupby("budget")["share"].first().to_dict() == pytest.approx(
        {18: 0.25, 45: 0.75, 50: 0.8, 70: 1.0}
    )
    for budget, strategy, counts in (
        (70, "full", [100, 40]), (18, "mine", [25, 10]), (50, "mine", [60, 40]),
        (45, "mine", [50, 40]),
    ):  # fmt: skip
        assert study.predictions("m", "d", strategy, budget)["n_visual"].tolist() == counts
    study.export(tmp_path / "again.parquet")
    again = {**study_of(tmp_path, tmp_path / "again.parquet"), "study": ""}
    import_all(again, tmp_path / "again" / "results")
    assert evaluate(tmp_path / "again" / "results") == evaluated


def test_a_share_needs_to_know_of_how_many(tmp_path):
    rows = [{**row, "budget": "50%"} for row in answers()]
    assert "line 1 has no n_visual" in refusal(tmp_path, rows)
    read, _ = cell(tmp_path, [{**row, "visual_tokens": 9} for row in rows])
    assert (read.facts["budget"], read.n_visual.tolist()) == (4, [4, 4])
    rows = [{**row, "budget": "12.5\u00a0%", "n_visual": 4} for row in rows]
    assert study_of(tmp_path, lines(tmp_path, rows))["imported"][0]["budget"] == "12.5%"
    for budget in ("0%", "101%", "some"):
        assert "budget" in refusal(tmp_path, [{**row, "budget": budget} for row in answers()])


def answers(**changes) -> list[dict]:
    """Return two questions with three options, probabilities in columns."""
    row = {
        "model": "m",
        "dataset": "d",
        "strategy": "full",
        "budget": 9,
        "question_id": "q1",
        "image_id": "i1",
        "options": ["A", "B", "C"],
        "label": 0,
        "probabilities": [0.6, 0.3, 0.1],
    }
    second = {**row, "question_id": "q2", "label": "C", "probabilities": [0.2, 0.2, 0.6]}
    return [row, second | changes]


def lines(folder: Path, rows: list[dict], name: str = "answers.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def cell(folder: Path, rows: list[dict], **options):
    """Import rows of one cell and return it, and what its metadata say of the scores."""
    settings = study_of(folder, lines(folder, rows), **options)
    results = folder / "results"
    import_all(settings, results)
    (path,) = results.glob("*/*/*/*/predictions.parquet")
    return read_cell(path), files.read_facts(path)["imported"]


def refusal(folder: Path, rows: list[dict], **options) -> str:
    with pytest.raises(PrunecalError) as caught:
        cell(folder, rows, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_probabilities_give_their_own_confidence_and_stay_in_their_bins(tmp_path):
    read, origin = cell(tmp_path, answers())
    assert read.prediction.tolist() == [0, 2]
    assert read.label.tolist() == [0, 2]
    np.testing.assert_allclose(read.confidence, 0.6, atol=1e-6)
    assert (read.confidence <= 0.6).all()  # an edge of 15 bins, which belongs below
    np.testing.assert_allclose(np.exp(read.log_probability[0]), [0.6, 0.3, 0.1], atol=1e-6)
    assert origin["missing_options"] == 0
    columns = set(files.read_table(next(tmp_path.rglob("predictions.parquet"))).column_names)
    assert {"logits", "log_normaliser", "top_token", "n_visual", "coverage"} <= columns


@pytest.mark.parametrize(
    ("form", "values"),
    [
        ("logits", [2.0, 1.0, 0.0]),
        ("log_probabilities", np.log([0.5, 0.3, 0.2]).tolist()),
        ("logprobs", {"A": -1.0, "C": -2.0, "B": -3.0}),
        ("probabilities", "[0.5, 0.25, 0.125]"),
    ],
)
def test_each_form_of_scores_gives_its_softmax(tmp_path, form, values):
    rows = [
        {key: value for key, value in row.items() if key != "probabilities"} for row in answers()
    ]
    read, origin = cell(tmp_path, [row | {form: values} for row in rows])
    given = json.loads(values) if isinstance(values, str) else values
    numbers = np.array([given[key] for key in "ABC"] if isinstance(given, dict) else given)
    weight = numbers if form == "probabilities" else np.exp(numbers)
    np.testing.assert_allclose(np.exp(read.log_probability[0]), weight / weight.sum(), atol=1e-6)
    assert origin["scores"] == {"logprobs": "log_probabilities"}.get(form, form)


def test_numbers_of_imported_cells_are_those_of_other_libraries(tmp_path):
    netcal = pytest.importorskip("netcal.metrics")
    sklearn = pytest.importorskip("sklearn.metrics")
    torch, torchmetrics = pytest.importorskip("torch"), pytest.importorskip("torchmetrics")
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet([1, 1, 1], 90)
    label = generator.integers(0, 3, 90)
    rows = [
        {"question_id": f"q{i}", "image_id": f"i{i // 2}", "options": list("ABC"),
         "label": int(label[i]), "probabilities": probabilities[i].tolist()}
        for i in range(90)
    ]  # fmt: skip
    settings = study_of(tmp_path, lines(tmp_path, rows), model="m", dataset="d", budget=9)
    import_all(settings, tmp_path / "results")
    evaluate(tmp_path / "results")
    metrics = pd.read_csv(tmp_path / "results" / "metrics.csv").query("subset == 'all'")
    value = metrics.set_index("metric")["value"]
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == label
    assert value["accuracy"] == correct.mean()
    assert value["ece"] == pytest.approx(netcal.ECE(15).measure(probabilities, label), abs=1e-6)
    assert value["mce"] == pytest.approx(netcal.MCE(15).measure(probabilities, label), abs=1e-6)
    theirs = torchmetrics.functional.classification
    tensors = torch.tensor(probabilities), torch.tensor(label)
    for metric, norm in (("ece", "l1"), ("mce", "max")):
        other = theirs.multiclass_calibration_error(*tensors, 3, n_bins=15, norm=norm)
        assert value[metric] == pytest.approx(other.item(), abs=1e-6)
    auroc = theirs.binary_auroc(torch.tensor(confidence), torch.tensor(correct).long())
    assert value["auroc"] == pytest.approx(auroc.item(), abs=1e-6)
    assert value["nll"] == pytest.approx(sklearn.log_loss(label, probabilities), abs=1e-6)
    assert value["auroc"] == pytest.approx(sklearn.roc_auc_score(correct, confidence), abs=1e-9)
    assert value["brier"] == pytest.approx(sklearn.brier_score_loss(correct, confidence), abs=1e-6)


def test_outside_the_checkout_the_command_names_its_snakefile(tmp_path, monkeypatch, caplog):
    answered = lines(tmp_path, answers())
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO", logger="prunecal"):
        study_of(tmp_path, answered)
        assert f"`snakemake --snakefile {ROOT / 'Snakefile'} --cores all " in caplog.text
        caplog.clear()
        (tmp_path / "Snakefile").touch()
        study_of(tmp_path, answered)
        assert "`snakemake --cores all --configfile " in caplog.text


def test_a_file_may_have_names_of_its_own_for_columns(tmp_path, caplog):
    path, model = tmp_path / "mine.csv", {"model": "m", "dataset": "d"}
    path.write_text(
        "id,img,method,tokens,gt,p_yes,p_no,note\n"
        "1,a.jpg,full,9,yes,0.75,0.25,x\n1,a.jpg,mine,3,yes,0.25,0.75,x\n"
    )
    with pytest.raises(PrunecalError, match="no scores among its columns id, img, .*p_no, note;"):
        study_of(tmp_path, path)
    scores = {"probability_Yes": "p_yes", "probability_No": "p_no"}
    with pytest.raises(PrunecalError, match="file.s own name; .* other way round, label=gt"):
        study_of(tmp_path, path, columns={"gt": "label"})
    with pytest.raises(PrunecalError) as caught:
        study_of(tmp_path, path, columns=scores)
    for words in ("model, dataset, budget, question_id, image_id, label", "tokens, gt", "--budget"):
        assert words in str(caught.value)
    named = {"question_id": "id", "image_id": "img", "label": "gt", "budget": "tokens"} | scores
    with caplog.at_level("INFO", logger="prunecal"), pytest.raises(PrunecalError, match="2 cells"):
        study_of(tmp_path, path, columns=named, **model)
    assert "columns that are not read: method, note" in caplog.text
    settings = study_of(tmp_path, path, columns=named | {"strategy": "method"}, **model)
    results = tmp_path / "results"
    import_all(settings, results)
    assert list(verify.other_answers(results, load_study(settings), [], first_difference)) == []
    read = [
        read_cell(results / "m" / "d" / cell / "predictions.parquet")
        for cell in ("full/9", "mine/3")
    ]
    assert [one.prediction.tolist() for one in read] == [[0], [1]]
    for column, words in (
        ("gone", "has no column 'gone' to stand for label"),
        ("", "pairs such as"),
    ):
        with pytest.raises((PrunecalError, SystemExit), match=words if column else None):
            study_of(tmp_path, path, columns=named | {"label": column}, **model)
    with pytest.raises(PrunecalError) as caught:
        study_of(tmp_path, path, columns=named | {"quesion_id": "id"}, **model)
    for words in ("for 'quesion_id' (did you mean 'question_id'?)", "label, ", "probability_"):
        assert words in str(caught.value)
    both = study_of(
        tmp_path, path, columns=named | {"strategy": "method", "image_id": "id"}, **model
    )
    import_all(both, tmp_path / "both")
    asked = files.read_table(tmp_path / "both" / "datasets" / "d" / "questions.parquet")
    assert asked["image_id"].to_pylist() == asked["question_id"].to_pylist() == ["1"]
    path.with_suffix(".xlsx").touch()
    with pytest.raises(PrunecalError, match="ends in '.xlsx', which is not a table; unpack or"):
        study_of(tmp_path, path.with_suffix(".xlsx"))
    wrong = path.read_text().replace("0.25,0.75", "25,75")
    path.write_text(wrong)
    with pytest.raises(PrunecalError, match="line 3 has probabilities .*, not percent"):
        study_of(tmp_path, path, columns=named | {"strategy": "method"}, **model)


def test_a_study_of_imported_cells_is_what_verify_expects(tmp_path):
    rows = [*answers(), *({**row, "strategy": "mine", "budget": 3} for row in answers())]
    settings, results = study_of(tmp_path, lines(tmp_path, rows)), tmp_path / "results"
    import_all(settings, results)
    study = load_study(settings)
    assert lineage.foreign_files(results) == []
    assert library_versions.version_remarks(results) == []
    assert library_versions.cells_of_other_versions(results) == []
    assert list(outdated.of_other_settings(results, study, settings)) == []
    changed = {**settings, "imported": [one | {"visual_tokens": 9} for one in settings["imported"]]}
    foreign = outdated.of_other_settings(results, load_study(changed), changed)
    assert {one.reason for one in foreign} == {"with visual_tokens None instead of 9"}
    questions = results / "datasets" / "d" / "questions.parquet"
    facts, table = files.read_facts(questions), files.read_table(questions)
    files.write_table(questions, table, {**facts, "revision": "other"})
    reasons = {one.reason for one in lineage.foreign_files(results)}
    assert reasons == {"from another questions.parquet"}
    assert list(verify.other_answers(results, study, [], first_difference)) == []
    lines(tmp_path, [row | {"probabilities": [0.1, 0.2, 0.3]} for row in rows])
    assert [
        one.path.parts[-3:-1] for one in verify.other_answers(results, study, [], first_difference)
    ] == [
        ("full", "9"),
        ("mine", "3"),
    ]


def test_resamples_that_a_score_file_does_not_hold_are_named(tmp_path):
    import_all(study_of(tmp_path, lines(tmp_path, answers())), tmp_path)
    evaluate(tmp_path)
    path = tmp_path / "scores" / "m" / "d.safetensors"
    file = open_arrays(path)
    arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    true, sources = dict(file.facts), files.sources_of(path)
    assert [one for one in other_values(tmp_path, []) if one[0] == path] == []
    for change in ({"ece": 101}, {"ece": 10**12}, {"other": 3}, {"ece": 1}):
        ((metric, count),) = change.items()
        write_arrays(path, arrays, true | {"resamples": true["resamples"] | change}, sources)
        ((_, fault),) = [one for one in other_values(tmp_path, []) if one[0] == path]
        assert f"with {count} resamples of {metric} stated, where it has" in fault


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"n_visual": -5}, "-5 as its n_visual; give a whole number from 0"),
        ({"n_visual": 2.5}, "2.5 as its n_visual; give a whole number"),
        ({"n_visual": 10}, "has 10 as n_visual in the mean of a cell, more than its budget of 9"),
        ({"visual_tokens": 9.7}, "visual_tokens = 9.7 does not fit; give a whole number"),
        ({"visual_tokens": 5}, "budget = 9 is more than the 5 visual_tokens of an image"),
        (
            {"visual_tokens": 9, "tokens_per_layer": 9.5},
            "tokens_per_layer = 9.5 is more than the 9",
        ),
        (
            {"parameters": {"a": {"b": 1}}},
            "a = a mapping of 1 does not fit; give true or false, or",
        ),
        ({"top_token": 10**12}, "1000000000000 as its top_token"),
        ({"coverage": 7}, "7 as its coverage; give a number from -1"),
        ({"spelling_logits": [1.0]}, "has 1 spelling_logits; give one per option"),
        ({"logits": [5, 6, 7], "log_normaliser": 1}, "log_normaliser 1, less than its logit 7"),
    ],
)
def test_numbers_that_no_cell_can_have_are_refused(tmp_path, more, words):
    rows = [row | more for row in answers()]
    if "logits" in more:
        rows = [{k: v for k, v in row.items() if k != "probabilities"} for row in rows]
    with pytest.raises(PrunecalError, match=words):
        cell(tmp_path, rows)


def test_a_method_that_adapts_to_the_image_may_keep_more_than_its_budget_of_some(tmp_path):
    kept = [8, 10]
    rows = [row | {"n_visual": n} for row, n in zip(answers(), kept, strict=True)]
    assert cell(tmp_path, rows)[0].n_visual.tolist() == kept


def test_a_column_that_stood_twice_is_no_further_option(tmp_path):
    row = {"question_id": "q", "image_id": "i", "label": "A", "probability_A": 0.5}
    row |= {"probability_B": 0.25, "probability_B.1": 0.25}
    words = "has the columns 'probability_B' and 'probability_B.1', as pandas writes one that"
    assert words in refusal(tmp_path, [row], model="m", dataset="d", budget=9)


def test_options_in_columns_of_their_own_need_no_list(tmp_path):
    rows = [
        {"question_id": f"q{i}", "image_id": "i", "label": "No", "probability_Yes": p,
         "probability_No": 1 - p}
        for i, p in enumerate((0.25, 0.75))
    ]  # fmt: skip
    read, _ = cell(tmp_path, rows, model="m", dataset="d", budget=9)
    assert read.rows["options"] == [["Yes", "No"]] * 2
    assert read.prediction.tolist() == [1, 0]
    np.testing.assert_allclose(read.confidence, 0.75, rtol=1e-6)


def test_what_probabilities_leave_for_other_words_is_told(tmp_path, caplog):
    with caplog.at_level("INFO", logger="prunecal"):
        study_of(tmp_path, lines(tmp_path, answers(probabilities=[0.1, 0.1, 0.2])))
    assert "options have 0.7 of the probability on average" in caplog.text


def test_missing_options_are_minus_infinity_counted_and_bounded(tmp_path):
    read, origin = cell(tmp_path, answers(probabilities=[0.7, None, 0.2]))
    assert np.isneginf(read.table).tolist() == [[False] * 3, [False, True, False]]
    np.testing.assert_allclose(read.confidence[1], 0.7 / 0.9, rtol=1e-6)
    assert (origin["missing_options"], origin["rows_with_missing"]) == (1, 1)
    assert origin["unseen"] == pytest.approx(0.1)


def test_a_right_option_without_score_leaves_likelihood_and_temperature_undefined(tmp_path):
    rows = [{**row, "question_id": str(i), "image_id": str(i // 2)} for i in range(8) for row in
            answers()[i % 2 : i % 2 + 1]]  # fmt: skip
    rows[3]["probabilities"] = [0.5, 0.5, 0]
    import_all(study_of(tmp_path, lines(tmp_path, rows)), tmp_path / "results")
    evaluate(tmp_path / "results")
    metrics = pd.read_csv(tmp_path / "results" / "metrics.csv").query("subset == 'all'")
    value = metrics.set_index("metric")["value"]
    assert value[["nll", "ece_temperature"]].isna().all()
    assert value["accuracy"] == 7 / 8
    assert np.isfinite(value["ece"])


# -- what APIs and programs return, in the form in which they return it ----------------------------

TOP = [
    {"token": token, "logprob": float(np.log(p))}
    for token, p in (("Yes", 0.8), (" yes", 0.1), ("No", 0.05), ("The", 0.01))
] + [{"token": "It", "logprob": -9999.0}]
BLANK = {"token": "▁", "logprob": -0.1, "bytes": [32], "top_logprobs": TOP[2:3]}
CHAT = [BLANK, {**TOP[0], "bytes": [89], "top_logprobs": TOP}, {**TOP[2], "top_logprobs": TOP[1:]}]
GEMINI = [{"token": one["token"], "tokenId": 1, "logProbability": one["logprob"]} for one in TOP]
TGI = [{"id": 7, "text": one["token"], "logprob": one["logprob"], "special": False} for one in TOP]
SGLANG = [[one["logprob"], 7, one["token"]] for one in TOP]
VLLM = [
    {
        str(at): {"logprob": one["logprob"], "rank": at, "decoded_token": one["token"]}
        for at, one in enumerate(TOP)
    }
]
COMPLETIONS = {
    "text_offset": [10], "token_logprobs": [-0.2231], "tokens": [" Yes"],
    "top_logprobs": [{one["token"]: one["logprob"] for one in TOP} | {"Of": None}],
}  # fmt: skip
RECORDS = {
    "chat": {"content": CHAT, "refusal": None},
    "line of a batch": {
        "status_code": 200,
        "body": {"choices": [{"index": 0, "logprobs": {"content": CHAT}}]},
    },
    "completions, Together": COMPLETIONS,
    "vLLM's engine": VLLM,
    "one list": TOP,
    "text": json.dumps({"content": CHAT}),
    "responses of OpenAI, Ollama, llama.cpp": CHAT,
    "Gemini": {"topCandidates": [{"candidates": GEMINI}], "chosenCandidates": GEMINI[:1]},
    "text-generation-inference": {"tokens": TGI[:1], "top_tokens": [TGI]},
    "SGLang": {"output_token_logprobs": SGLANG[:1], "output_top_logprobs": [SGLANG]},
}


@pytest.mark.parametrize("program", RECORDS)
def test_top_k_lists_are_read_as_programs_return_them(program):
    scores = row_scores("line 1", "top_logprobs", RECORDS[program], ["Yes", "No"])
    np.testing.assert_allclose(np.exp(scores.values), [0.8 + 0.1, 0.05], rtol=1e-6)
    assert scores.unseen == 0


@pytest.mark.parametrize(
    ("tokens", "options", "expected"),
    [
        ({" A": 0.3, "▁A": 0.2, "ĠA.": 0.1, "(A)": 0.1, "a": 0.1, "B": 0.1}, "AB", [0.7, 0.1]),
        ({"Yes.": 0.6, "YES": 0.2, "no,": 0.1}, ["Yes", "No"], [0.8, 0.1]),
        ({".5": 0.6, "5": 0.2}, ["5", ".5"], [0.2, 0.6]),
        ({'"A"': 0.6, "**B": 0.2}, "AB", [0.6, 0.2]),
        ({"s\u00ed": 0.6, "no": 0.2}, ["si\u0301", "no"], [0.6, 0.2]),
        ({"(": 0.6, "A": 0.3}, "AB", "has the likeliest token '(', after which the answer comes"),
        ({"</s>": 0.6, "A": 0.3, "B": 0.1}, "AB", [0.3, 0.1]),  # an answer without words
        ({"<|im_end|>": 0.6, "A": 0.3, "B": 0.1}, "AB", [0.3, 0.1]),
        ({"<think>": 0.6, "A": 0.3}, "AB", "'<think>', after which the answer comes"),
        ({"gir": 0.6, "dog": 0.3}, ["dog", "giraffe"], "'gir', which only begins its option"),
        ({"A": 0.9, "B": 0.8}, "AB", "sum to 1.7"),
        ({"Polish": 0.6, "polish.": 0.2}, ["polish", "Polish"], [0.2, 0.6]),
        ({"POLISH": 0.6}, ["polish", "Polish"], "are but for case; ask for letters"),
        ({"The": 0.9, "It": 0.1}, "AB", "has none of its options"),
        ({"319": 0.9, "token_id:350": 0.1}, "AB", "give texts instead of ids"),
    ],
)
def test_tokens_are_options_in_each_spelling_or_refused(tokens, options, expected):
    given = {token: float(np.log(p)) for token, p in tokens.items()}
    if isinstance(expected, str):
        with pytest.raises(PrunecalError, match=re.escape(expected)):
            row_scores("line 1", "top_logprobs", given, list(options))
    else:
        scores = row_scores("line 1", "top_logprobs", given, list(options))
        np.testing.assert_allclose(np.exp(scores.values), expected, rtol=1e-6)


def test_tokens_of_equal_text_count_together_but_one_that_is_given_twice(tmp_path):
    tokens = [("A", 0.4), ("A", 0.3), ("B", 0.2), ("B", 0.2)]
    value = [{"token": token, "logprob": float(np.log(p))} for token, p in tokens]
    scores = row_scores("line 1", "top_logprobs", value, ["A", "B"])
    np.testing.assert_allclose(np.exp(scores.values), [0.7, 0.2], rtol=1e-6)
    number = float(np.log(0.3))  # a tie, of which 16-bit logits make many
    value = {at: {"logprob": number, "decoded_token": text} for at, text in enumerate("AAB")}
    scores = row_scores("line 1", "top_logprobs", value, ["A", "B"])
    np.testing.assert_allclose(np.exp(scores.values), [0.6, 0.3], rtol=1e-6)


@pytest.mark.parametrize(
    ("form", "value", "words"),
    [
        ("top_logprobs", [{"token": "A", "logprob": -0.1, "top_logprobs": []}], "no alternatives"),
        ("top_logprobs", {"choices": [{}, {}]}, "has 2 answers; give one"),
        ("top_logprobs", {"tokens": ["US", "A"], "top_logprobs": [None, {"A": -0.1}]}, "`echo`"),
        ("top_logprobs", [{"content": "A", "probs": [{"tok_str": "A", "prob": 1}]}], "logprob"),
        ("top_logprobs", {"tokens": 5, "top_logprobs": [{"A": -0.1}]}, "as its top_logprobs; give"),
        ("top_logprobs", {"A": -(10**400)}, "of 'A'; give a finite one below 0"),
        ("top_logprobs", {"A": math.nan}, "has the log-probability nan of 'A'; give"),
        ("top_logprobs", "[" * 100_000, "too deep in one another as its top_logprobs"),
        ("top_logprobs", reduce(lambda one, _: {"body": one}, range(5000), {}), "too deep"),
        ("logits", [10**400, 1], "in logits; give a finite number"),
        ("log_probabilities", [-0.05, -1.0], "sum to 1.319; give natural logarithms"),
        ("log_probabilities", [0.1, 2.3], "logits (name the column logits) or losses (negate"),
        ("probabilities", [0.3, np.nan], "give numbers, and null where there is none"),
        ("probabilities", ["0_7", "0.3"], "has '0_7' in probabilities"),
        ("logits", "tensor([1., 2.])", "has logits 'tensor([1., 2.])'"),
    ],
)
def test_scores_of_another_kind_are_refused_by_what_they_are(form, value, words):
    with pytest.raises(PrunecalError) as caught:
        row_scores("line 1", form, value, ["A", "B"])
    assert words in str(caught.value)


def test_a_top_k_list_tells_the_mass_of_options_among_all_words(tmp_path):
    rows = [{"question_id": "q", "image_id": "i", "options": ["Yes", "No"], "label": "Yes",
             "top_logprobs": TOP}]  # fmt: skip
    read, origin = cell(tmp_path, rows, model="api", dataset="d", budget=9)
    assert origin["missing_options"] == 0
    assert row_means(read)["option_mass"] == pytest.approx([0.95], rel=1e-3)


def test_what_a_top_k_list_cut_off_is_bounded_by_its_last_entry(tmp_path):
    top = [{"token": token, "logprob": np.log(p)} for token, p in (("B", 0.7), ("A", 0.2))]
    rows = [{"question_id": "q", "image_id": "i", "options": list("ABCD"), "label": "B",
             "top_logprobs": top}]  # fmt: skip
    read, origin = cell(tmp_path, rows, model="api", dataset="d", budget=9)
    assert read.confidence[0] == pytest.approx(0.7 / 0.9)
    assert origin["missing_options"] == 2
    assert origin["unseen"] == pytest.approx(0.1)  # of the rest, less than 2 x 0.2
    top = [{"token": "the", "logprob": -0.1}]
    rows[0]["top_logprobs"] = top
    assert "has none of its options" in refusal(tmp_path, rows, model="a", dataset="d", budget=9)


def shown(form: str, scale, count: int = 9) -> list[dict]:
    """Return rows of one cell whose probabilities are written on a scale, with two decimals."""
    log_odds = np.random.default_rng(0).normal(size=(count, 3))
    shares = np.exp(log_odds) / np.exp(log_odds).sum(axis=1, keepdims=True)
    first = {key: value for key, value in answers()[0].items() if key != "probabilities"}
    return [
        {**first, "question_id": str(at), form: scale(one).round(2).tolist()}
        for at, one in enumerate(shares)
    ]


@pytest.mark.parametrize(
    ("form", "scale", "back", "words"),
    [
        ("log_probabilities", np.log2, lambda x: x * 0.6931472, "base 2, as which they sum to 1"),
        ("logits", np.log2, lambda x: x * 0.6931472, "base 2"),
        ("logits", np.log10, lambda x: x * 2.302585, "logarithms to base 10"),
        ("logits", lambda x: -np.log(x), lambda x: -x, "losses"),
        ("logits", lambda x: 100 * x, None, "percent"),
        ("logits", lambda x: x, None, "logits that are probabilities"),
    ],
)
def test_scores_that_sum_to_one_on_another_scale_alone_are_refused(
    tmp_path, form, scale, back, words
):
    assert words in refusal(tmp_path, shown(form, scale))
    cell(tmp_path, shown(form, scale, count=4))  # may be chance
    sure = [{**row, form: [-6.5 - at, -12.25, 0.0]} for at, row in enumerate(shown(form, scale))]
    cell(tmp_path, sure)  # natural logarithms, or logits whose largest is 0
    if form == "logits":
        cell(tmp_path, [{**row, form: [6.5 + at, 12.25, 0.0]} for at, row in enumerate(sure)])
    if back is not None:  # as the message says
        cell(tmp_path, shown(form, lambda x: back(scale(x))))


def test_logits_that_hardly_differ_are_no_percent(tmp_path):
    rows = shown("logits", lambda one: 33.3 + one / 10)
    assert cell(tmp_path, rows)[0].prediction.size == len(rows)


def test_top_k_lists_of_logarithms_to_base_2_are_refused(tmp_path):
    rows = [
        {key: value for key, value in row.items() if key != "log_probabilities"}
        | {"top_logprobs": dict(zip("ABC", row["log_probabilities"], strict=True))}
        for row in shown("log_probabilities", np.log2)
    ]
    assert "base 2" in refusal(tmp_path, rows)
    for row in rows:
        row["top_logprobs"] = {key: one * 0.6931472 for key, one in row["top_logprobs"].items()}
    cell(tmp_path, rows)


@pytest.mark.parametrize("kind", ["verbalised", "sequence"])
def test_stated_confidences_are_scored_without_logits_and_named(tmp_path, kind):
    rows = [
        {"question_id": f"q{i}", "image_id": f"i{i // 2}", "options": list("ABCD"), "label": "A",
         "prediction": "AB"[i % 2], "confidence": confidence}
        for i, confidence in enumerate((0.9, 0.1, 0.8, 0.2))
    ]  # fmt: skip
    with pytest.raises(PrunecalError, match="say what they are"):
        study_of(tmp_path, lines(tmp_path, rows), model="m", dataset="d", budget=9)
    options = {"model": "m", "dataset": "d", "budget": 9, "confidence": kind}
    settings = study_of(tmp_path, lines(tmp_path, rows), **options)
    assert settings["imported"][0]["model"] == f"m-{kind}"
    import_all(settings, tmp_path / "results")
    evaluate(tmp_path / "results")
    metrics = pd.read_csv(tmp_path / "results" / "metrics.csv").query("subset == 'all'")
    value = metrics.set_index("metric")["value"]
    compared = files.read_table(tmp_path / "results" / "comparisons.parquet")
    assert (len(compared), str(compared.schema.field("subset").type)) == (0, "string")
    assert value["accuracy"] == 0.5
    assert value["brier"] == pytest.approx(np.mean([0.01, 0.01, 0.04, 0.04]))
    assert not {"nll", "ece_temperature", "margin"} & set(value.index)
    assert "ece_cross_fitted" in value.index  # with which pruned cells are compared
    assert set(metrics["model"]) == {f"m-{kind}"}


def test_a_figure_of_cells_of_which_nothing_more_is_known_says_so():
    rows = [{"model": "m", "dataset": "d", "strategy": "full", "family": "full", "budget": 9}]
    unknown = dict.fromkeys((*mechanisms.MECHANISMS, *mechanisms.TARGETS), np.nan)
    figure = mechanisms.draw_cells(pd.DataFrame(rows).assign(**unknown), {})
    assert "No property is known" in figure.axes[0].texts[0].get_text()


def test_kinds_of_confidence_do_not_share_a_model():
    entry = {"model": "m", "dataset": "d", "budget": 9, "file": "a.csv"}
    stated = {**entry, "confidence": "sampled"}
    empty = {"title": "t", "models": [], "datasets": [], "strategies": [], "budgets": []}
    with pytest.raises(PrunecalError, match="m-sampled"):
        load_study({**empty, "imported": [stated]})
    with pytest.raises(PrunecalError, match="end in -"):
        load_study({**empty, "imported": [{**entry, "model": "m-sampled"}]})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probabilities": [0.6, 0.6, 0.1]}, "sum to 1.3"),
        ({"probabilities": [60, 30, 10]}, "numbers from 0 to 1"),
        ({"probabilities": [0, 0, 0]}, "not all 0"),
        ({"probabilities": [0.5, 0.5]}, "a number for each of its 3 options"),
        ({"probabilities": [0.5, "x", 0.5]}, "has 'x' in probabilities"),
        ({"probabilities": {"A": 0.5, "D": 0.5}}, "of 'D', which is not one of its options"),
        ({"label": 3}, "outside its options"),
        ({"label": None}, "has the label None"),
        ({"options": None}, "has no options"),
        ({"question_id": "q1"}, "line 2 repeats the question id 'q1'"),
        ({"image_id": None}, "as its image_id"),
        ({"image_id": 2.0**53}, "as its image_id, a number that has lost its last digits"),
        ({"image_id": "1.23E+17"}, "'1.23E+17' as its image_id, a number that has lost"),
        ({"log_normaliser": 9}, "answers.jsonl line 1 has no log_normaliser, which other rows"),
        ({"letter_logits": [1, 2, 3]}, "answers.jsonl line 1 has None as its letter_logits"),
        ({"subset": "x"}, "answers.jsonl line 1 has None as its subset"),
        ({"budget": "many"}, "has 'many' in budget"),
        ({"dataset": ""}, "as its dataset"),
        ({"subset": "all"}, "is in the subset 'all'"),
    ],
)
def test_a_bad_row_is_refused_by_file_and_line(tmp_path, change, words):
    rows = answers(**change)
    if change == {"subset": "all"}:
        rows[0]["subset"] = "x"
    message = refusal(tmp_path, rows)
    assert "answers.jsonl line 2" in message or "answers.jsonl line 1" in words
    assert words in message


def test_cells_that_answer_other_questions_are_refused(tmp_path):
    full = [{**row, "text": row["question_id"].upper()} for row in answers()]
    pruned = [{**row, "strategy": "mine", "budget": 3} for row in answers()]
    for change, words in (
        ({"question_id": "q3"}, "answers question 'q3', which the data set does not have"),
        ({"image_id": "i2"}, "has the image_id 'i2', other than 'i1' of question 'q2'"),
        (
            {"options": ["A", "B", "D"]},
            "has the options ['A', 'B', 'D'], other than ['A', 'B', 'C'] of question 'q2'",
        ),
        ({"label": 1}, "has the label 1, other than 2 ('C') of question 'q2'"),
        ({"text": "Q1"}, "has the text 'Q1' of question 'q1', not that of 'q2'; correct its qu"),
    ):
        rows = [*full, pruned[0], pruned[1] | change]
        with pytest.raises(PrunecalError) as caught:
            import_all(study_of(tmp_path, lines(tmp_path, rows)), tmp_path / "results")
        assert f"line 4 {words}" in str(caught.value)
    hinted = [full[0], full[1] | {"text": "Hint. Q1"}, pruned[0], pruned[1] | {"text": "Q1"}]
    import_all(study_of(tmp_path, lines(tmp_path, hinted)), tmp_path / "without its hint")
    with pytest.raises(PrunecalError, match="has no answer to 1 of 2 questions, the first 'q2'"):
        import_all(study_of(tmp_path, lines(tmp_path, [*answers(), pruned[0]])), tmp_path / "r")


def test_labels_that_are_counted_from_one_are_refused(tmp_path):
    rows = [{**answers()[0], "question_id": float(at), "label": 1 + at % 2} for at in range(30)]
    path = lines(tmp_path, rows)
    with pytest.raises(PrunecalError, match="labels from 1 to 2 and no 0, so they may be counted"):
        study_of(tmp_path, path)
    rows[7] |= {"label": "0.0"}
    assert study_of(tmp_path, lines(tmp_path, rows))["imported"]
    stated = [{**row, "label": 0, "prediction": row["label"], "confidence": 0.5} for row in rows]
    stated = [{k: v for k, v in row.items() if k != "probabilities"} for row in stated]
    stated[7]["prediction"] = 1
    words = refusal(tmp_path, stated, confidence="verbalised")
    assert "has predictions by number and no 0, more of which are right if 1 is the first" in words
    better = [
        {**row, "label": at % 3, "prediction": max(at % 3, 1)} for at, row in enumerate(stated)
    ]
    numbers = [{**row, "options": ["4", "5", "6"]} for row in stated]
    texts = [{**row, "prediction": row["options"][row["prediction"]]} for row in numbers]
    for sound in (better, texts):  # never the first, as a model may answer
        assert cell(tmp_path, sound, confidence="verbalised")
    for options in (["Yes", "No"], ["False", "True"]):  # of absent objects: all are 1
        absent = {"options": options, "label": 1, "probabilities": [0.1, 0.9]}
        assert study_of(tmp_path, lines(tmp_path, [row | absent for row in rows]))["imported"]


@pytest.mark.parametrize(
    ("label", "options", "words"),
    [
        ("US", ["us", "US", "uk"], 1),
        ("Us", ["us", "US", "uk"], "several of its options ['us', 'US', 'uk'] are but for case"),
        (1, [1, 2, 0], "label 1, which is an index and a value among its options [1, 2, 0]"),
        (1, [0, 1, 2], 1),
        (1, ["1", "2", "0"], 1),
    ],
)
def test_a_label_that_may_be_two_options_is_refused(tmp_path, label, options, words):
    row = {**answers()[0], "label": label, "options": options}
    if isinstance(words, str):
        assert words in refusal(tmp_path, [row])
    else:
        assert cell(tmp_path, [row])[0].rows["label"] == [words]


def test_a_study_to_which_others_have_added_is_not_replaced(tmp_path):
    path = lines(tmp_path, answers())
    study = study_of(tmp_path, path)
    assert study_of(tmp_path, path) == study
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(study | {"expect": []}))
    with pytest.raises(PrunecalError, match="again.yaml has expect, which would be lost; give"):
        study_of(tmp_path, path)
    (tmp_path / "again.yaml").write_text("a,b\n1,2")
    with pytest.raises(PrunecalError, match="again.yaml has other content, which would be lost"):
        study_of(tmp_path, path)
    with pytest.raises(SystemExit):
        imports.arguments_of(["a.csv", "--study", "b.yaml", "--columns", "label=a", "label=b"])


@pytest.mark.parametrize(
    ("value", "options", "expected"),
    [("1.0", ["1.0", "2.0", "3.0"], 0), ("1.0", ["a", "b"], 1), ("1.0", ["2", "1"], 1)],
)
def test_decimal_labels_are_texts_of_options_before_indices(value, options, expected):
    assert label("x", value, options) == expected
    with pytest.raises(PrunecalError, match="an index and a text"):
        label("x", value, ["1", "2"])


def test_labels_of_yes_and_no_that_are_flags_are_refused(tmp_path):
    rows = [
        {**answers()[0], "question_id": at, "options": ["Yes", "No"], "label": at % 2,
         "probabilities": [0.1 + 0.8 * (at % 2), 0.9 - 0.8 * (at % 2)]}
        for at in range(20)
    ]  # fmt: skip
    with pytest.raises(PrunecalError, match="right in 0% of its answers; if 1 is yes, write yes"):
        study_of(tmp_path, lines(tmp_path, rows))
    words = [row | {"label": ("no", "Yes")[row["label"]]} for row in rows]
    assert study_of(tmp_path, lines(tmp_path, words))["imported"]


def test_rows_in_another_order_and_options_in_another_order_are_put_in_place(tmp_path):
    pruned = [{**row, "strategy": "mine", "budget": 3} for row in reversed(answers())]
    pruned[0] |= {"options": ["C", "A", "B"], "probabilities": [0.7, 0.2, 0.1], "label": 0}
    import_all(study_of(tmp_path, lines(tmp_path, [*answers(), *pruned])), tmp_path / "results")
    read = read_cell(next(tmp_path.rglob("mine/3/predictions.parquet")))
    assert read.rows["question_id"] == ["q1", "q2"]
    np.testing.assert_allclose(np.exp(read.log_probability[1]), [0.2, 0.1, 0.7], atol=1e-6)


def test_imported_cells_that_do_not_make_a_study_are_refused(tmp_path):
    entry = {"model": "m", "dataset": "d", "strategy": "full", "budget": 9, "file": "a.csv"}
    empty = {"title": "t", "models": [], "datasets": [], "strategies": [], "budgets": []}
    other = {**entry, "strategy": "mine", "budget": 3}
    for entries, words in (
        ([other], "has no cell of the family `full`"),
        ([entry, {**entry, "budget": 8}], "has 2 cells of the family `full`"),
        ([entry, other, other], "mine at 3 tokens is defined twice"),
        ([entry, other, {**other, "budget": 2, "parameters": {"a": 1}}], "another family or other"),
        ([], "give at least one entry"),
        ([{**entry, "budget": 0}], "budget: 0 is neither between 1 and 32767 tokens"),
        ([{**entry, "model": "M"}, entry], "differ in case alone"),
        ([entry, other, {**other, "strategy": "Mine"}], "'mine' and 'Mine' differ in case alone"),
        ([{**entry, "family": " "}], "' ' names nothing; give some text"),
        ([{**entry, "family": "_x"}], "'_x' begins with an underscore, by which legends"),
    ):
        with pytest.raises(PrunecalError) as caught:
            load_study({**empty, "imported": entries})
        assert words in str(caught.value)


def test_lists_of_numbers_differ_where_more_than_rounding_does():
    def column(*rows):
        return pa.chunked_array([list(rows)], pa.list_(pa.float32()))

    stored = column([1.0, 2.0], None, [3.0], [])
    assert first_difference(stored, column([1.0, 2.0000002], None, [3.0], [])) is None
    assert first_difference(stored, column([1.0, 2.0], None, [3.1], [])) == 2
    assert first_difference(stored, column([1.0, 2.0], [1.0], [3.1], [])) == 1
