"""Ways out of a sandbox, as small programs: each exits 0 where it succeeds.

The same program runs inside a sandbox, where it must fail, and outside, where it must succeed: as root of the host,
harmlessly, or in throwaway namespaces (`outside`). Where success cannot be shown without harm, the program exits 0 when
the kernel takes the call as one it may make and complains of its arguments only: `equivalent` says so.

@words@ are filled in by test_escape.py; @target@ is process 1 inside, and a process of the host's outside.
"""

import os
from dataclasses import dataclass

NUMBERS = {
    "x86_64": {"ptrace": 101, "pivot_root": 155, "swapon": 167, "reboot": 169, "init_module": 175, "delete_module": 176,
               "keyctl": 250, "add_key": 248, "kexec_load": 246, "unshare": 272, "perf_event_open": 298,
               "name_to_handle_at": 303, "open_by_handle_at": 304, "process_vm_readv": 310, "kcmp": 312, "bpf": 321,
               "userfaultfd": 323, "clone": 56, "fanotify_init": 300},
    "aarch64": {"ptrace": 117, "pivot_root": 41, "swapon": 224, "reboot": 142, "init_module": 105, "delete_module": 106,
                "keyctl": 219, "add_key": 217, "kexec_load": 104, "unshare": 97, "perf_event_open": 241,
                "name_to_handle_at": 264, "open_by_handle_at": 265, "process_vm_readv": 270, "kcmp": 272, "bpf": 280,
                "userfaultfd": 282, "clone": 220, "fanotify_init": 262},
}[os.uname().machine] | {"io_uring_setup": 425, "open_tree": 428, "fsopen": 430, "clone3": 435, "pidfd_open": 434,
                         "pidfd_getfd": 438, "mount_setattr": 442, "memfd_secret": 447, "open_tree_attr": 467}  # fmt: skip

# What every Python program begins with.
PRELUDE = f"""
import ctypes, errno, os, socket, struct, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
N = {NUMBERS!r}
def call(name, *args):
    got = libc.syscall(ctypes.c_long(N[name]), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return got if got >= 0 else -ctypes.get_errno()
def must(result):
    if result < 0: sys.exit(os.strerror(-result))
    return result
def taken(result):  # the call is ours to make, whatever is said of its arguments
    if -result in (errno.EPERM, errno.ENOSYS, errno.EACCES): sys.exit(os.strerror(-result))
def asked(result):  # as taken(); a kernel that was built without the call says so only to those whom no filter stops
    if -result in (errno.EPERM, errno.EACCES): sys.exit(os.strerror(-result))
def pid_of(word):
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try: found = word.encode() in open(f'/proc/{{pid}}/cmdline', 'rb').read()
        except OSError: continue
        if found and int(pid) != os.getpid(): return int(pid)
    sys.exit('no such process')
def tcp(host, port):
    s = socket.create_connection((host, port), timeout=15)
    s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
    assert b'host' in s.recv(1000)
"""

MOUNTS = ("unshare", "--mount")  # throwaway namespaces of root, for what would change this machine
NAMES = ("unshare", "--uts")
METADATA = """
import socket, subprocess, sys, threading
subprocess.run('ip link set lo up; ip addr add 169.254.169.254/32 dev lo', shell=True, check=True)
server = socket.create_server(('169.254.169.254', 80))
threading.Thread(target=lambda: server.accept()[0].sendall(b'host'), daemon=True).start()
sys.exit(subprocess.run(sys.argv[1:]).returncode)"""
NETWORK = ("unshare", "--net", "/usr/bin/python3", "-I", "-c", METADATA)
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


@dataclass(frozen=True)
class Attempt:
    name: str
    code: str
    outside: tuple[str, ...] = ()
    equivalent: str = ""

    @property
    def argv(self) -> list[str]:
        if self.code.startswith("sh: "):
            return ["/bin/sh", "-c", self.code[4:]]
        return ["/usr/bin/python3", "-I", "-c", PRELUDE + self.code]


FILES = [
    Attempt("read a file of the host", "sh: grep -q secret @secret@"),
    Attempt("list a folder of the host", "sh: ls @folder@ | grep -q ."),
    Attempt("read the password hashes", "sh: grep -q ^root: /etc/shadow"),
    Attempt("read the host's accounts", "sh: grep -q ^daemon: /etc/passwd"),
    Attempt("read the host's name", "sh: test \"$(uname -n)\" = @hostname@"),
    Attempt("read the root of process 1", "sh: grep -q secret /proc/@target@/root@secret@"),
    Attempt("climb out of one's own root", "sh: grep -q secret /proc/self/root/../../..@secret@"),
    Attempt("climb out of a chroot", "os.chroot('/tmp')"),
    Attempt("read the host's file through its folder's handle", """
handle = ctypes.create_string_buffer(struct.pack('Ii', 128, 0), 136)
mount = ctypes.c_int()
must(call('name_to_handle_at', -100, b'@folder@', handle, ctypes.byref(mount), 0))
fd = must(call('open_by_handle_at', os.open('@folder@', os.O_RDONLY), handle, os.O_RDONLY))
assert 'secret' in os.listdir(fd)"""),
    Attempt("write into /usr", "sh: f=/usr/local/escape-$$; touch $f && rm $f"),
    Attempt("write into /etc", "sh: f=/etc/escape-$$; touch $f && rm $f"),
    Attempt("write into the root folder", "sh: f=/escape-$$; touch $f && rm $f"),
    Attempt("change the program that is process 1", "os.open('@init@', os.O_RDWR)",
            equivalent="outside it is a copy of that program"),
    Attempt("hard link a file of the system", "sh: ln @linked@ @writable@/l && rm @writable@/l",
            equivalent="outside both are in a folder of the test; inside the file is a program in /usr"),
    Attempt("enter the mounts of process 1", "sh: nsenter --target @target@ --mount grep -q secret @secret@"),
    Attempt("make a device node", "sh: d=@writable@/d; mknod $d c 1 3 && echo x > $d && rm $d",
            equivalent="the node is /dev/null's, a disk's would do as well"),
    Attempt("open a device of the machine", "os.open('@device@', os.O_RDWR)"),
    Attempt("give a file to root", "open('@writable@/o', 'w'); os.chown('@writable@/o', 0, 0)"),
    Attempt("give a program a capability", """
open('@writable@/c', 'w')
os.setxattr('@writable@/c', 'security.capability', struct.pack('<5I', 0x02000001, 1 << 21, 0, 0, 0))"""),
]  # fmt: skip

NEIGHBOURS = [
    Attempt("read a neighbour's home", "sh: grep -q hush /home/user/neighbours-secret",
            equivalent="outside is the neighbour itself"),
    Attempt("read a neighbour's /tmp", "sh: grep -q hush /tmp/neighbours-secret",
            equivalent="outside is the neighbour itself"),
    Attempt("reach a neighbour's server", "tcp('127.0.0.1', 8099)", equivalent="outside is the neighbour itself"),
    Attempt("see a neighbour's process", "pid_of('neighbour-@mark@')"),
    Attempt("signal a neighbour's process", "os.kill(pid_of('neighbour-@mark@'), 0)"),
    Attempt("attach a neighbour's shared memory", "must(libc.shmget(@shm_key@, 0, 0))",
            equivalent="it is the host's: all are outside alike"),
    Attempt("open the host's message queue", """
mq = ctypes.CDLL('librt.so.1')
if mq.mq_open(b'/escape-@mark@', 0) < 0: sys.exit(1)"""),
    Attempt("reach an abstract socket of the host", """
socket.socket(socket.AF_UNIX).connect('\\0escape-@mark@')"""),
]  # fmt: skip

PROCESSES = [
    Attempt("see the host's processes", "pid_of('victim-@mark@')"),
    Attempt("signal a process of the host", "os.kill(@victim@, 0); pid_of('victim-@mark@')"),
    Attempt("read sandboxd's environment", "sh: tr '\\0' '\\n' < /proc/@sandboxd@/environ | grep -q ^PATH="),
    Attempt("read sandboxd's memory", "os.pread(os.open('/proc/@sandboxd@/mem', os.O_RDONLY), 1, "
            "int(open('/proc/@sandboxd@/maps').read().split('-')[0], 16))"),
    Attempt("trace a process", "must(call('ptrace', 0x4206, @target@, 0, 0))"),  # PTRACE_SEIZE
    Attempt("trace one's own child", """
child = subprocess.Popen(['sleep', '9'])
try: must(call('ptrace', 0x4206, child.pid, 0, 0))
finally: child.kill()"""),
    Attempt("read another process's memory", """
child = subprocess.Popen(['sh', '-c', 'echo; read line'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.read(1)  # from here on it has a stack by that name: not yet when exec has let us go on
at = int(next(l for l in open(f'/proc/{child.pid}/maps') if '[stack]' in l).split('-')[0], 16)
there, here = (ctypes.c_long * 2)(at, 1), ctypes.create_string_buffer(1)
mine = (ctypes.c_long * 2)(ctypes.addressof(here), 1)
try: must(call('process_vm_readv', child.pid, mine, 1, there, 1, 0))
finally: child.kill()"""),
    Attempt("list the descriptors of process 1", "sh: ls /proc/@target@/fd | grep -q ."),
    Attempt("read the memory map of process 1", "sh: grep -q . /proc/@target@/maps"),
    Attempt("take a descriptor of process 1", """
fd = must(call('pidfd_open', @target@, 0))
must(call('pidfd_getfd', fd, 0, 0))"""),
    Attempt("compare with process 1", "must(call('kcmp', os.getpid(), @target@, 2, 0, 0))"),
    Attempt("make process 1 the first to die", "open('/proc/@target@/oom_score_adj', 'w').write('0')"),
    Attempt("run in real time", "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))"),
    Attempt("be nicer to oneself than to others", "os.nice(-5)"),
]

NETWORK_ATTEMPTS = [
    Attempt("reach a server on the host's loopback", "tcp('127.0.0.1', @port@)"),
    Attempt("reach a server on the host's own address", "tcp('@address@', @port@)"),
    Attempt("reach a server on the host's IPv6 loopback", "tcp('::1', @port6@)"),
    Attempt("reach the metadata of a cloud", "tcp('169.254.169.254', 80)", NETWORK,
            "outside the address is on the loopback of a throwaway network"),
    Attempt("talk to sandboxd by its socket", "socket.socket(socket.AF_UNIX).connect('@socket@')"),
    Attempt("make raw packets", "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)"),
    Attempt("hear all packets", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)"),
    Attempt("change the network", "sh: ip link add e0 type dummy || ip addr add 10.9.8.7/32 dev lo",
            ("unshare", "--net")),
    Attempt("enter the network of process 1", "sh: nsenter --target @target@ --net true"),
]

if os.path.exists("/dev/vsock"):
    NETWORK_ATTEMPTS.append(Attempt("talk to the hypervisor", "socket.socket(40, socket.SOCK_STREAM)",
                                    equivalent="a vsock is opened, not connected"))  # fmt: skip
    if os.uname().machine == "x86_64":
        NETWORK_ATTEMPTS.append(Attempt("the same, with an upper half that the kernel does not look at", """
must(libc.syscall(ctypes.c_long(41), ctypes.c_long(40 | 1 << 32), ctypes.c_long(1), ctypes.c_long(0)))"""))  # fmt: skip

POWERS = [
    Attempt("become root", "os.setuid(0); assert os.geteuid() == 0"),
    Attempt("become root by a setuid program", """
su = subprocess.Popen(['su', '-c', 'true'], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
su.stderr.read(1)  # of its question for the password
try: assert [l.split()[2] for l in open(f'/proc/{su.pid}/status') if l.startswith('Uid')] == ['0']
finally: su.stdin.close(); su.wait()""", NOBODY),
    Attempt("make a user namespace", "sh: unshare --user true"),
    Attempt("make a user namespace by clone", """
pid = call('clone', 0x10000000 | 17, 0, 0, 0, 0)
if pid == 0: os._exit(0)
must(pid)"""),
    Attempt("make a user namespace by clone3", """
args = (ctypes.c_uint64 * 8)(0x10000000, 0, 0, 0, 17, 0, 0, 0)
pid = call('clone3', args, ctypes.sizeof(args))
if pid == 0: os._exit(0)
must(pid)"""),
    *[Attempt(f"make a new {what} namespace", f"sh: unshare --{what} true")
      for what in ("mount", "net", "ipc", "uts", "cgroup")],
    Attempt("make a new pid namespace", "sh: unshare --pid --fork true"),
    Attempt("enter a namespace", "must(libc.setns(os.open('/proc/self/ns/uts', os.O_RDONLY), 0) and -ctypes.get_errno())"),
    Attempt("rename the machine", "socket.sethostname('escaped')", NAMES),
]  # fmt: skip

KERNEL = [
    Attempt("mount", "sh: mount -t tmpfs none /tmp", MOUNTS),
    Attempt("bind a folder elsewhere", "sh: mount --bind /usr /tmp", MOUNTS),
    Attempt("mount by the new calls", "must(call('fsopen', b'tmpfs', 0))"),
    Attempt("clone a tree of mounts", "must(call('open_tree', -100, b'/usr', 1))"),
    Attempt("change the attributes of a mount", "taken(call('mount_setattr', -100, b'/usr', 0, 0, 32))",
            equivalent="without attributes to change"),
    Attempt("unmount", "must(libc.umount2(b'/proc', 2) and -ctypes.get_errno())", MOUNTS),
    Attempt("pivot the root", "taken(call('pivot_root', b'/tmp', b'/tmp'))", equivalent="to no root of a mount"),
    Attempt("load a program into the kernel", """
must(call('bpf', 0, struct.pack('<IIII', 2, 4, 8, 1) + bytes(112), 128))"""),
    Attempt("count the events of the machine", """
must(call('perf_event_open', struct.pack('<IIQ', 1, 128, 0) + bytes(112), -1, 0, -1, 0))"""),
    Attempt("handle one's own page faults", "must(call('userfaultfd', 0))"),
    Attempt("hear of all opened files", "must(call('fanotify_init', 0, 0))"),
    Attempt("keep a key in the kernel", "must(call('add_key', b'user', b'escape', b'x', 1, -2))"),
    Attempt("read the kernel's keys", "must(call('keyctl', 0, -3, 1))"),
    Attempt("use io_uring", "must(call('io_uring_setup', 4, bytes(120)))"),
    Attempt("start another kernel", "asked(call('kexec_load', 0, 17, 0, 0))", equivalent="with too many segments"),
    Attempt("load a module", "asked(call('init_module', b'x', 1, b''))", equivalent="one that is no module"),
    Attempt("remove a module", "asked(call('delete_module', b'no-such-module', 0))", equivalent="one that is not there"),
    Attempt("restart the machine", "taken(call('reboot', 0, 0, 0, 0))", equivalent="with wrong magic numbers"),
    Attempt("swap to a file", "taken(call('swapon', b'/no/such/file', 0))", equivalent="to one that is not there"),
    Attempt("read the kernel's log", "sh: dmesg"),
    Attempt("type into a terminal", """
import fcntl, pty, termios
master, terminal = pty.openpty()
fcntl.ioctl(terminal, termios.TIOCSTI, b'x')"""),
    Attempt("type into a terminal, the request's upper half set", """
import pty
master, terminal = pty.openpty()
must(libc.ioctl(terminal, ctypes.c_ulong(0x5412 | 1 << 32), b'x') and -ctypes.get_errno())"""),
    Attempt("paste into a console", """
import pty
master, terminal = pty.openpty()
taken(libc.ioctl(terminal, 0x541c, b'\\3') and -ctypes.get_errno())""", equivalent="a terminal that is no console"),
]  # fmt: skip

if os.uname().machine == "x86_64":
    KERNEL.append(Attempt("make calls of another architecture", """
import mmap
code = mmap.mmap(-1, 4096, prot=7)
code.write(bytes.fromhex('53b814000000cd805bc3'))  # push rbx; mov eax, 20 (getpid); int 0x80; pop rbx; ret
run = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
assert run() == os.getpid()
os._exit(0)"""))

SETTINGS = [
    *[Attempt(f"open {path} for writing", f"os.open('{path}', os.O_WRONLY)", equivalent="it is opened, not written to")
      for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/drop_caches",
                   "/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/power/state", "/sys/kernel/uevent_helper",
                   "/dev/kmsg") if os.path.exists(path)],
    *[Attempt(f"open {path}", f"os.open('{path}', os.O_RDONLY)")
      for path in ("/proc/kcore", "/proc/kmsg", "/sys/kernel/debug", "/dev/fuse", "/dev/net/tun", "/sys/class/net/lo")
      if os.path.exists(path)],
    Attempt("read the kernel's addresses", "sh: awk '$1 !~ /^0+$/ { found = 1; exit } END { exit !found }' /proc/kallsyms"),
    Attempt("change a control group", "os.open('@group@', os.O_WRONLY)"),
    Attempt("steer interrupts", "os.open('/proc/irq/default_smp_affinity', os.O_WRONLY)"),
]  # fmt: skip

ATTEMPTS = FILES + NEIGHBOURS + PROCESSES + NETWORK_ATTEMPTS + POWERS + KERNEL + SETTINGS
