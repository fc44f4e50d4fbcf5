"""Thin models of published configurations, and tokenizers with their special tokens.

Of a thin model the widths, depths and heads are smaller, and what follows from them: the sections
of rotary axes and numbers of layers. All other keys stay as they are.
"""

import json

from helpers.tiny_llava import fast_tokenizer

PIECES = (*"<>_-123456", "row", "col", "global", "img")


def thin(config):
    """Return a configuration of smaller widths, depths and heads; the other keys are as they are.

    What the file leaves to the class's defaults is stated, so that it is small, too.
    """
    small = json.loads(json.dumps(config))
    kind = small["model_type"]
    text, vision = small.get("text_config", small), small["vision_config"]
    heads = 3 if kind in ("smolvlm", "idefics3") else 2
    every = text.get("num_key_value_heads") == text.get("num_attention_heads")  # its own keys
    text |= {"hidden_size": 16 * heads, "intermediate_size": 48, "num_attention_heads": heads}
    text["num_hidden_layers"] = {"gemma3": 7, "qwen3_vl": 4}.get(kind, 2)
    if "num_key_value_heads" in text or kind == "gemma3":
        text["num_key_value_heads"] = heads if every and kind != "gemma3" else 1
    if "head_dim" in text or kind == "gemma3":
        text["head_dim"] = 16
    if "layer_types" in text:
        text["layer_types"] = text["layer_types"][: text["num_hidden_layers"]]
    for rope in (text.get("rope_scaling") or {}, text.get("rope_parameters") or {}):
        if "mrope_section" in rope:
            rope["mrope_section"] = [4, 2, 2] if kind == "qwen3_vl" else [2, 3, 3]
    if kind.startswith("qwen"):
        vision |= {"num_heads": 2, "depth": 6}
        if kind == "qwen2_vl":
            vision |= {"embed_dim": 32, "hidden_size": 16 * heads}
        else:
            own = {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 16 * heads}
            vision |= own
        if "fullatt_block_indexes" in vision:
            vision["fullatt_block_indexes"] = [2, 5]
        if "deepstack_visual_indexes" in vision:
            vision["deepstack_visual_indexes"] = [1, 2, 4]
    else:
        vision |= {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
        vision["num_hidden_layers"] = 12 if kind == "vipllava" else 2  # its 11th last is read
    return small


def tokenizer(special, *, marks=True):
    """Return a tokenizer of whole words that has a checkpoint's special tokens at their ids.

    Args:
        special: ids of the special tokens by their texts.
        marks: whether those include the texts before tiles; else they are of plain pieces.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    words = ("<unk>", "<s>", "</s>", "<pad>", "Yes", "No", "Is", "there", "a", "cat")
    taken = set(special.values())
    free = (number for number in range(100_000) if number not in taken)
    known = words if marks else (*words, *PIECES)
    vocabulary = {word: next(free) for word in known} | special
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if not marks:
        pieces = pre_tokenizers.Split(Regex("[A-Za-z]+|."), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([tokenizer.pre_tokenizer, pieces])
    return fast_tokenizer(tokenizer, [*special])
