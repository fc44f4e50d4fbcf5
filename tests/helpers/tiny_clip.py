"""A small random CLIP in the layouts of transformers and of OpenCLIP, and its tokenizer."""

import json

import torch
from safetensors.torch import save_file

WORDS = (
    "is there a cat dog red car in the image ? which longer rope pencil answer question using "
    "single word or phrase . context"
)


def tokenizer():
    """Return a tokenizer of whole words whose texts begin and end as CLIP's do."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = dict.fromkeys([*WORDS.split(), "a", "photo", "<unk>"])
    vocabulary = {word: at for at, word in enumerate(words)}
    vocabulary |= {"<|startoftext|>": len(vocabulary), "<|endoftext|>": len(vocabulary) + 1}
    whole = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    whole.normalizer = normalizers.Lowercase()
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(name, vocabulary[name]) for name in ("<|startoftext|>", "<|endoftext|>")]
    whole.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=whole,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<unk>",
        model_max_length=16,
    )


def tiny_clip(folder, *, tower=None, seed=0):
    """Save a random CLIP as transformers does, its texts 16 tokens long; return the model.

    Args:
        folder: where to save it.
        tower: the vision tower of a tiny LLaVA, whose weights it gets.
        seed: of the weights.
    """
    from transformers import CLIPConfig, CLIPModel

    own = tokenizer()
    text = {
        "vocab_size": len(own),
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
        "eos_token_id": 2,  # as OpenAI's configurations have it
    }
    vision = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 56,
        "patch_size": 14,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    torch.manual_seed(seed)
    model = CLIPModel(config).eval().requires_grad_(requires_grad=False)
    for value in model.parameters():
        value.add_(torch.randn_like(value) * 0.2)
    if tower is not None:
        model.vision_model.load_state_dict(tower.state_dict())
    model.save_pretrained(folder)
    own.save_pretrained(folder)
    return model


def as_open_clip(model, folder, **settings):
    """Save a CLIP of transformers as OpenCLIP saves one, by OpenAI's names of tensors."""
    state, tensors = model.state_dict(), {"logit_scale": model.logit_scale.data}
    tensors |= {
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "text_projection": state["text_projection.weight"].T.contiguous(),
        "visual.proj": state["visual_projection.weight"].T.contiguous(),
        "visual.class_embedding": state["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        tensors[f"ln_final.{kind}"] = state[f"text_model.final_layer_norm.{kind}"]
        tensors[f"visual.ln_post.{kind}"] = state[f"vision_model.post_layernorm.{kind}"]
    for tower, prefix in (("text", ""), ("vision", "visual.")):
        depth = getattr(model.config, f"{tower}_config").num_hidden_layers
        for layer in range(depth):
            old = f"{tower}_model.encoder.layers.{layer}."
            new = f"{prefix}transformer.resblocks.{layer}."
            for kind in ("weight", "bias"):
                parts = [state[f"{old}self_attn.{one}_proj.{kind}"] for one in "qkv"]
                tensors[f"{new}attn.in_proj_{kind}"] = torch.cat(parts)
                tensors[f"{new}attn.out_proj.{kind}"] = state[f"{old}self_attn.out_proj.{kind}"]
                tensors[f"{new}ln_1.{kind}"] = state[f"{old}layer_norm1.{kind}"]
                tensors[f"{new}ln_2.{kind}"] = state[f"{old}layer_norm2.{kind}"]
                tensors[f"{new}mlp.c_fc.{kind}"] = state[f"{old}mlp.fc1.{kind}"]
                tensors[f"{new}mlp.c_proj.{kind}"] = state[f"{old}mlp.fc2.{kind}"]
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "open_clip_model.safetensors", {"format": "pt"})
    text, vision = model.config.text_config, model.config.vision_config
    settings |= {
        "vision_cfg": {
            "image_size": vision.image_size,
            "layers": vision.num_hidden_layers,
            "patch_size": vision.patch_size,
            "width": vision.hidden_size,
        },
        "embed_dim": model.config.projection_dim,
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings}))
    tokenizer().save_pretrained(folder)
