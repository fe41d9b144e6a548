//! Why a program could not be started, in plain words: what the file in the image is.

use std::io::Read;
use std::path::Path;

use rustix::fs::FileType;

use super::{Node, Rootfs, reopen};

/// A sentence about `program` as found in the image, if it explains a failed start.
pub fn explain(rootfs: &Rootfs, program: &str, env: &[String], working_dir: &str) -> Option<String> {
    let path = find(rootfs, program, env, working_dir)?;
    let head = match rootfs.lookup(Path::new(&path)).ok()?? {
        Node::Directory(_) => return Some(format!("{path} is a directory")),
        Node::Link(_) => return None,
        Node::Other(fd, stat) => {
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Some(format!("{path} is not a regular file"));
            }
            if stat.st_mode & 0o111 == 0 {
                return Some(format!("{path} is not executable: chmod +x it in the image"));
            }
            let mut head = Vec::new();
            reopen(&fd).ok()?.take(4096).read_to_end(&mut head).ok()?;
            head
        }
    };
    if head.starts_with(b"#!") { explain_script(rootfs, &path, &head) } else { explain_binary(rootfs, &path, &head) }
}

/// The file that the name would mean, if there is any; looks in PATH like the runtime.
fn find(rootfs: &Rootfs, program: &str, env: &[String], working_dir: &str) -> Option<String> {
    if program.starts_with('/') {
        return Some(program.to_owned());
    }
    if program.contains('/') {
        return Some(format!("{}/{program}", working_dir.trim_end_matches('/')));
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(crate::containers::DEFAULT_PATH);
    let candidates = path.split(':').map(|directory| format!("{directory}/{program}"));
    candidates.into_iter().find(|candidate| matches!(rootfs.lookup(Path::new(candidate)), Ok(Some(Node::Other(..)))))
}

fn explain_script(rootfs: &Rootfs, path: &str, head: &[u8]) -> Option<String> {
    let line = head[2..].split(|byte| *byte == b'\n').next()?;
    let text = String::from_utf8_lossy(line);
    if text.ends_with('\r') {
        return Some(format!("{path} is a script with Windows line ends (CRLF): convert it, for example with sed -i 's/\\r$//'"));
    }
    let interpreter = text.split_whitespace().next()?.to_owned();
    match rootfs.lookup(Path::new(&interpreter)) {
        Ok(None) => Some(format!("{path} is a script for {interpreter}, which is not in the image")),
        _ => None,
    }
}

/// ELF header fields (elf(5)): class, data, machine, and the interpreter's program header.
fn explain_binary(rootfs: &Rootfs, path: &str, head: &[u8]) -> Option<String> {
    if head.is_empty() {
        return Some(format!("{path} is empty"));
    }
    if !head.starts_with(b"\x7fELF") || head.len() < 64 {
        return Some(format!("{path} is neither a program (ELF) nor a script that begins with #!"));
    }
    let little = head[5] == 1;
    let machine = u64_at(head, 18, 2, little)?;
    if !runs_here(machine) {
        let name = machine_name(machine);
        return Some(format!("{path} is a program for {name}, this host is {}", std::env::consts::ARCH));
    }
    let interpreter = interpreter(head, little)?;
    match rootfs.lookup(Path::new(&interpreter)) {
        Ok(None) => {
            Some(format!("{path} needs the loader {interpreter}, which is not in the image (another libc, or a static build is meant)"))
        }
        _ => None,
    }
}

fn interpreter(head: &[u8], little: bool) -> Option<String> {
    const PT_INTERP: u64 = 3;
    let wide = head[4] == 2;
    let (offset, size, count) = if wide {
        (u64_at(head, 32, 8, little)?, u64_at(head, 54, 2, little)?, u64_at(head, 56, 2, little)?)
    } else {
        (u64_at(head, 28, 4, little)?, u64_at(head, 42, 2, little)?, u64_at(head, 44, 2, little)?)
    };
    (0..count).find_map(|index| {
        let at = usize::try_from(offset.checked_add(index.checked_mul(size)?)?).ok()?;
        if u64_at(head, at, 4, little)? != PT_INTERP {
            return None;
        }
        let (start, length) = if wide {
            (u64_at(head, at.checked_add(8)?, 8, little)?, u64_at(head, at.checked_add(32)?, 8, little)?)
        } else {
            (u64_at(head, at.checked_add(4)?, 4, little)?, u64_at(head, at.checked_add(16)?, 4, little)?)
        };
        let start = usize::try_from(start).ok()?;
        let bytes = head.get(start..start.checked_add(usize::try_from(length).ok()?)?)?;
        Some(String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned())
    })
}

fn u64_at(bytes: &[u8], at: usize, length: usize, little: bool) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(length)?)?;
    let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    Some(if little { field.iter().rev().fold(0, fold) } else { field.iter().fold(0, fold) })
}

const MACHINES: &[(u64, &str)] = &[
    (3, "x86"),
    (8, "mips"),
    (21, "powerpc64"),
    (22, "s390x"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
    (258, "loongarch64"),
];

fn machine_name(machine: u64) -> String {
    MACHINES.iter().find(|(number, _)| *number == machine).map_or_else(|| format!("machine {machine}"), |(_, name)| (*name).to_owned())
}

fn runs_here(machine: u64) -> bool {
    let name = machine_name(machine);
    let own = std::env::consts::ARCH;
    name == own || (own == "x86_64" && name == "x86") || (own == "aarch64" && name == "arm")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use rcontainerd_store::snapshot::{LayerDirs, Whiteouts};

    use super::*;

    fn told(content: &[u8], mode: u32) -> Option<String> {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::write(dir.path().join("p"), content).expect("write");
        fs::set_permissions(dir.path().join("p"), fs::Permissions::from_mode(mode)).expect("chmod");
        let dirs = LayerDirs { upper: dir.path().to_owned(), lowers: Vec::new(), whiteouts: Whiteouts::Remove };
        explain(&Rootfs::open(&dirs).expect("open"), "/p", &[], "/")
    }

    fn elf(machine: u8) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18] = machine;
        bytes
    }

    #[test]
    fn causes_are_told() {
        let has = |text: Option<String>, words: &str| {
            assert!(text.as_deref().is_some_and(|text| text.contains(words)), "{text:?} lacks {words:?}");
        };
        has(told(b"#!/bin/sh\r\necho\r\n", 0o755), "CRLF");
        has(told(b"#!/usr/bin/python3\n", 0o755), "/usr/bin/python3, which is not in the image");
        has(told(b"hello", 0o755), "neither a program");
        has(told(b"", 0o755), "empty");
        has(told(&elf(243), 0o755), "riscv64");
        has(told(&elf(62), 0o644), "not executable");
        assert_eq!(told(&elf(if cfg!(target_arch = "x86_64") { 62 } else { 183 }), 0o755), None);
    }
}
