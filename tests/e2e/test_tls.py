"""HTTPS for clients: versions, tickets, certificates of clients, reload of the files, and what is no TLS."""

import asyncio
import re
import signal
import socket
import ssl
import subprocess
import time

import httpx
import pytest
from harness import procfs
from harness.authority import Authority, openssl
from harness.client import body_of, new_client, open_query, query, query_bytes, script, status_of
from harness.open_streams import OpenStreams
from harness.server import memory_slack_kib, run_program, seconds_since
from harness.waiting import deadline, eventually, eventually_async

HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
OPEN_STREAMS = 40
OP_IGNORE_UNEXPECTED_EOF = 1 << 7  # the ssl module names it from 3.12 on
IDLE_CONNECTIONS = 200
# What one idle TLS connection may cost a worker; measured: some 18 KiB.
CONNECTION_KIB = 32


@pytest.fixture
def start_tls(start_server, authority):
    """start_server with a certificate of the authority."""
    certificate, key = authority.issue("server")

    def start(*args, **options):
        given = {"tls": authority.client} | options
        return start_server("--tls-cert", certificate, "--tls-key", key, *args, **given)

    return start


@pytest.fixture
async def tls_client(authority):
    """An HTTPS client."""
    async with new_client(tls=authority.client) as opened:
        yield opened


def connect(server, context: ssl.SSLContext, **options) -> ssl.SSLSocket:
    """A TLS connection whose handshake is done."""
    plain = socket.create_connection(("127.0.0.1", server.port), timeout=deadline(10))
    try:
        return context.wrap_socket(plain, server_hostname="127.0.0.1", **options)
    except BaseException:
        plain.close()
        raise


def read_to_end(connection: socket.socket) -> bytes:
    """Everything to the close."""
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def ask(server, context: ssl.SSLContext, **options) -> tuple[ssl.SSLSession, bool]:
    """A connection on which /health was answered: the ticket that came with it, and whether it was resumed."""
    with connect(server, context, **options) as connection:
        connection.sendall(HEALTH)
        assert status_of(read_to_end(connection)) == 200
        return connection.session, connection.session_reused


def strict_client(authority) -> ssl.SSLContext:
    """A client to whom a FIN without close_notify is an error; Python's default forgives it."""
    context = authority.new_client()
    context.options &= ~OP_IGNORE_UNEXPECTED_EOF
    return context


# --- what is spoken ---


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_end_with_close_notify(start_tls, authority, version):
    server = start_tls()
    context = strict_client(authority)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    with connect(server, context, suppress_ragged_eofs=False) as connection:
        assert connection.version() == version.name.replace("_", ".")
        assert connection.selected_alpn_protocol() == "http/1.1"
        assert connection.compression() is None
        assert "GCM" in connection.cipher()[0] or "CHACHA20" in connection.cipher()[0]
        connection.sendall(HEALTH)
        assert status_of(read_to_end(connection)) == 200  # a FIN without close_notify would raise


def test_an_aborted_stream_has_no_close_notify(double, start_tls, authority):
    server = start_tls()
    with connect(server, strict_client(authority), suppress_ragged_eofs=False) as connection:
        connection.sendall(query_bytes(server, script(events=1, hold="never", hold_after=1)))
        double.wait(lambda ledger: ledger.open_streams() == 1, 10, "the agent")
        connection.sendall(b"x")  # bytes after the request: abuse
        with pytest.raises(ssl.SSLError, match="(?i)eof"):
            read_to_end(connection)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_are_refused(start_tls, authority, version):
    server = start_tls()
    context = authority.new_client()
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, version
    with pytest.raises(ssl.SSLError, match="(?i)version"):
        connect(server, context)
    server.wait_log("TLS handshake failed")
    assert "client 127.0.0.1" in server.stderr


@pytest.mark.parametrize("ciphers", ["AES128-SHA256", "ECDHE-ECDSA-AES128-SHA256", "AES128-GCM-SHA256"])
def test_weak_ciphers_are_refused(start_tls, authority, ciphers):
    server = start_tls()
    context = authority.new_client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    with pytest.raises(ssl.SSLError, match="(?i)handshake"):
        connect(server, context)


def test_a_client_that_wants_only_another_protocol_is_refused(start_tls, authority):
    server = start_tls()
    context = authority.new_client()
    context.set_alpn_protocols(["h2"])
    with pytest.raises(ssl.SSLError, match="(?i)protocol"):
        connect(server, context)


@pytest.mark.parametrize("request_bytes", [HEALTH, b"\x00\x01", b"\x80\x2e\x01\x00\x02"])
def test_what_is_no_tls_is_told_so_in_the_clear(start_tls, request_bytes):
    server = start_tls()
    with socket.create_connection(("127.0.0.1", server.port), timeout=deadline(10)) as connection:
        connection.sendall(request_bytes)
        answer = read_to_end(connection)
    assert (status_of(answer), body_of(answer)) == (400, b'{"detail":"Plain HTTP where HTTPS is served"}')
    server.wait_log("400 Plain HTTP where HTTPS is served, client 127.0.0.1")


def test_a_redirect_goes_to_https(start_tls, authority):
    server = start_tls()
    with connect(server, authority.client) as connection:
        connection.sendall(b"POST /query/?a HTTP/1.1\r\nHost: h.example\r\nContent-Length: 9\r\n\r\n")
        answer = read_to_end(connection)
    assert status_of(answer) == 307
    assert b"Location: https://h.example/query?a\r\n" in answer


# --- sessions ---


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed_by_any_worker_of_a_generation(start_tls, authority, version):
    server = start_tls(workers=3)
    context = authority.new_client()
    context.minimum_version = context.maximum_version = version
    session, _ = ask(server, context)
    served = set()
    held = []
    while served != server.workers():  # open connections push the next one to another worker
        connection = connect(server, context, session=session)
        assert connection.session_reused
        held.append(connection)
        port = connection.getsockname()[1]
        served.add(eventually(lambda port=port: procfs.socket_owner(port, server.workers()), 5, "its worker"))
    for connection in held:
        connection.close()
    old = server.workers()
    server.signal(signal.SIGHUP)
    server.wait_log("generation 2 serves")
    eventually(lambda: not old & server.workers(), 10, "the end of the old workers, which may still accept")
    assert not ask(server, context, session=session)[1], "the next generation has a key of its own"


# --- certificates of clients ---


def test_without_a_certificate_of_our_authority_nobody_comes_in(start_tls, authority, tmp_path):
    stranger = Authority(tmp_path / "other", "another CA")
    known = authority.new_client(authority.issue("client"))
    server = start_tls("--tls-client-ca", authority.certificate, tls=known)
    session, _ = ask(server, known)
    assert ask(server, known, session=session)[1]
    for identity in (None, stranger.issue("client")):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(server, authority.new_client(identity))
    server.wait_log("peer did not return a certificate")


# --- the files ---


@pytest.mark.parametrize("change", [signal.SIGHUP, signal.SIGUSR2])
async def test_a_changed_certificate_cuts_no_stream(double, start_server, authority, tls_client, tmp_path, change):
    certificate, key = authority.issue("first")
    config = tmp_path / "sandstorm.conf"
    config.write_text(f"tls_cert = {certificate}\ntls_key = {key}\n")
    server = start_server("--config", config, tls=authority.client)
    async with OpenStreams(double, server, tls_client, OPEN_STREAMS) as held:
        certificate, key = authority.issue("second")
        config.write_text(f"tls_cert = {certificate}\ntls_key = {key}\n")
        old = server.workers()
        server.signal(change)
        await asyncio.to_thread(server.wait_log, "generation 2 serves")
        await eventually_async(lambda: subject(server, authority) == "second", 10, "the new certificate")
        double.release("go")
        for answer in await held.answers():
            answer.check_complete(4)
    await eventually_async(lambda: not old & server.workers(), 10, "the end of the old workers")


def subject(server, authority) -> str:
    """Whose certificate a new connection gets."""
    return dict(part[0] for part in ask_certificate(server, authority)["subject"])["commonName"]


def ask_certificate(server, authority) -> dict:
    """The certificate of a new connection."""
    with connect(server, authority.new_client()) as connection:
        return connection.getpeercert()


def test_a_respawned_worker_serves_what_its_generation_began_with(start_server, authority, tmp_path):
    issued = authority.issue("lasting")
    certificate, key = (tmp_path / path.name for path in issued)
    for source, target in zip(issued, (certificate, key), strict=True):
        target.write_bytes(source.read_bytes())
    server = start_server("--tls-cert", certificate, "--tls-key", key, tls=authority.client, workers=1)
    (victim,) = server.workers()
    certificate.unlink()
    key.write_text("half a file")
    server.signal(signal.SIGKILL, victim)
    eventually(lambda: server.workers() - {victim}, 10, "a new worker")
    assert subject(server, authority) == "lasting"


# What is wrong: how the files become so → what the log says of it.
BROKEN = {
    "no certificate file": (lambda cert, key: cert.unlink(), "tls_cert: .*cert.pem: No such file"),
    "no key file": (lambda cert, key: key.unlink(), "tls_key: .*key.pem: No such file"),
    "a directory": (lambda cert, key: (cert.unlink(), cert.mkdir()), "tls_cert: .*cert.pem: not a regular file"),
    "no PEM": (lambda cert, key: cert.write_text("hello"), "tls_cert: no certificate in PEM"),
    "no key in PEM": (lambda cert, key: key.write_text("hello"), "tls_key: no private key in PEM"),
    "a key with a passphrase": (
        lambda cert, key: (
            openssl("pkey", "-in", key, "-aes128", "-passout", "pass:x", "-out", key.with_suffix(".locked")),
            key.with_suffix(".locked").replace(key),
        ),
        "tls_key: no private key in PEM",
    ),
    "a broken chain": (
        lambda cert, key: cert.write_text(cert.read_text() + cert.read_text()[:200]),
        "tls_cert: its chain cannot be read",
    ),
}


@pytest.fixture
def files(authority, tmp_path):
    """A certificate and its key that may be broken."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued = authority.issue("fragile")
    certificate.write_bytes(issued[0].read_bytes())
    key.write_bytes(issued[1].read_bytes())
    return certificate, key


@pytest.mark.parametrize("fault", BROKEN)
def test_files_that_cannot_be_served_refuse_the_reload_with_the_reason(start_server, authority, files, fault):
    server = start_server("--tls-cert", files[0], "--tls-key", files[1], tls=authority.client)
    before = server.workers()
    break_it, reason = BROKEN[fault]
    break_it(*files)
    server.signal(signal.SIGHUP)
    server.wait_log("reload refused")
    assert re.search(reason, server.stderr), server.stderr
    assert server.workers() == before
    assert subject(server, authority) == "fragile"
    checked = run_program("--check", "--tls-cert", str(files[0]), "--tls-key", str(files[1]))
    assert checked.returncode == 1 and re.search(reason, checked.stderr)


def test_a_key_of_another_certificate_refuses_the_start(authority, double):
    certificate, key = authority.issue("one")[0], authority.issue("other")[1]
    args = ["--tls-cert", str(certificate), "--tls-key", str(key), "--bind", "127.0.0.1:0", "--runtime", "e2b"]
    for mode in ([], ["--check"]):
        done = run_program(*args, *mode, env={"E2B_API_KEY": double.key})
        assert done.returncode == 1
        assert "setting tls_key: it is not the key of tls_cert" in done.stderr


@pytest.mark.parametrize("setting", ["--tls-key", "--tls-client-ca"])
def test_tls_settings_without_a_certificate_are_an_error(setting, double):
    done = run_program(setting, "/dev/null", "--runtime", "e2b", env={"E2B_API_KEY": double.key})
    assert done.returncode == 1
    assert "needs tls_cert" in done.stderr


def test_a_certificate_out_of_date_is_warned_of(authority):
    certificate, key = authority.issue("past", days=-1)
    done = run_program("--check", "--tls-cert", str(certificate), "--tls-key", str(key))
    assert done.returncode == 0
    assert "tls_cert: the certificate has expired" in done.stderr


def test_the_whole_chain_of_the_file_is_sent(start_server, authority, tmp_path):
    middle = authority.issue("middle", extension="basicConstraints=critical,CA:TRUE")
    certificate, key = authority.issue("below", by=middle)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(certificate.read_bytes() + middle[0].read_bytes())
    server = start_server("--tls-cert", chain, "--tls-key", key, tls=authority.client)  # who trusts the root only
    assert subject(server, authority) == "below"


def test_key_and_certificate_may_be_one_file(start_server, authority, tmp_path):
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(path.read_bytes() for path in authority.issue("both")))
    server = start_server("--tls-cert", both, tls=authority.client)
    assert subject(server, authority) == "both"


# --- abuse ---


@pytest.mark.parametrize("first", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"])
def test_a_slow_handshake_is_closed_after_header_timeout(start_tls, first):
    server = start_tls("--header-timeout", "300ms")
    begin = time.monotonic()  # the server's time begins with the connection
    with socket.create_connection(("127.0.0.1", server.port), timeout=deadline(10)) as connection:
        connection.sendall(first)
        try:
            while not (connection.recv(100) == b""):
                pass
        except ConnectionResetError:
            pass
        assert 0.2 < seconds_since(begin) < deadline(6)


def test_a_client_that_says_close_notify_is_gone(double, start_tls, authority):
    server = start_tls("--ping-interval", "0")
    connection = connect(server, authority.new_client())
    connection.sendall(query_bytes(server, script(events=1, hold="never", hold_after=1)))
    double.wait(lambda ledger: ledger.open_streams() == 1, 10, "the agent")
    connection.setblocking(False)
    with pytest.raises(ssl.SSLError):
        while True:
            connection.unwrap()  # reads what came before the answer to close_notify
    double.wait(lambda ledger: not ledger.alive(), 5, "the DELETE")
    connection.close()


def test_an_idle_connection_costs_little(start_tls, authority):
    server = start_tls(workers=1)
    (worker,) = server.workers()
    context = authority.new_client()
    ask(server, context)
    before = procfs.private_kib(worker)
    held = [connect(server, context) for _ in range(IDLE_CONNECTIONS)]
    for connection in held:
        connection.sendall(HEALTH.replace(b"Connection: close\r\n", b""))
        assert status_of(connection.recv(65536)) == 200
    grown = procfs.private_kib(worker) - before
    print(f"{grown / IDLE_CONNECTIONS:.1f} KiB a connection")
    assert grown <= IDLE_CONNECTIONS * CONNECTION_KIB + memory_slack_kib(0)
    for connection in held:
        connection.close()


async def test_thousands_of_handshakes_leave_nothing(start_tls, authority):
    server = start_tls(workers=1)
    (worker,) = server.workers()
    before = server.own_descriptors(worker)
    context = authority.new_client()

    def several() -> None:
        for number in range(150):
            with connect(server, context) as connection:
                if number % 3 == 0:
                    connection.sendall(HEALTH[: number % len(HEALTH)])

    await asyncio.gather(*(asyncio.to_thread(several) for _ in range(4)))
    await eventually_async(lambda: server.own_descriptors(worker) <= before, 10, "the descriptors")
    assert (await asyncio.to_thread(httpx.get, f"{server.url}/health", verify=context, timeout=deadline(20))).status_code == 200


async def test_many_streams_at_once_and_one_after_the_other(double, start_tls, tls_client):
    server = start_tls()
    answers = await asyncio.gather(*(query(tls_client, server, script(events=30, bytes=900)) for _ in range(OPEN_STREAMS)))
    for answer in answers:
        answer.check_complete(30)
    async with open_query(tls_client, server, script(events=3)) as stream:
        (await stream.rest()).check_complete(3)


def s_client(server, authority, *args: str) -> subprocess.Popen:
    """The openssl program as a client, which can do what the ssl module cannot: one command a write."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-CAfile", authority.certificate, *args]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)


def say(client: subprocess.Popen, text: bytes, mark: bytes) -> None:
    """Writes to it, and reads what it prints up to a mark."""
    client.stdin.write(text)
    got = b""
    while mark not in got:
        piece = client.stdout.read(65536)
        assert piece, got[-500:]
        got += piece


def test_renegotiation_is_refused(start_tls, authority):
    server = start_tls()
    workers = server.workers()
    with s_client(server, authority, "-tls1_2") as client:
        say(client, b"", b"Verify return code")
        say(client, b"R\n", b"no renegotiation")
    assert server.workers() == workers


def test_keys_may_be_updated(start_tls, authority):
    server = start_tls()
    with s_client(server, authority, "-tls1_3") as client:
        say(client, b"", b"Verify return code")
        for _ in range(20):
            say(client, b"K\n", b"KEYUPDATE")
        say(client, HEALTH, b'"status":"ok"')
