"""Command-line arguments of the stages that run a model."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every stage needs to load a model."""
    parser.add_argument("--manifest", type=Path, required=True, help="the model's manifest.json")
    parser.add_argument("--weights", type=Path, help="folder of a model trained by the workflow")
    parser.add_argument("--source", required=True, help="JSON: where the weights come from")
    parser.add_argument("--settings", required=True, help="JSON: how the model is run")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
