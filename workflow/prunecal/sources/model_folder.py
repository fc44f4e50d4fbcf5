"""What a model folder holds: refused if it is not safe to load, else listed with checksums."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.core import plugins
from prunecal.core.cli import log, progress
from prunecal.core.errors import PrunecalError, brief, cut
from prunecal.storage.checksums import file_digest
from prunecal.storage.files import canonical_json, read_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PATTERNS = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
INDEX = "model.safetensors.index.json"


def describe(folder: Path, family: str, source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of a model folder, the same wherever the folder lies.

    Args:
        folder: a model in the Hub's layout, saved by `save_pretrained`.
        family: the file of `prunecal/models` that is to run it.
        source: where it came from, without local paths, for example its repo and revision.

    Returns:
        `source` and, beside it, `family`, `files` (name, size in bytes, sha256; sorted by name)
        and `digest`, the SHA-256 over all of `files`.

    Raises:
        PrunecalError: as `check`.
    """
    check(folder, family)
    names = sorted(
        path.relative_to(folder).as_posix()
        for pattern in PATTERNS
        for path in folder.glob(pattern)
        if path.is_file()
    )
    files = [
        {
            "name": name,
            "size": (folder / name).stat().st_size,
            "sha256": file_digest(folder / name),
        }
        for name in progress(names, total=len(names), what="checksums", unit="file")
    ]
    digest = hashlib.sha256(canonical_json(files).encode()).hexdigest()
    return {**source, "family": family, "files": files, "digest": digest}


def check(folder: Path, family: str) -> None:
    """Refuse a model folder that cannot, or must not, be loaded.

    Raises:
        PrunecalError: no folder, no or unreadable config.json, a model_type that the family
            cannot run, code of the model's own, no weights, pickled weights only, or
            weights cut off.
    """
    if not folder.is_dir():
        raise PrunecalError(f"{folder} is not a folder; give the model's folder as `path:`")
    if not (folder / "config.json").is_file():
        raise PrunecalError(
            f"{folder} has no config.json; give a folder in the Hub's layout, as "
            f"`save_pretrained` writes it"
        )
    config = read_json(folder / "config.json")
    for path in sorted(folder.glob("*config.json")):
        if "auto_map" in _keys(read_json(path)):
            raise PrunecalError(
                f"{path} asks for code of its own (auto_map); such code is never run "
                f"(no trust_remote_code): use a model that transformers knows itself"
            )
    model_type = config.get("model_type") if isinstance(config, dict) else None
    supported = {name: plugins.load("models", name).MODEL_TYPES for name in plugins.names("models")}
    if model_type not in supported.get(family, ()):
        every = ", ".join(f"{name} ({', '.join(types)})" for name, types in supported.items())
        raise PrunecalError(
            f"{folder / 'config.json'} has the model_type {brief(model_type)}, which the family "
            f"{family} cannot run; supported are {every}: correct `family:` or the model's source, "
            f"or add a family to prunecal/models"
        )
    _check_weights(folder)


def verify(folder: Path, manifest: Mapping[str, Any], *, sizes_only: bool = False) -> None:
    """Hold a model folder against its manifest.

    Args:
        folder: the model's folder.
        manifest: what `describe` returned for it.
        sizes_only: leave the checksums out; takes no time however large the model.

    Raises:
        PrunecalError: a file is missing or differs.
    """
    for file in manifest["files"]:
        path = folder / file["name"]
        if not path.is_file():
            fault = "is missing"
        elif path.stat().st_size != file["size"]:
            fault = f"has {path.stat().st_size} bytes instead of {file['size']}"
        elif not sizes_only and file_digest(path) != file["sha256"]:
            fault = "differs from its checksum"
        else:
            continue
        raise PrunecalError(
            f"{path} {fault}; the model is not the one that its manifest describes: restore the "
            f"file, or delete the manifest and run the model's stage again"
        )


def _check_weights(folder: Path) -> None:
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        named = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(named, dict) or not all(isinstance(n, str) for n in named.values()):
            raise PrunecalError(f"{folder / INDEX} has no weight_map; copy or download it again")
        for name in sorted(set(named.values()) - set(weights)):
            raise PrunecalError(
                f"{folder} lacks the weights {cut(name)}, named in {INDEX}; copy or download it "
                "again"
            )
    pickled = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if pickled and not weights:
        raise PrunecalError(
            f"{folder} has pickled weights only ({pickled[0]}), which can run code when loaded and "
            f"are refused; give safetensors, as `save_pretrained` writes them"
        )
    if not weights:
        raise PrunecalError(
            f"{folder} has no weights (*.safetensors; pickled ones are not taken); copy or "
            f"download them, or correct the source"
        )
    for name in weights:
        _check_whole(folder / name)
    if pickled:
        log.warning("%s: ignoring the pickled weights %s", folder, ", ".join(pickled))


def _check_whole(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):  # reads the header and holds it against the size
            pass
    except (SafetensorError, OSError) as error:
        raise PrunecalError(
            f"{path} is not a whole safetensors file ({cut(str(error))}); copy or download it again"
        ) from error


def _keys(value: Any) -> Iterator[str]:
    """Yield the keys of all mappings within a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)
