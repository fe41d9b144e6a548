//! `process` of config.json → what the last steps before exec need. Shared by init and exec.

use rrun_sys::process::SchedAttr;

use super::numbers;
use crate::caps::CapSets;
use crate::spec::{MemoryPolicy, Process, Scheduler};

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
    /// CPU masks of an exec'd process, before and after it is in the container's cgroup.
    pub initial_cpus: Option<Vec<u64>>,
    pub final_cpus: Option<Vec<u64>>,
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
        initial_cpus: numbers::mask(&process.exec_cpu_affinity.initial).ok(),
        final_cpus: numbers::mask(&process.exec_cpu_affinity.last).ok(),
    }
}

/// The arguments of set_mempolicy(2), or what is wrong.
pub fn memory_policy(policy: &MemoryPolicy) -> Result<(i32, Vec<u64>), String> {
    const MODES: [&str; 7] =
        ["MPOL_DEFAULT", "MPOL_PREFERRED", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE"];
    let mode = MODES.iter().position(|m| *m == policy.mode).ok_or_else(|| format!("invalid memory policy mode {:?}", policy.mode))?;
    let nodes = match policy.nodes.as_str() {
        "" => Vec::new(),
        list => numbers::mask(list).map_err(|e| format!("invalid memory policy nodes {list:?}: {e}"))?,
    };
    let flag = |name: &String| match name.as_str() {
        "MPOL_F_STATIC_NODES" => Ok(1 << 15),
        "MPOL_F_RELATIVE_NODES" => Ok(1 << 14),
        "MPOL_F_NUMA_BALANCING" => Ok(1 << 13),
        _ => Err(format!("invalid memory policy flag {name:?}")),
    };
    let flags = policy.flags.iter().map(flag).try_fold(0, |all, f| Ok::<i32, String>(all | f?))?;
    let given = numbers::count(&nodes);
    match MODES[mode] {
        "MPOL_DEFAULT" | "MPOL_LOCAL" if given > 0 => Err(format!("memory policy mode requires 0 nodes but got {given}")),
        "MPOL_BIND" | "MPOL_INTERLEAVE" | "MPOL_PREFERRED_MANY" | "MPOL_WEIGHTED_INTERLEAVE" if given == 0 => {
            Err("memory policy mode requires at least one node but got 0".to_string())
        }
        _ => Ok((mode as i32 | flags, nodes)),
    }
}

/// A variable given twice counts as given last.
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

/// The number of a scheduling policy.
pub fn scheduler_policy(name: &str) -> Option<u32> {
    ["SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE"]
        .iter()
        .position(|p| *p == name)
        .map(|n| n as u32)
}

/// The bit of a scheduler flag.
pub fn scheduler_flag(name: &str) -> Option<u64> {
    const FLAGS: [&str; 7] = ["RESET_ON_FORK", "RECLAIM", "DL_OVERRUN", "KEEP_POLICY", "KEEP_PARAMS", "UTIL_CLAMP_MIN", "UTIL_CLAMP_MAX"];
    let name = name.strip_prefix("SCHED_FLAG_")?;
    FLAGS.iter().position(|f| *f == name).map(|n| 1 << n)
}

/// The scheduler setting, None where a name is wrong.
pub fn scheduler_attr(s: &Scheduler) -> Option<SchedAttr> {
    let flags = s.flags.iter().map(|f| scheduler_flag(f)).try_fold(0, |all, f| Some(all | f?))?;
    Some(SchedAttr {
        policy: scheduler_policy(&s.policy)?,
        flags,
        nice: s.nice,
        priority: u32::try_from(s.priority).ok()?,
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
        let env: Vec<String> = ["A=1", "B=2", "A=3"].iter().map(ToString::to_string).collect();
        assert_eq!(last_of_each(&env), ["B=2", "A=3"]);
    }
}
