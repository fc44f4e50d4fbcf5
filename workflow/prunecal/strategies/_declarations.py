"""What a strategy declares of itself, in words, for the methods page and the listing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecal.core import plugins

if TYPE_CHECKING:
    from types import ModuleType

    from prunecal.engine.interfaces import Signal

SIGNALS: dict[Signal, str] = {
    "cls": "the state of CLS",
    "keys": "keys of the feature layer",
    "attention": "attention that patches receive in the feature layer",
    "early_attention": "attention that patches receive in an early layer",
    "last_keys": "keys of the last layer",
    "last_cls_query": "the query of CLS in the last layer",
    "projected_similarity": "similarity of projected tokens, if its settings say so",
    "image_embeds": "patches in CLIP's space",
    "text_embeds": "the question in CLIP's space",
    "text_segments": "segments of the question in CLIP's space",
}
POSITIONS = {"compact": "renumbered without gaps", "original": "as in the unpruned prompt"}


def declarations(strategy: ModuleType) -> dict[str, str]:
    """Return what a strategy declares: where it drops tokens, what it is given, and so on."""
    if strategy.PRUNES == "everything":
        return {"drops tokens": "all of them, before the decoder"}
    if strategy.PRUNES == "before_tower":
        return {"drops tokens": "before the vision tower, by a smaller image"}
    inside = strategy.PRUNES == "inside_llm"
    merges = hasattr(strategy, "merge") or getattr(strategy, "MERGES", False)
    if inside:
        sees = "keys" if _of(strategy, "LOOKS") == "keys" else "attention of the last prompt token"
        if hasattr(strategy, "queries"):
            sees = "attention of text tokens that it selects"
        given = f"{sees} in a layer of the decoder"
        asks, one_order = True, False
    else:
        named = [SIGNALS[signal] for signal in _of(strategy, "READS").values()]
        given = ", ".join(["features and saliency of the vision tower", *named])
        asks = _of(strategy, "PER") == "question"
        one_order = _of(strategy, "NESTED")
    positions = POSITIONS["compact" if merges and not inside else "original"]
    if field := strategy.Params.model_fields.get("positions"):
        positions = f"{POSITIONS[field.default]} (a setting)"
    elif hasattr(strategy.Params, "positions"):  # a property, which reads other settings
        positions = f"{' or '.join(POSITIONS.values())}, by its settings"
    return {
        "drops tokens": "inside the decoder" if inside else "before the decoder",
        "is given": given,
        "looks at the question": _yes(asks),
        "one order for all budgets": _yes(one_order),
        "merges tokens": _yes(merges),
        "positions of tokens": positions,
    }


def _of(strategy: ModuleType, name: str) -> Any:
    return plugins.declared("strategies", strategy, name)


def _yes(value: object) -> str:
    return "yes" if value else "no"
