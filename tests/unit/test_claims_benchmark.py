"""The simulated studies behind the table of false verdicts in docs/add-a-claim.md."""

import numpy as np

from helpers.pages import ROOT
from prunecal.benchmark import claims


def test_the_page_has_the_table_and_the_command_that_prints_it():
    page = (ROOT / "docs" / "add-a-claim.md").read_text(encoding="utf-8")
    made = list(claims.table([20, 30], 20))
    shown = [line for line in page.splitlines() if line.startswith("|")]
    assert [row.split("|")[1] for row in made] == [row.split("|")[1] for row in shown]
    assert f"`python -m {claims.__name__} --images 40 60 200 --studies 4000`" in page


def test_no_cell_of_a_simulated_study_differs_but_by_chance():
    values = np.stack([study.value("accuracy")[:, 0] for study in claims.studies(40, 200)])
    errors = values.std(axis=0) / np.sqrt(len(values))
    assert (np.abs(values.mean(axis=0) - values.mean()) < 4 * errors).all()
    assert 0.7 < values.mean() < 0.9


def test_shares_are_rounded_with_halves_up():
    """2.65 % is none of the numbers that a float can hold."""
    assert claims._per_cent(106, 4000) == 2.7
