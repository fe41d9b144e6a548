//! runc's option parser takes `-name` for `--name`; clap does not. The words that mean an option are rewritten, the others stay.

use std::ffi::OsString;

/// Long options that may be written with one dash.
const LONG: [&str; 46] = [
    "root",
    "log",
    "log-format",
    "debug",
    "systemd-cgroup",
    "rootless",
    "criu",
    "version",
    "help",
    "bundle",
    "console-socket",
    "pid-file",
    "no-pivot",
    "no-new-keyring",
    "preserve-fds",
    "detach",
    "no-subreaper",
    "keep",
    "force",
    "all",
    "format",
    "quiet",
    "process",
    "user",
    "cwd",
    "env",
    "tty",
    "cap",
    "additional-gids",
    "apparmor",
    "process-label",
    "no-new-privs",
    "ignore-paused",
    "cgroup",
    "stats",
    "interval",
    "resources",
    "memory",
    "memory-swap",
    "pids-limit",
    "cpu-quota",
    "cpu-period",
    "cpu-share",
    "cpuset-cpus",
    "cpuset-mems",
    "config",
];

/// Rewrites up to the first word after which a container's own arguments may come (`exec`'s command, `--`).
pub fn arguments(args: Vec<OsString>) -> Vec<OsString> {
    let mut positional = 0;
    let mut done = false;
    args.into_iter()
        .enumerate()
        .map(|(n, arg)| {
            let Some(text) = arg.to_str().filter(|_| n > 0 && !done).map(str::to_string) else { return arg };
            if text == "--" {
                done = true;
            } else if !text.starts_with('-') {
                positional += 1;
                // Command, container, and then what belongs to the container.
                done = positional >= 3;
            }
            let name = text.strip_prefix('-').filter(|t| !t.starts_with('-')).map(|t| t.split('=').next().unwrap_or_default());
            match name {
                Some(name) if name.len() > 1 && LONG.contains(&name) => format!("-{text}").into(),
                _ => arg,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dash_is_enough_for_long_options_but_not_in_the_containers_command() {
        let words = |s: &str| s.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(arguments(words("rrun -root=/x create -bundle b c")), words("rrun --root=/x create --bundle b c"));
        assert_eq!(arguments(words("rrun exec c find -user root")), words("rrun exec c find -user root"));
    }
}
