"""The figure of accuracy and ECE against what the decoder computes."""

import pandas as pd
import pytest
from matplotlib import pyplot

from prunecal.figures import cost, pooling, style


@pytest.fixture(autouse=True)
def _look():
    style.use()
    yield
    pyplot.close("all")


def metrics():
    """Two strategies at one budget, one of which sees all 36 tokens in its first layers."""
    rows = []
    for family, entering in (("full", 36), ("saliency", 4), ("fastv", 12)):
        values = {"accuracy": 0.8, "ece_debiased": 0.05, "tokens_per_layer": entering}
        for metric, value in values.items():
            row = {"model": "m", "dataset": "d", "subset": "all", "strategy": family}
            row |= {"family": family, "budget": 36 if family == "full" else 4, "metric": metric}
            rows.append(row | {"value": value, "ci_low": value - 0.01, "ci_high": value + 0.01})
    return pd.DataFrame(rows)


def cells(table):
    names = [*cost.METRICS, cost.COST]
    return cost.with_cost(pooling.pool_seeds(pooling.headline(table, names), style.styles(table)))


def test_cells_stand_over_what_they_compute_and_not_over_their_budget():
    table = metrics()
    rows = cells(table)
    entering = rows.groupby("family")["cost"].first().to_dict()
    assert entering == {"fastv": 12, "full": 36, "saliency": 4}
    figure = cost.draw(rows, style.styles(table), {"m": 0.5})
    figure.draw_without_rendering()
    upper, lower = figure.axes
    drawn = {line.get_label(): list(line.get_xdata()) for line in lower.lines}
    assert drawn["FastV"] == [12]
    above = upper.child_axes[0]
    assert above.get_xlim() == pytest.approx([0.5 * end for end in upper.get_xlim()])


def test_operations_are_drawn_where_a_token_costs_the_same_in_all_cells_of_a_model():
    provenance = pd.DataFrame(
        {
            "model": ["m", "m", "n", "n", "o"],
            "visual_tokens_per_layer": [4.0, 12.0, 4.0, 8.0, 4.0],
            "decoder_gflop_per_prompt": [2.0, 6.0, 2.0, 5.0, None],
        }
    )
    assert cost.per_token(provenance) == {"m": 0.5}


def test_cells_that_do_not_say_what_they_compute_are_left_out():
    table = metrics()
    unknown = table[(table["metric"] != "tokens_per_layer") | (table["family"] == "full")]
    figure = cost.draw(cells(unknown), style.styles(table), {})
    assert not any(axes.axison for axes in figure.axes)
