//! `manifest inspect`: what a name stands for at its registry, as the registry has it. The engine fetches it, with its own certificates
//! and mirrors.

use proto_docker::image::RemoteDocument;
use serde_json::{Value, json};

use crate::cli::Cli;
use crate::client::path_segment;
use crate::cmdline::{Args, Command, Flag, Kind, Matches, Outcome, Section, entry, group, leaf, switch, unsupported};
use crate::config::credentials;
use crate::failure::Failure;
use crate::output::{self, json};
use crate::reference::Reference;

static FLAGS: &[Flag] =
    &[unsupported("insecure", "", Kind::Bool), switch("verbose", "v", "Show the images of a list too, and all their digests")];

static INSPECT: Command = Command {
    usage: "[OPTIONS] MANIFEST",
    about: "Display an image manifest, or manifest list, of a registry",
    flags: &[FLAGS],
    args: Args::Exactly(1),
    ..leaf(|cli, matches| Box::pin(inspect(cli, matches)))
};

pub static COMMAND: Command =
    group("Look at image manifests in registries", &[Section { title: "Commands", entries: &[entry("inspect", &INSPECT)] }]);

async fn inspect(cli: &Cli, matches: &Matches) -> Outcome {
    let reference = Reference::parse(matches.arg(0))?.or_latest();
    let auth = credentials::lookup(cli.config(), credentials::server_key(&reference.domain));
    let call = cli.client()?.get(format!("/distribution/{}/manifest", path_segment(&reference.familiar())));
    let found: RemoteDocument = call.header("x-registry-auth", credentials::header(&auth)).fetch().await?;
    if !matches.bool("verbose") {
        // As the registry has it but for the layout, which is docker's.
        let indent = if is_list(&found)? { "   " } else { "\t" };
        return output::line(&json::reindent(&found.document, indent));
    }
    let name = reference.full();
    let shown = match is_list(&found)? {
        true => {
            let repository = reference.familiar_name();
            let entries = found.entries.iter().map(|one| image(&format!("{repository}@{}", one.descriptor.digest), one));
            Value::Array(entries.collect::<Result<_, _>>()?)
        }
        false => image(&name, &found)?,
    };
    output::line(&json::indented(&shown, "\t"))
}

fn parsed(document: &RemoteDocument) -> Result<Value, Failure> {
    serde_json::from_str(&document.document).map_err(|err| Failure::message(format!("the registry's manifest is no JSON: {err}")))
}

fn is_list(document: &RemoteDocument) -> Result<bool, Failure> {
    Ok(parsed(document)?.get("manifests").is_some())
}

/// One image, as docker lays it out.
fn image(name: &str, document: &RemoteDocument) -> Result<Value, Failure> {
    let described = &document.descriptor;
    let mut descriptor = json!({"mediaType": described.media_type, "digest": described.digest, "size": described.size});
    if let Some(platform) = &document.platform {
        descriptor["platform"] = json!(platform);
    }
    let kind = if described.media_type.contains("vnd.oci.") { "OCIManifest" } else { "SchemaV2Manifest" };
    Ok(json!({"Ref": name, "Descriptor": descriptor, kind: parsed(document)?}))
}
