//! Structured logs on standard error: lines for people, or a JSON object each.

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

/// Installs the logger; `level` is a level or a filter (`info,rcontainerd_core=debug`).
pub fn install(level: &str, format: LogFormat) -> Result<()> {
    let filter =
        EnvFilter::try_new(level).with_context(|| format!("log level {level:?}: expected error, warn, info, debug, trace or a filter"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
