"""The sections of the bench; ./run prepares the namespaces that this runs in."""

import argparse
import json
import os
import signal as signals
import statistics
import subprocess
import sys
import time

import images
import scale
import timing
from engines import Docker, Ours, Podman, named, pss, status, wait_until
from timing import Case

REGISTRY = "127.0.0.1:5000"
PULL_BYTES = 100 << 20


class Bench:
    def __init__(self, options):
        self.work, self.name, self.programs, self.runs = options.work, options.name, os.path.abspath(options.bin), options.runs
        self.log = f"{self.work}/log"
        self.busybox = images.busybox()
        os.environ.update(TMPDIR=self.work, HOME=self.work, XDG_RUNTIME_DIR=self.work, PATH="/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")

    def engines(self, place):
        """What is kept goes to `place`, what is not to a tmpfs, as it does by default in /var/lib and /run."""
        state = f"{self.work}/run/{os.path.basename(place)}"
        return [
            Ours(f"{place}/o", f"{state}/o", f"{self.work}/ours.log", self.name, self.programs),
            Docker(f"{place}/d", f"{state}/d", f"{self.work}/docker.log", self.name),
            Podman(f"{place}/p", f"{state}/p", f"{self.work}/podman.log", self.name),
        ]

    def start_registry(self):
        config = f"{self.work}/registry.yml"
        with open(config, "w") as file:
            file.write(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {self.work}/registry}}}}\nhttp: {{addr: {REGISTRY}}}\n")
        timing.spawn([timing.find("docker-registry"), "serve", config], f"{self.work}/registry.log", new_session=True)
        import socket

        def listens():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", 5000)) == 0

        wait_until("the registry listens", listens)

    def give_busybox(self, engine):
        engine.call("pull", *(["--tls-verify=false"] if engine.title == "podman" else []), f"{REGISTRY}/busybox")
        engine.call("tag", f"{REGISTRY}/busybox", "localhost/busybox" if engine.title == "podman" else "busybox")

    def compare(self, what, cases, runs=None):
        """One line per peer."""
        load = os.getloadavg()[0]
        times = timing.in_turn(cases, runs or self.runs, self.log)
        ours, *peers = cases
        for peer in peers:
            self.row(what, times[ours], peer, times[peer], "ms", 1000, load)

    def row(self, what, ours, peer, theirs, unit, scale, load):
        print(
            f"| {what} | {statistics.median(ours) * scale:.1f} {unit} | {peer} | {statistics.median(theirs) * scale:.1f} {unit} "
            f"| {timing.ratio(ours, theirs):.2f} | {load:.1f} |", flush=True,
        )


def head(title):
    print(f"\n### {title}\n\n| what | ours | peer | its | ratio | load before |\n|---|---|---|---|---|---|", flush=True)


# --- runtime ---


def runtime(bench):
    """rrun against runc, crun and a program that makes only the system calls."""
    place = f"{bench.work}/runtime"
    rootfs = f"{place}/rootfs"
    for directory in ("bin", "proc", "dev", "sys"):
        os.makedirs(f"{rootfs}/{directory}")
    compile_static(b"int main(void){return 0;}", f"{rootfs}/bin/true")
    compile_static(b"#include <unistd.h>\nint main(void){pause();return 0;}", f"{rootfs}/bin/pause")
    here = os.path.dirname(os.path.abspath(__file__))
    for name in ("floor", "peak"):
        subprocess.run(["cc", "-O2", "-static", "-Wall", f"{here}/{name}.c", "-o", f"{place}/{name}"], check=True)
    docker_config = configuration_of_a_container(bench, f"{bench.work}/model")
    plain = json.loads(subprocess.run(["runc", "spec", "-b", place], check=True) and open(f"{place}/config.json").read())
    tools = {"rrun": f"{bench.programs}/rrun", "runc": timing.find("runc"), "crun": timing.find("crun")}
    for label, config in (("`runc spec` bundle", plain), ("Docker's defaults, seccomp too", docker_config)):
        head(f"OCI runtime, {label}")
        bundles = {tool: bundle(bench, f"{place}/{tool}-{label[:3].strip('`')}", config, rootfs, tool) for tool in tools}
        runtime_rows(bench, tools, bundles, place, rootfs)


def compile_static(source, output):
    subprocess.run(["cc", "-O2", "-static", "-x", "c", "-", "-o", output], input=source, check=True)


def configuration_of_a_container(bench, place):
    """What our manager writes for a container with Docker's defaults."""
    engine = bench.engines(place)[0]
    engine.start()
    bench.give_busybox(engine)
    container = engine.output("run", "-d", "--network", "none", "busybox", "sleep", "1000")
    with open(f"{engine.state}/tasks/moby/{container}/config.json") as file:
        config = json.load(file)
    # The files that it binds go with the container.
    config["mounts"] = [mount for mount in config["mounts"] if mount.get("type") != "bind"]
    engine.remove_all()
    engine.stop()
    return config


def bundle(bench, path, config, rootfs, tool):
    os.makedirs(path)
    config = json.loads(json.dumps(config))
    # crun 1.8 knows no later one.
    config["ociVersion"] = "1.0.2"
    config["root"] = {"path": rootfs}
    config["process"].update(terminal=False, args=["/bin/true"])
    config["process"].pop("oomScoreAdj", None)
    config["linux"]["cgroupsPath"] = f"/{bench.name}/{tool}"
    with open(f"{path}/config.json", "w") as file:
        json.dump(config, file)
    config["process"]["args"] = ["/bin/pause"]
    os.makedirs(f"{path}/pause")
    config["linux"]["cgroupsPath"] = f"/{bench.name}/{tool}-pause"
    with open(f"{path}/pause/config.json", "w") as file:
        json.dump(config, file)
    return path


def runtime_rows(bench, tools, bundles, place, rootfs):
    def tool(name, *words):
        # On a tmpfs, as /run is: on a disk each would pay for syncs, or not, as its records are worth.
        return [tools[name], "--root", f"{bench.work}/run/state-{name}", *words]

    cases = {name: Case(tool(name, "run", "-b", bundles[name], "x")) for name in tools}
    cases["floor"] = Case([f"{place}/floor", rootfs, f"{bench.name}/floor", "/bin/true"])
    bench.compare("run", cases, bench.runs * 2)
    load = os.getloadavg()[0]
    peaks = {name: [peak(place, cases[name].commands[0]) for _ in range(5)] for name in tools}
    for peer in ("runc", "crun"):
        bench.row("run, peak memory", peaks["rrun"], peer, peaks[peer], "MiB", 1 / 1024, load)
    cases = {
        name: Case(tool(name, "create", "-b", bundles[name], "x"), tool(name, "start", "x"), tool(name, "delete", "-f", "x"))
        for name in tools
    }
    bench.compare("create + start + delete -f", cases)
    for name in tools:
        timing.call(tool(name, "create", "-b", f"{bundles[name]}/pause", "y"), bench.log)
        timing.call(tool(name, "start", "y"), bench.log)
    bench.compare("exec", {name: Case(tool(name, "exec", "y", "/bin/true")) for name in tools}, bench.runs * 2)
    for name in tools:
        timing.call(tool(name, "delete", "-f", "y"), bench.log)


def peak(place, argv):
    """Kilobytes."""
    done = subprocess.run([f"{place}/peak", *argv], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return int(done.stdout)


# --- engines ---


def engines(bench):
    """The same commands by three command lines."""
    everyone = bench.engines(f"{bench.work}/engines")
    for engine in everyone:
        engine.start()
        bench.give_busybox(engine)
    head("Engines")

    def compare(what, make):
        bench.compare(what, {engine.title: make(engine) for engine in everyone})

    compare("`run --rm --network none busybox true`", lambda engine: Case(engine.run("--rm", "--network", "none")))
    compare("`run --rm busybox true` (bridge)", lambda engine: Case(engine.run("--rm")))
    compare("`run -d --network none busybox sleep 1000`", lambda engine: Case(
        engine.run("-d", "--network", "none", command=("sleep", "1000")), after=engine.remove_all))
    for engine in everyone:
        engine.container = engine.output(*engine.run("-d", "--network", "none", command=("sleep", "1000"))[len(engine.client()):])
    compare("`exec … true`", lambda engine: Case(engine.client("exec", engine.container, "true")))
    compare("`ps`", lambda engine: Case(engine.client("ps")))
    for engine in everyone:
        engine.remove_all()
        engine.stop()


# --- pull ---


def pull(bench):
    """Pull and unpack on a file system that was just made, each in turn; the sync counts."""
    image = images.of_host_files(PULL_BYTES, 4)
    image.push(REGISTRY, "big")
    head(f"Pull of {image.size >> 20} MiB (gzip, {len(image.layers)} layers) from a registry on loopback, onto a fresh ext4, sync included")
    load = os.getloadavg()[0]
    times, peaks = {}, {}
    for turn in range(max(3, bench.runs // 5)):
        order = [0, 1, 2][turn % 3:] + [0, 1, 2][:turn % 3]
        for which in order:
            title, seconds, peak = pull_once(bench, which, f"{bench.work}/pull")
            times.setdefault(title, []).append(seconds)
            peaks.setdefault(title, []).append(peak)
    for peer in ("docker", "podman"):
        bench.row("time", times["ours"], peer, times[peer], "s", 1, load)
        bench.row("peak memory", peaks["ours"], peer, peaks[peer], "MiB", 1 / 1024, load)


def pull_once(bench, which, place):
    """Title, seconds, peak memory in kilobytes."""
    os.makedirs(place, exist_ok=True)
    disk = f"{bench.work}/disk"
    with open(disk, "wb") as file:
        file.truncate(3 << 30)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, place], check=True)
    try:
        engine = bench.engines(place)[which]
        engine.start()
        extra = ["--tls-verify=false"] if engine.title == "podman" else []
        start = time.monotonic()
        pid = timing.spawn(engine.client("pull", *extra, f"{REGISTRY}/big"), bench.log)
        _, code, usage = os.wait4(pid, 0)
        subprocess.run(["sync", "-f", place], check=True)
        seconds = time.monotonic() - start
        if code != 0:
            raise timing.Failed(f"{engine.title}: pull failed; see {bench.log}")
        peak = sum(status(pid, "VmHWM") for pid in engine.processes()) or usage.ru_maxrss
        engine.stop()
        return engine.title, seconds, peak
    finally:
        unmount(place)
        os.remove(disk)


def unmount(place):
    below = [line.split()[4] for line in open("/proc/self/mountinfo")]
    for path in sorted((path for path in below if path == place or path.startswith(place + "/")), reverse=True):
        subprocess.run(["umount", "-l" if path != place else "--", path], check=True)


# --- memory ---

CONTAINERS = 50


def memory(bench):
    """What a container costs while it runs, and the daemon while it idles."""
    head(f"Memory: PSS of what stands by each of {CONTAINERS} containers; RSS of the daemon that has just started")
    shims, idle = {}, {}
    for engine in bench.engines(f"{bench.work}/memory"):
        engine.start()
        time.sleep(1)
        idle[engine.title] = sum(status(pid, "VmRSS") for pid in engine.processes())
        bench.give_busybox(engine)
        for _ in range(CONTAINERS):
            engine.call(*engine.run("-d", "--network", "none", command=("sleep", "1000"))[len(engine.client()):])
        shims[engine.title] = statistics.median(pss(pid) for pid in named(engine.shim_name()))
        engine.remove_all()
        engine.stop()
    load = os.getloadavg()[0]
    for peer in ("docker", "podman"):
        bench.row("shim, PSS", [shims["ours"]], peer, [shims[peer]], "MiB", 1 / 1024, load)
    bench.row("idle daemon, RSS", [idle["ours"]], "docker", [idle["docker"]], "MiB", 1 / 1024, load)


# --- scale ---

IMAGES = 10_000
LAYERS = 100


def many(bench):
    """What a store of many images costs; there are no peers in this table."""
    engine = bench.engines(f"{bench.work}/scale")[0]
    engine.start()
    print(f"\n### A store of {IMAGES} images and {IMAGES} containers\n\n| what | ours | load |\n|---|---|---|", flush=True)

    def row(what, seconds):
        print(f"| {what} | {seconds * 1000:.0f} ms | {os.getloadavg()[0]:.1f} |", flush=True)

    def memory(what, field):
        print(f"| {what} | {status(engine.pid, field) / 1024:.0f} MiB | {os.getloadavg()[0]:.1f} |", flush=True)

    def each(work):
        return statistics.median(work() for _ in range(bench.runs))

    archive, socket = f"{bench.work}/scale.tar", engine.socket.removeprefix("unix://")
    scale.archive(archive, scale.deep(LAYERS))
    row(f"`load` of an image of {LAYERS} layers", engine.call("load", "-q", "-i", archive))
    row("`rmi` of it", engine.call("rmi", "deep:1"))
    scale.archive(archive, scale.many(IMAGES))
    row(f"`load` of {IMAGES} images", engine.call("load", "-q", "-i", archive))
    os.remove(archive)
    row("`images`, the first after that", engine.call("images"))
    row("`rmi` of one of them", statistics.median(engine.call("rmi", f"scale/image{n % 100}:v{n}") for n in range(bench.runs)))
    names = [f"scale/image{n % 100}:v{n}" for n in range(bench.runs, IMAGES)]
    row(f"creating {IMAGES} containers, one after the other", scale.create(socket, names, IMAGES))
    for name, signal in (("an orderly end", signals.SIGTERM), ("kill -9", signals.SIGKILL)):
        times = []
        for _ in range(max(3, bench.runs // 3)):
            times.append(engine.restart(signal))
            # What the start checks and collects beside the answers is not to be part of the next one.
            time.sleep(SETTLE / 2)
        row(f"start after {name} until the first answer", statistics.median(times))
    time.sleep(SETTLE / 2)
    memory("RSS of the manager that has started", "VmRSS")
    row("`images`, the first of it", engine.call("images"))
    api = scale.Api(socket)
    for path in ("/_ping", "/images/json", "/containers/json?all=1"):
        row(f"`GET {path}`", each(lambda path=path: scale.took(lambda: api.ask("GET", path))))
    for words in (["version"], ["images"], ["images", "-q"], ["ps", "-a"], ["ps", "-aq"]):
        row(f"`{' '.join(words)}`", each(lambda words=words: engine.call(*words)))
    row("`image prune`", engine.call("image", "prune", "-f"))
    time.sleep(SETTLE)
    memory("RSS of the manager after these lists", "VmRSS")
    memory("the most that it was", "VmHWM")
    engine.stop()


STOPPED = 1000
RUNNING = 200
# Seconds: what a start does beside its first answers is over; how long wake-ups are counted.
SETTLE = 10
IDLE = 30


def restart(bench):
    """A manager that takes up many containers, and what it does when nothing happens."""
    engine = bench.engines(f"{bench.work}/restart")[0]
    engine.start()
    bench.give_busybox(engine)
    socket = engine.socket.removeprefix("unix://")
    scale.run(socket, STOPPED, ["true"], lambda n: "none")
    scale.run(socket, RUNNING, ["sleep", "100000"], lambda n: "none" if n % 4 else "bridge")
    expected = {"running": RUNNING, "exited": STOPPED}
    wait_until("all that was to end has ended", lambda: scale.states(socket) == expected)
    print(f"\n### A manager with {RUNNING} running and {STOPPED} stopped containers\n\n| what | ours | load before |\n|---|---|---|", flush=True)
    for name, signal in (("an orderly end", signals.SIGTERM), ("kill -9", signals.SIGKILL)):
        times = []
        for _ in range(max(3, bench.runs // 3)):
            load = os.getloadavg()[0]
            begun = engine.restart(signal)
            told = scale.took(lambda: scale.states(socket))
            if scale.states(socket) != expected:
                raise timing.Failed(f"after {name} the manager tells of {scale.states(socket)}")
            times.append((begun, begun + told))
            # What the start checks and collects beside the answers is not to be part of the next one.
            time.sleep(SETTLE / 2)
        ready, listed = ([one[which] * 1000 for one in times] for which in (0, 1))
        print(f"| {name}: until `GET /_ping` is answered | {statistics.median(ready):.0f} ms | {load:.1f} |")
        print(f"| {name}: until `GET /containers/json?all=1` has told all, rightly | {statistics.median(listed):.0f} ms | {load:.1f} |", flush=True)
    time.sleep(SETTLE)
    shims = list(named(engine.shim_name()))
    before = scale.switches([engine.pid]), scale.switches(shims)
    time.sleep(IDLE)
    after = scale.switches([engine.pid]), scale.switches(shims)
    print(f"| wake-ups of the idle manager in {IDLE} s | {after[0] - before[0]} | {os.getloadavg()[0]:.1f} |")
    print(f"| wake-ups of all {len(shims)} shims in {IDLE} s | {after[1] - before[1]} | {os.getloadavg()[0]:.1f} |")
    print(f"| RSS of the idle manager | {status(engine.pid, 'VmRSS') / 1024:.1f} MiB | {os.getloadavg()[0]:.1f} |", flush=True)
    engine.remove_all()
    engine.stop()


def go_first(name):
    """Other work on the machine waits: we, and below us every peer's containers, have a group of great weight in the cpu controller."""
    for hierarchy in filter(lambda name: os.path.ismount(f"/sys/fs/cgroup/{name}"), os.listdir("/sys/fs/cgroup")):
        group = f"/sys/fs/cgroup/{hierarchy}/{name}"
        os.makedirs(group, exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):
            if hierarchy == "cpuset":
                put(f"{group}/{file}", open(f"/sys/fs/cgroup/cpuset/{file}").read())
        if os.path.exists(f"{group}/cpu.shares"):
            put(f"{group}/cpu.shares", "262144")
            os.makedirs(f"{group}/bench")
            put(f"{group}/bench/cgroup.procs", "0")


def put(path, text):
    with open(path, "w") as file:
        file.write(text)


SECTIONS = {"runtime": runtime, "engines": engines, "pull": pull, "memory": memory, "scale": many, "restart": restart}


def main():
    parser = argparse.ArgumentParser()
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
    parser.add_argument("--work", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--bin", default=os.path.join(root, "target/release"))
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS])
    options = parser.parse_args()
    bench = Bench(options)
    go_first(options.name)
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")
    print(f"{os.cpu_count()} × {model}, Linux {os.uname().release}, load {os.getloadavg()[0]:.1f}; medians; the ratio is the median of each round's own")
    bench.start_registry()
    bench.busybox.push(REGISTRY, "busybox")
    for section in options.sections or SECTIONS:
        SECTIONS[section](bench)


if __name__ == "__main__":
    try:
        main()
    except (timing.Failed, subprocess.CalledProcessError) as failure:
        print(f"tests/bench/run: {failure}", file=sys.stderr)
        sys.exit(1)
