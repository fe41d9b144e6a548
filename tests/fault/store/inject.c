/*
 * inject CONTROL ROOT PROGRAM [ARG]...
 *
 * Executes PROGRAM in place, with a supervisor beside it that sees each of its system calls which changes something below ROOT before the
 * kernel does it (seccomp_unotify(2)), counts them over all threads, and lets one fail, kill the program, or be left out.
 *
 * Commands on the stream socket CONTROL, one per connection; the answer is the number of calls counted since the last `arm`:
 *   arm N kill          the program is killed before its Nth call
 *   arm N ERRNO         the Nth call fails so
 *   arm N ERRNO full    from the Nth on, all calls that take room fail so; those that give room back do not
 *   arm 0 skip NR       all calls of that number return 0 and are not done
 *   arm 0 none          counts only
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/seccomp.h>
#include <linux/openat2.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* Where the file is: a descriptor in argument `fd`, or a path in argument `path` relative to the directory in argument `fd`. */
struct call { int number, fd, path, takes_room; };
#define NONE -1
static const struct call calls[] = {
    {SYS_write, 0, NONE, 1}, {SYS_writev, 0, NONE, 1}, {SYS_pwrite64, 0, NONE, 1}, {SYS_pwritev, 0, NONE, 1}, {SYS_pwritev2, 0, NONE, 1},
    {SYS_copy_file_range, 2, NONE, 1}, {SYS_sendfile, 0, NONE, 1}, {SYS_splice, 2, NONE, 1}, {SYS_fallocate, 0, NONE, 1},
    {SYS_ftruncate, 0, NONE, 0}, {SYS_fsync, 0, NONE, 1}, {SYS_fdatasync, 0, NONE, 1}, {SYS_syncfs, 0, NONE, 1},
    {SYS_fchmod, 0, NONE, 0}, {SYS_fchown, 0, NONE, 0}, {SYS_fsetxattr, 0, NONE, 1},
    {SYS_openat, 0, 1, 1}, {SYS_openat2, 0, 1, 1}, {SYS_mkdirat, 0, 1, 1}, {SYS_mknodat, 0, 1, 1}, {SYS_symlinkat, 1, 2, 1},
    {SYS_linkat, 2, 3, 1}, {SYS_renameat, 2, 3, 1}, {SYS_renameat2, 2, 3, 1}, {SYS_unlinkat, 0, 1, 0}, {SYS_fchmodat, 0, 1, 0},
    {SYS_fchownat, 0, 1, 0}, {SYS_utimensat, 0, 1, 0},
#ifdef __x86_64__
    {SYS_open, NONE, 0, 1}, {SYS_mkdir, NONE, 0, 1}, {SYS_mknod, NONE, 0, 1}, {SYS_symlink, NONE, 1, 1}, {SYS_link, NONE, 1, 1},
    {SYS_rename, NONE, 1, 1}, {SYS_unlink, NONE, 0, 0}, {SYS_rmdir, NONE, 0, 0}, {SYS_chmod, NONE, 0, 0}, {SYS_chown, NONE, 0, 0},
    {SYS_lchown, NONE, 0, 0},
#endif
    {SYS_setxattr, NONE, 0, 1}, {SYS_lsetxattr, NONE, 0, 1},
};
static const size_t count_of_calls = sizeof calls / sizeof *calls;

static char root[PATH_MAX];
static pid_t program;
static unsigned long counted, at;
static int mode_errno, mode_full, mode_kill, mode_skip = NONE;

static void die(const char *what) {
    fprintf(stderr, "inject: %s: %s\n", what, strerror(errno));
    _exit(125);
}

static int below_root(const char *path) {
    size_t length = strlen(root);
    return strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == 0 || path[length] == ' ');
}

static int link_below_root(pid_t pid, int fd) {
    char name[64], target[PATH_MAX + 1];
    if (fd == AT_FDCWD) snprintf(name, sizeof name, "/proc/%d/cwd", pid);
    else snprintf(name, sizeof name, "/proc/%d/fd/%d", pid, fd);
    ssize_t length = readlink(name, target, PATH_MAX);
    if (length < 0) return 0;
    target[length] = 0;
    return below_root(target);
}

static ssize_t read_memory(pid_t pid, unsigned long address, void *to, size_t size) {
    char name[64];
    snprintf(name, sizeof name, "/proc/%d/mem", pid);
    int memory = open(name, O_RDONLY | O_CLOEXEC);
    if (memory < 0) return -1;
    ssize_t length = pread(memory, to, size, (off_t)address);
    close(memory);
    return length;
}

static int of_program(pid_t tid) {
    char name[64], line[128];
    snprintf(name, sizeof name, "/proc/%d/status", tid);
    FILE *status = fopen(name, "re");
    if (!status) return 0;
    int tgid = 0;
    while (fgets(line, sizeof line, status))
        if (sscanf(line, "Tgid: %d", &tgid) == 1) break;
    fclose(status);
    return tgid == program;
}

static int changes(const struct seccomp_notif *request, const struct call *call) {
    pid_t pid = (pid_t)request->pid;
    const __u64 *args = request->data.args;
    if (call->number == SYS_openat && !(args[2] & (O_CREAT | O_TRUNC))) return 0;
#ifdef __x86_64__
    if (call->number == SYS_open && !(args[1] & (O_CREAT | O_TRUNC))) return 0;
#endif
    if (call->number == SYS_openat2) {
        struct open_how how = {0};
        if (read_memory(pid, args[2], &how, sizeof how) < (ssize_t)sizeof how || !(how.flags & (O_CREAT | O_TRUNC))) return 0;
    }
    if (call->path == NONE) return link_below_root(pid, (int)args[call->fd]);
    char path[PATH_MAX + 1] = {0};
    if (args[call->path] && read_memory(pid, args[call->path], path, PATH_MAX) < 0) {
        /* The string may end just before a page that is not there. */
        size_t to_page_end = 4096 - args[call->path] % 4096;
        if (read_memory(pid, args[call->path], path, to_page_end) < 0) return 0;
    }
    if (path[0] == '/') return below_root(path);
    return link_below_root(pid, call->fd == NONE ? AT_FDCWD : (int)args[call->fd]);
}

static const struct call *call_of(int number) {
    for (size_t i = 0; i < count_of_calls; i++)
        if (calls[i].number == number) return &calls[i];
    return NULL;
}

static void decide(const struct seccomp_notif *request, struct seccomp_notif_resp *response) {
    const struct call *call = call_of(request->data.nr);
    response->id = request->id;
    response->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    if (!call || !of_program((pid_t)request->pid) || !changes(request, call)) return;
    counted++;
    if (mode_skip == call->number) {
        response->flags = 0;
    } else if (mode_kill && counted == at) {
        kill(program, SIGKILL);
    } else if (mode_errno && (mode_full ? counted >= at && call->takes_room : counted == at)) {
        response->flags = 0;
        response->error = -mode_errno;
    }
}

static int number_of(const char *errno_name) {
    static const struct { const char *name; int number; } known[] = {{"EIO", EIO}, {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"EROFS", EROFS}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i].name, errno_name)) return known[i].number;
    return 0;
}

static void obey(int connection) {
    char line[128] = {0}, what[32] = "", more[32] = "", answer[32];
    unsigned long number = 0;
    if (read(connection, line, sizeof line - 1) > 0 && sscanf(line, "arm %lu %31s %31s", &number, what, more) >= 2) {
        at = number, counted = 0;
        mode_kill = !strcmp(what, "kill");
        mode_skip = strcmp(what, "skip") ? NONE : seccomp_syscall_resolve_name(more);
        mode_errno = number_of(what);
        mode_full = !strcmp(more, "full");
    }
    int length = snprintf(answer, sizeof answer, "%lu\n", counted);
    if (write(connection, answer, (size_t)length) < 0) perror("inject: answer");
    close(connection);
}

static void supervise(int listener, int control) {
    struct seccomp_notif_sizes sizes;
    if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) < 0) die("sizes of seccomp notifications");
    struct seccomp_notif *request = calloc(1, sizes.seccomp_notif + sizeof *request);
    struct seccomp_notif_resp *response = calloc(1, sizes.seccomp_notif_resp + sizeof *response);
    struct pollfd wait[] = {{listener, POLLIN, 0}, {control, POLLIN, 0}};
    for (;;) {
        if (poll(wait, 2, -1) < 0) die("poll");
        if (wait[1].revents & POLLIN) {
            int connection = accept4(control, NULL, NULL, SOCK_CLOEXEC);
            if (connection >= 0) obey(connection);
        }
        if (wait[0].revents & POLLIN) {
            memset(request, 0, sizes.seccomp_notif);
            memset(response, 0, sizes.seccomp_notif_resp);
            if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, request) < 0) continue;
            decide(request, response);
            /* ENOENT: the caller is gone. */
            ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, response);
        }
        /* Nobody is left under the filter. */
        if (wait[0].revents & POLLHUP) _exit(0);
    }
}

static int listen_at(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) { errno = ENAMETOOLONG; die(path); }
    strcpy(address.sun_path, path);
    unlink(path);
    int control = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (control < 0 || bind(control, (struct sockaddr *)&address, sizeof address) < 0 || listen(control, 8) < 0) die(path);
    return control;
}

static int install(void) {
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    if (!filter) die("seccomp_init");
    /* The program's own capabilities stay what they are. */
    seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0);
    for (size_t i = 0; i < count_of_calls; i++)
        if (seccomp_rule_add(filter, SCMP_ACT_NOTIFY, calls[i].number, 0) < 0) die("seccomp_rule_add");
    if (seccomp_load(filter) < 0) die("seccomp_load");
    int listener = seccomp_notify_fd(filter);
    seccomp_release(filter);
    return listener;
}

static void pass(int socket, int *fd, int send) {
    char byte = 0, room[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    if (send) {
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), fd, sizeof(int));
        if (sendmsg(socket, &message, 0) < 0) die("pass the listener");
    } else {
        if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) <= 0 || !CMSG_FIRSTHDR(&message)) die("take the listener");
        memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
    }
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: inject CONTROL ROOT PROGRAM [ARG]...\n");
        return 125;
    }
    if (!realpath(argv[2], root)) die(argv[2]);
    int control = listen_at(argv[1]), pair[2], listener = -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) die("socketpair");
    program = getpid();
    pid_t supervisor = fork();
    if (supervisor < 0) die("fork");
    if (supervisor == 0) {
        close(pair[0]);
        /* Signals to the terminal's group are for the program. */
        setsid();
        pass(pair[1], &listener, 0);
        close(pair[1]);
        supervise(listener, control);
    }
    close(pair[1]);
    close(control);
    listener = install();
    pass(pair[0], &listener, 1);
    close(listener);
    close(pair[0]);
    execvp(argv[3], argv + 3);
    die(argv[3]);
}
