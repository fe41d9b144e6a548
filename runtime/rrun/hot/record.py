#!/usr/bin/python3 -B
"""Writes `functions`: what a run of a container executes of rrun, for the linker to put side by side (see ../build.rs).

usage: record.py PROGRAM MAP      (root, cc, busybox-static; some minutes, since each instruction is stepped through)

PROGRAM is the static rrun as ./run builds it, MAP what its linker said of it: build it with RRUN_LINK_MAP=/absolute/path. Other flags give
functions other names, which then do nothing here.
"""

import bisect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter

HERE = os.path.dirname(os.path.realpath(__file__))
# What engines ask for beside what `spec` writes.
SECCOMP = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
    {"action": "SCMP_ACT_ALLOW", "names": ["execve", "exit_group", "brk", "arch_prctl", "mprotect", "read", "write", "close", "set_tid_address",
                                           "set_robust_list", "rseq", "prlimit64", "readlink", "readlinkat", "getrandom", "uname", "getuid",
                                           "newfstatat", "fstat", "mmap", "munmap", "fcntl", "recvfrom", "sendto", "capset", "setuid", "setgid",
                                           "setgroups", "prctl", "capget", "setresuid", "setresgid", "umask", "execveat"]}]}


def bundle(work, program):
    os.makedirs(f"{work}/rootfs/bin")
    shutil.copy("/bin/busybox", f"{work}/rootfs/bin/true")
    subprocess.run([program, "spec", "-b", work], check=True)
    with open(f"{work}/config.json") as file:
        config = json.load(file)
    config["process"].update(terminal=False, args=["true"], oomScoreAdj=0)
    config["linux"].update(cgroupsPath=f"/{os.path.basename(work)}", seccomp=SECCOMP, sysctl={"net.ipv4.ip_unprivileged_port_start": "0"})
    config["linux"]["resources"].update(memory={"limit": 1 << 29}, pids={"limit": 1000})
    config["mounts"].append({"destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts", "options": ["rbind", "rprivate"]})
    with open(f"{work}/config.json", "w") as file:
        json.dump(config, file)


def trace(work, program):
    """Addresses of 16 bytes each, in the order of their first execution."""
    subprocess.run(["cc", "-O2", "-Wall", f"{HERE}/trace.c", "-o", f"{work}/trace"], check=True)
    run = [program, "--root", f"{work}/state", "run", "-b", work, "x"]
    # The filter is compiled before.
    subprocess.run(run, check=True)
    subprocess.run([f"{work}/trace", f"{work}/blocks", *run], check=True)
    with open(f"{work}/blocks") as file:
        return [int(line, 16) for line in file]


def sections(path):
    """(address, size, a symbol) of each piece of code that the linker can move, by address."""
    found, current = [], None
    with open(path) as file:
        for line in file:
            fields = re.match(r"\s*([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)\s+\d+ (.*)$", line.rstrip("\n"))
            if not fields:
                continue
            name = fields[3].strip()
            section = re.search(r":\((\.text[^)]*)\)$", name)
            if section:
                # Rust's are named for their function, as it is mangled; the C library's are not.
                mangled = re.search(r"\.(_ZN.*|_R.*)$", section[1])
                current = [int(fields[1], 16), int(fields[2], 16), mangled[1] if mangled else None]
                found.append(current)
            elif ":(" in name:
                current = None
            elif current and not current[2] and fields[3].startswith(" " * 16):
                current[2] = name
    return sorted(section for section in found if section[1] and section[2])


def order(blocks, code):
    """Those that are executed as a whole first, large ones of which little is executed last."""
    starts, hits, first = [section[0] for section in code], Counter(), {}
    for block in blocks:
        last = bisect.bisect_right(starts, block + 15) - 1
        for n in (last - 1, last):
            if n >= 0 and code[n][0] < block + 16 and code[n][0] + code[n][1] > block:
                hits[n] += 16
                first.setdefault(n, len(first))

    def key(n):
        share = min(1, hits[n] / code[n][1])
        return share < 0.25 and code[n][1] > 1500, -round(share * 4), first[n]

    return [code[n][2] for n in sorted(hits, key=key)]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    program, link_map = map(os.path.abspath, sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="rrun-hot-") as work:
        os.chmod(work, 0o755)
        bundle(work, program)
        functions = order(trace(work, program), sections(link_map))
    with open(f"{HERE}/functions", "w") as file:
        file.writelines(f"{name}\n" for name in functions)
    print(f"{len(functions)} functions")


main()
