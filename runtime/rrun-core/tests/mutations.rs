//! What others write and rrun reads, changed at random: it may be refused, in one line, but nothing may panic, hang or be judged
//! differently twice. Bounded and the same in every run; see fuzz/README.md.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::fs;
use std::path::{Component, Path};

use rrun_core::plan::{CreateOptions, HostFacts, plan, plan_process};
use rrun_core::seccomp::Profile;
use rrun_core::spec::{parse_process, parse_spec, validate, validate_process};
use rrun_core::state::{State, check_id};
use serde_json::Value;

/// xorshift64*: good enough to wander about, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Takes every seed of a target as it is, then changed.
fn mutate(target: &str, rounds: u64, judge: impl Fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(target);
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(!seeds.is_empty());
    let told = |input: &[u8]| {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| judge(input)));
        assert!(outcome.is_ok(), "keep this as a file of fuzz/{target}: {}", input.escape_ascii());
    };
    seeds.iter().for_each(|seed| told(seed));
    let mut random = Random(setting("RRUN_MUTATION_SEED", 0x5eed) | 1);
    for _ in 0..setting("RRUN_MUTATIONS", rounds) {
        let mut input = random.one_of(&seeds).clone();
        for _ in 0..=random.below(4) {
            input = change(&mut random, input);
        }
        told(&input);
    }
}

fn change(random: &mut Random, input: Vec<u8>) -> Vec<u8> {
    match serde_json::from_slice::<Value>(&input) {
        Ok(mut value) if random.below(4) > 0 => {
            change_value(random, &mut value);
            value.to_string().into_bytes()
        }
        _ => change_bytes(random, input),
    }
}

fn change_bytes(random: &mut Random, mut input: Vec<u8>) -> Vec<u8> {
    let at = random.below(input.len() + 1);
    match random.below(4) {
        0 => input.truncate(at),
        1 => input.insert(at, random.next() as u8),
        2 if at < input.len() => input[at] ^= 1 << random.below(8),
        _ => {
            let piece = input[at..].iter().take(16).copied().collect::<Vec<_>>();
            input.splice(at..at, piece);
        }
    }
    input
}

const WORDS: [&str; 18] = [
    "",
    "/",
    "..",
    "../..",
    "/proc/self/fd/7",
    "0",
    "-1",
    "\0",
    "ü\u{202e}",
    "a=b",
    "0-",
    "18446744073709551616",
    "SCMP_ACT_NOTIFY",
    "rbind",
    "user",
    "/dev/../..",
    "\n",
    "%s%n",
];

/// Walks to a random place of the document and puts something else there.
fn change_value(random: &mut Random, value: &mut Value) {
    let deeper = random.below(8) > 0;
    match value {
        Value::Object(map) if deeper && !map.is_empty() => {
            let key = map.keys().nth(random.below(map.len())).unwrap().clone();
            if random.below(10) == 0 {
                map.remove(&key);
            } else {
                change_value(random, &mut map[&key]);
            }
        }
        Value::Array(list) if deeper && !list.is_empty() => {
            let at = random.below(list.len());
            if random.below(6) == 0 {
                list.push(list[at].clone());
            } else {
                change_value(random, &mut list[at]);
            }
        }
        leaf => *leaf = anything(random),
    }
}

fn anything(random: &mut Random) -> Value {
    match random.below(9) {
        0 => Value::Null,
        1 => true.into(),
        2 => i64::MIN.into(),
        3 => u64::MAX.into(),
        4 => (random.next() as i32).into(),
        5 => 1e308.into(),
        6 => Value::Array(vec![anything_flat(random)]),
        7 => "x".repeat(random.below(5000)).into(),
        _ => (*random.one_of(&WORDS)).into(),
    }
}

fn anything_flat(random: &mut Random) -> Value {
    (*random.one_of(&WORDS)).into()
}

/// A refusal is one line that says something.
fn is_told(error: &impl ToString) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
}

#[test]
fn config() {
    mutate("config", 1500, |input| {
        let judged = || {
            let spec = parse_spec(input)?;
            validate(&spec)?;
            let options = CreateOptions { id: "x".into(), bundle: "/b".into(), ..CreateOptions::default() };
            let planned = plan(&spec, &HostFacts { capabilities: u64::MAX, ..HostFacts::default() }, &options)?;
            if let Some(profile) = spec.linux.seccomp {
                // Only that it ends.
                drop(Profile::parse(profile.get()));
            }
            Ok(format!("{planned:?}"))
        };
        match (judged(), judged()) {
            (Ok(one), Ok(other)) => assert_eq!(one, other),
            (Err(one), Err(other)) => {
                let (one, other): (rrun_core::Error, rrun_core::Error) = (one, other);
                is_told(&one);
                assert_eq!(one.to_string(), other.to_string());
            }
            (one, other) => panic!("judged differently twice: {one:?}, {other:?}"),
        }
    });
}

#[test]
fn process() {
    mutate("process", 3000, |input| match parse_process(input).and_then(|p| validate_process(&p).map(|()| p)) {
        Ok(process) => {
            let planned = plan_process(&process, u64::MAX, &mut Vec::new());
            assert!(planned.identity.uid != u32::MAX && planned.identity.gid != u32::MAX && !planned.args.is_empty());
        }
        Err(e) => is_told(&e),
    });
}

#[test]
fn state() {
    mutate("state", 3000, |input| match State::parse(input) {
        // What was read can be written, and reads the same.
        Ok(state) => {
            let text = serde_json::to_vec(&state).unwrap();
            assert_eq!(serde_json::to_vec(&State::parse(&text).unwrap()).unwrap(), text);
        }
        Err(e) => is_told(&e),
    });
}

#[test]
fn id() {
    mutate("id", 20_000, |input| {
        let Ok(id) = std::str::from_utf8(input) else { return };
        match check_id(id) {
            Ok(()) => {
                let path = Path::new("/root").join(id);
                assert_eq!(path.parent(), Some(Path::new("/root")), "{id:?} leaves its directory");
                assert!(matches!(path.components().next_back(), Some(Component::Normal(name)) if name == id));
            }
            Err(e) => is_told(&e),
        }
    });
}
