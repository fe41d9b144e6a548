//! Choices that a seed repeats.

use std::collections::BTreeSet;

/// Numbers that follow from a seed: xorshift64* (Vigna, 2016).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Zero would stay zero; neighbouring seeds should not look alike.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        (self.number() >> 11) % limit
    }

    /// So many of the numbers below `limit`, in order; all of them when there are not more.
    pub fn sample(&mut self, count: usize, limit: usize) -> Vec<usize> {
        if count >= limit {
            return (0..limit).collect();
        }
        let mut chosen = BTreeSet::new();
        while chosen.len() < count {
            chosen.insert(usize::try_from(self.below(limit as u64)).expect("below a usize"));
        }
        chosen.into_iter().collect()
    }
}
