"""How the sandbox service is reached: over TLS with an authority of one's own, and through a proxy."""

import asyncio
import signal

import pytest
from harness.authority import Authority
from harness.client import query, script
from harness.relay import Relay
from harness.server import run_program


@pytest.fixture
def authority(tmp_path):
    """A CA nobody else knows."""
    return Authority(tmp_path / "ca")


@pytest.fixture
def secure_front(double, authority):
    """The double behind TLS."""
    relay = Relay(double.port, authority.server("service"))
    yield relay
    relay.close()


@pytest.fixture
def proxy(secure_front):
    """A proxy that leads to the service, whatever was asked for."""
    relay = Relay(secure_front.port)
    yield relay
    relay.close()


def leads_to(server, relay: Relay) -> None:
    """Pooled connections to the relay are no leak."""
    server.service_ports.add(relay.port)


def at(relay: Relay, **more: str) -> dict[str, str]:
    """The environment of a server whose sandbox service is this relay."""
    url = f"https://127.0.0.1:{relay.port}"
    return {"E2B_API_URL": url, "E2B_SANDBOX_URL": url, **more}


async def test_an_authority_of_ones_own_is_trusted_with_ca_file(secure_front, start_server, authority, client):
    server = start_server("--ca-file", authority.certificate, env=at(secure_front))
    leads_to(server, secure_front)
    answers = await asyncio.gather(*(query(client, server, script(events=20)) for _ in range(8)))
    for answer in answers:
        answer.check_complete(20)
    assert secure_front.connections > 0


@pytest.mark.parametrize("env", [{}, {"CURL_CA_BUNDLE": "x"}, {"SSL_CERT_FILE": "x"}])
async def test_without_it_the_service_is_not_trusted(double, secure_front, start_server, authority, client, env):
    given = {name: str(authority.certificate) for name in env}
    server = start_server(env=at(secure_front, **given))
    leads_to(server, secure_front)
    assert (await query(client, server, script())).error_code
    assert not double.ledger.of_runs()


async def test_ca_file_is_read_again_by_hup(secure_front, start_server, authority, client, tmp_path):
    config = tmp_path / "sandstorm.conf"
    config.write_text("")
    server = start_server("--config", config, env=at(secure_front))
    leads_to(server, secure_front)
    assert (await query(client, server, script())).error_code
    config.write_text(f"ca_file = {authority.certificate}\n")
    old = server.workers()
    server.signal(signal.SIGHUP)
    await asyncio.to_thread(server.wait_log, "generation 2 serves")
    await asyncio.to_thread(server.wait_gone, old)
    (await query(client, server, script())).check_complete(3)


async def test_a_proxy_is_used_for_the_service_whatever_the_environment_says(proxy, start_server, authority, client):
    env = {"E2B_API_URL": "https://127.0.0.1:1", "E2B_SANDBOX_URL": "https://127.0.0.1:1", "NO_PROXY": "*",
           "HTTPS_PROXY": "http://127.0.0.1:2"}  # fmt: skip
    server = start_server(
        "--ca-file", authority.certificate, "--proxy", f"http://user:pass-word@127.0.0.1:{proxy.port}", env=env
    )
    leads_to(server, proxy)
    (await query(client, server, script(events=5))).check_complete(5)
    assert proxy.heads and all(head.startswith(b"CONNECT 127.0.0.1:1 ") for head in proxy.heads)
    assert all(b"Proxy-Authorization: Basic " in head for head in proxy.heads)
    assert "pass-word" not in server.stderr


async def test_https_proxy_of_the_environment_counts_without_the_setting(proxy, start_server, authority, client):
    env = {"E2B_API_URL": "https://127.0.0.1:1", "E2B_SANDBOX_URL": "https://127.0.0.1:1",
           "HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"}  # fmt: skip
    server = start_server("--ca-file", authority.certificate, env=env)
    leads_to(server, proxy)
    (await query(client, server, script(events=5))).check_complete(5)
    assert proxy.heads


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--ca-file", "/nonexistent.pem", "setting ca_file: /nonexistent.pem: No such file"),
        ("--ca-file", "/etc/hostname", "setting ca_file: /etc/hostname: no certificates in PEM"),
        ("--proxy", "socks5://127.0.0.1:1", "setting proxy: expected http://host:port or https://host:port"),
        ("--proxy", "http://user:pass-word@", "setting proxy: expected http://host:port"),
        ("--proxy", "127.0.0.1:1", "setting proxy: expected http://host:port"),
    ],
)
@pytest.mark.parametrize("mode", [[], ["--check"]])
def test_a_bad_ca_file_or_proxy_refuses_the_start(double, option, value, reason, mode):
    env = {"E2B_API_KEY": double.key}
    done = run_program(option, value, *mode, "--runtime", "e2b", "--bind", "127.0.0.1:0", env=env)
    assert done.returncode == 1
    assert reason in done.stderr
    assert "pass-word" not in done.stderr + done.stdout


def test_check_hides_the_password_of_a_proxy():
    done = run_program("--check", "--proxy", "http://user:pass-word@proxy.example:3128")
    assert done.returncode == 0
    assert "proxy = http://***@proxy.example:3128 " in done.stdout
    assert "pass-word" not in done.stdout + done.stderr
