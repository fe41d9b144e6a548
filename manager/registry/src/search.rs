//! Looking for repositories by the old index protocol (`GET /v1/search`): Docker Hub speaks it, and few others do.

use rcontainerd_types::{Error, ErrorKind, Reference, Result, reference::DEFAULT_DOMAIN};
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use crate::auth::Credentials;
use crate::endpoint::{self, Endpoint};
use crate::error;
use crate::http::{Purpose, Session, read_limited};
use crate::repository::Registry;
use crate::tls::TlsFiles;

const DOCKER_INDEX: &str = "https://index.docker.io";
const ANSWER_MAX: usize = 4 << 20;

/// A repository that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Match {
    pub name: String,
    pub description: Option<String>,
    #[serde(rename = "star_count")]
    pub stars: u64,
    pub is_official: bool,
    pub is_automated: bool,
}

#[derive(Deserialize)]
struct Answer {
    results: Option<Vec<Match>>,
}

impl Registry {
    /// Repositories at `registry` (any reference of it) that match `term`, at most `limit`, in the registry's order.
    ///
    /// # Errors
    /// `Unsupported` when the registry has no search; as it says otherwise.
    pub async fn search(&self, registry: &Reference, term: &str, limit: u32, credentials: &Credentials) -> Result<Vec<Match>> {
        let mut last = None;
        for endpoint in self.search_endpoints(registry.domain())? {
            let session = Session::new(self.config(), endpoint, registry, credentials, Purpose::Search)?;
            match search_at(&session, registry.domain(), term, limit).await {
                Err(err) if err.kind() == ErrorKind::Unavailable => last = Some(err),
                found => return found,
            }
        }
        Err(last.unwrap_or_else(|| Error::new(ErrorKind::Unavailable, format!("{} cannot be reached", registry.domain()))))
    }

    /// The registry itself; its index has another host only with Docker Hub.
    fn search_endpoints(&self, domain: &str) -> Result<Vec<Endpoint>> {
        if domain == DEFAULT_DOMAIN {
            return Ok(vec![endpoint::endpoint(DOCKER_INDEX, TlsFiles::default())?]);
        }
        let own = endpoint::endpoints(self.config(), domain)?.into_iter();
        Ok(own.filter(|endpoint| endpoint.is_registry).collect())
    }
}

async fn search_at(session: &Session, domain: &str, term: &str, limit: u32) -> Result<Vec<Match>> {
    let url = url(&session.endpoint.base, term, limit)?;
    let answer = session.send(&Method::GET, &url, &HeaderMap::new(), session.limits().attempts).await?;
    match answer.response.status() {
        status if status.is_success() => {}
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE => return Err(none_at(domain)),
        _ => return Err(session.refusal(&Method::GET, &url, answer).await),
    }
    let bytes = read_limited(answer.response, ANSWER_MAX).await.map_err(|err| err.context(error::request(&Method::GET, &url)))?;
    // Many registries answer any path with their web page.
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| none_at(domain))?;
    answer.results.ok_or_else(|| none_at(domain))
}

fn url(base: &Url, term: &str, limit: u32) -> Result<Url> {
    let mut url = base.join("/v1/search").map_err(|err| Error::invalid(format!("search at {base}: {err}")))?;
    url.query_pairs_mut().append_pair("q", term).append_pair("n", &limit.to_string());
    Ok(url)
}

fn none_at(domain: &str) -> Error {
    Error::unsupported(format!("registry {domain} has no search: name the image in full, or look at the registry's own web page"))
}
