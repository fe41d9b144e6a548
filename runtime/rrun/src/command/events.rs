use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rrun_cgroup::{OomEvent, Stats, StatsEvent};
use rrun_core::lifecycle::cgroup_of;
use rrun_core::rdt::Group;
use rrun_core::state::{Status, Store};
use rrun_sys::process::Wanted;

use crate::cli::Events;

/// `rrun events`: one JSON line per event, statistics at intervals, OOM kills and memory pressure when they happen, until the container
/// ends.
pub fn events(store: &Store, id: &str, args: &Events) -> Result<i32> {
    let entry = store.entry(id, false)?;
    let state = entry.load()?;
    if entry.status(&state)? == Status::Stopped {
        bail!("container with id {} is not running", state.id);
    }
    let cgroup = cgroup_of(&state)?;
    let print = |kind, data| -> Result<()> { super::print(&serde_json::to_string(&StatsEvent { kind, id: &state.id, data })?) };
    let stats = || -> Result<Stats> {
        let intel_rdt = state.rdt.as_ref().map(Group::stats).unwrap_or_default();
        Ok(Stats { intel_rdt, ..cgroup.stats()? })
    };
    if args.stats {
        print("stats", Some(stats()?))?;
        return Ok(0);
    }
    let interval = duration(args.interval.as_deref().unwrap_or("5s"))?;
    let pidfd = state.init.open()?.context("the container has just ended")?;
    let mut oom = cgroup.oom_watch()?;
    let pressure = cgroup.pressure_watch()?;
    let mut next = Instant::now() + interval;
    loop {
        let mut fds = vec![(pidfd.as_fd(), Wanted::Input), (oom.as_fd(), Wanted::Input)];
        fds.extend(pressure.as_ref().map(|watch| (watch.as_fd(), watch.wanted())));
        let ready = rrun_sys::process::wait_for(&fds, Some(next.saturating_duration_since(Instant::now())))?;
        if ready[1] && matches!(oom.read()?, OomEvent::Killed(_)) {
            print("oom", None)?;
        }
        if ready[0] {
            return Ok(0);
        }
        if let Some(watch) = pressure.as_ref().filter(|_| ready[2]) {
            watch.read()?;
            print("pressure", Some(stats()?))?;
        }
        if Instant::now() >= next {
            print("stats", Some(stats()?))?;
            next += interval;
        }
    }
}

/// As Go writes durations: `5s`, `500ms`, `1m30s`, `1.5h`.
fn duration(text: &str) -> Result<Duration> {
    const UNITS: [(&str, f64); 7] = [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let wrong = || format!("--interval {text:?}: give a duration such as 5s, 500ms or 1m30s");
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').with_context(wrong)?;
        let unit = rest[number..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |length| number + length);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == &rest[number..unit]).with_context(wrong)?;
        seconds += rest[..number].parse::<f64>().with_context(wrong)? * factor;
        rest = &rest[unit..];
    }
    match Duration::try_from_secs_f64(seconds) {
        Ok(interval) if !interval.is_zero() => Ok(interval),
        _ if text.is_empty() => bail!(wrong()),
        _ => bail!("duration interval must be greater than 0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_gos_durations() {
        for (text, milliseconds) in
            [("5s", 5000), ("500ms", 500), ("2m", 120_000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("1h", 3_600_000)]
        {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        for bad in ["", "5", "s", "5x", "0s", "-1s", "1..5s", "1s2", "1e400s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
