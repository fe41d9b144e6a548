use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rrun_core::criu::Criu;
use rrun_core::lifecycle::{self, CheckpointRequest, CriuOptions};
use rrun_core::state::Store;

use crate::cli::{Checkpoint, Global};
use crate::rights::Rights;

/// criu, if the caller or the environment names one: a program of that name alone is no reason to trust what it makes.
pub(super) fn configured(global: &Global) -> Option<OsString> {
    let given = global.criu.clone().map(PathBuf::into_os_string);
    given.or_else(|| std::env::var_os("RRUN_CRIU")).filter(|criu| !criu.is_empty())
}

/// criu, found; both commands need root of the host, as criu does.
pub(super) fn criu(global: &Global) -> Result<Criu> {
    let rights = Rights::of(global);
    let Some(configured) = configured(global) else {
        bail!("criu is not configured: give its path by --criu, or set RRUN_CRIU (its name alone is looked for in PATH)")
    };
    ensure!(!rights.ordinary_user && !rights.in_user_namespace, "criu needs root, not of a user namespace: run this as root of the host");
    Ok(Criu::find(&configured)?)
}

pub(super) fn images(path: Option<&Path>) -> Result<PathBuf> {
    Ok(std::path::absolute(path.unwrap_or(Path::new("checkpoint")))?)
}

/// What is inside a network namespace is never dumped; of others it always is.
pub(super) fn check_empty_ns(given: &[String]) -> Result<()> {
    match given.iter().find(|kind| *kind != "network") {
        Some(kind) => bail!("--empty-ns: namespace {kind:?} is not supported: network is"),
        None => Ok(()),
    }
}

/// `rrun checkpoint`.
pub fn checkpoint(store: &Store, global: &Global, id: &str, args: &Checkpoint) -> Result<i32> {
    let entry = store.entry(id, true)?;
    check_empty_ns(&args.empty_ns)?;
    let stays = args.leave_running || args.pre_dump;
    let request = CheckpointRequest {
        criu: criu(global)?,
        common: CriuOptions {
            images: images(args.image_path.as_deref())?,
            work: args.work_path.as_deref().map(std::path::absolute).transpose()?,
            tcp_established: args.tcp_established,
            external_sockets: args.ext_unix_sk,
            shell_job: args.shell_job,
            file_locks: args.file_locks,
            auto_dedup: args.auto_dedup,
            lazy_pages: args.lazy_pages,
        },
        parent: args.parent_path.clone(),
        leave_running: args.leave_running,
        tcp_skip_in_flight: args.tcp_skip_in_flight,
        link_remap: args.link_remap,
        page_server: args.page_server.as_deref().map(page_server).transpose()?,
        status: args.status_fd.filter(|fd| *fd != -1).map(|fd| status(fd, args.lazy_pages)).transpose()?,
        pre_dump: args.pre_dump,
        cgroups: args.manage_cgroups_mode.0,
    };
    lifecycle::checkpoint(&entry, request)?;
    if !stays {
        lifecycle::delete(&entry, true).context("delete the container, which its checkpoint has ended")?;
    }
    Ok(0)
}

fn page_server(text: &str) -> Result<(String, u16)> {
    let parts = text.rsplit_once(':').map(|(address, port)| (address.trim_start_matches('[').trim_end_matches(']'), port));
    match parts {
        Some((address, port)) if !address.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Ok((address.to_string(), port.parse()?))
        }
        _ => bail!("--page-server {text:?}: give ADDRESS:PORT"),
    }
}

/// Somebody waits at the other end for a word that only comes with lazy pages.
fn status(fd: i64, lazy: bool) -> Result<OwnedFd> {
    ensure!(lazy, "--status-fd {fd}: is only written to with --lazy-pages: give both");
    let number = i32::try_from(fd).ok().filter(|n| *n > 2 && rrun_sys::process::is_inherited(*n));
    let Some(number) = number else { bail!("invalid --status-fd argument {fd}: no descriptor of that number was passed") };
    let fd = rrun_sys::process::adopt_fd(number)?;
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    ensure!(flags.intersects(rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::RDWR), "invalid --status-fd argument {number}: not writable");
    Ok(fd)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_page_server_has_an_address_and_a_port() {
        let told = |text: &str| super::page_server(text).map_err(|e| e.to_string());
        assert_eq!(told("127.0.0.1:27"), Ok(("127.0.0.1".into(), 27)));
        assert_eq!(told("[::1]:65535"), Ok(("::1".into(), 65_535)));
        for odd in ["", "x", ":1", "x:", "x:0", "x:65536", "x:y"] {
            assert_eq!(told(odd), Err(format!("--page-server {odd:?}: give ADDRESS:PORT")));
        }
    }
}
