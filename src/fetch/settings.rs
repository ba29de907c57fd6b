//! What of the machine and its user decides how remote sources are reached.
//! It does not read the environment: the command line does.

use std::fmt;
use std::path::PathBuf;

use super::address::is_loopback;
use super::url::Url;

/// How remote sources are reached and where they are kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// True if nothing may go over the network.
    pub offline: bool,
    /// Where the Hub is.
    pub endpoint: String,
    /// The user's token for the Hub.
    pub token: Option<Token>,
    /// The cache of the Hub's own programs: `models--owner--name/…` in it.
    pub hub_cache: PathBuf,
    /// What is fetched from web servers, finished or not; a folder of the cache.
    pub downloads: PathBuf,
    /// Proxies by scheme.
    pub proxies: Proxies,
    /// A file of certificates (PEM) to trust instead of the built-in ones.
    pub certificates: Option<PathBuf>,
}

impl Default for Settings {
    /// Nothing can be reached.
    fn default() -> Self {
        Self {
            offline: true,
            endpoint: "https://huggingface.co".to_owned(),
            token: None,
            hub_cache: PathBuf::new(),
            downloads: PathBuf::new(),
            proxies: Proxies::default(),
            certificates: None,
        }
    }
}

/// A secret. It cannot be shown or written by mistake: it has no `Display`, and `Debug` hides it.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token, without the blanks around it; none if nothing is left, or if it could not stand in a header.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let sendable = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        sendable.then(|| Self(text.to_owned()))
    }

    /// The header that carries it.
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// Proxies, as `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` name them.
#[derive(Clone, Default)]
pub struct Proxies {
    /// For `https`.
    pub https: Option<String>,
    /// For `http`.
    pub http: Option<String>,
    /// Hosts that are reached without, separated by commas: `example.org` and all below it, or `*`.
    pub except: String,
}

impl Proxies {
    /// The proxy for a host.
    pub(super) fn of(&self, url: &Url) -> Option<&str> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        proxy.as_deref().filter(|_| !self.excepts(url.host()))
    }

    fn excepts(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        self.except.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
            // A port may stand behind a name.
            let name = match entry.rsplit_once(':') {
                Some((name, port)) if !name.contains(':') && port.parse::<u16>().is_ok() => name,
                _ => entry,
            };
            let name = name.trim_start_matches('[').trim_end_matches(']');
            let name = name.trim_start_matches("*.").trim_start_matches('.');
            entry == "*" || host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
        })
    }
}

impl fmt::Debug for Proxies {
    /// Their addresses may have passwords in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proxies(hidden)")
    }
}

impl Settings {
    /// The token, if this request may carry it: to the Hub itself and nobody else, and not in clear over a network.
    pub(super) fn token_for(&self, url: &Url) -> Option<&Token> {
        let hub = Url::parse(&self.endpoint)?;
        let safe = url.scheme() == "https" || is_loopback(url.host());
        self.token.as_ref().filter(|_| safe && url.origin() == hub.origin())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_the_hub_alone_and_never_in_clear() {
        let token = Token::new(" hf_secret\n");
        assert!(!format!("{token:?}").contains("secret"));
        let mut settings = Settings { token, ..Settings::default() };
        let may = |settings: &Settings, url: &str| settings.token_for(&Url::parse(url).unwrap()).is_some();
        assert!(may(&settings, "https://huggingface.co/a/b"));
        assert!(may(&settings, "https://HuggingFace.co:443/a/b"));
        for other in ["https://cdn.huggingface.co/x", "http://huggingface.co/x", "https://huggingface.co:444/x"] {
            assert!(!may(&settings, other), "{other}");
        }
        settings.endpoint = "http://mirror.example".to_owned();
        assert!(!may(&settings, "http://mirror.example/x"));
        settings.endpoint = "http://127.0.0.1:80/hub".to_owned();
        assert!(may(&settings, "http://127.0.0.1/hub/x"));
        assert!(Token::new("  ").is_none() && Token::new("a b").is_none());
    }

    #[test]
    fn proxies_are_chosen_by_scheme_and_exceptions() {
        let proxies = Proxies {
            https: Some("http://proxy:3128".to_owned()),
            http: None,
            except: "localhost, .corp.example,example.org:443,[::1]".to_owned(),
        };
        let of = |url: &str| proxies.of(&Url::parse(url).unwrap()).is_some();
        assert!(of("https://huggingface.co/x") && of("https://notexample.org/x"));
        assert!(!of("http://huggingface.co/x"));
        for direct in ["https://localhost/x", "https://a.corp.example/", "https://cdn.example.org/", "https://[::1]/"] {
            assert!(!of(direct), "{direct}");
        }
        assert!(Proxies { except: "*".to_owned(), ..proxies }.excepts("huggingface.co"));
    }
}
