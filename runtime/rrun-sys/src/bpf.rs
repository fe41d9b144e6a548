//! bpf(2), as far as device filters of cgroups need it (programs of type BPF_PROG_TYPE_CGROUP_DEVICE, Linux 4.15).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::{Error, Result, check};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;
/// Enough for any cgroup: the kernel allows 64 programs per attach point.
const MAX_PROGRAMS: usize = 64;

/// The head of `union bpf_attr` for BPF_PROG_LOAD; the kernel takes a shorter attr as zero-filled.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

fn bpf<T>(command: libc::c_long, name: &'static str, attr: &mut T, what: &str) -> Result<libc::c_long> {
    // SAFETY: attr is a live, properly sized prefix of union bpf_attr for this command; the pointers in it (if any) are to
    // buffers that outlive the call, with their lengths beside them.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    check(ret, name, || what.to_owned())
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor to us; nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// Loads a device filter. `code` is an array of 8-byte eBPF instructions. The verifier is interrupted by signals (EAGAIN);
/// that is retried.
pub fn load_device_program(code: &[u64]) -> Result<OwnedFd> {
    let mut name = [0u8; 16];
    name[..8].copy_from_slice(b"rrun_dev");
    for _ in 0..5 {
        let mut attr = LoadAttr {
            prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
            insn_cnt: code.len() as u32,
            insns: code.as_ptr() as u64,
            license: c"Apache-2.0".as_ptr() as u64,
            prog_name: name,
            ..LoadAttr::default()
        };
        match bpf(BPF_PROG_LOAD, "bpf(BPF_PROG_LOAD)", &mut attr, "device filter") {
            Err(e) if e.is(libc::EAGAIN) => {}
            other => return other.map(owned),
        }
    }
    Err(Error::new("bpf(BPF_PROG_LOAD)", "device filter", libc::EAGAIN))
}

/// Attaches a device filter to a cgroup: in the place of `replace` (atomically, Linux 5.5) or beside what is there.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, replace: Option<BorrowedFd<'_>>) -> Result<()> {
    let mut attr = AttachAttr {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI | if replace.is_some() { BPF_F_REPLACE } else { 0 },
        replace_bpf_fd: replace.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    bpf(BPF_PROG_ATTACH, "bpf(BPF_PROG_ATTACH)", &mut attr, "device filter").map(drop)
}

/// Detaches one device filter.
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attr = AttachAttr {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        ..AttachAttr::default()
    };
    bpf(BPF_PROG_DETACH, "bpf(BPF_PROG_DETACH)", &mut attr, "device filter").map(drop)
}

/// The device filters attached to exactly this cgroup.
pub fn device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut attr = QueryAttr {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MAX_PROGRAMS as u32,
        ..QueryAttr::default()
    };
    bpf(BPF_PROG_QUERY, "bpf(BPF_PROG_QUERY)", &mut attr, "device filters")?;
    ids.iter()
        .take(attr.prog_cnt as usize)
        .map(|&prog_id| {
            let mut attr = IdAttr { prog_id, ..IdAttr::default() };
            bpf(BPF_PROG_GET_FD_BY_ID, "bpf(BPF_PROG_GET_FD_BY_ID)", &mut attr, "device filter").map(owned)
        })
        .collect()
}
