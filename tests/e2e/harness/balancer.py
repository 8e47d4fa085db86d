"""nginx and haproxy in front of servers, with the configurations that sandstorm-deploy(7) shows."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .client import RawConnection
from .examples import the_only
from .server import Server, free_port
from .waiting import deadline, eventually

def replace_once(text: str, old: str, new: str) -> str:
    """The test's own addresses in place of the example's; the example must have it."""
    assert text.count(old) == 1, f"{old!r} is in the example {text.count(old)} times"
    return text.replace(old, new)


class Balancer:
    """A running one; for clients it is a server."""

    tls = None

    def __init__(self, port: int, process: subprocess.Popen, log: Path):
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._process = process
        self._log = log

    def wait_ready(self) -> None:
        """Waits until it takes connections."""
        eventually(self._accepts, 10, "the balancer to listen")

    def _accepts(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            with RawConnection(self):
                return True
        except ConnectionError:
            return False


@contextmanager
def _running(command: list[str], port: int, folder: Path) -> Iterator[Balancer]:
    """Runs it in the foreground, and ends it."""
    log = folder / "balancer.log"
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            balancer = Balancer(port, process, log)
            balancer.wait_ready()
            yield balancer
        finally:
            process.terminate()
            process.wait(deadline(20))


@contextmanager
def running_nginx(folder: Path, server: Server) -> Iterator[Balancer]:
    """nginx with the manual's http block, as the user who runs this."""
    port = free_port()
    http = replace_once(the_only("nginx").text, "127.0.0.1:8000", f"127.0.0.1:{server.port}")
    http = replace_once(http, "listen 80;", f"listen 127.0.0.1:{port};")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{paths}{http}}}\n"
    )
    with _running(["/usr/sbin/nginx", "-e", "stderr", "-c", str(config), "-p", str(folder)], port, folder) as balancer:
        yield balancer


@contextmanager
def running_haproxy(folder: Path, one: int, two: int, words: str = "", check_every: str = "1s") -> Iterator[Balancer]:
    """haproxy with the manual's configuration in front of two ports.

    words: more for its default-server, in place of the header that tells who the client is.
    """
    port = free_port()
    config = replace_once(the_only("haproxy").text, "bind :80\n", f"bind 127.0.0.1:{port}\n")
    config = replace_once(config, "10.0.0.1:8000", f"127.0.0.1:{one}")
    config = replace_once(config, "10.0.0.2:8000", f"127.0.0.1:{two}")
    config = replace_once(config, "inter 1s", f"inter {check_every}")
    if words:
        config = replace_once(config, "default-server", f"default-server {words}")
        config = replace_once(config, "    option forwardfor\n", "")
    path = folder / "haproxy.cfg"
    path.write_text(config)
    with _running(["/usr/sbin/haproxy", "-db", "-f", str(path)], port, folder) as balancer:
        yield balancer
