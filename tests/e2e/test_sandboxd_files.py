"""GET and POST /files of sandboxd: forms of bodies, signatures, metadata, ranges, full disks."""

import base64
import gzip
import hashlib
import time
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urlencode

import pytest

RAW = {"Content-Type": "application/octet-stream"}


def put(sandbox, path, body, headers=None, query=""):
    return sandbox.call("POST", f"/files?path={quote(path, safe='')}{query}", body, RAW | (headers or {}))


def refused(answer, status, message):
    assert (answer.status, answer.json) == (status, {"code": status, "message": message})
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def form(*parts, boundary="b0"):
    """A multipart body of (headers, bytes)."""
    body = b"".join(f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n" for head, content in parts)
    return body + f"--{boundary}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def file_part(name, content):
    return f'Content-Disposition: form-data; name="file"; filename="{name}"', content


# --- forms of bodies ---


def test_the_answer_is_json_called_text(sandbox):
    answer = put(sandbox, "b.txt", b"x")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.json == [{"name": "b.txt", "path": "/home/user/b.txt", "type": "file"}]


def test_a_gzipped_raw_body_is_unzipped(sandbox):
    content = bytes(range(256)) * 4000
    assert put(sandbox, "g", gzip.compress(content), {"Content-Encoding": "gzip"}).status == 200
    assert sandbox.read("g").body == content


def test_gzip_members_in_a_row_are_one_file(sandbox):
    assert put(sandbox, "g", gzip.compress(b"one") + gzip.compress(b"two"), {"Content-Encoding": "gzip"}).status == 200
    assert sandbox.read("g").body == b"onetwo"


def test_a_gzipped_form_is_unzipped(sandbox):
    big = b"0123456789abcdef" * 65536
    body, kind = form(file_part("/home/user/a", big), file_part("/home/user/b", b""))
    answer = sandbox.call("POST", "/files", gzip.compress(body), kind | {"Content-Encoding": "gzip"})
    assert [entry["path"] for entry in answer.json] == ["/home/user/a", "/home/user/b"]
    assert sandbox.read("a").body == big and sandbox.read("b").body == b""


@pytest.mark.parametrize(
    "body", [b"", b"no gzip", gzip.compress(b"x" * 1000)[:-5], gzip.compress(b"x") + b"y"],
    ids=["empty", "none", "cut", "more behind it"],
)  # fmt: skip
def test_a_body_that_is_no_whole_gzip_is_400(sandbox, body):
    refused(put(sandbox, "g", body, {"Content-Encoding": "gzip"}), 400,
            "error decompressing request body: not gzip, or cut")  # fmt: skip


def test_an_unknown_encoding_is_400(sandbox):
    refused(put(sandbox, "x", b"", {"Content-Encoding": "br"}), 400, "unsupported content encoding: br")


def test_an_empty_file_is_written_and_an_old_one_replaced(sandbox):
    put(sandbox, "f", b"long content")
    assert put(sandbox, "f", b"").status == 200
    assert sandbox.read("f").body == b""


def test_names_in_forms_are_full_paths_verbatim(sandbox):
    names = ["/tmp/x y/é.txt", "/home/user/%22q%0D.txt", "rel/b.bin", "~/t.txt"]
    body, kind = form(*(file_part(name, name.encode()) for name in names))
    answer = sandbox.call("POST", "/files", body, kind)
    written = ["/tmp/x y/é.txt", "/home/user/%22q%0D.txt", "/home/user/rel/b.bin", "/home/user/t.txt"]
    assert [entry["path"] for entry in answer.json] == written
    assert [entry["name"] for entry in answer.json] == ["é.txt", "%22q%0D.txt", "b.bin", "t.txt"]
    assert [sandbox.read(path).body.decode() for path in written] == names


def test_a_path_of_the_query_wins_over_the_filename(sandbox):
    body, kind = form(file_part("/home/user/other", b"x"))
    assert sandbox.call("POST", "/files?path=mine", body, kind).json[0]["path"] == "/home/user/mine"
    assert sandbox.read("other").status == 404


def test_parts_with_another_name_are_passed_over(sandbox):
    body, kind = form(('Content-Disposition: form-data; name="note"; filename="/home/user/n"', b"x"),
                      file_part("/home/user/f", b"y"), ("X-Odd: 1", b"z"))  # fmt: skip
    assert [entry["path"] for entry in sandbox.call("POST", "/files", body, kind).json] == ["/home/user/f"]
    assert sandbox.read("n").status == 404


def test_a_path_given_twice_is_400_and_the_first_stays(sandbox):
    body, kind = form(file_part("/home/user/f", b"first"), file_part("f", b"second"))
    refused(sandbox.call("POST", "/files", body, kind), 400,
            "you cannot upload multiple files to the same path '/home/user/f' in one upload request, only the first "
            "specified file was uploaded")  # fmt: skip
    assert sandbox.read("f").body == b"first"


def test_a_file_without_a_name_is_400(sandbox):
    body, kind = form(('Content-Disposition: form-data; name="file"', b"x"))
    refused(sandbox.call("POST", "/files", body, kind), 400,
            "no filename in a part named file, and no path query parameter")  # fmt: skip


def test_a_cut_form_is_400(sandbox):
    body, kind = form(file_part("/home/user/f", b"content"))
    refused(sandbox.call("POST", "/files", body[:-8], kind), 400, "error parsing multipart form")


def test_a_raw_body_needs_a_path(sandbox):
    refused(sandbox.call("POST", "/files", b"x", RAW), 400, "path query parameter is required for raw body upload")


def test_another_type_is_400_in_words(sandbox):
    refused(sandbox.call("POST", "/files?path=x", b"x", {"Content-Type": "text/plain"}), 400,
            "unsupported content type: text/plain, expected multipart/form-data or application/octet-stream")  # fmt: skip


def test_many_small_files_go_up_in_one_request(sandbox):
    files = {f"/home/user/d/{i}": str(i).encode() for i in range(1500)}
    assert len(sandbox.upload(files).json) == 1500
    assert sandbox.text("cat d/* | wc -c; ls d | wc -l") == f"{sum(len(str(i)) for i in range(1500))}\n1500\n"


def test_files_belong_to_user_and_parents_are_made(sandbox):
    put(sandbox, "/home/user/new/deep/f", b"x")
    assert sandbox.text("stat -c '%U:%G %a' new new/deep new/deep/f") == (
        "user:user 755\nuser:user 755\nuser:user 644\n"
    )


def test_a_parent_that_is_a_file_is_500(sandbox):
    put(sandbox, "f", b"x")
    assert put(sandbox, "f/g", b"y").status == 500
    assert sandbox.read("f").body == b"x"


@pytest.mark.parametrize("username, status", [("user", 200), ("root", 200), ("", 200), ("nosuch", 401)])
def test_the_user_must_exist(sandbox, username, status):
    answer = put(sandbox, "f", b"x", query=f"&username={username}")
    assert answer.status == status
    if status == 401:
        refused(answer, 401, "error looking up user 'nosuch': user: unknown user nosuch")


# --- full disks ---


@pytest.fixture
def small(start_daemon):
    """A sandbox with 16 MiB of home."""
    return start_daemon("--disk-mib", 16).create()


def test_a_full_disk_is_507_with_the_announced_length(small):
    content = bytes(17 * 1024 * 1024)
    refused(put(small, "big", content), 507,
            f"attempted to write {len(content)} bytes: not enough disk space available")  # fmt: skip


def test_a_full_disk_is_507_without_a_length_in_chunks(small):
    pieces = (bytes(1024 * 1024) for _ in range(17))
    refused(put(small, "big", pieces), 507, "not enough disk space available")


def test_a_zipped_bomb_ends_at_the_disks_size(small):
    refused_with = put(small, "bomb", gzip.compress(bytes(200_000_000)), {"Content-Encoding": "gzip"})
    assert refused_with.status == 507
    assert put(small, "bomb", b"").status == 200
    assert small.text("echo still here") == "still here\n"


# --- tokens and signatures ---


@pytest.fixture
def secured(daemon):
    return daemon.create(secure=True)


def sign(sandbox, path, operation, user="", expiration=None):
    text = f"{path}:{operation}:{user}:{sandbox.token}" + (f":{expiration}" if expiration is not None else "")
    return "v1_" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def signed(sandbox, method, target, operation, body=None, headers=None, **query):
    """A request with a signature and without a token."""
    query = {"path": target, "signature": sign(sandbox, target, operation)} | query
    named = {"E2b-Sandbox-Id": sandbox.id}
    return sandbox.daemon.call(method, "/files?" + urlencode(query), body, named | (headers or {}))


def test_a_signed_url_writes_and_reads_without_a_token(secured):
    assert signed(secured, "POST", "~/é +.txt", "write", b"signed", RAW).status == 200
    assert signed(secured, "GET", "~/é +.txt", "read").body == b"signed"


def test_a_signature_is_for_one_operation_path_and_user(secured):
    put(secured, "f", b"x")
    for changed in ({"signature": sign(secured, "f", "write")}, {"path": "/etc/passwd"}, {"username": "root"},
                    {"signature_expiration": "9999999999"}, {"signature": "v1_"}, {"signature": ""}):  # fmt: skip
        refused(signed(secured, "GET", "f", "read", **changed), 401, "invalid signature")
    assert signed(secured, "GET", "f", "read", username="root", signature=sign(secured, "f", "read", "root")).body == b"x"


def test_a_signature_expires(secured):
    put(secured, "f", b"x")
    future, past = int(time.time()) + 60, int(time.time()) - 2
    for expiration, status in ((future, 200), (past, 401)):
        signature = sign(secured, "f", "read", expiration=expiration)
        answer = signed(secured, "GET", "f", "read", signature=signature, signature_expiration=expiration)
        assert answer.status == status
    assert answer.json == {"code": 401, "message": "signature is already expired"}


def test_without_token_and_signature_files_are_401(secured):
    named = {"E2b-Sandbox-Id": secured.id}
    refused(secured.daemon.call("GET", "/files?path=f", headers=named), 401, "missing signature query parameter")
    refused(secured.daemon.call("GET", "/files?path=f", headers=named | {"X-Access-Token": "0" * 64}), 401,
            "access token present in header but does not match")  # fmt: skip


def test_a_signature_alone_finds_its_sandbox(daemon, secured):
    for _ in range(3):
        daemon.create(secure=True)
    query = urlencode({"path": "f", "signature": sign(secured, "f", "write")})
    assert daemon.call("POST", f"/files?{query}", b"found", RAW).status == 200
    query = urlencode({"path": "f", "signature": sign(secured, "f", "read")})
    assert daemon.call("GET", f"/files?{query}").body == b"found"
    refused(daemon.call("GET", "/files?path=f&signature=v1_other"), 401, "invalid signature")
    assert daemon.call("GET", "/files?path=f").status == 404


# --- metadata ---


def test_metadata_is_kept_with_the_file_and_replaced_as_a_whole(sandbox):
    answer = put(sandbox, "m", b"x", {"X-Metadata-Author": "me & you", "x-metadata-UPPER-key": "1"})
    assert answer.json[0]["metadata"] == {"author": "me & you", "upper-key": "1"}
    show = "python3 -c 'import os; print({k: os.getxattr(\"m\", k) for k in sorted(os.listxattr(\"m\"))})'"
    assert sandbox.text(show) == "{'user.e2b.author': b'me & you', 'user.e2b.upper-key': b'1'}\n"
    assert put(sandbox, "m", b"y", {"X-Metadata-Other": "2"}).json[0]["metadata"] == {"other": "2"}
    assert sandbox.text(show) == "{'user.e2b.other': b'2'}\n"
    assert "metadata" not in put(sandbox, "m", b"z").json[0]
    assert sandbox.text(show) == "{}\n"


def test_metadata_goes_to_every_file_of_a_form(sandbox):
    body, kind = form(file_part("/home/user/a", b""), file_part("/home/user/b", b""))
    answer = sandbox.call("POST", "/files", body, kind | {"X-Metadata-K": "v"})
    assert [entry["metadata"] for entry in answer.json] == [{"k": "v"}, {"k": "v"}]


@pytest.mark.parametrize("headers, problem", [
    ({"X-Metadata-" + "k" * 247: "v"}, "a key is longer than 246 bytes"),
    ({"X-Metadata-K": "é".encode()}, "keys and values must be printable ASCII"),
    ({f"X-Metadata-{i}": "v" * 1000 for i in range(5)}, "keys and values together are longer than 4096 bytes"),
])  # fmt: skip
def test_wrong_metadata_is_400_and_nothing_is_written(sandbox, headers, problem):
    refused(put(sandbox, "f", b"x", headers), 400, f"invalid metadata: {problem}")
    assert sandbox.read("f").status == 404


# --- downloads ---


def test_a_download_has_the_headers_of_a_file(sandbox):
    put(sandbox, "x y.txt", b"hello")
    answer = sandbox.read("x y.txt")
    assert answer.headers["Content-Disposition"] == 'inline; filename="x y.txt"'
    assert answer.headers["Content-Length"] == "5" and answer.headers["Vary"] == "Accept-Encoding"
    assert abs(parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp() - time.time()) < 60
    put(sandbox, "é.txt", b"")
    assert sandbox.read("é.txt").headers["Content-Disposition"] == "inline; filename*=utf-8''%C3%A9.txt"


@pytest.mark.parametrize("asked, status, body, content_range", [
    ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
    ("bytes=7-", 206, b"789", "bytes 7-9/10"),
    ("bytes=-3", 206, b"789", "bytes 7-9/10"),
    ("bytes=5-99", 206, b"56789", "bytes 5-9/10"),
    ("bytes=0-1,3-4", 200, b"0123456789", None),
    ("lines=1-2", 200, b"0123456789", None),
])  # fmt: skip
def test_a_range_is_served(sandbox, asked, status, body, content_range):
    put(sandbox, "f", b"0123456789")
    answer = sandbox.call("GET", "/files?path=f", headers={"Range": asked})
    assert (answer.status, answer.body, answer.headers.get("Content-Range")) == (status, body, content_range)


def test_a_range_behind_the_end_is_416(sandbox):
    put(sandbox, "f", b"0123456789")
    answer = sandbox.call("GET", "/files?path=f", headers={"Range": "bytes=10-"})
    refused(answer, 416, "invalid range: failed to overlap")
    assert answer.headers["Content-Range"] == "bytes */10"
