"""A listener that cannot be spoken TLS with: it answers with something else, or with a certificate nobody trusts."""

import socket
import ssl
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

NO_TLS = b"HTTP/1.0 400 this is no TLS\r\n\r\n"


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that no store holds, and its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


class TlsListener:
    """Counts the connections it spoils. folder: where a certificate can be made; None: no TLS at all."""

    def __init__(self, folder: Path | None = None):
        self.connections = 0
        self._context = None
        if folder:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*self_signed(folder))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, name="tls-listener", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """Ends it."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        """One connection after the other, until the listener is shut down."""
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                with connection, suppress(OSError):
                    self._spoil(connection)

    def _spoil(self, connection: socket.socket) -> None:
        """The handshake fails; what the peer says first is read, so that the close is no reset."""
        connection.settimeout(10)
        if self._context:
            self._context.wrap_socket(connection, server_side=True).close()
            return
        connection.recv(65536)
        connection.sendall(NO_TLS)
