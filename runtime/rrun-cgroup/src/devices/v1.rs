//! A policy as writes to `devices.allow` and `devices.deny`.

use super::{ALL, ANY, Key, Kind, MKNOD, Policy, READ, WRITE, access_letters, describe};

/// One line for one of the two files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub allow: bool,
    pub text: String,
}

/// The lines that lead from `current` to `target`. The default is written only when it changes: writing it clears every
/// exception, and a live container must not lose /dev/null for an instant.
pub(crate) fn transition(current: &Policy, target: &Policy) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut from = current.clone();
    if from.allow_by_default != target.allow_by_default {
        lines.push(Line { allow: target.allow_by_default, text: "a".into() });
        from = Policy { allow_by_default: target.allow_by_default, ..Policy::default() };
    }
    let exception = !target.allow_by_default;
    for (key, &access) in &target.exceptions {
        let missing = access & !from.exceptions.get(key).copied().unwrap_or(0);
        push(&mut lines, exception, key, missing);
    }
    for (key, &access) in &from.exceptions {
        let surplus = access & !target.exceptions.get(key).copied().unwrap_or(0);
        push(&mut lines, !exception, key, surplus);
    }
    lines
}

fn push(lines: &mut Vec<Line>, allow: bool, key: &Key, access: u8) {
    if access != 0 {
        lines.push(Line { allow, text: format!("{} {}", describe(key), access_letters(access)) });
    }
}

/// Reads `devices.list`. A list of `a *:* rwm` alone is the default of a fresh cgroup. (Exceptions of a cgroup that allows by
/// default are not shown by the kernel.)
pub(crate) fn parse_list(list: &str) -> Policy {
    let mut policy = Policy::default();
    for line in list.lines() {
        let mut words = line.split_whitespace();
        let (Some(kind), Some(numbers), Some(letters)) = (words.next(), words.next(), words.next()) else { continue };
        let kind = match kind {
            "a" => {
                policy.allow_by_default = true;
                continue;
            }
            "b" => Kind::Block,
            _ => Kind::Char,
        };
        let number = |text: &str| text.parse().unwrap_or(ANY);
        let (major, minor) = numbers.split_once(':').map_or((ANY, ANY), |(a, b)| (number(a), number(b)));
        let bit = |c, bit| if letters.contains(c) { bit } else { 0 };
        policy.exceptions.insert(Key { kind, major, minor }, bit('r', READ) | bit('w', WRITE) | bit('m', MKNOD) & ALL);
    }
    policy
}

#[cfg(test)]
mod tests {
    use super::super::tests::rule;
    use super::*;

    #[test]
    fn from_a_fresh_cgroup_everything_is_denied_first() {
        let target = Policy::for_container(&[rule(true, "b", 8, 0, "r")]).unwrap();
        let lines = transition(&parse_list("a *:* rwm\n"), &target);
        assert_eq!(lines[0], Line { allow: false, text: "a".into() });
        assert!(lines[1..].iter().all(|l| l.allow));
        assert!(lines.contains(&Line { allow: true, text: "b 8:0 r".into() }));
        assert!(lines.contains(&Line { allow: true, text: "c *:* m".into() }));
        assert_eq!(lines.len(), 14);
    }

    #[test]
    fn a_change_writes_only_the_difference() {
        let current = parse_list("c 1:3 rwm\nb 8:0 rw\n");
        let target = parse_list("c 1:3 rwm\nb 8:0 r\nc 10:200 rw\n");
        assert_eq!(
            transition(&current, &target),
            [Line { allow: true, text: "c 10:200 rw".into() }, Line { allow: false, text: "b 8:0 w".into() }]
        );
    }

    #[test]
    fn nothing_to_do_writes_nothing() {
        let policy = Policy::for_container(&[]).unwrap();
        assert!(transition(&policy, &policy).is_empty());
    }
}
