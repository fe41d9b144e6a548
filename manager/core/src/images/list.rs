//! Reading: inspect, list with filters, history.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rcontainerd_store::Store;
use rcontainerd_types::{Digest, Reference, Result};

use super::catalog::{Catalog, Entry};
use super::document;
use super::model::{HistoryLine, Image, ImageFilters};

/// All that is known of one image.
pub(super) fn image(store: &Store, namespace: &str, catalog: &Catalog, id: &Digest) -> Result<Image> {
    let row = catalog.row(id)?;
    let file = document::read_config(&store.content(namespace), id)?;
    let references = catalog.references_of(id);
    let repo_tags = references.iter().filter(|reference| reference.digest().is_none()).cloned().collect();
    let last_tagged = catalog.entries_of(id).map(|entry| entry.row.tagged).max();
    Ok(Image {
        id: id.clone(),
        manifest: row.manifest.digest.clone(),
        repo_tags,
        repo_digests: repo_digests(catalog, id),
        created: file.created.as_deref().and_then(seconds),
        created_text: file.created.clone().unwrap_or_default(),
        size: row.size(),
        platform: file.platform(),
        last_tagged: last_tagged.map(|time| time.to_string()),
        file,
    })
}

/// `repo@digest` for every repository that serves the image.
fn repo_digests(catalog: &Catalog, id: &Digest) -> Vec<Reference> {
    let served = |entry: &Entry| {
        let reference = entry.reference.as_ref().filter(|reference| entry.row.pulled || reference.digest().is_some())?;
        Some(reference.with_digest(entry.row.target.clone()))
    };
    catalog.entries_of(id).filter_map(served).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Seconds since the epoch of an RFC 3339 date.
fn seconds(date: &str) -> Option<i64> {
    date.parse::<Timestamp>().ok().map(Timestamp::as_second)
}

pub(super) fn list(store: &Store, namespace: &str, filters: &ImageFilters) -> Result<Vec<Image>> {
    let catalog = Catalog::read(store, namespace)?;
    let created = |name: &Option<String>| -> Result<Option<i64>> {
        let Some(name) = name else { return Ok(None) };
        let (id, _) = catalog.resolve(name)?;
        Ok(Some(image(store, namespace, &catalog, &id)?.created.unwrap_or(0)))
    };
    let (before, since) = (created(&filters.before)?, created(&filters.since)?);
    let mut images = Vec::new();
    for id in catalog.images.keys() {
        let mut found = image(store, namespace, &catalog, id)?;
        let date = found.created.unwrap_or(0);
        let dated = before.is_none_or(|before| date < before)
            && since.is_none_or(|since| date > since)
            && filters.until.is_none_or(|until| date < until);
        if dated && passes(&mut found, filters) {
            images.push(found);
        }
    }
    images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
    Ok(images)
}

/// Whether the image passes the filters that look at it alone; a reference filter also narrows its names.
fn passes(image: &mut Image, filters: &ImageFilters) -> bool {
    let is_dangling = image.repo_tags.is_empty() && image.repo_digests.is_empty();
    if filters.dangling.is_some_and(|wanted| wanted != is_dangling) {
        return false;
    }
    let labels = &image.file.config.labels;
    let has = |(key, value): &(String, Option<String>)| labels.get(key).is_some_and(|found| value.as_ref().is_none_or(|v| v == found));
    if !filters.labels.iter().all(has) {
        return false;
    }
    if filters.references.is_empty() {
        return true;
    }
    let matches = |reference: &Reference| filters.references.iter().any(|pattern| reference_matches(pattern, reference));
    image.repo_tags.retain(matches);
    image.repo_digests.retain(matches);
    !image.repo_tags.is_empty() || !image.repo_digests.is_empty()
}

/// As Docker's: the pattern is held against the familiar name, with and without its tag.
fn reference_matches(pattern: &str, reference: &Reference) -> bool {
    glob(pattern.as_bytes(), reference.familiar().as_bytes()) || glob(pattern.as_bytes(), reference.familiar_name().as_bytes())
}

/// Go's path.Match without character classes' escapes: `*` and `?` stop at a slash, `[a-z]` and `[^a-z]` are classes.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), next) => glob(&pattern[1..], text) || (next.is_some_and(|c| *c != b'/') && glob(pattern, &text[1..])),
        (Some(b'?'), Some(c)) if *c != b'/' => glob(&pattern[1..], &text[1..]),
        (Some(b'['), Some(c)) => match class(&pattern[1..], *c) {
            Some((true, rest)) => glob(rest, &text[1..]),
            _ => false,
        },
        (Some(b'\\'), Some(c)) if pattern.get(1) == Some(c) => glob(&pattern[2..], &text[1..]),
        (Some(p), Some(c)) if p == c => glob(&pattern[1..], &text[1..]),
        _ => false,
    }
}

/// Whether `c` is in the class that begins after `[`, and what follows it; `None` for an unclosed one.
fn class(pattern: &[u8], c: u8) -> Option<(bool, &[u8])> {
    let end = pattern.iter().skip(1).position(|byte| *byte == b']')? + 1;
    let (members, rest) = (&pattern[..end], &pattern[end + 1..]);
    let (negated, members) = match members.strip_prefix(b"^") {
        Some(members) => (true, members),
        None => (false, members),
    };
    let mut found = false;
    let mut at = 0;
    while at < members.len() {
        let is_range = members.get(at + 1) == Some(&b'-') && at + 2 < members.len();
        let last = if is_range { members[at + 2] } else { members[at] };
        found |= (members[at]..=last).contains(&c);
        at += if is_range { 3 } else { 1 };
    }
    Some((found != negated, rest))
}

/// The image's history, newest first; layers are matched to the lines that made one.
pub(super) fn history(image: &Image, layer_sizes: &[u64]) -> Vec<HistoryLine> {
    let mut sizes = layer_sizes.iter().copied();
    let mut lines: Vec<HistoryLine> = image
        .file
        .history
        .iter()
        .map(|entry| HistoryLine {
            id: None,
            created: entry.created.as_deref().and_then(seconds),
            created_by: entry.created_by.clone(),
            comment: entry.comment.clone(),
            size: if entry.empty_layer { 0 } else { sizes.next().unwrap_or(0) },
            tags: Vec::new(),
        })
        .collect();
    // Layers that the history does not tell of are still layers.
    let untold = sizes.map(|size| HistoryLine {
        id: None,
        created: image.created,
        created_by: String::new(),
        comment: String::new(),
        size,
        tags: Vec::new(),
    });
    lines.extend(untold);
    lines.reverse();
    if let Some(newest) = lines.first_mut() {
        newest.id = Some(image.id.clone());
        newest.tags.clone_from(&image.repo_tags);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_stop_at_slashes_as_gos_do() {
        for (pattern, text, expected) in [
            ("busy*", "busybox", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("*:latest", "busybox:latest", true),
            ("b?sybox", "busybox", true),
            ("b[a-u]sybox", "busybox", true),
            ("b[^a-u]sybox", "busybox", false),
            ("b[", "bx", false),
            ("", "", true),
            ("***x", "aaaax", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
