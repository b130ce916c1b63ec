"""Where a worker comes from: the environment of the library worker, or a checkout of the whole worker."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.worker.worker import ROOT

VARIABLE = "AZURE_FUNCTIONS_WORKER"
LIBRARY_PYTHON = ROOT / ".worker" / "bin" / "python"
UV = Path(sys.executable).with_name("uv")
PEERS = ROOT / "tests" / "worker"


def find_library_worker() -> list[str]:
    """The command for `azure-functions-runtime`; skips the test where its environment is missing."""
    if not LIBRARY_PYTHON.exists():
        pytest.skip(f"no {LIBRARY_PYTHON}: `make .worker/.installed` makes it, with Python 3.13")
    return [str(LIBRARY_PYTHON), str(PEERS / "runtime_peer.py"), str(ROOT)]


def build_whole_worker(version: str, folder: Path) -> list[str]:
    """The command for the checkout's worker on a Python version, built into `folder`; skips where there is none."""
    checkout = os.environ.get(VARIABLE)
    if not checkout:
        pytest.skip(
            f"left out: set {VARIABLE} to a checkout of Microsoft's worker to run the app in it, over gRPC"
        )
    root = next(path for path in (Path(checkout) / "workers", Path(checkout)) if path.is_dir())
    package = "proxy_worker" if version == "3.13" else "azure_functions_worker"
    if not (root / package).is_dir():
        pytest.skip(f"{VARIABLE}: the checkout has no {package}, the worker of Python {version}")
    python = folder / "bin" / "python"
    made = _run("venv", "--python", version, "--no-python-downloads", str(folder))
    if made.returncode:
        pytest.skip(f"{VARIABLE}: no Python {version} on this machine")
    needs = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = [need for need in needs if not need.startswith("azure-functions")]  # these are locked
    locked = ["-r", str(PEERS / "requirements.txt")]
    wanted.append("setuptools<81")  # an older compiler of messages imports pkg_resources
    for packages in (locked, wanted):  # the second has no hashes
        done = _run("pip", "install", "--python", str(python), *packages)
        assert done.returncode == 0, done.stderr
    shutil.copytree(root / package, folder / "app" / package)
    _compile_messages(python, folder / "app" / package / "protos")
    peer = str(PEERS / "grpc_peer.py")
    return ["env", f"PYTHONPATH={folder / 'app'}", str(python), peer, str(ROOT), package]


def _run(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run uv, which also finds the Pythons that pyenv has."""
    pyenv = (Path.home() / ".pyenv" / "versions").glob("*/bin")
    path = os.pathsep.join([os.environ["PATH"], *map(str, pyenv)])
    return subprocess.run(
        [UV, *words], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )


def _compile_messages(python: Path, protos: Path) -> None:
    """Compile the messages into their package, as the worker's own build does."""
    source = protos / "_src" / "src" / "proto"
    names = [str(path.relative_to(source)) for path in source.rglob("*.proto")]
    out = [f"-I{source}", f"--python_out={protos}", f"--grpc_python_out={protos}"]
    subprocess.run([python, "-m", "grpc_tools.protoc", *out, *names], check=True)
    for path in protos.rglob("*_pb2*.py"):
        text = path.read_text()
        package = f"{protos.parent.name}.protos"
        text = re.sub(r"^from (identity|shared) import", rf"from {package}.\1 import", text, flags=re.M)
        text = re.sub(r"^import (FunctionRpc_pb2)", rf"from {package} import \1", text, flags=re.M)
        path.write_text(text)
