"""Two machines of a test's own, as network namespaces joined by a wire: "here", where sandboxd runs, and "there", which
stands for the internet. Nothing of it touches the network of the machine the tests run on.

There has every address that a test asks it to have, public or not, and here's default route leads to it: what sandboxd
does not refuse is answered. Both run a web server on all their addresses, there a name server too.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

from sandboxd_client import wait_for

HERE, THERE = "203.0.113.1", "203.0.113.10"
HERE_V6, THERE_V6 = "2001:db8:0:1::1", "2001:db8:0:1::10"


class Machine:
    """A network and a mount namespace, held by a process that waits."""

    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", "echo; exec sleep infinity"],
                                       stdout=subprocess.PIPE)  # fmt: skip
        assert self.holder.stdout.read(1) == b"\n"
        self.enter = ("nsenter", "-t", str(self.holder.pid), "--net", "--mount", "--")
        self.served = None
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *command):
        subprocess.run([*self.enter, *command], check=True)

    def add_address(self, address, device):
        bits = "" if "/" in address else "/128" if ":" in address else "/32"
        self.run("ip", "address", "add", address + bits, "dev", device, *(["nodad"] if ":" in address else []))

    def serve(self, name, folder: Path):
        self.served = subprocess.Popen([*self.enter, sys.executable, Path(__file__).with_name("machine_services.py"),
                                        name, folder], stdout=subprocess.PIPE)  # fmt: skip
        assert self.served.stdout.readline() == b"ready\n"

    def close(self):
        for process in filter(None, (self.served, self.holder)):
            process.kill()
            process.wait()
            process.stdout.close()


class TwoMachines:
    def __init__(self, folder: Path):
        self.folder = folder
        self.here, self.there = Machine(), Machine()
        self.resolv_conf, self.hosts = folder / "resolv.conf", folder / "hosts"
        self.resolv_conf.write_text(f"nameserver {THERE}\n")
        self.hosts.write_text("127.0.0.1 localhost\n")
        self.names = {}
        self.set_names()
        try:
            self.join()
        except BaseException:
            self.close()
            raise

    def join(self):
        here, there = self.here, self.there
        here.run("ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", str(there.holder.pid))
        for machine, v4, v6 in ((here, HERE, HERE_V6), (there, THERE, THERE_V6)):
            machine.add_address(v4 + "/24", "wire")
            machine.add_address(v6 + "/64", "wire")
            machine.run("ip", "link", "set", "wire", "up")
        here.run("ip", "route", "add", "default", "via", THERE)
        here.run("ip", "-6", "route", "add", "default", "via", THERE_V6)
        for path in (self.resolv_conf, self.hosts):
            here.run("mount", "--bind", path, f"/etc/{path.name}")
        here.serve("here", self.folder)
        there.serve("there", self.folder)
        # A link takes its time to come up: the first packet that passes says that it has.
        probe = f"import socket; [socket.create_connection((peer, 80), 0.1) for peer in ('{THERE}', '{THERE_V6}')]"
        command = [*here.enter, sys.executable, "-c", probe]
        wait_for(lambda: subprocess.run(command, capture_output=True).returncode == 0, "the wire")

    def set_names(self, **names):
        """What the name server says from now on: lists of addresses, None: no answer ever, "flip": each in turn."""
        self.names |= names
        new = self.folder / "names.new"
        new.write_text(json.dumps(self.names))
        new.rename(self.folder / "names.json")

    @property
    def asked(self) -> list[str]:
        """The names the name server was asked for."""
        path = self.folder / "asked"
        return path.read_text().split() if path.exists() else []

    @property
    def raw(self) -> list[bytes]:
        """All that each connection to port 8081 of there sent, once it ended."""
        path = self.folder / "raw"
        return [ast.literal_eval(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def requests(self) -> list[str]:
        """The request lines that there's web server got."""
        path = self.folder / "requests-there"
        return path.read_text().splitlines() if path.exists() else []

    def close(self):
        self.here.close()
        self.there.close()
