"""Azurite, Microsoft's storage emulator, as a Table endpoint for tests."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from azure.core.credentials import AzureNamedKeyCredential
from azure.data.tables import TableServiceClient

REPOSITORY = Path(__file__).parent.parent.parent
NODE_FOLDERS = [REPOSITORY / folder / "node_modules" / ".bin" for folder in (".node", ".")]
START_SECONDS = 60.0

# The account that every Azurite has: https://learn.microsoft.com/azure/storage/common/storage-use-azurite
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def find_azurite() -> Path | None:
    """The program `azurite-table`: named by AZURITE_BIN, in the repository's node_modules, or on the PATH."""
    named = os.environ.get("AZURITE_BIN")
    folders = os.pathsep.join([*(str(folder) for folder in NODE_FOLDERS), os.environ.get("PATH", "")])
    program = named or shutil.which("azurite-table", path=folders)
    return Path(program) if program and shutil.which("node") else None


class Azurite:
    """A running table service on 127.0.0.1 that keeps everything in memory; use it as a context manager."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self.credential = AzureNamedKeyCredential(ACCOUNT, KEY)

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="azurite-")
        self._log = Path(self._folder.name) / "log"
        port = _free_port()
        self.endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    *("--silent", "--skipApiVersionCheck", "--disableTelemetry", "--inMemoryPersistence"),
                    *("--tableHost", "127.0.0.1", "--tablePort", str(port)),
                ],
                cwd=self._folder.name,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_up()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def clear(self) -> None:
        """Delete every table."""
        with TableServiceClient(self.endpoint, credential=self.credential) as service:
            for table in list(service.list_tables()):
                service.delete_table(table.name)

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if "successfully started" in self._log.read_text():
                return
            time.sleep(0.05)
        raise RuntimeError(f"Azurite did not start: {self._log.read_text()}")

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
