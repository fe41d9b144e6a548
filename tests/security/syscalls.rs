//! CVE-2026-31431: socket families that no container needs, by both of the machine's call conventions, under Docker's profile.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::arena::{text, unless, withstands};

/// Tries socket(2) by the 64-bit call, by the 32-bit call and by the 32-bit multiplexer, and prints errno of each.
const PROBE: &str = r#"
#include <stdio.h>
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
static long call32(long number, long a, long b, long c) {
    long ret;
    __asm__ volatile("int $0x80" : "=a"(ret) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
    return ret;
}
int main(void) {
    int families[] = {38, 40};
    for (int i = 0; i < 2; i++) {
        int family = families[i];
        long direct = syscall(SYS_socket, family, 5, 0);
        printf("%d-direct %d\n", family, direct < 0 ? errno : 0);
        printf("%d-i386 %ld\n", family, -call32(359, family, 5, 0));
        unsigned *low = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
        low[0] = family; low[1] = 5; low[2] = 0;
        printf("%d-socketcall %ld\n", family, -call32(102, 1, (long)low, 0));
    }
    return 0;
}
"#;

/// Docker's default profile as a runtime gets it, for a container with default capabilities.
fn profile() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../manager/core/src/profiles/seccomp.json");
    let mut profile: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let elsewhere = |rule: &Value| rule["includes"]["arches"].as_array().is_some_and(|arches| !arches.contains(&json!("amd64")));
    let conditional = |rule: &Value| elsewhere(rule) || ["caps", "minKernel"].iter().any(|key| !rule["includes"][key].is_null());
    let rules: Vec<Value> = profile["syscalls"].as_array().unwrap().iter().filter(|r| !conditional(r)).cloned().collect();
    profile["syscalls"] = json!(rules);
    profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    profile
}

#[test]
fn af_alg_and_af_vsock_are_out_of_reach() {
    withstands("families", |arena| {
        let source = arena.dir.path().join("probe.c");
        fs::write(&source, PROBE).unwrap();
        let compiled = Command::new("cc").args(["-static", "-o"]).arg(arena.rootfs().join("bin/probe")).arg(&source).output().unwrap();
        assert!(compiled.status.success(), "{}", text(&compiled));
        arena.configure(&["probe"], |c| c["linux"]["seccomp"] = profile());
        let output = arena.run();
        let said = text(&output);
        assert_eq!(said.lines().filter(|line| line.starts_with("38-") || line.starts_with("40-")).count(), 6, "{said}");
        let refused = |line: &str| [libc::EPERM, libc::ENOSYS].iter().any(|e| line.ends_with(&format!(" {e}")));
        let open: Vec<&str> = said.lines().filter(|line| (line.starts_with("38-") || line.starts_with("40-")) && !refused(line)).collect();
        unless(!open.is_empty(), format!("{open:?}"))
    });
}
