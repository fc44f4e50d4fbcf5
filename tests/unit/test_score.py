"""The score stage against the plain metrics, on files made here."""

import numpy as np
import pyarrow as pa
import pytest

from helpers.plain_metrics import PLAIN
from prunecal import calibration, score
from prunecal.calibration.metrics import COSTLY, PRIMARY
from prunecal.core.errors import PrunecalError
from prunecal.statistics import comparisons
from prunecal.statistics.predictions import read_cell, read_cells
from prunecal.statistics.scores import Scores
from prunecal.statistics.subsets import subsets
from prunecal.storage import files

IMAGES, PER_IMAGE = 12, 6
N = IMAGES * PER_IMAGE


def questions(options=("Yes", "No")):
    """Three subsets; rows 0 and 1 of each image ask the same question."""
    rng = np.random.default_rng(0)
    return {
        "question_id": [f"q{i}" for i in range(N)],
        "image_id": [f"image{i // PER_IMAGE:02d}" for i in range(N)],
        "subset": [("random", "popular", "adversarial")[i % 3] for i in range(N)],
        "options": [list(options)] * N,
        "label": rng.integers(0, len(options), N).tolist(),
        "text": [f"question {max(i % PER_IMAGE, 1)}" for i in range(N)],
    }


def write_cell(folder, strategy="full", budget=16, seed=0, rows=None, logits=None, **parameters):
    """Write predictions.parquet of one cell and return its path."""
    rows = rows or questions()
    rng = np.random.default_rng([seed, budget])
    if logits is None:
        logits = [rng.normal(size=len(options)).tolist() for options in rows["options"]]
    table = pa.table(
        {
            **{key: rows[key] for key in ("question_id", "image_id", "subset", "options")},
            "label": pa.array(rows["label"], pa.int8()),
            "logits": pa.array(logits, pa.list_(pa.float32())),
            "n_visual": pa.array([budget] * N, pa.int32()),
            "coverage": pa.array(rng.uniform(size=N), pa.float32()),
        }
    )
    cell = {"model": "m", "dataset": "d", "strategy": strategy, "family": strategy.split("-")[0]}
    cell |= {"parameters": parameters, "budget": budget}
    path = folder / strategy / str(budget) / "predictions.parquet"
    files.write_table(path, table, {"cell": cell, "visual_tokens": 16, "tokens_per_layer": 9.5})
    return path


def study(folder):
    return [
        write_cell(folder),
        write_cell(folder, "scope-alpha0", 4, seed=1, alpha=0.0),
        write_cell(folder, "scope-alpha0", 8, seed=2, alpha=0.0),
    ]


def run(folder, paths, name="score.safetensors", *options):
    asked = questions()
    table = pa.table({key: asked[key] for key in ("question_id", "text")})
    files.write_table(folder / "questions.parquet", table, {})
    output = folder / name
    command = ["--predictions", *map(str, paths), "--output", str(output)]
    command += ["--questions", str(folder / "questions.parquet"), "--resamples", "30"]
    score.main(score.arguments_of([*command, "--costly-resamples", "10", *options]))
    return Scores(output)


def test_questions_are_split_by_what_a_cell_answers_rightly_and_not_tested(tmp_path, monkeypatch):
    monkeypatch.setattr(comparisons, "FEWEST_IMAGES", 2)
    paths = study(tmp_path)
    scores = run(tmp_path, paths, "s", "--outcome-of", "scope-alpha0", "8")
    full, by = read_cell(paths[0]), read_cell(paths[2])
    right = by.prediction == by.label
    for end, rows in (("right", right), ("wrong", ~right)):
        at = scores.subset(f"chosen by outcome: scope-alpha0 at 8 {end}")
        assert scores.subsets[at]["n"] == rows.sum()
        values = scores.value("accuracy")[:, at]
        assert values[scores.reference] == pytest.approx(full.correct[rows].mean())
        assert values[2] == (end == "right")
    plain = run(tmp_path, paths)
    np.testing.assert_array_equal(
        scores.draws("accuracy")[:, : len(plain.subsets)], plain.draws("accuracy")
    )
    tested = {
        (row["subset"].startswith("chosen by outcome"), np.isfinite(row["p_adjusted"]))
        for row in comparisons.comparison_rows(scores, 0.95)
        if row["metric"] == "accuracy"
    }
    assert tested == {(True, False), (False, True)}
    with pytest.raises(PrunecalError, match="pool at 8 is no cell of --predictions"):
        run(tmp_path, paths, "s", "--outcome-of", "pool", "8")


def test_values_equal_the_plain_metrics_of_each_subset(tmp_path):
    paths = study(tmp_path)
    scores = run(tmp_path, paths)
    cell = read_cell(paths[1])
    index = next(i for i, c in enumerate(scores.cells) if c["budget"] == 4)
    labels = np.array(cell.rows["subset"])
    distinct = np.array([i for i in range(N) if i % PER_IMAGE != 1])
    wanted = {"all": np.arange(N), "unique": distinct}
    wanted |= {name: np.flatnonzero(labels == name) for name in ("random", "popular")}
    for name, rows in wanted.items():
        at = index, scores.subset(name)
        assert scores.subsets[at[1]] == {"name": name, "n": len(rows), "n_images": IMAGES}
        confidence, correct = cell.confidence[rows], cell.correct[rows]
        for metric, function in PLAIN.items():
            expected = function(confidence, correct)
            assert scores.value(metric)[at] == pytest.approx(expected, abs=1e-12)
        logits, label = cell.table[rows], cell.label[rows]
        assert scores.value("nll")[at] == pytest.approx(
            calibration.negative_log_likelihood(logits, label)
        )
        assert scores.value("brier_multiclass")[at] == pytest.approx(
            calibration.brier_multiclass(logits, label)
        )
        assert scores.value("yes_rate")[at] == pytest.approx((logits[:, 0] >= logits[:, 1]).mean())
        assert scores.value("evidence_coverage")[at] == pytest.approx(cell.coverage[rows].mean())
        assert scores.value("n_visual")[at] == 4
        assert scores.value("tokens_per_layer")[at] == pytest.approx(9.5)
        yes = cell.yes[rows]
        assert scores.value("ece_yes")[at] == pytest.approx(
            PLAIN["ece"](confidence[yes], correct[yes])
        )


def test_precision_recall_and_f1_are_those_of_the_answer_yes_in_each_subset(tmp_path):
    paths = study(tmp_path)
    scores = run(tmp_path, paths)

    def expected_of(truth, answer):
        both = int((truth & answer).sum())
        precision, recall = both / int(answer.sum()), both / int(truth.sum())
        return precision, recall, 2 / (1 / precision + 1 / recall)

    for index, cell in enumerate(read_cells(paths)):
        truth, answer = cell.label == 0, cell.prediction == 0
        subset = np.array(cell.rows["subset"])
        parts = {"all": np.ones(N, dtype=bool)}
        parts |= {name: subset == name for name in ("random", "popular", "adversarial")}
        keys = ("precision", "recall", "f1")
        expected = {name: expected_of(truth[rows], answer[rows]) for name, rows in parts.items()}
        for name, numbers in expected.items():
            measured = [scores.value(key)[index, scores.subset(name)] for key in keys]
            assert measured == pytest.approx(numbers)
        whole = scores.subset("all")
        over = [scores.value(f"{key}_over_subsets")[index, whole] for key in keys]
        own = [expected[name] for name in ("random", "popular", "adversarial")]
        assert over == pytest.approx(np.mean(own, axis=0))
    draws = scores.draws("f1")[0, whole]
    assert draws.std() > 0
    assert np.isfinite(draws).all()


def test_without_an_answer_yes_precision_is_undefined_and_recall_is_zero(tmp_path):
    path = write_cell(tmp_path, logits=[[0.0, 1.0]] * N)
    scores = run(tmp_path, [path])
    whole = 0, scores.subset("all")
    assert np.isnan(scores.value("precision")[whole])
    assert scores.value("recall")[whole] == scores.value("f1")[whole] == 0


def test_the_score_file_says_how_the_bins_are_filled(tmp_path):
    logits = [[2.0, 0.0]] * (N // 2) + [[0.0, 4.0]] * (N // 4) + [[0.0, 4.1]] * (N // 4)
    use = run(tmp_path, [write_cell(tmp_path, logits=logits)]).bin_use()
    whole = 0, 3  # subset "all" after the data set's three
    assert use["bins_filled"][whole] == 2  # confidence 0.88 once, 0.98 twice
    assert use["largest_bin_share"][whole] == 0.5


@pytest.mark.slow
def test_the_same_bytes_come_out_whatever_the_threads_and_the_order_of_files(tmp_path):
    paths = study(tmp_path)
    run(tmp_path, paths, "a.safetensors")
    run(tmp_path, paths[::-1], "b.safetensors", "--threads", "2")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    run(tmp_path, paths, "c.safetensors", "--seed", "1")
    assert (tmp_path / "a.safetensors").read_bytes() != (tmp_path / "c.safetensors").read_bytes()


def test_draws_have_the_shape_that_the_facts_name(tmp_path):
    scores = run(tmp_path, study(tmp_path))
    for metric, resamples in scores.facts["resamples"].items():
        assert scores.draws(metric).shape == (3, 5, resamples)
        costly = metric in COSTLY | PRIMARY
        assert resamples == (10 if costly else 30)


def test_a_temperature_of_the_unpruned_model_is_its_own(tmp_path):
    scores = run(tmp_path, study(tmp_path))
    own, carried = scores.value("ece_temperature"), scores.value("ece_temperature_transfer")
    full = scores.reference
    np.testing.assert_array_equal(own[full], carried[full])
    others = np.arange(3) != full
    assert (own[others] != carried[others]).any()


def test_temperature_scaling_mends_overconfident_logits(tmp_path):
    rng = np.random.default_rng(4)
    gap = rng.normal(size=N) * 2
    rows = questions()
    rows["label"] = (rng.uniform(size=N) > 1 / (1 + np.exp(-gap))).astype(int).tolist()
    logits = [[4 * z, 0.0] for z in gap]
    scores = run(tmp_path, [write_cell(tmp_path, rows=rows, logits=logits)])
    pooled = 0, scores.subset("all")
    assert scores.value("ece_temperature")[pooled] < 0.7 * scores.value("ece")[pooled]
    assert scores.value("temperature")[pooled] == pytest.approx(4, rel=0.3)


def test_lettered_options_have_no_yes_rate_and_may_differ_in_number(tmp_path):
    rows = questions()
    rows["options"] = [list("ABCDE"[: 2 + i % 4]) for i in range(N)]
    rows["label"] = [i % 2 for i in range(N)]
    scores = run(tmp_path, [write_cell(tmp_path, rows=rows)])
    assert not {"yes_rate", "ece_yes", "ece_no"} & set(scores.facts["metrics"])
    assert np.isfinite(scores.value("nll")).all()


def test_largest_logit_wins_and_the_lowest_index_of_a_tie(tmp_path):
    rows = questions()
    rows["label"] = [0] * N
    cell = read_cell(write_cell(tmp_path, rows=rows, logits=[[1.5, 1.5]] * N))
    assert cell.correct.all()
    np.testing.assert_array_equal(cell.confidence, 0.5)


def test_equal_logits_share_the_probability_exactly(tmp_path):
    rows = questions(options=list("ABC"))
    cell = read_cell(write_cell(tmp_path, rows=rows, logits=[[0.1, 0.1, 0.1]] * N))
    np.testing.assert_array_equal(cell.confidence, 5 / 15)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_broken_logits_name_the_question(tmp_path, bad):
    logits = [[0.0, 1.0]] * N
    logits[7] = [0.0, bad]
    with pytest.raises(PrunecalError, match="question 'q7' has NaN or infinite"):
        read_cell(write_cell(tmp_path, logits=logits))


def test_label_outside_the_options_names_the_question(tmp_path):
    rows = questions()
    rows["label"][3] = 2
    with pytest.raises(PrunecalError, match="question 'q3' has label 2"):
        read_cell(write_cell(tmp_path, rows=rows))


def test_missing_logit_names_the_question(tmp_path):
    logits = [[0.0, 1.0]] * N
    logits[5] = [0.0]
    with pytest.raises(PrunecalError, match="question 'q5' has 1 logits for 2 options"):
        read_cell(write_cell(tmp_path, logits=logits))


def test_cells_on_other_questions_are_refused(tmp_path):
    other = questions()
    other["label"][0] = 1 - other["label"][0]
    paths = [write_cell(tmp_path), write_cell(tmp_path, "saliency", 4, rows=other)]
    with pytest.raises(PrunecalError, match="differ in their label"):
        read_cells(paths)


def test_one_cell_in_two_files_is_refused(tmp_path):
    paths = [write_cell(tmp_path / "a"), write_cell(tmp_path / "b")]
    with pytest.raises(PrunecalError, match="the same cell"):
        read_cells(paths)


def test_reserved_subset_name_is_refused():
    with pytest.raises(PrunecalError, match="'all' is reserved"):
        subsets({"subset": ["all"]}, None)


def test_question_without_text_is_named(tmp_path):
    paths = study(tmp_path)
    short = pa.table({"question_id": ["q0"], "text": ["?"]})
    files.write_table(tmp_path / "short.parquet", short, {})
    with pytest.raises(PrunecalError, match="lacks question 'q1'"):
        subsets(read_cell(paths[0]).rows, tmp_path / "short.parquet")
