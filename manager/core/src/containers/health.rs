//! Health checks: the probe runs in the container as an exec, its results are the container's health. They are kept in STATE, so that a
//! restart of the manager goes on where the last one was.
//!
//! What an unhealthy container's owner wants done is an annotation ([`ON_FAILURE`]), since Docker's API has no field for it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use rcontainerd_types::{Error, Result};

use super::Containers;
use super::commands::{RestartContainer, StopContainer};
use super::config::{Config, HealthCheck};
use super::model::{Health, HealthStatus, Probe, State, Status};
use super::registry::Entry;
use crate::engine::{Engine, container_event};
use crate::execs::{CreateExec, Execs, StartExec};
use crate::signal;

const FILE: &str = "health.json";
/// Docker's defaults for what neither client nor image say.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: i64 = 3;
/// Bytes of a probe's output that are kept.
const OUTPUT_MAX: usize = 4096;
const LOG_MAX: usize = 5;

/// The annotation whose values are [`OnFailure`]'s names, as of Podman's `--health-on-failure`.
pub(super) const ON_FAILURE: &str = "rcontainerd.health-on-failure";

/// What is done with a container that is unhealthy, at each check that tells so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum OnFailure {
    #[default]
    None,
    /// SIGKILL; the restart policy decides what follows.
    Kill,
    /// A stop and a start, whatever the restart policy.
    Restart,
    Stop,
}

impl OnFailure {
    /// # Errors
    /// `InvalidArgument` for another word, and for a restart of what is removed when it stops.
    pub fn of(annotations: &BTreeMap<String, String>, auto_remove: bool) -> Result<Self> {
        let invalid = |why: &str| Error::invalid(format!("invalid annotation {ON_FAILURE}: {why}"));
        match annotations.get(ON_FAILURE).map_or("none", String::as_str) {
            "none" => Ok(Self::None),
            "kill" => Ok(Self::Kill),
            "restart" if auto_remove => Err(invalid("a container that is removed when it stops cannot be restarted")),
            "restart" => Ok(Self::Restart),
            "stop" => Ok(Self::Stop),
            other => Err(invalid(&format!("{other:?} is none of none, kill, restart, stop"))),
        }
    }
}

/// The check of a container, decided.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    cmd: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: u32,
}

impl Plan {
    /// `None` without a check, or where it is switched off.
    fn of(config: &Config) -> Option<Self> {
        let check: &HealthCheck = config.healthcheck.as_ref()?;
        let (kind, words) = check.test.split_first()?;
        let cmd = match kind.as_str() {
            "CMD" => words.to_vec(),
            "CMD-SHELL" => {
                let shell = if config.shell.is_empty() { ["/bin/sh", "-c"].map(str::to_owned).to_vec() } else { config.shell.clone() };
                shell.into_iter().chain(words.first().cloned()).collect()
            }
            _ => return None,
        };
        let or = |nanoseconds: i64, default: Duration| {
            u64::try_from(nanoseconds).ok().filter(|given| *given > 0).map_or(default, Duration::from_nanos)
        };
        Some(Self {
            cmd,
            interval: or(check.interval, INTERVAL),
            timeout: or(check.timeout, TIMEOUT),
            start_period: or(check.start_period, Duration::ZERO),
            start_interval: or(check.start_interval, START_INTERVAL),
            retries: u32::try_from(if check.retries > 0 { check.retries } else { RETRIES }).unwrap_or(u32::MAX),
        })
    }

    /// Failures do not count while a container that has never been healthy is still in its start period.
    fn starting(&self, health: &Health, started: Option<Timestamp>, now: Timestamp) -> bool {
        let age = started.map_or(Duration::MAX, |started| Duration::try_from(now.duration_since(started)).unwrap_or_default());
        health.status == HealthStatus::Starting && age < self.start_period
    }

    fn pause(&self, health: &Health, started: Option<Timestamp>) -> Duration {
        if self.starting(health, started, Timestamp::now()) { self.start_interval } else { self.interval }
    }

    fn judge(&self, health: &mut Health, started: Option<Timestamp>, probe: Probe) {
        if probe.exit_code == 0 {
            health.failing_streak = 0;
            health.status = HealthStatus::Healthy;
        } else if !self.starting(health, started, probe.start) {
            health.failing_streak += 1;
            if health.failing_streak >= self.retries {
                health.status = HealthStatus::Unhealthy;
            }
        }
        health.log.push(probe);
        let surplus = health.log.len().saturating_sub(LOG_MAX);
        health.log.drain(..surplus);
    }
}

/// Checks a run until its end, in a task of its own.
pub(super) fn watch(engine: &Arc<Engine>, entry: &Arc<Entry>, run: u64, config: &Config) {
    let Some(plan) = Plan::of(config) else { return };
    let before = read(&engine.run_dir(&entry.id)).unwrap_or_default();
    engine.update_volatile(entry, Vec::new(), |state| state.health = Some(before));
    let (engine, entry) = (Arc::clone(engine), Arc::clone(entry));
    tokio::spawn(async move {
        let mut phase = entry.phase.subscribe();
        let exits = phase.borrow_and_update().exits;
        let ended = async { phase.wait_for(|phase| phase.exits > exits || !phase.running).await.is_ok() };
        tokio::select! {
            _ = ended => {}
            () = engine.closing.cancelled() => {}
            () = check(&engine, &entry, run, &plan) => {}
        }
    });
}

async fn check(engine: &Arc<Engine>, entry: &Arc<Entry>, run: u64, plan: &Plan) {
    loop {
        let state = entry.view().state.clone();
        tokio::time::sleep(plan.pause(&state.health.clone().unwrap_or_default(), state.started_at)).await;
        let is_ours = entry.live().is_some_and(|live| live.run == run);
        match entry.view().state.status {
            _ if !is_ours => return,
            Status::Running => {}
            // A frozen process answers nothing.
            _ => continue,
        }
        let probe = probe(engine, entry, plan).await;
        if entry.live().is_none_or(|live| live.run != run) {
            return;
        }
        if record(engine, entry, plan, probe) == HealthStatus::Unhealthy {
            act(engine, entry).await;
        }
    }
}

/// In a task of its own, since the one that checks ends with the run; that one waits, so that nothing is done twice.
async fn act(engine: &Arc<Engine>, entry: &Arc<Entry>) {
    let host = &entry.view().host_config;
    let action = OnFailure::of(&host.annotations, host.auto_remove).unwrap_or_default();
    if action == OnFailure::None {
        return;
    }
    let (engine, entry) = (Arc::clone(engine), Arc::clone(entry));
    let acting = tokio::spawn(async move {
        let (containers, id) = (Containers::new(Arc::clone(&engine)), entry.id.clone());
        let done = match action {
            OnFailure::None => Ok(()),
            OnFailure::Kill => end(&entry).await,
            OnFailure::Restart => containers.restart(RestartContainer { id, ..RestartContainer::default() }).await,
            OnFailure::Stop => containers.stop(StopContainer { id, ..StopContainer::default() }).await,
        };
        match done {
            Ok(()) => tracing::info!(container = entry.id, ?action, "it was unhealthy"),
            // The next check tries again.
            Err(err) => tracing::warn!(container = entry.id, ?action, "it is unhealthy: {err}"),
        }
    });
    if let Err(err) = acting.await {
        tracing::error!("act on an unhealthy container: {err}");
    }
}

/// Not the command of that name, behind which no restart policy holds.
async fn end(entry: &Entry) -> Result<()> {
    entry.running_task()?.kill(None, signal::KILL, true).await
}

fn record(engine: &Engine, entry: &Entry, plan: &Plan, probe: Probe) -> HealthStatus {
    let container = entry.view();
    let mut health = container.state.health.clone().unwrap_or_default();
    let before = health.status;
    plan.judge(&mut health, container.state.started_at, probe);
    if let Err(err) = write(&engine.run_dir(&entry.id), &health) {
        tracing::warn!(container = entry.id, "keep its health: {err}");
    }
    let told = (health.status != before)
        .then(|| container_event(&container, format!("health_status: {}", health.status.as_str()), &[]))
        .into_iter()
        .collect();
    let status = health.status;
    engine.update_volatile(entry, told, |state| state.health = Some(health));
    status
}

/// Runs the check once.
async fn probe(engine: &Arc<Engine>, entry: &Entry, plan: &Plan) -> Probe {
    let start = Timestamp::now();
    let (exit_code, output) = match run(engine, entry, plan).await {
        Ok(done) => done,
        Err(err) => (-1, err.message().to_owned()),
    };
    Probe { start, end: Timestamp::now(), exit_code, output }
}

async fn run(engine: &Arc<Engine>, entry: &Entry, plan: &Plan) -> Result<(i64, String)> {
    let execs = Execs::new(Arc::clone(engine));
    let command = CreateExec {
        container: entry.id.clone(),
        cmd: plan.cmd.clone(),
        attach_stdout: true,
        attach_stderr: true,
        ..CreateExec::default()
    };
    let id = execs.create(command).await?;
    let io = execs.start(StartExec { id: id.clone(), ..StartExec::default() }).await?;
    let mut io = io.ok_or_else(|| Error::internal("the check was started without streams"))?;
    let mut output = Vec::new();
    let read = async {
        while let Some(Ok(piece)) = io.output.next().await {
            let room = OUTPUT_MAX.saturating_sub(output.len()).min(piece.data.len());
            output.extend_from_slice(&piece.data[..room]);
        }
    };
    let in_time = tokio::time::timeout(plan.timeout, read).await.is_ok();
    let mut text = String::from_utf8_lossy(&output).into_owned();
    if !in_time {
        if let Err(err) = entry.running_task()?.kill(Some(&id), signal::KILL, false).await {
            tracing::debug!(container = entry.id, "end a check that takes too long: {err}");
        }
        let told = format!("Health check exceeded timeout ({}s)", plan.timeout.as_secs_f64());
        text = if text.is_empty() { told } else { format!("{told}: {text}") };
        return Ok((-1, text));
    }
    Ok((execs.inspect(&id).await?.exit_code.unwrap_or(-1), text))
}

/// A container that does not run is not healthy (as Docker tells it).
pub(super) fn ended(state: &mut State) {
    if let Some(health) = &mut state.health {
        health.status = HealthStatus::Unhealthy;
    }
}

/// `None` for a first run, and for what cannot be read: then the checks begin anew.
fn read(dir: &Path) -> Option<Health> {
    serde_json::from_slice(&std::fs::read(dir.join(FILE)).ok()?).ok()
}

fn write(dir: &Path, health: &Health) -> Result<()> {
    let (path, temporary) = (dir.join(FILE), dir.join("health.json.new"));
    let bytes = serde_json::to_vec(health).map_err(|err| Error::internal(format!("encode health: {err}")))?;
    let written = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, &path));
    written.map_err(|err| Error::io(format!("write {}", path.display()), err))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(change: impl FnOnce(&mut HealthCheck)) -> Option<Plan> {
        let mut check = HealthCheck { test: vec!["CMD-SHELL".into(), "true".into()], ..HealthCheck::default() };
        change(&mut check);
        Plan::of(&Config { healthcheck: Some(check), ..Config::default() })
    }

    #[test]
    fn actions_are_named_or_refused() {
        let of = |value: &str, auto_remove| OnFailure::of(&[(ON_FAILURE.to_owned(), value.to_owned())].into(), auto_remove);
        assert_eq!(OnFailure::of(&BTreeMap::new(), false).expect("nothing"), OnFailure::None);
        for (value, action) in [("kill", OnFailure::Kill), ("restart", OnFailure::Restart), ("stop", OnFailure::Stop)] {
            assert_eq!(of(value, false).expect(value), action);
        }
        assert!(of("panic", false).expect_err("no action").message().contains("\"panic\" is none of"));
        assert!(of("restart", true).expect_err("gone by then").message().contains("cannot be restarted"));
    }

    fn probe(exit_code: i64, second: i64) -> Probe {
        let at = Timestamp::from_second(second).expect("time");
        Probe { start: at, end: at, exit_code, output: String::new() }
    }

    #[test]
    fn commands_and_defaults() {
        let plan_ = plan(|_| {}).expect("a plan");
        assert_eq!((plan_.cmd.join(" ").as_str(), plan_.interval, plan_.retries), ("/bin/sh -c true", INTERVAL, 3));
        assert_eq!(plan(|check| check.test = vec!["CMD".into(), "a".into(), "b".into()]).expect("a plan").cmd, ["a", "b"]);
        assert_eq!(plan(|check| check.test = vec!["NONE".into()]), None);
        assert_eq!(plan(|check| check.test.clear()), None);
    }

    #[test]
    fn a_streak_makes_it_unhealthy_and_one_success_healthy() {
        let plan = plan(|check| check.retries = 2).expect("a plan");
        let mut health = Health::default();
        let mut seen = Vec::new();
        for code in [1, 1, 0, 1] {
            plan.judge(&mut health, None, probe(code, 0));
            seen.push((health.status, health.failing_streak));
        }
        use HealthStatus::{Healthy, Starting, Unhealthy};
        assert_eq!(seen, [(Starting, 1), (Unhealthy, 2), (Healthy, 0), (Healthy, 1)]);
        for second in 0..10 {
            plan.judge(&mut health, None, probe(0, second));
        }
        assert_eq!((health.log.len(), health.log[0].start.as_second()), (5, 5));
    }

    #[test]
    fn failures_do_not_count_in_the_start_period() {
        let plan = plan(|check| (check.retries, check.start_period) = (1, 10_000_000_000)).expect("a plan");
        let started = Some(Timestamp::UNIX_EPOCH);
        let mut health = Health::default();
        plan.judge(&mut health, started, probe(1, 9));
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Starting, 0));
        plan.judge(&mut health, started, probe(1, 11));
        assert_eq!(health.status, HealthStatus::Unhealthy);
    }
}
