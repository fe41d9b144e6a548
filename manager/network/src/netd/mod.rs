//! `rcontainerd netd`: the process that serves names to containers, and lives on while the manager is replaced.
//!
//! ```text
//! manager ── STATE/netd.sock ── netd ── sockets in the containers' network namespaces
//!   one line of JSON per request, one per answer, in order; the first request of a connection is Sync
//! ```
//! netd keeps nothing on disk: whoever connects tells all that is to be served, and what is not named is dropped. It ends when the
//! manager is gone and no container is served.

mod client;
mod server;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use client::Netd;
pub use server::run;

use crate::dns::{Endpoint, View};

/// What the manager asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Request {
    /// All that there is.
    Sync {
        serve: Vec<Serve>,
        endpoints: Vec<Endpoint>,
    },
    Serve(Serve),
    Stop {
        container: String,
    },
    Join(Endpoint),
    Leave {
        network: String,
        container: String,
    },
}

/// A namespace whose programs ask at 127.0.0.11.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serve {
    pub container: String,
    pub netns: PathBuf,
    pub view: View,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}
