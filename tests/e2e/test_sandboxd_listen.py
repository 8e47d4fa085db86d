"""sandboxd on TCP: loopback only, with API keys; the unix socket goes on beside it."""

import http.client
import json
import re
import subprocess

import pytest
from sandboxd_client import BUILD, SLOW

KEY = "e2b_" + "0a" * 20
INVALID = "Invalid API key, please visit https://e2b.dev/docs/api-key for more information.\n"


@pytest.fixture
def key_file(folder):
    path = folder / "keys"
    path.write_text(f"# for tests\n\n{KEY}\ne2b_99\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def keyed(start_daemon, key_file):
    """A daemon that takes the keys of a file."""
    return start_daemon("--listen", "127.0.0.1:0", "--api-key-file", key_file)


def sdk_create(daemon, key=KEY):
    """As SDKs create: TCP, key, a chunked body."""
    body = iter([b'{"templateID":"base",', b'"timeout":60,"secure":true}'])
    return daemon.call_tcp("POST", "/sandboxes", body, {"X-API-KEY": key, "Content-Type": "application/json"})


def test_a_sandbox_is_made_and_used_over_tcp(keyed):
    created = sdk_create(keyed)
    assert created.status == 201
    traffic = {"E2b-Sandbox-Id": created.json["sandboxID"], "X-Access-Token": created.json["envdAccessToken"]}
    assert keyed.call_tcp("GET", "/health", headers=traffic).status == 204
    listed = keyed.call_tcp("POST", "/process.Process/List", "{}", traffic | {"Content-Type": "application/json"})
    assert (listed.status, listed.json) == (200, {})


@pytest.mark.parametrize("key, message", [
    (None, "authorization header is missing"),
    ("nope", "authorization header is malformed"),
    ("e2b_XYZ", INVALID + "Invalid API key format"),
    ("e2b_" + "0b" * 20, INVALID + "Cannot get the team for the given API key"),
    (KEY[:-1], INVALID + "Cannot get the team for the given API key"),
])  # fmt: skip
def test_another_key_than_the_files_is_401(keyed, key, message):
    headers = {} if key is None else {"X-API-KEY": key}
    for method, path in [("GET", "/v2/sandboxes"), ("POST", "/sandboxes"), ("DELETE", "/sandboxes/i0")]:
        answer = keyed.call_tcp(method, path, "{}" if method == "POST" else None, headers)
        assert (answer.status, answer.json) == (401, {"code": 401, "message": message})
    assert KEY not in keyed.log


def test_every_key_of_the_file_is_taken(keyed):
    for key in (KEY, "e2b_99"):
        assert keyed.call_tcp("GET", "/v2/sandboxes", headers={"x-api-key": key}).json == []


def test_without_a_file_any_e2b_key_is_taken_and_the_log_warns(start_daemon):
    daemon = start_daemon("--listen", "127.0.0.1:0")
    assert sdk_create(daemon, "e2b_whatever").status == 201
    assert sdk_create(daemon, "whatever").json["message"] == "authorization header is malformed"
    assert "every user of this machine may make sandboxes" in daemon.log


def test_health_and_the_unix_socket_ask_for_no_key(keyed):
    assert keyed.call_tcp("GET", "/health").body == b"Health check successful"
    assert keyed.create().text("echo hi") == "hi\n"
    assert len(keyed.call_tcp("GET", "/v2/sandboxes", headers={"X-API-KEY": KEY}).json) == 1


# --- the state directory ---


def test_a_state_directory_makes_and_keeps_a_key(start_daemon, folder):
    state = folder / "state"
    args = "--listen", "127.0.0.1:0", "--state-dir", state
    daemon = start_daemon(*args)
    key = (state / "api-key").read_text().strip()
    assert re.fullmatch("e2b_[0-9a-f]{40}", key) and key not in daemon.log
    assert [path.stat().st_mode & 0o777 for path in (state, state / "api-key")] == [0o700, 0o600]
    assert sdk_create(daemon, key).status == 201
    assert sdk_create(daemon, KEY).status == 401
    daemon.stop()
    again = start_daemon(*args)
    assert sdk_create(again, key).status == 201
    assert sorted(path.name for path in state.iterdir()) == ["api-key", "lock"]


def test_a_key_file_wins_over_the_state_directory(start_daemon, folder, key_file):
    daemon = start_daemon("--listen", "127.0.0.1:0", "--state-dir", folder / "state", "--api-key-file", key_file)
    assert sdk_create(daemon).status == 201
    assert not (folder / "state" / "api-key").exists()


def test_two_daemons_do_not_share_a_state_directory(start_daemon, folder):
    first = start_daemon("--state-dir", folder / "state")
    second = [BUILD / "sandboxd", "--socket", folder / "other", "--state-dir", folder / "state"]
    refused = subprocess.run(second, capture_output=True, text=True)
    assert refused.returncode == 1 and "in use by another sandboxd" in refused.stderr
    first.process.kill()
    first.process.wait()
    with subprocess.Popen(second, stderr=subprocess.PIPE, text=True) as process:
        assert any("listens on" in line for line in process.stderr)
        process.terminate()


@pytest.mark.parametrize("prepare, reason", [
    (lambda path: path.write_text("x"), "Not a directory"),
    (lambda path: (path.mkdir(), path.chmod(0o770)), "others may write into it"),
    (lambda path: (path.mkdir(), (path / "api-key").write_text("x")), "line 1 is not e2b_ and hex digits"),
])  # fmt: skip
def test_a_bad_state_directory_stops_the_start_in_words(folder, prepare, reason):
    path = folder / "state"
    prepare(path)
    refused = subprocess.run([BUILD / "sandboxd", "--listen", "127.0.0.1:0", "--state-dir", path],
                             capture_output=True, text=True)  # fmt: skip
    assert refused.returncode == 1 and reason in refused.stderr


# --- addresses ---


@pytest.mark.parametrize("address, reason", [
    ("0.0.0.0:3900", "not a loopback address"),
    ("[::]:3900", "not a loopback address"),
    ("192.168.1.1:3900", "not a loopback address"),
    ("example.com:3900", "not an IP address or localhost"),
    ("127.0.0.1", "not an address and a port"),
    ("127.0.0.1:65536", "not an address and a port"),
    ("::1:3900", "not an address and a port"),
])  # fmt: skip
def test_other_addresses_than_loopback_are_refused_in_words(address, reason):
    refused = subprocess.run([BUILD / "sandboxd", "--listen", address], capture_output=True, text=True)
    assert refused.returncode == 2 and reason in refused.stderr


@pytest.mark.parametrize("content, reason", [
    (None, "No such file or directory; make one with"),
    ("", "holds no key; make one with"),
    (f"{KEY}\nsecret-text\n", "line 2 is not e2b_ and hex digits"),
])  # fmt: skip
def test_a_bad_key_file_stops_the_start_in_words(folder, content, reason):
    path = folder / "keys"
    if content is not None:
        path.write_text(content)
    refused = subprocess.run([BUILD / "sandboxd", "--listen", "127.0.0.1:0", "--api-key-file", path],
                             capture_output=True, text=True)  # fmt: skip
    assert refused.returncode == 1 and reason in refused.stderr and "secret-text" not in refused.stderr


def test_a_taken_port_stops_the_start_in_words(keyed):
    refused = subprocess.run([BUILD / "sandboxd", "--listen", f"127.0.0.1:{keyed.port}"],
                             capture_output=True, text=True)  # fmt: skip
    assert refused.returncode == 1 and "Address already in use" in refused.stderr


def test_tcp_alone_will_do(folder):
    process = subprocess.Popen([BUILD / "sandboxd", "--listen", "[::1]:0"], stderr=subprocess.PIPE, text=True)
    line = next(line for line in process.stderr if "listens on [::1]:" in line)
    client = http.client.HTTPConnection("::1", int(line.rsplit(":", 1)[1]))
    client.request("GET", "/v2/sandboxes", headers={"X-API-KEY": "e2b_0"})
    assert json.loads(client.getresponse().read()) == []
    client.close()
    process.terminate()
    assert process.wait(10 * SLOW) == 0
    process.stderr.close()
