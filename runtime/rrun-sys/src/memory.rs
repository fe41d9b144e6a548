//! What this process holds in memory of its own program.

use std::io::BufRead;
use std::os::unix::ffi::OsStrExt;

use crate::error::{Error, Result, check};

/// Gives up the pages of the program's code that have been touched so far, for a daemon that has started and now waits: what a start
/// runs through once is most of what it holds. The kernel maps them again from its page cache where they are needed (`MADV_DONTNEED`,
/// madvise(2)); it would take them by itself only when memory is short.
///
/// # Errors
/// When the process's own maps cannot be read, or the kernel refuses.
pub fn release_code() -> Result<()> {
    let failed = |err: std::io::Error| Error::new("read", "/proc/self/maps", err.raw_os_error().unwrap_or(libc::EIO));
    let program = std::fs::read_link("/proc/self/exe").map_err(failed)?;
    let maps = std::fs::File::open("/proc/self/maps").map_err(failed)?;
    for line in std::io::BufReader::new(maps).split(b'\n') {
        let line = line.map_err(failed)?;
        let Some((start, length)) = code_of(&line, program.as_os_str().as_bytes()) else { continue };
        // SAFETY: a private mapping of a file that is executable and not writable: nobody has written to it, the linker's relocations
        // are in others, so its bytes are the file's and come back from there.
        let ret = unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
        check(ret.into(), "madvise", || format!("{start:#x}, {length}, MADV_DONTNEED"))?;
    }
    Ok(())
}

/// Has the allocator give memory back, for a daemon whose largest answers and walks are a thousand times what it keeps: a block of a
/// mebibyte or more is the kernel's again when it is freed, and the threads share one arena (mallopt(3); glibc would have eight for each
/// core, each with what was once needed there, and raise the bound with the first large block). Small blocks come from each thread's own
/// cache; an arena that is not the first one grows by a system call for each page. To be called before there are threads.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    for (setting, value) in [(libc::M_MMAP_THRESHOLD, 1 << 20), (libc::M_ARENA_MAX, 1)] {
        // SAFETY: takes two numbers and changes the allocator's settings under its own lock.
        unsafe { libc::mallopt(setting, value) };
    }
}

/// Gives what the allocator keeps free back to the kernel (malloc_trim(3)), after work that took much more than stays.
pub fn release_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number; locks each arena and unmaps only pages in which nothing is allocated.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Start and length of a line's mapping if it is the program's code.
fn code_of(line: &[u8], program: &[u8]) -> Option<(usize, usize)> {
    let mut fields = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    let (range, permissions) = (fields.next()?, fields.next()?);
    if permissions != b"r-xp" || !line.ends_with(program) {
        return None;
    }
    let (start, end) = std::str::from_utf8(range).ok()?.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_what_is_executable_and_the_programs_own() {
        let line = b"55d0c0a00000-55d0c0a02000 r-xp 00010000 fe:00 42                         /usr/bin/a program";
        assert_eq!(code_of(line, b"/usr/bin/a program"), Some((0x55d0_c0a0_0000, 0x2000)));
        assert_eq!(code_of(line, b"/usr/bin/other"), None);
        let written = b"55d0c0a00000-55d0c0a02000 rw-p 00010000 fe:00 42                         /usr/bin/a program";
        assert_eq!(code_of(written, b"/usr/bin/a program"), None);
        assert_eq!(code_of(b"", b"/usr/bin/other"), None);
    }

    #[test]
    fn what_is_freed_between_what_stays_goes_back() {
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
            statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4096
        };
        keep_little();
        let mut blocks: Vec<Vec<u8>> = (0..32 * 1024).map(|_| vec![1; 4096]).collect();
        // Each 64th stays, so that no heap ends with free memory.
        let mut number = 0;
        blocks.retain(|_| {
            number += 1;
            number % 64 == 0
        });
        let before = resident();
        release_heap();
        assert!(resident() + (64 << 20) < before, "{} of {before}", resident());
        assert!(blocks.iter().all(|block| block[4095] == 1));
    }

    #[test]
    fn a_program_goes_on_without_its_pages() {
        release_code().expect("give up the code");
        assert_eq!((0..1000u64).sum::<u64>(), 499_500);
    }
}
