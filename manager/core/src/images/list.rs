//! Reading: inspect, list with filters, history.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use rcontainerd_store::Store;
use rcontainerd_types::{Digest, Error, Reference, Result};

use super::catalog::{Brief, Catalog, Entry, ImageRow};
use super::config::ImageFile;
use super::document;
use super::model::{HistoryLine, Image, ImageFilters, ListedImage};
use super::state::State;

/// All that is known of one image.
pub(super) fn image(store: &Store, namespace: &str, catalog: &Catalog, id: &Digest) -> Result<Image> {
    image_of(store, namespace, catalog, id, catalog.row(id)?)
}

/// As [`image`], by a row that need not be in the catalogue.
pub(super) fn image_of(store: &Store, namespace: &str, catalog: &Catalog, id: &Digest, row: &ImageRow) -> Result<Image> {
    let file = match &row.artifact {
        Some(_) => ImageFile::default(),
        None => document::read_config(&store.content(namespace), id)?,
    };
    let last_tagged = catalog.entries_of(id).map(|entry| entry.row.tagged).max();
    Ok(Image {
        id: id.clone(),
        manifest: row.manifest.digest.clone(),
        parent: row.parent.clone().filter(|parent| catalog.image(parent).is_some()),
        repo_tags: repo_tags(catalog, id),
        repo_digests: repo_digests(catalog, id),
        created: file.created.as_deref().and_then(seconds),
        created_text: file.created.clone().unwrap_or_default(),
        size: row.size(),
        platform: file.platform(),
        artifact: row.artifact.as_ref().map(|artifact| artifact.kind.clone()),
        last_tagged: last_tagged.map(|time| time.to_string()),
        file,
    })
}

/// What an image was made from here, one by one.
pub(super) fn parents(store: &Store, namespace: &str, catalog: &Catalog, image: &Image) -> Result<Vec<Image>> {
    let mut found: Vec<Image> = Vec::new();
    let mut next = image.parent.clone();
    while let Some(id) = next.filter(|id| found.iter().all(|known| known.id != *id)) {
        let parent = self::image(store, namespace, catalog, &id)?;
        next = parent.parent.clone();
        found.push(parent);
    }
    Ok(found)
}

fn repo_tags(catalog: &Catalog, id: &Digest) -> Vec<Reference> {
    let mut references = catalog.references_of(id);
    references.retain(|reference| reference.digest().is_none());
    references
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

/// Images that pass filters, newest first. Each is described when its turn comes: of ten thousand there is never more than one.
pub struct Listing {
    catalog: Arc<Catalog>,
    filters: ImageFilters,
    chosen: std::vec::IntoIter<Chosen>,
}

struct Chosen {
    id: Digest,
    row: Arc<ImageRow>,
    created: Option<i64>,
    /// Of the config, where an earlier version made the row.
    read: Option<Brief>,
}

impl Iterator for Listing {
    type Item = ListedImage;

    fn next(&mut self) -> Option<ListedImage> {
        let Chosen { id, row, read, .. } = self.chosen.next()?;
        let mut image = listed(&self.catalog, &id, &row, read.as_ref());
        narrow(&mut image, &self.filters);
        Some(image)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.chosen.size_hint()
    }
}

impl ExactSizeIterator for Listing {}

pub(super) fn list(state: &State, namespace: &str, filters: ImageFilters) -> Result<Listing> {
    filters.references.iter().try_for_each(|pattern| check_pattern(pattern.as_bytes()))?;
    let catalog = state.catalog(namespace)?;
    let created = |name: &Option<String>| -> Result<Option<i64>> {
        let Some(name) = name else { return Ok(None) };
        let (id, _) = catalog.resolve(name)?;
        Ok(Some(image(&state.store, namespace, &catalog, &id)?.created.unwrap_or(0)))
    };
    let (before, since) = (created(&filters.before)?, created(&filters.since)?);
    let asks_more = filters.dangling.is_some() || !filters.labels.is_empty() || !filters.references.is_empty();
    let mut chosen = Vec::new();
    for (id, row) in catalog.shared_images() {
        let read = match &row.brief {
            None if row.artifact.is_none() => Some(brief(&document::read_config(&state.store.content(namespace), id)?)),
            _ => None,
        };
        let created = read.as_ref().or(row.brief.as_ref()).and_then(|brief| brief.created);
        let date = created.unwrap_or(0);
        let dated = before.is_none_or(|before| date < before)
            && since.is_none_or(|since| date > since)
            && filters.until.is_none_or(|until| date < until);
        if dated && (!asks_more || passes(&mut listed(&catalog, id, row, read.as_ref()), &filters)) {
            chosen.push(Chosen { id: id.clone(), row: Arc::clone(row), created, read });
        }
    }
    // By id they are already.
    chosen.sort_by_key(|chosen| std::cmp::Reverse(chosen.created));
    Ok(Listing { catalog, filters, chosen: chosen.into_iter() })
}

/// What a list tells of an image.
fn listed(catalog: &Catalog, id: &Digest, row: &ImageRow, read: Option<&Brief>) -> ListedImage {
    let brief = read.or(row.brief.as_ref()).cloned().unwrap_or_default();
    ListedImage {
        id: id.clone(),
        parent: row.parent.clone().filter(|parent| catalog.image(parent).is_some()),
        repo_tags: repo_tags(catalog, id),
        repo_digests: repo_digests(catalog, id),
        created: brief.created,
        size: row.size(),
        labels: brief.labels,
    }
}

pub(super) fn brief(file: &ImageFile) -> Brief {
    Brief { created: file.created.as_deref().and_then(seconds), labels: file.config.labels.clone() }
}

/// Whether the image passes the filters that look at it alone; a reference filter also narrows its names.
fn passes(image: &mut ListedImage, filters: &ImageFilters) -> bool {
    let is_dangling = image.repo_tags.is_empty() && image.repo_digests.is_empty();
    if filters.dangling.is_some_and(|wanted| wanted != is_dangling) {
        return false;
    }
    let labels = &image.labels;
    let has = |(key, value): &(String, Option<String>)| labels.get(key).is_some_and(|found| value.as_ref().is_none_or(|v| v == found));
    if !filters.labels.iter().all(has) {
        return false;
    }
    narrow(image, filters);
    filters.references.is_empty() || !image.repo_tags.is_empty() || !image.repo_digests.is_empty()
}

/// A reference filter leaves the names that it means.
fn narrow(image: &mut ListedImage, filters: &ImageFilters) {
    if filters.references.is_empty() {
        return;
    }
    let matches = |reference: &Reference| filters.references.iter().any(|pattern| reference_matches(pattern, reference));
    image.repo_tags.retain(matches);
    image.repo_digests.retain(matches);
}

/// As Docker's: the pattern is held against the familiar name, with and without its tag.
fn reference_matches(pattern: &str, reference: &Reference) -> bool {
    glob(pattern.as_bytes(), reference.familiar().as_bytes()) || glob(pattern.as_bytes(), reference.familiar_name().as_bytes())
}

/// # Errors
/// In Docker's words, for what Go's path.Match takes for no pattern: a class that is not closed or empty, a backslash at the end.
fn check_pattern(pattern: &[u8]) -> Result<()> {
    let bad = || Error::invalid("syntax error in pattern");
    match pattern {
        [] => Ok(()),
        [b'\\'] => Err(bad()),
        [b'\\', _, rest @ ..] => check_pattern(rest),
        [b'[', rest @ ..] => check_pattern(class(rest, 0).ok_or_else(bad)?.1),
        [_, rest @ ..] => check_pattern(rest),
    }
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

/// The image's history, newest first; layers are matched to the lines that made one. A line with which one of `parents` ends has its id.
pub(super) fn history(image: &Image, layer_sizes: &[u64], parents: &[Image]) -> Vec<HistoryLine> {
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
    for parent in parents {
        let last = parent.file.history.len().checked_sub(1).filter(|last| *last < lines.len());
        if let Some(line) = last.map(|last| &mut lines[last]) {
            line.id = Some(parent.id.clone());
            line.tags.clone_from(&parent.repo_tags);
        }
    }
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
    fn what_is_no_pattern_is_told() {
        for good in ["", "a*", "b[a-u]?", "\\[", "[^a]/*"] {
            assert!(check_pattern(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in ["[", "a[b", "x\\", "[a]["] {
            assert_eq!(check_pattern(bad.as_bytes()).expect_err(bad).message(), "syntax error in pattern");
        }
    }

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
