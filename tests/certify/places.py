"""Every way to lead a look-up or a download to where nothing may be sent, with each connection of the process recorded."""

import functools
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from local.testing.lookup_server import LookUpServer, run_lookup_server
from shared.attachments.download import get_bounded
from shared.errors import AgentError
from shared.knowledge.lookup import LookUp
from shared.knowledge.lookup_http import LookUpReader
from shared.services.judged_https import Resolve, resolve
from shared.services.secrets import StaticSecret
from shared.settings import Secret

LOOK_UP, DOWNLOAD = ENTRIES = ("look-up", "download")
KEY = "ann@customer.example"
SENT = "a request to a forbidden place"
# How a way ended.
NOT_TAKEN, REFUSED, ALONE = (
    "not taken",
    "refused before it connects",
    "only the judged address is asked",
)
SECONDS, MAX_BYTES = 2.0, 10_000


@dataclass(frozen=True, slots=True)
class Way:
    """One way. `key` is what a look-up fills in; the other fields are those of places.toml."""

    kind: str
    url: str
    key: str = KEY
    names: tuple[tuple[str, ...], ...] = ()
    may: str = ""
    allow_private: bool = False
    location: str = ""
    is_for_keys: bool = False

    @property
    def name(self) -> str:
        """The case as the report names it."""
        if self.is_for_keys:
            return self.key.replace("\r\n", "\\r\\n").replace("|", "\\|")  # in a table
        url = re.sub(r"[/?]\{key\}", "", self.url).replace("{system}", "https://SYSTEM")
        led = ", then ".join(" and ".join(found) for found in self.names)
        return f"{url} to {self.location}" if self.location else f"{url} at {led}" if led else url


@dataclass(frozen=True, slots=True)
class PlaceResult:
    """What came of one way: its end, and the forbidden places that were connected to, or paths asked for."""

    way: Way
    entry: str
    end: str
    forbidden: tuple[str, ...]


Ask = Callable[[Way, str, Resolve, LookUpServer], str]
"""Lead one entry to a URL; how it ended. Raises AgentError."""


class _Recorder:
    """The connections that the process tries to open. None is, but to loopback's test server."""

    def __init__(self, port: int) -> None:
        self.tried: list[tuple[str, int]] = []
        self._system = ("127.0.0.1", port)

    def hear(self, place: tuple[str, int]) -> None:
        self.tried.append(place)
        if place != self._system:
            raise ConnectionRefusedError("nothing leaves this machine")


_recorders: list[_Recorder] = []


@functools.cache
def _install() -> None:
    """Hear of every connection of this process, from the interpreter itself. It cannot be taken out again."""

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if event == "socket.connect" and _recorders:
            place = arguments[1]
            assert isinstance(place, tuple)
            _recorders[-1].hear((str(place[0]), int(place[1])))

    sys.addaudithook(hear)


@contextmanager
def _recorded(port: int) -> Iterator[_Recorder]:
    _install()
    recorder = _Recorder(port)
    _recorders.append(recorder)
    try:
        yield recorder
    finally:
        _recorders.remove(recorder)


def load_ways() -> list[Way]:
    """The ways of places.toml."""
    path = Path(__file__).with_name("places.toml")
    ways = []
    for raw in tomllib.loads(path.read_text(encoding="utf-8"))["place"]:
        names = tuple(tuple(found) for found in raw.get("names", ()))
        rest = {name: raw[name] for name in ("may", "allow_private", "location") if name in raw}
        for url in raw["urls"]:
            for key in raw.get("keys", [KEY]):
                ways.append(Way(raw["kind"], url, key, names, is_for_keys="keys" in raw, **rest))
    return ways


def ask_look_up(way: Way, url: str, resolve: Resolve, system: LookUpServer) -> str:
    """By a look-up of a profile."""
    ca_file = str(system.ca_file)
    try:
        look_up = LookUp(
            url.replace("{key}", "{address}"), (("Status", "status"),), name="orders", ca_file=ca_file,
            allow_private=way.allow_private, time_limit=SECONDS,
        )  # fmt: skip
    except ValueError:
        return NOT_TAKEN
    filled = look_up.build_url(way.key)
    if not filled:
        return NOT_TAKEN
    reader = LookUpReader(Path(), lambda name: StaticSecret(Secret(name)), str, resolve=resolve)
    reader.read(look_up, filled)
    return ALONE


def ask_download(way: Way, url: str, resolve: Resolve, _: LookUpServer) -> str:
    """By the address of an attachment."""
    get_bounded(
        url.replace("{key}", "file"), MAX_BYTES, SECONDS, allow_private=way.allow_private, resolve=resolve
    )
    return ALONE


ASK: Mapping[str, Ask] = {LOOK_UP: ask_look_up, DOWNLOAD: ask_download}


def run_places(ways: Sequence[Way], folder: Path, ask: Mapping[str, Ask] = ASK) -> list[PlaceResult]:
    """Try each way by each entry. `folder` takes the certificates of the system that is asked."""
    with run_lookup_server(folder) as system, _own_certificates(system.ca_file):
        return [
            _try(way, entry, ask[entry], system)
            for way in ways
            for entry in ask
            if entry == LOOK_UP or not way.is_for_keys
        ]


def _try(way: Way, entry: str, ask: Ask, system: LookUpServer) -> PlaceResult:
    system.requests.clear()
    system.headers = {"Location": way.location} if way.location else {}
    url, answers = way.url.replace("{system}", system.url), list(way.names)

    def find(host: str, port: int) -> Sequence[str]:
        if not answers:
            return resolve(host, port)
        return answers.pop(0) if len(answers) > 1 else answers[0]

    path = unquote(
        url.replace("{key}", way.key if entry == LOOK_UP else "file").partition(f":{system.port}")[2]
    )
    if way.location:
        system.statuses[path] = int(way.url.split("/")[1])
    with _recorded(system.port) as recorder:
        try:
            end = ask(way, url, find, system)
        except AgentError:
            end = ALONE if recorder.tried else REFUSED
    forbidden = [f"{host} port {port}" for host, port in recorder.tried if host != way.may]
    forbidden += [
        f"port {port} of {host}"
        for host, port in recorder.tried
        if host == way.may == "127.0.0.1" and port != system.port
    ]
    forbidden += [f"the path {asked}" for asked in system.paths if asked != path]
    return PlaceResult(way, entry, end, tuple(forbidden))


@contextmanager
def _own_certificates(ca_file: Path) -> Iterator[None]:
    """Let the process trust the test server's authority, and use no proxy."""
    own = {"REQUESTS_CA_BUNDLE": str(ca_file), "NO_PROXY": "*", "no_proxy": "*"}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
