"""What explains a change: saliency kept, rank correlations, and what accuracy alone would do."""

import csv

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from helpers import synthetic_results
from helpers.stages import explain
from prunecal.calibration import expected_calibration_error
from prunecal.calibration.bins import bin_sums
from prunecal.core.errors import PrunecalError
from prunecal.figures import explanations
from prunecal.statistics import accuracy_matched, kept_saliency
from prunecal.statistics import mechanisms as statistics_of
from prunecal.statistics.bootstrap import image_weights
from prunecal.statistics.rank_correlation import rank_correlation
from prunecal.statistics.scores import read_scores
from prunecal.storage.arrays import write_arrays
from prunecal.study.budgets import kept_tokens


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    strategies = ["full", "saliency", {"strategy": "scope", "alpha": [0.0, 0.5, 1.0]}, "fastv"]
    settings = synthetic_results.study(strategies, [4, 8])
    results = synthetic_results.write(tmp_path_factory.mktemp("study"), settings)
    synthetic_results.write_sources(results)
    explain(results, results / "tables")
    return results


def rows(results, name):
    with (results / "tables" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_saliency_kept_equals_a_slow_computation():
    generator = np.random.default_rng(0)
    saliency = generator.random((3, 9)).astype(np.float32)
    order = np.stack([generator.permutation(9) for _ in range(3)]).astype(np.int16)
    weights = np.array([[2.0, 0], [1, 3], [5, 1]])
    found = kept_saliency.saliency_tables([order, None], [4, 4], saliency, weights)
    for column in range(2):
        share, mean, count = 0.0, 0.0, 0.0
        for image in range(3):
            for _ in range(int(weights[image, column])):
                kept = [float(saliency[image, token]) for token in order[image, :4]]
                share += sum(kept) / float(saliency[image].sum(dtype=float))
                mean += sum(kept) / 4
                count += 1
        assert found["saliency_share"][0, column] == pytest.approx(share / count)
        assert found["mean_saliency"][0, column] == pytest.approx(mean / count)
    assert np.isnan(found["saliency_share"][1]).all()


def test_saliency_kept_of_images_that_differ_in_tokens_equals_a_slow_computation(tmp_path):
    """Once with one order for all budgets, once with tokens selected for the budget alone."""
    generator, counts = np.random.default_rng(0), [5, 10, 7]
    saliency = [generator.random(count).astype(np.float32) for count in counts]
    orders = [generator.permutation(count).astype(np.int16) for count in counts]
    kept = [order[: kept_tokens("40%", len(order))] for order in orders]
    assert [len(one) for one in kept] == [2, 4, 3]
    ids, task = ["a", "b", "c"], ("model", "data")
    paths = [tmp_path / "model" / "data" / name / "ranking.safetensors" for name in ("one", "own")]
    features = tmp_path / "model" / "data" / "features.safetensors"
    tokens, facts = np.array(counts, np.int32), {"image_id": ids}
    arrays = [
        {"order": np.concatenate(orders), "coverage": np.ones(22, np.float32)},
        {"kept/40%": np.concatenate(kept), "covered/40%": np.ones(3, np.float32)},
        {"saliency": np.concatenate(saliency), "features": np.ones((22, 2), np.float32)},
    ]
    for path, values in zip([*paths, features], arrays, strict=True):
        write_arrays(path, values | {"tokens": tokens}, facts)
    sources = kept_saliency.Sources(paths, [features], [])
    asked, weights = ["c", "a"], np.array([[2.0, 0], [1, 3]])  # in another order, not all
    read = [sources.order(task, name, asked, "40%") for name in ("one", "own")]
    values = sources.saliency(task, asked)
    found = kept_saliency.saliency_tables(read, ["40%", "40%"], values, weights)
    for column in range(2):
        held = [saliency[image][kept[image]] for image in (2, 0)]
        whole = [saliency[image].sum(dtype=float) for image in (2, 0)]
        of_questions = weights[:, column] / weights[:, column].sum()
        share = [one.sum(dtype=float) / total for one, total in zip(held, whole, strict=True)]
        mean = [one.sum(dtype=float) / len(one) for one in held]
        for cell in range(2):
            assert found["saliency_share"][cell, column] == pytest.approx(of_questions @ share)
            assert found["mean_saliency"][cell, column] == pytest.approx(of_questions @ mean)


def test_all_tokens_hold_all_saliency(results):
    unpruned = [row for row in rows(results, "mechanisms") if row["family"] == "full"]
    assert [float(row["saliency_share"]) for row in unpruned] == pytest.approx([1, 1])


def test_a_strategy_inside_the_decoder_has_no_saliency(results):
    found = rows(results, "mechanisms")
    assert all(bool(row["saliency_share"]) == (row["family"] != "fastv") for row in found)
    assert all(row["entropy"] for row in found)


def test_rank_correlation_agrees_with_scipy():
    generator = np.random.default_rng(1)
    x, y = generator.integers(0, 6, (12, 5)), generator.normal(size=(12, 5))
    expected = [spearmanr(x[:, i], y[:, i]).statistic for i in range(5)]
    assert rank_correlation(x, y) == pytest.approx(expected)
    assert np.isnan(rank_correlation(np.ones((4, 1)), y[:4, :1])).all()


def test_correlations_are_those_of_the_written_cells(results):
    cells = [row for row in rows(results, "mechanisms") if row["dataset"] == "toy-sqa"]
    cells = [row for row in cells if row["family"] != "full"]
    found = [row for row in rows(results, "correlations") if row["dataset"] == "toy-sqa"]
    by_pair = {(row["budget"], row["metric"], row["with"]): row for row in found}
    whole = by_pair["pooled", "entropy", "ece"]
    values = [[float(cell[name]) for cell in cells] for name in ("entropy", "ece")]
    assert float(whole["rho"]) == pytest.approx(spearmanr(*values).statistic)
    assert int(whole["cells"]) == len(cells) == 10
    ranked = by_pair["pooled", "saliency_share", "accuracy"]
    assert int(ranked["cells"]) == 8
    four = [cell for cell in cells if cell["budget"] == "4"]
    values = [[float(cell[name]) for cell in four] for name in ("accuracy", "ece")]
    assert float(by_pair["4", "accuracy", "ece"]["rho"]) == pytest.approx(spearmanr(*values)[0])
    assert ("pooled", "yes_rate", "ece") not in by_pair  # toy-sqa asks nothing with Yes or No


@pytest.mark.parametrize("change", [-0.3, -0.05, 0.02])
def test_expected_change_is_that_of_shifting_every_bins_accuracy(change):
    """The ECE of a model whose bins have the same confidences and shifted accuracies."""
    generator = np.random.default_rng(2)
    confidence = generator.uniform(0.4, 1, 4000)
    correct = generator.random(4000) < confidence - 0.1
    sums = bin_sums(confidence, correct, np.zeros(4000, np.intp), np.ones((1, 1)), 15)
    expected = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            gap = confidence[inside].mean() - correct[inside].mean()
            expected += inside.mean() * abs(gap - change)
    expected -= expected_calibration_error(confidence, correct)
    found = accuracy_matched.expected_change(sums, np.array([change]))
    assert found == pytest.approx([expected])
    if change < 0:  # overconfident in every bin: ECE rises by what accuracy loses
        assert found == pytest.approx([-change], abs=0.01)


def test_same_confidences_with_more_errors_lie_on_the_line():
    generator = np.random.default_rng(4)
    confidence = generator.uniform(0.5, 1, 40_000)
    better, worse = (generator.random(40_000) < confidence - loss for loss in (0.05, 0.25))
    change = worse.mean() - better.mean()
    rows = confidence, better, np.zeros(40_000, np.intp)
    expected = accuracy_matched.expected_change(
        bin_sums(*rows, np.ones((1, 1)), 15), np.array([change])
    )
    found = [expected_calibration_error(confidence, correct) for correct in (worse, better)]
    assert expected[0] == pytest.approx(found[0] - found[1], abs=0.004)


def test_matched_rows_add_up(results):
    for row in rows(results, "matched"):
        parts = [float(row[name]) for name in ("expected", "beyond", "ece_delta")]
        assert parts[0] + parts[1] == pytest.approx(parts[2])
        assert row["family"] != "full"
        assert float(row["p"]) <= float(row["p_adjusted"])


def test_an_image_without_saliency_is_named(results):
    task = synthetic_results.MODEL, "toy-pope"
    unpruned = sorted(results.glob("*/*/full/*/predictions.parquet"))
    features = sorted(results.glob("*/*/features.safetensors"))
    sources = kept_saliency.Sources([], features, unpruned)
    with pytest.raises(PrunecalError, match="lacks image 'unseen'; delete it"):
        sources.saliency(task, ["unseen"])


def test_tables_repeat_byte_for_byte(results, tmp_path):
    explain(results, tmp_path)
    for name in ("mechanisms", "correlations", "matched"):
        expected = (results / "tables" / f"{name}.csv").read_bytes()
        assert (tmp_path / f"{name}.csv").read_bytes() == expected


def drawn(results, folder):
    parts = ["--metrics", results / "metrics.parquet", "--tables", results / "tables"]
    parts += ["--bins", 15, "--folder", folder]
    explanations.main(explanations.arguments_of([str(part) for part in parts]))
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[!.]*"))}


@pytest.mark.slow
def test_explanations_repeat_byte_for_byte(results, tmp_path):
    once = drawn(results, tmp_path / "once")
    assert len(once) == 10
    assert drawn(results, tmp_path / "again") == once


@pytest.mark.slow
@pytest.mark.parametrize("strategies", [["full"], ["full", "fastv"]])
def test_a_study_of_almost_nothing_is_explained(strategies, tmp_path):
    results = synthetic_results.write(tmp_path, synthetic_results.study(strategies, [4]))
    synthetic_results.write_sources(results)
    explain(results, results / "tables")
    assert len(drawn(results, tmp_path / "figures")) == 10
    assert len(rows(results, "matched")) == 2 * (len(strategies) - 1)
    assert rows(results, "correlations") == []  # fewer than four cells


def test_a_study_without_scores_of_the_unpruned_predictions_is_refused(results):
    scores = read_scores(sorted(results.glob("scores/*/*.safetensors")))[0]
    with pytest.raises(PrunecalError, match="are missing; add them to --unpruned"):
        statistics_of.measure(scores, kept_saliency.Sources([], [], []))


class FewCells:
    """As much of a score file as correlations need: five strategies at each of four budgets."""

    task = {"model": "m", "dataset": "d"}
    cells = [
        {"budget": 99, "family": "full", "parameters": {}},
        *(
            {"budget": budget, "family": f"f{number}", "parameters": {}}
            for budget in (1, 2, 3, 4)
            for number in range(5)
        ),
    ]
    reference = 0


def constant(values):
    return np.array([np.nan, *values])[:, None] + np.zeros((21, 101))


def correlations_of(tables):
    rows = statistics_of.correlation_rows(FewCells(), tables, 0.95)
    assert not any(key.startswith("p") for row in rows for key in row)
    return {(row["budget"], row["metric"], row["with"]): row for row in rows}


def test_a_budget_that_moves_both_metrics_makes_no_correlation_within_budgets():
    """Simpson: every budget falls, the pooled cells rise."""
    number, budget = np.tile(np.arange(5.0), 4), np.repeat(np.arange(4.0), 5)
    tables = {"accuracy": constant(budget * 10 + number), "entropy": constant(budget * 10 - number)}
    rows = correlations_of(tables)
    assert rows["pooled", "entropy", "accuracy"]["rho"] > 0.5
    within = rows[statistics_of.CENTRED, "entropy", "accuracy"]
    assert within["rho"] == pytest.approx(-1)
    assert (within["cells"], within["strategies"]) == (20, 5)
    for budget in ("1", "2", "3", "4"):
        row = rows[budget, "entropy", "accuracy"]
        assert (row["rho"], row["cells"]) == (pytest.approx(-1), 5)


def test_correlations_within_budgets_are_partial_rank_correlations():
    """Against the residuals of ranks regressed on the budget's indicator columns."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 20))
    rows = correlations_of({"accuracy": constant(y), "entropy": constant(x)})
    design = np.repeat(np.eye(4), 5, axis=0)
    residuals = []
    for values in (x, y):
        ranks = rankdata(values)
        residuals.append(ranks - design @ np.linalg.lstsq(design, ranks, rcond=None)[0])
    expected = np.corrcoef(*residuals)[0, 1]
    assert rows[statistics_of.CENTRED, "entropy", "accuracy"]["rho"] == pytest.approx(expected)


def test_intervals_are_over_images_and_over_strategies():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 20))
    tables = {"accuracy": constant(y), "margin": constant(x)}
    tables["margin"][1:, 1:] += rng.normal(size=(20, 100)) * 0.5
    row = correlations_of(tables)["pooled", "margin", "accuracy"]
    draws = [spearmanr(column, y).statistic for column in tables["margin"][1:, 1:].T]
    ends = [row["ci_low"], row["ci_high"]]
    np.testing.assert_allclose(ends, np.quantile(draws, [0.025, 0.975]), atol=1e-12)
    assert row["strategies_low"] < row["rho"] < row["strategies_high"]
    exact = correlations_of({"accuracy": constant(y), "margin": constant(y)})
    row = exact["pooled", "margin", "accuracy"]
    assert row["strategies_low"] == row["strategies_high"] == pytest.approx(1)


@pytest.mark.parametrize("centred", [False, True])
def test_resampled_strategies_are_ranked_as_if_their_cells_were_written_again(centred):
    rng = np.random.default_rng(2)
    strategy = np.array(list("aaabbbccdddeee"))
    budget = np.array([1, 2, 3, 1, 2, 3, 1, 2, 1, 2, 3, 1, 2, 3]) if centred else None
    x, y = rng.integers(0, 6, (2, 14)).astype(float)  # with ties
    drawn = statistics_of.over_strategies(x, y, strategy, budget, 50)
    weights = image_weights(5, 50, seed=0)
    for rho, weight in zip(drawn, weights.T, strict=True):
        times = dict(zip("abcde", weight.astype(int), strict=True))
        cells = np.repeat(np.arange(14), [times[name] for name in strategy])
        again = None if budget is None else budget[cells]
        expected = rank_correlation(x[cells, None], y[cells, None], again)[0]
        assert rho == pytest.approx(expected, abs=1e-12, nan_ok=True)
