"""What the function app declares to the platform: its functions and their bindings."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_PRINT = """
import json, function_app
functions = function_app.app.get_functions()
print(json.dumps({f.get_function_name(): json.loads(f.get_function_json())["bindings"] for f in functions}))
"""


def read_declared_functions() -> dict[str, list[dict[str, Any]]]:
    """The bindings of every function by name, from a process of its own: the library tells them only once."""
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", _PRINT], cwd=root, capture_output=True, text=True, check=True
    )
    declared: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    return declared
