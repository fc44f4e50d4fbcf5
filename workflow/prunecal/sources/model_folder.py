"""What a model folder holds: refused if it is not safe to load, else listed with checksums."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.core import plugins
from prunecal.core.cli import log, progress
from prunecal.core.errors import PrunecalError, brief, cut
from prunecal.sources import safe_paths
from prunecal.storage.checksums import file_digest
from prunecal.storage.files import canonical_json, read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

WEIGHTS = "*.safetensors"
DESCRIPTION = ["*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt"]  # a few megabytes
PATTERNS = [WEIGHTS, *DESCRIPTION]
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
OTHER_DIGEST = "states another digest than that of the files that it lists"
ADAPTER = "adapter_config.json"
REQUIRED = {
    "tokenizer": ("tokenizer.json",),
    "image processor": ("preprocessor_config.json", "processor_config.json"),
}
# of transformers' CLIPImageProcessor, where a configuration is silent
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
DEPTHS = ("num_hidden_layers", "depth", "layers")
MOST_LAYERS = 1000  # in a model; each is made before its weights are compared
INDEX = "model.safetensors.index.json"
RECURRENT = (
    "its recurrent layers keep a state that questions about one image cannot share by a mask"
)
REFUSED = {  # model types of transformers, and what stands against each
    "paligemma": "image and question attend to each other both ways, so that what is computed for "
    "an image depends on the question",
    "mllama": "its images are keys of cross-attention layers, not tokens among those of the text",
    "qwen3_5": RECURRENT,
    "qwen3_5_moe": RECURRENT,
    "gemma3n": "its layers have inputs of their own and share keys and values",
    "gemma4": "its layers have inputs of their own and share keys and values",
    "qwen3_vl_moe": "its experts are no part of the engine's loop",
}


def describe(
    folder: Path,
    family: str,
    source: Mapping[str, Any],
    digest: Callable[[Path], str] = file_digest,
) -> dict[str, Any]:
    """Return the manifest of a model folder, which does not depend on the folder's location.

    Args:
        folder: a model in the Hub's layout, saved by `save_pretrained`.
        family: the file of `prunecal/models` that is to run it.
        source: where it came from, without local paths, for example its repo and revision.
        digest: returns a file's SHA-256.

    Returns:
        `source` and, beside it, `family`, `files` (name, size in bytes, sha256; sorted by name)
        `image_mean`, the image processor's mean colour (three shares of full brightness), and
        `digest`, the SHA-256 over all of `files`.

    Raises:
        PrunecalError: as `check`.
    """
    check(folder, family)
    paths = members(folder)
    files = [
        {"name": path.name, "size": path.stat().st_size, "sha256": digest(path)}
        for path in progress(paths, total=len(paths), what="checksums", unit="file")
    ]
    rest = {"image_mean": image_mean(folder), "digest": digest_of(files)}
    return {**source, "family": family, "files": files, **rest}


def digest_of(files: Any) -> str:
    """Return the digest of a model from a manifest's list of its files."""
    return hashlib.sha256(bytes(canonical_json(files), "utf-8")).hexdigest()


def _read_json(path: Path) -> Any:
    return read_json(path, remedy="copy or download it again")


def image_mean(folder: Path) -> list[float]:
    """Return the mean colour of a model's image processor, three shares of full brightness.

    Raises:
        PrunecalError: it is something else.
    """
    mean: Any = CLIP_MEAN
    for name in REQUIRED["image processor"]:  # of two files the later counts, as in transformers
        settings = _read_json(folder / name) if (folder / name).is_file() else {}
        settings = settings.get("image_processor", settings) if isinstance(settings, dict) else {}
        mean = (settings.get("image_mean") if isinstance(settings, dict) else None) or mean
    numbers = isinstance(mean, list) and all(isinstance(one, int | float) for one in mean)
    if not (numbers and len(mean) == 3 and all(0 <= one <= 1 for one in mean)):
        raise PrunecalError(
            f"{folder}: its image processor has the image_mean {brief(mean)}; give three numbers "
            "from 0 to 1"
        )
    return mean


def members(folder: Path) -> list[Path]:
    """List the files that are part of the model, sorted by name.

    Raises:
        PrunecalError: one is not a regular file, or a link out of the folder or to nothing.
    """
    paths = sorted(path for pattern in PATTERNS for path in folder.glob(pattern))
    homes = [safe_paths.real(folder)]
    if folder.parent.name == "snapshots":  # of the Hub's cache, which links to its blobs
        homes.append(safe_paths.real(folder.parents[1] / "blobs"))
    for path in paths:
        target = safe_paths.real(path)
        if target.parent not in homes:
            fault = f"is a link to {target}, outside of the model's folder"
        elif not target.exists():
            fault = f"is a link to {target}, which is missing"
        elif not target.is_file():
            fault = "is not a regular file"
        else:
            continue
        raise PrunecalError(f"{path} {fault}; put the model's own file there")
    return paths


def check(folder: Path, family: str) -> None:
    """Refuse a model folder that cannot, or must not, be loaded.

    Raises:
        PrunecalError: as `check_description`, or there are no weights, pickled ones only, or some
            that are cut off.
    """
    _check_config(folder, family)
    _check_weights(folder)
    _check_parts(folder)


def check_description(folder: Path, family: str) -> None:
    """Refuse a model folder as `check` does, but for its weights, which may be missing.

    Raises:
        PrunecalError: no folder, no or unreadable config.json, a model_type that the family
            cannot run, code of the model's own, quantised weights, an adapter, no tokenizer or
            image processor, or a file that is a link out of the folder.
    """
    _check_config(folder, family)
    _check_parts(folder)


def _check_config(folder: Path, family: str) -> None:
    if not folder.is_dir():
        raise PrunecalError(f"{folder} is not a folder; give the model's folder as `path:`")
    if not (folder / "config.json").is_file():
        raise PrunecalError(
            f"{folder} has no config.json; give a folder in the Hub's layout, as "
            f"`save_pretrained` writes it"
        )
    paths = members(folder)
    config = _read_json(folder / "config.json")
    for path in (path for path in paths if path.name.endswith("config.json")):
        if "auto_map" in dict(_entries(_read_json(path))):
            raise PrunecalError(
                f"{path} requires its own code (auto_map); such code is never run "
                f"(no trust_remote_code): use a model that transformers knows itself"
            )
    refuse_many_layers(folder / "config.json", config)
    model_type = config.get("model_type") if isinstance(config, dict) else None
    supported = {name: plugins.load("models", name).MODEL_TYPES for name in plugins.names("models")}
    if isinstance(model_type, str) and model_type in REFUSED:
        raise PrunecalError(
            f"{folder / 'config.json'} has the model_type {brief(model_type)}, which no family can "
            f"run: {REFUSED[model_type]}; use another model"
        )
    if model_type not in supported.get(family, ()):
        every = ", ".join(f"{name} ({', '.join(types)})" for name, types in supported.items())
        raise PrunecalError(
            f"{folder / 'config.json'} has the model_type {brief(model_type)}, which the family "
            f"{family} cannot run; supported are {every}: correct `family:` or the model's source, "
            f"or add a family to prunecal/models"
        )
    if any(key == "quantization_config" and value for key, value in _entries(config)):
        raise PrunecalError(
            f"{folder / 'config.json'} says that the weights are quantised (quantization_config), "
            "which is not supported; give the original weights"
        )
    if (folder / ADAPTER).is_file():
        raise PrunecalError(
            f"{folder} holds an adapter ({ADAPTER}), which is not applied; give a model that it "
            "was merged into (peft's `merge_and_unload`)"
        )


def refuse_many_layers(path: Path, config: Any) -> None:
    """Refuse a number of layers that no model has, before they are made one by one.

    Raises:
        PrunecalError: names the configuration's file and the number.
    """
    for key, value in _entries(config):
        if key in DEPTHS and isinstance(value, int) and value > MOST_LAYERS:
            raise PrunecalError(
                f"{path} has {key}: {value}, more than {MOST_LAYERS}; give the model's own file"
            )


def lacking(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the parts of `REQUIRED` that a folder lacks, with the names that a part can have."""
    return {
        part: names
        for part, names in REQUIRED.items()
        if not any((folder / name).is_file() for name in names)
    }


def _check_parts(folder: Path) -> None:
    for part, names in lacking(folder).items():
        raise PrunecalError(
            f"{folder} has no {part} ({' or '.join(names)}); copy or download it again, or "
            "write it with transformers' `save_pretrained`"
        )


def faults(
    folder: Path, manifest: Mapping[str, Any], digest: Callable[[Path], str] = file_digest
) -> Iterator[tuple[Path, str]]:
    """Yield the files in which a model folder differs from its manifest, and how.

    Args:
        folder: the model's folder.
        manifest: what `describe` returned for it.
        digest: returns a file's SHA-256.
    """
    for file in manifest["files"]:
        path = folder / file["name"]
        if not path.is_file():
            yield path, "is missing"
        elif path.stat().st_size != file["size"]:
            yield path, f"has {path.stat().st_size} bytes instead of {file['size']}"
        elif digest(path) != file["sha256"]:
            yield path, "differs from its checksum"
    listed = {file["name"] for file in manifest["files"]}
    for pattern in PATTERNS:
        for path in sorted(folder.glob(pattern)):
            if path.name not in listed:
                yield path, "was added"


def _check_weights(folder: Path) -> None:
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    if (folder / INDEX).is_file():
        index = _read_json(folder / INDEX)
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


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of all mappings within a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)
