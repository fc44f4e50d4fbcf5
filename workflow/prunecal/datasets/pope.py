"""POPE: is an object in the image? (arXiv 2305.10355; github.com/AoiDragon/POPE)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from prunecal.core.errors import PrunecalError, brief, cut
from prunecal.core.parameters import LocalPath
from prunecal.datasets import Dataset, encodable
from prunecal.datasets._parquet import IMAGE, Source, content_digest, find, rows
from prunecal.sources.safe_paths import below, is_file
from prunecal.storage.schemas import TEXT
from prunecal.study.prompts import pope_text

if TYPE_CHECKING:
    from collections.abc import Iterator

LABEL = "POPE"
OPTIONS = ["Yes", "No"]
LINE = {"question_id": (int, str), "image": str, "text": str, "label": str}


class Params(Source):
    """Where POPE comes from: the Hub's copy, a folder of that copy, or the original files."""

    REPO = "lmms-lab/POPE"
    REVISION = "4db1276663dfa5eb8ad16a52d24c31a09e470896"
    LOCAL = ("path", "questions")

    questions: LocalPath | list[LocalPath] | None = Field(
        None, description="original coco_pope_{subset}.json files, or a folder of them"
    )
    images: LocalPath | None = Field(None, description="folder of the COCO images that they name")

    @model_validator(mode="after")
    def _questions_have_images(self) -> Params:
        if (self.questions is None) != (self.images is None):
            raise ValueError("give `questions` and `images` together")
        return self


def load(params: Params) -> Dataset:
    """Read POPE, all rows in the files' order; the image id is COCO's file name without suffix.

    Raises:
        PrunecalError: the Hub, a file or an image is missing or damaged, or an answer is neither
            yes nor no.
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
            row["question"],
            row["answer"],
        )
        for number, row in enumerate(rows(files, dict.fromkeys(names, TEXT)))
    ]
    return Dataset(_frame(records), _parquet_images(files), revision)


def _record(
    where: str, subset: str, number: str | int, image: str, question: str, answer: str
) -> dict[str, Any]:
    answers = {"yes": 0, "no": 1}
    if str(answer).strip().lower() not in answers:
        raise PrunecalError(f"{where}: the answer is {brief(answer)}; make it yes or no")
    return {
        "question_id": f"{subset}-{number}",
        "image_id": Path(image).stem,
        "subset": subset,
        "text": pope_text(question),
        "options": OPTIONS,
        "label": answers[str(answer).strip().lower()],
    }


def _frame(records: list[dict[str, Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame(records)


def _parquet_images(files: list[Path]) -> Iterator[tuple[str, bytes]]:
    seen = set()
    for row in rows(files, {"image_source": TEXT, "image": IMAGE}):
        image_id = Path(row["image_source"]).stem
        if image_id not in seen:
            seen.add(image_id)
            yield image_id, row["image"] or b""


def _from_json_lines(params: Params) -> Dataset:
    records, images = [], {}
    files = _question_files(params.questions)
    for path in files:
        subset = path.stem.rpartition("_")[2]
        for where, line in _lines(path):
            number, image, question, answer = (
                line[key] for key in ("question_id", "image", "text", "label")
            )
            records.append(_record(where, subset, number, image, question, answer))
            if Path(image).stem not in images:
                images[Path(image).stem] = below(params.images, image, where)
    missing = [path for path in images.values() if not is_file(path)]
    if missing:
        raise PrunecalError(
            f"{cut(str(missing[0]))} is missing, and {len(missing) - 1} more of the {len(images)} "
            f"images that the questions name; put them there or correct `images:`"
        )
    contents = ((image_id, path.read_bytes()) for image_id, path in images.items())
    return Dataset(_frame(records), contents, content_digest([*files, *images.values()]))


def _question_files(questions: Path | list[Path]) -> list[Path]:
    if isinstance(questions, list):
        return questions
    if not questions.is_dir():
        return [questions]
    files = sorted(questions.glob("coco_pope_*.json*"))
    if not files:
        raise PrunecalError(
            f"{questions} has no coco_pope_*.json; give `questions:` POPE's original files or "
            f"their folder"
        )
    return files


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each line stands and its JSON object."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise PrunecalError(
            f"{path} cannot be read ({error}); give `questions:` POPE's original files"
        ) from error
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"{path} line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise PrunecalError(f"{where} is not JSON ({error}); correct the line") from error
        for key, kinds in LINE.items():
            value = record.get(key) if isinstance(record, dict) else None
            if not isinstance(value, kinds) or not encodable(str(value)):
                fault = "lacks" if value is None else f"has {brief(value)} as its"
                raise PrunecalError(f"{where} {fault} {key!r}; give it as POPE's own files do")
        yield where, record
