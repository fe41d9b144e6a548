//! A client's configuration that loses no time.

use std::time::Duration;

use crate::{Limits, RegistryConfig};

/// Short pauses and timeouts, no files of the host, no ranges.
pub fn quick() -> RegistryConfig {
    let limits = Limits {
        stall_timeout: Duration::from_millis(300),
        answer_timeout: Duration::from_secs(2),
        attempts: 3,
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(20),
        ranges: 1,
        ..Limits::default()
    };
    RegistryConfig { host_dirs: Vec::new(), limits, ..RegistryConfig::default() }
}
