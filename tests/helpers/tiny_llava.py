"""What several tests build: a small random LLaVA in the Hub's layout, images, questions."""

import io

import numpy as np
import pandas as pd
import torch
from PIL import Image

from prunecal.study.prompts import conversation, pope_text, scienceqa_text

SETTINGS = {"visual_tokens": 16, "template": "vicuna_v1", "image": "pad", "dtype": "float32"}
TEXTS = [
    *(pope_text(f"Is there a {thing} in the image?") for thing in ("cat", "dog", "red car")),
    scienceqa_text("Which is longer?", ["a rope", "a pencil"], "Two things are shown."),
    scienceqa_text("Which colour is it?", ["red", "green", "blue", "grey", "black"]),
]


def tiny_llava(
    folder, *, image_size=56, patch_size=14, width=64, depth=4, heads=4, seed=0, kv_heads=None
):
    """Save a random LLaVA-1.5-shaped model, its tokenizer and its processor; return the model."""
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = tiny_tokenizer()
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=image_size,
            patch_size=patch_size,
            projection_dim=48,
        ),
        text_config=LlamaConfig(
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads or heads,
            vocab_size=len(tokenizer),
            max_position_embeddings=2048,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(image_size // patch_size) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config).eval().requires_grad_(requires_grad=False)
    with torch.no_grad():  # larger weights than the default, so that attention is not uniform
        for name, value in model.named_parameters():
            if value.ndim == 2:
                scale = 1.0 if "embed_tokens" in name else 0.15
                value.normal_(std=scale)
    processor = LlavaProcessor(
        CLIPImageProcessorPil(
            size={"shortest_edge": image_size},
            crop_size={"height": image_size, "width": image_size},
        ),
        tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


def loaded(folder, **changes):
    """Return the model of a folder, run as SETTINGS say but for some changes, on the CPU."""
    from prunecal.models.llava import Llava

    return Llava(folder, SETTINGS | changes, torch.device("cpu"))


def embedded_prompt(model, text, visual):
    """Return a whole prompt's embeddings [1, T, H] with visual tokens [K, H] for its image."""
    ids = model.tokenizer(conversation(model.settings["template"], text))["input_ids"]
    at, embed = ids.index(model.image_token), model.model.get_input_embeddings()
    pieces = embed(torch.tensor(ids[:at])), visual, embed(torch.tensor(ids[at + 1 :]))
    return torch.cat(pieces)[None]


def fast_tokenizer(tokenizer, special):
    """Return a tokenizer as transformers' models take it, with special tokens beside Llama's."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        additional_special_tokens=special,
    )


def tiny_tokenizer():
    """Return a Llama-like tokenizer (BPE with a space marker and byte fallback) of a few words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    special = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special + alphabet, show_progress=False
    )
    corpus = [conversation("vicuna_v1", text).replace("<image>", "") for text in TEXTS]
    tokenizer.train_from_iterator([*corpus, " Yes No A B C D E"], trainer)
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return fast_tokenizer(tokenizer, ["<image>"])


def encoded(model, images):
    """Return the features [B, N, D] and the saliency [B, N] of images with equally many tokens."""
    parts = model.encode(images)
    return torch.stack([one.features for one in parts]), torch.stack(
        [one.saliency for one in parts]
    )


def picture(seed, size=(64, 48)):
    """Return a random RGB image of smooth blobs."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def png(image):
    """Return an image's PNG file as bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def questions(images=3, *, repeated=True):
    """Return questions of both tasks about a few images, some of them asked twice."""
    rows = []
    for image in range(images):
        for text in TEXTS + (TEXTS[:1] if repeated else []):
            lettered = "letter" in text
            count = text.count("\n") - 2 if "Context" not in text else 2
            options = (
                list("ABCDE")[: (2 if "Context" in text else 5)] if lettered else ["Yes", "No"]
            )
            rows.append(
                {
                    "question_id": f"q{len(rows)}",
                    "image_id": f"image{image}",
                    "subset": "lettered" if lettered else "poll",
                    "text": text,
                    "options": options,
                    "label": count % len(options),
                }
            )
    return pd.DataFrame(rows)
