//! What files and settings say of hosts: certificates, headers, mirrors, proxies.

use std::sync::Arc;

use rcontainerd_registry::testing::{RealRegistry, Reply, Server, quick};
use rcontainerd_registry::{Chunk, Credentials, Proxies, Registry, RegistryConfig, Repository};
use rcontainerd_types::{Descriptor, Digest, ErrorKind, Reference, media_type};

const BYTES: &[u8] = b"a layer";

fn with_file(domain: &str, text: &str) -> (tempfile::TempDir, RegistryConfig) {
    let dir = tempfile::tempdir().expect("dir");
    std::fs::create_dir_all(dir.path().join(domain)).expect("dir");
    std::fs::write(dir.path().join(domain).join("hosts.toml"), text).expect("write");
    let config = RegistryConfig { host_dirs: vec![dir.path().to_owned()], ..quick() };
    (dir, config)
}

fn repository(config: RegistryConfig, name: &str) -> Repository {
    let user = Credentials::Basic { username: "user".into(), password: "secret".into() };
    Registry::new(config).repository(&name.parse::<Reference>().expect("reference"), &user).expect("repository")
}

async fn read(repository: &Repository) -> Vec<u8> {
    let blob = Descriptor::new(media_type::OCI_LAYER, Digest::sha256(BYTES), BYTES.len() as u64);
    let mut stream = repository.blob(&blob, 0);
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await.expect("blob") {
        if let Chunk::Data(data) = chunk {
            bytes.extend_from_slice(&data);
        }
    }
    bytes
}

#[tokio::test]
async fn a_client_certificate_opens_a_registry_that_wants_one() {
    let real = RealRegistry::start_mutual();
    let reference: Reference = format!("{}/app:1", real.authority()).parse().expect("reference");
    let login = |dir: std::path::PathBuf| {
        let registry = Registry::new(RegistryConfig { host_dirs: vec![dir], ..quick() });
        let reference = reference.clone();
        async move { registry.login(&reference, &Credentials::Anonymous).await }
    };
    let err = login(real.host_dir()).await.expect_err("without");
    assert_eq!(err.kind(), ErrorKind::Unavailable, "{err}");
    login(real.client_dir()).await.expect("with");
    std::fs::remove_file(real.client_dir().join(real.authority()).join("client.key")).expect("remove");
    let err = login(real.dir.path().join("hosts")).await.expect_err("half");
    assert!(err.message().contains("lacks its key"), "{err}");
}

#[tokio::test]
async fn a_mirror_is_told_the_registry_and_gets_its_headers_and_nobody_elses() {
    let storage = Arc::new(Server::start(|_| Reply::new(200, BYTES)));
    let target = storage.authority();
    let mirror = Server::start(move |request| match request.path.contains("/blobs/") {
        true => Reply::new(307, "").header("Location", format!("http://{target}/bucket")),
        false => Reply::new(200, "{}"),
    });
    let text = format!("[host.\"http://{}\"]\n[host.\"http://{}\".header]\nx-key = \"k\"\n", mirror.authority(), mirror.authority());
    for domain in ["any.example", "_default"] {
        let (_dir, config) = with_file(domain, &text);
        assert_eq!(read(&repository(config, "any.example/app:1")).await, BYTES);
    }
    let seen = mirror.seen();
    assert!(seen.iter().all(|request| request.header("x-key") == Some("k") && request.header("authorization").is_none()), "{seen:?}");
    assert!(seen.iter().any(|request| request.path.ends_with("?ns=any.example")), "{seen:?}");
    assert!(!storage.seen().is_empty() && storage.seen().iter().all(|request| request.header("x-key").is_none()));
}

#[tokio::test]
async fn capabilities_say_who_is_asked_for_what() {
    let digest = Digest::sha256(b"{}");
    let named = digest.clone();
    let blobs = Server::start(|request| if request.path.contains("/blobs/") { Reply::new(200, BYTES) } else { Reply::new(200, "{}") });
    let names = Server::start(move |_| Reply::new(200, "{}").header("Docker-Content-Digest", &named));
    let text = format!(
        "server = \"http://127.0.0.1:1\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n[host.\"http://{}\"]\ncapabilities = [\"resolve\"]\n",
        blobs.authority(),
        names.authority()
    );
    let (_dir, config) = with_file("any.example", &text);
    let repository = repository(config, "any.example/app:1");
    assert_eq!(repository.peek("1").await.expect("resolved"), Some(digest));
    assert_eq!(read(&repository).await, BYTES);
    let paths = |server: &Server| server.seen().iter().map(|request| request.path.clone()).collect::<String>();
    assert!(!paths(&blobs).contains("manifests") && !paths(&names).contains("blobs"));
}

#[tokio::test]
async fn proxies_are_used_but_not_for_loopback_and_exceptions() {
    let proxy = Server::start(|request| match request.method.as_str() {
        "CONNECT" => Reply::new(502, ""),
        _ if request.path.contains("/blobs/") => Reply::new(200, BYTES),
        _ => Reply::new(200, "{}"),
    });
    let url = format!("http://{}", proxy.authority());
    let proxies = Proxies { http: Some(url.clone()), https: Some(url), none_for: Some("direct.invalid".into()) };
    let insecure_registries = vec!["registry.invalid".into(), "direct.invalid".into()];
    let config = || RegistryConfig { proxies: Some(proxies.clone()), insecure_registries: insecure_registries.clone(), ..quick() };
    assert_eq!(read(&repository(config(), "registry.invalid/app:1")).await, BYTES);
    let seen = proxy.seen();
    assert!(seen.iter().any(|request| request.method == "CONNECT" && request.path == "registry.invalid:443"), "{seen:?}");
    assert!(seen.iter().any(|request| request.path == "http://registry.invalid/v2/"), "{seen:?}");

    assert!(repository(config(), "direct.invalid/app:1").peek("1").await.is_err());
    let dead = Proxies { https: Some("http://127.0.0.1:1".into()), ..Proxies::default() };
    let config_of_dead = RegistryConfig { proxies: Some(dead), ..quick() };
    let err = repository(config_of_dead, "registry.invalid/app:1").manifest_by_tag("1").await.expect_err("no proxy there");
    assert!(err.message().contains("proxyconnect tcp: 127.0.0.1:1: "), "{err}");
    let local = Server::start(|_| Reply::new(200, BYTES));
    assert_eq!(read(&repository(config(), &format!("{}/app:1", local.authority()))).await, BYTES);
    assert!(!proxy.seen().iter().any(|request| request.path.contains("direct") || request.path.contains("127.0.0.1")));
}

#[tokio::test]
async fn referrers_by_the_api_and_by_the_tag() {
    let subject = Digest::sha256(b"subject");
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": [Descriptor::new(media_type::OCI_MANIFEST, Digest::sha256(b"signature"), 9)],
    })
    .to_string();
    let tag = format!("manifests/sha256-{}", subject.hex());
    let by_api = {
        let index = index.clone();
        Server::start(
            move |request| if request.path.contains("/referrers/") { Reply::new(200, index.clone()) } else { Reply::new(200, "{}") },
        )
    };
    let by_tag = Server::start(move |request| match request.path.as_str() {
        "/v2/" => Reply::new(200, "{}"),
        path if path.ends_with(&tag) => Reply::new(200, index.clone()),
        _ => Reply::new(404, ""),
    });
    for server in [&by_api, &by_tag] {
        let found = repository(quick(), &format!("{}/app:1", server.authority())).referrers(&subject).await.expect("listed");
        assert_eq!(found.iter().map(|one| one.digest.clone()).collect::<Vec<_>>(), [Digest::sha256(b"signature")]);
    }
    let none = Server::start(|request| if request.path == "/v2/" { Reply::new(200, "{}") } else { Reply::new(404, "") });
    assert!(repository(quick(), &format!("{}/app:1", none.authority())).referrers(&subject).await.expect("none").is_empty());
}

#[test]
fn settings_that_cannot_work_are_told_before_the_first_pull() {
    let check = |config: RegistryConfig| config.check().expect_err("refused").message().to_owned();
    assert!(check(RegistryConfig { mirrors: vec!["ftp://x".into()], ..quick() }).contains("ftp://x"));
    assert!(check(RegistryConfig { insecure_registries: vec!["http://x".into()], ..quick() }).contains("http://x"));
    let proxies = Some(Proxies { http: Some("gopher://x".into()), ..Proxies::default() });
    assert!(check(RegistryConfig { proxies, ..quick() }).contains("http_proxy"));
    let good = RegistryConfig { insecure_registries: vec!["a:1".into(), "10.0.0.0/8".into(), "[::1]:5".into()], ..quick() };
    good.check().expect("good");
}
