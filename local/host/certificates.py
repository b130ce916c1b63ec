"""Certificates made for one run, for servers on loopback that speak HTTPS."""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def write_certificates(directory: Path, hosts: Sequence[str]) -> tuple[Path, Path]:
    """Write a CA, and a certificate with key that it signed for the hosts; return their files.

    A host is a name or an address. Both certificates are valid for a day.
    """
    ca_key, host_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = _name("Test CA")
    ca = _certificate(ca_name, ca_key.public_key(), ca_name, is_ca=True)
    signed_ca = ca.add_extension(_CA_KEY_USAGE, critical=True).sign(ca_key, hashes.SHA256())
    host = _certificate(_name(hosts[0]), host_key.public_key(), ca_name, is_ca=False)
    alternative_name = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    host = host.add_extension(alternative_name, critical=False).add_extension(issuer_key, critical=False)
    pem = serialization.Encoding.PEM
    private = host_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    ca_file, host_file = directory / "ca.pem", directory / "host.pem"
    ca_file.write_bytes(signed_ca.public_bytes(pem))
    host_file.write_bytes(host.sign(ca_key, hashes.SHA256()).public_bytes(pem) + private)
    return ca_file, host_file


# Python 3.13 checks chains strictly: a CA must say that it may sign certificates.
_CA_KEY_USAGE = x509.KeyUsage(
    digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
    key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
)  # fmt: skip


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(
    subject: x509.Name, public_key: ec.EllipticCurvePublicKey, issuer: x509.Name, *, is_ca: bool
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )
