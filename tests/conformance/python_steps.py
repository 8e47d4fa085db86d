"""The steps with the Python SDK, written once for its sync and its async half: done() awaits what the async one gives."""

import asyncio
import inspect
import re
import time
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone

import e2b
import httpx
import pytest
from harness.waiting import SLOW, deadline
from steps import ODD_METADATA

LONG = "sleep 30"
UNKNOWN_PID = 999999
POLL_SECONDS = 0.02


async def done(value):
    return await value if inspect.isawaitable(value) else value


@asynccontextmanager
async def raises(kind, match=None):
    """pytest.raises of exactly this class: a subclass would be another answer."""
    with pytest.raises(kind, match=match) as caught:
        yield caught
    assert caught.type is kind, caught.value


async def eventually(condition, what, seconds=5.0):
    """Waits for a condition, which may be a coroutine function, and returns what it gave."""
    end = time.monotonic() + deadline(seconds)
    while not (value := await done(condition())):
        assert time.monotonic() < end, f"waited {deadline(seconds):g} s for {what}"
        await asyncio.sleep(POLL_SECONDS)
    return value


class Steps:
    """One step's sandboxes. The subclasses say which half of the SDK makes them."""

    sdk: type

    def __init__(self):
        self.made = []

    async def run(self, name: str):
        try:
            await getattr(self, f"step_{name}")()
        finally:
            for sandbox in self.made:
                await done(sandbox.kill())

    async def create(self, **wishes):
        sandbox = await done(self.sdk.create("base", **({"timeout": 60} | wishes)))
        self.made.append(sandbox)
        return sandbox

    async def sh(self, sandbox, command, **how):
        return await done(sandbox.commands.run(command, **how))

    async def write(self, sandbox, path, content, **how):
        return await done(sandbox.files.write(path, content, **how))

    async def text(self, sandbox, path):
        return await done(sandbox.files.read(path))

    async def content(self, sandbox, path):
        return bytes(await done(sandbox.files.read(path, format="bytes")))

    # --- create ---------------------------------------------------------------------------------

    async def step_create(self):
        sandbox = await self.create(metadata=ODD_METADATA, envs={"G": "1"})
        assert re.fullmatch(r"i[a-z0-9]{20}", sandbox.sandbox_id)
        assert await done(sandbox.is_running()) is True

    async def step_create_unknown_template(self):
        async with raises(e2b.SandboxException, r"^404: template 'nope' not found$"):
            await done(self.sdk.create("nope"))

    async def step_create_malformed_key(self):
        async with raises(e2b.AuthenticationException):
            await done(self.sdk.create("base", api_key="nope"))

    async def step_create_unknown_key(self):
        async with raises(e2b.AuthenticationException, "Invalid API key"):
            await done(self.sdk.create("base", api_key="e2b_" + "f" * 40))

    # --- run ------------------------------------------------------------------------------------

    async def step_run_output(self):
        sandbox = await self.create(envs={"G": "1"})
        result = await self.sh(sandbox, "echo hi; echo err >&2; echo $G")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "hi\n1\n", "err\n")

    async def step_run_exit_code(self):
        async with raises(e2b.CommandExitException) as caught:
            await self.sh(await self.create(), "echo out; exit 3")
        assert (caught.value.exit_code, caught.value.stdout, caught.value.error) == (3, "out\n", "exit status 3")

    async def step_run_unknown_command(self):
        async with raises(e2b.CommandExitException) as caught:
            await self.sh(await self.create(), "no-such-command-here")
        assert caught.value.exit_code == 127
        assert "no-such-command-here" in caught.value.stderr

    async def step_run_cwd_and_envs(self):
        result = await self.sh(await self.create(), "pwd; echo $X; id -un", cwd="/tmp", envs={"X": "y"})
        assert result.stdout == "/tmp\ny\nuser\n"

    async def step_run_missing_cwd(self):
        async with raises(e2b.InvalidArgumentException, "cwd '/nope' does not exist"):
            await self.sh(await self.create(), "true", cwd="/nope")

    async def step_run_unknown_user(self):
        async with raises(e2b.AuthenticationException, "invalid username: 'nosuch'"):
            await self.sh(await self.create(), "true", user="nosuch")

    async def step_run_timeout_kills(self):
        sandbox = await self.create()
        async with raises(e2b.TimeoutException):
            await self.sh(sandbox, "echo $$ >/tmp/pid; exec sleep 30", timeout=2 * SLOW)

        async def gone():
            check = await self.sh(sandbox, "kill -0 $(cat /tmp/pid) 2>/dev/null && echo alive || echo gone")
            return check.stdout == "gone\n"

        await eventually(gone, "the end of the process")

    # --- output ---------------------------------------------------------------------------------

    async def step_output_keeps_characters_whole(self):
        result = await self.sh(await self.create(), "printf 'é%.0s' $(seq 100000)")
        assert result.stdout == "é" * 100000

    async def step_output_comes_in_order(self):
        """Each piece comes before the next is printed: the program waits for a file that whoever gets the piece makes."""
        sandbox, pieces = await self.create(), []

        def on_stdout(piece):
            pieces.append(piece)
            return sandbox.files.write(f"/tmp/{piece.strip()}", "")

        command = "for i in 1 2 3 4 5; do echo $i; until [ -e /tmp/$i ]; do sleep 0.02; done; done"
        result = await self.sh(sandbox, command, on_stdout=on_stdout)
        assert pieces == ["1\n", "2\n", "3\n", "4\n", "5\n"]
        assert result.stdout == "".join(pieces)

    # --- background -----------------------------------------------------------------------------

    async def step_background_list_and_kill(self):
        sandbox = await self.create()
        handle = await self.sh(sandbox, LONG, background=True, envs={"X": "y"}, cwd="/tmp")
        listed = {process.pid: process for process in await done(sandbox.commands.list())}[handle.pid]
        assert (listed.cmd, listed.args, listed.cwd) == ("/bin/bash", ["-l", "-c", LONG], "/tmp")
        assert listed.envs["X"] == "y"
        assert await done(handle.kill()) is True
        async with raises(e2b.CommandExitException) as caught:
            await done(handle.wait())
        assert (caught.value.exit_code, caught.value.error) == (-1, "signal: killed")
        assert handle.pid not in [process.pid for process in await done(sandbox.commands.list())]

    async def step_kill_unknown_pid(self):
        assert await done((await self.create()).commands.kill(UNKNOWN_PID)) is False

    async def step_processes_share_the_sandbox(self):
        """What one command starts, the next one meets: a server, its port, its files."""
        sandbox = await self.create()
        await self.write(sandbox, "/tmp/www/page", "served")
        await self.sh(sandbox, "python3 -m http.server 8123 --bind 127.0.0.1 --directory /tmp/www", background=True)
        fetch = "python3 -c 'import urllib.request as r; print(r.urlopen(\"http://127.0.0.1:8123/page\").read().decode())'"

        async def fetched():
            return (await self.sh(sandbox, f"{fetch} 2>/dev/null || true")).stdout

        assert await eventually(fetched, "the server", 10) == "served\n"

    # --- attach ---------------------------------------------------------------------------------

    async def step_attach(self):
        sandbox = await self.create()
        handle = await self.sh(sandbox, "until [ -e /tmp/go ]; do sleep 0.02; done; echo later", background=True)
        await done(handle.disconnect())
        again = await done(sandbox.commands.connect(handle.pid))
        await self.write(sandbox, "/tmp/go", "")
        result = await done(again.wait())
        assert (result.exit_code, result.stdout) == (0, "later\n")

    async def step_attach_to_the_finished(self):
        """Its exit is kept 30 s; its output is not."""
        sandbox = await self.create()
        handle = await self.sh(sandbox, "echo once; exit 4", background=True)
        async with raises(e2b.CommandExitException) as caught:
            await done(handle.wait())
        assert (caught.value.exit_code, caught.value.stdout) == (4, "once\n")
        late = await done(sandbox.commands.connect(handle.pid))
        async with raises(e2b.CommandExitException) as caught:
            await done(late.wait())
        assert (caught.value.exit_code, caught.value.stdout) == (4, "")

    async def step_attach_to_unknown_pid(self):
        async with raises(e2b.NotFoundException, f"process with pid {UNKNOWN_PID} not found"):
            await done((await self.create()).commands.connect(UNKNOWN_PID))

    # --- stdin ----------------------------------------------------------------------------------

    async def step_stdin(self):
        sandbox = await self.create()
        handle = await self.sh(sandbox, "cat", background=True, stdin=True)
        await done(sandbox.commands.send_stdin(handle.pid, "one\n"))
        await done(handle.send_stdin("zwei é\n"))
        await done(handle.close_stdin())
        assert (await done(handle.wait())).stdout == "one\nzwei é\n"

    async def step_stdin_of_none(self):
        sandbox = await self.create()
        assert (await self.sh(sandbox, "cat")).stdout == ""
        handle = await self.sh(sandbox, LONG, background=True, stdin=False)
        async with raises(e2b.SandboxException, "stdin not enabled or closed"):
            await done(sandbox.commands.send_stdin(handle.pid, "x"))

    async def step_pty(self):
        sandbox = await self.create()
        seen = bytearray()
        handle = await self.open_pty(sandbox, seen)
        await done(sandbox.pty.resize(handle.pid, e2b.PtySize(rows=31, cols=97)))
        await done(sandbox.pty.send_stdin(handle.pid, b"tty; stty size\n"))
        # The kernel drops what a terminal has not yet handed on when its shell exits: first the output, then the exit.
        await self.wait_for_output(handle, seen, b"31 97")
        assert b"/dev/pts/" in seen
        await done(sandbox.pty.send_stdin(handle.pid, b"exit 5\n"))
        async with raises(e2b.CommandExitException) as caught:
            await done(handle.wait())
        assert caught.value.exit_code == 5

    # --- write ----------------------------------------------------------------------------------

    async def step_write_one(self):
        sandbox = await self.create()
        info = await self.write(sandbox, "one.txt", "a longer text")
        assert (info.name, info.path, info.type.value) == ("one.txt", "/home/user/one.txt", "file")
        await self.write(sandbox, "one.txt", "é")
        assert await self.text(sandbox, "/home/user/one.txt") == "é"
        assert (await self.sh(sandbox, "stat -c %U /home/user/one.txt")).stdout == "user\n"

    async def step_write_many(self):
        files = {"/opt/agent-runner/r.mjs": b"1;\n", "rel/b.bin": bytes([0, 255, 10]), "/home/user/x y/é.txt": b"\xc3\xa9"}
        sandbox = await self.create()
        written = await done(sandbox.files.write_files([{"path": path, "data": data} for path, data in files.items()]))
        assert [info.path for info in written] == [
            "/opt/agent-runner/r.mjs",
            "/home/user/rel/b.bin",
            "/home/user/x y/é.txt",
        ]
        for path, data in files.items():
            assert await self.content(sandbox, path) == data

    async def step_write_nothing(self):
        assert await done((await self.create()).files.write_files([])) == []

    async def check_upload(self, **how):
        sandbox, data = await self.create(), bytes(range(256)) * 1000
        info = await self.write(sandbox, "dir/x y.bin", data, **how)
        assert info.path == "/home/user/dir/x y.bin"
        assert await self.content(sandbox, "dir/x y.bin") == data

    async def step_write_octet_stream(self):
        await self.check_upload(use_octet_stream=True)

    async def step_write_gzip(self):
        await self.check_upload(gzip=True)

    async def step_write_metadata(self):
        sandbox = await self.create()
        info = await self.write(sandbox, "m.txt", "x", metadata={"Key": "a value"})
        assert info.metadata == {"key": "a value"}
        assert (await done(sandbox.files.get_info("m.txt"))).metadata == {"key": "a value"}

    # --- read -----------------------------------------------------------------------------------

    async def step_read(self):
        sandbox = await self.create()
        await self.write(sandbox, "r.txt", "näive\n")
        assert await self.text(sandbox, "r.txt") == await self.text(sandbox, "~/r.txt") == "näive\n"
        assert await self.content(sandbox, "/home/user/r.txt") == "näive\n".encode()
        assert await done(sandbox.files.read("r.txt", gzip=True)) == "näive\n"
        assert await self.read_streamed(sandbox, "r.txt") == "näive\n".encode()

    async def step_read_missing(self):
        async with raises(e2b.FileNotFoundException, "path '/home/user/nothing' does not exist"):
            await self.text(await self.create(), "nothing")

    async def step_read_directory(self):
        async with raises(e2b.InvalidArgumentException, "path '/tmp' is a directory"):
            await self.text(await self.create(), "/tmp")

    def raw(self, sandbox, method, url, **how):
        """A request without the access token."""
        return httpx.request(method, url, headers={"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "49983"}, **how)

    async def step_read_without_token(self):
        sandbox = await self.create()
        base = sandbox.download_url("x").partition("/files")[0]
        answer = self.raw(sandbox, "GET", f"{base}/files", params={"path": "/etc/passwd"})
        assert (answer.status_code, answer.json()["code"]) == (401, 401)

    async def step_signed_urls(self):
        """They hold no sandbox id, so whoever uses them with one URL for all sandboxes must name it."""
        sandbox = await self.create()
        files = {"file": ("s.txt", b"signed")}
        sent = self.raw(sandbox, "POST", sandbox.upload_url("s.txt"), files=files)
        assert (sent.status_code, sent.json()[0]["path"]) == (200, "/home/user/s.txt")
        got = self.raw(sandbox, "GET", sandbox.download_url("s.txt", use_signature_expiration=60))
        assert (got.status_code, got.content) == (200, b"signed")
        for url, reason in (
            (sandbox.upload_url("s.txt"), "invalid signature"),
            (sandbox.download_url("s.txt", use_signature_expiration=-60), "signature is already expired"),
            (sandbox.download_url("s.txt").partition("&signature")[0], "missing signature query parameter"),
        ):
            refused = self.raw(sandbox, "GET", url)
            assert (refused.status_code, refused.json()["code"]) == (401, 401)
            assert reason in refused.json()["message"]

    # --- filesystem -----------------------------------------------------------------------------

    async def step_exists(self):
        sandbox = await self.create()
        await self.write(sandbox, "there", "")
        assert await done(sandbox.files.exists("there")) is True
        assert await done(sandbox.files.exists("/tmp")) is True
        assert await done(sandbox.files.exists("nothing")) is False

    async def step_make_dir(self):
        sandbox = await self.create()
        assert await done(sandbox.files.make_dir("a/b")) is True
        assert await done(sandbox.files.make_dir("/home/user/a/b")) is False
        assert (await self.sh(sandbox, "stat -c '%U %F' a/b")).stdout == "user directory\n"
        await self.write(sandbox, "file", "")
        async with raises(e2b.InvalidArgumentException):
            await done(sandbox.files.make_dir("file"))

    async def step_list_dir(self):
        sandbox = await self.create()
        await done(sandbox.files.make_dir("d/sub"))
        await self.write(sandbox, "d/f", "abc")
        listed = await done(sandbox.files.list("d"))
        assert [(entry.name, entry.type.value, entry.path) for entry in listed] == [
            ("f", "file", "/home/user/d/f"),
            ("sub", "dir", "/home/user/d/sub"),
        ]
        assert listed[0].size == 3

    async def step_list_depth(self):
        sandbox = await self.create()
        await self.write(sandbox, "d/one/two/three", "")
        names = [entry.name for entry in await done(sandbox.files.list("d", depth=2))]
        assert names == ["one", "two"]

    async def step_list_missing(self):
        sandbox = await self.create()
        async with raises(e2b.FileNotFoundException, "directory not found"):
            await done(sandbox.files.list("nothing"))
        await self.write(sandbox, "file", "")
        async with raises(e2b.InvalidArgumentException, "path is not a directory"):
            await done(sandbox.files.list("file"))

    async def step_get_info(self):
        sandbox = await self.create()
        await self.write(sandbox, "i.txt", "12345")
        await self.sh(sandbox, "chmod 640 i.txt; ln -s i.txt link")
        info = await done(sandbox.files.get_info("i.txt"))
        assert (info.name, info.type.value, info.path, info.size) == ("i.txt", "file", "/home/user/i.txt", 5)
        assert (info.mode, info.permissions, info.owner, info.group) == (0o640, "-rw-r-----", "user", "user")
        assert abs(datetime.now(timezone.utc) - info.modified_time) < timedelta(seconds=deadline(30))
        link = await done(sandbox.files.get_info("link"))
        assert link.symlink_target == "/home/user/i.txt"
        async with raises(e2b.FileNotFoundException):
            await done(sandbox.files.get_info("nothing"))

    async def step_rename(self):
        sandbox = await self.create()
        await self.write(sandbox, "old", "kept")
        info = await done(sandbox.files.rename("old", "new/place"))
        assert (info.name, info.path) == ("place", "/home/user/new/place")
        assert await self.text(sandbox, "new/place") == "kept"
        assert await done(sandbox.files.exists("old")) is False
        async with raises(e2b.FileNotFoundException, "source file not found"):
            await done(sandbox.files.rename("old", "elsewhere"))

    async def step_remove(self):
        sandbox = await self.create()
        await self.write(sandbox, "tree/a/b", "")
        for _ in range(2):
            await done(sandbox.files.remove("tree"))
            assert await done(sandbox.files.exists("tree")) is False

    async def step_watch_dir(self):
        sandbox = await self.create()
        await done(sandbox.files.make_dir("w"))
        events, stop = await self.watch(sandbox, "w")
        await self.write(sandbox, "w/new", "x")
        await self.sh(sandbox, "mv w/new w/moved; rm w/moved")

        async def seen():
            return {(event.type.value, event.name) for event in await done(events())}

        wanted = {("create", "new"), ("write", "new"), ("rename", "new"), ("remove", "moved")}

        async def has_all():
            return wanted <= await seen()

        await eventually(has_all, f"{wanted}")
        await done(stop())

    async def step_watch_missing(self):
        async with raises(e2b.FileNotFoundException, "nothing"):
            await self.watch(await self.create(), "nothing")

    # --- lifetime -------------------------------------------------------------------------------

    async def remaining(self, sandbox) -> float:
        info = await done(sandbox.get_info())
        return (info.end_at - datetime.now(timezone.utc)).total_seconds()

    async def step_set_timeout(self):
        sandbox = await self.create(metadata=ODD_METADATA)
        await done(sandbox.set_timeout(120))
        assert 120 - deadline(5) < await self.remaining(sandbox) <= 120
        info = await done(sandbox.get_info())
        assert (info.sandbox_id, info.template_id, info.metadata) == (sandbox.sandbox_id, "base", ODD_METADATA)
        await done(sandbox.set_timeout(30))
        assert await self.remaining(sandbox) <= 30

    async def step_connect_never_shortens(self):
        sandbox = await self.create(timeout=120)
        again = await done(self.sdk.connect(sandbox.sandbox_id, timeout=10))
        assert await self.remaining(sandbox) > 120 - deadline(10)
        assert (await self.sh(again, "echo same")).stdout == "same\n"
        await done(self.sdk.connect(sandbox.sandbox_id, timeout=600))
        assert await self.remaining(sandbox) > 500

    async def lateness(self) -> float:
        """How many seconds after its end a sandbox is seen to be gone."""
        sandbox = await self.create(timeout=2)
        end_at = (await done(sandbox.get_info())).end_at

        async def expired():
            return not await done(sandbox.is_running())

        await eventually(expired, "expiry", 10)
        late = (datetime.now(timezone.utc) - end_at).total_seconds()
        assert late >= 0
        assert await done(sandbox.kill()) is False
        return late

    async def step_expiry(self):
        """Noise can only make it later: the best of three counts."""
        for _ in range(3):
            if (late := await self.lateness()) < deadline(0.4):
                return
        raise AssertionError(f"{late} s late")

    # --- list -----------------------------------------------------------------------------------

    async def listed(self, **query):
        """All pages of a list, each as its ids."""
        paginator, pages = self.sdk.list(**query), []
        while paginator.has_next:
            pages.append([info.sandbox_id for info in await done(paginator.next_items())])
        return pages

    async def step_list_pages(self):
        mark = {"pg": self.mark()}
        older, newer = [(await self.create(metadata=mark)).sandbox_id for _ in range(2)]
        query = e2b.SandboxQuery(metadata=mark, state=[e2b.SandboxState.RUNNING])
        assert await self.listed(query=query, limit=1) == [[newer], [older]]
        assert await self.listed(query=query, limit=1, order="asc") == [[older], [newer]]
        assert await self.listed(query=query) == [[newer, older]]

    async def step_list_odd_metadata(self):
        wanted = ODD_METADATA | {"odd &=%+ key": self.mark()}
        sandbox = await self.create(metadata=wanted)
        assert await self.listed(query=e2b.SandboxQuery(metadata=wanted)) == [[sandbox.sandbox_id]]
        assert await self.listed(query=e2b.SandboxQuery(metadata=wanted | {"k": "a b"})) == [[]]

    def mark(self) -> str:
        """A value no other half's sandboxes have."""
        return f"{type(self).__name__} {id(self)}"

    # --- pause ----------------------------------------------------------------------------------

    async def step_pause(self):
        mark = {"paused": self.mark()}
        sandbox = await self.create(metadata=mark)
        await self.write(sandbox, "kept", "yes")
        assert await done(sandbox.pause()) is True
        assert await done(sandbox.pause()) is False
        assert await done(sandbox.is_running()) is False
        assert (await done(sandbox.get_info())).state == e2b.SandboxState.PAUSED
        query = e2b.SandboxQuery(metadata=mark, state=[e2b.SandboxState.PAUSED])
        assert await self.listed(query=query) == [[sandbox.sandbox_id]]
        again = await done(self.sdk.connect(sandbox.sandbox_id, timeout=60))
        assert again.sandbox_id == sandbox.sandbox_id
        assert await done(again.is_running()) is True
        assert await self.text(again, "kept") == "yes"

    # --- killed ---------------------------------------------------------------------------------

    async def step_killed_while_running(self):
        sandbox = await self.create()
        handle = await self.sh(sandbox, LONG, background=True)
        assert await done(sandbox.kill()) is True
        async with raises(e2b.TimeoutException, "killed or reached its end of life"):
            await done(handle.wait())

    async def step_use_after_kill(self):
        sandbox = await self.create()
        await done(sandbox.kill())
        async with raises(e2b.TimeoutException):
            await self.sh(sandbox, "true")
        async with raises(e2b.SandboxNotFoundException):
            await done(sandbox.set_timeout(60))
        async with raises(e2b.TimeoutException):
            await self.text(sandbox, "x")

    async def step_kill(self):
        sandbox = await self.create()
        assert await done(sandbox.kill()) is True
        assert await done(self.sdk.kill(sandbox.sandbox_id)) is False
        async with raises(e2b.SandboxNotFoundException):
            await done(self.sdk.connect(sandbox.sandbox_id))


class SyncSteps(Steps):
    """Where the sync half differs: it polls watchers, and a terminal's output is read from its handle."""

    sdk = e2b.Sandbox

    async def read_streamed(self, sandbox, path):
        return b"".join(sandbox.files.read(path, format="stream"))

    async def watch(self, sandbox, path):
        handle, seen = sandbox.files.watch_dir(path), []

        def events():
            seen.extend(handle.get_new_events())
            return seen

        return events, handle.stop

    async def open_pty(self, sandbox, seen):
        return sandbox.pty.create(e2b.PtySize(rows=24, cols=80))

    async def wait_for_output(self, handle, seen, text):
        for _, _, pty in handle:
            seen.extend(pty or b"")
            if text in seen:
                return
        raise AssertionError(f"{text!r} never came: {bytes(seen)!r}")


class AsyncSteps(Steps):
    """Where the async half differs: events and a terminal's output come by callbacks."""

    sdk = e2b.AsyncSandbox

    async def read_streamed(self, sandbox, path):
        return b"".join([chunk async for chunk in await sandbox.files.read(path, format="stream")])

    async def watch(self, sandbox, path):
        seen = []
        handle = await sandbox.files.watch_dir(path, on_event=seen.append)
        return lambda: seen, handle.stop

    async def open_pty(self, sandbox, seen):
        return await sandbox.pty.create(e2b.PtySize(rows=24, cols=80), on_data=seen.extend)

    async def wait_for_output(self, handle, seen, text):
        await eventually(lambda: text in seen, f"{text!r}")
