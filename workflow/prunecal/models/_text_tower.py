"""CLIP's text tower and what maps its vision tower's patches into the same space.

Of a checkpoint only the text tower, the visual projection and the layer norm before it are read, in
float32 whatever the study's dtype (as CDPruner's official code, Theia-4869/CDPruner 9541616, does).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunecal.core.errors import PrunecalError, brief, cut
from prunecal.models._checkpoint import OWN, readable
from prunecal.sources import text_tower
from prunecal.storage.files import read_object

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

LEGACY_END = 2  # `eos_token_id` of OpenAI's configurations: the text ends at its largest id
EPSILON = 1e-5  # of layer norms, where a configuration is silent; OpenAI's and OpenCLIP's own
LAYER = {  # of OpenCLIP's names, which are OpenAI's; its attention holds three matrices in one
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
OUTER = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
TRANSPOSED = {
    "text_projection": "text_projection.weight",
    "visual.proj": "visual_projection.weight",
}
NORM = ("vision_model.post_layernorm.weight", "vision_model.post_layernorm.bias")
PROJECTION = "visual_projection.weight"


@dataclass(frozen=True)
class Projection:
    """The map from features of CLIP's vision tower to the space of its text embeddings.

    Attributes:
        norm: float32 [2, D], weight and bias of the layer norm.
        matrix: float32 [C, D], the visual projection.
        epsilon: of the layer norm.
    """

    norm: Tensor
    matrix: Tensor
    epsilon: float


class TextTower:
    """A loaded text tower.

    Args:
        folder: the checkpoint (see `sources.text_tower`).
        activation: of its layers, where its configuration is silent.

    Attributes:
        projection: of patches into the space of texts.

    Raises:
        PrunecalError: it is no whole CLIP, its tokenizer is another's, or the activation is unknown
            or another than the configuration's.
    """

    def __init__(self, folder: Path, activation: str | None = None) -> None:
        import torch
        from transformers import AutoTokenizer, CLIPTextModelWithProjection

        self.folder = folder
        tensors = _tensors(folder)
        config, self.epsilon = _config(folder, activation)
        norm = [_taken(folder, tensors, name) for name in NORM]
        matrix = _taken(folder, tensors, PROJECTION)
        self.projection = Projection(torch.stack(norm), matrix, self.epsilon)
        tensors = {name: value for name, value in tensors.items() if name.startswith("text_")}
        with readable(folder, "configuration"), torch.device("meta"):
            self._model = CLIPTextModelWithProjection(config)
        fault = _unlike(self._model.state_dict(), tensors)
        if fault:
            raise PrunecalError(
                f"{folder}: the text tower {fault}; give a whole checkpoint of CLIP"
            )
        self._model.load_state_dict(tensors, assign=True)
        places = torch.arange(config.max_position_embeddings)[None]
        self._model.text_model.embeddings.position_ids = places  # which no checkpoint holds
        self._model.eval().requires_grad_(requires_grad=False)
        with readable(folder, "tokenizer's files"):
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **OWN)
            self._ids("a photo")  # some settings are first used in a call
        self.longest = config.max_position_embeddings
        self._refuse_other_tokenizer(config)
        with readable(folder, "configuration"):
            self.embed(["a photo"])

    def embed(self, texts: Sequence[str], batch: int = 64) -> Tensor:
        """Return the embeddings of texts, cut after the tower's longest, float32 [T, C]."""
        ids = [self._ids(text, truncation=True, max_length=self.longest) for text in texts]
        return self._of_ids(ids, batch)

    def embed_segments(self, texts: Sequence[str], batch: int = 64) -> tuple[Tensor, list[int]]:
        """Return the embeddings of whole texts, each in as many segments as it needs.

        A segment is the tower's longest (77 tokens); only the last of a text ends with the token
        of the end. As CDPruner's official code.

        Returns:
            float32 [S, C], the segments of all texts, and the number of segments of each text.
        """
        counts, ids = [], []
        for text in texts:
            own = self._ids(text)
            parts = [own[at : at + self.longest] for at in range(0, len(own), self.longest)]
            counts.append(len(parts))
            ids += parts
        return self._of_ids(ids, batch), counts

    def _ids(self, text: str, **options: Any) -> list[int]:
        ids: list[int] = self._tokenizer(text, verbose=False, **options)["input_ids"]
        return ids

    def _of_ids(self, ids: Sequence[list[int]], batch: int) -> Tensor:
        """Return the embeddings of segments, those of similar length together: padding is last."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        order = sorted(range(len(ids)), key=lambda at: (len(ids[at]), at))
        embedded = torch.empty(len(ids), self._model.text_projection.out_features)
        with torch.inference_mode():
            for start in range(0, len(order), batch):
                here = order[start : start + batch]
                padded = pad_sequence([torch.tensor(ids[at]) for at in here], batch_first=True)
                embedded[here] = self._model(input_ids=padded).text_embeds
        if not embedded.isfinite().all():
            raise PrunecalError(
                f"{self.folder}: the text tower gives NaN or infinity; check its weights"
            )
        return embedded

    def _refuse_other_tokenizer(self, config: Any) -> None:
        """Refuse a tokenizer whose texts do not end where the tower reads their embedding."""
        ids, legacy = self._ids("a photo"), config.eos_token_id == LEGACY_END
        end = self._tokenizer.eos_token_id if legacy else config.eos_token_id
        read = max(ids) if legacy else end
        if ids[-1] != end or read != end or ids.count(end) != 1 or max(ids) >= config.vocab_size:
            raise PrunecalError(
                f"{self.folder}: its tokenizer makes {brief(ids)} of 'a photo', which do not end "
                f"where the tower's embedding is read, or exceed its {config.vocab_size} ids; give "
                "the checkpoint its own tokenizer and configuration"
            )


def _config(folder: Path, activation: str | None) -> tuple[Any, float]:
    """Return the text tower's configuration, and the epsilon of the vision tower's layer norm."""
    from transformers import CLIPConfig, CLIPTextConfig

    if text_tower.layout(folder) == "transformers":
        with readable(folder, "configuration"):
            whole = CLIPConfig.from_pretrained(folder, local_files_only=True)
            config, epsilon = whole.text_config, float(whole.vision_config.layer_norm_eps)
            config.projection_dim = whole.projection_dim
        stated: str | None = config.hidden_act
    else:
        path = folder / text_tower.OPEN_CLIP
        settings = read_object(path)["model_cfg"]
        text, stated = settings["text_cfg"], None
        if "quick_gelu" in settings:
            stated = "quick_gelu" if settings["quick_gelu"] else "gelu"
        if "hf_model_name" in text:
            raise PrunecalError(f"{path} has another text model than CLIP's; give another CLIP")
        epsilon = EPSILON
        config = CLIPTextConfig(
            vocab_size=text["vocab_size"],
            hidden_size=text["width"],
            intermediate_size=4 * text["width"],
            projection_dim=settings["embed_dim"],
            num_hidden_layers=text["layers"],
            num_attention_heads=text["heads"],
            max_position_embeddings=text["context_length"],
            layer_norm_eps=EPSILON,
            eos_token_id=LEGACY_END,
        )
    if activation and stated and activation != stated:
        raise PrunecalError(
            f"{folder}: its configuration has the activation {stated}, but the study's text_tower "
            f"says {activation}; remove the key `activation`"
        )
    if not (activation or stated):
        raise PrunecalError(
            f"{folder}: its configuration does not say which activation its layers have; add "
            "`activation: quick_gelu` (OpenAI's models) or `activation: gelu` to `text_tower`"
        )
    config.hidden_act = activation or stated
    return config, epsilon


def _tensors(folder: Path) -> dict[str, Tensor]:
    """Return what is needed of a checkpoint in float32, by transformers' names."""
    from safetensors import safe_open

    tensors: dict[str, Tensor] = {}
    for path in text_tower.weights(folder):
        with readable(path, "tensors"), safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  not a mapping
                for own, part, transposed in _named(name):
                    value = file.get_tensor(name).float()
                    fault = "is stored twice" if own in tensors else "holds NaN or infinity"
                    if own in tensors or not value.isfinite().all():
                        raise PrunecalError(
                            f"{path}: the tensor {cut(name)} {fault}; keep the files of one whole "
                            "checkpoint alone"
                        )
                    value = value.T.contiguous() if transposed else value
                    tensors[own] = value if part is None else value.chunk(3)[part].contiguous()
    return tensors


def _named(name: str) -> list[tuple[str, int | None, bool]]:
    """Return by which names of transformers a stored tensor goes: name, third, transposed."""
    if name == PROJECTION or name in NORM:
        return [(name, None, False)]
    if name.startswith(("text_model.", "text_projection.")):
        return [] if name.endswith(".position_ids") else [(name, None, False)]
    if name in OUTER:
        return [(OUTER[name], None, False)]
    if name in TRANSPOSED:
        return [(TRANSPOSED[name], None, True)]
    match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)", name)
    if not match:
        return []  # of the vision tower
    layer, part, kind = match.groups()
    start = f"text_model.encoder.layers.{layer}"
    if part == "attn.in_proj":
        return [(f"{start}.self_attn.{one}_proj.{kind}", at, False) for at, one in enumerate("qkv")]
    return [(f"{start}.{LAYER.get(part, part)}.{kind}", None, False)]


def _taken(folder: Path, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise PrunecalError(f"{folder}: the checkpoint lacks {name}; give a whole CLIP")
    return tensors[name]


def _unlike(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """Say in which tensor a checkpoint differs from the model of its configuration, if in any."""
    for name in sorted(expected.keys() | tensors):
        if name not in tensors:
            return f"lacks {cut(name)}"
        if name not in expected:
            return f"has {cut(name)}, which its configuration knows nothing of"
        if expected[name].shape != tensors[name].shape:
            shapes = [list(one[name].shape) for one in (tensors, expected)]
            return f"has {cut(name)} of shape {shapes[0]}, but its configuration says {shapes[1]}"
    return ""
