//! `diff`.

use proto_docker::container::Change;

use crate::cli::Cli;
use crate::client::path_segment;
use crate::cmdline::{Args, Command, Matches, Outcome, leaf};
use crate::output::template::{Columns, Row};

pub static COMMAND: Command = Command {
    usage: "CONTAINER",
    about: "Inspect changes to files or directories on a container's filesystem",
    names: &["container diff", "diff"],
    args: Args::Exactly(1),
    ..leaf(|cli, matches| Box::pin(go(cli, matches)))
};

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let changes: Option<Vec<Change>> = cli.client()?.get(format!("/containers/{}/changes", path_segment(matches.arg(0)))).fetch().await?;
    let kind = |kind| match kind {
        0 => "C",
        1 => "A",
        _ => "D",
    };
    let rows: Vec<_> = changes
        .unwrap_or_default()
        .iter()
        .map(|change| Row::new().set("Type", kind(change.kind)).set("Path", change.path.as_str()))
        .collect();
    let columns = Columns { table: "{{.Type}} {{.Path}}", quiet: "", headers: &[], type_name: "container.diffContext" };
    let format = crate::output::template::Format { source: Some("{{.Type}} {{.Path}}"), quiet: false };
    crate::output::print(&crate::output::template::render(&format, &columns, rows)?)
}
