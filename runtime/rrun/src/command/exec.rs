use anyhow::{Context, Result, bail};
use rrun_core::lifecycle::{self, ExecRequest};
use rrun_core::seal::seal_own_executable;
use rrun_core::spec::{Capabilities, Process, parse_process};
use rrun_core::state::Store;

use crate::cli::{Exec, Global};
use crate::follow::{self, Followed};
use crate::rights::Rights;

/// `rrun exec`.
pub fn exec(store: &Store, global: &Global, id: &str, (program, args): (&[String], &Exec)) -> Result<i32> {
    seal_own_executable()?;
    super::create::check_preserved(0, args.preserve_fds.unwrap_or(0))?;
    let entry = store.entry(id, false)?;
    let mut config = lifecycle::configuration(&entry)?;
    let rights = Rights::of(global);
    let request = ExecRequest {
        process: process(config.process.take(), program, args)?,
        console_socket: args.console_socket.clone(),
        keep_terminal: !args.detach,
        pid_file: args.pid_file.clone(),
        pidfd_socket: args.pidfd_socket.clone(),
        preserve_fds: args.preserve_fds.unwrap_or(0),
        ignore_paused: args.ignore_paused,
        cgroup: args.cgroup.clone(),
        rootless: rights.ordinary_user,
        in_user_namespace: rights.in_user_namespace,
    };
    let signals = if args.detach { None } else { Some(follow::catch_signals()?) };
    let executed = lifecycle::exec(store, &entry, &config.linux, &request).context("unable to start container process")?;
    let Some(signals) = signals else { return Ok(0) };
    let followed = Followed { pid: executed.pid, pidfd: executed.pidfd, master: executed.terminal_master, relay: None };
    Ok(follow::follow(&followed, &signals)?.code())
}

/// The process document, or the container's own process with the options laid over it.
fn process(containers: Option<Process>, program: &[String], args: &Exec) -> Result<Process> {
    if let Some(path) = &args.process {
        let text = std::fs::read(path).with_context(|| format!("process file {}", path.display()))?;
        let mut process = parse_process(&text)?;
        process.terminal |= args.tty;
        return Ok(process);
    }
    if program.is_empty() {
        bail!("process args cannot be empty");
    }
    let mut process = containers.context("the container's configuration has no process")?;
    process.args = program.to_vec();
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
    // An ambient capability must be inheritable; a container that has none of those gets none by exec.
    if !caps.inheritable.is_empty() {
        caps.inheritable.extend(names.iter().cloned());
        caps.ambient.extend(names.iter().cloned());
    }
}

fn parse_user(text: &str, own_gid: u32) -> Result<(u32, u32)> {
    // Digits, after one plus sign as in runc: what other parsers take for numbers besides (a minus, spaces, other bases) has made
    // users root before.
    let number = |s: &str| {
        let plain = s.strip_prefix('+').unwrap_or(s);
        let digits = plain.bytes().all(|b| b.is_ascii_digit());
        plain.parse::<u32>().ok().filter(|_| digits).with_context(|| format!("--user {text:?}: {s:?} is no number: give <uid>[:<gid>]"))
    };
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
        assert_eq!(parse_user("+5:+0", 7).unwrap(), (5, 0));
        for bad in ["", "root", "5:", ":5", "5:6:7", "-1", "++0", "+", "+-1", "-+1", "4294967296", "+4294967296", "1 ", "+ 1"] {
            assert!(parse_user(bad, 0).is_err(), "{bad}");
        }
    }
}
