"""Azure's identity endpoint and Key Vault on loopback, for the unmodified SDK clients.

The vault speaks https under its production names: a CONNECT proxy named in HTTPS_PROXY leads them
to loopback and refuses every other, and a test CA named in REQUESTS_CA_BUNDLE vouches for them.
"""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from local.host.certificates import write_certificates

VAULT_HOST = "myvault.vault.azure.net"
VAULT_URL = f"https://{VAULT_HOST}"
PRIVATE_LINK_HOST = "myvault.privatelink.vaultcore.azure.net"  # resolves too, but the SDK does not take it
CLIENT_ID = "11111111-2222-3333-4444-555555555555"
IDENTITY_HEADER = "identity-header-of-this-app"
ACCESS_TOKEN = "entra-token-for-the-vault"
RESOURCE = "https://vault.azure.net"
CHALLENGE = f'Bearer authorization="https://login.microsoftonline.com/a-tenant", resource="{RESOURCE}"'


@dataclass
class LoopbackCloud:
    """The state behind the three servers: set what they do, read what they were asked."""

    secrets: dict[str, str] = field(default_factory=dict)
    vault_status: int | None = None  # answer this instead of a secret
    vault_down: bool = False  # the proxy cannot reach the vault
    before_secret: Callable[[], object] = lambda: None  # called by the vault before it answers a reading
    identity_header: str = IDENTITY_HEADER
    token_seconds: int = 3600
    identity_status: int | None = None  # answer this instead of a token
    token_queries: list[dict[str, str]] = field(default_factory=list)
    secret_reads: list[str] = field(default_factory=list)  # authorized requests for a secret
    refused_hosts: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    vault_port: int = 0


@contextmanager
def run_loopback_cloud(directory: Path) -> Iterator[LoopbackCloud]:
    """Run the servers; `directory` takes the certificates. Apply `environment` before building clients."""
    cloud = LoopbackCloud()
    ca_file, host_file = write_certificates(directory, (VAULT_HOST, PRIVATE_LINK_HOST))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(host_file)
    with ExitStack() as stack:
        vault = _Server(_Vault, cloud)
        vault.socket = tls.wrap_socket(vault.socket, server_side=True, do_handshake_on_connect=False)
        ports = [
            stack.enter_context(_running(s))
            for s in (vault, _Server(_Identity, cloud), _Server(_Proxy, cloud))
        ]
        cloud.vault_port, identity_port, proxy_port = ports
        cloud.environment = {
            "IDENTITY_ENDPOINT": f"http://127.0.0.1:{identity_port}/msi/token",
            "IDENTITY_HEADER": IDENTITY_HEADER,
            "HTTPS_PROXY": f"http://127.0.0.1:{proxy_port}",
            "NO_PROXY": "",
            "REQUESTS_CA_BUNDLE": str(ca_file),
        }
        yield cloud


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler: type["_Handler"], cloud: LoopbackCloud) -> None:
        self.cloud = cloud
        super().__init__(("127.0.0.1", 0), handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""


@contextmanager
def _running(server: _Server) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep the test output clean."""

    def answer(self, status: int, body: object, **headers: str) -> None:
        """Answer with JSON."""
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Identity(_Handler):
    """App Service's identity endpoint, api-version 2019-08-01."""

    def do_GET(self) -> None:
        cloud = self.server.cloud
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        cloud.token_queries.append(query)
        if self.headers.get("X-IDENTITY-HEADER") != cloud.identity_header:
            self.answer(401, {"statusCode": 401, "message": "wrong header"})
        elif cloud.identity_status is not None:
            self.answer(cloud.identity_status, {"statusCode": cloud.identity_status, "message": "broken"})
        else:
            token = {"access_token": ACCESS_TOKEN, "expires_on": str(int(time.time()) + cloud.token_seconds)}
            self.answer(200, {**token, "resource": query["resource"], "token_type": "Bearer"})


class _Vault(_Handler):
    """Key Vault's GET of a secret, with its challenge."""

    def do_GET(self) -> None:
        cloud = self.server.cloud
        if cloud.vault_down:
            self.close_connection = True  # a tunnel that was open already
            return
        if self.headers.get("Authorization") != f"Bearer {ACCESS_TOKEN}":
            self.answer(401, {"error": {"code": "Unauthorized"}}, WWW_Authenticate=CHALLENGE)
            return
        name = urlsplit(self.path).path.split("/")[2]
        cloud.secret_reads.append(name)
        cloud.before_secret()
        if cloud.vault_status is not None:
            self.answer(cloud.vault_status, {"error": {"code": "Refused"}}, Retry_After="3600")
        elif name not in cloud.secrets:
            self.answer(404, {"error": {"code": "SecretNotFound"}})
        else:
            secret = {"id": f"{VAULT_URL}/secrets/{name}/1", "value": cloud.secrets[name], "attributes": {}}
            self.answer(200, secret)


class _Proxy(_Handler):
    """A CONNECT proxy that knows the vault's hosts."""

    def do_CONNECT(self) -> None:
        cloud = self.server.cloud
        self.close_connection = True
        if self.path not in (f"{VAULT_HOST}:443", f"{PRIVATE_LINK_HOST}:443"):
            cloud.refused_hosts.append(self.path)
            self.send_error(403)
        elif cloud.vault_down:
            self.send_error(502)
        else:
            with socket.create_connection(("127.0.0.1", cloud.vault_port)) as vault:
                self.send_response(200)
                self.end_headers()
                self._relay(vault)

    def _relay(self, vault: socket.socket) -> None:
        back = threading.Thread(target=_copy_until_closed, args=(vault, self.connection))
        back.start()
        _copy_until_closed(self.connection, vault)
        back.join()


def _copy_until_closed(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass  # the other direction has closed it
    finally:
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # already closed
