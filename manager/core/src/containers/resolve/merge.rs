//! The container's configuration over the image's, by Docker's rules.

use rcontainerd_types::{Error, Result};

use super::super::config::{Config, HealthCheck};
use crate::images::{Healthcheck, ImageConfig};

pub(super) fn config(request: &Config, image: &ImageConfig, id: &str) -> Result<Config> {
    let mut merged = request.clone();
    if merged.user.is_empty() {
        merged.user.clone_from(&image.user);
    }
    merged.exposed_ports.extend(image.exposed_ports.keys().cloned());
    merged.volumes.extend(image.volumes.keys().cloned());
    merged.env = env(&request.env, &image.env)?;
    command(&mut merged, image);
    if merged.working_dir.is_empty() {
        merged.working_dir.clone_from(&image.working_dir);
    }
    if !merged.working_dir.is_empty() && !merged.working_dir.starts_with('/') {
        return Err(Error::invalid(format!("the working directory '{}' is invalid, it needs to be an absolute path", merged.working_dir)));
    }
    for (key, value) in &image.labels {
        // Labels that steer the engine never come from an image.
        if !reserved(key) {
            merged.labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    if merged.stop_signal.is_empty() {
        merged.stop_signal.clone_from(&image.stop_signal);
    }
    if !merged.stop_signal.is_empty() {
        crate::signal::parse(&merged.stop_signal)?;
    }
    if merged.shell.is_empty() {
        merged.shell.clone_from(&image.shell);
    }
    merged.healthcheck = health(request.healthcheck.as_ref(), image.healthcheck.as_ref())?;
    merged.healthcheck.as_ref().map_or(Ok(()), check_health)?;
    hostname(&merged.hostname, id)?;
    Ok(merged)
}

fn reserved(label: &str) -> bool {
    ["io.rcontainerd.", "containerd.io/", "io.containerd.", "io.kubernetes."].iter().any(|prefix| label.starts_with(prefix))
}

/// The request's variables, then the image's that it does not name; a bare `NAME` keeps the image's out (as dockerd orders them).
fn env(request: &[String], image: &[String]) -> Result<Vec<String>> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    if let Some(bad) = request.iter().find(|entry| name(entry).is_empty() || entry.contains('\0')) {
        return Err(Error::invalid(format!("invalid environment variable: {bad}")));
    }
    let inherited = image.iter().filter(|entry| !request.iter().any(|own| name(own) == name(entry)));
    Ok(request.iter().chain(inherited).cloned().collect())
}

/// An entrypoint of the client's own drops the image's command; an empty one (`--entrypoint ""`) drops the image's entrypoint too.
fn command(merged: &mut Config, image: &ImageConfig) {
    let non_empty = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
    match &merged.entrypoint {
        None => {
            if merged.cmd.as_ref().is_none_or(Vec::is_empty) {
                merged.cmd = non_empty(&image.cmd);
            }
            merged.entrypoint = non_empty(&image.entrypoint);
        }
        Some(words) if words.is_empty() || (words.len() == 1 && words[0].is_empty()) => merged.entrypoint = None,
        Some(_) => {}
    }
}

fn health(request: Option<&HealthCheck>, image: Option<&Healthcheck>) -> Result<Option<HealthCheck>> {
    let Some(image) = image.filter(|health| !health.test.is_empty()) else {
        return Ok(request.cloned());
    };
    let mut merged = request.cloned().unwrap_or_default();
    let fill = |field: &mut i64, value: i64| {
        if *field == 0 {
            *field = value;
        }
    };
    if merged.test.is_empty() {
        merged.test.clone_from(&image.test);
    }
    fill(&mut merged.interval, image.interval);
    fill(&mut merged.timeout, image.timeout);
    fill(&mut merged.start_period, image.start_period);
    fill(&mut merged.start_interval, image.start_interval);
    fill(&mut merged.retries, image.retries);
    Ok(Some(merged))
}

/// Zero is the default, and a time too short to be meant is most often a number in the wrong unit.
fn check_health(check: &HealthCheck) -> Result<()> {
    const MILLISECOND: i64 = 1_000_000;
    let times = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ];
    if let Some((name, _)) = times.iter().find(|(_, time)| *time != 0 && *time < MILLISECOND) {
        return Err(Error::invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
    }
    if check.retries < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    Ok(())
}

fn hostname(name: &str, id: &str) -> Result<()> {
    let well_formed = name.len() <= 63 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) && !name.starts_with('-');
    if well_formed {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "invalid hostname {name:?} for container {}: expected letters, digits and '-', at most 63 bytes",
        &id[..12]
    )))
}
