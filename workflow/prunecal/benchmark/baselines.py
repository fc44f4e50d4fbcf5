"""The usual ways to answer questions about an image from some of its visual tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from torch import Tensor

    from prunecal.models.llava import Llava


@dataclass
class Plain:
    """transformers' own `generate` and `forward`, as evaluation harnesses call them.

    Attributes:
        llava: the model.
        pixels: [I, 3, side, side], the preprocessed images.
        questions: columns image_id (`image<index>`), text, options.
        budget: visual tokens kept by saliency; N keeps all of them.
    """

    llava: Llava
    pixels: Tensor
    questions: pd.DataFrame
    budget: int

    def one_at_a_time(self, row: int) -> Tensor:
        """Return option logits of one question by `generate`, which encodes the image again."""
        inputs = self._inputs([row])
        output = self.llava.model.generate(
            **inputs,
            max_new_tokens=1,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=0,
        )
        return output.logits[0][0, self._options(row)].float().cpu()

    def batch(self, rows: Sequence[int]) -> list[Tensor]:
        """Return option logits of several questions by one left-padded `forward`."""
        output = self.llava.model(**self._inputs(rows), logits_to_keep=1)
        return [
            output.logits[at, -1, self._options(row)].float().cpu() for at, row in enumerate(rows)
        ]

    def _inputs(self, rows: Sequence[int]) -> dict[str, Tensor]:
        model, device = self.llava.model, self.llava.device
        questions = self.questions.iloc[list(rows)]
        images = [int(name.removeprefix("image")) for name in questions["image_id"]]
        before, after = self.llava.tokenize(list(questions["text"]))
        visual = self.llava.settings["visual_tokens"]
        kept = min(self.budget, visual)
        prompts = [[*before, *[model.config.image_token_id] * kept, *text] for text in after]
        longest = max(map(len, prompts))
        pad = [longest - len(prompt) for prompt in prompts]
        ids = [[0] * gap + prompt for gap, prompt in zip(pad, prompts, strict=True)]
        ids = torch.tensor(ids, device=device)
        mask = torch.arange(longest, device=device) >= torch.tensor(pad, device=device)[:, None]
        pixels = self.pixels[images]
        if kept == visual:
            return {"input_ids": ids, "attention_mask": mask.long(), "pixel_values": pixels}
        features, saliency = self.llava.encode_pixels(pixels)
        index = saliency.argsort(dim=1, descending=True, stable=True)[:, :kept].sort(dim=1).values
        tokens = features.gather(1, index[..., None].expand(-1, -1, features.shape[2]))
        embeds = model.get_input_embeddings()(ids)
        embeds[ids == model.config.image_token_id] = self.llava.project(tokens).flatten(0, 1)
        return {"inputs_embeds": embeds, "attention_mask": mask.long()}

    def _options(self, row: int) -> list[int]:
        question = self.questions.iloc[row]
        return self.llava.option_tokens(question["text"], question["options"])


def encode(llava: Llava, pixels: Tensor, batch: int = 8) -> tuple[Tensor, Tensor]:
    """Encode each image once: features [I, N, D] and saliency [I, N], on the CPU."""
    parts = [llava.encode_pixels(pixels[at : at + batch]) for at in range(0, len(pixels), batch)]
    features, saliency = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    return features, saliency


def decoder_shape(model: Any) -> dict[str, int]:
    """Return the sizes of a model's decoder that `needed_flops` counts with."""
    config = model.model.config.text_config
    head = model.decoder.layers[0].self_attn.head_dim
    return {
        "width": config.hidden_size,
        "intermediate": config.intermediate_size,
        "layers": config.num_hidden_layers,
        "key_value": config.num_key_value_heads * head,
    }


def needed_flops(
    shape: dict[str, int],
    prompts: Sequence[tuple[int, int, Sequence[int]]],
    layers: int | None = None,
    *,
    ends: bool = True,
) -> float:
    """Return the multiply-add FLOPs needed to answer prompts with shared prefixes.

    Padding, repeated questions, masked attention and unused states of the last layer are not
    counted.

    Args:
        shape: width, intermediate, layers and key_value width of the decoder.
        prompts: per image, system tokens S, tokens of the shared prefix, tokens of each remainder.
        layers: layers that they run through, by default all.
        ends: whether the last of these is the decoder's last.
    """
    width, layers = shape["width"], shape["layers"] if layers is None else layers
    keys_values = 2 * 2 * width * shape["key_value"]
    others = 2 * (2 * width * width + 3 * width * shape["intermediate"])
    total = 0.0
    for system, prefix, rests in prompts:
        tokens = prefix + sum(rests)
        total += tokens * (layers * keys_values + (layers - ends) * others)
        total += ends * len(rests) * others
        seen = sum(system + at + 1 for at in range(prefix))
        seen += sum(system + prefix + at + 1 for rest in rests for at in range(rest))
        total += layers * 4 * width * seen
    return total
