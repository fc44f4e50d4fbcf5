"""Verdicts on studies in which the truth is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.special import ndtr
from scipy.stats import sem, spearmanr, t

from prunecal import claims
from prunecal.core.errors import PrunecalError
from prunecal.statistics import contrasts
from prunecal.statistics.bootstrap import image_weights
from prunecal.statistics.claim_grammar import Claim, Expectation, read_claims
from prunecal.statistics.claim_tests import evaluate
from prunecal.statistics.scores import Scores
from prunecal.statistics.selectors import Measured, matches
from prunecal.storage import files
from prunecal.storage.arrays import write_arrays

SHIPPED = Path(__file__).parents[2] / "reports" / "claims.yaml"
BUDGETS = (4, 8, 16)
RESAMPLES = 400


def cell(family, budget, **parameters):
    label = "-".join([family, *(f"{key}{value}" for key, value in parameters.items())])
    return {"strategy": label, "family": family, "parameters": parameters, "budget": budget}


def whole_study():
    cells = [cell("full", 64)]
    for budget in BUDGETS:
        cells += [cell("scope", budget, alpha=a, gap_power=1.0) for a in (0.0, 0.5, 1.0)]
        cells += [cell("scope", budget, alpha=0.0, gap_power=2.0)]
        cells += [cell(family, budget) for family in ("saliency", "fastv", "fastv-two-pass")]
    return cells


def write(path, cells, metrics, dataset="pope", noise=0.001):
    """Write a score file; `metrics` are functions of a cell, draws are normal around them."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, function in metrics.items():
        value = np.array([[function(cell)] for cell in cells], dtype=np.float64)
        error = rng.normal(scale=noise, size=(len(cells), 1, RESAMPLES))
        arrays[f"value/{name}"] = value
        arrays[f"draws/{name}"] = (value[..., None] + error).astype(np.float32)
    facts = {"model": "m", "dataset": dataset, "cells": cells, "metrics": sorted(metrics)}
    facts["subsets"] = [{"name": "all", "n": 100, "n_images": 20}]
    write_arrays(path, arrays, facts)
    return Scores(path)


def paper_ece(cell):
    """What the paper reports: coverage is best calibrated, the rule matters, the budget little."""
    if cell["family"] == "scope":
        better = cell["parameters"]["gap_power"] == 2
        return 0.03 + 0.05 * cell["parameters"]["alpha"] - 0.01 * better + 0.0001 * cell["budget"]
    return {"full": 0.10, "saliency": 0.12}.get(cell["family"], 0.2)


def paper_ece_scienceqa(cell):
    return 0.1 if cell["family"] == "full" else 0.05


def paper_accuracy(cell):
    if cell["family"].startswith("fastv"):
        return 0.7 + 0.001 * cell["budget"]
    return 0.85 + (0 if cell["family"] == "full" else 0.0001 * cell["budget"])


def paper_coverage(cell):
    return paper_accuracy(cell)


PAPER = {"ece_debiased": paper_ece, "accuracy": paper_accuracy, "evidence_coverage": paper_coverage}
OPPOSITE = {
    "ece_debiased": lambda c: (
        {"full": 0.05}.get(c["family"], 0.1)
        + (0.1 - 0.05 * c["parameters"]["alpha"] if c["family"] == "scope" else 0)
        + 0.02 * (c["parameters"].get("gap_power") == 2)
        + 0.05 * c["budget"] * (c["family"] != "full")
    ),
    "accuracy": lambda c: 0.85 - 0.1 * (c["family"] in ("scope", "saliency")),
    "evidence_coverage": lambda c: OPPOSITE["ece_debiased"](c),
}


def verdicts(*studied):
    return {claim.id: evaluate(claim, list(studied))["verdict"] for claim in read_claims(SHIPPED)}


IDS = [f"C{number}" for number in range(1, 9)]


def test_a_study_that_agrees_with_the_paper_supports_every_claim(tmp_path):
    pope = write(tmp_path / "p", whole_study(), PAPER, noise=0.0002)
    sqa = write(
        tmp_path / "s", whole_study(), PAPER | {"ece_debiased": paper_ece_scienceqa}, "scienceqa"
    )
    assert verdicts(pope, sqa) == dict.fromkeys(IDS, "supported")


def test_a_study_that_disagrees_with_the_paper_contradicts_every_claim(tmp_path):
    pope = write(tmp_path / "p", whole_study(), OPPOSITE)
    sqa = write(tmp_path / "s", whole_study(), OPPOSITE, "digits-sqa")
    assert verdicts(pope, sqa) == dict.fromkeys(IDS, "contradicted")


def test_a_study_too_small_to_tell_is_inconclusive(tmp_path):
    pope = write(tmp_path / "p", whole_study(), PAPER, noise=1.0)
    sqa = write(tmp_path / "s", whole_study(), PAPER, "scienceqa", noise=1.0)
    assert verdicts(pope, sqa) == dict.fromkeys(IDS, "inconclusive")


def test_a_study_without_the_cells_does_not_test_the_claims(tmp_path):
    random = [cell("full", 64), cell("random", 4, seed=0)]
    pope = write(tmp_path / "p", random, PAPER)
    assert verdicts(pope) == dict.fromkeys(IDS, "not tested")
    elsewhere = write(tmp_path / "e", whole_study(), PAPER, "another")
    assert verdicts(elsewhere) == dict.fromkeys(IDS, "not tested")


def condition(**changes):
    base = {"difference": "ece", "of": {"family": "scope"}, "to": {"family": "full"}}
    return base | {"expect": "below 0"} | changes


def judge(scores, *conditions, **claim):
    claim = Claim(id="X", statement="x", conditions=list(conditions), **claim)
    return evaluate(claim, [scores])


def small(path, effects, noise=0.01):
    """One scope cell per budget, its ECE `effects[budget]` above the unpruned model's."""
    cells = [cell("full", 64)] + [cell("scope", budget, alpha=0.0) for budget in effects]
    return write(path, cells, {"ece": lambda c: 0.1 + effects.get(c["budget"], 0)}, noise=noise)


@pytest.mark.parametrize(
    ("effects", "quantifier", "verdict"),
    [
        ({1: -0.5, 2: -0.5}, "every", "supported"),
        ({1: -0.5, 2: 0.0}, "every", "inconclusive"),
        ({1: -0.5, 2: 0.5}, "every", "contradicted"),
        ({1: -0.5, 2: 0.5}, "some", "supported"),
        ({1: 0.0, 2: 0.5}, "some", "inconclusive"),
        ({1: 0.5, 2: 0.5}, "some", "contradicted"),
    ],
)
def test_quantifiers_join_cases_as_logic_has_it(tmp_path, effects, quantifier, verdict):
    scores = small(tmp_path / "s", effects)
    assert judge(scores, condition(**{"for": quantifier}))["verdict"] == verdict


def test_one_case_among_many_needs_stronger_evidence(tmp_path):
    # each case is 2.4 standard errors below zero: beyond the plain level, short of twenty's
    error = 0.01 * np.sqrt(2)
    cells = [cell("full", 64), *(cell("scope", budget) for budget in range(1, 21))]
    rng = np.random.default_rng(0)
    value = np.array([0.5, *[0.5 - 2.4 * error] * 20])[:, None]
    draws = value[..., None] + rng.normal(scale=0.01, size=(21, 1, 4000))
    arrays = {"value/ece": value, "draws/ece": draws.astype(np.float32)}
    facts = {"model": "m", "dataset": "d", "cells": cells, "metrics": ["ece"]}
    facts["subsets"] = [{"name": "all", "n": 100, "n_images": 20}]
    write_arrays(tmp_path / "s", arrays, facts)
    scores = Scores(tmp_path / "s")
    one = {"family": "scope", "budget": 3}
    assert judge(scores, condition(of=one, **{"for": "some"}))["verdict"] == "supported"
    assert judge(scores, condition(**{"for": "some"}))["verdict"] == "inconclusive"
    assert judge(scores, condition())["verdict"] == "supported"
    assert judge(scores, condition(expect="above 0"))["verdict"] == "inconclusive"


@pytest.mark.parametrize(
    ("expect", "interval", "verdict"),
    [
        ("below 0", (-2, -1), "supported"),
        ("below 0", (1, 2), "contradicted"),
        ("below 0", (-1, 1), "inconclusive"),
        ("above -0.5", (-0.2, 1), "supported"),
        ("above -0.5", (-2, -1), "contradicted"),
        ("within 0.5", (-0.2, 0.2), "supported"),
        ("within 0.5", (0.6, 0.9), "contradicted"),
        ("within 0.5", (-0.9, -0.6), "contradicted"),
        ("within 0.5", (0.4, 0.6), "inconclusive"),
        ("below 0", (np.nan, np.nan), "not tested"),
    ],
)
def test_interval_is_judged_by_the_side_of_the_limit(expect, interval, verdict):
    side, limit = expect.split()
    assert Expectation(side, float(limit)).judge(*interval) == verdict


def test_a_claim_is_as_strong_as_its_weakest_condition(tmp_path):
    scores = small(tmp_path / "s", {1: -0.5})
    holds, fails = condition(), condition(expect="above 0")
    open_, missing = condition(expect="below -0.5"), condition(of={"family": "saliency"})
    assert judge(scores, holds)["verdict"] == "supported"
    assert judge(scores, holds, open_)["verdict"] == "inconclusive"
    assert judge(scores, holds, open_, missing)["verdict"] == "not tested"
    assert judge(scores, holds, open_, missing, fails)["verdict"] == "contradicted"


def test_evidence_gives_the_numbers_and_their_words(tmp_path):
    scores = small(tmp_path / "s", {4: -0.05}, noise=0.001)
    evidence = judge(scores, condition())["evidence"]
    (number,) = evidence["numbers"]
    assert number["value"] == pytest.approx(-0.05)
    assert number["ci_low"] < -0.05 < number["ci_high"] < -0.04
    assert number["verdict"] == "supported"
    assert "ECE of scope-alpha0.0 at 4 tokens minus full: -0.0500 [" in evidence["words"][0]
    assert "pope, m" in evidence["words"][0]


def test_shipped_claims_name_every_finding_once():
    assert [claim.id for claim in read_claims(SHIPPED)] == IDS


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ({"family": "scope"}, True),
        ({"family": ["scope", "random"], "alpha": 0}, True),
        ({"alpha": {"not": 0}}, False),
        ({"alpha": {"not": [1, 2]}}, True),
        ({"seed": {"not": 0}}, False),
        ({"budget": 8}, False),
    ],
)
def test_selectors_name_cells_by_their_properties(selector, found):
    assert matches(cell("scope", 4, alpha=0.0), selector) is found


def grid_of(path, values, noise=1e-4):
    """Write a study with a strategy per alpha and a cell per budget; values [budgets, alphas]."""
    alphas = [float(alpha) for alpha in range(next(iter(values.values())).shape[1])]
    cells = [cell("scope", budget, alpha=a) for budget in BUDGETS for a in alphas]
    where = {(c["strategy"], c["budget"]): i for i, c in enumerate(cells)}
    metrics = {
        name: lambda c, table=table: table.flat[where[c["strategy"], c["budget"]]]
        for name, table in values.items()
    }
    return Measured(write(path, cells, metrics, noise=noise), 0)


def test_contrasts_agree_with_direct_computation(tmp_path):
    rng = np.random.default_rng(3)
    grid = {name: rng.uniform(size=(3, 3)) for name in ("ece", "accuracy", "evidence_coverage")}
    measured = grid_of(tmp_path / "s", grid, noise=1e-6)
    (found,) = contrasts.correlations(measured, "evidence_coverage", {}, "accuracy", "ece")
    rho = [
        abs(spearmanr(grid["evidence_coverage"].ravel(), grid[name].ravel()).statistic)
        for name in ("accuracy", "ece")
    ]
    assert found.value == pytest.approx(rho[0] - rho[1], abs=1e-6)
    assert not found.doubt
    for kind, direct in (
        (contrasts.trends, lambda row: np.polyfit([0, 1, 2], row, 1)[0]),
        (contrasts.ranges, np.ptp),
    ):
        cases = list(kind(measured, "ece", {}, "alpha"))
        assert [case.value for case in cases] == pytest.approx([direct(row) for row in grid["ece"]])


def test_the_spread_is_the_difference_of_the_variances_that_made_it():
    """Additive tables exactly; under noise alone 0 on average, however many rows and columns."""
    rng = np.random.default_rng(0)
    rows, columns = rng.normal(size=6), rng.normal(size=4)
    table = (rows[:, None] + columns)[..., None]
    expected = rows.var(ddof=1) - columns.var(ddof=1)
    assert contrasts.variance_components(table)[0] == pytest.approx(expected)
    noise = contrasts.variance_components(rng.normal(size=(12, 4, 20_000)))
    assert abs(noise.mean()) < 4 * noise.std() / np.sqrt(noise.size)


def test_seeds_of_a_strategy_are_one_strategy_to_the_spread(tmp_path):
    cells = [cell("random", budget, seed=s) for budget in BUDGETS for s in range(3)]
    cells += [cell("saliency", budget) for budget in BUDGETS]
    values = {("random", s): s / 10 for s in range(3)} | {("saliency", None): 0.4}
    metrics = {"ece": lambda c: values[c["family"], c["parameters"].get("seed")] + c["budget"]}
    (found,) = contrasts.spreads(Measured(write(tmp_path / "s", cells, metrics), 0), "ece", {})
    assert "2 strategies" in found.words
    assert found.value == pytest.approx(np.var([0.1, 0.4], ddof=1) - np.var(BUDGETS, ddof=1))


def test_correlations_with_mostly_noise_decide_nothing(tmp_path):
    rng = np.random.default_rng(1)
    accuracy = np.arange(9.0).reshape(3, 3)
    metrics = {"accuracy": accuracy, "evidence_coverage": accuracy, "ece": rng.normal(size=(3, 3))}
    measured = grid_of(tmp_path / "s", metrics, noise=2.0)
    (found,) = contrasts.correlations(measured, "evidence_coverage", {}, "accuracy", "ece")
    assert "reliability of ECE" in found.doubt
    case = replace(found, draws=np.full(9, 1.0), value=1.0)
    assert Expectation("above", 0.0).test(case, 0.95) == "inconclusive"
    assert Expectation("above", 0.0).test(replace(case, doubt=""), 0.95) == "supported"


def test_a_curve_that_returns_to_its_start_has_a_range_though_no_slope(tmp_path):
    values = np.tile([0.80, 0.75, 0.70, 0.75, 0.80], (3, 1))
    measured = grid_of(tmp_path / "s", {"accuracy": values}, noise=0.002)
    for case in contrasts.trends(measured, "accuracy", {}, "alpha"):
        assert Expectation("within", 0.02).test(case, 0.95) == "supported"
    for case in contrasts.ranges(measured, "accuracy", {}, "alpha"):
        assert Expectation("below", 0.02).test(case, 0.95) == "contradicted"
        low, high = case.interval(0.95)
        assert 0.09 < low < 0.1 < high < 0.11


@pytest.mark.slow
def test_equal_cells_are_shown_to_lie_within_a_margin_as_often_as_two_one_sided_tests_allow():
    """With margins of 2.5 standard errors; intervals of 95 % would fit in 41 % of studies."""
    rng = np.random.default_rng(5)
    estimates = rng.normal(size=2000)
    draws = rng.normal(size=20_000)
    share = np.mean(
        [
            Expectation("within", 2.5).test(contrasts.Contrast("", x, x + draws, 10_000), 0.95)
            == "supported"
            for x in estimates
        ]
    )
    assert share == pytest.approx(2 * ndtr(2.5 - 1.645) - 1, abs=0.03)


def test_few_images_widen_an_interval_as_students_t_does():
    sample = np.random.default_rng(6).normal(size=25)
    exact = t.interval(0.99, 24, loc=sample.mean(), scale=sem(sample))
    spread = sample.std() / np.sqrt(25) / np.sqrt(2)  # of resamples of these 25
    draws = sample.mean() + spread * np.array([-1.0, 1.0])
    for cases in (1, 5):
        case = contrasts.Contrast("", sample.mean(), draws, 25)
        assert case.interval(1 - 0.01 * cases, cases) == pytest.approx(exact)


@pytest.mark.slow
def test_equal_cells_are_rarely_said_to_differ_by_a_range_though_images_are_few():
    """That some of three ranges is above 0."""
    rng = np.random.default_rng(7)
    weights = np.hstack([np.ones((20, 1)), image_weights(20, 400, 0)]) / 20
    false = 0
    for _ in range(600):
        tables = (rng.normal(size=(9, 20)) @ weights).reshape(3, 3, -1)
        ranges = (contrasts.Range("", 0, table[0, 1:], 20, table=table) for table in tables)
        false += max(case.interval(0.95, 3)[0] for case in ranges) > 0
    assert false <= 43  # 99 % of 600 studies at 5 % have at most 43


def test_all_cases_of_a_claim_share_its_strict_level(tmp_path):
    """2.4 standard errors contradict a claim of one case, not one of twenty on two data sets."""
    rng = np.random.default_rng(0)
    studied = []
    for dataset in ("a", "b"):
        cells = [cell("full", 64), *(cell("scope", budget) for budget in range(1, 11))]
        value = np.array([0.5, *[0.5 + 2.4 * 0.01 * np.sqrt(2)] * 10])[:, None]
        draws = value[..., None] + rng.normal(scale=0.01, size=(11, 1, 4000))
        arrays = {"value/ece": value, "draws/ece": draws.astype(np.float32)}
        facts = {"model": "m", "dataset": dataset, "cells": cells, "metrics": ["ece"]}
        facts["subsets"] = [{"name": "all", "n": 100, "n_images": 20}]
        write_arrays(tmp_path / dataset, arrays, facts)
        studied.append(Scores(tmp_path / dataset))
    lower = Claim(id="X", statement="x", conditions=[condition()])
    assert evaluate(lower, studied)["verdict"] == "inconclusive"
    alone = condition(of={"family": "scope", "budget": 3})
    lower = Claim(id="X", statement="x", dataset=["a"], conditions=[alone])
    assert evaluate(lower, studied)["verdict"] == "contradicted"


def test_few_images_test_no_claim(tmp_path):
    scores = small(tmp_path / "s", {1: -0.5})
    scores.subsets[0]["n_images"] = 19
    found = judge(scores, condition())
    assert found["verdict"] == "not tested"
    assert "19 images, where a test needs 20" in found["evidence"]["words"][0]


def test_ambiguous_reference_is_an_error_that_names_the_cells(tmp_path):
    scores = write(tmp_path / "s", whole_study(), PAPER)
    ambiguous = condition(
        difference="ece_debiased", of={"family": "saliency"}, to={"family": "scope", "gap_power": 1}
    )
    with pytest.raises(PrunecalError, match=r"claim X: saliency at 4 tokens .* several cells"):
        judge(scores, ambiguous)


def test_unknown_metric_is_an_error_with_the_nearest_name(tmp_path):
    scores = small(tmp_path / "s", {4: 0.1})
    with pytest.raises(PrunecalError, match="claim X: metric 'eec' is unknown .did you mean 'ece'"):
        judge(scores, condition(difference="eec"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"expect": "under 0"},
            "expect: 'under 0' does not fit; give 'below', 'above' or 'within' ",
        ),
        ({"for": "all"}, "for"),
        ({"off": 1}, "'off' is unknown .* known are of, expect, for, difference, to, match"),
        ({"of": {"alpha": {"nit": 0}}}, "alpha"),
    ],
)
def test_malformed_condition_names_the_claim_and_the_key(tmp_path, change, message):
    path = tmp_path / "claims.yaml"
    entry = {"id": "X", "statement": "x", "conditions": [condition(**change)]}
    path.write_text(yaml.safe_dump([entry]), encoding="utf-8")
    with pytest.raises(PrunecalError, match=f"claim X: .*{message}"):
        read_claims(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as YAML"),
        ("a: 1", "must be a list"),
        ("- {id: X, statement: x, id: Y}", "claims.yaml line 1 repeats the key 'id'"),
        ("- {id: X, statement: x, conditions: []}", "claim X: conditions"),
        ("- {id: X, statement: x, conditions: [{of: {}}]}", "exactly one of"),
    ],
)
def test_malformed_file_of_claims_is_an_error(tmp_path, text, message):
    path = tmp_path / "claims.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PrunecalError, match=message):
        read_claims(path)


def test_one_id_twice_is_refused(tmp_path):
    path = tmp_path / "claims.yaml"
    entry = {"id": "X", "statement": "x", "conditions": [condition()]}
    path.write_text(yaml.safe_dump([entry, entry]), encoding="utf-8")
    with pytest.raises(PrunecalError, match="twice"):
        read_claims(path)


def test_stage_writes_every_claim_with_its_verdict(tmp_path):
    write(tmp_path / "s", whole_study(), PAPER)
    output = tmp_path / "claims.json"
    command = ["--claims", str(SHIPPED), "--scores", str(tmp_path / "s"), "--output", str(output)]
    claims.main(claims.arguments_of(command))
    found = files.read_json(output)
    assert [claim["id"] for claim in found] == IDS
    assert all(set(claim) == {"id", "statement", "verdict", "evidence"} for claim in found)


def test_stage_says_why_a_claim_is_not_tested(tmp_path, caplog):
    small(tmp_path / "s", {4: 0.1})
    entries = [
        {"id": "X", "statement": "x", "conditions": [condition(of={"family": "scoop"})]},
        {"id": "Y", "statement": "y", "dataset": ["*popes*"], "conditions": [condition()]},
    ]
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump(entries), encoding="utf-8")
    command = ["--claims", tmp_path / "claims.yaml", "--scores", tmp_path / "s"]
    arguments = claims.arguments_of([*map(str, command), "--output", str(tmp_path / "out.json")])
    with caplog.at_level("INFO", "prunecal"):
        claims.main(arguments)
    assert "no cell is {family: scoop} (expected" in caplog.text
    assert "no data set has a name and a subset that it names" in caplog.text
