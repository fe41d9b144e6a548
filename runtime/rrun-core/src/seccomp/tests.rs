//! The compiled programs are run here by an interpreter of classic BPF: any architecture, any call, no kernel needed.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt;

use super::*;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0;
const AF_ALG: u64 = 38;

fn errno(number: i32) -> u32 {
    0x0005_0000 | number as u32
}

/// What the kernel would return for a call (little-endian hosts; the subset of cBPF that seccomp allows and libseccomp emits).
fn run(program: &Program, arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
    let word = |at: u32| u32::from_le_bytes(data[at as usize..at as usize + 4].try_into().unwrap());
    let (mut a, mut pc) = (0u32, 0usize);
    loop {
        let insn = &program.code[pc * 8..pc * 8 + 8];
        let k = u32::from_le_bytes(insn[4..8].try_into().unwrap());
        pc += 1;
        let condition = match u16::from_le_bytes([insn[0], insn[1]]) {
            0x20 => {
                a = word(k);
                continue;
            }
            0x54 => {
                a &= k;
                continue;
            }
            0x05 => {
                pc += k as usize;
                continue;
            }
            0x06 => return k,
            0x15 => a == k,
            0x25 => a > k,
            0x35 => a >= k,
            0x45 => a & k != 0,
            other => panic!("unknown opcode {other:#x}"),
        };
        pc += usize::from(if condition { insn[2] } else { insn[3] });
    }
}

fn profile(json: &str) -> Profile {
    serde_json::from_str(json).unwrap()
}

fn compile(json: &str) -> Program {
    Program::compile(&profile(json)).unwrap()
}

fn refused(json: &str) -> String {
    Program::compile(&profile(json)).unwrap_err().to_string()
}

/// As Docker's profile does it: no AF_ALG and no AF_VSOCK.
const DOCKER_LIKE: &str = r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],"syscalls":[
    {"names":["read","write","exit_group","bind","mseal"],"action":"SCMP_ACT_ALLOW"},
    {"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":38,"op":"SCMP_CMP_LT"}]},
    {"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":40,"op":"SCMP_CMP_GT"}]},
    {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}"#;

#[test]
fn lets_through_what_is_allowed_and_nothing_else() {
    let program = compile(DOCKER_LIKE);
    assert_eq!(run(&program, X86_64, 0, [0; 6]), ALLOW, "read");
    assert_eq!(run(&program, I386, 3, [0; 6]), ALLOW, "read");
    assert_eq!(run(&program, X86_64, 165, [0; 6]), errno(libc::EPERM), "mount");
    assert_eq!(run(&program, I386, 21, [0; 6]), errno(libc::EPERM), "mount");
    assert_eq!(run(&program, X86_64, 435, [0; 6]), errno(libc::ENOSYS), "clone3");
    assert_eq!(run(&program, 0xc000_00b7, 0, [0; 6]), KILL, "an architecture that was not named");
    assert!(program.warnings().is_empty(), "{:?}", program.warnings());
}

#[test]
fn af_alg_is_denied_from_64_bit_and_from_32_bit_and_through_socketcall() {
    let program = compile(DOCKER_LIKE);
    for (arch, socket) in [(X86_64, 41), (X86_64, 41 | 0x4000_0000), (I386, 359)] {
        assert_eq!(run(&program, arch, socket, [2, 0, 0, 0, 0, 0]), ALLOW, "AF_INET, {arch:#x}");
        assert_eq!(run(&program, arch, socket, [AF_ALG, 0, 0, 0, 0, 0]), errno(libc::EPERM), "AF_ALG, {arch:#x}");
    }
    assert_eq!(run(&program, I386, 102, [1, 0, 0, 0, 0, 0]), errno(libc::ENOSYS), "socketcall(SYS_SOCKET)");
    assert_eq!(run(&program, I386, 102, [2, 0, 0, 0, 0, 0]), ALLOW, "socketcall(SYS_BIND): allowed without conditions");
}

#[test]
fn a_profile_that_allows_or_denies_socketcall_itself_is_obeyed() {
    let with = |action: &str| {
        compile(
            &DOCKER_LIKE
                .replace(r#"{"names":["clone3"]"#, &format!(r#"{{"names":["socketcall"],"action":"{action}"}},{{"names":["clone3"]"#)),
        )
    };
    assert_eq!(run(&with("SCMP_ACT_ALLOW"), I386, 102, [1, 0, 0, 0, 0, 0]), ALLOW);
    // The library skips a rule that says what the default says; the companion rules for socket() must not win then.
    assert_eq!(run(&with("SCMP_ACT_ERRNO"), I386, 102, [1, 0, 0, 0, 0, 0]), errno(libc::EPERM));
}

/// Docker's own profile names socketcall, for every call but socket(): that must not open the way that its conditions close.
#[test]
fn a_profile_that_allows_some_calls_of_socketcall_opens_no_others() {
    let rule =
        r#"{"names":["socketcall"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_GT"}]},{"names":["clone3"]"#;
    let program = compile(&DOCKER_LIKE.replace(r#"{"names":["clone3"]"#, rule));
    assert_eq!(run(&program, I386, 102, [1, 0, 0, 0, 0, 0]), errno(libc::ENOSYS), "socketcall(SYS_SOCKET)");
    assert_eq!(run(&program, I386, 102, [3, 0, 0, 0, 0, 0]), ALLOW, "socketcall(SYS_CONNECT)");
    let rule = rule.replace("SCMP_CMP_GT", "SCMP_CMP_EQ");
    let program = compile(&DOCKER_LIKE.replace(r#"{"names":["clone3"]"#, &rule));
    assert_eq!(run(&program, I386, 102, [1, 0, 0, 0, 0, 0]), ALLOW, "named itself");
}

#[test]
fn calls_newer_than_the_profile_get_enosys() {
    let program = compile(DOCKER_LIKE);
    assert_eq!(run(&program, X86_64, 462, [0; 6]), ALLOW, "mseal, which the library does not know");
    assert_eq!(run(&program, I386, 462, [0; 6]), ALLOW);
    assert_eq!(run(&program, X86_64, 462 | 0x4000_0000, [0; 6]), ALLOW);
    assert_eq!(run(&program, X86_64, 463, [0; 6]), errno(libc::ENOSYS));
    assert_eq!(run(&program, I386, 9999, [0; 6]), errno(libc::ENOSYS));
    assert_eq!(run(&program, X86_64, 461, [0; 6]), errno(libc::EPERM), "older than the newest: denied, as the profile says");
    assert_eq!(run(&program, X86_64, 9999 | 0x4000_0000, [0; 6]), errno(libc::ENOSYS));
}

#[test]
fn x32_is_refused_where_it_is_not_named() {
    let program = compile(r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}"#);
    assert_eq!(run(&program, X86_64, 0, [0; 6]), ALLOW);
    assert_eq!(run(&program, X86_64, 0x4000_0000, [0; 6]), KILL);
    assert_eq!(run(&program, X86_64, 400, [0; 6]), errno(libc::ENOSYS));
}

#[test]
fn a_profile_that_allows_by_default_has_no_enosys() {
    let program =
        compile(r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mseal","mount"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}"#);
    assert_eq!(run(&program, X86_64, 9999, [0; 6]), ALLOW);
    assert_eq!(run(&program, X86_64, 462, [0; 6]), errno(13));
    assert_eq!(run(&program, X86_64, 165, [0; 6]), errno(13));
}

#[test]
fn a_default_of_enosys_is_its_own_answer() {
    let program =
        compile(r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}"#);
    assert_eq!(run(&program, X86_64, 165, [0; 6]), errno(libc::ENOSYS));
}

#[test]
fn every_operator() {
    for (op, value, two, yes, no) in [
        ("NE", 5u64, 0u64, 6u64, 5u64),
        ("LT", 5, 0, 4, 5),
        ("LE", 5, 0, 5, 6),
        ("EQ", 5, 0, 5, 6),
        ("GE", 5, 0, 5, 4),
        ("GT", 5, 0, 6, 5),
        ("MASKED_EQ", 0xf0, 0x10, 0x1f, 0x2f),
        ("EQ", 1u64 << 40, 0u64, 1u64 << 40, 0u64),
    ] {
        let program = compile(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{{"index":2,"value":{value},"valueTwo":{two},"op":"SCMP_CMP_{op}"}}]}}]}}"#
        ));
        assert_eq!(run(&program, X86_64, 0, [0, 0, yes, 0, 0, 0]), ALLOW, "{op} {yes}");
        assert_eq!(run(&program, X86_64, 0, [0, 0, no, 0, 0, 0]), errno(libc::EPERM), "{op} {no}");
    }
}

#[test]
fn comparisons_of_different_arguments_must_all_hold_of_one_argument_any() {
    let two = |second: u32| {
        compile(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[
            {{"index":0,"value":1,"op":"SCMP_CMP_EQ"}},{{"index":{second},"value":2,"op":"SCMP_CMP_EQ"}}]}}]}}"#
        ))
    };
    assert_eq!(run(&two(1), X86_64, 0, [1, 2, 0, 0, 0, 0]), ALLOW);
    assert_eq!(run(&two(1), X86_64, 0, [1, 3, 0, 0, 0, 0]), errno(libc::EPERM));
    assert_eq!(run(&two(0), X86_64, 0, [1, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(run(&two(0), X86_64, 0, [2, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(run(&two(0), X86_64, 0, [3, 0, 0, 0, 0, 0]), errno(libc::EPERM));
}

#[test]
fn every_action() {
    for (action, value) in [
        ("SCMP_ACT_KILL", 0),
        ("SCMP_ACT_KILL_THREAD", 0),
        ("SCMP_ACT_KILL_PROCESS", 0x8000_0000),
        ("SCMP_ACT_TRAP", 0x0003_0000),
        ("SCMP_ACT_ERRNO", errno(libc::EPERM)),
        ("SCMP_ACT_TRACE", 0x7ff0_0001),
        ("SCMP_ACT_LOG", 0x7ffc_0000),
        ("SCMP_ACT_NOTIFY", 0x7fc0_0000),
    ] {
        let program =
            compile(&format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["mount","mseal"],"action":"{action}"}}]}}"#));
        assert_eq!(run(&program, X86_64, 165, [0; 6]), value, "{action}");
        assert_eq!(run(&program, X86_64, 462, [0; 6]), value, "{action}, by the prefix");
        assert_eq!(program.wants_listener(), action == "SCMP_ACT_NOTIFY");
    }
}

#[test]
fn wrong_words_are_told() {
    for (json, text) in [
        (r#"{"defaultAction":"SCMP_ACT_ALOW"}"#, "defaultAction: unknown action \"SCMP_ACT_ALOW\""),
        (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "name the calls instead"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}"#, "errnoRet goes with"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_Z80"]}"#, "unknown architecture"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_X"]}"#, "unknown flag"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}"#, "needs a rule with SCMP_ACT_NOTIFY"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["write"],"action":"SCMP_ACT_NOTIFY"}]}"#, "stop the runtime itself"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":4096}]}"#, "above 4095"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_TRACE","errnoRet":70000}]}"#, "above 65535"),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
            "argument 6 does not exist",
        ),
    ] {
        let told = refused(json);
        assert!(told.contains(text), "{told}");
    }
}

#[test]
fn a_name_that_nobody_knows_is_a_warning() {
    let program = compile(r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["frobnicate","read"],"action":"SCMP_ACT_ALLOW"}]}"#);
    assert_eq!(program.warnings().len(), 1);
    assert!(program.warnings()[0].contains("frobnicate"));
}

#[test]
fn the_cache_returns_what_was_compiled_and_trusts_nothing_else() {
    let base = tempdir("cache");
    let dir = base.join("c");
    let cache = Cache::new(&dir);
    let profile = DOCKER_LIKE;
    let compiled = cache.get_or_compile(profile).unwrap();
    let file = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(cache.get_or_compile(profile).unwrap(), compiled);

    // A marked file shows whether it was read.
    let marked = |warnings: &str| {
        let mut marked = compiled.clone();
        marked.warnings.push(warnings.into());
        std::fs::write(&file, super::cache::encode_for_tests(&marked)).unwrap();
    };
    marked("from the file");
    assert_eq!(cache.get_or_compile(profile).unwrap().warnings(), ["from the file"]);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o620)).unwrap();
    assert!(cache.get_or_compile(profile).unwrap().warnings().is_empty(), "writable by the group: not trusted, replaced");
    marked("bit rot");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(cache.get_or_compile(profile).unwrap(), compiled, "damaged: compiled anew");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(cache.get_or_compile(profile).unwrap().warnings()[0].contains("is not used"));
    std::fs::remove_dir_all(&base).unwrap();
}

#[test]
fn a_symbolic_link_is_no_cache() {
    let base = tempdir("link");
    std::fs::create_dir(base.join("real")).unwrap();
    std::os::unix::fs::symlink(base.join("real"), base.join("c")).unwrap();
    let program = Cache::new(&base.join("c")).get_or_compile(DOCKER_LIKE).unwrap();
    assert_eq!(program.warnings().len(), 1);
    assert_eq!(std::fs::read_dir(base.join("real")).unwrap().count(), 0);
    std::fs::remove_dir_all(&base).unwrap();
}

fn tempdir(name: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("rrun-seccomp-{name}-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    dir
}

/// A filter belongs to one thread, so a thread is all the isolation these need.
fn in_a_filtered_thread<T: Send + 'static>(json: &str, then: impl FnOnce(Option<OwnedFd>) -> T + Send + 'static) -> T {
    let program = compile(json);
    let filtered = move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        then(program.load().unwrap())
    };
    std::thread::spawn(filtered).join().unwrap()
}

#[test]
fn the_kernel_takes_the_program_and_does_what_it_says() {
    let denied = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["sethostname"],"action":"SCMP_ACT_ERRNO","errnoRet":77}]}"#;
    let result = in_a_filtered_thread(denied, |listener| {
        assert!(listener.is_none());
        rustix::system::sethostname(b"never")
    });
    assert_eq!(result.unwrap_err().raw_os_error(), 77);
}

#[test]
fn a_profile_with_notify_yields_a_listener() {
    let notify = r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "syscalls":[{"names":["sethostname"],"action":"SCMP_ACT_NOTIFY"}]}"#;
    assert!(in_a_filtered_thread(notify, |listener| listener.is_some()));
}
