"""sandboxd's Filesystem calls: entries, lists, moves, watches; and that they act inside the sandbox only (e2b.md 0.10)."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import procfs
from sandboxd_client import UnixConnection, wait_for

HOME = "/home/user"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.(\d{3}|\d{6}|\d{9}))?Z")


def entry(sandbox, path) -> dict:
    answer = sandbox.files("Stat", path=path)
    assert answer.status == 200, answer
    return answer.json["entry"]


def names(sandbox, path, **more) -> list:
    answer = sandbox.files("ListDir", path=path, **more)
    assert answer.status == 200, answer
    return [found["path"] for found in answer.json.get("entries", [])]


def refusal(answer) -> tuple:
    return answer.status, answer.json["code"], answer.json["message"]


# --- entries ------------------------------------------------------------------------------------------


def test_an_entry_has_all_its_fields(sandbox):
    sandbox.text("echo -n hello > f; chmod 640 f")
    found = entry(sandbox, "f")
    assert TIME.fullmatch(found.pop("modifiedTime"))
    assert found == {"name": "f", "path": f"{HOME}/f", "type": "FILE_TYPE_FILE", "size": "5", "mode": 0o640,
                     "permissions": "-rw-r-----", "owner": "user", "group": "user"}  # fmt: skip


def test_zero_values_are_left_out(sandbox):
    sandbox.text("install -m 000 /dev/null empty")
    found = entry(sandbox, "empty")
    assert "size" not in found
    assert "mode" not in found
    assert found["permissions"] == "----------"


def test_a_directory_is_a_directory(sandbox):
    found = entry(sandbox, "/tmp/")
    assert (found["name"], found["path"], found["type"]) == ("tmp", "/tmp/", "FILE_TYPE_DIRECTORY")
    assert (found["mode"], found["permissions"]) == (0o777, "dtrwxrwxrwx")


def test_a_link_tells_what_it_leads_to(sandbox):
    sandbox.text("mkdir d; echo x > d/f; chmod 600 d/f; ln -s d/f file; ln -s d directory; ln -s nothing dangling")
    found = entry(sandbox, "file")
    assert (found["type"], found["mode"], found["permissions"]) == ("FILE_TYPE_FILE", 0o600, "Lrwxrwxrwx")
    assert found["symlinkTarget"] == f"{HOME}/d/f"
    assert entry(sandbox, "directory")["type"] == "FILE_TYPE_DIRECTORY"
    assert entry(sandbox, "dangling")["type"] == "FILE_TYPE_SYMLINK"


def test_metadata_of_a_file_is_shown(sandbox):
    sandbox.text("""python3 -c 'import os
open("f", "w").close()
os.setxattr("f", "user.e2b.source", b"a b")
os.setxattr("f", "user.other", b"no")'""")
    assert entry(sandbox, "f")["metadata"] == {"source": "a b"}


def test_a_name_that_is_no_utf8_is_shown_not_lost(sandbox):
    sandbox.text(r"mkdir d; touch $'d/a\xffb'")
    assert names(sandbox, "d") == [f"{HOME}/d/a\ufffdb"]


@pytest.mark.parametrize("path", ["~", "~/", "", "/home/user"])
def test_paths_begin_at_home(sandbox, path):
    sandbox.text("touch mark")
    assert [name.rpartition("/")[2] for name in names(sandbox, path)][-1] == "mark"


def test_what_is_not_there_is_not_found(sandbox):
    message = f"file not found: lstat {HOME}/x: no such file or directory"
    assert refusal(sandbox.files("Stat", path="x")) == (404, "not_found", message)


@pytest.mark.parametrize("body", [{"path": 7}, {"path": "~other/x"}, {"path": "/" + "x" * 5000}])
def test_a_wrong_path_is_refused(sandbox, body):
    assert refusal(sandbox.files("Stat", **body))[:2] == (400, "invalid_argument")


# --- ListDir ------------------------------------------------------------------------------------------


def test_a_list_is_sorted_and_one_level_deep(sandbox):
    sandbox.text("mkdir -p d/b/deep; touch d/a d/c d/B d/b/x")
    assert names(sandbox, "d") == names(sandbox, "d", depth=0) == [f"{HOME}/d/{name}" for name in "Babc"]


def test_a_list_goes_as_deep_as_asked(sandbox):
    sandbox.text("mkdir -p d/b/c/e; touch d/z d/b/y")
    assert names(sandbox, "d", depth=2) == [f"{HOME}/d/{name}" for name in ("b", "b/c", "b/y", "z")]
    assert len(names(sandbox, "d", depth=99)) == 5


def test_a_list_follows_the_asked_link_only(sandbox):
    sandbox.text("mkdir -p d/e; touch d/e/f; ln -s d l; ln -s .. d/up")
    assert names(sandbox, "l", depth=9) == [f"{HOME}/l/{name}" for name in ("e", "e/f", "up")]


def test_the_root_is_listed_with_single_slashes(sandbox):
    assert {"/home", "/tmp", "/usr"} <= set(names(sandbox, "/"))


def test_an_empty_list_is_an_empty_object(sandbox):
    sandbox.text("mkdir empty")
    assert sandbox.files("ListDir", path="empty").json == {}


def test_lists_of_what_cannot_be_listed(sandbox):
    sandbox.text("touch f; ln -s loop loop; mkdir -m 000 closed")
    message = f"directory not found: lstat {HOME}/x: no such file or directory"
    assert refusal(sandbox.files("ListDir", path="x")) == (404, "not_found", message)
    message = f"path is not a directory: {HOME}/f"
    assert refusal(sandbox.files("ListDir", path="f")) == (400, "invalid_argument", message)
    assert refusal(sandbox.files("ListDir", path="loop"))[:2] == (400, "failed_precondition")
    assert refusal(sandbox.files("ListDir", path="closed"))[:2] == (403, "permission_denied")


def test_a_long_list_is_whole(sandbox):
    sandbox.text("mkdir many; cd many; seq -f %05g 20000 | xargs touch")
    assert names(sandbox, "many") == [f"{HOME}/many/{n:05}" for n in range(1, 20001)]


def test_a_list_without_end_is_refused_in_words(sandbox):
    name = "n" * 240
    sandbox.text(f"mkdir many; cd many; seq -f {name}%05g 30000 | xargs touch")
    status, code, message = refusal(sandbox.files("ListDir", path="many"))
    assert (status, code) == (429, "resource_exhausted")
    assert "larger than 16 MiB" in message


# --- MakeDir, Move, Remove ----------------------------------------------------------------------------


def test_a_directory_is_made_with_its_parents(sandbox):
    made = sandbox.files("MakeDir", path="a/b/c").json["entry"]
    assert (made["name"], made["path"], made["type"], made["owner"]) == (
        "c", f"{HOME}/a/b/c", "FILE_TYPE_DIRECTORY", "user")  # fmt: skip
    assert sandbox.text("stat -c %a a a/b a/b/c") == "755\n755\n755\n"


def test_a_directory_is_made_once(sandbox):
    assert sandbox.files("MakeDir", path="d").status == 200
    message = f"directory already exists: {HOME}/d"
    assert refusal(sandbox.files("MakeDir", path="d")) == (409, "already_exists", message)


def test_no_directory_in_the_place_of_a_file(sandbox):
    sandbox.text("touch f")
    message = f"path already exists but it is not a directory: {HOME}/f"
    assert refusal(sandbox.files("MakeDir", path="f")) == (400, "invalid_argument", message)
    assert refusal(sandbox.files("MakeDir", path="f/below"))[:2] == (500, "internal")


def test_a_move_makes_the_parents_and_tells_the_entry(sandbox):
    sandbox.text("echo text > f")
    moved = sandbox.files("Move", source="f", destination="to/there").json["entry"]
    assert (moved["name"], moved["path"], moved["size"]) == ("there", f"{HOME}/to/there", "5")
    assert sandbox.text("cat to/there; ls") == "text\nto\n"


def test_a_move_replaces_a_file(sandbox):
    sandbox.text("echo new > a; echo old > b")
    assert sandbox.files("Move", source="a", destination="b").status == 200
    assert sandbox.text("cat b") == "new\n"


def test_a_move_crosses_file_systems(sandbox):
    sandbox.text("mkdir -p d/e; echo text > d/e/f; ln -s e d/l")
    assert sandbox.files("Move", source="d", destination="/tmp/x/d").status == 200
    assert sandbox.text("cat /tmp/x/d/l/f; ls ~ | wc -l") == "text\n0\n"


@pytest.mark.parametrize("destination", ["there", "/tmp/there"])
def test_a_move_of_nothing_is_not_found(sandbox, destination):
    status, code, message = refusal(sandbox.files("Move", source="x", destination=destination))
    assert (status, code) == (404, "not_found")
    assert message.startswith(f"source file not found: rename {HOME}/x ")


def test_a_remove_is_recursive_and_repeatable(sandbox):
    sandbox.text("mkdir -p d/e/f; touch d/a d/e/b; mkdir keep; touch keep/k; ln -s ../keep d/link")
    for _ in range(2):
        assert sandbox.files("Remove", path="d").json == {}
    assert sandbox.text("ls; ls keep") == "keep\nk\n"


def test_a_remove_of_a_link_leaves_what_it_leads_to(sandbox):
    sandbox.text("mkdir d; touch d/f; ln -s d l")
    assert sandbox.files("Remove", path="l").json == {}
    assert sandbox.text("ls . d") == ".:\nd\n\nd:\nf\n"


def test_deep_trees_are_removed(sandbox):
    sandbox.text("for i in $(seq 300); do mkdir ddddddddddddddddddddd; cd ddddddddddddddddddddd; done; touch f")
    assert sandbox.files("Remove", path="ddddddddddddddddddddd").json == {}
    assert sandbox.text("ls ~") == ""


def test_calls_are_refused_without_the_token(daemon):
    sandbox = daemon.create(secure=True)
    sandbox.token = None
    assert sandbox.files("Stat", path="/").status == 401


def test_calls_end_when_their_worker_is_killed(sandbox):
    """The program in the sandbox may kill the process that works for us: an error, never a hang."""
    sandbox.text("mkdir -p d; cd d; seq -f %07g 60000 | xargs touch")
    killer = sandbox.start("while :; do for p in /proc/[0-9]*; do grep -qs sandbox-init $p/comm && kill -9 ${p#/proc/};"
                           " done; done 2>/dev/null")  # fmt: skip
    assert killer.pid
    broken = []

    def some_are_broken():
        answer = sandbox.files("ListDir", path="d")
        broken.extend([answer.json["message"]] if answer.status != 200 else [])
        return len(broken) == 5

    wait_for(some_are_broken, "calls whose worker was killed", 60)
    assert set(broken) == {"the work inside the sandbox was ended early"}


# --- watches ------------------------------------------------------------------------------------------


def watch(sandbox, path, headers=None, **more):
    started = sandbox.stream("/filesystem.Filesystem/WatchDir", {"path": path} | more, headers)
    assert started.until(lambda result: result.events).events[0] == {"start": {}}
    return started


def seen(result) -> list:
    """Type and name of the events so far."""
    events = [event["filesystem"] for event in result.events if "filesystem" in event]
    return [(event["type"].removeprefix("EVENT_TYPE_"), event["name"]) for event in events]


def test_a_watch_tells_what_happens(sandbox):
    sandbox.text("mkdir d")
    started = watch(sandbox, "d")
    sandbox.text("cd d; echo x > f; chmod 600 f; mv f g; rm g")
    result = started.until(lambda result: ("REMOVE", "g") in seen(result))
    assert seen(result) == [("CREATE", "f"), ("WRITE", "f"), ("CHMOD", "f"), ("RENAME", "f"), ("CREATE", "g"),
                            ("REMOVE", "g")]  # fmt: skip


def test_a_watch_sees_one_level_unless_asked(sandbox):
    sandbox.text("mkdir -p d/e")
    started = watch(sandbox, "d")
    sandbox.text("touch d/e/below d/here")
    assert ("CREATE", "e/below") not in seen(started.until(lambda result: ("CREATE", "here") in seen(result)))


def test_a_recursive_watch_sees_all_levels_old_and_new(sandbox):
    sandbox.text("mkdir -p d/old/er")
    started = watch(sandbox, "d", recursive=True)
    sandbox.text("touch d/old/er/a; mkdir -p d/n/e/w; touch d/n/e/w/b")
    expected = {("CREATE", name) for name in ("old/er/a", "n", "n/e", "n/e/w", "n/e/w/b")}
    started.until(lambda result: expected <= set(seen(result)))


def test_a_recursive_watch_tells_once_what_becomes_of_a_directory(sandbox):
    sandbox.text("mkdir d")
    started = watch(sandbox, "d", recursive=True)
    sandbox.text("mkdir d/s; chmod 700 d/s; rmdir d/s; touch d/last")
    found = seen(started.until(lambda result: ("CREATE", "last") in seen(result)))
    assert found[:-1] == [("CREATE", "s"), ("CHMOD", "s"), ("REMOVE", "s")]


def test_a_recursive_watch_follows_moves(sandbox):
    sandbox.text("mkdir -p d/a/b out")
    started = watch(sandbox, "d", recursive=True)
    sandbox.text("mv d/a d/c; touch d/c/b/inside; mv d/c out; touch out/c/b/outside d/last")
    found = seen(started.until(lambda result: ("CREATE", "last") in seen(result)))
    assert ("CREATE", "c/b/inside") in found
    assert not [name for _, name in found if "outside" in name]


@contextmanager
def stopped(pid):
    """A process that does nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: procfs.stat_fields(pid)[0] == "T", "the process to stop")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_recursive_watch_that_lags_behind_moves_misses_nothing(daemon, sandbox):
    sandbox.text("mkdir -p d/a/b out")
    others = set(daemon.children)
    started = watch(sandbox, "d", recursive=True)
    [watcher] = set(daemon.children) - others
    with stopped(watcher):
        sandbox.text("mv d/a d/c; touch d/c/b/first; mv d/c d/e; touch d/e/b/second; mv d/e out; touch out/e/b/outside d/last")
    found = seen(started.until(lambda result: ("CREATE", "last") in seen(result)))
    assert [name for kind, name in found if kind == "CREATE"] == ["c", "c/b/first", "e", "e/b/second", "last"]


@pytest.mark.parametrize("option", ["includeEntry", "include_entry"])
def test_a_watch_brings_entries_when_asked(sandbox, option):
    sandbox.text("mkdir d; touch d/gone")
    started = watch(sandbox, "d", **{option: True})
    sandbox.text("touch d/f; rm d/gone")
    result = started.until(lambda result: ("REMOVE", "gone") in seen(result))
    events = {event["filesystem"]["name"]: event["filesystem"] for event in result.events if "filesystem" in event}
    assert (events["f"]["entry"]["path"], events["f"]["entry"]["owner"]) == (f"{HOME}/d/f", "user")
    assert "entry" not in events["gone"]


def test_keepalives_of_a_watch(sandbox):
    started = watch(sandbox, "/tmp", {"Keepalive-Ping-Interval": "1"})
    started.until(lambda result: {"keepalive": {}} in result.events)


def test_a_watch_ends_with_its_timeout(sandbox):
    trailer = watch(sandbox, "/tmp", {"Connect-Timeout-Ms": "2000"}).finish().trailer  # it begins well before
    assert trailer == {"error": {"code": "deadline_exceeded", "message": "context deadline exceeded"}}


@pytest.mark.parametrize("path, code, message", [
    ("x", "not_found", f"path {HOME}/x not found: stat {HOME}/x: no such file or directory"),
    ("/etc/passwd", "invalid_argument", "path /etc/passwd not a directory")])  # fmt: skip
def test_what_cannot_be_watched(sandbox, path, code, message):
    result = sandbox.stream("/filesystem.Filesystem/WatchDir", {"path": path}).finish()
    assert result.trailer == {"error": {"code": code, "message": message}}
    assert refusal(sandbox.files("CreateWatcher", path=path))[1:] == (code, message)


def test_a_watch_is_cut_with_its_sandbox(sandbox):
    started = watch(sandbox, "/tmp")
    sandbox.kill()
    assert started.finish().trailer is None


def test_a_client_that_leaves_takes_its_watch_along(daemon, sandbox):
    processes, descriptors = len(daemon.children), daemon.descriptors
    for _ in range(10):
        started = watch(sandbox, "/tmp")
        assert len(daemon.children) == processes + 1
        started.close()
        wait_for(lambda: len(daemon.children) == processes, "end of the watching process")
    wait_for(lambda: daemon.descriptors <= descriptors, "descriptors of the watches")


def test_a_slow_watcher_stalls_and_loses_nothing(sandbox):
    sandbox.text("mkdir d")
    started = watch(sandbox, "d")
    sandbox.text("cd d; seq -f %06g 5000 | xargs touch")
    found = seen(started.until(lambda result: result.events[-1].get("filesystem", {}).get("name") == "005000"))
    assert [name for kind, name in found if kind == "CREATE"] == [f"{n:06}" for n in range(1, 5001)]


def test_a_watcher_is_polled(sandbox):
    sandbox.text("mkdir d")
    watcher = sandbox.files("CreateWatcher", path="d").json
    assert re.fullmatch("w[a-z0-9]{20}", watcher["watcherId"])
    assert sandbox.files("GetWatcherEvents", **watcher).json == {}
    sandbox.text("touch d/f")
    events = wait_for(lambda: sandbox.files("GetWatcherEvents", **watcher).json.get("events"), "events")
    assert events[0] == {"name": "f", "type": "EVENT_TYPE_CREATE"}


def test_a_removed_watcher_is_gone(daemon, sandbox):
    processes = len(daemon.children)
    watcher = sandbox.files("CreateWatcher", path="/tmp").json
    assert sandbox.files("RemoveWatcher", **watcher).json == {}
    message = f"watcher with id {watcher['watcherId']} not found"
    for method in "GetWatcherEvents", "RemoveWatcher":
        assert refusal(sandbox.files(method, **watcher)) == (404, "not_found", message)
    wait_for(lambda: len(daemon.children) == processes, "end of the watching process")


def test_a_watcher_of_another_sandbox_is_not_found(daemon, sandbox):
    watcher = daemon.create().files("CreateWatcher", path="/tmp").json
    assert sandbox.files("GetWatcherEvents", **watcher).status == 404


def test_watches_are_limited_in_words(sandbox):
    watchers = [sandbox.files("CreateWatcher", path="/tmp") for _ in range(64)]
    assert {watcher.status for watcher in watchers} == {200}
    status, code, message = refusal(sandbox.files("CreateWatcher", path="/tmp"))
    assert (status, code) == (429, "resource_exhausted")
    assert "limit: 64" in message
    trailer = sandbox.stream("/filesystem.Filesystem/WatchDir", {"path": "/tmp"}).finish().trailer
    assert trailer["error"]["code"] == "resource_exhausted"
    assert sandbox.files("RemoveWatcher", **watchers[0].json).status == 200
    assert watch(sandbox, "/tmp")


def test_events_that_nobody_asks_for_cost_no_memory_without_end(sandbox):
    sandbox.text("mkdir d")
    watcher = sandbox.files("CreateWatcher", path="d").json
    sandbox.text("""cd d; python3 -c 'import os
for n in range(100000):
    os.close(os.open(str(n), os.O_CREAT))
    os.unlink(str(n))'""")
    events, error = [], None
    while error is None:
        answer = sandbox.files("GetWatcherEvents", **watcher)
        assert answer.status == 200 or answer.json["message"] == "watcher error: fsnotify: queue or buffer overflow"
        error = None if answer.status == 200 else answer.json["message"]
        assert len(answer.json.get("events", [])) <= 8192
        events += answer.json.get("events", [])
    assert 8192 <= len(events) < 200000


# --- the calls act inside -----------------------------------------------------------------------------


@pytest.fixture
def host_file():
    """A file of the host that anybody may read, change and remove, by its path alone."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o777)
    secret = folder / "secret"
    secret.write_text("of the host")
    secret.chmod(0o666)
    # Outside of a sandbox an ordinary user can do it all.
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] if os.getuid() == 0 else []
    subprocess.run([*nobody, "sh", "-c", f"cat {secret} && mv {secret} {folder}/x && mv {folder}/x {secret}"], check=True)
    yield secret
    shutil.rmtree(folder)


ESCAPES = ["{0}", "/../../../../../{0}", "{home}/../../../../{0}", "link", "chain", "/proc/1/root{0}", "/proc/self/root{0}",
           "/proc/1/cwd/../../../..{0}", "up/up/up/up{0}"]  # fmt: skip


@pytest.mark.parametrize("path", ESCAPES)
def test_no_path_and_no_link_leads_to_the_host(sandbox, host_file, path):
    assert host_file.read_text() == "of the host"
    sandbox.text(f"ln -s {host_file} link; ln -s link chain; ln -s .. up; ln -s / root")
    path = path.format(host_file, home=HOME)
    linked = path in ("link", "chain")
    found = sandbox.files("Stat", path=path)
    assert found.json["entry"]["type"] == "FILE_TYPE_SYMLINK" if linked else found.status in (403, 404)
    assert sandbox.files("ListDir", path=path).status in (403, 404)
    if not linked:
        assert sandbox.files("Move", source=path, destination="stolen").status in (403, 404)
    sandbox.files("Remove", path=path)
    assert host_file.read_text() == "of the host"
    assert list(host_file.parent.iterdir()) == [host_file]


@pytest.mark.parametrize("method", ["MakeDir", "Move", "CreateWatcher"])
def test_nothing_is_made_on_the_host(sandbox, host_file, method):
    inside = f"{host_file.parent}/made"
    sandbox.text(f"ln -s {host_file.parent} out; touch f")
    for path in inside, "out/made", f"/proc/1/root{inside}":
        sandbox.files(method, path=path, source="f", destination=path)
    assert list(host_file.parent.iterdir()) == [host_file]


def test_a_hard_link_to_the_read_only_system_cannot_be_made(sandbox):
    assert sandbox.run("ln /usr/bin/true t; ln /etc/passwd p").end["exitCode"] == 1
    assert refusal(sandbox.files("Remove", path="/usr/bin/true"))[:2] == (403, "permission_denied")
    assert refusal(sandbox.files("Move", source="/etc/passwd", destination="p"))[:2] != (200, "")
    assert "root:x:0" in sandbox.text("cat /etc/passwd")


def test_a_path_that_changes_under_a_call_stays_inside(sandbox, host_file):
    """A directory that turns into a link to the host's and back while it is removed and listed."""
    flipper = sandbox.start(
        f"mkdir d; ln -s {host_file.parent} l; while :; do mv -T d x; mv -T l d; mv -T d l; mv -T x d; touch d/f; done")
    assert flipper.pid
    for _ in range(100):
        sandbox.files("ListDir", path="d", depth=3)
        sandbox.files("Remove", path="d/secret")
        sandbox.files("Move", source="d/secret", destination="stolen")
    assert host_file.read_text() == "of the host"


def test_two_sandboxes_share_no_files(daemon):
    one, other = daemon.create(), daemon.create()
    one.files("MakeDir", path="/tmp/of-one")
    assert names(other, "/tmp") == []
    assert other.files("Stat", path="/tmp/of-one").status == 404


# --- their cost ---------------------------------------------------------------------------------------


def test_many_calls_at_once_are_answered(sandbox):
    """More than are done at once: the rest is told so, nothing hangs, and the sandbox goes on."""
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(sandbox.files("ListDir", path="/usr/lib", depth=2)))
               for _ in range(40)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in answers} == {200}
    assert sandbox.text("echo on") == "on\n"


def test_a_sandbox_that_cannot_fork_says_so(start_daemon):
    sandbox = start_daemon("--processes", "128").create()
    bomb = sandbox.start("for i in $(seq 200); do sleep 300 & done; echo full; wait")
    bomb.until(lambda result: b"full" in result.stdout or b"retry" in result.stderr)
    status, code, message = wait_for(
        lambda: (answer := sandbox.files("Stat", path="/")).status != 200 and refusal(answer), "a refusal")
    assert (status, code) == (429, "resource_exhausted")
    assert "no more processes" in message


def test_a_call_whose_client_left_is_forgotten(daemon, sandbox):
    sandbox.text("mkdir many; cd many; seq 30000 | xargs touch")
    descriptors = daemon.descriptors
    connections = []
    for _ in range(20):
        connection = UnixConnection(daemon.socket)
        headers = sandbox.headers | {"Content-Type": "application/json"}
        connection.request("POST", "/filesystem.Filesystem/ListDir", '{"path":"many"}', headers)
        connections.append(connection)
    for connection in connections:
        connection.close()
    wait_for(lambda: daemon.descriptors <= descriptors, "descriptors of the calls")
    assert sandbox.files("Stat", path="many").status == 200


# --- pauses -------------------------------------------------------------------------------------------


def test_a_pause_cuts_a_watch_and_a_watcher_goes_on_after_it(daemon, sandbox):
    sandbox.text("mkdir d")
    watcher = sandbox.files("CreateWatcher", path="d").json
    started = watch(sandbox, "d")
    assert daemon.post(f"/sandboxes/{sandbox.id}/pause", {}).status == 204
    assert started.finish().trailer is None
    assert daemon.post(f"/sandboxes/{sandbox.id}/connect", {"timeout": 60}).status == 201
    sandbox.text("touch d/f")
    wait_for(lambda: sandbox.files("GetWatcherEvents", **watcher).json.get("events"), "events after the pause")
