//! A server on loopback that speaks the Hub's protocol, serves plain files, and misbehaves on request.
//! A second port stands for the content network behind the Hub.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What goes wrong with a request.
#[derive(Clone)]
pub enum Fault {
    /// This status, with these headers.
    Status(u16, Vec<(&'static str, String)>),
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// The connection ends before an answer.
    Drop,
    /// So many bytes at a time, with a pause of milliseconds after each.
    Slow(usize, u64),
    /// Other bytes of the same length.
    Wrong,
    /// `Content-Length` says so many bytes more (or less) than there are.
    Length(i64),
    /// `Range` is not understood.
    NoRange,
    /// The body comes in chunks, without a length.
    Chunked,
    /// A redirect to this address.
    Redirect(u16, String),
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// `hub` or `cdn`.
    pub server: &'static str,
    pub method: String,
    pub path: String,
    /// Names in small letters.
    pub headers: BTreeMap<String, String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

#[derive(Clone, Default)]
struct Repo {
    /// By commit: path to bytes.
    commits: BTreeMap<String, BTreeMap<String, Arc<Vec<u8>>>>,
    refs: BTreeMap<String, String>,
    gated: bool,
}

#[derive(Clone)]
struct File {
    bytes: Arc<Vec<u8>>,
    headers: Vec<(&'static str, String)>,
}

#[derive(Default)]
struct State {
    repos: BTreeMap<String, Repo>,
    files: BTreeMap<String, File>,
    /// The token that opens what is gated.
    token: Option<String>,
    faults: Vec<(String, usize, Fault)>,
    log: Vec<Request>,
    ports: (u16, u16),
}

/// The running server; it lives as long as the test.
#[derive(Clone)]
pub struct Server(Arc<Mutex<State>>);

/// Files that lie in LFS, as on the Hub: weights and archives.
fn in_lfs(path: &str) -> bool {
    [".safetensors", ".bin", ".model", ".zip", ".gz"].iter().any(|ending| path.ends_with(ending))
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn git(bytes: &[u8]) -> String {
    let mut sha1 = Sha1::new();
    sha1.update(format!("blob {}\0", bytes.len()));
    sha1.update(bytes);
    sha1.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of these bytes in the Hub's cache.
pub fn etag(path: &str, bytes: &[u8]) -> String {
    if in_lfs(path) { sha256(bytes) } else { git(bytes) }
}

/// Bytes that look like nothing and are the same in every run.
pub fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u32::from(seed) * 2 + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

impl Server {
    pub fn start() -> Self {
        let (hub, cdn) = (bind(), bind());
        let ports = (port(&hub), port(&cdn));
        let server = Self(Arc::new(Mutex::new(State { ports, ..State::default() })));
        for (listener, name) in [(hub, "hub"), (cdn, "cdn")] {
            let server = server.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let server = server.clone();
                    thread::spawn(move || {
                        // A client that goes away is what several tests are about.
                        let _ = server.serve(stream, name);
                    });
                }
            });
        }
        server
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the lock")
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.state().ports.0)
    }

    pub fn cdn(&self) -> String {
        format!("http://localhost:{}", self.state().ports.1)
    }

    /// Commits files to `main` of a repository (`models/a/b` or `datasets/a/b`); answers the commit.
    pub fn commit(&self, repo: &str, files: &[(&str, &[u8])]) -> String {
        let mut state = self.state();
        let repo = state.repos.entry(repo.to_owned()).or_default();
        let files: BTreeMap<String, Arc<Vec<u8>>> =
            files.iter().map(|(path, bytes)| ((*path).to_owned(), Arc::new(bytes.to_vec()))).collect();
        let mut all = Vec::new();
        for (path, bytes) in &files {
            all.extend_from_slice(path.as_bytes());
            all.extend_from_slice(bytes);
        }
        let commit = git(&all);
        repo.commits.insert(commit.clone(), files);
        repo.refs.insert("main".to_owned(), commit.clone());
        commit
    }

    /// Puts other bytes where a commit has a file, as no honest server could.
    pub fn rewrite(&self, repo: &str, commit: &str, path: &str, bytes: &[u8]) {
        let mut state = self.state();
        let files = state.repos.get_mut(repo).and_then(|repo| repo.commits.get_mut(commit)).expect("a commit");
        files.insert(path.to_owned(), Arc::new(bytes.to_vec()));
    }

    pub fn tag(&self, repo: &str, name: &str, commit: &str) {
        let mut state = self.state();
        state.repos.get_mut(repo).expect("a repository").refs.insert(name.to_owned(), commit.to_owned());
    }

    pub fn gate(&self, repo: &str, token: &str) {
        let mut state = self.state();
        state.repos.get_mut(repo).expect("a repository").gated = true;
        state.token = Some(token.to_owned());
    }

    /// Serves a plain file at `/files/NAME`; answers its address.
    pub fn file(&self, name: &str, bytes: &[u8], headers: &[(&'static str, &str)]) -> String {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let file = File { bytes: Arc::new(bytes.to_vec()), headers };
        self.state().files.insert(format!("/files/{name}"), file);
        format!("{}/files/{name}", self.endpoint())
    }

    /// What shall go wrong with the next so many requests of the kind `GET /path`, of which `on` is a piece.
    pub fn fault(&self, on: &str, times: usize, fault: Fault) {
        self.state().faults.push((on.to_owned(), times, fault));
    }

    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// The requests so far; forgets them.
    pub fn log(&self) -> Vec<Request> {
        std::mem::take(&mut self.state().log)
    }

    fn serve(&self, stream: TcpStream, name: &'static str) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let Some(request) = read(&mut reader, name)? else { return Ok(()) };
        let fault = {
            let mut state = self.state();
            state.log.push(request.clone());
            let line = format!("{} {}", request.method, request.path);
            let found = state.faults.iter_mut().find(|(on, times, _)| *times > 0 && line.contains(on.as_str()));
            found.map(|(_, times, fault)| {
                *times = times.saturating_sub(1);
                fault.clone()
            })
        };
        let answer = match &fault {
            Some(Fault::Drop) => return Ok(()),
            Some(Fault::Status(code, headers)) => Answer { headers: headers.clone(), ..Answer::status(*code) },
            Some(Fault::Redirect(code, to)) => {
                Answer { headers: vec![("Location", to.clone())], ..Answer::status(*code) }
            }
            _ => self.answer(&request, matches!(fault, Some(Fault::NoRange))),
        };
        answer.write(stream, request.method == "HEAD", fault.as_ref())
    }

    fn answer(&self, request: &Request, no_range: bool) -> Answer {
        let state = self.state();
        let path = request.path.split('?').next().unwrap_or_default();
        if let Some(sha) = path.strip_prefix("/lfs/") {
            let all = state.repos.values().flat_map(|repo| repo.commits.values()).flat_map(BTreeMap::values);
            let bytes = all.clone().find(|bytes| sha256(bytes) == sha).cloned();
            // The ETag of the content network is another one than the Hub's.
            return bytes.map_or(Answer::status(403), |bytes| {
                Answer::of(bytes, request, no_range, vec![("ETag", "\"cdn\"".to_owned())])
            });
        }
        if let Some(file) = state.files.get(path) {
            let etag = file.headers.iter().find(|(name, _)| *name == "ETag").map(|(_, etag)| etag.as_str());
            if etag.is_some() && request.header("if-none-match") == etag {
                return Answer::status(304);
            }
            return Answer::of(file.bytes.clone(), request, no_range, file.headers.clone());
        }
        self.hub(&state, request, path, no_range)
    }

    fn hub(&self, state: &State, request: &Request, path: &str, no_range: bool) -> Answer {
        let (api, rest) = match path.strip_prefix("/api/") {
            Some(rest) => (true, rest.to_owned()),
            None => match path.strip_prefix("/datasets/") {
                Some(rest) => (false, format!("datasets/{rest}")),
                None => (false, format!("models/{}", path.trim_start_matches('/'))),
            },
        };
        let parts: Vec<&str> = rest.splitn(4, '/').collect();
        let [kind, owner, name, rest] = parts.as_slice() else { return Answer::error(404, "RepoNotFound") };
        let Some(repo) = state.repos.get(&format!("{kind}/{owner}/{name}")) else {
            return Answer::error(401, "RepoNotFound");
        };
        let token = request.header("authorization").and_then(|header| header.strip_prefix("Bearer "));
        let allowed = !repo.gated || (token.is_some() && token == state.token.as_deref());
        let denied = || Answer::error(if token.is_some() { 403 } else { 401 }, "GatedRepo");
        if api {
            let revision = rest.strip_prefix("revision/").unwrap_or("main").replace("%2F", "/");
            let commit = repo.refs.get(&revision).unwrap_or(&revision);
            let Some(files) = repo.commits.get(commit) else { return Answer::error(404, "RevisionNotFound") };
            let siblings: Vec<_> = files.keys().map(|path| serde_json::json!({ "rfilename": path })).collect();
            let info = serde_json::json!({ "id": format!("{owner}/{name}"), "sha": commit, "siblings": siblings });
            // As on the Hub, anybody may see what a gated repository has.
            let json = vec![("Content-Type", "application/json".to_owned())];
            return Answer { headers: json, body: Arc::new(info.to_string().into_bytes()), ..Answer::status(200) };
        }
        let Some((commit, file)) = rest.strip_prefix("resolve/").and_then(|rest| rest.split_once('/')) else {
            return Answer::error(404, "EntryNotFound");
        };
        if !allowed {
            return denied();
        }
        let Some(files) = repo.commits.get(commit) else { return Answer::error(404, "RevisionNotFound") };
        let file = file.replace("%20", " ");
        let Some(bytes) = files.get(&file) else { return Answer::error(404, "EntryNotFound") };
        let head = vec![("X-Repo-Commit", commit.to_owned())];
        if in_lfs(&file) {
            let to = format!("http://localhost:{}/lfs/{}?X-Signature=signed", state.ports.1, sha256(bytes));
            let linked = [
                ("X-Linked-Etag", format!("\"{}\"", sha256(bytes))),
                ("X-Linked-Size", bytes.len().to_string()),
                ("Location", to),
            ];
            return Answer { headers: [head, linked.to_vec()].concat(), ..Answer::status(302) };
        }
        let headers = [head, vec![("ETag", format!("\"{}\"", git(bytes)))]].concat();
        Answer::of(bytes.clone(), request, no_range, headers)
    }
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Arc<Vec<u8>>,
    /// What of the body is sent.
    from: usize,
}

impl Answer {
    fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Arc::default(), from: 0 }
    }

    fn error(status: u16, code: &str) -> Self {
        let headers = vec![("X-Error-Code", code.to_owned()), ("X-Error-Message", "words of the server".to_owned())];
        Self { headers, ..Self::status(status) }
    }

    /// All of the bytes, or what `Range` wants of them if `If-Range` allows it.
    fn of(bytes: Arc<Vec<u8>>, request: &Request, no_range: bool, mut headers: Vec<(&'static str, String)>) -> Self {
        let value = |name: &str| headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str());
        let same = request
            .header("if-range")
            .is_none_or(|validator| value("ETag") == Some(validator) || value("Last-Modified") == Some(validator));
        let range = request.header("range").filter(|_| same && !no_range);
        let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        let length = bytes.len();
        match start {
            None => Self { status: 200, headers, body: bytes, from: 0 },
            Some(start) if start >= length => {
                headers.push(("Content-Range", format!("bytes */{length}")));
                Self { status: 416, headers, body: Arc::default(), from: 0 }
            }
            Some(start) => {
                headers.push(("Content-Range", format!("bytes {start}-{}/{length}", length - 1)));
                Self { status: 206, headers, body: bytes, from: start }
            }
        }
    }

    fn write(&self, mut stream: TcpStream, head: bool, fault: Option<&Fault>) -> std::io::Result<()> {
        let body = &self.body[self.from..];
        let mut text = format!("HTTP/1.1 {} It\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let chunked = matches!(fault, Some(Fault::Chunked));
        let more = if let Some(Fault::Length(more)) = fault { *more } else { 0 };
        if chunked {
            text.push_str("Transfer-Encoding: chunked\r\n");
        } else {
            text.push_str(&format!("Content-Length: {}\r\n", body.len() as i64 + more));
        }
        stream.write_all(format!("{text}\r\n").as_bytes())?;
        if head {
            return Ok(());
        }
        match fault {
            Some(Fault::Cut(after)) => stream.write_all(&body[..body.len().min(*after)]),
            Some(Fault::Slow(piece, pause)) => {
                for piece in body.chunks(*piece) {
                    stream.write_all(piece)?;
                    stream.flush()?;
                    thread::sleep(Duration::from_millis(*pause));
                }
                Ok(())
            }
            Some(Fault::Wrong) => stream.write_all(&body.iter().map(|byte| byte ^ 1).collect::<Vec<_>>()),
            Some(Fault::Chunked) => {
                for piece in body.chunks(1000) {
                    stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
                    stream.write_all(piece)?;
                    stream.write_all(b"\r\n")?;
                }
                stream.write_all(b"0\r\n\r\n")
            }
            _ => stream.write_all(body),
        }
    }
}

fn bind() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).expect("a free port")
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("an address").port()
}

fn read(reader: &mut impl BufRead, server: &'static str) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    reader.take(1 << 16).read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.take(1 << 16).read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(Some(Request { server, method, path, headers }))
}

/// A proxy that takes CONNECT and passes everything on; answers its address and whom it connected to.
pub fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = bind();
    let address = format!("http://user:proxypassword@127.0.0.1:{}", port(&listener));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let log = log.clone();
            thread::spawn(move || -> std::io::Result<()> {
                let mut reader = BufReader::new(stream.try_clone()?);
                let Some(request) = read(&mut reader, "proxy")? else { return Ok(()) };
                let to = request.path.clone();
                log.lock().expect("not poisoned").push(format!("{} {to}", request.method));
                // The name may be one that only the proxy knows.
                let port = to.rsplit_once(':').map_or("", |(_, port)| port).parse().unwrap_or(0);
                let mut other = TcpStream::connect(("127.0.0.1", port))?;
                let mut stream = stream;
                stream.write_all(b"HTTP/1.1 200 connected\r\n\r\n")?;
                let (mut back_from, mut back_to) = (other.try_clone()?, stream.try_clone()?);
                let back = thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = reader.read(&mut buffer) {
                    other.write_all(&buffer[..read])?;
                }
                let _ = back.join();
                Ok(())
            });
        }
    });
    (address, seen)
}
