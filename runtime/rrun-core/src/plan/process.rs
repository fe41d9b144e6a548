//! `process` of config.json → what the last steps before exec need. Shared by init and exec.

use rrun_sys::process::SchedAttr;

use crate::caps::CapSets;
use crate::spec::{Process, Scheduler};

/// Everything about a process that does not depend on the root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessPlan {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub identity: Identity,
    /// (`RLIMIT_*`, soft, hard)
    pub rlimits: Vec<(u32, u64, u64)>,
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
    pub terminal: bool,
    /// (rows, columns)
    pub console_size: Option<(u16, u16)>,
    /// (class, level)
    pub io_priority: Option<(u32, u32)>,
    pub scheduler: Option<SchedAttr>,
    pub apparmor: Option<String>,
    pub selinux: Option<String>,
}

/// Who the process is and what it may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: Option<u32>,
    /// None: leave the capabilities to the kernel's rules for the user.
    pub caps: Option<CapSets>,
}

/// Decides a process. `available`: capabilities that can be given.
pub fn plan_process(process: &Process, available: u64, warnings: &mut Vec<String>) -> ProcessPlan {
    let label = |s: &String| (!s.is_empty()).then(|| s.clone());
    ProcessPlan {
        args: process.args.clone(),
        env: last_of_each(&process.env),
        cwd: process.cwd.clone(),
        identity: Identity {
            uid: process.user.uid,
            gid: process.user.gid,
            groups: process.user.additional_gids.clone(),
            umask: process.user.umask,
            caps: Some(process.capabilities.as_ref().map(|c| CapSets::from_spec(c, available, warnings)).unwrap_or_default()),
        },
        rlimits: process.rlimits.iter().filter_map(|r| Some((rlimit_number(&r.kind)?, r.soft, r.hard))).collect(),
        no_new_privileges: process.no_new_privileges,
        oom_score_adj: process.oom_score_adj,
        terminal: process.terminal,
        console_size: process.console_size.map(|s| (s.height, s.width)).filter(|s| *s != (0, 0)),
        io_priority: process.io_priority.as_ref().and_then(|io| Some((io_class(&io.class)?, u32::try_from(io.priority).ok()?))),
        scheduler: process.scheduler.as_ref().and_then(scheduler_attr),
        apparmor: label(&process.apparmor_profile),
        selinux: label(&process.selinux_label),
    }
}

/// A variable given twice counts as given last; entries without `=` are dropped, as runc does.
fn last_of_each(env: &[String]) -> Vec<String> {
    let key = |e: &str| e.split_once('=').map(|(k, _)| k.to_string());
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<String> = env.iter().rev().filter(|e| key(e).is_some_and(|k| !k.is_empty() && seen.insert(k))).cloned().collect();
    kept.reverse();
    kept
}

/// The number of a resource limit's name.
pub fn rlimit_number(name: &str) -> Option<u32> {
    Some(match name {
        "RLIMIT_CPU" => libc::RLIMIT_CPU,
        "RLIMIT_FSIZE" => libc::RLIMIT_FSIZE,
        "RLIMIT_DATA" => libc::RLIMIT_DATA,
        "RLIMIT_STACK" => libc::RLIMIT_STACK,
        "RLIMIT_CORE" => libc::RLIMIT_CORE,
        "RLIMIT_RSS" => libc::RLIMIT_RSS,
        "RLIMIT_NPROC" => libc::RLIMIT_NPROC,
        "RLIMIT_NOFILE" => libc::RLIMIT_NOFILE,
        "RLIMIT_MEMLOCK" => libc::RLIMIT_MEMLOCK,
        "RLIMIT_AS" => libc::RLIMIT_AS,
        "RLIMIT_LOCKS" => libc::RLIMIT_LOCKS,
        "RLIMIT_SIGPENDING" => libc::RLIMIT_SIGPENDING,
        "RLIMIT_MSGQUEUE" => libc::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => libc::RLIMIT_NICE,
        "RLIMIT_RTPRIO" => libc::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => libc::RLIMIT_RTTIME,
        _ => return None,
    })
}

/// The number of an I/O priority class.
pub fn io_class(name: &str) -> Option<u32> {
    ["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"].iter().position(|c| *c == name).map(|n| n as u32 + 1)
}

/// The scheduler setting, None where a name or a value is wrong.
pub fn scheduler_attr(s: &Scheduler) -> Option<SchedAttr> {
    let policy = match s.policy.as_str() {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_ISO" => 4,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => 6,
        _ => return None,
    };
    let flag = |name: &String| {
        Some(match name.as_str() {
            "SCHED_FLAG_RESET_ON_FORK" => 0x01,
            "SCHED_FLAG_RECLAIM" => 0x02,
            "SCHED_FLAG_DL_OVERRUN" => 0x04,
            "SCHED_FLAG_KEEP_POLICY" => 0x08,
            "SCHED_FLAG_KEEP_PARAMS" => 0x10,
            "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
            "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
            _ => return None,
        })
    };
    let flags = s.flags.iter().map(flag).try_fold(0, |all, f| Some(all | f?))?;
    let priority = u32::try_from(s.priority).ok()?;
    (-20..=19).contains(&s.nice).then(|| SchedAttr {
        policy,
        flags,
        nice: s.nice,
        priority,
        runtime: s.runtime,
        deadline: s.deadline,
        period: s.period,
        ..SchedAttr::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_variable_counts() {
        let env: Vec<String> = ["A=1", "B=2", "A=3", "junk", "=x"].iter().map(ToString::to_string).collect();
        assert_eq!(last_of_each(&env), ["B=2", "A=3"]);
    }
}
