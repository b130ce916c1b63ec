"""Emails whose Reply-To is not their sender: another customer, an outsider, or an address that looks like one."""

import base64
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from shared.domain import parse_address
from tests.certify.customers import OUTSIDER_HOST, Request

Build = Callable[[Request, int], Request]

# How a Reply-To names an address; the second one is the sender's own.
FORMS: Mapping[str, Callable[[str, str], str]] = {
    "the address alone": lambda address, _: address,
    "two addresses": lambda address, sender: f"{address}, {sender}",
    "two addresses, the sender's first": lambda address, sender: f"{sender}, {address}",
    "the sender's address as the name": lambda address, sender: f'"{sender}" <{address}>',
    "a comma in the name": lambda address, sender: f"{sender}, Ann Lee <{address}>",
    "encoded words as the name": lambda address, sender: f"{encode(f'{sender},')} <{address}>",
    "encoded words": lambda address, _: encode(f"<{address}>"),
    "a group": lambda address, sender: f"Team: {address}, {sender};",
    "a group of one": lambda address, _: f"Team: {address};",
    "the sender's address in a comment in the host": lambda address, sender: _split(
        address, f" (<{sender}>) "
    ),
    "the sender's address, then a comment in the host": lambda address, sender: (
        f"<{sender}>, {_split(address, '(x)')}"
    ),
    "the sender's address, then blanks around the host's dot": lambda address, sender: (
        f"<{sender}>, {_split(address, ' ')}"
    ),
    "the sender's address, then a blank in the host": lambda address, sender: (
        f"<{sender}>, {address.replace('@', '@a ')}"
    ),
    "the sender's address, then encoded words": lambda address, sender: (
        f"<{sender}>, {encode(f'<{address}>')}"
    ),
    "an address in quotes, then the sender's": lambda address, sender: f'"{address}", <{sender}>',
}


@dataclass(frozen=True, slots=True)
class LookAlike:
    """An address that looks like another one; `is_same`: it is the same one in another spelling."""

    spell: Callable[[str], str]
    is_same: bool = False


_CYRILLIC = str.maketrans("aeo", "\u0430\u0435\u043e")
_WIDE = str.maketrans(
    {letter: chr(ord(letter) + 0xFEE0) for letter in map(chr, range(ord("a"), ord("z") + 1))}
)

LOOK_ALIKES: Mapping[str, LookAlike] = {
    "Cyrillic letters": LookAlike(lambda address: _spell_name(address, lambda name: name.translate(_CYRILLIC))),
    "combining marks": LookAlike(
        lambda address: _spell_name(address, lambda name: unicodedata.normalize("NFD", f"\u00e1{name[1:]}"))
    ),
    "full-width letters": LookAlike(lambda address: _spell_name(address, lambda name: name.translate(_WIDE))),
    "a tag": LookAlike(lambda address: _spell_name(address, lambda name: f"{name}+eve")),
    "a full-width @": LookAlike(lambda address: address.replace("@", "\uff20")),
    "a full-width host": LookAlike(lambda address: address.replace("@customer", "@customer".translate(_WIDE)), is_same=True),
    "a trailing dot": LookAlike(lambda address: f"{address}.", is_same=True),
    "upper case": LookAlike(str.upper, is_same=True),
}  # fmt: skip


def _split(address: str, between: str) -> str:
    """The address in the obsolete syntax, which lets blanks and comments stand before a dot of the host."""
    return address.replace(".example", f"{between}.example")


def encode(text: str) -> str:
    return f"=?utf-8?b?{base64.b64encode(text.encode()).decode()}?="


def _spell_name(address: str, spell: Callable[[str], str]) -> str:
    name, at, host = address.partition("@")
    return f"{spell(name)}{at}{host}"


def _with_reply_to(request: Request, reply_to: str) -> Request:
    """With the header. What the contract leaves open differs between the victims."""
    number = request.victim.number
    return replace(
        request, reply_to=reply_to, is_shown=number % 2 == 0, is_followed=number > 0, is_revised=True
    )


def _from_attacker(form: str) -> Build:
    return lambda request, _: _with_reply_to(request, FORMS[form](request.victim.address, request.attacker))


def _from_victim(form: str) -> Build:
    return lambda request, _: _with_reply_to(
        request.as_victim(), FORMS[form](request.attacker, request.victim.address)
    )


def _from_look_alike(name: str) -> Build:
    def build(request: Request, _: int) -> Request:
        address, alike = request.victim.address, LOOK_ALIKES[name]
        sender = alike.spell(address)
        readers = (address if alike.is_same else parse_address(sender),)
        return _with_reply_to(replace(request, attacker=sender, sender=sender, readers=readers), address)

    return build


def _to_look_alike(name: str) -> Build:
    def build(request: Request, _: int) -> Request:
        sender = LOOK_ALIKES[name].spell(request.victim.address)
        return _with_reply_to(replace(request.as_victim(), attacker=sender), sender)

    return build


_OUTSIDER = f"mallory@{OUTSIDER_HOST}"
REPLY_TO_WAYS: Mapping[str, Build] = {
    "Reply-To an outsider": lambda request, _: _with_reply_to(request, _OUTSIDER),
    "a forged sender, Reply-To an outsider": lambda request, _: _with_reply_to(request.as_victim(), _OUTSIDER),
    **{f"Reply-To the other: {form}": _from_attacker(form) for form in FORMS},
    **{f"a forged sender, Reply-To the attacker: {form}": _from_victim(form) for form in FORMS},
    **{f"an address like the other's, Reply-To the other: {name}": _from_look_alike(name) for name in LOOK_ALIKES},
    **{f"a forged sender, Reply-To an address like it: {name}": _to_look_alike(name) for name in LOOK_ALIKES},
}  # fmt: skip
# Those whose replies the service sends to the sender alone; the last has no address in it.
HARMLESS = {
    *(way for way in REPLY_TO_WAYS for name, alike in LOOK_ALIKES.items() if way.endswith(f": {name}") and alike.is_same),
    "a forged sender, Reply-To an address like it: a full-width @",
}  # fmt: skip
