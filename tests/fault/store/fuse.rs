//! As much of the kernel's FUSE protocol (include/uapi/linux/fuse.h, 7.31) as one regular file takes: the file system's root is the file.
//! A loop device on it turns the kernel's block layer into calls of [`Disk`]: every write, and every flush.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::mount::{MountFlags, UnmountFlags};

/// What lies behind the file. Errors are errno values.
pub trait Disk: Send + Sync + 'static {
    fn size(&self) -> u64;
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), i32>;
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), i32>;
    fn flush(&self) -> Result<(), i32>;
}

const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const GETATTR: u32 = 3;
const FORGET: u32 = 2;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

const HEADER: usize = 40;
const MAX_WRITE: u32 = 1 << 20;
/// FUSE_BIG_WRITES and FUSE_MAX_PAGES: a request may carry more than one page, and more than 32.
const FLAGS: u32 = 1 << 5 | 1 << 22;
/// Nothing of the file is cached above us: what the block layer writes is written here when it is told so.
const DIRECT_IO: u32 = 1;
const REGULAR: u32 = 0o100_600;

/// A mounted file; unmounted when dropped.
pub struct Mounted {
    path: PathBuf,
    server: Option<JoinHandle<()>>,
}

impl Mounted {
    /// Mounts `disk` over the new file `path`.
    pub fn new(path: &Path, disk: Arc<dyn Disk>) -> Self {
        File::create(path).expect("make the mount point");
        let device = File::options().read(true).write(true).open("/dev/fuse").expect("open /dev/fuse");
        let options = format!("fd={},rootmode=100000,user_id=0,group_id=0", device.as_raw_fd());
        let options = std::ffi::CString::new(options).expect("no zero byte");
        rustix::mount::mount("tests", path, "fuse", MountFlags::empty(), Some(options.as_c_str())).expect("mount the disk");
        let server = std::thread::Builder::new().name("disk".into()).spawn(move || serve(&device, &*disk)).expect("start a thread");
        Self { path: path.to_owned(), server: Some(server) }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.path, UnmountFlags::DETACH).ok();
        if let Some(server) = self.server.take() {
            // While something still has the file open (a loop device that is being given back) the kernel goes on asking.
            server.join().ok();
        }
    }
}

fn serve(mut device: &File, disk: &dyn Disk) {
    let mut request = vec![0; MAX_WRITE as usize + 4096];
    loop {
        match device.read(&mut request) {
            Ok(length) => {
                if let Some(reply) = answer(&request[..length], disk) {
                    // The kernel has forgotten a request that was interrupted.
                    device.write_all(&reply).ok();
                }
            }
            Err(err) if err.kind() == io::ErrorKind::Interrupted || err.raw_os_error() == Some(libc::ENOENT) => {}
            // ENODEV: unmounted.
            Err(_) => return,
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn answer(request: &[u8], disk: &dyn Disk) -> Option<Vec<u8>> {
    let (opcode, unique, body) = (u32_at(request, 4), u64_at(request, 8), &request[HEADER..]);
    let answer = match opcode {
        FORGET | BATCH_FORGET | INTERRUPT => return None,
        INIT => Ok(init(body)),
        GETATTR => Ok(attributes(disk.size())),
        OPEN => Ok([&0u64.to_ne_bytes()[..], &DIRECT_IO.to_ne_bytes(), &[0; 4]].concat()),
        READ => {
            let length = u64::from(u32_at(body, 16)).min(disk.size().saturating_sub(u64_at(body, 8)));
            let mut bytes = vec![0; usize::try_from(length).expect("it fits a request")];
            disk.read(u64_at(body, 8), &mut bytes).map(|()| bytes)
        }
        WRITE => {
            let length = u32_at(body, 16);
            disk.write(u64_at(body, 8), &body[40..40 + length as usize]).map(|()| [length.to_ne_bytes(), [0; 4]].concat())
        }
        FSYNC => disk.flush().map(|()| Vec::new()),
        FLUSH | RELEASE => Ok(Vec::new()),
        STATFS => Ok(vec![0; 80]),
        _ => Err(libc::ENOSYS),
    };
    let (error, payload) = match answer {
        Ok(payload) => (0, payload),
        Err(errno) => (-errno, Vec::new()),
    };
    let length = u32::try_from(16 + payload.len()).expect("a reply is small");
    Some([&length.to_ne_bytes()[..], &error.to_ne_bytes(), &unique.to_ne_bytes(), &payload].concat())
}

/// `struct fuse_init_out`.
fn init(body: &[u8]) -> Vec<u8> {
    let words = [7, 31, u32_at(body, 8), FLAGS, 16 | 12 << 16, MAX_WRITE, 1, MAX_WRITE >> 12];
    let mut out: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
    out.resize(64, 0);
    out
}

/// `struct fuse_attr_out`, good for a minute.
fn attributes(size: u64) -> Vec<u8> {
    let long = [60, 0, 1, size, size >> 9, 0, 0, 0];
    let short = [0, 0, 0, REGULAR, 1, 0, 0, 0, 4096, 0];
    long.iter().flat_map(|word: &u64| word.to_ne_bytes()).chain(short.iter().flat_map(|word: &u32| word.to_ne_bytes())).collect()
}
