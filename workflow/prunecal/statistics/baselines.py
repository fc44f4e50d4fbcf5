"""What a model reaches that does not look: chance, and the best constant answer."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from prunecal.core.errors import counted
from prunecal.statistics.bootstrap import interval
from prunecal.statistics.scores import REFERENCE, Scores
from prunecal.statistics.significance import FEWEST_IMAGES


class Baselines(NamedTuple):
    """Accuracies without looking.

    Attributes:
        chance: of guessing one of each question's options; 0 of short answers.
        constant: of giving the same answer to every question; 0 if all right answers are the
            same, since then no other answer could tell anything.
        answer: the answer that reaches it.
    """

    chance: float
    constant: float
    answer: str


def baselines(
    options: Sequence[Sequence[str]], label: Sequence[int], *, short: bool = False
) -> Baselines:
    """Return the baselines of some questions.

    Args:
        options: answer options of each question.
        label: index of each question's right option.
        short: whether they are asked for short answers, so that no option can be guessed.
    """
    right = Counter(row[at] for row, at in zip(options, label, strict=True))
    answer, times = max(right.items(), key=lambda pair: pair[1])
    chance = 0.0 if short else sum(1 / len(row) for row in options) / len(options)
    constant = times / len(options) if len(right) > 1 else 0.0
    return Baselines(chance, constant, answer)


def why_not_tested(scores: Scores, subset: int, level: float) -> str:
    """Say why nothing can be said of pruning on a subset; empty where it can be.

    There are too few images for a test, or the unpruned model is at chance (`fault_of_unpruned`).
    """
    images = scores.subsets[subset]["n_images"]
    if images < FEWEST_IMAGES:
        return f"{counted(images, 'image')}, where a test needs {FEWEST_IMAGES}"
    return fault_of_unpruned(scores, subset, level)


def fault_of_unpruned(scores: Scores, subset: int, level: float) -> str:
    """Say that the unpruned model is at chance on a subset; empty where it is above.

    It is above where the interval of its accuracy lies above chance and above the best constant
    answer. A study without the unpruned model, or scores without baselines, are not judged.

    Args:
        scores: a model on a data set.
        subset: index of the subset.
        level: of the interval.
    """
    known = scores.facts.get("baselines")
    families = [cell["family"] for cell in scores.cells]
    if REFERENCE not in families or not known:
        return ""
    at = scores.reference
    accuracy = scores.value("accuracy")[at, subset]
    low, high = interval(scores.draws("accuracy")[at, subset], level)
    return at_chance(accuracy, (low, high), Baselines(**known[subset]))


def at_chance(accuracy: float, ends: tuple[float, float], base: Baselines) -> str:
    """Say that an accuracy with its interval is at chance; empty where it is above."""
    if ends[0] > max(base.chance, base.constant):
        return ""
    constant = f", best constant answer ({base.answer}) {base.constant:.3f}"
    return (
        f"the unpruned model is at chance: accuracy {accuracy:.3f} [{ends[0]:.3f}, {ends[1]:.3f}], "
        f"chance {base.chance:.3f}{constant if base.constant else ''}"
    )
