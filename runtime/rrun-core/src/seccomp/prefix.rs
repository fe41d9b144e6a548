//! What stands before libseccomp's program, for what the library cannot say:
//!
//! - **ENOSYS for calls newer than the profile.** A profile that denies by default was written for the calls of its day. glibc
//!   tries a newer call first and falls back on ENOSYS, not on EPERM: so whatever is numbered above every call that the profile
//!   names gets ENOSYS.
//! - **Calls newer than the library** that the profile does name.
//! - **socketcall(2)** of 32-bit x86: the library lets it through where `socket` is allowed *under conditions*, which cannot be
//!   checked there (they are behind a pointer): AF_ALG denied to socket() would be had by socketcall(). Unless the profile itself
//!   allows that call by the name of socketcall, it gets ENOSYS.
//!
//! ```text
//! per architecture:  not this one → next;  [x32 or not x32];  newer calls;  socketcall;  number > max → ENOSYS;  → body
//! body: libseccomp's
//! ```

use libseccomp::{ScmpAction, ScmpArch, ScmpSyscall};

use super::compile::lets_through;
use super::rules::{Rule, Rules};
use super::syscalls;

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

const X32_BIT: u32 = 0x4000_0000;
const X86_SOCKETCALL: u32 = 102;

type Insn = (u16, u8, u8, u32);

pub(super) fn assemble(rules: &Rules) -> Vec<u8> {
    if lets_through(rules.default) {
        return encode(&sections(rules, false));
    }
    // A profile that answers ENOSYS itself needs no help with newer calls.
    encode(&sections(rules, rules.default != ScmpAction::Errno(libc::ENOSYS)))
}

fn sections(rules: &Rules, enosys: bool) -> Vec<Insn> {
    let sections: Vec<Vec<Insn>> = rules.architectures.iter().filter_map(|&arch| section(rules, arch, enosys)).collect();
    if sections.is_empty() {
        return Vec::new();
    }
    let mut program = vec![(LOAD, 0, 0, ARCHITECTURE)];
    program.extend(sections.concat());
    // Every section that was entered ends with a jump to the body, which starts anew.
    let body = program.len();
    for (at, insn) in program.iter_mut().enumerate() {
        if insn.0 == JUMP && insn.3 == TO_BODY {
            insn.3 = u32::try_from(body - at - 1).expect("a program has at most 4096 instructions");
        }
    }
    program
}

/// Marks a jump whose distance is known only when all sections are.
const TO_BODY: u32 = u32::MAX;

/// None if there is nothing to say for this architecture.
fn section(rules: &Rules, arch: ScmpArch, enosys: bool) -> Option<Vec<Insn>> {
    let token = audit_arch(arch)?;
    let bit = if arch == ScmpArch::X32 { X32_BIT } else { 0 };
    let mut checks = newer_calls(rules, bit);
    if arch == ScmpArch::X86 {
        checks.extend(socketcall(rules));
    }
    if enosys {
        let max = largest(rules, arch, bit)?;
        // x32 numbers under x86_64's token belong to their own section, or to the library's refusal of x32.
        checks.extend([(JUMP_GREATER, 0, 1, max), (RETURN, 0, 0, errno(libc::ENOSYS))]);
    }
    if checks.is_empty() {
        return None;
    }
    let mut section = vec![(LOAD, 0, 0, NUMBER)];
    match arch {
        // Not this one: the next section compares the architecture again.
        ScmpArch::X8664 => section.extend([(JUMP_GREATER_EQUAL, 0, 2, X32_BIT), (LOAD, 0, 0, ARCHITECTURE)]),
        ScmpArch::X32 => section.extend([(JUMP_GREATER_EQUAL, 2, 0, X32_BIT), (LOAD, 0, 0, ARCHITECTURE)]),
        _ => {}
    }
    if section.len() == 3 {
        section.push((JUMP, 0, 0, u32::try_from(checks.len() + 1).expect("a section is short")));
    }
    section.extend(checks);
    section.push((JUMP, 0, 0, TO_BODY));
    let length = u32::try_from(section.len()).expect("a section is short");
    let mut whole = vec![(JUMP_EQUAL, 1, 0, token), (JUMP, 0, 0, length)];
    whole.extend(section);
    Some(whole)
}

fn newer_calls(rules: &Rules, bit: u32) -> Vec<Insn> {
    let mut out = Vec::new();
    for rule in rules.rules.iter().filter(|rule| rule.conditions.is_empty() && rule.action != rules.default) {
        for name in rule.names.iter().filter(|name| ScmpSyscall::from_name(name).is_err()) {
            if let Some(number) = syscalls::newer(name) {
                out.extend([(JUMP_EQUAL, 0, 1, number | bit), (RETURN, 0, 0, return_value(rule.action))]);
            }
        }
    }
    out
}

fn socketcall(rules: &Rules) -> Vec<Insn> {
    let named: Vec<&Rule> = rules.rules.iter().filter(|rule| rule.names.iter().any(|name| name == "socketcall")).collect();
    if let Some(denied) = named.iter().find(|rule| rule.conditions.is_empty() && !lets_through(rule.action)) {
        return vec![(JUMP_EQUAL, 0, 1, X86_SOCKETCALL), (RETURN, 0, 0, return_value(denied.action))];
    }
    if lets_through(rules.default) {
        return Vec::new();
    }
    // What the profile says of socketcall itself holds, for the calls that it says it of.
    let by_name = |call: u32| named.iter().any(|rule| lets_through(rule.action) && rule.takes_first(call.into()));
    let allowed = |conditional: bool| {
        let rules = rules.rules.iter().filter(move |rule| rule.conditions.is_empty() != conditional && lets_through(rule.action));
        rules.flat_map(|rule| &rule.names).filter_map(|name| syscalls::socketcall(name))
    };
    let always: Vec<u32> = allowed(false).collect();
    let mut calls: Vec<u32> = allowed(true).filter(|call| !always.contains(call) && !by_name(*call)).collect();
    calls.sort_unstable();
    calls.dedup();
    if calls.is_empty() {
        return Vec::new();
    }
    let mut checks = vec![(LOAD, 0, 0, FIRST_ARGUMENT)];
    for call in calls {
        checks.extend([(JUMP_EQUAL, 0, 1, call), (RETURN, 0, 0, errno(libc::ENOSYS))]);
    }
    let length = u8::try_from(checks.len()).expect("there are twenty socket calls");
    let mut out = vec![(JUMP_EQUAL, 0, length, X86_SOCKETCALL)];
    out.extend(checks);
    out.push((LOAD, 0, 0, NUMBER));
    out
}

/// The largest number that the profile names on an architecture.
fn largest(rules: &Rules, arch: ScmpArch, bit: u32) -> Option<u32> {
    let number = |name: &String| {
        let known = ScmpSyscall::from_name_by_arch(name, arch).ok().and_then(|call| u32::try_from(call.as_raw_syscall()).ok());
        known.or_else(|| ScmpSyscall::from_name(name).is_err().then(|| syscalls::newer(name).map(|n| n | bit)).flatten())
    };
    rules.rules.iter().flat_map(|rule| &rule.names).filter_map(number).max()
}

/// include/uapi/linux/audit.h. Architectures with other numbering (MIPS) or that Rust hardly runs on have no prefix: there,
/// newer calls get the profile's default.
fn audit_arch(arch: ScmpArch) -> Option<u32> {
    match arch {
        ScmpArch::X8664 | ScmpArch::X32 => Some(0xc000_003e),
        ScmpArch::X86 => Some(0x4000_0003),
        ScmpArch::Arm => Some(0x4000_0028),
        ScmpArch::Aarch64 => Some(0xc000_00b7),
        ScmpArch::Ppc64Le => Some(0xc000_0015),
        ScmpArch::S390X => Some(0x8000_0016),
        ScmpArch::Riscv64 => Some(0xc000_00f3),
        _ => None,
    }
}

fn errno(number: i32) -> u32 {
    return_value(ScmpAction::Errno(number))
}

/// include/uapi/linux/seccomp.h
fn return_value(action: ScmpAction) -> u32 {
    match action {
        ScmpAction::KillProcess => 0x8000_0000,
        ScmpAction::Trap => 0x0003_0000,
        ScmpAction::Errno(number) => 0x0005_0000 | (number as u32 & 0xffff),
        ScmpAction::Notify => 0x7fc0_0000,
        ScmpAction::Trace(message) => 0x7ff0_0000 | u32::from(message),
        ScmpAction::Log => 0x7ffc_0000,
        ScmpAction::Allow => 0x7fff_0000,
        // KillThread, and whatever the library may add: the strictest.
        _ => 0,
    }
}

fn encode(program: &[Insn]) -> Vec<u8> {
    program
        .iter()
        .flat_map(|&(code, jt, jf, k)| {
            let ([c0, c1], [k0, k1, k2, k3]) = (code.to_ne_bytes(), k.to_ne_bytes());
            [c0, c1, jt, jf, k0, k1, k2, k3]
        })
        .collect()
}
