// What a container costs when a program makes only the system calls that it cannot do without: cgroups, namespaces, mounts, pivot_root.
// usage: floor ROOTFS NAME PROGRAM   (NAME: the cgroups to make and remove)
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const HIERARCHIES[] = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd"};
#define COUNT (sizeof HIERARCHIES / sizeof *HIERARCHIES)

static void must(int result, const char *what) {
    if (result < 0) {
        fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
        _exit(125);
    }
}

static void write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    must(fd, path);
    must((int)write(fd, text, strlen(text)), path);
    close(fd);
}

static void make_cgroup(const char *hierarchy, const char *name) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "/sys/fs/cgroup/%s/%s", hierarchy, name);
    must(mkdir(path, 0755), path);
    if (strcmp(hierarchy, "cpuset") != 0)
        return;
    // A cpuset takes no task before it has CPUs and memory nodes.
    snprintf(path, sizeof path, "/sys/fs/cgroup/cpuset/%s/cpuset.cpus", name);
    write_file(path, "0");
    snprintf(path, sizeof path, "/sys/fs/cgroup/cpuset/%s/cpuset.mems", name);
    write_file(path, "0");
}

static void join_cgroup(const char *hierarchy, const char *name, pid_t pid) {
    char path[PATH_MAX], text[16];
    snprintf(path, sizeof path, "/sys/fs/cgroup/%s/%s/cgroup.procs", hierarchy, name);
    snprintf(text, sizeof text, "%d", pid);
    write_file(path, text);
}

static void child(int go, const char *rootfs, char *const argv[]) {
    char byte;
    must((int)read(go, &byte, 1), "wait for the parent");
    must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make mounts private");
    must(mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL), "bind the rootfs");
    must(chdir(rootfs), "chdir");
    must(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "mount proc");
    must(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755"), "mount dev");
    must((int)syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "leave the old root");
    must(sethostname("floor", 5), "sethostname");
    execv(argv[0], argv);
    must(-1, argv[0]);
}

int main(int argc, char *argv[]) {
    if (argc < 4) {
        fprintf(stderr, "usage: floor ROOTFS NAME PROGRAM [ARG...]\n");
        return 125;
    }
    for (size_t i = 0; i < COUNT; i++)
        make_cgroup(HIERARCHIES[i], argv[2]);
    int go[2];
    must(pipe2(go, O_CLOEXEC), "pipe");
    struct clone_args args = {
        .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP,
        .exit_signal = SIGCHLD,
    };
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    must(pid, "clone3");
    if (pid == 0)
        child(go[0], argv[1], argv + 3);
    for (size_t i = 0; i < COUNT; i++)
        join_cgroup(HIERARCHIES[i], argv[2], pid);
    must((int)write(go[1], "", 1), "let the child go");
    int status;
    must(waitpid(pid, &status, 0), "waitpid");
    for (size_t i = 0; i < COUNT; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s/%s", HIERARCHIES[i], argv[2]);
        must(rmdir(path), path);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
