"""Short answers: decoded greedily on shared prompts, matched with what is accepted, scored."""

import json
import re
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.stages import ask_trust, explain, run, write_first_page
from helpers.tiny_llava import (
    embedded_prompt,
    encoded,
    loaded,
    picture,
    png,
    questions,
    tiny_llava,
)
from prunecal import claims, compare, data, encode, infer, score
from prunecal import model as model_stage
from prunecal import rank as rank_stage
from prunecal.core import plugins
from prunecal.core.errors import PrunecalError
from prunecal.datasets import table
from prunecal.datasets._answers import accepted_answers
from prunecal.engine.session import Session
from prunecal.models.llava import Llava
from prunecal.report import single_questions
from prunecal.storage import files
from prunecal.storage.arrays import open_arrays, write_tensors
from prunecal.study.cells import cells, load_study
from prunecal.study.short_answers import OTHER, normalised, refuse_other_kind

MOST = 4  # tokens of an answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    tiny_llava(folder, depth=3, kv_heads=2)
    return folder


@pytest.fixture(scope="module")
def features(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "features.safetensors"
    with torch.inference_mode():
        tokens, saliency = encoded(loaded(folder), [picture(0), picture(1)])
    arrays = {"features": tokens.contiguous(), "saliency": saliency}
    write_tensors(path, arrays, {"image_id": ["image0", "image1"]})
    return path


def ending_with(folder, ends):
    """Return the model, whose answers end with these tokens."""
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    return loaded(folder)


def answered(model, features, family, order, batch_tokens):
    session = Session(model, questions(2), features, batch_tokens, max_new_tokens=MOST)
    strategy = plugins.load("strategies", family)
    coverage = np.zeros(2, np.float32)
    return session.run(strategy, strategy.Params(), order.shape[1], list(order), coverage).short


def generated(model, features, text, kept, ends):
    """What transformers' own generate says to one prompt with some visual tokens kept."""
    prompt = embedded_prompt(model, text, model.project(features[kept]))
    result = model.model.generate(
        inputs_embeds=prompt,
        attention_mask=torch.ones(prompt.shape[:2], dtype=torch.int64),
        max_new_tokens=MOST,
        do_sample=False,
        eos_token_id=ends,
        pad_token_id=0,
        output_scores=True,
        return_dict_in_generate=True,
    )
    (tokens,) = result.sequences.tolist()
    steps = [
        score[0].log_softmax(-1)[token] for score, token in zip(result.scores, tokens, strict=True)
    ]
    finished = tokens[-1] in ends
    return model.text(tokens[:-1] if finished else tokens), sum(steps).exp().item(), finished


@pytest.mark.parametrize(
    ("family", "budget", "batch_tokens"), [("full", 16, 2048), ("saliency", 5, 150)]
)
def test_answers_equal_transformers_generate_one_at_a_time(
    folder, features, monkeypatch, family, budget, batch_tokens
):
    monkeypatch.setattr(Llava, "text", lambda _, tokens: " ".join(map(str, tokens)))
    order = np.stack([np.random.default_rng(image).permutation(16)[:budget] for image in range(2)])
    order = order.astype(np.int16)
    plain = answered(ending_with(folder, [2]), features, family, order, batch_tokens)
    assert not plain.finished.any()
    tokens = [row.split() for row in plain.texts]
    ends = [2, int(tokens[0][1]), int(tokens[-1][2])]
    model = ending_with(folder, ends)
    short = answered(model, features, family, order, batch_tokens)
    values = open_arrays(features, framework="pt").get_tensor("features")
    for row, question in questions(2).iloc[1::4].iterrows():
        image = int(question["image_id"][-1])
        kept = torch.from_numpy(order[image]).long().sort().values
        with torch.inference_mode():
            says = generated(model, values[image], question["text"], kept, ends)
        assert (short.texts[row], short.finished[row]) == (says[0], says[2])
        assert short.confidence[row] == pytest.approx(says[1], rel=2e-4)
    assert short.finished.any()
    assert set(short.tokens[~short.finished]) <= {MOST}


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("A red car.", "red car"),
        ("Two", "2"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("it's  the dog's", "its dogs"),
        ("black-and-white", "black and white"),
        ("The", "the"),
        ("“A”", "“a”"),
    ],
)
def test_answers_are_normalised_as_the_evaluation_of_vqa_has_it(text, same):
    assert normalised(text) == same


def asked(folder, answers):
    """Write a table of questions about two images with these accepted answers."""
    rows = []
    for at, answer in enumerate(answers):
        (folder / f"{at % 2}.png").write_bytes(png(picture(at % 2)))
        question = f"What is {'here' if at % 3 else 'there'}?"
        rows.append({"question": question, "image": f"{at % 2}.png", "answer": answer})
    path = folder / "asked.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": path, "images": folder, "form": "short-answer"}


def test_a_table_of_short_answers_gives_what_is_accepted(tmp_path):
    settings = asked(tmp_path, ["Cat.", ["two", "2"], 3, '["a cat", "dog"]'])
    read = table.load(table.Params(**settings, max_new_tokens=4))
    assert read.questions["answers"].tolist() == [["Cat."], ["two", "2"], ["3"], ["a cat", "dog"]]
    assert read.questions["options"].tolist()[1] == ["two", "another answer"]
    assert set(read.questions["label"]) == {0}
    assert read.questions["text"][0].endswith("using a single word or phrase.")
    assert read.max_new_tokens == 4
    settings = asked(tmp_path, ["cat", []])
    with pytest.raises(PrunecalError, match=r"asked\.jsonl line 2 accepts no answer"):
        table.load(table.Params(**settings))


def study(folder, tables, name="d-short-answers", strategies=("full", "saliency"), **more):
    return {
        "title": "Short answers",
        "models": [
            {"name": "m", "family": "llava", "visual_tokens": 16, "path": str(folder)},
        ],
        "datasets": [
            {"name": name, "loader": "table", **{key: str(one) for key, one in tables.items()}}
            | more
        ],
        "strategies": list(strategies),
        "budgets": [4],
        "statistics": {"resamples": 100},
    }


def test_accepted_numbers_are_exact_and_what_is_no_text_is_refused():
    assert accepted_answers("here", [1234567.0, 3.14159265, 7]) == ["1234567", "3.14159265", "7"]
    assert accepted_answers("here", "['a', 'b']") == ["a", "b"]
    for value in (["cat", "d\0g"], ["\ud800"], float("inf"), [], [True], "['cat' 'dog']"):
        with pytest.raises(PrunecalError, match="^here "):
            accepted_answers("here", value)


def test_an_end_that_is_no_token_is_refused(folder):
    model = ending_with(folder, [2])
    for ends in ("x", -1, 10**9, [2, "x"], [[2]], 0.5):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
        with pytest.raises(PrunecalError, match=r"eos_token_id .* names no tokens|cannot be read"):
            model.end_tokens()
    ending_with(folder, [2])


def test_what_short_answers_do_not_allow_is_refused_in_a_sentence(folder, tmp_path):
    tables = asked(tmp_path, ["cat"])
    for faulty, words in (
        (study(folder, tables, name="d"), "name it d-short-answers and set `form: short-answer`"),
        (study(folder, tables, form="yes-no"), "end in -short"),
        (study(folder, tables, options="choices"), "`form: short-answer` has no options"),
        (study(folder, tables, answer_is="text"), "`answer_is:` does not belong to"),
        (
            study(folder, tables, strategies=["full", "fastv"]),
            "fastv drops no visual tokens before",
        ),
        (
            study(folder, tables, strategies=["full", "blind"]),
            "blind drops no visual tokens before",
        ),
    ):
        with pytest.raises(PrunecalError, match=re.escape(words)):
            load_study(faulty)


def computed(settings, results):
    """Run the stages up to the predictions, as the rules do."""
    checked = load_study(settings)
    (model,), (dataset,) = checked.models, checked.datasets
    data_folder, task = results / "datasets" / dataset.name, results / model.name / dataset.name
    questions, images = (data_folder / f"{part}.parquet" for part in ("questions", "images"))
    params = json.dumps(dataset.params())
    data.main(Namespace(dataset=dataset.name, loader="table", params=params, questions=questions,
                        images=images))  # fmt: skip
    manifest = results / "models" / model.name / "manifest.json"
    source, how = json.dumps(model.source()), json.dumps(model.run_settings())
    model_stage.main(Namespace(model=model.name, params=source, settings=None, manifest=manifest,
                               weights=None))  # fmt: skip
    run = {"manifest": manifest, "weights": None, "source": source, "settings": how,
           "device": "cpu", "threads": 1}  # fmt: skip
    features = task / "features.safetensors"
    encode.main(Namespace(**run, images=images, signals=[], budget=None, out=features))
    listed = cells(checked, model)
    for cell in {cell.strategy: cell for cell in listed}.values():
        ranking = task / cell.strategy / "ranking.safetensors"
        inputs = Namespace(features=features, signals=[], questions=None)
        rank_stage.rank_plugin(inputs, cell.family, [dict(cell.parameters)], [], [ranking])
    infer.main(Namespace(**run, model=model.name, layers=None, dataset=dataset.name, folder=task,
                         cells=json.dumps([cell.settings() for cell in listed]),
                         questions=questions, features=features, store=results / ".cells",
                         batch_tokens=512))  # fmt: skip
    files.write_json(results / "study.json", settings)
    return task


def test_a_study_of_short_answers_is_scored_and_reported_as_sequence_confidence(
    folder, tmp_path, caplog, monkeypatch
):
    ending_with(folder, [2])
    monkeypatch.setattr(Llava, "text", lambda *_: "two red cars")
    tables = asked(tmp_path, [["x", "The 2 red cars!"], *["x"] * 5])
    settings, results = study(folder, tables, max_new_tokens=2), tmp_path / "results"
    task = computed(settings, results)
    path = task / "full" / "16" / "predictions.parquet"
    rows, facts = files.read_table(path).to_pydict(), files.read_facts(path)
    assert rows["prediction"] == [0, 1, 1, 1, 1, 1]
    assert (rows["logits"], rows["answer_tokens"]) == ([None] * 6, [2] * 6)
    assert (facts["confidence"], facts["cut_off"], facts["end_tokens"]) == ("sequence", 6, [2])
    assert "6 of 6 answers were cut off at 2 tokens" in caplog.text
    scores = results / "scores" / "m" / "d-short-answers.safetensors"
    predictions = sorted(task.glob("*/*/predictions.parquet"))
    questions = results / "datasets" / "d-short-answers" / "questions.parquet"
    run(score, predictions=predictions, questions=questions, output=scores, resamples=100,
        costly_resamples=50)  # fmt: skip
    run(compare, scores=[scores], folder=results)
    root = Path(__file__).parents[2]
    run(claims, claims=root / "reports" / "claims.yaml", scores=[scores],
        output=results / "claims.json")  # fmt: skip
    metrics = files.read_table(results / "metrics.parquet").to_pandas()
    full = metrics.query("strategy == 'full' and subset == 'all'").set_index("metric")["value"]
    assert full["accuracy"] == pytest.approx(1 / 6)
    assert full["mean_confidence"] == pytest.approx(np.mean(rows["confidence"]))
    assert not {"nll", "margin", "option_mass", "yes_rate", "ece_temperature"} & set(full.index)
    explain(results, results / "tables")
    ask_trust(results, results / "tables")
    page = write_first_page(results, tmp_path)
    assert "confidence is sequence confidence" in page
    assert "12 of 12 short answers were cut off" in page
    assert "product of its tokens" in (tmp_path / "methods.html").read_text()
    changes = tmp_path / "changes.html"
    run(single_questions, predictions=predictions, questions=[questions], output=changes, count=3,
        images=[questions.with_name("images.parquet")],
        rankings=sorted(task.glob("*/ranking.safetensors")),
        manifests=sorted(results.glob("models/*/manifest.json")))  # fmt: skip
    assert "Accepted: <strong>x" in changes.read_text()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("textvqa", [["Paris", OTHER], ["2", OTHER]], "name it textvqa-short-answers"),
        (
            "mmstar-short-answers",
            [["a", "b", "c"]],
            "has a question with 3 options.* name it mmstar$",
        ),
        ("mmstar", [["a", "b", "c"], ["Paris", OTHER]], None),
        ("textvqa-short-answers", [["Paris", OTHER]], None),
    ],
)
def test_imported_questions_are_of_the_kind_that_the_name_of_their_data_set_says(
    name, options, message
):
    with pytest.raises(PrunecalError, match=message) if message else nullcontext():
        refuse_other_kind(name, options)
