"""Obtain a model's weights, and check them again wherever they are loaded."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from prunecal.core import disk_errors, plugins
from prunecal.core.errors import RERUN, PrunecalError
from prunecal.core.parameters import sentence
from prunecal.core.redaction import expanded
from prunecal.sources import hub, model_folder
from prunecal.storage import files
from prunecal.storage.checksums import file_digest
from prunecal.storage.digest_cache import NAME, DigestCache, identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType

    from prunecal.core.parameters import Parameters
    from prunecal.storage.schemas import Facts


def obtain(
    source: Mapping[str, Any],
    weights: Path | None = None,
    inspect: Callable[[Path], None] = lambda _: None,
    digest: Callable[[Path], str] = file_digest,
) -> Path:
    """Return the folder of a model after downloading, finding or training it.

    Args:
        source: one of `repo` with `revision`, `path`, or `train` (a recipe and its settings).
        weights: where a trained model goes; replaced whole, and only once training has ended.
        inspect: refuses a folder that need not hold weights yet; called before they are downloaded.
        digest: returns a file's SHA-256.

    Raises:
        PrunecalError: no or several sources, the source does not give the model, or the disk does
            not take a trained one.
    """
    match _kind(source):
        case "repo":
            repository = (source["repo"], source["revision"], "model")
            place = hub.fetch(*repository, model_folder.DESCRIPTION)
            model_folder.check_description(place, source["family"])
            inspect(place)
            return hub.fetch(*repository, model_folder.PATTERNS, digest)
        case "path":
            place = expanded(Path(source["path"]))
            model_folder.check(place, source["family"])
            inspect(place)
            return place
    if weights is None:
        raise PrunecalError("a model that is trained needs a folder for its weights: --weights DIR")
    settings = dict(source["train"])
    name = settings.pop("recipe", None)
    if name is None:
        raise PrunecalError("`train:` names no recipe; give `recipe:`, a file of prunecal/recipes")
    recipe = plugins.load("recipes", name)
    try:
        params = recipe.Params(**settings)
    except ValidationError as error:
        raise PrunecalError(f"recipe {name}: {sentence(error, recipe.Params)}") from error
    with disk_errors.writing(weights):
        _train(recipe, params, weights)
    return weights


@contextlib.contextmanager
def checked(
    source: Mapping[str, Any], described: Facts, weights: Path | None = None
) -> Iterator[Path]:
    """Find a model's folder again, without network, and ensure that only listed files are loaded.

    Every file is checked against the manifest's SHA-256 before the block, and for changes after it.
    Digests are remembered beside the manifest (see `storage.digest_cache`).

    Args:
        source: the same as for `obtain`.
        described: the model's manifest, as `read_object` returns it.
        weights: the folder of a trained model.

    Yields:
        The folder, to be loaded within the block.

    Raises:
        PrunecalError: the folder is gone, a file is missing, differs or was added, or the
            manifest's digest is not that of the files that it lists.
    """
    if described["digest"] != model_folder.digest_of(described["files"]):
        raise PrunecalError(f"{described.path} {model_folder.OTHER_DIGEST}; {RERUN}")
    place = folder(source, weights, [file["name"] for file in described["files"]])
    known = DigestCache(Path(described.path).with_name(NAME))
    listed = [place / file["name"] for file in described["files"]]
    before = {path: identity(path) for path in listed if path.is_file()}
    for path, fault in model_folder.faults(place, described, known.digest):
        raise PrunecalError(
            f"{path} {fault}: the model is not the one in {described.path}; restore "
            "the file, or run `snakemake --cores 1 repair` (with this study's --configfile, if it "
            "has one) and then `snakemake` again"
        )
    yield place
    for path in listed:
        if not path.is_file() or identity(path) != before[path]:
            raise PrunecalError(f"{path} changed while it was loaded; run `snakemake` again")


def folder(
    source: Mapping[str, Any],
    weights: Path | None = None,
    names: list[str] = model_folder.PATTERNS,
) -> Path:
    """Return the folder of a model that `obtain` returned before, without network.

    Args:
        source: as for `obtain`.
        weights: the folder of a trained model.
        names: of the files that a repository's copy has to hold, or patterns of them.

    Raises:
        PrunecalError: the Hub's cache does not hold the model, or a trained one's folder is not
            given.
    """
    match _kind(source):
        case "repo":
            return hub.locate(source["repo"], source["revision"], "model", names)
        case "path":
            return expanded(Path(source["path"]))
    if weights is None:
        raise PrunecalError("a model that was trained is found by its folder: give its weights")
    return weights


def _kind(source: Mapping[str, Any]) -> str:
    given = [key for key in ("repo", "path", "train") if source.get(key) is not None]
    if len(given) != 1 or ("repo" in given and not source.get("revision")):
        raise PrunecalError("give a model one source: `repo` with `revision`, `path`, or `train`")
    return given[0]


def _train(recipe: ModuleType, params: Parameters, weights: Path) -> None:
    weights.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=files.part_prefix(weights), suffix=files.PART, dir=weights.parent
    ) as scratch:
        trained = Path(scratch) / "model"
        trained.mkdir()
        shared = trained.stat().st_mode & 0o666  # as the umask has it
        recipe.train(params, trained)
        if weights.exists():
            shutil.rmtree(weights)
        for file in trained.iterdir():
            file.chmod(shared)  # safetensors writes 0600, which would hide weights from the group
        trained.rename(weights)
