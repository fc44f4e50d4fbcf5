"""Stage `infer`: option logits for every question, one predictions file per cell.

A job covers several cells of one model and data set. What is slow and shared (imports, weights,
tokenizing, the system text's keys and values) is done once, and only if a cell is missing.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.caching import lineage
from prunecal.caching.cell_store import KEY_IN_PROVENANCE, CellStore, cell_key
from prunecal.core import cli, disk_errors, plugins
from prunecal.core.errors import PrunecalError
from prunecal.core.versions import installed
from prunecal.datasets import COLUMNS
from prunecal.engine import device
from prunecal.engine.arguments import add_model_arguments
from prunecal.models import load_model
from prunecal.sources import weights
from prunecal.storage import files
from prunecal.storage.arrays import open_arrays
from prunecal.storage.checksums import file_digest
from prunecal.storage.schemas import STATED
from prunecal.study import budgets
from prunecal.study.quantization import library
from prunecal.study.schedules import KEPT, MATCH
from prunecal.study.short_answers import SEQUENCE

if TYPE_CHECKING:
    from types import ModuleType

    import pandas as pd

    from prunecal.engine.answers import Answers
    from prunecal.engine.session import Session
    from prunecal.storage.schemas import Facts


@dataclass(frozen=True)
class Job:
    """What the cells of a job have in common."""

    arguments: argparse.Namespace

    @cached_property
    def settings(self) -> dict[str, Any]:
        """How the model is run."""
        return json.loads(self.arguments.settings)

    @cached_property
    def manifest(self) -> Facts:
        """What the model is made of; read once, so that the key is of what is loaded."""
        return files.read_object(self.arguments.manifest)

    @cached_property
    def max_new_tokens(self) -> int | None:
        """Tokens of a short answer at most; None where answers are options."""
        return files.read_facts(self.arguments.questions).get("max_new_tokens")

    @cached_property
    def shared_facts(self) -> dict[str, Any]:
        """What determines all cells' content, apart from the cell itself."""
        arguments = self.arguments
        questions, most = files.read_facts(arguments.questions), self.max_new_tokens
        return {
            "model_digest": self.manifest["digest"],
            "model_revision": self.manifest.get("revision"),
            "dataset_revision": questions["revision"],
            "batch_tokens": arguments.batch_tokens,
            **({STATED: SEQUENCE, "max_new_tokens": most} if most is not None else {}),
            **self.settings,
        }

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Digests of the input files that all cells read."""
        arguments = self.arguments
        return {path.name: file_digest(path) for path in (arguments.questions, arguments.features)}

    @cached_property
    def questions(self) -> pd.DataFrame:
        """The data set's questions, in its order."""
        more = () if self.max_new_tokens is None else ("answers",)
        return files.read_table(self.arguments.questions, [*COLUMNS, *more]).to_pandas()

    @property
    def session(self) -> Session:
        """The loaded model with the data set's distinct questions; made when first needed.

        Raises:
            PrunecalError: the model or the questions cannot be used, found out once for all cells.
        """
        if isinstance(self._session, PrunecalError):
            raise self._session
        return self._session

    @cached_property
    def _session(self) -> Session | PrunecalError:
        from prunecal.engine import quantization
        from prunecal.engine.session import Session

        arguments = self.arguments
        where = device.pick(arguments.device, arguments.threads)
        source, family = json.loads(arguments.source), self.settings["family"]
        try:
            quantization.refuse_unavailable(self.settings, where)
            with weights.checked(source, self.manifest, arguments.weights) as folder:
                model = load_model(family, folder, self.settings, where, "language")
            _refuse_other_depth(arguments.model, arguments.layers, len(model.decoder.layers))
            quantization.quantize(model.decoder.layers, self.settings)
            options = arguments.batch_tokens, self.max_new_tokens
            return Session(model, self.questions, arguments.features, *options)
        except PrunecalError as error:
            return error


def main(arguments: argparse.Namespace) -> None:
    """Compute or fetch the cells of a job; a failed cell does not stop the others."""
    job, cells, failed = Job(arguments), json.loads(arguments.cells), {}
    for cell in cli.progress(cells, total=len(cells), what="infer", unit="cell"):
        name = f"{cell['strategy']}/{cell['budget']}"
        try:
            place = arguments.folder / cell["strategy"] / budgets.folder(cell["budget"])
            _one_cell(job, cell, place)
        except disk_errors.CannotWriteError:
            raise  # the other cells could not be kept either
        except Exception as error:  # reported below, with the traceback in the log
            cli.log.debug("%s failed", name, exc_info=True)
            failed[name] = error
    if failed:
        by_reason: dict[str, list[str]] = {}  # often one for all cells
        for name, error in failed.items():
            by_reason.setdefault(_fault_text(error), []).append(name)
        reasons = "; ".join(f"{', '.join(names)}: {why}" for why, names in by_reason.items())
        raise PrunecalError(f"{len(failed)} of {len(cells)} cells failed: {reasons}")


def _refuse_other_depth(model: str, stated: int | None, depth: int) -> None:
    """Refuse a study whose budgets are matched as if the decoder had another number of layers.

    Raises:
        PrunecalError: names both numbers.
    """
    if stated not in (None, depth):
        raise PrunecalError(
            f"config: models: {model}: layers is {stated}, but its decoder has {depth}; "
            f"set `layers: {depth}`"
        )


def _fault_text(error: Exception) -> str:
    """Return an exception's text, or what its type says where it has none."""
    if isinstance(error, MemoryError) and not str(error):
        return "not enough memory"
    return str(error) or type(error).__name__


def _one_cell(job: Job, cell: dict[str, Any], destination: Path) -> None:
    arguments, budget = job.arguments, cell["budget"]
    strategy = plugins.load("strategies", cell["family"])
    facts = {
        "cell": {"model": arguments.model, "dataset": arguments.dataset, **cell},
        "seed": cell["parameters"].get("seed"),
        **job.shared_facts,
    }
    kept, cls = None, None
    made_from = {
        **job.inputs,
        lineage.WEIGHTS: job.manifest["digest"],
        lineage.CODE: lineage.cell_code(job.settings, cell),
    }
    if strategy.PRUNES == "before_llm":
        ranking = arguments.folder / cell["strategy"] / "ranking.safetensors"
        kept = lineage.ranking(ranking, budget)
        made_from[lineage.RANKING] = kept.digest
        cls = cls_file(arguments.features, strategy)
        if cls and kept.places is not None:
            made_from[lineage.CLS] = file_digest(cls)
    smaller = arguments.folder / cell["strategy"] / budgets.folder(budget) / lineage.SMALLER
    if strategy.PRUNES == "before_tower":
        made_from[lineage.SMALLER] = file_digest(smaller)
    # sums of several threads are rounded otherwise than those of one
    key = cell_key({"facts": facts, "threads": arguments.threads, **made_from})
    cells = CellStore(arguments.store)
    if not cells.has(key):
        # the model is loaded before the clock starts
        settings = dict(cell["parameters"])
        match = settings.pop(MATCH, KEPT)
        session, params = job.session, strategy.Params(**settings)
        start = time.perf_counter()
        if strategy.PRUNES == "before_tower":
            answers = session.run_smaller(strategy, params, budget, smaller)
        else:
            answers = _run(session, strategy, params, budget, kept, cls, match)
        seconds = time.perf_counter() - start
        if answers.budget_tokens is not None:
            facts[budgets.NOMINAL] = answers.budget_tokens
        facts |= {
            "tokens_per_layer": answers.tokens_per_layer,
            **session.reader.facts(),
        }
        known = {KEY_IN_PROVENANCE: key, lineage.MADE_FROM: made_from, "seconds": round(seconds, 3)}
        _write(cells.folder(key), job, facts, answers, known)
    cells.hand_out(key, destination)


def cls_file(features: Path, strategy: ModuleType) -> Path | None:
    """Return the file of the states of CLS beside the features, for a strategy that reads them."""
    reads = plugins.declared("strategies", strategy, "READS")
    return features.parent / lineage.CLS if "cls" in reads.values() else None


def _run(
    session: Session,
    strategy: ModuleType,
    params: Any,
    budget: int | str,
    kept: lineage.Ranking | None,
    cls: Path | None,
    match: str,
) -> Answers:
    """Run a cell, with the tokens that are left before the language model if it prunes there."""
    from prunecal.engine.merged import Merged

    if strategy.PRUNES == "everything":
        return session.run_blind()
    if kept is None:
        return session.run(strategy, params, budget, None, None, match)
    if kept.places is None or kept.weight is None or kept.starts is None:
        return session.run(strategy, params, budget, kept.order, kept.coverage, pairs=kept.pairs)
    states = open_arrays(cls, framework="pt").get_tensor("signal") if cls else None
    tokens = Merged(kept.places, kept.weight, kept.starts, states)
    return session.run(strategy, params, budget, tokens, kept.coverage, pairs=kept.pairs)


def _write(
    folder: Path, job: Job, facts: dict[str, Any], answers: Answers, known: dict[str, Any]
) -> None:
    from prunecal.engine import columns

    if answers.short is not None:
        facts["cut_off"] = int((~answers.short.finished).sum())
        if facts["cut_off"]:
            cli.log.warning(
                "%d of %d answers were cut off at %d tokens and count as they stand; raise "
                "max_new_tokens of the data set",
                facts["cut_off"],
                len(job.questions),
                job.max_new_tokens,
            )
    table = columns.table(job.questions, answers)
    path = folder / "predictions.parquet"
    files.write_table(path, table, facts)
    provenance = files.provenance(
        device=device.name(job.session.model.device),
        distinct_questions=answers.distinct,
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        peak_gpu_memory_mb=device.peak_memory_mb(job.session.model.device),
    )
    if by := library(job.settings):
        provenance["versions"][by] = installed(by)
    known[lineage.PREDICTIONS] = file_digest(path)
    files.write_json(folder / "provenance.json", known | provenance)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    add_model_arguments(parser)
    parser.add_argument("--model", required=True, help="the model's name")
    parser.add_argument("--layers", type=int, help="layers of its decoder, as the study says")
    parser.add_argument("--dataset", required=True, help="the data set's name")
    parser.add_argument("--cells", required=True, help="JSON: list of cells")
    parser.add_argument("--questions", type=Path, required=True, help="questions.parquet")
    parser.add_argument("--features", type=Path, required=True, help="features.safetensors")
    parser.add_argument("--folder", type=Path, required=True, help="results/{model}/{dataset}")
    parser.add_argument("--store", type=Path, required=True, help="folder of finished cells")
    parser.add_argument("--batch-tokens", type=int, required=True, help="tokens per micro-batch")
    cli.run(main, parser.parse_args())
