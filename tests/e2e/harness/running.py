"""Doubles and servers with the checks of what they leave behind, for fixtures of any scope."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import leaks
from .double import ThreadedDouble
from .server import PROGRAM, Server, free_port

DEFAULT_WORKERS = 2
LOG_SHOWN_BYTES = 8000


@contextmanager
def running_double(**options) -> Iterator[ThreadedDouble]:
    """An E2B double; at the end its ledger must be empty and unbroken."""
    double = ThreadedDouble(**options)
    try:
        yield double
        leaks.check_ledger(double)
    finally:
        double.stop()


def wait_ready_or_destroy(server: Server, workers: int | None) -> None:
    """A server that does not come up is ended here: there is nothing to check about it but its log."""
    try:
        server.wait_ready(workers)
    except AssertionError:
        server.destroy()
        raise


@contextmanager
def running_servers(double: ThreadedDouble, folder: Path, show_logs: bool = True):
    """Starts servers against the double: start("--ping-interval", "1", env={…}, workers=4). In env None unsets.

    argv: its whole command line; its workers are waited for only if workers says how many they are.
    tls: the context of a client, when the settings make it an HTTPS server. show_logs: prints the end of each at the end.

    At the end each must give back descriptors, sandboxes, processes and files, and exit 0 on TERM.
    """
    started: list[Server] = []

    def start(*args, env=None, workers=None, port=None, ready=True, argv=None, tls=None) -> Server:
        port = port or free_port()
        if argv is None and workers is None:
            workers = DEFAULT_WORKERS
        settings = ["--workers", workers, "--timeout", "600", "--bind", f"127.0.0.1:{port}", *args]
        keys = {"E2B_API_KEY": double.key, "E2B_API_URL": double.url, "E2B_SANDBOX_URL": double.url,
                "ANTHROPIC_API_KEY": "test-key", "SANDSTORM_INSTANCE": "e2e"}  # fmt: skip
        given = {name: value for name, value in (keys | (env or {})).items() if value is not None}
        server = Server(folder / f"server-{len(started)}", argv or [PROGRAM, *settings], given, port, tls)
        server.service_ports.add(double.port)
        if ready:
            wait_ready_or_destroy(server, workers)
        started.append(server)
        return server

    try:
        yield start
        for server in started:
            leaks.check_log(server)  # first: a crashed worker explains everything that follows
            if server.running:
                leaks.check_ledger(double)
                leaks.check_descriptors(server)
                assert server.stop() == server.expected_exit, server.stderr
            leaks.check_processes(server)
            leaks.check_files(server)
            leaks.check_log(server)
    finally:
        for server in started:
            if show_logs:
                print(f"--- log of {server.pid}\n{server.stderr[-LOG_SHOWN_BYTES:]}")  # pytest shows it when a check failed
            server.destroy()
