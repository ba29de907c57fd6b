//! Single requests: redirects, proxies, certificates, the token, and what an error of the network means.
//! It does not know what is asked for, nor whether to try again.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ureq::config::Config;
use ureq::http::{HeaderMap, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy};

use super::address::is_loopback;
use super::settings::Settings;
use super::url::Url;
use crate::error::{Problem, Result};

/// Makes requests.
pub(super) struct Client<'a> {
    agent: Agent,
    settings: &'a Settings,
}

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server said so.
    Status(Status),
    /// The network said so, in these words; it may do better the next time.
    Broken(String),
    /// It will not do better.
    Final(Box<Problem>),
    /// The fetch was to stop.
    Stopped,
}

/// A refusal.
#[derive(Debug)]
pub(super) struct Status {
    /// 400 to 599.
    pub code: u16,
    /// The Hub's word for it: `GatedRepo`, `RepoNotFound`, `RevisionNotFound`, `EntryNotFound`.
    pub error: String,
    /// How long to wait.
    pub retry_after: Option<Duration>,
    /// Who refused.
    pub host: String,
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Final(Box::new(problem))
    }
}

/// What a server answered.
pub(super) struct Answer {
    /// 2xx, 304, 416; a redirect for [`Client::head`].
    pub status: u16,
    /// Who answered in the end.
    pub url: Url,
    headers: HeaderMap,
    /// Those of the servers on the way that belong to the same origin as the first.
    before: Vec<HeaderMap>,
    body: Body,
}

const REDIRECTS: usize = 10;

/// How long a server may be silent before the connection counts as broken.
const SILENCE: Duration = Duration::from_secs(60);

const CONNECT: Duration = Duration::from_secs(20);

impl<'a> Client<'a> {
    /// Nothing is asked yet.
    pub fn new(settings: &'a Settings) -> Result<Self> {
        let mut tls = TlsConfig::builder();
        if let Some(path) = &settings.certificates {
            let pem = std::fs::read(path).map_err(|e| Problem::io("read", path, &e))?;
            let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect();
            if certificates.is_empty() {
                return Err(Problem::new(format!("{} has no certificates (PEM) in it", path.display()))
                    .help("SSL_CERT_FILE names it"));
            }
            tls = tls.root_certs(RootCerts::Specific(Arc::new(certificates)));
        }
        let config = Config::builder()
            .http_status_as_error(false)
            // Redirects are followed here, because the token may not follow them.
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("pipe/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .tls_config(tls.build())
            .build();
        Ok(Self { agent: config.new_agent(), settings })
    }

    /// Ends every request that is under way, and refuses later ones.
    pub fn interrupt(&self) {
        self.agent.clone().shutdown();
    }

    /// Asks for the content, wherever it is.
    pub fn get(&self, url: &Url, headers: &[(&str, String)]) -> Result<Answer, Failure> {
        let answer = self.follow("GET", url, headers, true)?;
        self.accept(answer)
    }

    /// Asks what is there. A redirect to another server is an answer: the Hub tells in it what the other would send.
    pub fn head(&self, url: &Url) -> Result<Answer, Failure> {
        let answer = self.follow("HEAD", url, &[], false)?;
        self.accept(answer)
    }

    fn accept(&self, answer: Answer) -> Result<Answer, Failure> {
        match answer.status {
            200..=399 | 416 => Ok(answer),
            code => Err(Failure::Status(Status {
                code,
                error: answer.header("x-error-code").unwrap_or_default().to_owned(),
                retry_after: answer.header("retry-after").and_then(super::retry::after),
                host: answer.url.host().to_owned(),
            })),
        }
    }

    fn follow(&self, method: &str, url: &Url, headers: &[(&str, String)], far: bool) -> Result<Answer, Failure> {
        let (mut at, mut before) = (url.clone(), Vec::new());
        for _ in 0..=REDIRECTS {
            let response = self.once(method, &at, headers)?;
            let status = response.status().as_u16();
            let (parts, body) = response.into_parts();
            let to = parts.headers.get("location").and_then(|to| to.to_str().ok());
            let (301 | 302 | 303 | 307 | 308, Some(to)) = (status, to) else {
                return Ok(Answer { status, url: at, headers: parts.headers, before, body });
            };
            let Some(to) = at.join(to) else {
                return Err(Problem::new(format!("{} redirects to what is not an address", at.host())).into());
            };
            if !far && to.origin() != url.origin() {
                return Ok(Answer { status, url: at, headers: parts.headers, before, body });
            }
            if at.scheme() == "https" && to.scheme() == "http" && !is_loopback(to.host()) {
                let what =
                    format!("{} redirects to plain http, where anybody on the way can change the file", at.host());
                return Err(Problem::new(what).into());
            }
            if at.origin() == url.origin() {
                before.push(parts.headers);
            }
            at = to;
        }
        Err(Problem::new(format!("{} redirects in circles", url.host())).into())
    }

    fn once(&self, method: &str, url: &Url, headers: &[(&str, String)]) -> Result<Response<Body>, Failure> {
        let text = url.to_string();
        let mut request = if method == "HEAD" { self.agent.head(&text) } else { self.agent.get(&text) };
        // A packed answer would have another length than the file.
        request = request.header("accept-encoding", "identity");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(token) = self.settings.token_for(url) {
            request = request.header("authorization", token.header());
        }
        let proxy = match self.settings.proxies.of(url) {
            None => None,
            // Its address may have a password in it.
            Some(proxy) => Some(Proxy::new(proxy).map_err(|_| {
                Problem::new(format!("the proxy for `{}` is not an address", url.scheme()))
                    .expected("`http://host:port` in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY")
            })?),
        };
        request.config().proxy(proxy).build().call().map_err(|error| failure(&error, url.host()))
    }
}

impl Answer {
    /// A header of the server that answered in the end, or else of the same server when it redirected: the Hub says on
    /// the way what a file is.
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = std::iter::once(&self.headers).chain(self.before.iter().rev());
        all.filter_map(|headers| headers.get(name)).find_map(|value| value.to_str().ok())
    }

    /// A header of the server that answered in the end.
    pub fn last_header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// How many bytes follow, if the server says so.
    pub fn length(&self) -> Option<u64> {
        self.last_header("content-length").and_then(|length| length.trim().parse().ok())
    }

    /// The bytes.
    pub fn reader(self) -> impl Read {
        self.body.into_reader()
    }

    /// A short text.
    pub fn text(self, limit: u64) -> Result<String, Failure> {
        let host = self.url.host().to_owned();
        self.body.into_with_config().limit(limit).read_to_string().map_err(|error| failure(&error, &host))
    }
}

/// What an error of the network means. Its own words are not shown where they could repeat an address.
fn failure(error: &ureq::Error, host: &str) -> Failure {
    use ureq::Error;
    let certificate = |words: String| {
        let problem = Problem::new(format!("{host} could not prove who it is: {words}"));
        Failure::from(problem.help("behind a proxy that reads along, name its certificates in SSL_CERT_FILE"))
    };
    match error {
        Error::Io(error) => io_failure(error, host),
        Error::HostNotFound => Failure::Broken(format!("the name {host} is not known")),
        Error::Timeout(_) => Failure::Broken(format!("{host} does not answer")),
        Error::ConnectionFailed => Failure::Broken(format!("no connection to {host}")),
        Error::ConnectProxyFailed(_) => Failure::Broken(format!("the proxy did not connect to {host}")),
        Error::Rustls(error) => certificate(error.to_string()),
        Error::Tls(words) => certificate((*words).to_owned()),
        Error::Protocol(error) => Failure::Broken(format!("{host} does not speak HTTP: {error}")),
        Error::BodyExceedsLimit(limit) => Problem::new(format!("{host} answers with more than {limit} bytes")).into(),
        Error::LargeResponseHeader(..) => Problem::new(format!("{host} answers with too many headers")).into(),
        other => Failure::Broken(format!("the request to {host} failed: {other}")),
    }
}

/// The same for an error while bytes are read.
pub(super) fn io_failure(error: &std::io::Error, host: &str) -> Failure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    match inner {
        Some(inner) if !matches!(inner, ureq::Error::Io(_)) => failure(inner, host),
        _ if error.kind() == std::io::ErrorKind::InvalidData => {
            let problem = Problem::new(format!("{host} could not prove who it is: {error}"));
            problem.help("behind a proxy that reads along, name its certificates in SSL_CERT_FILE").into()
        }
        _ => Failure::Broken(format!("the connection to {host} failed: {error}")),
    }
}
