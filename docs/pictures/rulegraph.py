"""Print the rules of the embedded study as a Mermaid graph, for CONTRIBUTING.md.

    python docs/pictures/rulegraph.py

Rules that Snakemake makes per strategy or per job are one node, and so are the figures; edges that
follow from others are left out (transitive reduction).
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MERGED = {"rank_": "rank", "infer_": "infer", "draw_": "figures"}
TARGETS = ("all", "results")  # which need everything


def edges() -> set[tuple[str, str]]:
    """Return the pairs of rules of which the second reads what the first writes."""
    command = [sys.executable, "-m", "snakemake", "--rulegraph", "mermaid-js"]
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = {node: _merged(rule) for node, rule in re.findall(r"^\s*(id\d+)\[(.+)\]$", text, re.M)}
    arrows = re.findall(r"^\s*(id\d+) --> (id\d+)$", text, re.M)
    pairs = {(names[start], names[end]) for start, end in arrows}
    return {(start, end) for start, end in pairs if start != end and end not in TARGETS}


def _merged(rule: str) -> str:
    return next((name for prefix, name in MERGED.items() if rule.startswith(prefix)), rule)


def reduced(pairs: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the edges of a graph without circles that no longer way replaces."""
    after: dict[str, set[str]] = {}
    for start, end in pairs:
        after.setdefault(start, set()).add(end)

    def reached(start: str) -> set[str]:
        return {later for end in after.get(start, ()) for later in {end} | reached(end)}

    return sorted(
        (start, end)
        for start, ends in after.items()
        for end in ends
        if not any(end in reached(other) for other in ends)
    )


def graph() -> str:
    """Return the Mermaid text."""
    return "\n".join(["flowchart LR", *(f"    {a} --> {b}" for a, b in reduced(edges()))])


if __name__ == "__main__":
    sys.stdout.write(graph() + "\n")
