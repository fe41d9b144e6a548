//! Token services: logins that yield a token, services that know one way alone, services that are busy; and a search.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcontainerd_registry::testing::{Reply, Request, Server, quick};
use rcontainerd_registry::{Credentials, Registry};
use rcontainerd_types::{ErrorKind, Reference};

fn basic() -> Credentials {
    Credentials::Basic { username: "user".into(), password: "secret".into() }
}

/// A registry that takes the bearer token `good`, from the service.
fn registry(service: &Server) -> Server {
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", service.authority());
    Server::start(move |request| match request.header("authorization") {
        Some("Bearer good") => Reply::new(200, "{}"),
        _ => Reply::new(401, "").header("WWW-Authenticate", &realm),
    })
}

fn reference(server: &Server) -> Reference {
    format!("{}/app:1", server.authority()).parse().expect("reference")
}

fn form(request: &Request) -> String {
    String::from_utf8_lossy(&request.body).into_owned()
}

#[tokio::test]
async fn a_login_yields_the_token_that_is_kept_in_the_passwords_place() {
    let service = Server::start(|_| Reply::new(200, r#"{"token":"good","refresh_token":"kept"}"#));
    let server = registry(&service);
    assert_eq!(Registry::new(quick()).login(&reference(&server), &basic()).await.expect("login").as_deref(), Some("kept"));
    assert!(service.seen()[0].path.contains("offline_token=true"), "{:?}", service.seen());

    let plain = Server::start(|_| Reply::new(200, r#"{"token":"good"}"#));
    let server = registry(&plain);
    assert_eq!(Registry::new(quick()).login(&reference(&server), &basic()).await.expect("login"), None);
}

#[tokio::test]
async fn a_service_that_knows_no_get_is_asked_by_oauth2() {
    let service = Server::start(|request| match request.method.as_str() {
        "POST" if form(request).contains("grant_type=password") => Reply::new(200, r#"{"access_token":"good"}"#),
        _ => Reply::new(405, ""),
    });
    let server = registry(&service);
    let repository = Registry::new(quick()).repository(&reference(&server), &basic()).expect("repository");
    assert_eq!(repository.peek("1").await.expect("let in"), None);
    let seen = service.seen();
    let post = seen.iter().find(|request| request.method == "POST").expect("a POST");
    let form = form(post);
    assert!(form.contains("username=user") && form.contains("password=secret") && form.contains("scope=repository%3Aapp%3Apull"), "{form}");
    assert!(seen.iter().all(|request| !request.path.contains("secret")), "secrets are not for URLs");
}

#[tokio::test]
async fn a_busy_service_is_asked_again_a_refusing_one_not() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let service = Server::start(move |_| match counted.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(503, ""),
        1 => Reply::new(429, ""),
        _ => Reply::new(200, r#"{"token":"good"}"#),
    });
    Registry::new(quick()).login(&reference(&registry(&service)), &basic()).await.expect("third time");
    assert_eq!(count.load(Ordering::SeqCst), 3);

    let refusing = Server::start(|_| Reply::new(401, ""));
    let err = Registry::new(quick()).login(&reference(&registry(&refusing)), &basic()).await.expect_err("refused");
    assert_eq!(err.kind(), ErrorKind::Unauthenticated);
    assert_eq!(refusing.seen().len(), 1);
}

#[tokio::test]
async fn search_where_there_is_one() {
    let answer = r#"{"results":[{"name":"a/b","description":"x","star_count":3,"is_official":true},{"name":"c","description":null}]}"#;
    let server = Server::start(move |request| match request.path.as_str() {
        "/v1/search?q=some+thing&n=7" => Reply::new(200, answer),
        _ => Reply::new(404, ""),
    });
    let found = Registry::new(quick()).search(&reference(&server), "some thing", 7, &Credentials::Anonymous).await.expect("found");
    assert_eq!(
        found.iter().map(|one| (one.name.as_str(), one.stars, one.is_official)).collect::<Vec<_>>(),
        [("a/b", 3, true), ("c", 0, false)]
    );

    for none in [Reply::new(404, ""), Reply::new(200, "<html>a portal</html>"), Reply::new(200, "{}")] {
        let server = Server::start(move |_| none.clone());
        let err = Registry::new(quick()).search(&reference(&server), "x", 7, &Credentials::Anonymous).await.expect_err("no search");
        assert_eq!(err.kind(), ErrorKind::Unsupported);
        assert!(err.message().contains("has no search"), "{err}");
    }
}
