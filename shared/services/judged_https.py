"""HTTPS to a host that an operator named: its addresses are judged, and one of them is connected to."""

import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import requests
from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy
from urllib3 import PoolManager

from shared.errors import ConfigurationError
from shared.services.http_session import build_session

HTTPS_PORT = 443
# Where a cloud answers its machines, with their identity's tokens among other things: never a service's.
METADATA = frozenset(map(ipaddress.ip_address, ("169.254.169.254", "168.63.129.16", "fd00:ec2::254")))
GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_NUMERIC = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)")  # what an old resolver takes for an address

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
"""The addresses of a host, in the order in which to try them. Raises OSError."""


class ForbiddenHostError(ConfigurationError):
    """The host that a URL names has an address that nothing may be sent to."""


def resolve(host: str, port: int) -> tuple[str, ...]:
    """Ask the machine's resolver. See Resolve."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(place[4][0]) for place in found))


def check_host(host: str) -> None:
    """Raise ValueError for a host that no name server knows: a number that is no address as it is written."""
    try:
        ipaddress.ip_address(host)
        is_usual = "%" not in host
    except ValueError:
        last = host.removesuffix(".").rpartition(".")[2]
        is_usual = bool(last) and not _NUMERIC.fullmatch(last) and not set(host) & set(":%")
    if not is_usual:
        raise ValueError(
            f"has the host {host[:60]!r}, which is neither a name nor an address as it is usually "
            "written: write the service's name"
        )


def find_address(host: str) -> str:
    """The address that stands in place of a host's name; "" for a name."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""


def find_forbidden(address: str, *, allow_private: bool) -> str:
    """Why nothing may be sent to an address, as words that go on after it; "" where it may be.

    Of a form that wraps another address (mapped, 6to4, NAT64), the one inside is judged too.
    """
    try:
        outer = ipaddress.ip_address(address)
    except ValueError:
        return "is no address"
    inner = _unwrap(outer)
    for found in (outer, inner):
        if found in METADATA or found.is_link_local:
            return "is where a cloud answers its own machines"
        if found.is_unspecified or found.is_multicast:
            return "is no host's address"
    if allow_private:
        return ""
    is_public = outer.is_global and not outer.is_reserved and outer is inner
    if isinstance(outer, ipaddress.IPv6Address):
        is_public = is_public and outer in GLOBAL_V6 and outer.teredo is None
    return "" if is_public else "is private (allow_private: true would allow it)"


def _unwrap(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for; the address itself where it stands for none."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and (any(address in net for net in NAT64) or int(address) >> 32 == 0):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if int(address) > 1 else None
    return inner or address


class PinnedAdapter(HTTPAdapter):
    """Connects to one address, whatever it is the host of; TLS asks for the name that the URL has.

    Without an `address` it connects to the host, as behind a proxy. `on_connect` is given each connection's
    socket, a proxy's too. Nothing is tried twice.
    """

    def __init__(self, address: str, on_connect: Callable[[socket.socket], None]) -> None:
        self._address, self._on_connect = address, on_connect
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """See HTTPAdapter."""
        super().init_poolmanager(*args, **options)
        self._watch(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> PoolManager:
        """See HTTPAdapter."""
        return self._watch(super().proxy_manager_for(proxy, **options))

    def _watch(self, manager: PoolManager) -> PoolManager:
        """Have the manager's connections given to `on_connect`, a proxy's too, whose class differs."""
        usual: Any = manager.pool_classes_by_scheme["https"]
        on_connect = self._on_connect

        def connect(connection: Any) -> None:
            usual.ConnectionCls.connect(connection)
            on_connect(
                getattr(connection.sock, "socket", connection.sock)
            )  # TLS inside a proxy's TLS wraps it

        connections = type("Connection", (usual.ConnectionCls,), {"connect": connect})
        pool = type("Pool", (usual,), {"ConnectionCls": connections})
        manager.pool_classes_by_scheme = {"https": pool}
        return manager

    def get_connection_with_tls_context(
        self, request: PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """Where to connect to. See HTTPAdapter, which sets the certificates that are trusted."""
        if not self._address:
            return super().get_connection_with_tls_context(request, verify, proxies, cert)
        parts = urlsplit(str(request.url))
        request.headers["Host"] = parts.netloc
        return self.poolmanager.connection_from_host(
            self._address, parts.port or HTTPS_PORT, "https", {"server_hostname": parts.hostname}
        )


def open_session(
    url: str, resolve: Resolve, *, allow_private: bool, on_connect: Callable[[socket.socket], None]
) -> requests.Session:
    """A session for `url` alone, that connects to an address which was judged: to the first of its host's.

    A proxy resolves names itself: behind one, only an address in place of a name can be judged. `on_connect`:
    see PinnedAdapter. Raises ConfigurationError, which is ForbiddenHostError if one of the addresses is
    forbidden, and OSError and UnicodeError for a host without any.
    """
    session, parts = build_session(url), urlsplit(url)
    host = parts.hostname or ""
    is_proxied = bool(select_proxy(url, session.proxies))
    addresses: Sequence[str]
    if is_proxied:
        addresses = [*filter(None, [find_address(host)])]
    else:
        addresses = resolve(host, parts.port or HTTPS_PORT)
    for address in addresses:
        reason = find_forbidden(address, allow_private=allow_private)
        if reason:
            raise ForbiddenHostError(f"{host} has the address {address}, which {reason}: correct the url.")
    if not (is_proxied or addresses):
        raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
    session.mount("https://", PinnedAdapter("" if is_proxied else addresses[0], on_connect))
    return session


@contextmanager
def cut_off(
    seconds: float,
) -> Iterator[tuple[Callable[[socket.socket], None], Callable[[], bool]]]:
    """Takes sockets whose connections end after so many seconds, however slowly the other side goes on.

    One that is taken later ends at once. Also tells whether that came to pass.
    """
    sockets: list[socket.socket] = []
    ended = threading.Event()

    def cut() -> None:
        ended.set()
        for taken in [*sockets]:
            with suppress(OSError):  # closed already
                socket.socket.shutdown(taken, socket.SHUT_RDWR)  # TLS itself is in another thread's hands

    def take(connected: socket.socket) -> None:
        sockets.append(connected)
        if ended.is_set():
            cut()

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield take, ended.is_set
    finally:
        timer.cancel()
