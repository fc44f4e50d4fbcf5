"""The synthetic study on which scoring is timed is of POPE's size and can be scored."""

import numpy as np
import pytest

from prunecal.benchmark import scoring
from prunecal.statistics.predictions import read_cells
from prunecal.statistics.subsets import subsets


def test_the_study_has_the_rows_that_its_record_names(tmp_path):
    cells = read_cells(scoring.write_study(tmp_path, 2))
    parts = subsets(cells[0].rows, tmp_path / "questions.parquet")
    assert {name: len(rows) for name, rows in parts.items()} == {
        "random": 3000, "popular": 3000, "adversarial": 3000, "all": 9000, "unique": 6000,
    }  # fmt: skip
    assert 0.6 < np.mean(cells[0].correct) < 0.95
    assert not np.array_equal(cells[0].table, cells[1].table)


@pytest.mark.slow
def test_a_run_is_timed_and_weighed():
    found = scoring.measure(cells=2, resamples=201, threads=2)
    assert found["seconds"] > 0
    assert found["peak_mb"] > 50
