"""The key of a service account in the emulator's universe, and certificates of its hosts: generated once, kept in a folder."""

import base64
import datetime as dt
import json
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from local.gke.names import PROJECT

DAYS = 3650
BUNDLES = (
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
)  # variables that may name the machine's own bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The files, in one folder, that a client of the emulator needs."""

    folder: Path
    universe: str  # a domain with its port: clients connect to container.DOMAIN:PORT

    @property
    def key_file(self) -> Path:
        """The service account's key file, in the format of Google's console."""
        return self.folder / "key.json"

    @property
    def bundle(self) -> Path:
        """The certificate authorities of the machine and of the emulator."""
        return self.folder / "bundle.pem"

    @property
    def email(self) -> str:
        """The email address of the service account."""
        return f"slipway@{PROJECT}.iam.gserviceaccount.com"

    @property
    def public_key(self) -> str:
        """The public key that verifies the account's tokens, as PEM."""
        key = serialization.load_pem_private_key(json.loads(self.key_file.read_text())["private_key"].encode(), None)
        return (
            key.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode()
        )

    @property
    def server_key(self) -> Path:
        """The key of the universe's hosts, as PEM."""
        return self.folder / "server.key"

    @property
    def server_certificate(self) -> Path:
        """The certificate of the universe's hosts, as PEM."""
        return self.folder / "server.pem"

    @property
    def google_key(self) -> str:
        """The public key that verifies the tokens that the emulated Google signs, as PEM."""
        certificate = x509.load_pem_x509_certificate(self.server_certificate.read_bytes())
        kinds = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return certificate.public_key().public_bytes(*kinds).decode()

    def server(self) -> tuple[bytes, bytes]:
        """The server's key and certificate, as PEM."""
        return self.server_key.read_bytes(), self.server_certificate.read_bytes()


def make_identity(folder: Path, universe: str, kubernetes_ca: str) -> Identity:
    """The identity in this folder. Generates it if the folder has none."""
    identity = Identity(folder=folder, universe=universe)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (folder / "server.pem").exists():
        _make_certificates(folder, universe.partition(":")[0])
    key = json.loads(identity.key_file.read_text())["private_key"] if identity.key_file.exists() else _pem(_new_key())
    _private(identity.key_file, json.dumps(_account(identity, key), indent=1))
    # A client verifies a cluster's DNS endpoint with the machine's authorities, so the cluster's own is added to them.
    authorities = [*_machine_bundles(), (folder / "ca.pem").read_text(), base64.b64decode(kubernetes_ca).decode()]
    identity.bundle.write_text("\n".join(authorities))
    return identity


def _account(identity: Identity, key: str) -> dict[str, str]:
    return {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "stand",
        "private_key": key,
        "client_email": identity.email,
        "client_id": "1",
        "token_uri": f"https://oauth2.{identity.universe}/token",
        "universe_domain": identity.universe,
    }


def _machine_bundles() -> list[str]:
    """The bundles that the environment names, or the system's. The emulator's authority is added and replaces none."""
    named = {os.environ[name] for name in BUNDLES if os.environ.get(name)} or {ssl.get_default_verify_paths().cafile}
    return [Path(path).read_text() for path in sorted(filter(None, named)) if Path(path).is_file()]


def _make_certificates(folder: Path, domain: str) -> None:
    authority, server = _new_key(), _new_key()
    issuer = _name("Slipway's stand: an emulator of Google")
    certificate = _certificate(issuer, issuer, authority, authority, x509.BasicConstraints(ca=True, path_length=0))
    names = x509.SubjectAlternativeName([x509.DNSName(f"*.{domain}"), x509.DNSName(domain)])
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _private(folder / "server.key", _pem(server))
    signed = _certificate(_name(domain), issuer, server, authority, names)
    (folder / "server.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: rsa.RSAPrivateKey,
    signer: rsa.RSAPrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - dt.timedelta(days=1),
        not_valid_after=now + dt.timedelta(days=DAYS),
    )
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    for one, critical in (
        (extension, isinstance(extension, x509.BasicConstraints)),
        (authority, False),
        (identifier, False),
    ):
        builder = builder.add_extension(one, critical=critical)
    return builder.sign(signer, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
