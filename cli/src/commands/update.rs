//! `update`.

use proto_docker::container::{UpdateRequest, UpdateResponse};

use super::common::for_each;
use crate::cli::Cli;
use crate::client::path_segment;
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, check, leaf, string};
use crate::failure::Failure;
use crate::spec::LIMITS;
use crate::spec::resources::parse_restart;

static FLAGS: &[Flag] = &[string("restart", "", "When to restart the container after it exits")];

pub static COMMAND: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Update configuration of one or more containers",
    names: &["container update", "update"],
    flags: &[LIMITS, FLAGS],
    args: Args::AtLeast(1),
    ..leaf(|cli, matches| Box::pin(go(cli, matches)))
};

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    if !COMMAND.all_flags().any(|flag| matches.changed(flag.name)) {
        return Err(Failure::message("you must provide one or more flags when using this command"));
    }
    let client = cli.client()?;
    let request = UpdateRequest {
        cpu_shares: matches.int_or("cpu-shares", 0),
        memory: matches.bytes("memory"),
        nano_cpus: matches.str("cpus").and_then(|text| check::parse_cpus(text).ok()).unwrap_or(0),
        blkio_weight: matches.int("blkio-weight").and_then(|weight| u16::try_from(weight).ok()).unwrap_or(0),
        cpu_period: matches.int_or("cpu-period", 0),
        cpu_quota: matches.int_or("cpu-quota", 0),
        cpu_realtime_period: matches.int_or("cpu-rt-period", 0),
        cpu_realtime_runtime: matches.int_or("cpu-rt-runtime", 0),
        cpuset_cpus: matches.string("cpuset-cpus"),
        cpuset_mems: matches.string("cpuset-mems"),
        memory_reservation: matches.bytes("memory-reservation"),
        memory_swap: matches.bytes("memory-swap"),
        pids_limit: matches.int("pids-limit"),
        restart_policy: parse_restart(matches.str("restart").unwrap_or_default()).map_err(Failure::message)?,
        ..UpdateRequest::default()
    };
    for_each(&matches.args, async |name| {
        let answer: UpdateResponse = client.post(format!("/containers/{}/update", path_segment(name))).json(&request).fetch().await?;
        for warning in answer.warnings.unwrap_or_default() {
            eprintln!("{warning}");
        }
        Ok(Some(name.to_owned()))
    })
    .await
}
