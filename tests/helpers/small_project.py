"""A copy of the project with a small study, in which tests run Snakemake for real."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import psutil
import yaml

from prunecal.storage.checksums import file_digest
from prunecal.study import cells

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "config.yaml", "rules", "profiles", "workflow", "envs", "reports")
STUDY = "small.yaml"
TOKEN = "hf_MarkedMarkedMarked0123456789"
FONTS = str(Path.home() / ".cache" / "matplotlib")  # found once, not anew for each home
NUMBERS = (".parquet", ".safetensors", ".csv", ".json")


def heed_interrupts() -> None:
    """Undo, in a child process, that a script's background jobs ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Project:
    """A folder with the project's code, a small study and its results."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.started: list[subprocess.Popen] = []

    @classmethod
    def create(cls, folder: Path) -> Self:
        folder.mkdir()
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "*.html")
                shutil.copytree(source, folder / part, ignore=ignore)
            else:
                shutil.copy(source, folder)
        shutil.copy(Path(__file__).with_name(STUDY), folder)
        return cls(folder)

    def copy(self, folder: Path) -> Self:
        """Return a copy in another folder; it keeps times, as a user's copy does."""
        subprocess.run(["cp", "-a", self.folder, folder], check=True)
        return type(self)(folder)

    @property
    def settings(self) -> dict:
        return yaml.safe_load((self.folder / STUDY).read_text())

    def change(self, **settings) -> None:
        """Change top-level settings of the small study."""
        (self.folder / STUDY).write_text(yaml.safe_dump(self.settings | settings))

    def start(
        self,
        *arguments: str,
        study: str = STUDY,
        cores: int = 2,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen:
        """Start Snakemake in a process group of its own."""
        command = [sys.executable, "-m", "snakemake", *arguments, "--configfile", study]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        usual = os.environ | self.marks() | {"PATH": path, "MPLCONFIGDIR": FONTS}
        return self.popen([*command, "--cores", str(cores)], usual | (environment or {}))

    def popen(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen:
        """Start a command in the folder, in a process group of its own."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=heed_interrupts,
        )
        self.started.append(process)
        return process

    def marks(self) -> dict[str, str]:
        """Return what no file may hold (see test_secrets.py): where home is, and a token."""
        return {"HOME": str(self.folder.parent), "HF_TOKEN": TOKEN}

    def run(self, *arguments: str, fails: bool = False, **options) -> str:
        """Run Snakemake, expect success or failure, and return what it said."""
        process = self.start(*arguments, **options)
        try:
            said, _ = process.communicate(timeout=600)
        except BaseException:  # it has a session of its own, which Ctrl-C does not reach
            self.kill()
            raise
        assert (process.returncode != 0) == fails, said
        return said

    def plan(self, *arguments: str, **options) -> set[str]:
        """Return the messages of the jobs that Snakemake would run."""
        said = self.run("--dry-run", *arguments, **options)
        jobs = set(re.findall(r"^Job \d+: (.+)$", said, flags=re.MULTILINE))
        assert bool(jobs) != ("Nothing to be done" in said), said
        return jobs

    def cells(self) -> list[str]:
        """List the study's predictions, relative to the folder."""
        base = yaml.safe_load((self.folder / "config.yaml").read_text())
        study = cells.load_study(base | self.settings)
        return [
            f"results/{model.name}/{dataset.name}/{cell.strategy}/{cell.budget}/predictions.parquet"
            for model in study.models
            for dataset in study.datasets
            for cell in cells.cells(study, model)
        ]

    def numbers(self) -> dict[str, str]:
        """Return the digests of all results that determine what the study says."""
        return {
            str(path.relative_to(self.folder)): file_digest(path)
            for path in sorted((self.folder / "results").rglob("*.*"))
            if path.suffix in NUMBERS and path.stem != "provenance"  # it holds times
            if not path.name.startswith(".") and not {".cells", ".rankings"} & set(path.parts)
        }

    def runs_of_cells(self) -> dict[str, str]:
        """Return each cell's provenance: it holds wall time, so equal means not computed again."""
        found = [Path(cell).with_name("provenance.json") for cell in self.cells()]
        return {
            "/".join(path.parts[-3:-1]): (self.folder / path).read_text()
            for path in found
            if (self.folder / path).is_file()
        }

    def edit(self, module: str, old: str, new: str) -> None:
        """Replace a text that stands once in a module of the package."""
        path = self.folder / "workflow" / "prunecal" / module
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
        path.write_text(text.replace(old, new))

    def forget_cells(self) -> None:
        """Remove all predictions and the cell store, as before the first inference."""
        for cell in self.cells():
            shutil.rmtree((self.folder / cell).parent, ignore_errors=True)
        shutil.rmtree(self.folder / "results" / ".cells")

    def stored_cells(self) -> list[Path]:
        """List the finished cells in the store: their last file is there."""
        return list((self.folder / "results" / ".cells").glob("*/*/.provenance.json.sha256"))

    def processes(self) -> list[psutil.Process]:
        """List the processes that work in this folder."""
        found = []
        for process in psutil.process_iter():
            try:
                if Path(process.cwd()) == self.folder and process.status() != "zombie":
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def kill(self) -> None:
        """Kill and reap whatever a failed test left running in this folder."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for process in self.started:
            with process:
                process.kill()
