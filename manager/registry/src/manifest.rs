//! Manifests and indexes, Docker's schema 2 and OCI's (image-spec, "manifest", "image-index"), read with limits.
//!
//! A document that could be read both as an index and as a manifest is refused, as is one whose own media type contradicts the one it
//! was sent under (CVE-2021-41190): all parties must see the same thing under one digest.

use rcontainerd_types::{Descriptor, Error, ErrorKind, Platform, Result, media_type};
use serde::Deserialize;

/// Largest document that we read, in bytes (the distribution spec's recommendation).
pub const MANIFEST_MAX: usize = 4 << 20;
/// Most layers of an image; overlayfs stacks 500.
pub const LAYERS_MAX: usize = 500;
/// Most entries of an index.
const ENTRIES_MAX: usize = 4096;
/// How deep an index may lead to further indexes.
pub const INDEX_DEPTH_MAX: usize = 4;
/// What is of such a type is meant as a layer, known or not.
const LAYER_FAMILIES: [&str; 2] = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];
/// What an index calls manifests that are not images but statements about them.
const ATTESTATION: &str = "vnd.docker.reference.type";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    Index(Index),
    Manifest(Manifest),
    Artifact(Artifact),
}

/// A manifest that is no image (image-spec 1.1, "Guidelines for Artifact Usage"): to be carried whole, not to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// `artifactType`, or the type of its config.
    pub kind: String,
    pub config: Descriptor,
    pub blobs: Vec<Descriptor>,
}

/// One manifest per platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    pub manifests: Vec<Descriptor>,
}

/// One image: its config and its layers, lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u32>,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    artifact_type: Option<String>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// Reads a document; `sent_as` is the media type that the registry or the descriptor gave. Also gives the type that it is.
///
/// # Errors
/// `InvalidArgument` for what is malformed, ambiguous or too large, `Unsupported` for schema 1 and for images with foreign layers.
pub fn parse(sent_as: Option<&str>, bytes: &[u8]) -> Result<(String, Document)> {
    if bytes.len() > MANIFEST_MAX {
        return Err(invalid(&format!("{} bytes are more than the {MANIFEST_MAX} allowed", bytes.len())));
    }
    let raw: Raw = serde_json::from_slice(bytes).map_err(|err| invalid(&err.to_string()))?;
    if raw.schema_version == Some(1) || (raw.fs_layers.is_some() && raw.layers.is_none() && raw.manifests.is_none()) {
        return Err(Error::unsupported(
            "image manifest has schema version 1, which nobody serves any more: push the image anew with a current tool",
        ));
    }
    if raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some() || raw.fs_layers.is_some()) {
        return Err(invalid("it can be read both as an index and as a manifest"));
    }
    let media_type = agreed_type(sent_as, &raw)?;
    let document = match raw.manifests {
        Some(manifests) => Document::Index(index(manifests)?),
        None => manifest(raw.config, raw.layers, raw.artifact_type)?,
    };
    Ok((media_type, document))
}

/// The document's own type, the one it was sent under, and its shape must agree.
fn agreed_type(sent_as: Option<&str>, raw: &Raw) -> Result<String> {
    let known = |kind: &&str| media_type::is_index(kind) || media_type::is_manifest(kind);
    let sent_as = sent_as.map(|kind| kind.split(';').next().unwrap_or(kind).trim()).filter(known);
    let own = raw.media_type.as_deref();
    if let (Some(sent_as), Some(own)) = (sent_as, own)
        && sent_as != own
    {
        return Err(invalid(&format!("it says that it is {own:?} but was sent as {sent_as:?}")));
    }
    let shape_is_index = raw.manifests.is_some();
    let default = if shape_is_index { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST };
    let media_type = own.or(sent_as).unwrap_or(default);
    let fits = if shape_is_index { media_type::is_index(media_type) } else { media_type::is_manifest(media_type) };
    if fits { Ok(media_type.to_owned()) } else { Err(invalid(&format!("its content does not fit its media type {media_type:?}"))) }
}

fn index(manifests: Vec<Descriptor>) -> Result<Index> {
    if manifests.len() > ENTRIES_MAX {
        return Err(invalid(&format!("an index of {} entries is larger than the {ENTRIES_MAX} allowed", manifests.len())));
    }
    Ok(Index { manifests })
}

fn manifest(config: Option<Descriptor>, layers: Option<Vec<Descriptor>>, kind: Option<String>) -> Result<Document> {
    let config = config.ok_or_else(|| invalid("it has neither config nor manifests"))?;
    let layers = layers.ok_or_else(|| invalid("it has no layers"))?;
    if layers.len() > LAYERS_MAX {
        return Err(invalid(&format!("{} layers are more than the {LAYERS_MAX} allowed", layers.len())));
    }
    if !media_type::is_config(&config.media_type) {
        let kind = kind.unwrap_or_else(|| config.media_type.clone());
        return Ok(Document::Artifact(Artifact { kind, config, blobs: layers }));
    }
    // Signatures and attestations have an image's config for the sake of old registries, and no layer.
    if let Some(first) = layers.first()
        && !layers.iter().any(|layer| LAYER_FAMILIES.iter().any(|family| layer.media_type.starts_with(family)))
    {
        let kind = kind.unwrap_or_else(|| first.media_type.clone());
        return Ok(Document::Artifact(Artifact { kind, config, blobs: layers }));
    }
    for layer in &layers {
        check_layer(layer)?;
    }
    Ok(Document::Manifest(Manifest { config, layers }))
}

fn check_layer(layer: &Descriptor) -> Result<()> {
    let kind = &layer.media_type;
    if kind.contains("foreign") || kind.contains("nondistributable") {
        return Err(Error::unsupported(format!("layer {} is a foreign layer, to be fetched from elsewhere: not supported", layer.digest)));
    }
    if media_type::is_layer(kind) {
        Ok(())
    } else {
        Err(Error::unsupported(format!("layer {} is of the unknown type {kind:?}", layer.digest)))
    }
}

fn invalid(why: &str) -> Error {
    Error::invalid(format!("invalid image manifest: {why}"))
}

impl Index {
    /// The entry for `platform`: the same one, else the nearest that its processors run too (older ARM variants, amd64 levels).
    ///
    /// # Errors
    /// `NotFound`, in Docker's words.
    pub fn choose(&self, platform: &Platform) -> Result<&Descriptor> {
        let images = || self.manifests.iter().filter(|entry| !entry.annotations.contains_key(ATTESTATION));
        let offered = |wanted: &Platform| images().find(|entry| entry.platform.as_ref().is_some_and(|offer| wanted.matches(offer)));
        let single = || match &images().collect::<Vec<_>>()[..] {
            [only] if only.platform.is_none() => Some(*only),
            _ => None,
        };
        acceptable(platform)
            .iter()
            .find_map(offered)
            .or_else(single)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no matching manifest for {platform} in the manifest list entries")))
    }
}

/// `platform` and what else runs on it, best first.
fn acceptable(platform: &Platform) -> Vec<Platform> {
    let variant = |variant: &str| Platform { variant: Some(variant.to_owned()), ..platform.clone() };
    let mut all = vec![platform.clone()];
    match (platform.architecture.as_str(), platform.variant.as_deref()) {
        ("arm", None | Some("v7")) => all.extend([variant("v6"), variant("v5")]),
        ("arm", Some("v6")) => all.push(variant("v5")),
        ("amd64", Some("v4")) => all.extend([variant("v3"), variant("v2"), variant("v1")]),
        ("amd64", Some("v3")) => all.extend([variant("v2"), variant("v1")]),
        ("amd64", Some("v2")) => all.push(variant("v1")),
        _ => {}
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn descriptor(kind: &str) -> Value {
        json!({"mediaType": kind, "digest": format!("sha256:{}", "a".repeat(64)), "size": 3})
    }

    fn image() -> Value {
        json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": descriptor(media_type::OCI_CONFIG), "layers": [descriptor(media_type::OCI_LAYER_GZIP)]})
    }

    fn parsed(sent_as: Option<&str>, document: &Value) -> Result<(String, Document)> {
        parse(sent_as, document.to_string().as_bytes())
    }

    fn refusal(sent_as: Option<&str>, document: &Value) -> String {
        parsed(sent_as, document).map(|_| ()).expect_err("should be refused").message().to_owned()
    }

    #[test]
    fn documents_with_two_meanings_are_refused() {
        let mut both = image();
        both["manifests"] = json!([]);
        assert!(refusal(None, &both).contains("both as an index and as a manifest"));
        assert!(refusal(Some(media_type::OCI_INDEX), &image()).contains("was sent as"));
        let mut untyped = image();
        untyped.as_object_mut().expect("object").remove("mediaType");
        assert!(refusal(Some(media_type::OCI_INDEX), &untyped).contains("does not fit"));
        assert!(parsed(Some("application/json"), &image()).is_ok());
        assert!(parsed(Some(media_type::DOCKER_MANIFEST), &untyped).is_ok());
    }

    #[test]
    fn foreign_layers_artifacts_schema_one_and_bombs_are_refused() {
        let mut foreign = image();
        foreign["layers"][0]["mediaType"] = json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        assert!(refusal(None, &foreign).contains("foreign layer"));
        let mut artifact = image();
        artifact["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
        artifact["layers"][0]["mediaType"] = json!("application/vnd.cncf.helm.chart.content.v1.tar+gzip");
        let kind = |value: &Value| match parse(None, value.to_string().as_bytes()) {
            Ok((_, Document::Artifact(artifact))) => artifact.kind,
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(&artifact), "application/vnd.cncf.helm.config.v1+json");
        let mut signature = image();
        signature["layers"][0]["mediaType"] = json!("application/vnd.dev.cosign.simplesigning.v1+json");
        assert_eq!(kind(&signature), "application/vnd.dev.cosign.simplesigning.v1+json");
        signature["artifactType"] = json!("application/x.mine");
        assert_eq!(kind(&signature), "application/x.mine");
        let mut unknown = image();
        unknown["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+brotli");
        assert!(refusal(None, &unknown).contains("unknown type"));
        assert!(refusal(None, &json!({"schemaVersion": 1, "fsLayers": []})).contains("schema version 1"));
        let mut tall = image();
        tall["layers"] = json!(vec![descriptor(media_type::OCI_LAYER); LAYERS_MAX + 1]);
        assert!(refusal(None, &tall).contains("layers are more"));
        assert!(parse(None, &vec![b' '; MANIFEST_MAX + 1]).is_err());
        assert!(refusal(None, &json!({"schemaVersion": 2})).contains("neither config nor manifests"));
        let mut negative = image();
        negative["layers"][0]["size"] = json!(-1);
        assert!(parsed(None, &negative).is_err());
    }

    #[test]
    fn platforms_are_chosen_nearest_first_and_statements_never() {
        let entry = |n: u8, platform: Value| json!({"mediaType": media_type::OCI_MANIFEST, "digest": format!("sha256:{}", format!("{n:02x}").repeat(32)), "size": 1, "platform": platform});
        let mut statement = entry(9, json!({"os": "linux", "architecture": "amd64"}));
        statement["annotations"] = json!({ATTESTATION: "attestation-manifest"});
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [
            statement,
            entry(1, json!({"os": "linux", "architecture": "amd64"})),
            entry(2, json!({"os": "linux", "architecture": "arm", "variant": "v5"})),
            entry(3, json!({"os": "linux", "architecture": "arm", "variant": "v6"})),
            entry(4, json!({"os": "windows", "architecture": "amd64", "os.version": "10"})),
        ]});
        let Document::Index(index) = parsed(None, &index).expect("index").1 else { panic!("an index") };
        let choice = |text: &str| index.choose(&text.parse().expect(text)).map(|entry| entry.digest.hex()[..2].to_owned());
        assert_eq!(choice("linux/amd64").expect("amd64"), "01");
        assert_eq!(choice("linux/arm/v7").expect("arm"), "03");
        assert_eq!(choice("linux/arm/v5").expect("arm"), "02");
        let err = choice("linux/arm64").expect_err("not offered");
        assert_eq!(err.message(), "no matching manifest for linux/arm64 in the manifest list entries");
        assert_eq!(err.kind(), ErrorKind::NotFound);
    }
}
