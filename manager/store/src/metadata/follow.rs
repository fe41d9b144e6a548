//! Which records have changed: for those who keep what some tables say in memory, and for a collection of garbage that looks again at
//! what changed while it was looking.
//!
//! Every transaction that touches a followed table raises a number that is kept in the database, and its keys are noted here under
//! that number before it is committed. So whoever sees the number in his view of the database finds here all that led to it; what a
//! failed transaction noted is looked at for nothing.

use std::collections::VecDeque;

/// Keys that are remembered; whoever is further behind reads all anew.
const MAX: usize = 1 << 16;

/// How far somebody has followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Counts how often the database was opened.
    pub(super) epoch: u64,
    pub(super) number: u64,
}

/// A record that was put or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    pub table: &'static str,
    pub key: String,
}

/// The latest changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    noted: VecDeque<(u64, Touched)>,
    /// What has this number or a lower one may be forgotten already.
    forgotten: u64,
}

impl Changes {
    /// Begins with a database that has come so far.
    pub(super) fn starting_at(number: u64) -> Self {
        Self { noted: VecDeque::new(), forgotten: number }
    }

    pub(super) fn note(&mut self, number: u64, touched: Vec<Touched>) {
        self.noted.extend(touched.into_iter().map(|touched| (number, touched)));
        while self.noted.len() > MAX {
            if let Some((number, _)) = self.noted.pop_front() {
                self.forgotten = self.forgotten.max(number);
            }
        }
    }

    /// What changed after `since` and up to `now`; `None` when that is not known any more.
    pub(super) fn between(&self, since: u64, now: u64) -> Option<Vec<Touched>> {
        if since < self.forgotten || since > now {
            return None;
        }
        // Noted inside the one writing transaction there is: numbers never fall.
        let [start, end] = [since, now].map(|bound| self.noted.partition_point(|(number, _)| *number <= bound));
        Some(self.noted.range(start..end).map(|(_, touched)| touched.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_transaction_noted_is_told_with_its_number() {
        let mut changes = Changes::starting_at(0);
        for (number, key) in [(1, "a"), (2, "failed"), (2, "b"), (3, "c")] {
            changes.note(number, vec![touched(key)]);
        }
        assert_eq!(changes.between(1, 2), Some(vec![touched("failed"), touched("b")]));
        assert_eq!(changes.between(0, 3).map(|all| all.len()), Some(4));
    }

    fn touched(key: &str) -> Touched {
        Touched { table: "t", key: key.to_owned() }
    }

    #[test]
    fn what_is_between_two_numbers_is_told_as_long_as_it_is_known() {
        let mut changes = Changes::starting_at(5);
        changes.note(6, vec![touched("a"), touched("b")]);
        changes.note(7, vec![touched("c")]);
        assert_eq!(changes.between(5, 6), Some(vec![touched("a"), touched("b")]));
        assert_eq!(changes.between(6, 7), Some(vec![touched("c")]));
        assert_eq!(changes.between(7, 7), Some(Vec::new()));
        assert_eq!(changes.between(4, 7), None);
        assert_eq!(changes.between(8, 7), None);
        for number in 8..=MAX as u64 + 7 {
            changes.note(number, vec![touched("x")]);
        }
        assert_eq!(changes.between(6, 9), None);
        assert_eq!(changes.between(7, 9).map(|known| known.len()), Some(2));
    }
}
