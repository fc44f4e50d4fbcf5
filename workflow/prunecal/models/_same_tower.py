"""Whether a CLIP is that of a model's vision tower: else its projection maps other states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.core.errors import PrunecalError, brief
from prunecal.models._checkpoint import OWN, readable
from prunecal.sources import model_folder, text_tower
from prunecal.storage.files import read_object

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import Tensor

SHAPE = {  # transformers' names: OpenCLIP's
    "hidden_size": "width",
    "image_size": "image_size",
    "num_hidden_layers": "layers",
    "patch_size": "patch_size",
}
# weights of the patch embedding, in either layout
PATCHES = ("embeddings.patch_embedding.weight", "visual.conv1.weight")
ROUNDING = 2**-7  # between copies of the same weights; bfloat16 has 8 significant bits


def refuse_other_tower(clip: Path, model: Path) -> None:
    """Refuse the CLIP of another vision tower than a model's.

    Compared are the sizes of both configurations and the embedding of patches, which differs
    between any two CLIPs that were trained apart.

    Args:
        clip: folder of the CLIP whose text tower a study names.
        model: folder of the model, whose vision tower is frozen, as LLaVA-1.5's is.

    Raises:
        PrunecalError: names the folder of the CLIP and what differs.
    """
    remedy = "give the CLIP of the model's own vision tower in `text_tower`"
    own, other = _of_clip(clip), _of_model(model)
    for name in SHAPE:
        if own[name] != other[name]:
            raise PrunecalError(
                f"{clip}: its vision tower has the {name} {brief(own[name])}, but that of "
                f"{model} has {brief(other[name])}; {remedy}"
            )
    mine = _patches(clip, text_tower.weights(clip))
    theirs = _patches(model, sorted(model.glob(model_folder.WEIGHTS)))
    far = mine.shape != theirs.shape or (mine - theirs).norm() > ROUNDING * theirs.norm()
    if far:
        raise PrunecalError(
            f"{clip}: its vision tower has other weights than that of {model}, so that its "
            f"projection maps other states; {remedy}"
        )


def _of_clip(folder: Path) -> dict[str, object]:
    """Return the sizes of a CLIP's vision tower by transformers' names."""
    if text_tower.layout(folder) == "transformers":
        return _of_model(folder)
    settings = read_object(folder / text_tower.OPEN_CLIP)["model_cfg"].get("vision_cfg", {})
    return {name: settings.get(short) for name, short in SHAPE.items()}


def _of_model(folder: Path) -> dict[str, object]:
    from transformers import AutoConfig

    with readable(folder, "configuration"):
        vision = AutoConfig.from_pretrained(folder, **OWN).vision_config
        return {name: getattr(vision, name) for name in SHAPE}


def _patches(folder: Path, paths: Iterable[Path]) -> Tensor:
    """Return the weights of the embedding of patches, float32 [D, 3, side, side]."""
    from safetensors import safe_open

    for path in paths:
        with readable(path, "tensors"), safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  not a mapping
                if name.endswith(PATCHES):
                    return file.get_tensor(name).float()
    raise PrunecalError(f"{folder}: its weights have no embedding of patches; give a whole CLIP")
