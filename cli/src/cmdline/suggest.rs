//! Names close to what was typed.

/// The closest known name, if it is close enough to be worth saying.
pub fn closest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = match typed.chars().count() {
        0..=3 => 1,
        _ => 2,
    };
    names
        .map(|name| {
            let prefix = typed.len() >= 2 && name.starts_with(typed);
            (if prefix { 0 } else { distance(typed, name) }, name)
        })
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, name)| (*d, name.len()))
        .map(|(_, name)| name)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_names_are_found_and_far_ones_are_not() {
        let names = ["cpus", "cpu-shares", "memory", "name", "rm"];
        assert_eq!(closest("cpu", names.into_iter()), Some("cpus"));
        assert_eq!(closest("memmory", names.into_iter()), Some("memory"));
        assert_eq!(closest("naem", names.into_iter()), Some("name"));
        assert_eq!(closest("xyzzy", names.into_iter()), None);
    }
}
