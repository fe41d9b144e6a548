"""Timing of commands in turn, so that what the machine does meanwhile hits all of them alike."""

import os
import signal
import statistics
import time


class Failed(Exception):
    """A command did not do what it should."""


def spawn(argv, output=os.devnull, env=None, new_session=False):
    """Starts a program without a shell; vfork underneath, so that our own size costs nothing."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    path = argv[0] if "/" in argv[0] else find(argv[0])
    return os.posix_spawn(path, argv, env or os.environ, file_actions=actions, setsid=new_session)


def find(program):
    for directory in "/usr/local/sbin /usr/sbin /usr/bin /sbin /bin".split():
        path = os.path.join(directory, program)
        if os.access(path, os.X_OK):
            return path
    raise Failed(f"{program} is not installed")


def call(argv, log, env=None):
    """Runs to the end; seconds of wall clock."""
    start = time.monotonic()
    pid = spawn(argv, log, env)
    _, status = os.waitpid(pid, 0)
    elapsed = time.monotonic() - start
    if status != 0:
        with open(log, errors="replace") as file:
            tail = file.read()[-2000:]
        raise Failed(f"{' '.join(argv)}: exit {os.waitstatus_to_exitcode(status)}\n{tail}")
    return elapsed


class Case:
    """What is timed: commands one after the other; before and after are not timed."""

    def __init__(self, *commands, before=None, after=None, env=None):
        self.commands, self.before, self.after, self.env = commands, before, after, env

    def once(self, log):
        if self.before:
            self.before()
        seconds = sum(call(argv, log, self.env) for argv in self.commands)
        if self.after:
            self.after()
        return seconds


def in_turn(cases, runs, log, warmup=2):
    """{name: seconds of each round}; the order changes from round to round."""
    names = list(cases)
    times = {name: [] for name in names}
    for turn in range(warmup + runs):
        order = names[turn % len(names):] + names[:turn % len(names)]
        for name in order:
            seconds = cases[name].once(log)
            if turn >= warmup:
                times[name].append(seconds)
    return times


def ratio(ours, theirs):
    """Median of the rounds' own ratios: each pair was measured within the same moment."""
    return statistics.median(a / b for a, b in zip(ours, theirs))


def stop(pid, patience=20):
    """Ends a process that we started."""
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        done, _ = os.waitpid(pid, os.WNOHANG)
        if done:
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
