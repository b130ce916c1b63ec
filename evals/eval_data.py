"""Where the public data of the evaluations is: folders in the one that EVAL_DATA_DIR names."""

from collections.abc import Mapping
from pathlib import Path

from shared.errors import ConfigurationError


def find_data(environment: Mapping[str, str], name: str, holding: str) -> Path:
    """The folder `name` in EVAL_DATA_DIR. Raises ConfigurationError that says what it has to hold."""
    folder = environment.get("EVAL_DATA_DIR", "").strip()
    data = Path(folder) / name
    if not folder or not data.is_dir():
        raise ConfigurationError(
            f"EVAL_DATA_DIR is not set to a folder with {name}: set it to one that has {holding} in it."
        )
    return data
