"""What /proc tells about the server's processes."""

from contextlib import suppress
from pathlib import Path

# A process may end between two looks at it.
GONE = (FileNotFoundError, ProcessLookupError)


def stat_fields(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except GONE:
        return []


def all_pids() -> list[int]:
    """Every process there is."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def children(pid: int) -> set[int]:
    """Living children of a process; zombies are not counted."""
    stats = {child: stat_fields(child) for child in all_pids()}
    return {child for child, fields in stats.items() if fields and fields[0] != "Z" and int(fields[1]) == pid}


def session(sid: int) -> set[int]:
    """Living processes of a session."""
    stats = {pid: stat_fields(pid) for pid in all_pids()}
    return {pid for pid, fields in stats.items() if fields and fields[0] != "Z" and int(fields[3]) == sid}


def tasks(pid: int) -> list[int]:
    """Threads of a process; none when it is gone."""
    try:
        return [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    except GONE:
        return []


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    fields = stat_fields(pid)
    return bool(fields) and fields[0] != "Z"


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped a process: the signal's sender goes on before that."""
    return stat_fields(pid)[:1] == ["T"]


def descriptors(pid: int) -> dict[int, str]:
    """Open descriptors and what they point at."""
    found = {}
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(*GONE):
                found[int(link.name)] = str(link.readlink())
    except GONE:
        return {}
    return found


ESTABLISHED = "01"


def sockets_to(port: int, states: tuple[str, ...] = ()) -> set[str]:
    """Sockets connected to a port of this machine, as descriptors() names them: pooled connections to the double.

    states: only those of these states, as /proc/net/tcp names them; one that its other end has closed may stay for long.
    """
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == port and (not states or fields[3] in states):
            found.add(f"socket:[{fields[9]}]")
    return found


def client_ports(port: int, pid: int) -> set[int]:
    """Ports of this machine's clients whose connection to a port of this machine a process holds."""
    held = set(descriptors(pid).values())
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote = (int(address.rpartition(":")[2], 16) for address in fields[1:3])
        if local == port and f"socket:[{fields[9]}]" in held:
            found.add(remote)
    return found


def _queues(port: int, peer_port: int) -> tuple[int, int]:
    """Of a connection within this machine, seen from its end at a port: bytes the peer has not got yet, and bytes not read."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if [int(address.rpartition(":")[2], 16) for address in fields[1:3]] == [port, peer_port]:
            unsent, _, unread = fields[4].partition(":")
            return int(unsent, 16), int(unread, 16)
    return 0, 0


def unsent_bytes(port: int, peer_port: int) -> int:
    """What was written at a port of this machine and has not come to the peer yet."""
    return _queues(port, peer_port)[0]


def unread_bytes(port: int, client_port: int) -> int:
    """What came to a port of this machine from a client of this machine and was not read yet."""
    return _queues(port, client_port)[1]


def private_kib(pid: int, kinds: tuple[str, ...] = ("Private_Clean:", "Private_Dirty:")) -> int:
    """Private memory of a process: what is mapped to be shared does not count, though only one may have touched it."""
    total = 0
    shared = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        fields = line.split()
        if not fields[0].endswith(":"):
            shared = fields[1].endswith("s")
        elif not shared and fields[0] in kinds:
            total += int(fields[1])
    return total


def own_kib(pid: int) -> int:
    """Memory that a process has written to: the same whichever other programs use the same libraries."""
    return private_kib(pid, ("Private_Dirty:",))


def anonymous_kib(pid: int) -> int:
    """Memory of a process that is no file's: the same whether relatives that share it since a fork live or not."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1])
    raise AssertionError("the kernel does not tell of anonymous memory")


def socket_owner(local_port: int, pids: set[int]) -> int | None:
    """Which of these processes holds the server's end of the connection whose client port is this."""
    inodes = sockets_to(local_port)
    return next((pid for pid in pids if inodes & set(descriptors(pid).values())), None)


def command(pid: int) -> str:
    """The command line of a process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except GONE:
        return ""
