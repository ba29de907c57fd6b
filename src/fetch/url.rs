//! Addresses of single requests: their parts, and where a redirect leads.
//! It does not know HTTP.

use std::fmt::Write as _;

/// `scheme://host:port/path?query`, without a user, a password or a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    port: u16,
    rest: String,
}

impl Url {
    /// Reads an absolute `http` or `https` address.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: ureq::http::Uri = ascii(text.split('#').next()?).parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let usual = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let host = authority.host().to_ascii_lowercase();
        let rest = uri.path_and_query().map_or("/", |rest| rest.as_str());
        let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        Some(Self { scheme, host, port: authority.port_u16().unwrap_or(usual), rest })
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The host, in lower case.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What has to be the same for two addresses to be of one server.
    pub fn origin(&self) -> (&str, &str, u16) {
        (&self.scheme, &self.host, self.port)
    }

    /// Where a `Location` header leads.
    pub fn join(&self, location: &str) -> Option<Self> {
        let location = location.trim();
        if location.contains("://") && !location.starts_with(['/', '?']) {
            return Self::parse(location);
        }
        if location.starts_with("//") {
            return Self::parse(&format!("{}:{location}", self.scheme));
        }
        let path = self.rest.split('?').next().unwrap_or("/");
        let rest = match location {
            absolute if absolute.starts_with('/') => absolute.to_owned(),
            query if query.starts_with('?') => format!("{path}{query}"),
            relative => format!("{}/{relative}", path.rsplit_once('/').map_or("", |(folder, _)| folder)),
        };
        Self::parse(&format!("{}://{}:{}{rest}", self.scheme, self.host, self.port))
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        if (self.scheme.as_str(), self.port) != ("https", 443) && (self.scheme.as_str(), self.port) != ("http", 80) {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.rest)
    }
}

/// Letters outside of ASCII, percent-encoded as browsers do.
fn ascii(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii() {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The path of a file, each part percent-encoded.
pub fn encode(path: &str) -> String {
    let mut out = String::new();
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => out.push(byte as char),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let from = Url::parse("https://Hub.example/a/b/c?x=1").unwrap();
        for (location, to) in [
            ("https://cdn.example/y?z", "https://cdn.example/y?z"),
            ("http://hub.example:8080/y", "http://hub.example:8080/y"),
            ("//cdn.example/y", "https://cdn.example/y"),
            ("/api/x", "https://hub.example/api/x"),
            ("d", "https://hub.example/a/b/d"),
            ("?q=https://other", "https://hub.example/a/b/c?q=https://other"),
            ("/r?to=https://other/", "https://hub.example/r?to=https://other/"),
        ] {
            assert_eq!(from.join(location).unwrap().to_string(), to, "{location}");
        }
        assert_eq!(Url::parse("https://a/мир").unwrap().to_string(), "https://a/%D0%BC%D0%B8%D1%80");
        assert_eq!(from.join("ftp://x/y"), None);
        assert_eq!(from.join("https://user:pass@x/y"), None);
        assert_eq!(Url::parse("https://a:443/x"), Url::parse("https://a/x"));
        assert_ne!(Url::parse("https://a:444/x").unwrap().origin(), Url::parse("https://a/x").unwrap().origin());
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(encode("data/мир & x.txt"), "data/%D0%BC%D0%B8%D1%80%20%26%20x.txt");
    }
}
