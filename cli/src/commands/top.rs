//! `top`.

use proto_docker::container::TopResponse;

use crate::cli::Cli;
use crate::client::path_segment;
use crate::cmdline::{Args, Command, Matches, Outcome, leaf};
use crate::output::{self, table};

pub static COMMAND: Command = Command {
    usage: "CONTAINER [ps OPTIONS]",
    about: "Display the running processes of a container",
    names: &["container top", "top"],
    args: Args::AtLeast(1),
    interspersed: false,
    ..leaf(|cli, matches| Box::pin(go(cli, matches)))
};

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let options = matches.args[1..].join(" ");
    let call = cli.client()?.get(format!("/containers/{}/top", path_segment(matches.arg(0))));
    let top: TopResponse = call.query_set("ps_args", options).fetch().await?;
    let mut text = format!("{}\n", top.titles.join("\t"));
    for process in &top.processes {
        text.push_str(&process.join("\t"));
        text.push('\n');
    }
    output::print(&table::align_with(&text, 20, 3))
}
