"""Qwen3-VL, dense models: more visual input after the first decoder layers (DeepStack).

The rows of that input are dropped with their tokens, as in OpenVINO's CDPruner and vLLM's pull
requests 38888 and 45106.
"""

from __future__ import annotations

from pydantic import Field

from prunecal.models._qwen import MERGED_TOKENS, POSITIONS, QwenParams, QwenVision

__all__ = ["MERGED_TOKENS", "POSITIONS", "Params", "check", "load", "most_tokens"]

OWN_RESOLUTION = True
LABEL = "Qwen3-VL"
MODEL_TYPES = ("qwen3_vl",)
TOKEN = 32  # pixels along a token


class Params(QwenParams):
    """At which resolution images are read."""

    min_pixels: int = Field(65_536, ge=1, description="smaller images are enlarged to this many")
    max_pixels: int = Field(2_097_152, ge=1, description="larger images are reduced to this many")


def most_tokens(params: Params) -> int | None:
    """Return the most tokens of an image; None if all are squares of one size."""
    return None if params.square else max(1, params.max_pixels // TOKEN**2)


class Qwen3VL(QwenVision):
    """A loaded model."""

    KINDS = {"qwen3_vl": "Qwen3VLForConditionalGeneration"}


load = Qwen3VL
check = Qwen3VL.check_folder
