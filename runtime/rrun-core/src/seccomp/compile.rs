//! Rules → program: libseccomp's, behind a prefix of ours (see `prefix`).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::str::FromStr;

use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArch, ScmpFilterContext, ScmpSyscall};

use super::prefix;
use super::rules::{Rule, Rules};
use super::syscalls;
use super::{Error, Program, Result};

/// What the kernel takes at most (BPF_MAXINSNS).
const MAX_INSTRUCTIONS: usize = 4096;

pub(super) fn compile(rules: &Rules) -> Result<Program> {
    let mut filter = ScmpFilterContext::new(rules.default).map_err(|e| failed("start the filter", &e))?;
    for &arch in &rules.architectures {
        filter.add_arch(arch).map_err(|e| failed(&format!("add the architecture {arch:?}"), &e))?;
    }
    let mut warnings = Vec::new();
    for rule in &rules.rules {
        for name in &rule.names {
            add(&mut filter, rules, rule, name, &mut warnings)?;
        }
    }
    let mut code = prefix::assemble(rules);
    code.extend(export(&filter)?);
    if code.len() / 8 > MAX_INSTRUCTIONS {
        return Err(Error(format!("the profile needs {} instructions, the kernel takes {MAX_INSTRUCTIONS}: shorten it", code.len() / 8)));
    }
    let listener = if rules.notifies() { rrun_sys::seccomp::FLAG_NEW_LISTENER } else { 0 };
    Ok(Program { code, flags: rules.flags | listener, warnings })
}

fn add(filter: &mut ScmpFilterContext, rules: &Rules, rule: &Rule, name: &str, warnings: &mut Vec<String>) -> Result<()> {
    // The library refuses rules that say what the default says.
    if rule.action == rules.default {
        return Ok(());
    }
    let Ok(call) = ScmpSyscall::from_name(name) else {
        if syscalls::newer(name).is_none() {
            warnings.push(format!("seccomp: no system call is named {name:?}: its rule is skipped"));
        } else if !rule.conditions.is_empty() {
            warnings.push(format!("seccomp: comparisons of the arguments of {name:?} are not supported yet: its rule is skipped"));
        }
        return Ok(());
    };
    let told = |e: SeccompError| failed(&format!("add a rule for {name}"), &e);
    if rule.conditions.is_empty() {
        return filter.add_rule(rule.action, call).map(drop).map_err(told);
    }
    rule.conditions.iter().try_for_each(|all| filter.add_rule_conditional(rule.action, call, all).map(drop).map_err(told))
}

/// The architectures whose system calls a profile for this host may name: those that the library knows and that count bytes as it does.
pub fn architectures() -> Vec<&'static str> {
    const KNOWN: [&str; 18] = [
        "SCMP_ARCH_AARCH64",
        "SCMP_ARCH_ARM",
        "SCMP_ARCH_LOONGARCH64",
        "SCMP_ARCH_MIPS",
        "SCMP_ARCH_MIPS64",
        "SCMP_ARCH_MIPS64N32",
        "SCMP_ARCH_MIPSEL",
        "SCMP_ARCH_MIPSEL64",
        "SCMP_ARCH_MIPSEL64N32",
        "SCMP_ARCH_PPC",
        "SCMP_ARCH_PPC64",
        "SCMP_ARCH_PPC64LE",
        "SCMP_ARCH_RISCV64",
        "SCMP_ARCH_S390",
        "SCMP_ARCH_S390X",
        "SCMP_ARCH_X32",
        "SCMP_ARCH_X86",
        "SCMP_ARCH_X86_64",
    ];
    let takes = |arch| ScmpFilterContext::new(ScmpAction::Allow).and_then(|mut filter| filter.add_arch(arch).map(drop)).is_ok();
    KNOWN.into_iter().filter(|name| ScmpArch::from_str(name).is_ok_and(|arch| arch == ScmpArch::native() || takes(arch))).collect()
}

/// libseccomp 2.5 writes its program only to a descriptor.
fn export(filter: &ScmpFilterContext) -> Result<Vec<u8>> {
    let told = |what: &str, e: &dyn std::fmt::Display| Error(format!("{what} the compiled filter: {e}"));
    let memory = rustix::fs::memfd_create("rrun-seccomp", rustix::fs::MemfdFlags::CLOEXEC).map_err(|e| told("make a memfd for", &e))?;
    filter.export_bpf(&memory).map_err(|e| told("export", &e))?;
    let mut code = Vec::new();
    let mut file = File::from(memory);
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut code)).map_err(|e| told("read", &e))?;
    Ok(code)
}

fn failed(what: &str, e: &SeccompError) -> Error {
    Error(format!("cannot {what}: {e}"))
}

/// Whether an action lets the call through.
pub(super) fn lets_through(action: ScmpAction) -> bool {
    matches!(action, ScmpAction::Allow | ScmpAction::Log | ScmpAction::Trace(_) | ScmpAction::Notify)
}
