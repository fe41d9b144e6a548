//! The runtime's own file.

use std::fs;

use rcontainerd_tests::host::programs;

/// What is mapped for every container, and what could be attacked in it, stays small; and no library of the host, or that the
/// environment names, is a part of it: there is no loader (PT_INTERP of elf(5)).
#[test]
fn the_runtime_is_static_and_small() {
    const LIMIT: usize = 3_000_000;
    const PT_INTERP: u32 = 3;
    let path = programs().join("rrun");
    let program = fs::read(&path).unwrap();
    assert!(
        program.len() <= LIMIT,
        "{} has grown to {} bytes, of {LIMIT}: find out what came in (nm --size-sort)",
        path.display(),
        program.len()
    );
    let number = |at: usize, size: usize| program[at..at + size].iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte));
    // Elf64_Ehdr: e_phoff, e_phentsize, e_phnum.
    let (headers, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let kinds: Vec<usize> = (0..count).map(|n| number(headers + n * size, 4)).collect();
    assert!(count > 0 && !kinds.contains(&(PT_INTERP as usize)), "{} needs a loader", path.display());
}
