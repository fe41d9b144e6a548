"""A store with many images and containers: how long the start, the list, a load, a removal and a collection take; and what a manager with
many running containers costs. A table, never a test."""

import concurrent.futures
import hashlib
import http.client
import io
import json
import os
import socket
import tarfile
import time

# How many clients start containers side by side.
STARTERS = 4


def digest(data):
    return hashlib.sha256(data).hexdigest()


def layer(name, data):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def archive(path, images):
    """A docker-archive; `images`: name → layers."""
    seen = set()
    with tarfile.open(path, "w") as tar:

        def add(name, data):
            if name not in seen:
                seen.add(name)
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))

        def blob(data):
            name = f"blobs/sha256/{digest(data)}"
            add(name, data)
            return name

        manifest = []
        for number, (name, layers) in enumerate(images.items()):
            config = {
                "architecture": "amd64",
                "os": "linux",
                "created": f"2024-01-01T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}Z",
                "config": {"Cmd": ["/bin/true"], "Env": ["PATH=/bin"], "Labels": {"number": str(number)}},
                "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest(one) for one in layers]},
                "history": [{"created_by": f"layer {n}"} for n in range(len(layers))],
            }
            names = [blob(one) for one in layers]
            manifest.append({"Config": blob(json.dumps(config).encode()), "RepoTags": [name], "Layers": names})
        add("manifest.json", json.dumps(manifest).encode())


def many(count):
    base = layer("base", b"x" * 4096)
    return {f"scale/image{n % 100}:v{n}": [base, layer(f"file{n}", str(n).encode())] for n in range(count)}


def deep(layers):
    return {"deep:1": [layer(f"f{n}", str(n).encode() * 100) for n in range(layers)]}


def took(work):
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


class Api(http.client.HTTPConnection):
    """Docker's API on a unix socket."""

    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


    def ask(self, method, path, body=None):
        """The answer, parsed if it is JSON."""
        self.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
        answer = self.getresponse()
        told = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {told.decode()}")
        return json.loads(told) if told.startswith((b"[", b"{")) else told


def create(path, names, count):
    """Containers that are not started; seconds."""
    api = Api(path)

    def all_of_them():
        for n in range(count):
            body = {"Image": names[n % len(names)], "Cmd": ["/bin/true"], "HostConfig": {"NetworkMode": "none"}}
            api.ask("POST", f"/containers/create?name=scale-{n}", body)

    return took(all_of_them)


def run(path, count, command, network):
    """Containers that are started, a few at a time; `network`: number → mode."""

    def every(first):
        api = Api(path)
        for n in range(first, count, STARTERS):
            body = {"Image": "busybox", "Cmd": command, "HostConfig": {"NetworkMode": network(n)}}
            api.ask("POST", f"/containers/{api.ask('POST', '/containers/create', body)['Id']}/start")

    with concurrent.futures.ThreadPoolExecutor(STARTERS) as pool:
        list(pool.map(every, range(STARTERS)))


def states(path):
    """How many containers are in each state."""
    found = [container["State"] for container in Api(path).ask("GET", "/containers/json?all=1")]
    return {state: found.count(state) for state in set(found)}


def until_answered(path, patience):
    """Seconds until the manager at `path` answers a ping. A socket without a listener is asked again."""
    begun = time.monotonic()
    while True:
        try:
            Api(path).ask("GET", "/_ping")
            return time.monotonic() - begun
        except OSError:
            if time.monotonic() - begun > patience:
                raise
            time.sleep(0.001)


def switches(pids):
    """Voluntary context switches of all threads of these processes so far: how often something woke them."""
    total = 0
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/status") as file:
                total += next(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt_switches:"))
    return total
