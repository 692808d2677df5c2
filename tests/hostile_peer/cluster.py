"""The cluster under attack as an operator and an honest person see it."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time

TICKS = os.sysconf("SC_CLK_TCK")


def own_ports(source, target):
    """Copies a topology with free ports."""
    def free(_):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        held.append(sock)
        return f'addr = "127.0.0.1:{sock.getsockname()[1]}"'

    held = []
    pathlib.Path(target).write_text(re.sub(r'addr = ".*"', free, pathlib.Path(source).read_text()))


class Cluster:
    """Runs the real commands; topology and profiles come from the environment."""

    def __init__(self, gaggle):
        self.gaggle = gaggle
        self.first = self.status()
        processes = [process for host in self.first["hosts"] for process in host["processes"]]
        self.pids = {process["id"]: process["pid"] for process in processes}
        self.ports = {process["id"]: int(process["addr"].rsplit(":", 1)[1]) for process in processes}
        serving = {host["name"]: host["serving"] for host in self.first["hosts"]}
        self.target, self.master = serving["lenss3"], "M1"
        self.epochs = self.epochs_of(self.first)

    def run(self, *args):
        return subprocess.run([self.gaggle, *args], capture_output=True, text=True, timeout=60)

    def status(self):
        done = self.run("status", "--json")
        return json.loads(done.stdout) if done.stdout else {"degraded": True, "hosts": [], "error": done.stderr}

    @staticmethod
    def epochs_of(status):
        return [(host["name"], host["serving"], host["epoch"]) for host in status["hosts"]]

    def troubles(self, wait=10.0):
        """What is not as it was before the first attack, once it has had this long to get well."""
        limit = time.monotonic() + wait
        while True:
            status, found = self.status(), []
            now = {process["id"]: process["pid"] for host in status["hosts"] for process in host["processes"]}
            found += [f"{id} was {pid}, is {now.get(id)}" for id, pid in self.pids.items() if now.get(id) != pid]
            found += ["status is degraded"] if status["degraded"] else []
            if self.epochs_of(status) != self.epochs:
                found.append(f"duties moved: {self.epochs_of(status)}")
            if not found or time.monotonic() > limit:
                self.pids, self.epochs = now, self.epochs_of(status)
                return found
            time.sleep(0.1)

    def cpu(self, id):
        """Seconds of CPU that a process has had."""
        try:
            fields = pathlib.Path(f"/proc/{self.pids[id]}/stat").read_text().rsplit(")", 1)[1].split()
        except FileNotFoundError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self, id, what="VmRSS"):
        """MiB of a process now, or at most since `forget_peak` (VmHWM)."""
        try:
            found = re.search(rf"{what}:\s+(\d+)", pathlib.Path(f"/proc/{self.pids[id]}/status").read_text())
        except FileNotFoundError:
            return 0.0
        return int(found[1]) / 1024

    def forget_peak(self, id):
        pathlib.Path(f"/proc/{self.pids[id]}/clear_refs").write_text("5")


class Witness:
    """An honest person's view, from a process of its own, so that the attacker's haste does not falsify it."""

    def __init__(self, gaggle, log):
        self.log = pathlib.Path(log)
        command = [sys.executable, __file__, gaggle, str(log)]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE)

    def seen(self, since, until):
        """What it noted in this time: kind -> milliseconds, and what went wrong."""
        times, wrong = {"post": [], "command": [], "status": []}, []
        for line in self.log.read_text().splitlines():
            note = json.loads(line)
            # Also what was still waiting at the end.
            if note["began"] <= until and note["ended"] >= since:
                times[note["kind"]].append((note["ended"] - note["began"]) * 1000)
                wrong += [f"{note['kind']}: {note['wrong']}"] if note["wrong"] else []
        return times, wrong

    def waiting(self):
        """Whether a post that began before now is still without an answer."""
        return self.log.stat().st_mtime < time.time() - 1.5

    def end(self):
        self.child.stdin.close()
        self.child.wait(90)


def witness(gaggle, path):
    """Posts a line after each answer, and each second asks for the status and posts once more by a new command."""
    log, lock, over = open(path, "w", buffering=1), threading.Lock(), threading.Event()

    def note(kind, began, wrong):
        with lock:
            log.write(json.dumps({"kind": kind, "began": began, "ended": time.time(), "wrong": wrong}) + "\n")

    def post():
        args = [gaggle, "post", "-", "--json", "--as", "ann", "--via", "lenss3"]
        with subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as child:
            while not over.wait(0.02):
                began = time.time()
                child.stdin.write("an honest line\n")
                answer = child.stdout.readline()
                note("post", began, None if '"seq"' in answer else answer.strip() or "no answer")
                if not answer:
                    return
            child.stdin.close()

    def commands():
        asked = {"status": ["status", "--json"], "command": ["post", "hello", "--json", "--as", "bob", "--via", "lenss3"]}
        while not over.wait(0.5):
            for kind, args in asked.items():
                began = time.time()
                done = subprocess.run([gaggle, *args], capture_output=True, text=True)
                wrong = f"exit {done.returncode}: {done.stderr.strip()[:200]}" if done.returncode else None
                note(kind, began, wrong)

    threads = [threading.Thread(target=post), threading.Thread(target=commands)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    witness(*sys.argv[1:])
