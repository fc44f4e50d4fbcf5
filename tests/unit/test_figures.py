"""What figures compute agrees with a slow direct computation; what they draw repeats exactly."""

import base64
import io
import itertools
import zlib
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.text import Text
from PIL import Image, ImageChops

from helpers import synthetic_results
from prunecal.caching import lineage
from prunecal.calibration import aurc, catalogue, expected_calibration_error
from prunecal.calibration.maps import pooled
from prunecal.core import plugins
from prunecal.figures import (
    budget,
    cell_selection,
    forest,
    kept_tokens,
    learning_curve,
    naming,
    pareto,
    pooling,
    reliability,
    risk_coverage,
    style,
    sweep,
)
from prunecal.figures.cell_selection import Answers
from prunecal.report import all_cells, tables
from prunecal.storage import files
from prunecal.storage.arrays import open_arrays

SMALL = ["full", {"strategy": "random", "seed": [0, 1]}, {"strategy": "scope", "alpha": [0.0, 1.0]}]


@pytest.fixture(autouse=True)
def _look():
    style.use()
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def measured():
    return synthetic_results.metrics(synthetic_results.study())[0]


@pytest.fixture(scope="module")
def compared():
    return synthetic_results.metrics(synthetic_results.study())[1]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Return metrics, comparisons and results of a study of few cells, for what draws a lot."""
    settings = synthetic_results.study(SMALL, [4, 8])
    results = synthetic_results.write(tmp_path_factory.mktemp("small"), settings)
    return *synthetic_results.metrics(settings), results


def some_answers(rows=400, images=20, seed=0, levels=None):
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.3, 1, rows)
    if levels:
        confidence = np.round(confidence * levels) / levels
    correct = generator.random(rows) < confidence**2
    return Answers(confidence, correct, np.sort(generator.integers(0, images, rows)))


def every_strategy():
    """Return a table with each registered strategy as it is configured by name alone."""
    rows = [
        {"strategy": name, "family": name, **plugins.load("strategies", name).Params().model_dump()}
        for name in plugins.names("strategies")
    ]
    return pd.DataFrame(rows)


def panels(figure):
    return [axes for axes in figure.axes if axes.axison]


def test_every_registered_strategy_looks_different():
    looks = style.styles(every_strategy())
    seen = [(look.colour, look.marker, str(look.dash)) for look in looks.values()]
    assert len(set(seen)) == len(seen) == len(plugins.names("strategies"))
    assert len({look.colour for look in looks.values()}) == len(seen)
    assert len({look.name for look in looks.values()}) == len(seen)


def test_variants_of_a_strategy_look_different(measured):
    looks = style.legend_entries(style.styles(measured))
    assert len({(look.colour, look.marker) for look in looks}) == len(looks) == 14


def test_a_strategy_looks_the_same_in_every_table(measured, compared):
    of_metrics, of_comparisons = style.styles(measured), style.styles(compared)
    assert all(of_metrics[label].colour == look.colour for label, look in of_comparisons.items())
    assert all(of_metrics[label].marker == look.marker for label, look in of_comparisons.items())


def test_strategies_are_named_for_readers(measured):
    looks = style.styles(measured)
    assert looks["full"].name == "Unpruned"
    assert looks["scope-alpha0.25"].name == "SCOPE α = 0.25"
    assert looks["scope-alpha0-gap_power2"].name == "SCOPE α = 0, p = 2"
    assert looks["fastv-layer2"].name == "FastV"
    assert looks["random-seed1"].name == "Random (mean of 3 seeds)"
    assert naming.strategy_name("random", {"seed": 1}) == "Random seed 1"
    assert naming.strategy_name("fastv", {"layer": 3}) == "FastV layer 3"


def test_pooled_seeds_are_their_mean_and_range(measured):
    pooled = pooling.pool_seeds(pooling.headline(measured, ["accuracy"]))
    row = pooled[(pooled["family"] == "random") & (pooled["budget"] == 8)].iloc[0]
    task = (measured["model"] == row["model"]) & (measured["dataset"] == row["dataset"])
    cell = (measured["family"] == "random") & (measured["budget"] == 8)
    kind = (measured["metric"] == "accuracy") & (measured["subset"] == "all")
    values = [float(value) for value in measured[task & cell & kind]["value"]]
    assert len(values) == row["seeds"] == 3
    assert row["value"] == pytest.approx(sum(values) / 3)
    assert (row["low"], row["high"]) == (min(values), max(values))


def test_a_single_seed_keeps_its_interval(measured):
    one = measured[measured["strategy"] == "random-seed1"]
    pooled = pooling.pool_seeds(pooling.headline(one, ["ece"]))
    expected = pooling.headline(one, ["ece"])
    assert sorted(pooled["low"]) == sorted(expected["ci_low"])
    assert set(pooled["series"]) == {"Random seed 1"}


def test_panels_keep_the_order_of_tasks_whatever_their_numbers_of_tokens(measured):
    rows = pooling.headline(measured, ["ece"])
    fewer = (rows["dataset"] == rows["dataset"].iloc[-1]) & (rows["family"] == "full")
    rows = rows.assign(budget=rows["budget"].mask(fewer, 1))
    assert pooling.tasks(pooling.pool_seeds(rows)) == pooling.tasks(rows)


def test_dodged_points_of_neighbouring_budgets_stay_apart():
    budgets = [64, 128, 192]
    places = np.array([budget.dodge(budgets, 12, number) for number in range(12)])
    for left, right in itertools.pairwise(range(len(budgets))):
        assert places[:, left].max() < places[:, right].min()
    assert np.log(places).mean(axis=0) == pytest.approx(np.log(budgets))


def test_sweep_takes_cells_that_differ_in_one_parameter_alone(measured):
    alphas = sweep.swept(measured, "alpha")
    assert sorted(alphas["alpha"].unique()) == [0, 0.25, 0.5, 0.75, 1]
    assert set(alphas["gap_power"]) == {1.0}
    powers = sweep.swept(measured, "gap_power")
    assert sorted(powers["gap_power"].unique()) == [0.5, 1, 2, 3]
    assert set(powers["alpha"]) == {0.0}
    assert sweep.swept(measured, "layer").empty


def test_pareto_front_equals_a_slow_search():
    generator = np.random.default_rng(3)
    gain, cost = generator.integers(0, 8, (2, 60)).astype(float)
    expected = [
        not any(
            (g >= gain[i] and c <= cost[i]) and (g > gain[i] or c < cost[i])
            for g, c in zip(gain, cost, strict=True)
        )
        for i in range(60)
    ]
    assert pareto.pareto_front(gain, cost).tolist() == expected


def test_risk_coverage_curve_averages_to_the_aurc():
    for levels in (None, 12):
        found = some_answers(levels=levels)
        coverage, risk = risk_coverage.risk_coverage_curve(found.confidence, found.correct)
        assert risk.mean() == pytest.approx(aurc(found.confidence, found.correct), abs=1e-12)
        assert coverage[-1] == 1
        assert risk[-1] == pytest.approx(1 - found.correct.mean())


def test_risk_of_ties_is_the_mean_over_their_orders():
    confidence, correct = np.array([0.9, 0.5, 0.5, 0.5]), np.array([True, False, True, True])
    orders = [
        [not correct[0], *(not correct[i] for i in order)]
        for order in itertools.permutations((1, 2, 3))
    ]
    expected = np.mean([np.cumsum(order) / np.arange(1, 5) for order in orders], axis=0)
    assert risk_coverage.risk_coverage_curve(confidence, correct)[1] == pytest.approx(expected)


def test_thinned_curve_keeps_its_ends():
    coverage, risk = risk_coverage.thin(np.arange(1, 5001) / 5000, np.arange(5000.0))
    assert len(coverage) == risk_coverage.POINTS
    assert (risk[0], risk[-1], coverage[-1]) == (0, 4999, 1)


def test_reliability_curves_are_the_isotonic_regression_and_histograms_count_answers():
    found = some_answers(levels=40)
    diagram = reliability.diagram(found, bins=10)
    knots, accuracy = pooled(found.confidence, found.correct)
    drawn = np.interp(knots, diagram.confidence, diagram.accuracy)
    np.testing.assert_allclose(drawn, accuracy, atol=1e-12)
    for number in range(10):
        inside = (found.confidence > number / 10) & (found.confidence <= (number + 1) / 10)
        assert diagram.count[number] == inside.sum()
    assert diagram.ece == expected_calibration_error(found.confidence, found.correct, 10)
    score = np.mean((found.confidence - found.correct) ** 2)
    parts = diagram.miscalibration - diagram.discrimination + found.correct.var()
    assert parts == pytest.approx(score)
    assert "Of the 10 bins of ECE" in reliability.bins_used([diagram])


def test_the_band_holds_a_calibrated_curve_and_not_an_overconfident_one():
    generator = np.random.default_rng(7)
    confidence, image = generator.uniform(0.5, 1, 3000), np.repeat(np.arange(300), 10)
    outside = []
    for right in (confidence, confidence - 0.15):
        curve = reliability.diagram(Answers(confidence, generator.random(3000) < right, image))
        drawn = np.interp(curve.grid, curve.confidence, curve.accuracy)
        outside.append(np.mean((drawn < curve.low) | (drawn > curve.high)))
    assert outside[0] < 0.15
    assert outside[1] > 0.8


def test_reliability_bands_know_that_an_images_answers_are_alike():
    generator = np.random.default_rng(5)
    image = np.repeat(np.arange(30), 20)
    right = generator.random(30) < 0.7  # an image's 20 answers are all right or all wrong
    confidence = np.full(600, 0.7)
    alike = reliability.diagram(Answers(confidence, right[image], image), bins=5)
    apart = reliability.diagram(Answers(confidence, right[image], np.arange(600)), bins=5)
    width = [(diagram.high - diagram.low).max() for diagram in (alike, apart)]
    assert width[0] == pytest.approx(width[1] * 20**0.5, rel=0.25)


def test_faded_picture_shows_exactly_the_kept_patches():
    picture = np.random.default_rng(0).integers(0, 200, (36, 36, 3), dtype=np.uint8)
    shown = kept_tokens.fade(picture, np.isin(np.arange(36), [0, 7, 35]).astype(float))
    for token in range(36):
        row, column = divmod(token, 6)
        patch = np.s_[6 * row : 6 * row + 6, 6 * column : 6 * column + 6]
        if token in (0, 7, 35):
            assert (shown[patch] == picture[patch]).all()
        else:
            assert (shown[patch] > picture[patch]).all()


def test_pictures_are_shown_as_the_model_sees_them():
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = (90, 150, 240)
    image = Image.fromarray(wide)
    padded, cropped = (
        kept_tokens.square(image, mode, [0.5, 0.25, 0.1]) for mode in ("pad", "crop")
    )
    assert padded[0, 0].tolist() == [127, 63, 25]  # the processor's mean, not the picture's
    assert (cropped[:, 30:-30] == (90, 150, 240)).all()  # its edges were resampled with more


def test_shown_cells_are_the_ends_of_each_family(results):
    cells = cell_selection.catalogue(sorted(results.glob("*/toy-pope/*/*/predictions.parquet")))
    chosen = cell_selection.representatives(cells)
    assert list(dict.fromkeys(chosen["name"])) == [
        "Unpruned",
        "Random seed 0",
        "Saliency",
        "SCOPE α = 0",
        "SCOPE α = 1",
        "FastV",
        "FastV, two passes",
    ]
    assert cell_selection.panels(chosen) == [4, 8]


def drawings(measured, compared, results):
    """Draw each kind of figure once."""
    looks = style.styles(measured)
    pool = pooling.pool_seeds
    yield budget.draw(
        pool(pooling.headline(measured, ["ece_debiased"]), looks), looks, "ece_debiased"
    )
    yield sweep.draw(pooling.headline(measured, sweep.METRICS), "alpha")
    both = pool(pooling.headline(measured, ["accuracy", "ece_debiased"]), looks)
    yield pareto.draw(pareto.trade_off(both), looks)
    deltas = pool(pooling.headline(compared, ["ece_debiased"]), looks, column="delta")
    yield forest.draw(pooling.pruned(deltas), looks, "ece_debiased")
    cells = cell_selection.catalogue(sorted(results.glob("*/toy-pope/*/*/predictions.parquet")))
    chosen = cell_selection.representatives(cells)
    chosen = chosen[
        chosen["budget"].isin(cell_selection.panels(chosen)) | (chosen["family"] == "full")
    ]
    read = [cell_selection.read(path) for path in chosen["path"]]
    yield reliability.draw(chosen, [reliability.diagram(found) for found in read], looks, "toy")
    curves = [risk_coverage.risk_coverage_curve(found.confidence, found.correct) for found in read]
    yield risk_coverage.draw(chosen, curves, looks)
    curve = pd.read_csv(results / "models" / synthetic_results.MODEL / "weights/learning_curve.csv")
    yield learning_curve.draw(curve, "toy")


def texts(figure):
    """Return what a figure says beside its panels."""
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return [figure.get_suptitle(), figure.get_supxlabel(), *legends]


@pytest.mark.slow
def test_figures_need_no_caption(small):
    for number, figure in enumerate(drawings(*small)):
        assert figure.get_suptitle()
        for axes in panels(figure):
            place, ticks = axes.get_subplotspec(), axes.get_yticklabels()
            assert axes.get_xlabel() or not place.is_last_row()
            words = axes.get_ylabel() or any(tick.get_text()[:1].isalpha() for tick in ticks)
            assert words or not place.is_first_col()
        assert all(axes.get_title() for axes in panels(figure)[:1])
        if number < 5:  # risk against coverage and learning curves have no intervals
            assert any("interval" in text for text in texts(figure))


@pytest.mark.slow
def test_figures_repeat_byte_for_byte(small, tmp_path):
    for run in ("first", "second"):
        for number, figure in enumerate(drawings(*small)):
            style.save(figure, tmp_path / run, str(number))
    made = sorted(path.name for path in (tmp_path / "first").glob("[!.]*"))
    assert len(made) == 14
    for name in made:
        content = (tmp_path / "first" / name).read_bytes()
        assert content == (tmp_path / "second" / name).read_bytes(), name
        assert b"dc:date" not in content
        assert b"matplotlib.org" not in content.lower()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategies", "budgets"),
    [(["full"], [4]), (["full", "fastv"], [36])],
)
def test_a_study_of_almost_nothing_is_drawn(strategies, budgets, tmp_path):
    settings = synthetic_results.study(strategies, budgets)
    measured, compared = synthetic_results.metrics(settings)
    results = synthetic_results.write(tmp_path, settings)
    for number, figure in enumerate(drawings(measured, compared, results)):
        style.save(figure, tmp_path / "figures", str(number))
    assert len(list((tmp_path / "figures").glob("[!.]*.svg"))) == 7


@pytest.mark.slow
def test_a_long_name_of_an_imported_strategy_is_drawn_as_text_and_leaves_panels_room(tmp_path):
    cell = {"model": synthetic_results.MODEL, "strategy": "elsewhere", "budget": 8, "file": "a.csv"}
    cell |= {"family": "$\\frac{x$ " + "long " * 17, "parameters": {"note": "words " * 60}}
    imported = [cell | {"dataset": name} for name in synthetic_results.DATASETS]
    settings = synthetic_results.study(["full", "saliency"], [4, 8], imported=imported)
    results = synthetic_results.write(tmp_path, settings)
    names = 0
    for figure in drawings(*synthetic_results.metrics(settings), results):
        figure.canvas.draw()  # warns, which is an error in tests, where panels have no room
        drawn = (text.get_text() for text in figure.findobj(Text))
        names += any("$\\frac{x$ long" in text for text in drawn)
    assert names == 5  # all but the sweep and the learning curve


def test_kept_tokens_are_drawn_for_each_ranked_strategy(results):
    paths = sorted(results.glob("*/toy-pope/*/ranking.safetensors"))
    opened = [open_arrays(path) for path in paths]
    facts = [file.facts for file in opened]
    table = pd.DataFrame(
        {"strategy": path.parent.name, "family": fact["family"], **fact["parameters"]}
        for path, fact in zip(paths, facts, strict=True)
    )
    chosen = kept_tokens.columns(table)
    assert [name for _, name in chosen][:3] == ["Random seed 0", "Saliency", "SCOPE α = 0"]
    assert len(chosen) == 10  # one seed of random, saliency, eight of SCOPE
    pictures = kept_tokens.first_pictures(
        results / "datasets/toy-pope/images.parquet", "pad", [0.5] * 3, 2
    )
    kept = [
        {image: lineage.ranking(path, 8).held(at, 36) for at, image in enumerate(pictures)}
        for path in paths
    ]
    figure = kept_tokens.draw(chosen, kept, pictures, 8, "costs $5 & <b>more</b>")
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 2 * (len(chosen) + 1)
    assert {axes.get_aspect() for axes in shown} == {1}
    grids = dict.fromkeys(pictures, (4, 9))  # of an image that is wider than it is high
    figure = kept_tokens.draw(chosen[:1], kept, pictures, 8, "wide", grids)
    assert {axes.get_aspect() for axes in figure.axes if axes.images} == {4 / 9}


def test_headline_table_holds_each_cell_once(measured, compared):
    table = tables.headline_table(measured, compared)
    assert len(table) == 2 * (1 + 12 * 3)
    assert not table.duplicated(["model", "dataset", "strategy", "budget"]).any()
    row = table[(table["dataset"] == "toy-sqa") & (table["strategy"] == "SCOPE α = 0.5")]
    row = row[row["budget"] == 16].iloc[0]
    here = (compared["dataset"] == "toy-sqa") & (compared["strategy"] == "scope-alpha0.5")
    here &= (
        (compared["budget"] == 16) & (compared["metric"] == "ece") & (compared["subset"] == "all")
    )
    assert row["ece_delta"] == compared[here]["delta"].item()
    assert row["ece_p_adjusted"] == compared[here]["p_adjusted"].item()
    unpruned = table[table["strategy"] == "Unpruned"]
    assert unpruned["ece_delta"].isna().all()


def test_table_of_data_sets_counts_questions(results):
    paths = [results / "datasets" / name / "questions.parquet" for name in ("toy-pope", "toy-sqa")]
    first, second = tables.datasets_table(paths).to_dict("records")
    counts = {"rows": 240, "distinct": 24, "n_images": 24, "subsets": "random, popular"}
    assert first == {
        "dataset": "toy-pope",
        **counts,
        "first_question": synthetic_results.HOSTILE,
        "options": "Yes / No",
        "answer": "Yes",
        **{"chance": 0.5, "constant": 0.0, "constant_answer": "Yes"},  # every answer is Yes
    }
    assert (second["dataset"], second["options"]) == ("toy-sqa", "A / B / C")


def test_table_of_claims_holds_each_comparison_once(results):
    claims = files.read_json(results / "claims.json")
    table = tables.claims_table(claims)
    assert table["claim"].tolist() == ["C1", "C1", "C2", "C2", "C3"]
    first = claims[0]["evidence"]["numbers"][0]
    assert table.iloc[0][list(first)].to_dict() == first
    assert table.iloc[0]["claim_verdict"] == "contradicted"
    assert table.iloc[4][tables.CASE].isna().all()  # not tested
    assert list(tables.claims_table([])) == list(table)


def test_page_of_cells_has_a_row_per_cell_and_subset(measured):
    page = all_cells.every_cell(measured)
    text = zlib.decompress(base64.b64decode(page["packed"])).decode()
    rows = [line.split("\t") for line in text.split("\n")]
    assert page["count"] == len(rows) == len(measured.drop_duplicates([*tables.KEYS, "subset"]))
    assert {len(row) for row in rows} == {2 * len(page["heads"]) - page["names"]}
    first = measured.iloc[0]
    place = page["heads"].index(catalogue.metric_name(first["metric"]))
    assert rows[0][2 * place - page["names"]] == f"{first['value']:.4f}"


@pytest.mark.parametrize("entries", [3, 40])
def test_a_legend_lies_within_its_figure_however_many_strategies_it_names(entries):
    figure, axes = pyplot.subplots(figsize=(6, 3))
    lines = [axes.plot([0, 1], [0, one], label=f"Strategy {one}")[0] for one in range(entries)]
    style.legend_beside(figure, lines)
    figure.draw_without_rendering()
    box, page = figure.legends[0].get_window_extent(), figure.bbox
    pyplot.close(figure)
    assert page.y0 <= box.y0 < box.y1 <= page.y1
    assert (figure.get_figheight() == 3) == (entries == 3)


def test_panels_of_many_data_sets_are_two_wide_and_each_column_has_its_numbers():
    figure, columns = style.columns_of_panels(5, 2, (3, 2), (1, 0.5), sharex=True)
    assert tuple(figure.get_size_inches()) == (7, 12.5)
    assert [len(column) for column in columns] == [2] * 5
    for upper, lower in columns:
        assert not upper.xaxis.get_tick_params()["labelbottom"]
        assert lower.xaxis.get_tick_params()["labelbottom"]
    assert sum(axes.axison for axes in figure.axes) == 10
    title = "What all panels show"
    style.title_and_legend(figure, title, columns[0][0].plot([0, 1], label="one"), 1)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert legend.get_title().get_text() == title
    top = max(axes.get_tightbbox().y1 for axes in figure.axes if axes.axison)
    assert legend.get_window_extent().y0 >= top


def test_a_figure_is_as_wide_as_its_legend_and_titles(tmp_path):
    figure, axes = pyplot.subplots(figsize=(3, 3))
    lines = [axes.plot([0, 1], [0, one], label=f"A long name {one}" * 3)[0] for one in range(3)]
    figure.legend(handles=lines, loc="outside lower center", ncols=3)
    figure.suptitle("A title of one line, in letters that are bolder than others")
    axes.set_title("A title of a panel, which is longer than the panel is wide")
    style.note(figure, "A note in small letters, which is broken into lines where it is long")
    style.save(figure, tmp_path, "narrow")
    with Image.open(tmp_path / "narrow.png") as image:
        pixels = np.asarray(image.convert("L"))
        assert image.width > 3 * figure.dpi
    for edge in (pixels[:, 0], pixels[:, -1], pixels[0], pixels[-1]):
        assert set(edge.tolist()) == {255}


def test_a_figure_of_too_many_marks_is_an_svg_that_shows_its_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "LARGEST_SVG", 1000)
    figure, axes = pyplot.subplots()
    axes.scatter(*np.random.default_rng(0).random((2, 5000)), s=range(5000), color="#d55e00")
    style.save(figure, tmp_path, "many")
    shown = ElementTree.fromstring((tmp_path / "many.svg").read_text())  # noqa: S314  our own file
    (held,) = shown
    with Image.open(io.BytesIO(base64.b64decode(held.get("href").partition(",")[2]))) as image:
        with Image.open(tmp_path / "many.png") as whole:
            assert image.size == whole.size
            difference = ImageChops.difference(image.convert("RGB"), whole.convert("RGB"))
        assert len(image.getcolors()) <= style.COLOURS
    assert np.asarray(difference).mean() < 1
    figure, axes = pyplot.subplots()
    axes.imshow(np.random.default_rng(0).random((20, 20, 3)))
    style.save(figure, tmp_path, "photograph")
    assert "<path" in (tmp_path / "photograph.svg").read_text()
    assert shown.get("width") == str(image.width)
