//! Structured logs on standard error: lines for people, or a JSON object each.

use anyhow::{Context, Result};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::args::LogFormat;

/// Changes what is logged while the manager runs.
pub struct Log(reload::Handle<EnvFilter, Registry>);

impl Log {
    /// # Errors
    /// For a level that is none; the one in force stays.
    pub fn set_level(&self, level: &str) -> Result<()> {
        self.0.reload(filter(level)?).context("change the log level")
    }
}

/// Installs the logger; `level` is a level or a filter (`info,rcontainerd_core=debug`).
pub fn install(level: &str, format: LogFormat) -> Result<Log> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    Ok(Log(handle))
}

fn filter(level: &str) -> Result<EnvFilter> {
    EnvFilter::try_new(level).with_context(|| format!("log level {level:?}: expected error, warn, info, debug, trace or a filter"))
}
