use anyhow::{Context, Result, bail};
use rrun_core::lifecycle::{self, ExecRequest};
use rrun_core::seal::seal_own_executable;
use rrun_core::spec::{Capabilities, Process, parse_process};
use rrun_core::state::{Entry, Store};

use crate::cli::{Exec, Global};
use crate::follow::{self, Followed};

/// `rrun exec`.
pub fn exec(store: &Store, global: &Global, args: &Exec) -> Result<i32> {
    seal_own_executable()?;
    let entry = store.entry(&args.id.id, false)?;
    let request = ExecRequest {
        process: process(&entry, args)?,
        console_socket: args.console_socket.clone(),
        keep_terminal: !args.detach,
        pid_file: args.pid_file.clone(),
        preserve_fds: args.preserve_fds,
        ignore_paused: args.ignore_paused,
        cgroup: args.cgroup.clone(),
        rootless: super::rootless(global),
    };
    let signals = if args.detach { None } else { Some(follow::catch_signals()?) };
    let executed = lifecycle::exec(store, &entry, &request).context("unable to start container process")?;
    let Some(signals) = signals else { return Ok(0) };
    let followed = Followed { pid: executed.pid, pidfd: executed.pidfd, master: executed.terminal_master };
    Ok(follow::follow(&followed, &signals)?.code())
}

/// The process document, or the container's own process with the options laid over it.
fn process(entry: &Entry, args: &Exec) -> Result<Process> {
    if let Some(path) = &args.process {
        let text = std::fs::read(path).with_context(|| format!("process file {}", path.display()))?;
        let mut process = parse_process(&text)?;
        process.terminal |= args.tty;
        return Ok(process);
    }
    if args.args.is_empty() {
        bail!("process args cannot be empty");
    }
    let mut process = lifecycle::process_from_config(entry)?;
    process.args.clone_from(&args.args);
    process.terminal = args.tty;
    process.console_size = None;
    if let Some(cwd) = &args.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some(profile) = &args.apparmor {
        process.apparmor_profile.clone_from(profile);
    }
    if let Some(label) = &args.process_label {
        process.selinux_label.clone_from(label);
    }
    process.no_new_privileges |= args.no_new_privs;
    process.env.extend(args.env.iter().cloned());
    add_capabilities(&mut process, &args.cap);
    if let Some(user) = &args.user {
        (process.user.uid, process.user.gid) = parse_user(user, process.user.gid)?;
    }
    process.user.additional_gids.extend(&args.additional_gids);
    Ok(process)
}

fn add_capabilities(process: &mut Process, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let caps = process.capabilities.get_or_insert_with(Capabilities::default);
    for set in [&mut caps.bounding, &mut caps.effective, &mut caps.permitted] {
        set.extend(names.iter().cloned());
    }
}

fn parse_user(text: &str, own_gid: u32) -> Result<(u32, u32)> {
    let number = |s: &str| s.parse::<u32>().with_context(|| format!("--user {text:?}: {s:?} is no number: give <uid>[:<gid>]"));
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, number(gid)?)),
        None => Ok((number(text)?, own_gid)),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_user;

    #[test]
    fn a_user_is_numbers_only() {
        assert_eq!(parse_user("5", 7).unwrap(), (5, 7));
        assert_eq!(parse_user("5:6", 7).unwrap(), (5, 6));
        for bad in ["", "root", "5:", ":5", "5:6:7", "-1", "4294967296", "1 "] {
            assert!(parse_user(bad, 0).is_err(), "{bad}");
        }
    }
}
