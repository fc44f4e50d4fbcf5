"""LLaVA-1.5-7B as the Hub has it, but thin: its files, tensor names and ids; random weights.

Names, order and sizes of the tensors follow llava-hf/llava-1.5-7b-hf at the revision of
studies/llava-1.5-7b.yaml, so that its three shards divide as there. The vocabulary is made up, but
for the tokens whose ids the model was trained on.
"""

import json

import torch
from safetensors.torch import save

from helpers import hub_clip
from helpers.tiny_llava import TEXTS
from prunecal.models import _llama_ids
from prunecal.study.prompts import conversation

WIDTH = {"text": 32, "vision": 32}  # of 4,096 and 1,024
TRUE = {"text": 4096, "vision": 1024, "text_inner": 11008, "vision_inner": 4096}
HEADS, LAYERS, VISION_LAYERS, VOCABULARY = 2, 32, 24, 32064
SHARD = 5 * 10**9  # bytes at most, of the true sizes
CONFIG = {
    **hub_clip.LLAVA,
    "text_config": {
        **hub_clip.VICUNA_7B,
        # the Hub's file leaves these to their defaults, which are those of 7B
        "hidden_size": WIDTH["text"],
        "intermediate_size": 2 * WIDTH["text"],
        "num_attention_heads": HEADS,
    },
    "vision_config": {
        **hub_clip.CLIP_336,
        "hidden_size": WIDTH["vision"],
        "intermediate_size": 2 * WIDTH["vision"],
        "num_attention_heads": HEADS,
    },
}
TOKENIZER_CONFIG = {
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "legacy": False,
    "model_max_length": 10**30,
    "pad_token": "<pad>",
    "padding_side": "left",
    "processor_class": "LlavaProcessor",
    "tokenizer_class": "LlamaTokenizer",
    "unk_token": "<unk>",
}


def shapes():
    """Return the shapes of all tensors, each dimension as a key of TRUE or a number, in order."""
    listed = {}
    tower = "vision_tower.vision_model."
    listed[f"{tower}embeddings.class_embedding"] = ["vision"]
    listed[f"{tower}embeddings.patch_embedding.weight"] = ["vision", 3, 14, 14]
    listed[f"{tower}embeddings.position_embedding.weight"] = [577, "vision"]
    for norm in ("pre_layrnorm", "post_layernorm"):
        listed |= {f"{tower}{norm}.{part}": ["vision"] for part in ("weight", "bias")}
    for layer in range(VISION_LAYERS):
        prefix = f"{tower}encoder.layers.{layer}."
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            listed[f"{prefix}self_attn.{name}.weight"] = ["vision", "vision"]
            listed[f"{prefix}self_attn.{name}.bias"] = ["vision"]
        for name, (out, into) in {
            "fc1": ("vision_inner", "vision"),
            "fc2": ("vision", "vision_inner"),
        }.items():
            listed[f"{prefix}mlp.{name}.weight"] = [out, into]
            listed[f"{prefix}mlp.{name}.bias"] = [out]
        for norm in ("layer_norm1", "layer_norm2"):
            listed |= {f"{prefix}{norm}.{part}": ["vision"] for part in ("weight", "bias")}
    for number, into in (("1", "vision"), ("2", "text")):
        listed[f"multi_modal_projector.linear_{number}.weight"] = ["text", into]
        listed[f"multi_modal_projector.linear_{number}.bias"] = ["text"]
    listed["language_model.model.embed_tokens.weight"] = [VOCABULARY, "text"]
    for layer in range(LAYERS):
        prefix = f"language_model.model.layers.{layer}."
        for name in "qkvo":
            listed[f"{prefix}self_attn.{name}_proj.weight"] = ["text", "text"]
        listed[f"{prefix}mlp.gate_proj.weight"] = ["text_inner", "text"]
        listed[f"{prefix}mlp.up_proj.weight"] = ["text_inner", "text"]
        listed[f"{prefix}mlp.down_proj.weight"] = ["text", "text_inner"]
        for norm in ("input_layernorm", "post_attention_layernorm"):
            listed[f"{prefix}{norm}.weight"] = ["text"]
    listed["language_model.model.norm.weight"] = ["text"]
    listed["language_model.lm_head.weight"] = [VOCABULARY, "text"]
    return listed


def true_bytes(shape):
    """Return the bytes of a tensor of the true model in 16 bits."""
    return 2 * torch.Size([TRUE.get(size, size) for size in shape]).numel()


def thin(size):
    kind, _, inner = str(size).partition("_")
    return size if isinstance(size, int) else WIDTH[kind] * (2 if inner else 1)


def shards():
    """Return the names of the tensors in each shard."""
    parts, held = [[]], 0
    for name, shape in shapes().items():
        size = true_bytes(shape)
        if held + size > SHARD:
            parts.append([])
            held = 0
        parts[-1].append(name)
        held += size
    return parts


def hub_llava(seed=0):
    """Return the files of the repository by name."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes().items():
        if "norm" in name:
            value = torch.full([thin(size) for size in shape], float(name.endswith("weight")))
        else:  # wide enough that attention is not uniform and answers differ
            scale = 0.02 if name.endswith("bias") else 1.0 if "embed" in name else 0.2
            value = torch.randn([thin(size) for size in shape], generator=generator) * scale
        tensors[name] = value.half()
    parts = shards()
    files, places = {}, {}
    for number, names in enumerate(parts, start=1):
        file = f"model-{number:05}-of-{len(parts):05}.safetensors"
        files[file] = save({name: tensors[name] for name in names}, {"format": "pt"})
        places |= dict.fromkeys(names, file)
    total = sum(map(true_bytes, shapes().values()))
    texts = {
        "config.json": CONFIG,
        "model.safetensors.index.json": {"metadata": {"total_size": total}, "weight_map": places},
        "preprocessor_config.json": hub_clip.CLIP_PROCESSOR,
        "tokenizer_config.json": TOKENIZER_CONFIG,
        "tokenizer.json": tokenizer(),
    }
    return files | {name: json.dumps(content).encode() for name, content in texts.items()}


def tokenizer():
    """Return a tokenizer.json in the form of Llama's, with 32,000 pieces and two added tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    whole = Tokenizer(models.BPE())
    whole.pre_tokenizer = pre_tokenizers.Metaspace()
    prompts = [conversation("vicuna_v1", text).replace("<image>", "") for text in TEXTS]
    answers = [f"{text} {option}" for option in _llama_ids.OPTIONS for text in ("", "So", "I")]
    corpus = [prompt.replace("\n", " ") for prompt in prompts] + 50 * answers
    whole.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=600, show_progress=False))
    learned = json.loads(whole.to_str())["model"]
    known = _llama_ids.PIECES | {f"▁{name}": at for name, at in _llama_ids.OPTIONS.items()}
    assert known.keys() - {"<s>", "<0x0A>"} <= learned["vocab"].keys()
    ids = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    ids |= known
    free = iter(sorted(set(range(32000)) - set(ids.values())))
    ids |= {piece: next(free) for piece in learned["vocab"] if piece not in ids}
    ids |= {f"<filler {number}>": number for number in list(free)}
    added = [
        {"id": number, "content": piece, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for number, piece in ((0, "<unk>"), (1, "<s>"), (2, "</s>"), (32000, "<image>"))
    ]
    added.append(added[-1] | {"id": 32001, "content": "<pad>"})
    begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": ids,
            "merges": learned["merges"],
        },
    }
