//! `images`, `image ls`.

use proto_docker::image::{ImageSummary, ManifestSummary};
use serde::Deserialize;

use super::common::{filters, format_flag, print_rows_of};
use crate::cli::Cli;
use crate::cmdline::{Args, Command, Flag, Matches, Outcome, Running, filter, leaf, switch};
use crate::failure::Failure;
use crate::output;
use crate::output::template::{Columns, Row, Wanted};
use crate::output::units;

static FLAGS: &[Flag] = &[
    switch("all", "a", "Show intermediate images too"),
    switch("digests", "", "Show digests"),
    filter("f", "Show only what fits the conditions"),
    format_flag(),
    switch("no-trunc", "", "Don't truncate output"),
    switch("quiet", "q", "Only show image IDs"),
    switch("tree", "", "Show the platforms of each image"),
];

pub static COMMAND: Command = Command {
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    about: "List images",
    names: &["image ls", "image list", "images"],
    flags: &[FLAGS],
    args: Args::AtMost(1),
    ..leaf(run)
};

/// Columns of images, also for `system df -v`.
pub const COLUMNS: Columns = Columns { table: PLAIN, quiet: "{{.ID}}", headers: HEADERS, type_name: "formatter.imageContext" };

/// What columns and trees show of an image; the rest of the answer, of ten thousand the labels above all, is stepped over.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Listed {
    containers: i64,
    created: i64,
    id: String,
    #[serde(deserialize_with = "or_none")]
    repo_digests: Vec<String>,
    #[serde(deserialize_with = "or_none")]
    repo_tags: Vec<String>,
    shared_size: i64,
    size: i64,
    manifests: Option<Vec<ManifestSummary>>,
}

/// Go writes an empty list as `null`.
pub(super) fn or_none<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl From<&ImageSummary> for Listed {
    fn from(image: &ImageSummary) -> Self {
        Self {
            containers: image.containers,
            created: image.created,
            id: image.id.clone(),
            repo_digests: image.repo_digests.clone(),
            repo_tags: image.repo_tags.clone(),
            shared_size: image.shared_size,
            size: image.size,
            manifests: image.manifests.clone(),
        }
    }
}

const HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

const PLAIN: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const WITH_DIGEST: &str = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";

fn run<'a>(cli: &'a Cli, matches: &'a Matches) -> Running<'a> {
    Box::pin(show(cli, matches))
}

async fn show(cli: &Cli, matches: &Matches) -> Outcome {
    let mut wanted = matches.list_owned("filter");
    if let Some(reference) = matches.args.first() {
        wanted.push(format!("reference={reference}"));
    }
    let tree = matches.bool("tree");
    if tree {
        let other = ["digests", "format", "no-trunc", "quiet"].into_iter().find(|flag| matches.changed(flag));
        if let Some(other) = other {
            return Err(Failure::message(format!("--{other} is not yet supported with --tree")));
        }
    }
    let call = cli.client()?.get("/images/json").flag("all", matches.bool("all")).flag("manifests", tree);
    let images: Vec<Listed> = call.query_set("filters", filters(&wanted)).fetch().await?;
    if tree {
        return output::print(&trees(&images));
    }
    let digests = matches.bool("digests");
    let truncate = !matches.bool("no-trunc");
    let columns = Columns {
        table: if digests { WITH_DIGEST } else { PLAIN },
        quiet: "{{.ID}}",
        headers: HEADERS,
        type_name: "formatter.imageContext",
    };
    // A table of the user's own gets the digest that he asked for, too.
    let mut matches = matches.clone();
    if let Some(format) = matches
        .str("format")
        .filter(|format| digests && format.starts_with("table") && *format != "table" && !format.contains("{{.Digest}}"))
    {
        let format = format!("{format}\t{{{{.Digest}}}}");
        matches.set("format", format, false);
    }
    print_rows_of(cli, &matches, "imagesFormat", &columns, |wanted| {
        images.iter().flat_map(move |image| rows(image, digests, truncate, &wanted))
    })
}

/// Each name with its platforms below it; statements about images are left out.
fn trees(images: &[Listed]) -> String {
    let mut lines = vec!["IMAGE\tID\tDISK USAGE\tCONTENT SIZE".to_owned()];
    let size = |bytes: i64| units::human_size_with(bytes, 3);
    for image in images {
        let manifests = image.manifests.as_deref().unwrap_or_default();
        let shown: Vec<_> = manifests.iter().filter_map(|manifest| Some((manifest, manifest.image_data.as_ref()?))).collect();
        let content = manifests.iter().map(|manifest| manifest.size.content).sum();
        let names = if image.repo_tags.is_empty() { &[format!("{NONE}:{NONE}")] } else { image.repo_tags.as_slice() };
        for name in names {
            let id = units::short_id(&image.id);
            lines.push(format!("{name}\t{id}\t{}\t{}", size(manifests.iter().map(|manifest| manifest.size.total).sum()), size(content)));
            for (n, (manifest, data)) in shown.iter().enumerate() {
                let branch = if n + 1 == shown.len() { "└─" } else { "├─" };
                let platform = [data.platform.os.as_str(), &data.platform.architecture, &data.platform.variant];
                let platform = platform.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
                let here = |bytes: i64| if manifest.available { size(bytes) } else { "-".to_owned() };
                let id = units::short_id(&manifest.id);
                lines.push(format!("{branch} {platform}\t{id}\t{}\t{}", here(manifest.size.total), here(manifest.size.content)));
            }
        }
    }
    output::table::align(&(lines.join("\n") + "\n"))
}

const NONE: &str = "<none>";

/// A row for each tag; for an image without one, a row for what else names it.
pub fn rows(image: &Listed, digests: bool, truncate: bool, wanted: &Wanted) -> Vec<Row> {
    names(image, digests).into_iter().map(|names| row(image, names, truncate, wanted)).collect()
}

/// Repository, tag and digest of each row.
fn names(image: &Listed, digests: bool) -> Vec<(String, String, String)> {
    let tags: Vec<(&str, &str)> =
        image.repo_tags.iter().filter(|tag| *tag != "<none>:<none>").filter_map(|tag| tag.rsplit_once(':')).collect();
    let found: Vec<(&str, &str)> = image.repo_digests.iter().filter(|d| *d != "<none>@<none>").filter_map(|d| d.split_once('@')).collect();
    let mut out = Vec::new();
    for (repository, tag) in &tags {
        let own: Vec<&str> = found.iter().filter(|(name, _)| digests && name == repository).map(|(_, digest)| *digest).collect();
        let own = if own.is_empty() { vec![NONE] } else { own };
        out.extend(own.into_iter().map(|digest| ((*repository).to_owned(), (*tag).to_owned(), digest.to_owned())));
    }
    let mut last = "";
    for (repository, digest) in found.iter().filter(|(name, _)| !tags.iter().any(|(tagged, _)| tagged == name)) {
        if digests || last != *repository {
            out.push(((*repository).to_owned(), NONE.to_owned(), if digests { (*digest).to_owned() } else { NONE.to_owned() }));
        }
        last = repository;
    }
    if out.is_empty() {
        out.push((NONE.to_owned(), NONE.to_owned(), NONE.to_owned()));
    }
    out
}

fn row(image: &Listed, (repository, tag, digest): (String, String, String), truncate: bool, wanted: &Wanted) -> Row {
    let counted = |n: i64| if n == -1 { "N/A".to_owned() } else { units::human_size(n) };
    let unique = if image.shared_size == -1 { -1 } else { image.size - image.shared_size };
    Row::new()
        .set_if(wanted, "ID", || if truncate { units::short_id(&image.id) } else { image.id.clone() })
        .set_if(wanted, "Repository", || repository)
        .set_if(wanted, "Tag", || tag)
        .set_if(wanted, "Digest", || digest)
        .set_if(wanted, "CreatedSince", || units::ago(image.created))
        .set_if(wanted, "CreatedAt", || units::local_time(image.created))
        .set_if(wanted, "Size", || units::human_size_with(image.size, 3))
        .set_if(wanted, "VirtualSize", || units::human_size(image.size))
        .set_if(wanted, "Containers", || if image.containers == -1 { "N/A".to_owned() } else { image.containers.to_string() })
        .set_if(wanted, "SharedSize", || counted(image.shared_size))
        .set_if(wanted, "UniqueSize", || counted(unique))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_a_part_of_the_answer() {
        let answer = serde_json::json!({
            "Containers": -1, "Created": 1, "Id": "sha256:2", "Labels": {"k": "v"}, "ParentId": "", "RepoDigests": null, "RepoTags": ["a:1"],
            "SharedSize": -1, "Size": 5
        });
        let listed: Listed = serde_json::from_value(answer.clone()).expect("an answer");
        let whole: ImageSummary = serde_json::from_value(answer).expect("an answer");
        for one in [listed, Listed::from(&whole)] {
            assert_eq!((one.containers, one.created, one.id.as_str(), one.shared_size, one.size), (-1, 1, "sha256:2", -1, 5));
            assert_eq!((one.repo_tags.as_slice(), one.repo_digests.len(), one.manifests.is_none()), (&["a:1".to_owned()][..], 0, true));
        }
    }

    #[test]
    fn rows_by_tag_and_digest() {
        let image = |tags: &[&str], digests: &[&str]| Listed {
            repo_tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            repo_digests: digests.iter().map(|t| (*t).to_owned()).collect(),
            ..Listed::default()
        };
        let shown = |image: &Listed, digests| names(image, digests).iter().map(|(r, t, d)| format!("{r} {t} {d}")).collect::<Vec<_>>();
        assert_eq!(shown(&image(&["a:1", "r:5000/b:2"], &["a@sha256:x"]), false), ["a 1 <none>", "r:5000/b 2 <none>"]);
        assert_eq!(shown(&image(&["a:1", "b:2"], &["a@sha256:x"]), true), ["a 1 sha256:x", "b 2 <none>"]);
        assert_eq!(shown(&image(&[], &["a@sha256:x"]), false), ["a <none> <none>"]);
        assert_eq!(shown(&image(&["<none>:<none>"], &["<none>@<none>"]), true), ["<none> <none> <none>"]);
    }
}
