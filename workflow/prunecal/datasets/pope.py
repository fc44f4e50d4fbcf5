"""POPE: is an object in the image? (arXiv 2305.10355; github.com/AoiDragon/POPE)."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from prunecal.core.errors import PrunecalError, brief, encodable
from prunecal.core.parameters import LocalPath
from prunecal.datasets import Dataset
from prunecal.datasets._parquet import IMAGE, Source, content_digest, find, rows
from prunecal.datasets._records import json_lines
from prunecal.datasets._wording import Worded
from prunecal.sources.image_files import decoded
from prunecal.sources.safe_paths import below, check_file, is_file, reading, refuse_links_out
from prunecal.storage.schemas import TEXT

if TYPE_CHECKING:
    from collections.abc import Iterator

LABEL = "POPE"
OPTIONS = ["Yes", "No"]
SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
LINE = {"question_id": (int, str), "image": str, "text": str, "label": str}


class Params(Source, Worded):
    """Where POPE comes from: the Hub's copy, a folder of that copy, or the original files."""

    REPO = "lmms-lab/POPE"
    REVISION = "4db1276663dfa5eb8ad16a52d24c31a09e470896"
    LOCAL = ("path", "questions")

    questions: LocalPath | list[LocalPath] | None = Field(
        None,
        description="original {source}_pope_{subset}.json files (COCO, A-OKVQA, GQA), or a folder "
        "of those of one source",
    )
    images: LocalPath | None = Field(None, description="folder of the images that they name")
    first_images: int | None = Field(
        None, ge=1, le=10**6, description="read the questions about so many images, the first ones"
    )

    @model_validator(mode="after")
    def _questions_have_images(self) -> Params:
        if (self.questions is None) != (self.images is None):
            raise ValueError("give `questions` and `images` together")
        return self


def load(params: Params) -> Dataset:
    """Read POPE, all rows in the files' order.

    The image id is the file name without folder and suffix, or the whole name where another
    image would share that.

    Raises:
        PrunecalError: the Hub, a file or an image is missing or damaged, an answer is neither yes
            nor no, or one name stands for two images or one subset for two files.
    """
    if params.questions is not None:
        return _from_json_lines(params)
    files, revision = find(params)
    names = ("question_id", "question", "answer", "image_source", "category")
    records = [
        _record(
            f"{files[0].parent} row {number}",
            row["category"],
            row["question_id"],
            row["image_source"],
            params.yes_no(row["question"]),
            row["answer"],
        )
        for number, row in enumerate(rows(files, dict.fromkeys(names, TEXT)))
    ]
    ids = _name_images(records)
    release = edition(records)
    records, ids = _first(records, ids, params.first_images)
    return Dataset(_frame(records), _parquet_images(files, ids), revision, release)


def _first(
    records: list[dict[str, Any]], ids: dict[str, str], count: int | None
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the records about the first images and these images' ids by name; None: of all."""
    kept = set(list(dict.fromkeys(record["image_id"] for record in records))[:count])
    records = [record for record in records if record["image_id"] in kept]
    return records, {name: image for name, image in ids.items() if image in kept}


def edition(records: list[dict[str, Any]], source: str = "coco") -> str:
    """Say which release of POPE these questions are, by their numbers.

    The questions about COCO were released three times (github.com/AoiDragon/POPE): with 2,910 rows
    in the subset `random`, on which the values published for LLaVA-1.5 were measured; with 3,000
    and "imange" for "image" in 57 questions, which is the Hub's copy; and without these errors.

    Args:
        records: image_id, subset and text of each question.
        source: of the images, as the files name it.
    """
    distinct = len({(record["image_id"], record["text"]) for record in records})
    random = sum(record["subset"] == "random" for record in records)
    release = "no complete release"
    if source != "coco":
        release = f"the questions about images of {source}"
    elif (len(records), random) == (8910, 2910):
        release = "release 1 of three, commit e3e3926"
    elif (len(records), distinct) == (9000, 5170):
        release = "release 2 of three, commit edebdda, as on the Hub"
    elif (len(records), distinct) == (9000, 5127):
        release = "release 3 of three, commit 109985c"
    return f"{release}: {len(records):,} questions, {distinct:,} distinct pairs with an image"


def _record(
    where: str, subset: str, number: str | int, image: str, text: str, answer: str
) -> dict[str, Any]:
    answers = {"yes": 0, "no": 1}
    if str(answer).strip().lower() not in answers:
        raise PrunecalError(f"{where}: the answer is {brief(answer)}; make it yes or no")
    return {
        "question_id": f"{subset}-{number}",
        "image_id": image,
        "subset": subset,
        "text": text,
        "options": OPTIONS,
        "label": answers[str(answer).strip().lower()],
    }


def _name_images(records: list[dict[str, Any]]) -> dict[str, str]:
    """Give records image ids for the names in them, and return the ids by name."""
    names = dict.fromkeys(record["image_id"] for record in records)
    paths = {name: str(PurePosixPath(name)) for name in names}  # "./a.png" and "a.png" are one
    short = {path: _without_suffix(path) for path in paths.values()}
    count = Counter(short.values())
    ids = {}
    for name, path in paths.items():
        taken = count[short[path]] > 1 or (short[path] != path and short[path] in short)
        ids[name] = path if taken else short[path]
    for record in records:
        record["image_id"] = ids[record["image_id"]]
    return ids


def _without_suffix(path: str) -> str:
    stem, _, suffix = path.rpartition("/")[2].rpartition(".")
    return stem if stem and suffix.lower() in SUFFIXES else path.rpartition("/")[2]


def _frame(records: list[dict[str, Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame(records)


def _parquet_images(files: list[Path], ids: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Yield each image at its first row, and hold all other rows of the same name against it."""
    columns = {"image_source": TEXT, "image": IMAGE}
    first: dict[str, tuple[int, bytes]] = {}  # the row and a digest of its bytes
    for number, row in enumerate(rows(files, columns)):
        if row["image_source"] not in ids:
            continue
        image_id, content = ids[row["image_source"]], row["image"] or b""
        digest = hashlib.sha256(content).digest()
        if image_id not in first:
            first[image_id] = (number, digest)
            yield image_id, content
        elif digest != first[image_id][1]:
            before = next(islice(rows(files, columns), first[image_id][0], None))["image"] or b""
            _refuse_other_picture(files[0].parent, image_id, before, content, number)


def _refuse_other_picture(
    where: Path, image_id: str, before: bytes, content: bytes, number: int
) -> None:
    """Refuse another picture under a name that is taken; other bytes of the same one may be."""
    one, other = (decoded(where, image_id, bytes_) for bytes_ in (before, content))
    if one.size != other.size or one.tobytes() != other.tobytes():
        raise PrunecalError(
            f"{where} row {number} has another image than earlier rows under the name "
            f"{brief(image_id)}; give each image its own name"
        )


def _from_json_lines(params: Params) -> Dataset:
    records, images = [], {}
    subsets: dict[str, Path] = {}
    files = _question_files(params.questions)
    for path in files:
        subset = path.stem.rpartition("_")[2]
        if subset in subsets:
            raise PrunecalError(
                f"{path} and {subsets[subset]} are both of the subset {brief(subset)}, the last "
                "part of their names; give each file a subset of its own"
            )
        subsets[subset] = path
        for where, line in _lines(path):
            number, image, question, answer = (
                line[key] for key in ("question_id", "image", "text", "label")
            )
            records.append(_record(where, subset, number, image, params.yes_no(question), answer))
            if image not in images:
                images[image] = below(params.images, image, where)
    missing = [path for path in images.values() if not is_file(path)]
    if missing:
        check_file(
            missing[0],
            f"put it there or correct `images:` ({len(missing)} of the {len(images)} images that "
            "the questions name cannot be used)",
        )
    ids = _name_images(records)
    source, separator, _ = files[0].stem.partition("_pope_")
    named = edition(records, source if separator else "coco")
    records, ids = _first(records, ids, params.first_images)
    by_id = {ids[name]: path for name, path in images.items() if name in ids}
    revision = content_digest([*files, *by_id.values()])
    return Dataset(_frame(records), _file_images(by_id), revision, named)


def _file_images(images: dict[str, Path]) -> Iterator[tuple[str, bytes]]:
    for image_id, path in images.items():
        with reading(path):
            content = path.read_bytes()
        yield image_id, content


def _question_files(questions: Path | list[Path]) -> list[Path]:
    if isinstance(questions, list):
        return questions
    if not questions.is_dir():
        return [questions]
    files = sorted(
        path for path in questions.glob("*_pope_*") if path.suffix in (".json", ".jsonl")
    )
    if not files:
        raise PrunecalError(
            f"{questions} has no *_pope_*.json; give `questions:` POPE's original files or "
            f"their folder"
        )
    refuse_links_out(questions, files)
    return files


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the location and the JSON object of each line."""
    check_file(path, "give `questions:` POPE's original files")
    for where, record in json_lines(path):
        for key, kinds in LINE.items():
            value = record.get(key) if isinstance(record, dict) else None
            fits = isinstance(value, kinds) and not isinstance(value, bool)
            if not fits or not encodable(str(value)) or not str(value).strip():
                fault = "lacks" if value is None else f"has {brief(value)} as its"
                raise PrunecalError(f"{where} {fault} {key!r}; give it as POPE's own files do")
        yield where, record
