"""Stage "claims": test a study against the claims, see `prunecal.statistics.claim_grammar`."""

import argparse
from pathlib import Path

from prunecal.core import cli
from prunecal.statistics.claim_grammar import read_claims
from prunecal.statistics.claim_tests import evaluate
from prunecal.statistics.scores import read_scores
from prunecal.storage import files

UNTESTED = "not tested)"  # how the words of such a condition end


def main(arguments: argparse.Namespace) -> None:
    """Evaluate all claims and write the verdicts."""
    claims, studied = read_claims(arguments.claims), read_scores(arguments.scores)
    verdicts = [evaluate(claim, studied, arguments.level) for claim in claims]
    files.write_json(arguments.output, verdicts, [arguments.claims, *arguments.scores])
    for verdict in verdicts:
        cli.log.info("%s: %s", verdict["id"], verdict["verdict"])
        untested = [words for words in verdict["evidence"]["words"] if words.endswith(UNTESTED)]
        if not verdict["evidence"]["words"]:
            untested = ["no data set has a name and a subset that it names"]
        for words in untested:
            cli.log.info("  %s", words)


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = cli.parser(__doc__, "--scores", "--level")
    parser.add_argument("--claims", type=Path, required=True, help="claims.yaml")
    parser.add_argument("--output", type=Path, required=True, help="claims.json")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
