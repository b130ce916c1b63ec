"""The demo's look-up server: what another system of the company knows of its customers, over HTTPS."""

import re
import shutil
import ssl
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Flask, request

from local.host.certificates import write_certificates
from local.host.http_server import LoopbackServer
from shared.errors import ConfigurationError
from shared.profiles.profile_file import PROFILE_FILE

CONFIG = Path(__file__).parent / "demo_config"
URL = "https://127.0.0.1:8443"  # in the profile; the demo's copy has the port that was free
NOT_KNOWN = ("", HTTPStatus.NOT_FOUND)
_DAY = re.compile(r"\{today([+-]\d+)\}")


def load_answers(today: date) -> dict[str, Any]:
    """By path, what the system answers."""

    def write_day(found: re.Match[str]) -> str:
        day = today + timedelta(days=int(found[1]))
        return f"{day.day} {day:%B %Y}"

    text = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    return tomllib.loads(_DAY.sub(write_day, text))


@contextmanager
def serve_customers(folder: Path, today: date) -> Iterator[dict[str, str]]:
    """Serve the system for as long as it is entered; give the settings of an agent that is to ask it.

    `folder`, which must not exist yet, takes a copy of the demo's configuration that names the server, and a
    certificate made for it. Raises ConfigurationError when nothing can be written there.
    """
    try:
        shutil.copytree(CONFIG, folder)
        authority, certificate = write_certificates(folder, ("127.0.0.1",))
    except OSError:
        raise ConfigurationError(
            f"Nothing can be written to {folder}: check its permissions and the free space on its disk."
        ) from None
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    answers = load_answers(today)
    app = Flask("customers", static_folder=None)
    app.add_url_rule("/<path:_>", "answer", lambda _: answers.get(request.path, NOT_KNOWN))
    with LoopbackServer(app, ssl_context=tls) as server:
        profiles = folder / PROFILE_FILE
        text = profiles.read_text(encoding="utf-8")
        profiles.write_text(text.replace(URL, server.url), encoding="utf-8")
        yield {"CONFIG_PATH": str(folder), "REQUESTS_CA_BUNDLE": str(authority)}
