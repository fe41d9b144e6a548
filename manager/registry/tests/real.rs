//! Against Debian's docker-registry: every way to speak to it and to prove who we are.

use rcontainerd_registry::testing::{Auth, Compression, ImageBuilder, Layout, RealRegistry, tar_of};
use rcontainerd_registry::{Chunk, Credentials, Document, Manifest, Registry, RegistryConfig, Repository};
use rcontainerd_types::{Descriptor, Digest, ErrorKind, Reference, Result};

fn layout() -> Layout {
    let mut layout = Layout::new();
    let image = layout.image(&ImageBuilder::default().layer(tar_of(&[("hello", &[b'x'; 300_000], 0o755)]), Compression::Gzip));
    layout.tag("one", &image);
    layout
}

fn user() -> Credentials {
    Credentials::Basic { username: RealRegistry::USER.into(), password: RealRegistry::PASSWORD.into() }
}

fn repository(config: RegistryConfig, registry: &RealRegistry, name: &str, credentials: &Credentials) -> (Repository, Reference) {
    let reference: Reference = format!("{}/{name}", registry.authority()).parse().expect("reference");
    (Registry::new(config).repository(&reference, credentials).expect("repository"), reference)
}

fn no_files() -> RegistryConfig {
    RegistryConfig { host_dirs: Vec::new(), ..RegistryConfig::default() }
}

async fn read(repository: &Repository, blob: &Descriptor) -> Result<Vec<u8>> {
    let mut stream = repository.blob(blob, 0);
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await? {
        if let Chunk::Data(data) = chunk {
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

async fn fetch_all(repository: &Repository, tag: &str) -> Result<Manifest> {
    let fetched = repository.manifest_by_tag(tag).await?;
    assert_eq!(Digest::sha256(&fetched.bytes), fetched.descriptor.digest);
    let Document::Manifest(manifest) = fetched.document else { panic!("a manifest") };
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        assert_eq!(Digest::sha256(&read(repository, blob).await?), blob.digest);
    }
    Ok(manifest)
}

#[tokio::test]
async fn plain_http_on_loopback_in_both_formats() {
    let registry = RealRegistry::start(Auth::Open, false);
    registry.push(&layout(), "one", "app:1", "oci");
    registry.push(&layout(), "one", "app:2", "v2s2");
    let (repository, _) = repository(no_files(), &registry, "app", &Credentials::Anonymous);
    fetch_all(&repository, "1").await.expect("OCI image");
    let docker = fetch_all(&repository, "2").await.expect("Docker image");
    assert_eq!(docker.config.media_type, rcontainerd_types::media_type::DOCKER_CONFIG);
    assert_eq!(repository.tags().await.expect("tags"), ["1", "2"]);
    let digest = repository.peek("1").await.expect("peek").expect("digest");
    assert_eq!(digest, repository.manifest_by_digest(&digest, None).await.expect("by digest").descriptor.digest);
}

#[tokio::test]
async fn a_mirror_lists_tags_too() {
    let mirror = RealRegistry::start(Auth::Open, false);
    mirror.push(&layout(), "one", "library/app:1", "oci");
    let config = RegistryConfig { mirrors: vec![format!("http://{}", mirror.authority())], ..no_files() };
    let reference: Reference = "app".parse().expect("reference");
    let repository = Registry::new(config).repository(&reference, &Credentials::Anonymous).expect("repository");
    assert_eq!(repository.tags().await.expect("tags"), ["1"]);
}

#[tokio::test]
async fn what_is_not_there_is_told_in_dockers_words() {
    let registry = RealRegistry::start(Auth::Open, false);
    registry.push(&layout(), "one", "app:1", "oci");
    let (repository, _) = repository(no_files(), &registry, "app:9", &Credentials::Anonymous);
    let err = repository.manifest_by_tag("9").await.expect_err("no such tag");
    assert_eq!(err.kind(), ErrorKind::NotFound);
    let wanted = format!("manifest for {}/app:9 not found: manifest unknown: manifest unknown", registry.authority());
    assert_eq!(err.message(), wanted);
    assert_eq!(repository.peek("9").await.expect("peek"), None);
}

#[tokio::test]
async fn https_with_a_private_authority_is_verified() {
    let registry = RealRegistry::start(Auth::Open, true);
    registry.push(&layout(), "one", "app:1", "oci");
    let trusting = RegistryConfig { host_dirs: vec![registry.host_dir()], ..RegistryConfig::default() };
    let (trusted, _) = repository(trusting, &registry, "app", &Credentials::Anonymous);
    fetch_all(&trusted, "1").await.expect("with the CA");

    let other = RealRegistry::start(Auth::Open, true);
    let wrong = other.host_dir().join(registry.authority());
    std::fs::create_dir_all(&wrong).expect("directory");
    std::fs::copy(other.dir.path().join("ca.crt"), wrong.join("ca.crt")).expect("copy");
    let mistrusting = RegistryConfig { host_dirs: vec![other.dir.path().join("hosts")], ..RegistryConfig::default() };
    let (refused, _) = repository(mistrusting, &registry, "app", &Credentials::Anonymous);
    let err = refused.manifest_by_tag("1").await.expect_err("another CA");
    assert!(err.message().contains("certificate signed by unknown authority"), "{err}");
}

#[tokio::test]
async fn basic_auth() {
    let registry = RealRegistry::start(Auth::Basic, false);
    registry.push(&layout(), "one", "app:1", "oci");
    let (known, _) = repository(no_files(), &registry, "app", &user());
    fetch_all(&known, "1").await.expect("with password");

    let (nobody, _) = repository(no_files(), &registry, "app", &Credentials::Anonymous);
    let err = nobody.manifest_by_tag("1").await.expect_err("without password");
    assert_eq!(err.kind(), ErrorKind::Unauthenticated);
    assert!(err.message().contains("no basic auth credentials"), "{err}");

    let wrong = Credentials::Basic { username: RealRegistry::USER.into(), password: "wrong".into() };
    let (wrong, _) = repository(no_files(), &registry, "app", &wrong);
    let err = wrong.manifest_by_tag("1").await.expect_err("wrong password");
    assert_eq!(err.kind(), ErrorKind::Unauthenticated);
    assert!(!err.message().contains("wrong"), "the password is in {err}");
}

#[tokio::test]
async fn bearer_tokens_by_password_and_by_refresh_token() {
    let registry = RealRegistry::start(Auth::Token(60), false);
    registry.push(&layout(), "one", "app:1", "oci");
    for credentials in [user(), Credentials::IdentityToken("refresh".into())] {
        let (known, _) = repository(no_files(), &registry, "app", &credentials);
        let before = registry.tokens().seen().len();
        fetch_all(&known, "1").await.expect("with credentials");
        assert_eq!(registry.tokens().seen().len(), before + 1, "one token serves the whole pull");
    }
    let (nobody, _) = repository(no_files(), &registry, "app", &Credentials::Anonymous);
    let err = nobody.manifest_by_tag("1").await.expect_err("without credentials");
    assert_eq!(err.kind(), ErrorKind::Unauthenticated);
    assert!(err.message().contains("unauthorized: incorrect username or password"), "{err}");
}

#[tokio::test]
async fn a_token_is_renewed_when_its_time_is_over() {
    let registry = RealRegistry::start(Auth::Token(1), false);
    registry.push(&layout(), "one", "app:1", "oci");
    let (known, _) = repository(no_files(), &registry, "app", &user());
    let before = registry.tokens().seen().len();
    fetch_all(&known, "1").await.expect("first");
    let first = registry.tokens().seen().len();
    assert!(first > before);
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    fetch_all(&known, "1").await.expect("second");
    assert!(registry.tokens().seen().len() > first, "a second token was asked for");
}

#[tokio::test]
async fn a_registry_that_is_not_there() {
    let (gone, address) = {
        let registry = RealRegistry::start(Auth::Open, false);
        let (gone, _) = repository(no_files(), &registry, "app", &Credentials::Anonymous);
        (gone, registry.authority().to_owned())
    };
    let err = gone.manifest_by_tag("1").await.expect_err("nobody listens");
    assert_eq!(err.kind(), ErrorKind::Unavailable);
    assert_eq!(err.message(), format!("Get \"http://{address}/v2/\": dial tcp {address}: connect: connection refused"));
}
