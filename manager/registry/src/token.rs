//! Bearer tokens (distribution spec's token authentication): the registry names a realm, the realm gives a token for a scope.

use std::time::{Duration, Instant};

use rcontainerd_types::{Error, ErrorKind, Result};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::Deserialize;

use crate::auth::Credentials;
use crate::challenge::Challenge;
use crate::error;
use crate::http::read_limited;

/// A token that gives no lifetime is good for this long (distribution spec).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// Renewed so long before it expires, or at half its life if that is shorter.
const MARGIN: Duration = Duration::from_secs(10);
const ANSWER_MAX: usize = 1 << 20;
const CLIENT_ID: &str = "rcontainerd";

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub secret: String,
    /// When to ask for another.
    pub renew_at: Instant,
    /// To be kept in the password's place, where one was asked for and given.
    pub refresh: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    refresh_token: String,
    /// Seconds.
    #[serde(default)]
    expires_in: u64,
}

/// Who gives tokens, for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Realm {
    pub url: Url,
    pub service: Option<String>,
    /// Empty for a mere login, which asks for a refresh token instead.
    pub scopes: Vec<String>,
}

impl Realm {
    /// From a `Bearer` challenge of the registry at `registry`.
    ///
    /// # Errors
    /// When the realm is no URL, or would carry credentials in the clear although the registry speaks TLS.
    pub(crate) fn from_challenge(challenge: &Challenge, registry: &Url, scopes: Vec<String>) -> Result<Self> {
        let parameter = |name: &str| challenge.parameters.get(name).cloned();
        let realm = parameter("realm").unwrap_or_default();
        let bad = |why: &str| Error::new(ErrorKind::Unavailable, format!("registry {registry}: token realm {realm:?} {why}"));
        let url = registry.join(&realm).map_err(|err| bad(&format!("is no URL: {err}")))?;
        if realm.is_empty() || !matches!(url.scheme(), "http" | "https") {
            return Err(bad("is no http or https URL"));
        }
        if registry.scheme() == "https" && url.scheme() != "https" {
            return Err(bad("is plain http although the registry speaks https: credentials are not sent there"));
        }
        Ok(Self { url, service: parameter("service"), scopes })
    }

    /// Fetches a token: by OAuth2 for a refresh token, else by GET with the user's name and password if there are any, else, where the
    /// service knows no GET, by OAuth2 with them.
    ///
    /// # Errors
    /// `Unauthenticated` when the credentials are refused, `ResourceExhausted` and `Unavailable` when the service does not answer sensibly.
    pub(crate) async fn fetch(&self, client: &Client, credentials: &Credentials) -> Result<Token> {
        let asked = Instant::now();
        let (mut method, mut response) = match credentials {
            Credentials::IdentityToken(refresh) => {
                (Method::POST, self.post(client, &[("grant_type", "refresh_token"), ("refresh_token", refresh)]).await?)
            }
            _ => (Method::GET, self.get(client, credentials).await?),
        };
        if let Credentials::Basic { username, password } = credentials
            && matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
        {
            method = Method::POST;
            response = self.post(client, &[("grant_type", "password"), ("username", username), ("password", password)]).await?;
        }
        let status = response.status();
        let body = read_limited(response, ANSWER_MAX).await.map_err(|err| err.context(error::request(&method, &self.url)))?;
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST) {
            let told = format!("{}: unauthorized: incorrect username or password", error::request(&method, &self.url));
            return Err(Error::new(ErrorKind::Unauthenticated, told));
        }
        if !status.is_success() {
            let kind = if status == StatusCode::TOO_MANY_REQUESTS { ErrorKind::ResourceExhausted } else { ErrorKind::Unavailable };
            return Err(Error::new(
                kind,
                format!("{}: unexpected status from token service: {status}", error::request(&method, &self.url)),
            ));
        }
        self.read(&method, &body, asked)
    }

    async fn get(&self, client: &Client, credentials: &Credentials) -> Result<Response> {
        let mut url = self.url.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &self.service {
                query.append_pair("service", service);
            }
            for scope in &self.scopes {
                query.append_pair("scope", scope);
            }
            if let Credentials::Basic { username, .. } = credentials {
                query.append_pair("account", username);
            }
            if self.scopes.is_empty() {
                query.append_pair("client_id", CLIENT_ID).append_pair("offline_token", "true");
            }
        }
        let mut request = client.get(url).header(ACCEPT, "application/json");
        if let Credentials::Basic { username, password } = credentials {
            request = request.basic_auth(username, Some(password));
        }
        request.send().await.map_err(|err| error::transport(&Method::GET, &self.url, &err))
    }

    /// Secrets go in the body, never into the URL: URLs are logged.
    async fn post(&self, client: &Client, grant: &[(&str, &str)]) -> Result<Response> {
        let mut form = self.url.clone();
        {
            let mut pairs = form.query_pairs_mut();
            pairs.clear().extend_pairs(grant).append_pair("service", self.service.as_deref().unwrap_or_default());
            pairs.append_pair("client_id", CLIENT_ID);
            match self.scopes.is_empty() {
                true => pairs.append_pair("access_type", "offline"),
                false => pairs.append_pair("scope", &self.scopes.join(" ")),
            };
        }
        let body = form.query().unwrap_or_default().to_owned();
        let request = client.post(self.url.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
        request.send().await.map_err(|err| error::transport(&Method::POST, &self.url, &err))
    }

    fn read(&self, method: &Method, body: &[u8], asked: Instant) -> Result<Token> {
        let bad = |why: &str| Error::new(ErrorKind::Unavailable, format!("{}: {why}", error::request(method, &self.url)));
        let answer: Answer = serde_json::from_slice(body).map_err(|_| bad("the token service's answer is not what it should be"))?;
        let secret = if answer.token.is_empty() { answer.access_token } else { answer.token };
        if secret.is_empty() {
            return Err(bad("the token service gave no token"));
        }
        let lifetime = if answer.expires_in == 0 { DEFAULT_LIFETIME } else { Duration::from_secs(answer.expires_in.min(86_400)) };
        let refresh = Some(answer.refresh_token).filter(|refresh| !refresh.is_empty());
        Ok(Token { secret, renew_at: asked + lifetime - MARGIN.min(lifetime / 2), refresh })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn realm(registry: &str, realm: &str) -> Result<Realm> {
        let challenge = crate::challenge::parse_all([format!("Bearer realm=\"{realm}\",service=\"s\"").as_str()].into_iter());
        Realm::from_challenge(&challenge[0], &Url::parse(registry).expect("url"), vec!["repository:a/b:pull".to_owned()])
    }

    #[test]
    fn credentials_are_not_sent_in_the_clear_behind_a_tls_registry() {
        assert!(realm("https://r.example/v2/", "http://r.example/token").expect_err("refused").message().contains("plain http"));
        assert!(realm("https://r.example/v2/", "ftp://x").is_err());
        assert!(realm("https://r.example/v2/", "").is_err());
        assert_eq!(realm("https://r.example/v2/", "https://auth.example/t").expect("fine").scopes, ["repository:a/b:pull"]);
        assert!(realm("http://127.0.0.1:5000/v2/", "http://127.0.0.1:5001/t").is_ok());
    }

    #[test]
    fn lifetimes() {
        let realm = realm("http://r/v2/", "http://r/t").expect("realm");
        let asked = Instant::now();
        let left = |body: &str| realm.read(&Method::GET, body.as_bytes(), asked).map(|token| token.renew_at - asked);
        assert_eq!(left(r#"{"token":"x"}"#).expect("token"), Duration::from_secs(50));
        assert_eq!(left(r#"{"access_token":"x","expires_in":4}"#).expect("token"), Duration::from_secs(2));
        assert!(left("{}").is_err());
        assert!(left("<html>").is_err());
    }
}
