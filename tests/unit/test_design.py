"""What a study consists of, how it is cut into jobs, and where its files lie."""

import pytest

from prunecal.study import report_items
from prunecal.study.cells import load_study
from prunecal.study.design import Design
from prunecal.study.paths import Paths, study_folder


def design(**changes):
    settings = {
        "title": "A study",
        "models": [
            {"name": "trained", "family": "llava", "visual_tokens": 100,
             "train": {"recipe": "digits"}},
            {"name": "local", "family": "llava", "visual_tokens": 50, "path": "local"},
        ],
        "datasets": [
            {"name": "polls", "loader": "digits-pope", "images": 6},
            {"name": "choices", "loader": "digits-sqa", "images": 6},
        ],
        "strategies": [
            "full",
            {"strategy": "random", "seed": [0, 1]},
            {"strategy": "scope", "alpha": [0, 0.5]},
            "fastv",
        ],
        "budgets": [20, 5],
    }  # fmt: skip
    return Design(load_study(settings | changes))


def labels(jobs):
    return [[(cell.strategy, cell.budget) for cell in job] for job in jobs]


def test_infer_jobs_hold_every_cell_once_in_whole_strategies():
    study = design(inference={"cells_per_job": 3})
    jobs = study.infer_jobs("trained")
    assert [cell for job in jobs for cell in job] == study.cells["trained"]
    assert labels(jobs) == [
        [("full", 100), ("random-seed0", 20), ("random-seed0", 5)],
        [("random-seed1", 20), ("random-seed1", 5)],
        [("scope-alpha0", 20), ("scope-alpha0", 5)],
        [("scope-alpha0.5", 20), ("scope-alpha0.5", 5)],
        [("fastv-layer2", 20), ("fastv-layer2", 5)],
    ]


def test_a_strategy_with_more_cells_than_a_job_may_hold_is_a_job_of_its_own():
    study = design(inference={"cells_per_job": 1})
    assert [len(job) for job in study.infer_jobs("trained")] == [1, 2, 2, 2, 2, 2]


def test_a_strategy_added_at_the_end_leaves_earlier_jobs_as_they_are():
    few = design(inference={"cells_per_job": 3})
    more = design(
        inference={"cells_per_job": 3},
        strategies=[*few.study.strategies, "saliency"],
    )
    assert more.infer_jobs("trained")[: len(few.infer_jobs("trained"))] == few.infer_jobs("trained")


def test_a_rank_job_holds_every_strategy_once_that_ranks_before_the_llm():
    study = design()
    (job,) = study.rank_jobs("trained")
    names = ["full", "random-seed0", "random-seed1", "scope-alpha0", "scope-alpha0.5"]
    assert [cell.strategy for cell in job] == names
    settings = [study.rank_settings("trained", cell) for cell in job]
    assert [one["parameters"].get("alpha") for one in settings] == [None, None, None, 0, 0.5]
    assert not any(one["budgets"] for one in settings)


def test_at_most_strategies_per_rank_are_ranked_in_a_job():
    jobs = design(strategies=["full", {"strategy": "random", "seed": list(range(260))}]).rank_jobs(
        "local"
    )
    assert [len(job) for job in jobs] == [250, 11]


@pytest.mark.parametrize(
    ("strategies", "swept"),
    [
        (["full"], []),
        (["full", {"strategy": "random", "seed": [0, 1]}], []),  # a seed is no effect
        (["full", {"strategy": "scope", "alpha": [0, 0.5]}], ["alpha"]),
        (
            ["full", {"strategy": "scope", "alpha": [0, 1], "gap_power": [1, 2]}],
            ["alpha", "gap_power"],
        ),
        # strategies of two plugins that differ in a number of one name sweep nothing
        (
            ["full", {"strategy": "fastv", "layer": 2}, {"strategy": "fastv-two-pass", "layer": 3}],
            [],
        ),
        (["full", {"strategy": "fastv", "layer": [2, 3]}], ["layer"]),
        (["full", {"strategy": "scope", "positions": ["compact", "original"]}], []),  # words
    ],
)
def test_a_parameter_is_swept_if_its_number_differs_within_a_plugin(strategies, swept):
    assert design(strategies=strategies).swept_parameters() == swept


def test_budgets_are_those_of_pruned_cells():
    assert design().budgets("trained") == [5, 20]
    assert design(budgets=["10%"]).budgets("local") == [5]


def test_images_vary_where_a_model_states_no_number_of_their_tokens():
    native = {"name": "native", "family": "llava-native", "patches": 100, "path": "weights"}
    assert design(models=[native], budgets=["10%"]).images_vary(("native", "polls"))
    assert not design(budgets=["10%"]).images_vary(("local", "polls"))


def test_files_of_cells_follow_the_documented_path():
    paths = Paths(design())
    assert paths.predictions("local", "polls")[:2] == [
        "results/local/polls/full/50/predictions.parquet",
        "results/local/polls/random-seed0/20/predictions.parquet",
    ]
    assert len(paths.every_prediction()) == 2 * 2 * (1 + 5 * 2)
    assert [path.split("/")[3:5] for path in paths.unpruned_predictions()] == [
        ["full", "100"], ["full", "100"], ["full", "50"], ["full", "50"],
    ]  # fmt: skip
    ranked = {path.split("/")[3] for path in paths.every_ranking()}
    assert ranked == {"full", "random-seed0", "random-seed1", "scope-alpha0", "scope-alpha0.5"}


def test_only_trained_models_have_weights_in_results():
    paths = Paths(design())
    assert paths.weights("trained") == ["results/models/trained/weights/model.safetensors"]
    assert paths.weights_option("trained") == "--weights results/models/trained/weights"
    assert (paths.weights("local"), paths.weights_option("local")) == ([], "")
    assert "results/models/trained/manifest.json" not in paths.downloads()
    assert "results/models/local/manifest.json" in paths.downloads()


def test_every_result_is_named_once():
    paths = Paths(design(study="mine"))
    results = paths.every_result()
    assert len(results) == len(set(results))
    cells = set(paths.every_prediction())
    assert cells < set(results)
    assert {path.replace("predictions.parquet", "provenance.json") for path in cells} < set(results)
    assert {"results/mine/metrics.csv", "results/mine/claims.json"} < set(results)


def test_a_named_study_keeps_its_aggregates_logs_and_report_apart():
    unnamed, named = Paths(design()), Paths(design(study="mine"))
    assert (unnamed.aggregates, unnamed.logs, unnamed.report) == (
        "results", "logs", "reports/report.html",
    )  # fmt: skip
    assert (named.aggregates, named.logs, named.report) == (
        "results/mine", "logs/mine", "reports/mine.html",
    )  # fmt: skip
    assert unnamed.every_prediction() == named.every_prediction()
    assert (study_folder("results"), study_folder("mine")) == ("results", "results/mine")


def test_the_report_shows_each_item_once_and_every_figure_has_a_png():
    paths = Paths(design())
    items = report_items.report_items(paths)
    assert len(items) == len(set(items))
    assert "results/figures/sweep_alpha.svg" in items
    figures = [item for item in items if item.startswith(paths.figures)]
    assert report_items.png_twins(items) == [figure.replace(".svg", ".png") for figure in figures]


def test_categories_are_in_the_order_of_their_numbers():
    categories = [
        value
        for name, value in vars(report_items).items()
        if name.isupper() and isinstance(value, str)
    ]
    assert [value.split(".")[0] for value in categories] == [str(n) for n in range(1, 10)]
    assert categories == sorted(categories)


def test_import_jobs_hold_every_imported_cell_once_in_order():
    entry = {"model": "m", "dataset": "d", "strategy": "full", "budget": 600, "file": "a.csv"}
    more = [{**entry, "strategy": "mine", "budget": budget} for budget in range(1, 600)]
    empty = {"title": "t", "models": [], "datasets": [], "strategies": [], "budgets": []}
    made = Design(load_study({**empty, "imported": [entry, *more]}))
    jobs = made.import_jobs()
    assert list(jobs) == [("m", "d", number) for number in range(3)]
    assert [one for job in jobs.values() for one in job] == made.imported["m", "d"]
