"""Calibration metrics against vectors made by other libraries and against direct computation."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from prunecal import calibration
from prunecal.calibration import (
    adaptive_calibration_error,
    augrc,
    aurc,
    auroc,
    brier_multiclass,
    brier_score,
    coverage_at_risk,
    e_aurc,
    expected_calibration_error,
    maximum_calibration_error,
    negative_log_likelihood,
    reliability_diagram,
    risk_at_coverage,
    smooth_calibration_error,
    temperature,
)

VECTORS = Path(__file__).parents[1] / "vectors"
EXPECTED = json.loads((VECTORS / "calibration_expected.json").read_text(encoding="utf-8"))
INPUTS = np.load(VECTORS / "calibration_inputs.npz")
SETS = sorted(EXPECTED["sets"])
NAMES = (
    "expected_calibration_error",
    "adaptive_calibration_error",
    "smooth_calibration_error",
    "maximum_calibration_error",
    "brier_score",
    "negative_log_likelihood",
    "auroc",
    "aurc",
    "e_aurc",
    "augrc",
    "risk_at_coverage",
    "coverage_at_risk",
    "reliability_diagram",
)


def vector(name):
    return INPUTS[f"{name}/conf"], INPUTS[f"{name}/correct"], EXPECTED["sets"][name]


def sample(seed, n=40, levels=None):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(size=n) if levels is None else rng.integers(1, levels, n) / levels
    return confidence, rng.uniform(size=n) < 0.3 + 0.5 * confidence


@pytest.mark.parametrize("name", SETS)
def test_binned_errors_agree_with_the_vectors(name):
    confidence, correct, expected = vector(name)
    ece = expected_calibration_error(confidence, correct)
    assert ece == pytest.approx(expected["ece15"]["numpy_(lo,hi]"], abs=1e-14)
    ece10 = expected_calibration_error(confidence, correct, bins=10)
    if name != "n50_edges_ties":  # torchmetrics puts a confidence on an edge into the bin above
        assert ece10 == pytest.approx(expected["ece10"]["torchmetrics_f64"], abs=1e-12)
    mce = maximum_calibration_error(confidence, correct)
    assert mce == pytest.approx(expected["mce15"]["torchmetrics_f64"], abs=1e-12)


@pytest.mark.parametrize("name", SETS)
def test_smooth_error_agrees_with_relplot(name):
    confidence, correct, expected = vector(name)
    found = smooth_calibration_error(confidence, correct)
    assert found == pytest.approx(expected["smece"]["relplot"], abs=1e-12)


@pytest.mark.parametrize(("n", "noise"), [(3, 0.5), (400, 0.0), (20000, 0.0), (60000, 0.002)])
def test_smooth_error_agrees_with_relplot_down_to_its_narrowest_kernels(n, noise):
    relplot = pytest.importorskip("relplot")
    rng = np.random.default_rng(n)
    confidence = rng.uniform(0.9, 1, n)
    correct = rng.uniform(size=n) < confidence - noise
    found = smooth_calibration_error(confidence, correct)
    assert found == pytest.approx(relplot.smECE(confidence, correct * 1.0), abs=1e-10)


@pytest.mark.parametrize("name", SETS)
def test_proper_scores_and_auroc_agree_with_scikit_learn(name):
    confidence, correct, expected = vector(name)
    assert brier_score(confidence, correct) == pytest.approx(expected["brier"]["sklearn"])
    ranking = expected["auroc_conf_vs_correct"]["sklearn"]
    assert auroc(confidence, correct) == pytest.approx(float(ranking), nan_ok=True)
    surprise = negative_log_likelihood(confidence, correct)
    if ((confidence == 1) & (correct == 0)).any():  # scikit-learn clips what is infinite
        assert surprise == np.inf
    else:
        assert surprise == pytest.approx(expected["nll"]["sklearn_log_loss"])


@pytest.mark.parametrize("name", ["n2", "n1000", "n50_all_correct"])
def test_aurc_without_ties_agrees_with_the_vectors(name):
    confidence, correct, expected = vector(name)
    known = expected["aurc"]["numpy_mean_of_risks_stable_order"]
    assert aurc(confidence, correct) == pytest.approx(known, abs=1e-12)


@pytest.mark.parametrize("name", ["n1000", "n50_all_correct"])
def test_adaptive_error_without_ties_agrees_with_torch_uncertainty(name):
    confidence, correct, expected = vector(name)
    found = adaptive_calibration_error(confidence, correct)
    assert found == pytest.approx(expected["adaptive_ece15"]["torch_uncertainty"], abs=1e-12)


def test_all_tied_rows_have_the_error_rate_as_risk_at_every_coverage():
    confidence, correct, _ = vector("n200_all_tied")
    n, risk = len(correct), 1 - correct.mean()
    assert aurc(confidence, correct) == pytest.approx(risk)
    assert augrc(confidence, correct) == pytest.approx(risk * (n + 1) / (2 * n))
    assert risk_at_coverage(confidence, correct) == pytest.approx(risk)
    assert auroc(confidence, correct) == 0.5
    assert adaptive_calibration_error(confidence, correct) == pytest.approx(abs(0.8 - 1 + risk))


def expectation_over_orders(confidence, correct, measure):
    """Average a function of the errors in order over all orders that respect confidence."""
    rows = range(len(confidence))
    orders = [
        order
        for order in itertools.permutations(rows)
        if all(a >= b for a, b in itertools.pairwise(confidence[list(order)]))
    ]
    return np.mean([measure((~correct)[list(order)].astype(float)) for order in orders], axis=0)


@pytest.mark.parametrize("seed", range(12))
def test_risk_metrics_are_expectations_over_the_orders_of_ties(seed):
    confidence, correct = sample(seed, n=6, levels=4)
    k = np.arange(1, 7)
    risks = expectation_over_orders(confidence, correct, lambda wrong: np.cumsum(wrong) / k)
    assert aurc(confidence, correct) == pytest.approx(risks.mean())
    assert augrc(confidence, correct) == pytest.approx((risks * k / 6).mean())
    assert risk_at_coverage(confidence, correct) == pytest.approx(risks[4])  # ceil(0.8 * 6) = 5
    for limit in (0.0, 0.2, 0.25, 1 / 3, 0.5):
        allowed = k[risks <= limit + 1e-12]
        largest = allowed.max() / 6 if len(allowed) else 0
        assert coverage_at_risk(confidence, correct, limit) == pytest.approx(largest)


@pytest.mark.parametrize("seed", range(5))
def test_perfect_ranking_has_no_excess_risk(seed):
    _, correct = sample(seed)
    assert e_aurc(np.where(correct, 0.9, 0.2), correct) < aurc(np.full(40, 0.5), correct)
    strict = np.linspace(0.9, 0.1, 40)[np.argsort(np.argsort(~correct, stable=True))]
    assert e_aurc(strict, correct) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("n", [7, 15, 40, 151])
def test_adaptive_error_cuts_sorted_rows_into_parts_of_nearly_equal_size(n):
    confidence, correct = sample(n, n=n)
    order = np.argsort(confidence)
    parts = np.array_split((confidence - correct)[order], 15)
    direct = sum(abs(part.sum()) for part in parts) / n
    assert adaptive_calibration_error(confidence, correct) == pytest.approx(direct)


def test_adaptive_error_shares_a_tied_group_between_parts():
    confidence, correct = np.array([0.5, 0.5, 0.5, 0.9]), np.array([1, 0, 0, 1])
    # parts of two rows: two tied rows (1/3 right each), then one tied row and the 0.9
    expected = (abs(1.0 - 2 / 3) + abs(0.5 - 1 / 3 + 0.9 - 1)) / 4
    assert adaptive_calibration_error(confidence, correct, bins=2) == pytest.approx(expected)


@pytest.mark.parametrize("bins", [1, 10, 15, 50])
def test_confidence_on_an_edge_belongs_to_the_bin_below(bins):
    edges = np.array([k / bins for k in range(bins + 1)])
    diagram = reliability_diagram(edges, np.ones(bins + 1))
    assert diagram.count.sum() == bins + 1
    count = reliability_diagram(edges, np.ones(bins + 1), bins).count
    assert count.tolist() == [2] + [1] * (bins - 1)  # 0 and 1/bins share the first bin
    above = np.nextafter(edges[:-1], 1)
    assert reliability_diagram(above, np.ones(bins), bins).count.tolist() == [1] * bins


def test_reliability_diagram_recovers_the_ece():
    confidence, correct = sample(3)
    edges, count, mean, accuracy = reliability_diagram(confidence, correct)
    direct = 0.0
    for b in range(15):
        inside = (confidence > edges[b]) & (confidence <= edges[b + 1])
        assert inside.sum() == count[b]
        if inside.any():
            assert mean[b] == pytest.approx(confidence[inside].mean())
            assert accuracy[b] == pytest.approx(correct[inside].mean())
            direct += inside.mean() * abs(mean[b] - accuracy[b])
        else:
            assert np.isnan(mean[b])
            assert np.isnan(accuracy[b])
    assert expected_calibration_error(confidence, correct) == pytest.approx(direct)


def test_ece_agrees_with_torchmetrics_and_netcal_between_edges():
    torch, torchmetrics = pytest.importorskip("torch"), pytest.importorskip("torchmetrics")
    netcal = pytest.importorskip("netcal.metrics")
    confidence, correct = sample(8, n=500)
    ours = expected_calibration_error(confidence, correct)
    theirs = torchmetrics.functional.classification.binary_calibration_error(
        torch.from_numpy(confidence), torch.from_numpy(correct.astype(int)), n_bins=15
    )
    # a binary calibration error bins the probability of "right", which is our confidence
    assert ours == pytest.approx(float(theirs), abs=1e-6)
    ece = netcal.ECE(15, detection=True).measure(confidence, correct.astype(int))
    assert ours == pytest.approx(float(ece), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_order_of_rows_never_matters(name):
    metric = getattr(calibration, name)
    confidence, correct = sample(5, levels=7)
    order = np.random.default_rng(0).permutation(len(confidence))
    before, after = metric(confidence, correct), metric(confidence[order], correct[order])
    pairs = zip(before, after, strict=True) if isinstance(before, tuple) else [(before, after)]
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-12)


# fd-shifts' table: kinds of correctness x kinds of confidence, and what must come of each pair
CORRECT = {
    "all": [1, 1, 1, 1],
    "some": [1, 0, 1, 0],
    "none": [0, 0, 0, 0],
    "nan": [1, 0, 1, np.nan],
}
CONFIDENCE = {
    "all": [1, 1, 1, 1],
    "some": [0.9, 0.3, 0.8, 0.2],
    "inverted": [0.1, 0.7, 0.2, 0.8],
    "constant": [0.5, 0.5, 0.5, 0.5],
    "unnormalised": [9, 3, 8, 2],
    "nan": [0.9, 0.3, 0.8, np.nan],
}
AURC = {
    ("some", "some"): (0 + 0 + 1 / 3 + 2 / 4) / 4,
    ("some", "inverted"): (1 + 1 + 2 / 3 + 2 / 4) / 4,
    ("some", "all"): 0.5,
    ("some", "constant"): 0.5,
}
ECE = {
    ("all", "all"): 0,
    ("all", "some"): 0.45,
    ("all", "inverted"): 0.55,
    ("all", "constant"): 0.5,
    ("some", "all"): 0.5,
    ("some", "some"): 0.2,
    ("some", "inverted"): 0.8,
    ("some", "constant"): 0,
    ("none", "all"): 1,
    ("none", "some"): 0.55,
    ("none", "inverted"): 0.45,
    ("none", "constant"): 0.5,
}


@pytest.mark.parametrize("confidence", CONFIDENCE)
@pytest.mark.parametrize("correct", CORRECT)
def test_every_kind_of_input_gives_the_known_value_or_error(correct, confidence):
    pair = CONFIDENCE[confidence], CORRECT[correct]
    if "nan" in (correct, confidence) or confidence == "unnormalised":
        for name in NAMES:
            with pytest.raises(ValueError, match=r"\[\d\] is"):
                getattr(calibration, name)(*pair)
        return
    error_rate = {"all": 0.0, "none": 1.0}.get(correct)
    expected = AURC.get((correct, confidence), error_rate)
    assert aurc(*pair) == pytest.approx(expected)
    assert expected_calibration_error(*pair) == pytest.approx(ECE[correct, confidence])
    ranking = {"some": 1.0, "inverted": 0.0}.get(confidence, 0.5)
    assert auroc(*pair) == pytest.approx(ranking if correct == "some" else np.nan, nan_ok=True)
    for name in NAMES[:-1]:
        if not (name == "auroc" and correct != "some"):
            assert not np.isnan(getattr(calibration, name)(*pair))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "pair", [([], []), ([0.5], [1, 0]), ([[0.5]], [[1]]), ([0.5], [2]), ([-0.1], [1])]
)
def test_malformed_input_is_a_value_error(name, pair):
    with pytest.raises(ValueError, match=r"confidence|correct|logits"):
        getattr(calibration, name)(*pair)


@pytest.mark.parametrize("bins", [0, -1, 2.5])
def test_bins_must_be_a_positive_whole_number(bins):
    for metric in (expected_calibration_error, adaptive_calibration_error, reliability_diagram):
        with pytest.raises(ValueError, match="bins"):
            metric([0.5], [1], bins)


@pytest.mark.parametrize("name", sorted(EXPECTED["temperature"]))
def test_temperature_agrees_with_the_vectors(name):
    logits, label = INPUTS[f"temp_{name}/logits"], INPUTS[f"temp_{name}/labels"]
    expected = EXPECTED["temperature"][name]
    found = temperature(list(logits), label)
    assert found == pytest.approx(expected["scipy_T"], rel=1e-5)
    assert found == pytest.approx(expected["netcal_T"], rel=2e-4)
    assert negative_log_likelihood(logits, label) == pytest.approx(expected["nll_T1"])
    scaled = logits.astype(np.float64) / found
    assert negative_log_likelihood(scaled, label) == pytest.approx(expected["scipy_nll"], rel=1e-9)


def test_temperature_undoes_a_known_scale_of_logits_with_differing_options():
    rng = np.random.default_rng(1)
    logits = [rng.normal(size=k) for k in rng.integers(2, 6, 400)]
    label = np.array([rng.choice(len(z), p=np.exp(z) / np.exp(z).sum()) for z in logits])
    once, thrice = temperature(logits, label), temperature([3 * z for z in logits], label)
    assert thrice == pytest.approx(3 * once, rel=1e-5)


def test_scores_of_logits_equal_those_written_out():
    logits, label = [[2.0, 0.0], [0.0, 1.0, -1.0]], [0, 2]
    p = [np.exp(z) / np.exp(z).sum() for z in map(np.array, logits)]
    surprise = -(np.log(p[0][0]) + np.log(p[1][2])) / 2
    assert negative_log_likelihood(logits, label) == pytest.approx(surprise)
    squares = ((p[0] - [1, 0]) ** 2).sum() + ((p[1] - [0, 0, 1]) ** 2).sum()
    assert brier_multiclass(logits, label) == pytest.approx(squares / 2)


def test_binary_brier_is_half_of_the_multiclass_score():
    rng = np.random.default_rng(2)
    logits, label = rng.normal(size=(50, 2)), rng.integers(0, 2, 50)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    binary = brier_score(p.max(axis=1), p.argmax(axis=1) == label)
    assert brier_multiclass(logits, label) == pytest.approx(2 * binary)


@pytest.mark.parametrize(
    ("logits", "label"),
    [
        ([[0.0, np.nan]], [0]),
        ([[0.0, np.inf]], [0]),
        ([[0.0, 1.0], [np.inf]], [0, 0]),
        ([[0.0, 1.0]], [2]),
        ([[0.0, 1.0], [1.0]], [0, 1]),
        ([[0.0, 1.0]], [-1]),
        ([[0.0, 1.0]], [0, 1]),
        ([], []),
    ],
)
def test_malformed_logits_or_labels_are_a_value_error(logits, label):
    for score in (brier_multiclass, temperature):
        with pytest.raises(ValueError, match=r"logits|label"):
            score(logits, label)


def test_a_flat_likelihood_has_no_temperature_and_a_growing_one_the_limit():
    assert np.isnan(calibration.temperature([[1.0, 1.0], [0.0, 0.0, 0.0]], [0, 1]))
    assert calibration.temperature([[1.0, 0.0], [2.0, 0.0]], [0, 0]) == 0.01
    assert calibration.temperature([[1.0, 0.0], [2.0, 0.0]], [1, 1]) == 100
    assert calibration.temperature([[1.0, 0.0]], [0]) == 0.01
