"""The engines side by side: each starts, pulls, runs and stops in places of its own."""

import os
import subprocess
import time

import scale
import timing
from timing import Failed


def wait_until(what, check, seconds=30):
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: nothing after {seconds} s")
        time.sleep(0.02)


class Engine:
    """A client's command line, and a daemon where there is one."""

    title = ""

    def __init__(self, place, state, log, cgroup):
        self.place, self.state, self.log, self.cgroup, self.pid, self.env = place, state, log, cgroup, None, None
        os.makedirs(place, exist_ok=True)
        os.makedirs(state, exist_ok=True)

    def client(self, *words):
        raise NotImplementedError

    def daemon(self):
        return None

    def start(self):
        command = self.daemon()
        if command:
            self.pid = timing.spawn(command, self.log, new_session=True)
            wait_until(f"{self.title} answers", self.answers)

    def answers(self):
        if os.waitpid(self.pid, os.WNOHANG)[0]:
            self.pid = None
            with open(self.log, errors="replace") as file:
                raise Failed(f"{self.title} ended at once:\n{file.read()[-2000:]}")
        return subprocess.run(self.client("version"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def stop(self):
        if self.pid:
            timing.stop(self.pid)
            self.pid = None

    def call(self, *words):
        return timing.call(self.client(*words), self.log, self.env)

    def output(self, *words):
        return subprocess.run(self.client(*words), check=True, capture_output=True, text=True, env=self.env).stdout.strip()

    def run(self, *flags, command=("true",), image="busybox"):
        return self.client("run", *self.run_flags(), *flags, image, *command)

    def run_flags(self):
        return []

    def remove_all(self):
        ids = self.output("ps", "-aq").split()
        if ids:
            self.call("rm", "-f", *ids)

    def processes(self):
        """Pids of the daemon and what it started that is no container's."""
        return []

    def shim_name(self):
        raise NotImplementedError


class Ours(Engine):
    title = "ours"

    def __init__(self, place, state, log, cgroup, programs):
        super().__init__(place, state, log, cgroup)
        self.programs = programs
        self.socket = f"unix://{state}/docker.sock"
        self.config = f"{place}/config.toml"
        with open(self.config, "w") as file:
            file.write(f'cgroup_parent = "/{cgroup}/ours"\n[registry]\ninsecure = ["127.0.0.1:5000"]\n')

    def restart(self, signal):
        """Ends the manager by a signal and starts it anew; seconds from the start until it answers."""
        os.kill(self.pid, signal)
        os.waitpid(self.pid, 0)
        begun = time.monotonic()
        self.pid = timing.spawn(self.daemon(), self.log, new_session=True)
        scale.until_answered(self.socket.removeprefix("unix://"), 60)
        return time.monotonic() - begun

    def client(self, *words):
        return [f"{self.programs}/rdocker", "-H", self.socket, *words]

    def daemon(self):
        return [f"{self.programs}/rcontainerd", "--root", f"{self.place}/r", "--state", self.state, "--config", self.config]

    def processes(self):
        return [self.pid]

    def shim_name(self):
        return "containerd-shim-rrun-v2"


class Docker(Engine):
    title = "docker"

    def __init__(self, place, state, log, cgroup):
        super().__init__(place, state, log, cgroup)
        self.socket = f"unix://{state}/docker.sock"

    def client(self, *words):
        return ["/usr/bin/docker", "-H", self.socket, *words]

    def daemon(self):
        # The pool of our own bridge is another one: both live in the bench's network namespace.
        return [
            timing.find("dockerd"), "--data-root", f"{self.place}/data", "--exec-root", f"{self.state}/exec", "-p", f"{self.state}/pid",
            "-H", self.socket, "--bip=172.29.0.1/16", f"--cgroup-parent=/{self.cgroup}/docker", "--insecure-registry=127.0.0.1:5000",
        ]

    def processes(self):
        return [self.pid, *children(self.pid)]

    def shim_name(self):
        return "containerd-shim"


class Podman(Engine):
    title = "podman"

    def client(self, *words):
        return [
            timing.find("podman"), "--root", f"{self.place}/data", "--runroot", f"{self.state}/run", "--tmpdir", f"{self.state}/tmp",
            "--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime=crun", *words,
        ]

    def run_flags(self):
        return [f"--cgroup-parent=/{self.cgroup}/podman"]

    def run(self, *flags, command=("true",), image="localhost/busybox"):
        return super().run(*flags, command=command, image=image)

    def shim_name(self):
        return "conmon"


def children(parent):
    with open(f"/proc/{parent}/task/{parent}/children") as file:
        return [int(pid) for pid in file.read().split()]


def named(name):
    """Pids of all processes of that name; the bench's pid namespace has only its own."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    if os.path.basename(file.read().split(b"\0")[0]).startswith(name.encode()):
                        yield int(entry)
            except FileNotFoundError:
                pass


def pss(pid):
    """Kilobytes."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))


def status(pid, field):
    """Kilobytes: VmRSS, VmHWM."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field + ":"))
