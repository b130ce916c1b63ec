"""The command: `python -m capacity` prints the bill and the limits; `--write` stores them in docs/."""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markdown import Markdown

from capacity import bill, scaling
from capacity.scaling_limits import read_facts

FILE_WIDTH = 150  # a redirected table is not folded


def main(arguments: Sequence[str]) -> int:
    """Print the tables and, when asked to, write them and the picture into the documentation."""
    parser = argparse.ArgumentParser(prog="python -m capacity", description=__doc__)
    parser.add_argument(
        "--write", action="store_true", help="also write the tables and the picture into docs/"
    )
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    console.print("Computing the bill and simulating hours of mail: a few seconds.")
    facts = read_facts()
    tables = {bill.BLOCK: bill.build_table(facts.rates), scaling.BLOCK: scaling.build_tables(facts)}
    for block, content in tables.items():
        console.print(Markdown(content))
        if options.write:
            text = block.page.read_text(encoding="utf-8")
            block.page.write_text(block.replace_in(text, content), encoding="utf-8")
            console.print(f"Written: {block.page}", highlight=False)
    if options.write:
        scaling.PICTURE.write_text(scaling.draw_limits(facts), encoding="utf-8")
        console.print(f"Written: {scaling.PICTURE}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
