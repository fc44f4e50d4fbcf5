"""Read a model's tokenizer and image processor, and refuse settings that no sound model has."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from prunecal.core.errors import PrunecalError, brief, cut
from prunecal.models._checkpoint import OWN, readable
from prunecal.storage.files import read_object

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MARKUP = re.compile(r"<[^<>\s]+>")  # <image>, <|im_start|>
TOKENIZER, PROCESSOR = "tokenizer.json", "preprocessor_config.json"
EARLY_QWEN = "Qwen2_5_VLImageProcessor"  # a class that transformers had before its release alone


def read_processors(folder: Path) -> tuple[Any, Any]:
    """Return a model's tokenizer and image processor.

    Raises:
        PrunecalError: one of them cannot be read, a special token is plain text to the vocabulary,
            every text ends with the token of the end, or pixels are scaled or divided by a number
            that no image processor has.
    """
    from transformers import AutoImageProcessor, AutoTokenizer, Qwen2VLImageProcessorPil

    with readable(folder, "tokenizer's files"):
        tokenizer = AutoTokenizer.from_pretrained(folder, **OWN)
        ids = tokenizer("a")["input_ids"]  # some settings are first used in a call
        _refuse_plain_specials(folder, tokenizer)
    if ids[-1:] == [tokenizer.eos_token_id]:
        raise PrunecalError(
            f"{folder}: its tokenizer ends every text with {brief(tokenizer.eos_token)}, so that "
            "no answer follows a prompt; give the model's own tokenizer files"
        )
    with readable(folder, "image processor's files"):
        if _stated(folder) == EARLY_QWEN:  # in many copies of Qwen2.5-VL
            processor: Any = Qwen2VLImageProcessorPil.from_pretrained(folder, **OWN)
        else:
            processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **OWN)
    with readable(folder, "image processor's settings"):
        _refuse_scale(folder, processor)
    return tokenizer, processor


def refuse_larger_vocabulary(folder: Path, tokenizer: Any, config: Any) -> None:
    """Refuse a tokenizer with ids that a model has no embeddings for.

    Raises:
        PrunecalError: names its largest id.
    """
    largest, size = max(tokenizer.get_vocab().values()), config.text_config.vocab_size
    if largest >= size:
        raise PrunecalError(
            f"{folder}: its tokenizer has ids up to {largest}, but the model has embeddings for "
            f"{size}; give the model's own tokenizer and config.json"
        )


def refuse_other_processor(folder: Path, processor: Any, names: Sequence[str]) -> None:
    """Refuse an image processor of another family, which lacks one of these settings.

    Raises:
        PrunecalError: names its class and the setting.
    """
    for name in names:
        if not hasattr(processor, name):
            raise PrunecalError(
                f"{folder}: its image processor, a {type(processor).__name__}, has no {name}; give "
                "the model's own image processor"
            )


def refuse_unknown_markup(folder: Path, tokenizer: Any, markup: str) -> None:
    """Refuse a tokenizer that would cut the markup of prompts as it cuts any text.

    A model that comes without a chat template was not made for one, and its prompts' markup is
    whatever its tokenizer makes of it.

    Args:
        folder: the model's.
        tokenizer: its tokenizer.
        markup: what stands around a question and an image in every prompt.

    Raises:
        PrunecalError: names the first token of the form <name> that it does not know.
    """
    if tokenizer.chat_template is None and not any(folder.glob("chat_template*")):
        return
    known = tokenizer.get_vocab()
    for token in MARKUP.findall(markup):
        if token not in known:
            raise PrunecalError(
                f"{folder}: its tokenizer does not know {token}, which stands in every prompt; "
                "give the model's own tokenizer files, or correct `template:` in `models`"
            )


def refuse_unknown_vision(folder: Path, config: Any, tower: str) -> None:
    """Refuse another kind of vision tower.

    Args:
        folder: the model's, for the message.
        config: its configuration.
        tower: the `model_type` of the known one.

    Raises:
        PrunecalError: names both kinds.
    """
    kind = config.vision_config.model_type
    if kind != tower:
        raise PrunecalError(
            f"{folder}: its vision tower is a {brief(kind)}; models of type {config.model_type} "
            f"are supported with a {tower!r}; use another model"
        )


def refuse_other_pixels(folder: Path, processor: Any, side: int | list[int]) -> None:
    """Refuse an image processor that makes pixels which the vision tower does not take.

    Args:
        folder: the model's, for messages.
        processor: its image processor.
        side: pixels along the tower's square, or its height and width.

    Raises:
        PrunecalError: names both sizes.
    """
    from PIL import Image

    with readable(folder, "image processor's settings"):
        pixels = processor(images=[Image.new("RGB", (8, 8))], return_tensors="pt")["pixel_values"]
    height, width = (side, side) if isinstance(side, int) else side
    if pixels.shape[-2:] != (height, width):
        raise PrunecalError(
            f"{folder}: its image processor gives {pixels.shape[-1]} x {pixels.shape[-2]} pixels, "
            f"but its vision tower takes {width} x {height}; give the model's own image processor"
        )


def _stated(folder: Path) -> object:
    """Return the class that a folder's image processor is of, if its file says so."""
    path = folder / PROCESSOR
    return read_object(path).get("image_processor_type") if path.is_file() else None


def _refuse_plain_specials(folder: Path, tokenizer: Any) -> None:
    """Refuse a special token that tokenizer.json does not cut out of text: others would be cut."""
    if not (folder / TOKENIZER).is_file():
        return
    listed = json.loads((folder / TOKENIZER).read_text(encoding="utf-8")).get("added_tokens") or []
    own = {one["content"] for one in listed}
    plain = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    for token in tokenizer.all_special_tokens:
        if token in plain and token not in own:
            raise PrunecalError(
                f"{folder}: tokenizer_config.json has the special token {brief(token)}, which is "
                f"plain text in {TOKENIZER}; give the files of one tokenizer"
            )


def _refuse_scale(folder: Path, processor: Any) -> None:
    factor, filter_, deviations, rescaled = (
        getattr(processor, name, None)
        for name in ("rescale_factor", "resample", "image_std", "do_rescale")
    )
    for name, value, fits in (
        ("rescale_factor", factor, factor is None or 0 < factor <= 1),
        ("resample", filter_, filter_ is None or isinstance(filter_, int)),
        ("image_std", deviations, all(0 < one < 100 for one in deviations or [])),
        ("do_rescale", rescaled, rescaled is not False),
    ):
        if not fits:
            raise PrunecalError(
                f"{folder}: its image processor has the {name} {cut(str(value))}; give the model's "
                "own image processor"
            )
