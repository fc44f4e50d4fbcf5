"""Score files and tables whose values do not follow from their predictions.

A checksum tells damage, but not a file that was edited and recorded again. So values are computed
again: of each score file the metrics that take no fit, those of EVERY_REPLICATE on all resamples
and the others on some that the file's checksum draws; and from the score files all numbers of the
tables of metrics, comparisons, detectable differences and calibration, and the claims.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prunecal.calibration.metrics import BINNED, COSTLY, METRICS, PRIMARY, compute, compute_read
from prunecal.calibration.sample import Sample
from prunecal.core.errors import PrunecalError
from prunecal.statistics import readouts
from prunecal.statistics.aggregates import aggregates
from prunecal.statistics.bootstrap import image_weights
from prunecal.statistics.claim_grammar import read_claims
from prunecal.statistics.claim_tests import evaluate
from prunecal.statistics.predictions import Cell, read_cells
from prunecal.statistics.scores import read_scores
from prunecal.statistics.scoring import WHOLE, bins_in_use
from prunecal.statistics.subsets import OUTCOME, POOLED, subsets
from prunecal.storage import files
from prunecal.storage.arrays import open_arrays

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from prunecal.storage.arrays import Arrays

# relative and absolute: another CPU rounds otherwise, and some values are iterated
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
UNFITTED = [  # of the metrics that are resampled less: those which need neither a fit nor halves
    *(key for key in COSTLY if key == "ace" or key.endswith("_bins")),
    *(key for key in PRIMARY if key == "smece" or key.endswith("_debiased")),
]
EVERY_REPLICATE = (*BINNED, "accuracy", "mean_confidence", "overconfidence", "brier")  # cheap
REPLICATES = 4  # of each other metric; one that was changed throughout differs in any
OF_FILE = ("model", "dataset")  # facts that a score file states once for all of its cells


def other_values(results: Path, damaged: Collection[Path]) -> Iterator[tuple[Path, str]]:
    """Yield score files and tables whose values do not follow from their predictions, and why.

    Args:
        results: folder of all results.
        damaged: files about which nothing can be said, with all that was made from them.
    """
    for study in ("", "[!.]*/"):
        for path in sorted(results.glob(f"{study}scores/*/*.safetensors")):
            sources = [*files.sources_of(path)]
            if sources and not {path, *sources} & set(damaged):
                yield from _faults(path, _other_score, path, sources)
        for metrics in sorted(results.glob(f"{study}metrics.parquet")):
            sources = sorted(files.sources_of(metrics))
            if sources and not {metrics, *sources} & set(damaged):
                yield from _other_tables(metrics, sources, damaged)
                claims = metrics.with_name("claims.json")
                if claims.is_file() and claims not in damaged:
                    yield from _faults(claims, _other_claims, claims, metrics)


def _faults(path: Path, check: Any, *arguments: Any) -> Iterator[tuple[Path, str]]:
    """Yield a file with what a check says against it, if anything."""
    try:
        fault = check(*arguments)
    except PrunecalError as error:
        fault = _refused(error)
    if fault:
        yield path, fault


def _refused(error: PrunecalError) -> str:
    return f"from files that this checkout refuses: {error}"


def _other_score(path: Path, sources: list[Path]) -> str | None:
    """Say which value of a score file is not that of the predictions, if any."""
    predictions = [one for one in sources if one.name == "predictions.parquet"]
    questions = next((one for one in sources if one.name == "questions.parquet"), None)
    if not all(one.is_file() for one in sources):
        return None  # a missing source is not compared
    file = open_arrays(path)
    facts, cells = file.facts, read_cells(predictions)
    named = facts.get("outcome_of")
    split = [cell for cell in cells if [cell.facts["strategy"], str(cell.facts["budget"])] == named]
    parts = subsets(cells[0].rows, questions, split[0] if split else None)
    if fault := _other_facts(file, cells, parts):
        return fault
    weightings = _weightings(file, len(set(cells[0].rows["image_id"])))
    computed: dict[str, NDArray] = {}
    for at, cell in enumerate(cells):
        for subset, (metric, values) in _values(cell, parts, facts["bins"], weightings):
            shape = len(cells), len(parts), len(values)
            computed.setdefault(metric, np.full(shape, np.nan))[at, subset] = values
    tables = {f"value/{metric}": values[..., 0] for metric, values in computed.items()}
    tables |= {
        f"draws/{metric}": _replicates(metric, values, weightings, facts)
        for metric, values in computed.items()
    }
    tables |= bins_in_use(cells, parts, facts["bins"])
    for name in sorted(tables):
        if name not in file.keys():  # noqa: SIM118  not a mapping
            return f"without the {name.rpartition('/')[2]} of its predictions"
        stored = file.get_tensor(name)
        if name.startswith("draws/"):
            stored = stored[..., _columns(name.removeprefix("draws/"), weightings, facts)]
        other = ~np.isclose(stored, tables[name], equal_nan=True, **CLOSE)
        for place in map(tuple, np.argwhere(other)):
            cell, subset = facts["cells"][place[0]], facts["subsets"][place[1]]["name"]
            what = "replicates of " * name.startswith("draws/") + name.rpartition("/")[2]
            return (
                f"with {what} {stored[place]:.6g} of {cell['strategy']} at {cell['budget']} on "
                f"subset {subset!r}, where its predictions have {tables[name][place]:.6g}"
            )
    return None


def _other_facts(file: Arrays, cells: list[Cell], parts: Mapping[str, NDArray]) -> str | None:
    """Say what a score file states of itself otherwise than its predictions and arrays do."""
    facts = file.facts
    told = [(cell["strategy"], cell["budget"]) for cell in facts["cells"]]
    if told != [(cell.facts["strategy"], cell.facts["budget"]) for cell in cells]:
        return "from other cells than its predictions are"
    for stated, cell in zip(facts["cells"], cells, strict=True):
        for key in cell.facts.keys() - OF_FILE:
            if not _same(stated.get(key), cell.facts[key]):
                return (
                    f"with {key} {stated.get(key)!r} of {stated['strategy']} at "
                    f"{stated['budget']}, where its predictions have {cell.facts[key]!r}"
                )
    images = np.array(cells[0].rows["image_id"])
    counts = [(name, len(rows), len(np.unique(images[rows]))) for name, rows in parts.items()]
    if [(one["name"], one["n"], one["n_images"]) for one in facts["subsets"]] != counts:
        return "from other questions than its predictions answer"
    held = {
        name.removeprefix("draws/"): file.get_slice(name).get_shape()[-1]
        for name in file.keys()  # noqa: SIM118  not a mapping
        if name.startswith("draws/")
    }
    for metric in sorted({*held, *facts["resamples"]}):
        count = facts["resamples"].get(metric, 0)
        if count != held.get(metric, 0):
            return f"with {count} resamples of {metric} stated, where it has {held.get(metric, 0)}"
    return None


class _Weightings(NamedTuple):
    """How often each image counts: on the data as they are, then on resamples.

    Attributes:
        every: float64 [images, 1 + R].
        drawn: the resamples on which metrics other than EVERY_REPLICATE are computed, ascending.
    """

    every: NDArray
    drawn: NDArray

    @property
    def few(self) -> NDArray:
        """The data as they are and the drawn resamples, float64 [images, 1 + drawn]."""
        return self.every[:, [0, *self.drawn + 1]]


def _weightings(file: Arrays, images: int) -> _Weightings:
    counts = sorted({*file.facts["resamples"].values()} - {0})
    draw = np.random.default_rng(int(str(files.recorded(Path(file.path)))[:16], 16))
    drawn = {int(at) for count in counts for at in draw.integers(count, size=REPLICATES)}
    if not counts:
        return _Weightings(np.ones((images, 1)), np.array([], int))
    every = image_weights(images, counts[-1] + 1, file.facts["seed"])
    for row in every:  # the last resample gives its room to the data as they are, without a copy
        row[1:] = row[:-1]
    every[:, 0] = 1
    return _Weightings(every, np.array(sorted(drawn)))


def _columns(metric: str, weightings: _Weightings, facts: Mapping[str, Any]) -> NDArray:
    """Return the replicates of a metric that are compared, by their number."""
    count = facts["resamples"].get(metric, 0)
    if metric in EVERY_REPLICATE:
        return np.arange(count)
    return weightings.drawn[weightings.drawn < count]


def _replicates(
    metric: str, values: NDArray, weightings: _Weightings, facts: Mapping[str, Any]
) -> NDArray:
    """Return the computed replicates of a metric that are compared, [cells, subsets, replicates].

    Those of PRIMARY are computed over all questions alone.
    """
    chosen = values[..., 1 : 1 + len(_columns(metric, weightings, facts))]
    pooled = [subset["name"] == POOLED for subset in facts["subsets"]]
    return np.where(np.array(pooled)[:, None], chosen, np.nan) if metric in PRIMARY else chosen


def _values(
    cell: Cell, parts: Mapping[str, NDArray], bins: int, weightings: _Weightings
) -> Iterator[tuple[int, tuple[str, NDArray]]]:
    """Yield the number of a subset, a metric and its values on the data and on resamples."""
    _, image = np.unique(cell.rows["image_id"], return_inverse=True)
    columns, read = cell.row_means(), readouts.readings(cell)
    for at, (name, rows) in enumerate(parts.items()):
        own = {
            key: np.isin(rows, part)
            for key, part in parts.items()
            if name == POOLED and key not in WHOLE and not key.startswith(OUTCOME)
        }
        columns_here = {key: column[rows] for key, column in columns.items()}
        groups = {} if cell.yes is None else {"yes": cell.yes[rows], "no": ~cell.yes[rows]}
        sample = Sample(
            cell.confidence[rows],
            cell.correct[rows],
            image[rows],
            weightings.few,
            bins,
            columns_here,
            groups,
            own,
        )
        values = {key: compute(key, sample) for key in (*sample.means, *METRICS, *UNFITTED)}
        whole = replace(sample, weights=weightings.every)
        values |= {key: compute(key, whole) for key in EVERY_REPLICATE}
        for readout, reading in read.items() if name == POOLED else ():
            confidence, correct = (one[rows] for one in reading)
            other = Sample(confidence, correct, image[rows], weightings.few, bins)
            values |= compute_read(other, readout)
        for key, value in values.items():
            if value is not None:
                yield at, (key, value)


def _other_tables(
    metrics: Path, scores: list[Path], damaged: Collection[Path]
) -> Iterator[tuple[Path, str]]:
    """Yield the tables of a study that differ from those of its score files."""
    if not all(path.is_file() for path in scores):
        return
    try:
        tables = aggregates(scores, files.read_facts(metrics)["level"])
    except PrunecalError as error:
        yield metrics, _refused(error)
        return
    for name, table in tables.items():
        for kind in ("parquet", "csv"):
            path = metrics.with_name(f"{name}.{kind}")
            if path.is_file() and path not in damaged:
                yield from _faults(path, _other_table, path, table)


def _other_table(path: Path, table: pa.Table) -> str | None:
    """Say which value of a file differs from the recomputed table, if any."""
    stored = files.read_table(path) if path.suffix == ".parquet" else _read_csv(path, table.schema)
    if stored.column_names != table.column_names or len(stored) != len(table):
        return "with other rows or columns than its score files give"
    for name in table.column_names:
        row = first_difference(stored[name], table[name])
        if row is not None:
            value, now = (one[name][row].as_py() for one in (stored, table))
            return f"with {name} {value!r} in row {row + 1}, where its score files give {now!r}"
    return None


def _other_claims(path: Path, metrics: Path) -> str | None:
    """Say which claim has another verdict or evidence than its score files give, if any."""
    sources = [*files.sources_of(path)]
    claims = [one for one in sources if one.suffix in (".yaml", ".yml")]
    scores = [one for one in sources if one not in claims]
    if len(claims) != 1 or not all(one.is_file() for one in sources):
        return None
    studied, level = read_scores(scores), files.read_facts(metrics)["level"]
    stored, asked = files.read_json(path), read_claims(claims[0])
    if len(stored) != len(asked):
        return f"with {len(stored)} claims, where {claims[0]} has {len(asked)}"
    for at, claim in enumerate(asked):
        if not _same(stored[at], evaluate(claim, studied, level)):
            return f"with another verdict or evidence of {claim.id} than its score files give"
    return None


def _same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are equal, numbers but for rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float | np.floating):
        return bool(np.isclose(one, other, equal_nan=True, **CLOSE))
    return bool(one == other)


def first_difference(stored: pa.ChunkedArray, computed: pa.ChunkedArray) -> int | None:
    """Return the first row in which two columns differ, None if none does.

    Numbers may differ by what rounding explains; nothing and NaN are the same.
    """
    import pyarrow as pa

    if len(stored) != len(computed):
        return min(len(stored), len(computed))
    if pa.types.is_floating(computed.type) and pa.types.is_floating(stored.type):
        one, other = (values.to_numpy() for values in (stored, computed))
        differs = ~np.isclose(one, other, equal_nan=True, **CLOSE)
    elif pa.types.is_list(computed.type) and pa.types.is_floating(computed.type.value_type):
        differs = _lists_differ(stored, computed)
    else:
        differs = np.array(
            [
                one != other
                for one, other in zip(stored.to_pylist(), computed.to_pylist(), strict=True)
            ]
        )
    return int(differs.argmax()) if differs.any() else None


def _lists_differ(stored: pa.ChunkedArray, computed: pa.ChunkedArray) -> NDArray:
    """Tell which lists of numbers differ, bool [n], numbers by more than rounding explains."""
    import pyarrow.compute as pc

    columns = stored, computed
    sizes = [pc.fill_null(pc.list_value_length(one), -1).to_numpy() for one in columns]
    differs = sizes[0] != sizes[1]
    if not differs.any():
        one, other = (pc.list_flatten(values).to_numpy() for values in columns)
        rows = np.repeat(np.arange(len(differs)), np.maximum(sizes[0], 0))
        differs[rows[~np.isclose(one, other, equal_nan=True, **CLOSE)]] = True
    return differs


def _read_csv(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a CSV file as columns of these types; those of other names are text.

    Raises:
        PrunecalError: a column does not hold its type.
    """
    import pyarrow as pa
    from pyarrow import csv

    files.note_read(path)
    options = csv.ConvertOptions(
        column_types=dict(zip(schema.names, schema.types, strict=True)),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    try:
        return csv.read_csv(
            path,
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=options,
        )
    except pa.ArrowException as error:
        raise PrunecalError(f"{path} is not a table of the expected types ({error})") from error
