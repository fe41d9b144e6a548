//! `search`.

use proto_docker::image::SearchResult;

use super::common::{filters, print_rows};
use crate::cli::Cli;
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, filter, int, leaf, string, switch};
use crate::config::credentials;
use crate::output::template::{Columns, Row};
use crate::output::units;

static FLAGS: &[Flag] = &[
    filter("f", "Show only what fits the conditions"),
    string("format", "", "Format the output by a Go template"),
    int("limit", "", "Number of results"),
    switch("no-trunc", "", "Don't truncate output"),
];

pub static COMMAND: Command = Command {
    usage: "[OPTIONS] TERM",
    about: "Search a registry for images",
    flags: &[FLAGS],
    args: Args::Exactly(1),
    ..leaf(|cli, matches| Box::pin(go(cli, matches)))
};

const COLUMNS: Columns = Columns {
    table: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
    quiet: "{{.Name}}",
    headers: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
        ("IsAutomated", "AUTOMATED"),
    ],
    type_name: "registry.searchContext",
};

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let term = matches.arg(0);
    let domain = match term.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    };
    let auth = credentials::lookup(cli.config(), credentials::server_key(domain));
    let results: Vec<SearchResult> = cli
        .client()?
        .get("/images/search")
        .query("term", term)
        .query_set("limit", matches.int("limit").map(|n| n.to_string()).unwrap_or_default())
        .query_set("filters", filters(matches.list("filter")))
        .header("x-registry-auth", credentials::header(&auth))
        .fetch()
        .await?;
    let truncate = !matches.bool("no-trunc");
    let ok = |yes: bool| if yes { "[OK]" } else { "" };
    let row = |result: &SearchResult| {
        let description = result.description.replace(['\n', '\r'], " ");
        Row::new()
            .set("Name", result.name.as_str())
            .set("Description", if truncate { units::ellipsis(&description, 45) } else { description })
            .set("StarCount", result.star_count.to_string())
            .set("IsOfficial", ok(result.is_official))
            .set("IsAutomated", ok(result.is_automated))
    };
    print_rows(cli, matches, "searchFormat", &COLUMNS, results.iter().map(row).collect())
}
