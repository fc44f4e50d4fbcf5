"""Qwen2-VL and Qwen2.5-VL: native resolution, or squares of one size as in CDPruner's protocol.

Published pruning for them is after the merger, as here (CDPruner issue 4, VisPruner issue 1,
HiPrune, HoloV, UniPruneBench); kept tokens keep their own rows and columns as positions.
"""

from __future__ import annotations

from prunecal.models._qwen import MERGED_TOKENS, POSITIONS, QwenParams, QwenVision

__all__ = ["MERGED_TOKENS", "POSITIONS", "Params", "check", "load", "most_tokens"]

OWN_RESOLUTION = True
LABEL = "Qwen2.5-VL"
MODEL_TYPES = ("qwen2_5_vl", "qwen2_vl")
TOKEN = 28  # pixels along a token


class Params(QwenParams):
    """At which resolution images are read."""


def most_tokens(params: Params) -> int | None:
    """Return the most tokens of an image; None if all are squares of one size."""
    return None if params.square else max(1, params.max_pixels // TOKEN**2)


class Qwen25VL(QwenVision):
    """A loaded model."""

    KINDS = {
        "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
        "qwen2_vl": "Qwen2VLForConditionalGeneration",
    }


load = Qwen25VL
check = Qwen25VL.check_folder
