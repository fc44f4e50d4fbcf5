"""Text towers: the checkpoint of a CLIP, obtained at a pinned revision, listed with checksums.

Two layouts are read: that of transformers (config.json, model.safetensors) and that of OpenCLIP
(open_clip_config.json, open_clip_model.safetensors). Of a repository that has both, the first.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.core.errors import PrunecalError
from prunecal.core.redaction import expanded
from prunecal.sources import hub, model_folder
from prunecal.storage.checksums import file_digest
from prunecal.storage.files import read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FAMILY = "text-tower"  # in the manifest, where that of a model names its family
OPEN_CLIP = "open_clip_config.json"
WEIGHTS = {"transformers": "model*.safetensors", "open_clip": "open_clip_model.safetensors"}
TOKENIZER = ("tokenizer.json", "vocab.json")  # one of them; the latter beside merges.txt
PARTS = {  # which a repository must have, each a file of one of these names
    "configuration": ("config.json", OPEN_CLIP),
    "weights": ("model.safetensors", "model.safetensors.index.json", WEIGHTS["open_clip"]),
    "tokenizer": TOKENIZER,
}
PICKLED_ALONE = (
    "pickled weights can run code when loaded and are refused; name a copy of the checkpoint in "
    "safetensors, as studies/methods-llava-1.5-7b.yaml does for openai/clip-vit-large-patch14-336"
)


def obtain(source: Mapping[str, Any], digest: Callable[[Path], str] = file_digest) -> Path:
    """Return the folder of a text tower after downloading or finding it.

    Args:
        source: `repo` with `revision`, or `path`.
        digest: returns a file's SHA-256.

    Raises:
        PrunecalError: as `describe`, or the Hub does not give it.
    """
    if "path" in source:
        return expanded(Path(source["path"]))
    repository = (source["repo"], source["revision"], "model")
    place = hub.fetch(*repository, model_folder.DESCRIPTION)
    return hub.fetch(*repository, [*model_folder.DESCRIPTION, WEIGHTS[layout(place)]], digest)


def layout(folder: Path) -> str:
    """Return whose layout a folder has, "transformers" or "open_clip".

    Raises:
        PrunecalError: neither's.
    """
    config = folder / "config.json"
    settings = read_json(config, "copy or download it again") if config.is_file() else {}
    if isinstance(settings, dict) and settings.get("model_type") == "clip":
        return "transformers"
    if (folder / OPEN_CLIP).is_file():
        return "open_clip"
    raise PrunecalError(
        f"{folder} has neither a config.json of the model_type clip nor {OPEN_CLIP}; give a CLIP "
        "as transformers or OpenCLIP save it, in `text_tower`"
    )


def weights(folder: Path) -> list[Path]:
    """List the weights of a text tower, sorted."""
    return sorted(folder.glob(WEIGHTS[layout(folder)]))


def describe(
    folder: Path, source: Mapping[str, Any], digest: Callable[[Path], str] = file_digest
) -> dict[str, Any]:
    """Return the manifest of a text tower, which does not depend on the folder's location.

    Args:
        folder: the checkpoint.
        source: as for `obtain`.
        digest: returns a file's SHA-256.

    Returns:
        `repo` and `revision` if it has them, `family` "text-tower", `files` (name, size, sha256)
        and `digest`, the SHA-256 over all of `files`.

    Raises:
        PrunecalError: it is no CLIP, has no weights in safetensors or no tokenizer, or a file is a
            link out of the folder.
    """
    if not folder.is_dir():
        raise PrunecalError(f"{folder} is not a folder; correct `path:` of the text tower")
    paths = model_folder.members(folder)
    for path in paths:
        if path.name in ("config.json", OPEN_CLIP):
            settings = read_json(path, "copy or download it again")
            model_folder.refuse_many_layers(path, settings)
    if not weights(folder):
        raise PrunecalError(f"{folder} has no weights ({WEIGHTS[layout(folder)]}); {PICKLED_ALONE}")
    if not any((folder / name).is_file() for name in TOKENIZER):
        raise PrunecalError(
            f"{folder} has no tokenizer ({' or '.join(TOKENIZER)}); copy or download it again"
        )
    files = [
        {"name": path.name, "size": path.stat().st_size, "sha256": digest(path)} for path in paths
    ]
    whole = model_folder.digest_of(files)
    origin = {key: source[key] for key in ("repo", "revision") if key in source}
    return {**origin, "family": FAMILY, "files": files, "digest": whole}
