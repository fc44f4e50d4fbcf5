"""The untrained LLaVA for digits: tokenizer, processor, and a well-initialised model.

The architecture is LLaVA-1.5's (CLIP tower with CLS, features of the penultimate layer, two-layer
projector, Llama decoder) at a size that trains in minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunecal.digits.canvas import BACKGROUND, GRID, NAMES, PATCH, SIDE
from prunecal.digits.choices import COUNTS, HINT, QUESTIONS
from prunecal.digits.polls import OPTIONS
from prunecal.recipes.digits import TEMPLATE
from prunecal.study.prompts import IMAGE, LETTERS, conversation, pope_text, scienceqa_text

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

WIDTH = 128
LAYERS = 4  # of the tower and of the decoder
HEADS = 4
MEAN, SD = 0.4, 0.25  # of the pixels, used by the processor for normalisation
WORDS = (*NAMES, "background")  # the contents of a patch as words of the decoder
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", IMAGE)


def build_processor() -> LlavaProcessor:
    """Return a processor that replaces each `<image>` by GRID * GRID placeholders."""
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    images = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=[MEAN] * 3,
        image_std=[SD] * 3,
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words, in which each stock phrase of the prompts is one token."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    lettered = [f"{letter}." for letter in LETTERS]
    words = [*SPECIAL, *OPTIONS, *LETTERS, *lettered, *WORDS, *COUNTS.values()]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in SPECIAL])
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in _phrases()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
    )


def _phrases() -> list[str]:
    """Return phrases that recur in the prompts: their start, their ends, parts of the questions."""
    poll = conversation(TEMPLATE, pope_text("in the image?"))
    choices = conversation(TEMPLATE, scienceqa_text("", ["", ""]))
    head, _, poll_tail = poll.partition(IMAGE)
    articles = ("a", "an")
    return [
        head.strip(),
        poll_tail.strip(),
        choices.rpartition("\n")[2],
        *(f"Is there {article}" for article in articles),
        *(f"Is there both {article}" for article in articles),
        *(f"or {article}" for article in articles),
        *(f"and {article}" for article in articles),
        "Context:",
        HINT,
        *QUESTIONS.values(),
    ]


def build_model(
    tokenizer: PreTrainedTokenizerFast, pixels: Tensor, patches: Tensor
) -> LlavaForConditionalGeneration:
    """Return an untrained model, initialised from torch's random state.

    Three choices shorten training: sine and cosine positions over the grid, patch filters that
    whiten the training patches, and an output layer that starts as the scaled word embeddings.

    Args:
        tokenizer: defines the vocabulary.
        pixels: some training images, [B, 3, SIDE, SIDE].
        patches: the class of each of their patches, int64 [B, GRID * GRID].
    """
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
    from transformers import LlavaForConditionalGeneration as Model

    size = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
    }
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            **size, image_size=SIDE, patch_size=PATCH, projection_dim=WIDTH, hidden_act="gelu"
        ),
        text_config=LlamaConfig(
            **size,
            num_key_value_heads=HEADS,
            vocab_size=len(tokenizer),
            max_position_embeddings=512,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=GRID * GRID,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
    )
    model = Model(config)
    embeddings = model.model.vision_tower.embeddings
    words = model.get_input_embeddings().weight
    with torch.no_grad():
        embeddings.position_embedding.weight[1:] = 0.5 * _positions()
        embeddings.patch_embedding.weight.copy_(_filters(pixels, patches))
        words.normal_(std=0.1)
        model.lm_head.weight.copy_(0.2 * words)
    return model


def _positions() -> Tensor:
    """Return sines and cosines of each patch's row and column, [GRID * GRID, WIDTH]."""
    frequency = 100.0 ** -torch.linspace(0, 1, WIDTH // 4 + 1)[:-1]
    angle = torch.arange(GRID)[:, None] * frequency
    waves = torch.cat([angle.sin(), angle.cos()], dim=1)
    across = waves.repeat(GRID, 1)
    down = waves.repeat_interleave(GRID, dim=0)
    return torch.cat([down, across], dim=1)


def _filters(pixels: Tensor, patches: Tensor) -> Tensor:
    """Return randomly rotated whitening filters, [WIDTH, 3, PATCH, PATCH].

    They whiten the principal components of patches, half of which contain a digit.
    """
    cut = nn.functional.unfold(pixels, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
    is_digit = patches.flatten() < BACKGROUND
    digits, ground = cut[is_digit], cut[~is_digit]
    sample = torch.cat([digits, ground[: len(digits)]])
    sample = sample - sample.mean(dim=1, keepdim=True)
    variance, components = torch.linalg.eigh(sample.T @ sample / len(sample))
    variance, components = variance[-WIDTH:].clamp(min=0), components[:, -WIDTH:]
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH)).Q
    whitening = components / (variance + 0.1).sqrt()
    return (rotation @ whitening.T).unflatten(1, (3, PATCH, PATCH))


def normalise(pixels: Tensor) -> Tensor:
    """Return canvases as the processor returns them: float [B, 3, SIDE, SIDE] from uint8."""
    scaled = (pixels.float() / 255 - MEAN) / SD
    return scaled[:, None].expand(-1, 3, -1, -1)


def word_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return the token ids of the ten digits and of the background."""
    return tokenizer.convert_tokens_to_ids(list(WORDS))
