"""Whether jobs on this machine will find a GPU, asked before the first of them starts."""

import os
import subprocess
import sys

ASK = "from prunecal.engine.device import why_no_gpu; print(why_no_gpu() or '')"


def why_none(code: str) -> str:
    """Return why PyTorch can use no GPU here; empty if it can.

    Another process asks: CUDA would keep some memory of the GPU as long as this one lives.

    Args:
        code: folder that holds the package.
    """
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, "PYTHONPATH": code},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()
