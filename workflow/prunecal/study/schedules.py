"""Schedules of strategies inside the decoder: tokens that enter its layers, and matched budgets.

A strategy that drops tokens inside the decoder lets more of them enter the first layers than a
ranking that keeps as many in the end. A study may therefore match it by cost: the budget K then
means the cost of K tokens in every layer, and the strategy keeps as many at its own stages as cost
the same. Arithmetic alone, so that a study is checked before anything runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, get_args

from prunecal.core.errors import PrunecalError

Match = Literal["kept", "mean_tokens", "flops"]  # what is equal between strategies at a budget
KEPT, MEAN_TOKENS, FLOPS = MATCHES = get_args(Match)
MATCH = "match"  # key of a strategy inside the decoder: what its budgets are matched by
STEPS = 40  # of the bisection


class Shape(NamedTuple):
    """Sizes of a decoder: layers, and the widths of what a layer computes."""

    layers: int
    width: int = 1
    attention: int = 1  # of queries: heads times their width
    key_value: int = 1
    intermediate: int = 1

    @classmethod
    def of(cls, config: Any) -> "Shape":
        """Return the sizes that a decoder's configuration (of transformers) states."""
        heads = config.num_attention_heads
        head = getattr(config, "head_dim", None) or config.hidden_size // heads
        groups = getattr(config, "num_key_value_heads", None) or heads
        sizes = (config.hidden_size, heads * head, groups * head, config.intermediate_size)
        return cls(config.num_hidden_layers, *sizes)

    def flops(self, tokens: float) -> float:
        """Return a layer's floating point operations on some visual tokens.

        2 (2 n d (a + k) + 3 n d m + 2 n^2 a): queries, keys, values and output, the gated MLP, and
        the two products of attention; without the text, as FastV (arXiv 2403.06764) and PyramidDrop
        (arXiv 2410.17247) count them.
        """
        weights = 2 * self.width * (self.attention + self.key_value)
        weights += 3 * self.width * self.intermediate
        return 2 * tokens * (weights + 2 * tokens * self.attention)


def entering(stages: Sequence[Any], visual: int, depth: int) -> list[int]:
    """Return the number of visual tokens that enter each layer.

    Args:
        stages: with `cut` and `entering`, see `engine.interfaces.Stage`.
        visual: tokens of the image before pruning.
        depth: layers of the decoder.
    """
    tokens = [visual] * depth
    for stage in stages:
        tokens[stage.cut :] = [stage.entering] * (depth - stage.cut)
    return tokens


def tokens_per_layer(stages: Sequence[Any], visual: int, depth: int) -> float:
    """Return the mean number of visual tokens that enter a decoder layer.

    All stages count from their cut on; what a first pass costs that only looks does not.
    """
    return sum(entering(stages, visual, depth)) / depth


def cost(match: str, stages: Sequence[Any], visual: int, shape: Shape) -> float:
    """Return what a schedule costs: tokens per layer, or operations.

    Operations count the layers of a first pass, too, if the first stage cuts before the layer that
    it looks at.
    """
    tokens = entering(stages, visual, shape.layers)
    if match == MEAN_TOKENS:
        return sum(tokens) / shape.layers
    first_pass = [visual] * stages[0].look if stages and stages[0].cut < stages[0].look else []
    return sum(map(shape.flops, first_pass + tokens))


def matched(
    stages_of: Callable[[float], Sequence[Any]], match: str, budget: int, visual: int, shape: Shape
) -> list[Any]:
    """Return the stages that cost as much as a ranking that keeps `budget` tokens in all layers.

    Nearest to it, since tokens are whole: off by less than one token in each stage.

    Args:
        stages_of: a strategy's stages for some number of tokens that are left in the end, which
            need not be whole, so that earlier stages may follow it; here they are rounded.
        match: `MEAN_TOKENS` or `FLOPS`.
        budget: tokens of the ranking, 1 to `visual`.
        visual: tokens of the image before pruning.
        shape: sizes of the decoder.

    Raises:
        PrunecalError: as `refuse_unmet`.
    """
    refuse_unmet(stages_of, match, budget, visual, shape)
    target = cost(match, (), budget, shape)

    def difference(left: float) -> float:
        return cost(match, _whole(stages_of, left), visual, shape) - target

    low, high = 1.0, float(visual)
    for _ in range(STEPS):
        middle = (low + high) / 2
        if difference(middle) <= 0:
            low = middle
        else:
            high = middle
    return _whole(stages_of, min((low, high), key=lambda left: abs(difference(left))))


def refuse_unmet(
    stages_of: Callable[[float], Sequence[Any]], match: str, budget: int, visual: int, shape: Shape
) -> None:
    """Refuse a budget that the strategy cannot meet though a single token is left in the end.

    The arguments are those of `matched`.

    Raises:
        PrunecalError: says the least that it costs.
    """
    fewest = _whole(stages_of, 1)
    if cost(match, fewest, visual, shape) > cost(match, (), budget, shape):
        mean = tokens_per_layer(fewest, visual, shape.layers)
        what = "tokens enter a layer" if match == MEAN_TOKENS else "operations are computed"
        raise PrunecalError(
            f"as few as {budget} tokens in every layer cannot be matched: its first layers see all "
            f"{visual} of them, so that more {what} even with one token left ({mean:.1f} a layer); "
            "cut earlier, give larger budgets, or set `match: kept`"
        )


def _whole(stages_of: Callable[[float], Sequence[Any]], left: float) -> list[Any]:
    """Return stages whose numbers of tokens are whole."""
    return [
        replace(stage, keep=round(stage.keep), merge=round(stage.merge))
        for stage in stages_of(left)
    ]
