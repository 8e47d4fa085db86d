"""Certificates of a CA of the test's own, made with the openssl program."""

import ssl
import subprocess
from functools import cached_property
from pathlib import Path


def openssl(*args: str | Path) -> None:
    """Runs it; CalledProcessError when it fails."""
    subprocess.run(["openssl", *args], check=True, capture_output=True)


class Authority:
    """A CA in a folder."""

    def __init__(self, folder: Path, name: str = "test CA"):
        self.folder = folder
        self.name = name
        folder.mkdir()
        self._request(self.key, "-x509", "-days", "2", "-subj", f"/CN={name}", "-out", self.certificate)

    @property
    def certificate(self) -> Path:
        """The CA's own: what a client trusts."""
        return self.folder / "ca.pem"

    @property
    def key(self) -> Path:
        """Of the CA."""
        return self.folder / "ca.key"

    @staticmethod
    def _request(key: Path, *args: str | Path) -> None:
        """A new key, and a request or certificate for it."""
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, *args)

    def issue(
        self, name: str, days: int = 1, extension: str = "subjectAltName=IP:127.0.0.1", by: tuple[Path, Path] | None = None
    ) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1 with this common name, and its key. by: certificate and key of another issuer."""
        issuer, issuer_key = by or (self.certificate, self.key)
        certificate, key, request = (self.folder / f"{name}.{kind}" for kind in ("pem", "key", "csr"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"{extension}\n")
        self._request(key, "-subj", f"/CN={name}", "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", issuer, "-CAkey", issuer_key, "-CAcreateserial",
                "-days", str(days), "-extfile", extensions, "-out", certificate)  # fmt: skip
        return certificate, key

    def server(self, name: str, subject: str = "IP:127.0.0.1") -> ssl.SSLContext:
        """A server with a certificate of this CA."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self.issue(name, extension=f"subjectAltName={subject}"))
        return context

    @cached_property
    def client(self) -> ssl.SSLContext:
        """A client that trusts this CA and nobody else."""
        return self.new_client()

    def new_client(self, identity: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """Likewise, with sessions of its own, and a certificate of its own if one is given."""
        context = ssl.create_default_context(cafile=self.certificate)
        if identity:
            context.load_cert_chain(*identity)
        return context
