"""What models of families other than LLaVA-1.5 share: loading, and saliency without a CLS token."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

from prunecal.core.errors import PrunecalError, brief
from prunecal.models._checkpoint import (
    OWN,
    load_weights,
    readable,
    refuse_unknown_decoder,
)
from prunecal.models._processors import (
    read_processors,
    refuse_larger_vocabulary,
    refuse_other_pixels,
    refuse_other_processor,
    refuse_unknown_markup,
    refuse_unknown_vision,
)
from prunecal.models._prompting import Prompting
from prunecal.study.prompts import IMAGE, conversation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from prunecal.engine.interfaces import Part


class HubModel(Prompting):
    """A model of transformers, loaded by the names of its class and of its parts.

    Args:
        folder: weights, configuration, tokenizer and image processor in the Hub's layout.
        settings: `visual_tokens`, `template`, `dtype` and the family's own settings.
        device: where to run.
        part: what is loaded, see `ModelFamily.load`.

    Attributes:
        KINDS: by `model_type`, the name of the class in transformers.
        VISION: the modules that `encode` alone needs.
        LANGUAGE: the modules that `encode` does not need.
        TEXT: the text model.
        PROCESSOR: settings that its image processor has, and others' have not.
        TOWER: the `model_type` of its vision tower, where only that of one is known; it takes
            squares of one size.

    Raises:
        PrunecalError: a folder that does not hold such a model (see `_checkpoint`), or a decoder
            that the engine would not compute exactly.
    """

    KINDS: Mapping[str, str] = {}
    VISION: tuple[str, ...] = ("model.vision_tower",)
    LANGUAGE: tuple[str, ...] = ("model.language_model", "lm_head")
    TEXT = "model.language_model"
    PROCESSOR: tuple[str, ...] = ()
    TOWER: str | None = None

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        device: torch.device,
        part: Part = "whole",
    ) -> None:
        from prunecal.engine.decoder import Decoder

        config = self._read(folder, settings)
        self.device = device
        left_out = {"vision": self.LANGUAGE, "language": self.VISION}.get(part, ())
        kind = self._kind(config)
        self.model = load_weights(kind, folder, config, settings["dtype"], device, left_out)
        if part == "vision":
            self._try_encoding()
        else:
            text = self.model.get_submodule(self.TEXT)
            self.decoder = Decoder(text, self.model.lm_head)

    def _try_encoding(self) -> None:
        """Refuse settings with which no image can be encoded, before the first of a data set.

        Raises:
            PrunecalError: names the folder and what the library says.
        """
        import torch
        from PIL import Image

        part, fault = "vision tower with this image processor", "encodes no image"
        remedy = "give the model's own config.json and image processor"
        with readable(self.folder, part, fault, remedy), torch.inference_mode():
            try:
                self.encode([Image.new("RGB", (8, 8))])
            except MemoryError as error:
                raise PrunecalError(
                    f"{self.folder}: its image processor makes more pixels of a small image than "
                    "fit into memory; give the model's own"
                ) from error

    @classmethod
    def check_folder(cls, folder: Path, settings: Mapping[str, Any]) -> None:
        """Refuse what loading would refuse, as far as it can be told without weights.

        Raises:
            PrunecalError: as the class.
        """
        model = cls.__new__(cls)
        config = model._read(folder, settings)  # noqa: SLF001  its own
        refuse_unknown_decoder(cls._kind(config), folder, config, cls.TEXT)

    def _read(self, folder: Path, settings: Mapping[str, Any]) -> Any:
        """Read all but the weights; return the configuration."""
        from prunecal.engine import stacks

        config = self.read_config(folder)
        stacks.refuse_unknown_config(config.text_config)
        self.tokenizer, self.processor = read_processors(folder)
        self.settings, self.folder = settings, folder
        self.check(config)
        return config

    def read_config(self, folder: Path) -> Any:
        """Return the configuration of a folder."""
        import transformers

        with readable(folder, "configuration"):
            return transformers.AutoConfig.from_pretrained(folder, **OWN)

    @classmethod
    def _kind(cls, config: Any) -> Any:
        """Return the class of transformers."""
        import transformers

        return getattr(transformers, cls.KINDS[config.model_type])

    def check(self, config: Any) -> None:
        """Refuse a configuration, tokenizer or processor that the family cannot run.

        Raises:
            PrunecalError: names the folder and what does not fit.
        """
        refuse_other_processor(self.folder, self.processor, self.PROCESSOR)
        prompt = conversation(self.settings["template"], "").replace(IMAGE, self.placeholder)
        refuse_unknown_markup(self.folder, self.tokenizer, prompt)
        ids = self.tokenizer(self.placeholder, add_special_tokens=False)["input_ids"]
        if ids.count(config.image_token_id) != 1:
            raise PrunecalError(
                f"{self.folder}: its tokenizer makes {brief(ids)} of {self.placeholder}, but "
                f"config.json says that an image is {brief(config.image_token_id)}; give the "
                "model's own tokenizer and config.json"
            )
        refuse_larger_vocabulary(self.folder, self.tokenizer, config)
        if self.TOWER is not None:
            refuse_unknown_vision(self.folder, config, self.TOWER)
            refuse_other_pixels(self.folder, self.processor, config.vision_config.image_size)

    def require_tokens(self, tokens: int) -> None:
        """Refuse another number of visual tokens than the study's settings name.

        Raises:
            PrunecalError: names both numbers.
        """
        stated = self.settings["visual_tokens"]
        if tokens != stated:
            raise PrunecalError(
                f"{self.folder} has {tokens} visual tokens per image but the config says "
                f"visual_tokens: {stated}; correct it in `models`"
            )


@contextlib.contextmanager
def inputs_of(module: nn.Module) -> Iterator[dict[str, Any]]:
    """Yield a mapping that holds the arguments of a module's call, once it was called.

    The first positional argument is under "first".
    """
    seen: dict[str, Any] = {}

    def note(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.update(named)
        if args:
            seen["first"] = args[0]

    hook = module.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def received(queries: Tensor, keys: Tensor, scaling: float) -> Tensor:
    """Return the mean attention that each token receives, summed over heads.

    A head at a time: all attention of a large image would fill the memory.

    Args:
        queries: [..., heads, T, d].
        keys: [..., heads, T, d].
        scaling: factor of the products.

    Returns:
        float32 [..., T].
    """
    import torch

    total = torch.zeros(*keys.shape[:-3], keys.shape[-2], device=keys.device)
    for head in range(queries.shape[-3]):
        logits = queries[..., head, :, :] @ keys[..., head, :, :].transpose(-2, -1) * scaling
        total += logits.softmax(dim=-1, dtype=torch.float32).mean(dim=-2)
    return total


def heads(projected: Tensor, count: int) -> Tensor:
    """Return [B, heads, T, d] from [B, T, heads * d]."""
    return projected.unflatten(-1, (count, -1)).transpose(-3, -2)


def pooled(values: Tensor, factor: int) -> Tensor:
    """Return the means over squares of `factor` x `factor` patches.

    Args:
        values: float [B, T], of square grids of patches in raster order.
        factor: patches along a side of a merged token.

    Returns:
        float [B, T / factor²], in raster order.
    """
    side = math.isqrt(values.shape[1])
    blocks = values.view(len(values), side // factor, factor, side // factor, factor)
    return blocks.mean(dim=(2, 4)).flatten(1)
