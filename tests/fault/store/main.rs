//! What becomes of the store when the power goes, the disk is full or broken, or the manager is killed: at every write.
//!
//! `RCONTAINERD_FAULTS=all` tries every point, a number is the seed of another sample than the usual one.

mod disk;
mod each_write;
mod fuse;
mod inject;
mod power_cut;
mod view;

use rcontainerd_tests::Random;

/// The usual sample: the same in every run, so that a failure is one of what was changed.
const SEED: u64 = 20_261_121;

/// Where the choice of points begins, and how many there are to be: `sample`, or all.
fn effort(sample: usize) -> (Random, usize) {
    let told = std::env::var("RCONTAINERD_FAULTS").unwrap_or_default();
    if told == "all" {
        return (Random::new(1), usize::MAX);
    }
    let seed = if told.is_empty() { SEED } else { told.parse().expect("RCONTAINERD_FAULTS is `all` or a seed") };
    println!("RCONTAINERD_FAULTS={seed}");
    (Random::new(seed), sample)
}
