"""A Teams channel on this machine, for the demo: a webhook that shows its cards in the terminal."""

import json
from collections.abc import Iterator
from typing import Any

from flask import Flask, request
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

TARGET = "teams-demo"  # of the demo's profile
STYLES = {"Bolder": "bold"}


class DemoChannel:
    """Accepts cards as a workflow of Teams does, and keeps them until it is asked to show them."""

    def __init__(self, console: Console) -> None:
        self.app = Flask("channel", static_folder=None)
        self.app.add_url_rule("/", "receive", self._receive, methods=["POST"])
        self._console = console
        self._kept: list[dict[str, Any]] | None = []

    def show(self) -> None:
        """Print what has come, and from now on each card as it comes."""
        kept, self._kept = self._kept or (), None
        for card in kept:
            self._print(card)

    def _receive(self) -> tuple[str, int]:
        for attachment in json.loads(request.get_data())["attachments"]:
            if self._kept is None:
                self._print(attachment["content"])
            else:
                self._kept.append(attachment["content"])
        return "", 202

    def _print(self, card: dict[str, Any]) -> None:
        self._console.print(*(Padding.indent(line, 2) for line in _read_card(card)), sep="\n")


def _read_card(card: dict[str, Any]) -> Iterator[Text]:
    """The paragraphs of an Adaptive Card, whose text runs are plain text to Teams."""
    for block in card["body"]:
        runs = [(run["text"], STYLES.get(run.get("weight", ""), "")) for run in block["inlines"]]
        yield Text.assemble(*runs)
