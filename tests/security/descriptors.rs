//! CVE-2024-21626 and its kin: descriptors of the host, and ways through /proc/self/fd.

use std::fs;
use std::os::fd::AsRawFd;

use crate::arena::{text, unless, withstands};

const SECRET: &str = "the host's secret";

/// Every number as the working directory; from inside, the host's secret by many steps up.
#[test]
fn a_leaked_descriptor_as_working_directory() {
    withstands("cwd-sweep", |arena| {
        let host = fs::File::open("/").unwrap();
        rustix::io::fcntl_setfd(&host, rustix::io::FdFlags::empty()).unwrap();
        let secret = format!("../../../../../../../..{}/secret", arena.canary().display());
        for n in (0..64).chain([host.as_raw_fd()]) {
            arena.configure(&["cat", &secret], |c| c["process"]["cwd"] = format!("/proc/self/fd/{n}").into());
            let output = arena.run();
            unless(text(&output).contains(SECRET), format!("descriptor {n} of {} leads to the host", host.as_raw_fd()))?;
        }
        Ok(())
    });
}

/// Nothing but stdio reaches the container's program, whatever the runtime was started with.
#[test]
fn no_descriptor_is_inherited() {
    withstands("fd-list", |arena| {
        let host = fs::File::open("/").unwrap();
        rustix::io::fcntl_setfd(&host, rustix::io::FdFlags::empty()).unwrap();
        arena.configure(&["ls", "/proc/self/fd"], |_| {});
        let output = arena.run();
        let seen: Vec<String> = text(&output).split_whitespace().map(str::to_string).collect();
        unless(seen != ["0", "1", "2", "3"], format!("descriptors {seen:?}"))
    });
}
