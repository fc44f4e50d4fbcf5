"""Make the conda and Apptainer recipes from requirements.txt, the one list of pinned versions.

    python envs/recipes.py

tests/unit/test_envs.py fails when they differ.
"""

from pathlib import Path

HERE = Path(__file__).parent
PYTHON = "3.11"


def pins() -> list[str]:
    """Return the pinned requirements of a run, without comments."""
    lines = (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def conda() -> str:
    """Return the conda environment; everything but Python comes by pip, at the pinned versions."""
    listed = "\n".join(f"      - {pin}" for pin in pins())
    return (
        "# Made by envs/recipes.py from requirements.txt.\n"
        "channels:\n  - conda-forge\n  - nodefaults\n"
        f"dependencies:\n  - python ={PYTHON}\n  - pip\n  - pip:\n{listed}\n"
    )


def apptainer() -> str:
    """Return the Apptainer definition; the code is that of the checkout, not built in."""
    listed = " \\\n        ".join(pins())
    return (
        "# Made by envs/recipes.py from requirements.txt.\n"
        "#   apptainer build envs/prunecal.sif envs/apptainer.def\n"
        f"Bootstrap: docker\nFrom: python:{PYTHON}-slim\n\n"
        f"%post\n    pip install --no-cache-dir \\\n        {listed}\n"
    )


if __name__ == "__main__":
    (HERE / "conda.yaml").write_text(conda(), encoding="utf-8")
    (HERE / "apptainer.def").write_text(apptainer(), encoding="utf-8")
