"""Machine mail is told from people's mail in the world's languages."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from shared.mail.machine_mail import is_machine_sender, is_machine_subject

DATA = Path(__file__).parent / "machine_mail"
SENDER = "Ann Lee <ann@customer.example>"
MIN_LANGUAGES = 30
MIN_RECALL = 0.9


def load(name: str) -> dict[str, Any]:
    return tomllib.loads((DATA / name).read_text(encoding="utf-8"))


def test_gathered_subjects_of_machines_are_recognised_in_many_languages() -> None:
    data = load("automatic.toml")
    gathered = [
        (language, subject)
        for group in data["group"]
        for language, subjects in group["subjects"].items()
        for subject in subjects
    ]
    missed = {subject for _, subject in gathered if not is_machine_subject(subject, SENDER)}
    recall = 1 - sum(subject in missed for _, subject in gathered) / len(gathered)
    languages = {language for language, subject in gathered if subject not in missed}
    print(f"{recall:.1%} of {len(gathered)} subjects, {len(languages)} languages")
    assert missed == set(data["known_misses"])
    assert recall >= MIN_RECALL
    assert len(languages) >= MIN_LANGUAGES


@pytest.mark.parametrize("subject", [*load("people.toml")["written"], *load("people.toml")["gathered"]])
def test_subjects_that_people_write_about_automatic_mail_pass(subject: str) -> None:
    assert not is_machine_subject(subject, SENDER)
