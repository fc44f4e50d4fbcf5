"""Measure all cells of one model on one data set, as they are and on resampled images.

Output: safetensors. `value/<metric>` float64 [cells, subsets], and `draws/<metric>` float32
[cells, subsets, R], the metric on each resample of images, the same resamples in all cells; NaN
where it is undefined. `bins_filled` int64 and `largest_bin_share` float64 [cells, subsets]: how
many bins of confidence hold a question, and the share of the fullest one. Metadata: model, dataset,
cells, subsets, baselines (per subset), metrics, resamples, bins, seed, a digest of the predictions,
and FACTS of the model as far as the predictions name them.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prunecal.core import cli
from prunecal.core.errors import RERUN, PrunecalError
from prunecal.statistics.baselines import baselines
from prunecal.statistics.predictions import read_cells
from prunecal.statistics.scores import write_scores
from prunecal.statistics.scoring import Resamples, bins_in_use, score_cells
from prunecal.statistics.subsets import subsets
from prunecal.storage import files
from prunecal.storage.checksums import file_digest, text_digest
from prunecal.storage.schemas import STATED
from prunecal.study import short_answers

if TYPE_CHECKING:
    from prunecal.statistics.predictions import Cell

FACTS = ("dtype", "quantization", "group_size", "model_digest", STATED)  # if they are known


def main(arguments: argparse.Namespace) -> None:
    """Score the cells and write the file."""
    cells = read_cells(arguments.predictions)
    parts = subsets(cells[0].rows, arguments.questions, _split_by(cells, arguments.outcome_of))
    image_ids = np.array(cells[0].rows["image_id"])
    resamples = Resamples.of(
        image_ids, arguments.resamples, arguments.costly_resamples, arguments.seed
    )
    results = score_cells(cells, parts, resamples, arguments.bins, arguments.threads)
    options, label = (cells[0].rows[name] for name in ("options", "label"))
    short = short_answers.has_short_answers(cells[0].facts["dataset"])
    subset_facts = [
        {"name": name, "n": len(rows), "n_images": len(np.unique(image_ids[rows]))}
        for name, rows in parts.items()
    ]
    without_looking = [
        baselines(
            [options[row] for row in rows], [label[row] for row in rows], short=short
        )._asdict()
        for rows in parts.values()
    ]
    questions = [arguments.questions] if arguments.questions else []
    run = files.read_facts(arguments.predictions[0])
    write_scores(
        arguments.output,
        results,
        bins_in_use(cells, parts, arguments.bins),
        [cell.facts for cell in cells],
        {
            "subsets": subset_facts,
            "baselines": without_looking,
            "bins": arguments.bins,
            "seed": arguments.seed,
            "predictions": _digest_of(arguments.predictions),
            **{key: run[key] for key in FACTS if run.get(key)},
            **({"outcome_of": arguments.outcome_of} if arguments.outcome_of else {}),
        },
        [*arguments.predictions, *questions],
    )


def _digest_of(predictions: list[Path]) -> str:
    """Fingerprint the bytes of all predictions: what else reads them depends on the score file."""
    # whatever the order of the files, as all of the score file
    return text_digest("\n".join(sorted(map(file_digest, predictions))))


def _split_by(cells: "list[Cell]", named: list[str]) -> "Cell | None":
    """Return the cell by whose answers questions are split, if any.

    Raises:
        PrunecalError: there is no such cell.
    """
    for cell in cells if named else ():
        if [cell.facts["strategy"], str(cell.facts["budget"])] == named:
            return cell
    if named:
        raise PrunecalError(f"{' at '.join(named)} is no cell of --predictions; {RERUN}")
    return None


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = cli.parser(__doc__, "--predictions")
    parser.add_argument("--questions", type=Path, help='questions.parquet, for the subset "unique"')
    parser.add_argument(
        "--outcome-of", nargs="*", default=[], help="strategy and budget that split the questions"
    )
    parser.add_argument("--output", type=Path, required=True, help="score.safetensors")
    parser.add_argument("--resamples", type=int, default=2000, help="resamples of images")
    parser.add_argument(
        "--costly-resamples",
        type=int,
        default=1000,
        help="how many of them smECE and temperature scaling use",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the resamples and the folds")
    parser.add_argument("--bins", type=int, default=15, help="bins of confidence")
    parser.add_argument("--threads", type=int, default=1, help="processes, a cell each")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
