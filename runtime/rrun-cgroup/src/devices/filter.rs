//! A policy as an eBPF program of type BPF_PROG_TYPE_CGROUP_DEVICE (include/uapi/linux/bpf.h, `struct bpf_cgroup_dev_ctx`).
//!
//! ```text
//! r2 = type, r3 = access wanted, r4 = major, r5 = minor
//! per exception:  not this type → next;  access does not match → next;  major, minor differ → next;  return verdict
//! return default
//! ```
//! An exception that allows must grant all the access wanted; one that denies needs one bit of it: as v1 does it.

use super::{ALL, ANY, Key, Kind, Policy};

const BPF_DEVCG_DEV_BLOCK: i32 = 1;
const BPF_DEVCG_DEV_CHAR: i32 = 2;

/// One instruction: opcode, destination and source register, jump offset, immediate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Insn {
    code: u8,
    dst: u8,
    src: u8,
    off: i16,
    imm: i32,
}

impl Insn {
    const fn new(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
        Insn { code, dst, src, off, imm }
    }

    fn encode(self) -> u64 {
        let [o0, o1] = self.off.to_ne_bytes();
        let [i0, i1, i2, i3] = self.imm.to_ne_bytes();
        // The register nibbles are bit-fields of one byte: the first one (dst) is the low nibble on little-endian machines.
        let registers = if cfg!(target_endian = "little") { self.src << 4 | self.dst } else { self.dst << 4 | self.src };
        u64::from_ne_bytes([self.code, registers, o0, o1, i0, i1, i2, i3])
    }
}

/// dst = *(u32 *)(src + off)
const fn load(dst: u8, src: u8, off: i16) -> Insn {
    Insn::new(0x61, dst, src, off, 0)
}
/// dst (32 bits) &= imm
const fn and(dst: u8, imm: i32) -> Insn {
    Insn::new(0x54, dst, 0, 0, imm)
}
/// dst (32 bits) >>= imm
const fn shift_right(dst: u8, imm: i32) -> Insn {
    Insn::new(0x74, dst, 0, 0, imm)
}
/// dst (32 bits) = src
const fn copy(dst: u8, src: u8) -> Insn {
    Insn::new(0xbc, dst, src, 0, 0)
}
/// dst = imm
const fn set(dst: u8, imm: i32) -> Insn {
    Insn::new(0xb7, dst, 0, 0, imm)
}
/// to the next block if dst != imm; the offset is patched when the block is complete
const fn unless_equal(dst: u8, imm: i32) -> Insn {
    Insn::new(0x55, dst, 0, 0, imm)
}
/// to the next block if dst != src
const fn unless_same(dst: u8, src: u8) -> Insn {
    Insn::new(0x5d, dst, src, 0, 0)
}
/// to the next block if dst == imm
const fn if_equal(dst: u8, imm: i32) -> Insn {
    Insn::new(0x15, dst, 0, 0, imm)
}
const EXIT: Insn = Insn::new(0x95, 0, 0, 0, 0);

/// The program, ready for bpf(2).
pub(crate) fn assemble(policy: &Policy) -> Vec<u64> {
    let mut program = vec![load(2, 1, 0), copy(3, 2), and(2, 0xffff), shift_right(3, 16), load(4, 1, 4), load(5, 1, 8)];
    for (key, &access) in &policy.exceptions {
        program.extend(block(key, access, !policy.allow_by_default));
    }
    program.extend([set(0, i32::from(policy.allow_by_default)), EXIT]);
    program.into_iter().map(Insn::encode).collect()
}

fn block(key: &Key, access: u8, allow: bool) -> Vec<Insn> {
    let kind = if key.kind == Kind::Block { BPF_DEVCG_DEV_BLOCK } else { BPF_DEVCG_DEV_CHAR };
    let mut block = vec![unless_equal(2, kind)];
    if access != ALL {
        block.extend([copy(1, 3), and(1, i32::from(access))]);
        block.push(if allow { unless_same(1, 3) } else { if_equal(1, 0) });
    }
    for (register, number) in [(4, key.major), (5, key.minor)] {
        if number != ANY {
            block.push(unless_equal(register, i32::try_from(number).unwrap_or(i32::MAX)));
        }
    }
    block.extend([set(0, i32::from(allow)), EXIT]);
    let end = block.len();
    for (at, insn) in block.iter_mut().enumerate() {
        if matches!(insn.code, 0x55 | 0x5d | 0x15) {
            insn.off = i16::try_from(end - at - 1).expect("a block has at most nine instructions");
        }
    }
    block
}

#[cfg(test)]
mod tests {
    use super::super::tests::rule;
    use super::super::{MKNOD, READ, WRITE};
    use super::*;

    /// Runs the program as the kernel would: the few instructions that the assembler emits.
    fn run(code: &[u64], kind: i32, access: u8, major: u32, minor: u32) -> bool {
        let context = [(u32::from(access) << 16) | kind as u32, major, minor];
        let mut r = [0u64; 11];
        let mut pc = 0usize;
        loop {
            let bytes = code[pc].to_ne_bytes();
            let (dst, src) = ((bytes[1] & 15) as usize, (bytes[1] >> 4) as usize);
            let off = i16::from_ne_bytes([bytes[2], bytes[3]]);
            let imm = i32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            pc += 1;
            let mut jump = |condition: bool| pc += if condition { off as usize } else { 0 };
            match bytes[0] {
                0x61 => r[dst] = u64::from(context[off as usize / 4]),
                0x54 => r[dst] = u64::from(r[dst] as u32 & imm as u32),
                0x74 => r[dst] = u64::from(r[dst] as u32 >> imm),
                0xbc => r[dst] = u64::from(r[src] as u32),
                0xb7 => r[dst] = imm as u64,
                0x55 => jump(r[dst] != imm as u64),
                0x5d => jump(r[dst] != r[src]),
                0x15 => jump(r[dst] == imm as u64),
                0x95 => return r[0] != 0,
                other => panic!("unknown opcode {other:#x}"),
            }
        }
    }

    #[test]
    fn an_allow_must_grant_everything_that_is_wanted() {
        let code = assemble(&Policy::for_container(&[rule(true, "b", 8, 0, "r"), rule(true, "c", 10, -1, "rw")]).unwrap());
        assert!(run(&code, 1, READ, 8, 0));
        assert!(!run(&code, 1, READ | WRITE, 8, 0));
        assert!(!run(&code, 2, READ, 8, 0));
        assert!(run(&code, 2, READ | WRITE, 10, 77));
        assert!(run(&code, 2, ALL, 1, 3));
        assert!(run(&code, 1, MKNOD, 99, 99));
        assert!(!run(&code, 2, READ, 1, 1));
        assert!(run(&code, 2, WRITE, 136, 5));
    }

    #[test]
    fn a_deny_needs_one_bit_of_what_is_wanted() {
        let all = rule(true, "a", -1, -1, "rwm");
        let code = assemble(&Policy::for_container(&[all, rule(false, "c", 1, 1, "w")]).unwrap());
        assert!(run(&code, 2, READ, 1, 1));
        assert!(!run(&code, 2, READ | WRITE, 1, 1));
        assert!(run(&code, 2, ALL, 1, 2));
        assert!(run(&code, 1, ALL, 8, 0));
    }
}
