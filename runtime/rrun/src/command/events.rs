use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rrun_cgroup::{OomEvent, StatsEvent};
use rrun_core::lifecycle::cgroup_of;
use rrun_core::state::{Status, Store};

use crate::cli::Events;

/// `rrun events`: one JSON line per event, statistics at intervals, OOM kills when they happen, until the container ends.
pub fn events(store: &Store, args: &Events) -> Result<i32> {
    let entry = store.entry(&args.id.id, false)?;
    let state = entry.load()?;
    if entry.status(&state)? == Status::Stopped {
        bail!("container with id {} is not running", state.id);
    }
    let cgroup = cgroup_of(&state)?;
    let print = |kind, data| -> Result<()> {
        println!("{}", serde_json::to_string(&StatsEvent { kind, id: &state.id, data })?);
        Ok(())
    };
    if args.stats {
        print("stats", Some(cgroup.stats()?))?;
        return Ok(0);
    }
    let interval = duration(&args.interval)?;
    let pidfd = state.init.open()?.context("the container has just ended")?;
    let mut oom = cgroup.oom_watch()?;
    let mut next = Instant::now() + interval;
    loop {
        let ready = rrun_sys::process::wait_readable(&[pidfd.as_fd(), oom.as_fd()], Some(next.saturating_duration_since(Instant::now())))?;
        if ready[1] && matches!(oom.read()?, OomEvent::Killed(_)) {
            print("oom", None)?;
        }
        if ready[0] {
            return Ok(0);
        }
        if Instant::now() >= next {
            print("stats", Some(cgroup.stats()?))?;
            next += interval;
        }
    }
}

/// `5s`, `500ms`, `2m`.
fn duration(text: &str) -> Result<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().with_context(|| format!("--interval {text:?}: give a duration such as 5s"))?;
    let interval = match &text[digits.len()..] {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number * 60),
        _ => bail!("--interval {text:?}: the unit must be ms, s or m"),
    };
    if interval.is_zero() {
        bail!("duration interval must be greater than 0");
    }
    Ok(interval)
}
