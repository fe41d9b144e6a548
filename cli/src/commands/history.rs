//! `history`.

use proto_docker::image::HistoryItem;

use super::common::{format_flag, print_rows};
use crate::cli::Cli;
use crate::client::path_segment;
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, leaf, string, switch};
use crate::output::template::{Columns, Row};
use crate::output::units;

static FLAGS: &[Flag] = &[
    format_flag(),
    switch("human", "H", "Print sizes and dates for people").default("true"),
    switch("no-trunc", "", "Don't truncate output"),
    switch("quiet", "q", "Only show image IDs"),
    string("platform", "", "Show that platform of the image (os/arch[/variant])"),
];

pub static COMMAND: Command = Command {
    usage: "[OPTIONS] IMAGE",
    about: "Show the history of an image",
    names: &["image history", "history"],
    flags: &[FLAGS],
    args: Args::Exactly(1),
    ..leaf(|cli, matches| Box::pin(go(cli, matches)))
};

const HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];
const HUMAN: &str = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const EXACT: &str = "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let call = cli.client()?.get(format!("/images/{}/history", path_segment(matches.arg(0))));
    let items: Vec<HistoryItem> = call.query_set("platform", super::common::platform(matches.str("platform"))?).fetch().await?;
    let human = matches.bool_or("human", true);
    let truncate = !matches.bool("no-trunc");
    let rows = items.iter().map(|item| row(item, human, truncate)).collect();
    let columns =
        Columns { table: if human { HUMAN } else { EXACT }, quiet: "{{.ID}}", headers: HEADERS, type_name: "image.historyContext" };
    print_rows(cli, matches, "historyFormat", &columns, rows)
}

fn row(item: &HistoryItem, human: bool, truncate: bool) -> Row {
    let by = item.created_by.replace('\t', " ");
    let since = if item.created <= 0 && human {
        "N/A".to_owned()
    } else if human {
        units::ago(item.created)
    } else {
        units::local_rfc3339(item.created)
    };
    Row::new()
        .set("ID", if truncate { units::short_id(&item.id) } else { item.id.clone() })
        .set("CreatedSince", since)
        .set("CreatedAt", units::local_rfc3339(item.created))
        .set("CreatedBy", if truncate { units::ellipsis(&by, 45) } else { by })
        .set("Size", if human { units::human_size_with(item.size, 3) } else { item.size.to_string() })
        .set("Comment", item.comment.as_str())
}
