"""Stage "data": read a data set once and write its questions and its images."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from prunecal import datasets
from prunecal.core import cli, plugins
from prunecal.core.errors import PrunecalError, brief
from prunecal.core.parameters import portable, sentence
from prunecal.sources import image_files
from prunecal.storage import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

    import pandas as pd
    import pyarrow as pa

GROUP_BYTES = 32_000_000  # images held in memory before they go to disk together


def main(arguments: argparse.Namespace) -> None:
    """Write one data set's images, each decoded once to prove it readable, and its questions."""
    loader = plugins.load("datasets", arguments.loader)
    try:
        given = json.loads(arguments.params)
    except ValueError as error:
        raise PrunecalError(
            f"--params {brief(arguments.params)} is no JSON ({error}); give an object such as "
            "'{\"images\": 8}', with keys in double quotes"
        ) from error
    try:
        params = loader.Params(**given)
    except ValidationError as error:
        fault = sentence(error, loader.Params)
        raise PrunecalError(f"data set {arguments.dataset}: {fault}") from error
    dataset = loader.load(params)
    _refuse_other_than_dataset(loader, dataset)
    datasets.check(arguments.dataset, dataset.questions)
    facts = {
        "dataset": arguments.dataset,
        "loader": arguments.loader,
        "params": portable(params),
        "revision": dataset.revision,
    }
    if dataset.edition:
        facts["edition"] = dataset.edition
        cli.log.info("%s: %s", arguments.dataset, dataset.edition)
    if dataset.max_new_tokens is not None:
        facts["max_new_tokens"] = dataset.max_new_tokens
    count = write_images(arguments.images, arguments.dataset, dataset, facts)
    files.write_table(arguments.questions, questions_table(dataset.questions), facts)
    cli.log.info("%s: %d questions, %d images", arguments.dataset, len(dataset.questions), count)


def _refuse_other_than_dataset(loader: ModuleType, dataset: Any) -> None:
    """Refuse what a loader returned, unless it is a Dataset with a frame and what pins it."""
    import pandas as pd

    fault = ""
    if not isinstance(dataset, datasets.Dataset):
        fault = f"an object of the type {type(dataset).__name__}"
    elif not isinstance(dataset.questions, pd.DataFrame):
        fault = f"questions of the type {type(dataset.questions).__name__}"
    elif not isinstance(dataset.revision, str) or not dataset.revision.strip():
        fault = f"the revision {brief(dataset.revision)}"
    if fault:
        raise PrunecalError(
            f"`load` of {loader.__file__} returned {fault}; have it return Dataset(questions, "
            "images, revision): a data frame, pairs of id and bytes, and a text that pins them"
        )


def questions_table(questions: pd.DataFrame) -> pa.Table:
    """Return the questions as a table: text, `options` list<string>, `label` int8.

    Of short answers also `answers` list<string>.
    """
    import pyarrow as pa

    texts = pa.list_(pa.string())
    types = {"options": texts, "answers": texts, "label": pa.int8()}
    names = [*datasets.COLUMNS, *({"answers"} & set(questions.columns))]
    fields = [(column, types.get(column, pa.string())) for column in names]
    arrays = [pa.array(questions[column].tolist(), type=kind) for column, kind in fields]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def write_images(path: Path, name: str, dataset: datasets.Dataset, facts: Mapping[str, Any]) -> int:
    """Write columns image_id and bytes, a few megabytes at a time, and return the row count.

    Raises:
        PrunecalError: an image cannot be decoded, is missing, or out of turn, or left over.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [("image_id", pa.string()), ("bytes", pa.binary())]
    schema = pa.schema(fields, metadata={files.METADATA_KEY: files.canonical_json(facts)})
    expected = list(dict.fromkeys(dataset.questions["image_id"]))
    arriving = _in_turn(name, expected, dataset)
    bar = cli.progress(arriving, total=len(expected), what=f"{name} images", unit="image")
    with (
        files.atomic(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="NONE") as writer,  # PNG and JPEG are dense
    ):
        group: list[tuple[str, bytes]] = []
        held = 0
        for image_id, content in bar:
            group.append((image_id, content))
            held += len(content)
            if held >= GROUP_BYTES:
                _write_group(writer, schema, group)
                group, held = [], 0
        _write_group(writer, schema, group)
    return len(expected)


def _write_group(writer: Any, schema: pa.Schema, group: list[tuple[str, bytes]]) -> None:
    import pyarrow as pa

    if group:
        ids, contents = zip(*group, strict=True)
        columns = [pa.array(ids, pa.string()), pa.array(contents, pa.binary())]
        writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _in_turn(
    name: str, expected: list[str], dataset: datasets.Dataset
) -> Iterator[tuple[str, bytes]]:
    """Yield a data set's images after checking that each is the next one expected and decodes."""
    images = iter(dataset.images)
    for expected_id in [*expected, None]:
        image_id, content = next(images, (None, b""))
        if image_id != expected_id:
            raise PrunecalError(
                f"{name}: expected {_image(expected_id)}, got {_image(image_id)}; have the loader "
                f"give each image once, in the order in which the questions first use them"
            )
        if image_id is not None:
            image_files.decoded(dataset.places.get(image_id, name), image_id, content)
            yield image_id, content


def _image(image_id: str | None) -> str:
    return "no further image" if image_id is None else f"the image {brief(image_id)}"


def _arguments() -> argparse.Namespace:
    parser = cli.parser("Read a data set and write its questions and images.")
    parser.add_argument("--dataset", required=True, help="its name in the study")
    parser.add_argument("--loader", required=True, help="a file of prunecal/datasets")
    parser.add_argument("--params", required=True, help="JSON: the loader's settings")
    parser.add_argument("--questions", required=True, type=Path, help="parquet file to write")
    parser.add_argument("--images", required=True, type=Path, help="parquet file to write")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main, _arguments())
