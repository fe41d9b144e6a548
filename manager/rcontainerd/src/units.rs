//! systemd's units: rendered for this binary and these directories, installed, removed again. Templates lie in `systemd/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::args::Args;
use crate::config::Config;
use crate::sockets;

/// Where an administrator's units belong (systemd.unit(5)).
pub const DIRECTORY: &str = "/etc/systemd/system";

const SERVICE: (&str, &str) = ("rcontainerd.service", include_str!("../systemd/rcontainerd.service"));
const SOCKET: (&str, &str) = ("rcontainerd.socket", include_str!("../systemd/rcontainerd.socket"));
/// Tells our units from an administrator's own of the same name, which are neither replaced nor removed.
const MARK: &str = "# Written by `rcontainerd install-units`";

/// Writes both units and prints the command that enables them.
pub fn install(config: &Config, args: &Args, dir: &Path) -> Result<()> {
    let units = [(SERVICE.0, service(args)?), (SOCKET.0, socket(config)?)];
    for (name, _) in &units {
        let path = dir.join(name);
        ensure!(!path.exists() || ours(&path)?, "{} is there and not ours: remove it, or choose another --dir", path.display());
    }
    for (name, text) in &units {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    println!("wrote {} and {} in {}", SERVICE.0, SOCKET.0, dir.display());
    println!("enable them: systemctl daemon-reload && systemctl enable --now {} {}", SOCKET.0, SERVICE.0);
    Ok(())
}

/// Stops and removes the units that [`install`] wrote to the usual place; without any, nothing happens.
pub fn remove() -> Result<()> {
    let paths: Vec<PathBuf> = [SERVICE.0, SOCKET.0].iter().map(|name| Path::new(DIRECTORY).join(name)).collect();
    let mut installed = Vec::new();
    for path in paths {
        if path.exists() && ours(&path)? {
            installed.push(path);
        }
    }
    if installed.is_empty() {
        return Ok(());
    }
    let running = Path::new("/run/systemd/system").is_dir();
    if running {
        systemctl(&["disable", "--now", SOCKET.0, SERVICE.0])?;
    }
    for path in &installed {
        fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
    }
    if running { systemctl(&["daemon-reload"]) } else { Ok(()) }
}

fn ours(path: &Path) -> Result<bool> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.starts_with(MARK))
}

fn systemctl(args: &[&str]) -> Result<()> {
    let output = Command::new("systemctl").args(args).stdin(Stdio::null()).output().context("run systemctl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "systemctl {}: {}", args.join(" "), said.lines().next().unwrap_or("failed").trim());
    Ok(())
}

fn service(args: &Args) -> Result<String> {
    let exe = std::env::current_exe().context("find our own binary")?;
    let mut words = vec![exe.display().to_string()];
    for (flag, value) in [("--root", &args.root), ("--state", &args.state), ("--config", &args.config)] {
        if let Some(path) = value {
            let path = std::path::absolute(path).with_context(|| format!("{flag} {}", path.display()))?;
            words.extend([flag.to_owned(), path.display().to_string()]);
        }
    }
    for (flag, value) in [("--group", &args.group), ("--log-level", &args.log_level)] {
        words.extend(value.iter().flat_map(|value| [flag.to_owned(), value.clone()]));
    }
    let line = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    Ok(format!("{MARK}\n{}", SERVICE.1.replace("@EXEC@", &line)))
}

fn socket(config: &Config) -> Result<String> {
    let group = sockets::group(config.group.as_deref())?;
    let group = group.map_or_else(|| "root".to_owned(), |gid| gid.to_string());
    // Specifiers are the only thing that a path's value is read for (systemd.unit(5)).
    let state = config.state.display().to_string().replace('%', "%%");
    Ok(format!("{MARK}\n{}", SOCKET.1.replace("@STATE@", &state).replace("@GROUP@", &group)))
}

/// A word of a command line (systemd.service(5)): quotes keep blanks, `%` and `$` stand for themselves when doubled.
fn quoted(word: &str) -> String {
    let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    if word.contains([' ', '\t', '\'', '"', ';']) { format!("\"{word}\"") } else { word }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn words_of_the_command_line_are_quoted_as_systemd_reads_them() {
        assert_eq!(quoted("/usr/bin/rcontainerd"), "/usr/bin/rcontainerd");
        assert_eq!(quoted("/a b/100%/$x"), "\"/a b/100%%/$$x\"");
        assert_eq!(quoted("a\"b"), "\"a\\\"b\"");
    }

    #[test]
    fn units_name_this_binary_and_its_directories() {
        let dir = tempfile::tempdir().expect("temp dir");
        let args = Args::try_parse_from(["rcontainerd", "--state", "/run/my state", "install-units"]).expect("parse");
        let config = Config::load(&args).expect("load");
        install(&config, &args, dir.path()).expect("install");
        let service = fs::read_to_string(dir.path().join(SERVICE.0)).expect("service");
        let exe = std::env::current_exe().expect("exe");
        assert!(service.contains(&format!("ExecStart={} --state \"/run/my state\"\n", exe.display())), "{service}");
        let socket = fs::read_to_string(dir.path().join(SOCKET.0)).expect("socket");
        assert!(socket.contains("ListenStream=/run/my state/docker.sock\n") && !socket.contains('@'), "{socket}");
        install(&config, &args, dir.path()).expect("our own are replaced");
    }

    #[test]
    fn an_administrator_s_own_unit_is_kept() {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::write(dir.path().join(SOCKET.0), "[Socket]\n").expect("write");
        let args = Args::try_parse_from(["rcontainerd", "install-units"]).expect("parse");
        let err = install(&Config::default(), &args, dir.path()).expect_err("not ours");
        assert!(err.to_string().contains("not ours"), "{err}");
        assert!(!dir.path().join(SERVICE.0).exists(), "nothing half-done");
    }
}
