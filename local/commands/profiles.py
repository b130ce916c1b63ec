"""`python -m local profiles`: whether the file with the mailbox profiles is right."""

import os

from rich.console import Console
from rich.text import Text

from local.host.run import MISCONFIGURED, OK, load_local_settings, report_misconfigured
from shared.composition import open_profiles
from shared.errors import ConfigurationError
from shared.profiles.profile_file import MAX_PROFILE_CHARACTERS, PROFILE_FILE
from shared.settings import find_config_path


def profiles(console: Console) -> int:
    """Check the file in CONFIG_PATH as the agent does at its start; return the exit status.

    It needs no other setting. Whether the account has the mailboxes only the agent knows.
    """
    try:
        load_local_settings(os.environ)
        folder = find_config_path(os.environ)
        path = folder / PROFILE_FILE
        if not path.exists():
            console.print(Text(f"{path} does not exist: write it, or set CONFIG_PATH to its folder.", "red"))
            return MISCONFIGURED
        found = open_profiles(folder, has_search=bool(os.environ.get("SEARCH_ENDPOINT", "").strip()))
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    for name, profile in {"default": found.default, **found.own}.items():
        size = f"{profile.prompt_characters:,} of {MAX_PROFILE_CHARACTERS:,} characters"
        console.print(Text(f"{name}: {size}, {len(profile.category_names)} categories"))
    console.print(Text(f"{path} is right.", "green"))
    return OK
