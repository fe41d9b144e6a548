//! containerd-shim-rrun-v2: keeps one container (its streams, logs, console, exit status) while managers come and go.
//!
//! ```text
//! start  ── makes the socket, starts `serve` with it, prints its address, ends
//! serve  ── one thread, one epoll: ttrpc requests, the runtime's ends, streams, events
//! delete ── cleans up after a shim that died
//! pause  ── inside a sandbox that has no program of its own: sleeps, so that its namespaces last
//! ```

mod args;
mod binary;
mod bootstrap;
mod cgroup;
mod connection;
mod create;
mod delete;
mod disk;
mod events;
mod group;
mod io;
mod jobs;
mod journal;
mod lifecycle;
mod metrics;
mod mounts;
mod options;
mod pause;
mod pod;
mod poller;
mod query;
mod runtime;
mod sandbox;
mod serve;
mod server;
mod service;
mod task;
mod wiring;

use args::{Action, Args};
use prost::{Message, Name};

fn main() -> std::process::ExitCode {
    let args = match args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(err) => return fail(&err),
    };
    match act(&args) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(err) => fail(&err),
    }
}

fn act(args: &Args) -> anyhow::Result<()> {
    match args.action {
        Action::Version => bootstrap::version(),
        Action::Info => bootstrap::info(),
        Action::Pause => pause::pause(),
        Action::Start => bootstrap::start(args),
        Action::Delete => delete::delete(args),
        Action::Serve => serve::serve(args),
    }
}

fn fail(err: &anyhow::Error) -> std::process::ExitCode {
    eprintln!("containerd-shim-rrun-v2: {err:#}");
    std::process::ExitCode::FAILURE
}

/// A message as containerd's `Any`: the type URL is the bare name.
fn any<M: Message + Name>(message: &M) -> prost_types::Any {
    prost_types::Any { type_url: M::full_name(), value: message.encode_to_vec() }
}
