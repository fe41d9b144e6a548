// Single-steps a command and all that it clones, and prints where in PROGRAM's file it has been: addresses in hexadecimal, 16 bytes apart, in
// the order of their first execution.   usage: trace OUTPUT PROGRAM [ARG...]
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKS = 1 << 20, PROCESSES = 64 };
static unsigned char seen[BLOCKS];

struct process {
    pid_t pid;
    int looked_up;
    unsigned long start, end;
};

static struct process *known(pid_t pid) {
    static struct process all[PROCESSES];
    static int count;
    for (int i = 0; i < count; i++)
        if (all[i].pid == pid) return &all[i];
    if (count == PROCESSES) exit(125);
    all[count].pid = pid;
    return &all[count++];
}

// Where a process has the program's file in memory, if it does.
static void look_up(struct process *process, ino_t inode) {
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/maps", process->pid);
    FILE *maps = fopen(path, "r");
    process->start = process->end = 0;
    process->looked_up = 1;
    while (maps && fgets(line, sizeof line, maps)) {
        unsigned long start, end, its;
        if (sscanf(line, "%lx-%lx %*s %*s %*s %lu", &start, &end, &its) != 3 || its != inode) continue;
        if (!process->start) process->start = start;
        process->end = end;
    }
    if (maps) fclose(maps);
}

int main(int argc, char **argv) {
    struct stat program;
    FILE *output;
    if (argc < 3 || stat(argv[2], &program) < 0 || !(output = fopen(argv[1], "w"))) return 125;
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        execv(argv[2], argv + 2);
        _exit(125);
    }
    int status, result = 125;
    long follow = PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    if (child < 0 || waitpid(child, &status, 0) < 0 || ptrace(PTRACE_SETOPTIONS, child, 0, follow) < 0) return 125;
    ptrace(PTRACE_SINGLESTEP, child, 0, 0);
    for (pid_t pid; (pid = waitpid(-1, &status, __WALL)) > 0;) {
        if (!WIFSTOPPED(status)) {
            if (pid == child) result = WIFEXITED(status) ? WEXITSTATUS(status) : 125;
            continue;
        }
        struct process *process = known(pid);
        int event = status >> 16, signal = WSTOPSIG(status);
        if (event == PTRACE_EVENT_EXEC || !process->looked_up) look_up(process, program.st_ino);
        struct user_regs_struct at;
        if (ptrace(PTRACE_GETREGS, pid, 0, &at) == 0 && at.rip >= process->start && at.rip < process->end) {
            unsigned long block = (at.rip - process->start) >> 4;
            if (block < BLOCKS && !seen[block]) {
                seen[block] = 1;
                fprintf(output, "%lx\n", block << 4);
            }
        }
        ptrace(PTRACE_SINGLESTEP, pid, 0, event || signal == SIGTRAP || signal == SIGSTOP ? 0 : signal);
    }
    return fclose(output) == 0 ? result : 125;
}
