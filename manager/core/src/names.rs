//! Random names for containers: an adjective and a pioneer of computing or of the sea.

use rcontainerd_types::{Error, Result};

const ADJECTIVES: &[&str] = &[
    "agile",
    "amber",
    "autumn",
    "bold",
    "brave",
    "breezy",
    "bright",
    "brisk",
    "calm",
    "careful",
    "cheerful",
    "clever",
    "cosmic",
    "crisp",
    "curious",
    "daring",
    "dazzling",
    "deft",
    "eager",
    "earnest",
    "electric",
    "fearless",
    "festive",
    "fluent",
    "frosty",
    "gentle",
    "giddy",
    "gleaming",
    "graceful",
    "happy",
    "hardy",
    "hopeful",
    "humble",
    "jolly",
    "jovial",
    "keen",
    "kind",
    "lively",
    "lucid",
    "lucky",
    "mellow",
    "merry",
    "mighty",
    "mindful",
    "modest",
    "nimble",
    "noble",
    "patient",
    "playful",
    "polite",
    "priceless",
    "proud",
    "quick",
    "quiet",
    "radiant",
    "rapid",
    "relaxed",
    "resolute",
    "rustic",
    "serene",
    "sharp",
    "silent",
    "sincere",
    "sleepy",
    "snug",
    "solar",
    "sturdy",
    "sunny",
    "swift",
    "tender",
    "tidy",
    "trusty",
    "upbeat",
    "vibrant",
    "vigilant",
    "vivid",
    "warm",
    "wistful",
    "witty",
    "zealous",
    "zesty",
];

const SURNAMES: &[&str] = &[
    "aiken",
    "allen",
    "amdahl",
    "babbage",
    "backus",
    "baran",
    "bardeen",
    "bartik",
    "berners",
    "boole",
    "borg",
    "brooks",
    "cerf",
    "church",
    "clarke",
    "cocke",
    "codd",
    "cook",
    "cray",
    "curie",
    "dahl",
    "diffie",
    "dijkstra",
    "drake",
    "eckert",
    "engelbart",
    "euler",
    "faraday",
    "feynman",
    "floyd",
    "franklin",
    "galois",
    "gauss",
    "godel",
    "goldberg",
    "gosling",
    "gray",
    "hamilton",
    "hamming",
    "hellman",
    "hoare",
    "holberton",
    "hopper",
    "huffman",
    "iverson",
    "johnson",
    "karp",
    "kay",
    "kepler",
    "kernighan",
    "keller",
    "kilby",
    "kleene",
    "knuth",
    "lamarr",
    "lamport",
    "lampson",
    "lovelace",
    "magellan",
    "mauchly",
    "maxwell",
    "mccarthy",
    "meitner",
    "metcalfe",
    "milner",
    "minsky",
    "naur",
    "neumann",
    "newell",
    "noether",
    "nygaard",
    "pascal",
    "perlis",
    "perlman",
    "postel",
    "rabin",
    "ritchie",
    "rivest",
    "sammet",
    "scott",
    "shannon",
    "simon",
    "stallman",
    "steele",
    "sutherland",
    "tarjan",
    "thompson",
    "tukey",
    "turing",
    "ullman",
    "valiant",
    "wilkes",
    "wirth",
    "yao",
    "zuse",
];

/// A name that `taken` does not know; a digit is added once that gets hard.
///
/// # Errors
/// When the kernel's random source fails.
pub fn random(taken: impl Fn(&str) -> bool) -> Result<String> {
    for attempt in 0.. {
        let mut bytes = [0u8; 5];
        getrandom::fill(&mut bytes).map_err(|err| Error::internal(format!("read random bytes for a name: {err}")))?;
        let pick = |words: &[&'static str], high: u8, low: u8| words[usize::from(u16::from_be_bytes([high, low])) % words.len()];
        let mut name = format!("{}_{}", pick(ADJECTIVES, bytes[0], bytes[1]), pick(SURNAMES, bytes[2], bytes[3]));
        if attempt >= 4 {
            name += &bytes[4].to_string();
        }
        if !taken(&name) {
            return Ok(name);
        }
    }
    unreachable!("the loop ends only by returning")
}

/// Docker's rule for a container's name.
///
/// # Errors
/// `InvalidArgument` in Docker's words.
pub fn validate(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let well_formed = name.len() >= 2
        && bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if well_formed {
        return Ok(());
    }
    Err(Error::invalid(format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")))
}

/// Docker's rule for volume names.
///
/// # Errors
/// `InvalidArgument` in Docker's words.
pub fn validate_volume(name: &str) -> Result<()> {
    if name.len() == 1 {
        return Err(Error::invalid(format!(
            "create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )));
    }
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    // A directory of that name must be possible (NAME_MAX).
    if first && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) && name.len() <= 255 {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_names_of_one_letter_are_too_short_and_others_have_docker_s_letters() {
        for short in ["q", "1", "-", "/"] {
            let told = validate_volume(short).expect_err(short).message().to_owned();
            assert_eq!(told, format!("create {short}: volume name is too short, names should be at least two alphanumeric characters"));
        }
        for bad in ["", "_a", ".a", "a b", "a/b", "\u{e9}a", &"a".repeat(256)] {
            assert!(validate_volume(bad).expect_err(bad).message().contains("includes invalid characters"), "{bad:?}");
        }
        for good in ["q1", "a.b-c_d", &"a".repeat(255)] {
            validate_volume(good).expect(good);
        }
    }

    #[test]
    fn random_names_are_valid_and_avoid_those_taken() {
        for _ in 0..50 {
            validate(&random(|_| false).expect("random")).expect("a valid name");
        }
        let plain = |name: &str| !name.ends_with(|c: char| c.is_ascii_digit());
        assert!(!plain(&random(plain).expect("random")));
    }
}
