"""Results without Snakemake's record are told from those that have one."""

import pytest
from snakemake.persistence.file import FilePersistence

from prunecal.caching.records import missing_record, unrecorded


@pytest.mark.parametrize("name", ["metrics.csv", f"{'deep/' * 60}predictions.parquet"])
def test_a_result_is_recorded_where_snakemake_keeps_its_record(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "results" / name
    path.parent.mkdir(parents=True)
    path.write_text("1")
    result = f"results/{name}"
    assert unrecorded([result, "results/not_there.csv"]) == [result]
    persistence = FilePersistence()
    persistence._io_write(persistence._metadata_path, {"rule": "compare"}, result)
    assert unrecorded([result]) == []


def test_the_warning_counts_the_results_and_names_the_remedies():
    said = missing_record(
        ["results/metrics.csv", "results/claims.json"], "snakemake --configfile s"
    )
    assert said.startswith("2 results, results/metrics.csv among them, have no record")
    for command in ("verify", "repair_outdated", "--touch --forceall results"):
        assert f"`snakemake --configfile s {command}`" in said
