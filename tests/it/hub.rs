//! Downloads through the binary, against a server that speaks the Hub's protocol and misbehaves.

mod faults;
mod killed;
mod lock;
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pipe::digest::{Digest, files_below};
use pipe::lockfile::{Locked, Lockfile};

use server::{Fault, Server, etag, noise, proxy, sha256};

const TOKEN: &str = "hf_TheSecretOfThisTest";

/// A pipeline of one step `it` with this source, and what it needs around it.
struct Project {
    _folder: tempfile::TempDir,
    root: PathBuf,
    server: Server,
}

impl Project {
    fn new(source: &str) -> Self {
        Self::with(source, "")
    }

    /// `more` goes into `with:`.
    fn with(source: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("проект с пробелом");
        fs::create_dir_all(root.join("pipelines")).unwrap();
        let project = Self { _folder: folder, root, server: Server::start() };
        project.write("x", source, more);
        project
    }

    fn write(&self, name: &str, source: &str, more: &str) {
        let source = source.replace("HUB", &self.server.endpoint());
        let text = format!(
            "name: {name}\nparams: {{ source: '{source}' }}\nsteps:\n  it: {{ uses: download, with: {{ source: '${{params.source}}'{more} }} }}\n"
        );
        fs::write(self.root.join(format!("pipelines/{name}.yaml")), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command.current_dir(&self.root).args(args);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_lowercase();
            let foreign = ["hf_", "hugging", "xdg_", "pipe_", "ssl_"].iter().any(|start| text.starts_with(start));
            if foreign || text.ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.root.join("home")).env("HF_ENDPOINT", self.server.endpoint());
        command
    }

    fn pipe(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// `pipe run pipelines/x.yaml --json` with more arguments.
    fn run(&self, more: &[&str]) -> Output {
        self.pipe(&[&["run", "pipelines/x.yaml", "--json"], more].concat())
    }

    /// Runs, and what came out; fails the test if the run does.
    fn fetched(&self, more: &[&str]) -> PathBuf {
        let output = self.run(more);
        assert!(output.status.success(), "{}", told(&output));
        self.result()
    }

    fn result(&self) -> PathBuf {
        fs::canonicalize(self.root.join("cache/results/x/it/file")).unwrap()
    }

    /// Runs, and what went wrong.
    fn fails(&self, more: &[&str]) -> String {
        let output = self.pipe(&[&["run", "pipelines/x.yaml"], more].concat());
        assert!(!output.status.success(), "{}", told(&output));
        self.no_secret(&told(&output));
        String::from_utf8(output.stderr).unwrap()
    }

    fn lock(&self) -> PathBuf {
        self.root.join("pipelines/pipe.lock")
    }

    fn locked(&self, source: &str) -> Option<Locked> {
        let source = source.replace("HUB", &self.server.endpoint());
        Lockfile::read(self.lock()).unwrap().get(&source)
    }

    /// Where the Hub's own programs keep what they fetch.
    fn hub_cache(&self) -> PathBuf {
        self.root.join("home/.cache/huggingface/hub")
    }

    /// Forgets the results, but not what was fetched.
    fn forget_results(&self) {
        fs::remove_dir_all(self.root.join("cache/records")).unwrap();
        fs::remove_dir_all(self.root.join("cache/objects")).unwrap();
    }

    fn forget_fetched(&self) {
        for folder in [self.hub_cache(), self.root.join("cache/downloads")] {
            let _ = fs::remove_dir_all(folder);
        }
    }

    /// The token and the password of the proxy stand nowhere.
    fn no_secret(&self, told: &str) {
        let mut files = Vec::new();
        walk(&self.root, &mut files);
        for secret in [TOKEN, "proxypassword", "X-Signature", "words of the server"] {
            assert!(!told.contains(secret), "{secret} is told:\n{told}");
            for (path, bytes) in &files {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{secret} is in {}", path.display());
            }
        }
    }
}

/// Every file below a folder; links are not followed, because some lead nowhere.
fn walk(folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            walk(&path, files);
        } else if meta.is_file() {
            files.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The files of a small model, and others beside them.
fn model() -> BTreeMap<&'static str, Vec<u8>> {
    let (a, b) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    let index = serde_json::json!({ "weight_map": { "x": b, "y": a, "z": a } });
    BTreeMap::from([
        (".gitattributes", b"x".to_vec()),
        ("README.md", b"words".to_vec()),
        ("config.json", br#"{"model_type": "llama", "hidden_size": 64}"#.to_vec()),
        ("tokenizer.json", b"{}".to_vec()),
        ("model.safetensors.index.json", index.to_string().into_bytes()),
        (a, noise(1, 300_000)),
        (b, noise(2, 200_000)),
        ("consolidated.safetensors", noise(3, 9)),
        ("pytorch_model.bin", noise(4, 9)),
        ("train.py", b"import os".to_vec()),
    ])
}

const NEEDED: [&str; 5] = [
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
];

fn commit(server: &Server, repo: &str, files: &BTreeMap<&str, Vec<u8>>) -> String {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    server.commit(repo, &files)
}

fn holds(folder: &Path, files: &BTreeMap<&str, Vec<u8>>, names: &[&str]) {
    assert_eq!(files_below(folder).unwrap(), names);
    for name in names {
        assert!(fs::read(folder.join(name)).unwrap() == files[name], "{name}");
    }
}

#[test]
fn of_a_model_what_is_needed_is_fetched_once() {
    let project = Project::new("hf://own/model");
    let files = model();
    let commit = commit(&project.server, "models/own/model", &files);
    let output = project.command(&["run", "pipelines/x.yaml", "--json"]).env("HF_TOKEN", TOKEN).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    holds(&project.result(), &files, &NEEDED);

    let log = project.server.log();
    let asked = |name: &str| log.iter().any(|request| request.path.contains(name));
    for name in [".gitattributes", "README", "consolidated", "pytorch_model", "train.py"] {
        assert!(!asked(name), "{name} was asked for");
    }
    // The token goes to the Hub and nowhere else.
    for request in &log {
        let due = (request.server == "hub").then(|| format!("Bearer {TOKEN}"));
        assert_eq!(request.header("authorization"), due.as_deref(), "{request:?}");
    }
    assert!(log.iter().any(|request| request.server == "cdn"));
    project.no_secret(&told(&output));

    // What it is, for every later run.
    let locked = project.locked("hf://own/model").unwrap();
    assert_eq!(locked.revision.as_deref(), Some(commit.as_str()));
    assert_eq!(locked.digest, Digest::of_folder(&project.result()).unwrap());
    assert_eq!(locked.files.keys().map(String::as_str).collect::<Vec<_>>(), NEEDED);
    for (name, file) in &locked.files {
        assert_eq!((file.bytes, &file.sha256), (files[name.as_str()].len() as u64, &sha256(&files[name.as_str()])));
    }

    // The Hub's own cache has it, as its own programs lay it out.
    let cache = project.hub_cache().join("models--own--model");
    assert_eq!(fs::read_to_string(cache.join("refs/main")).unwrap(), commit);
    for name in NEEDED {
        let link = fs::read_link(cache.join("snapshots").join(&commit).join(name)).unwrap();
        assert_eq!(link, Path::new("../../blobs").join(etag(name, &files[name])));
    }
    let blobs = files_below(&cache.join("blobs")).unwrap();
    assert!(blobs.len() == NEEDED.len() && !blobs.iter().any(|name| name.contains("incomplete")), "{blobs:?}");

    // A second run asks nobody, nor does one that has lost the results.
    project.fetched(&[]);
    project.forget_results();
    project.fetched(&[]);
    holds(&project.result(), &files, &NEEDED);
    assert!(project.server.log().is_empty());
}

#[test]
fn a_file_or_folder_of_a_repository_is_fetched_alone() {
    let project = Project::new("hf://datasets/own/data@v1/terra/val file.jsonl");
    let files: BTreeMap<&str, Vec<u8>> = BTreeMap::from([
        ("terra/val file.jsonl", b"val".to_vec()),
        ("terra/train.jsonl", b"train".to_vec()),
        ("other.txt", b"other".to_vec()),
        (".gitattributes", b"x".to_vec()),
    ]);
    let first = commit(&project.server, "datasets/own/data", &files);
    project.server.tag("datasets/own/data", "v1", &first);
    project.server.tag("datasets/own/data", "refs/pr/1", &first);
    project.server.commit("datasets/own/data", &[("new.txt", b"new")]);
    assert_eq!(fs::read(project.fetched(&[])).unwrap(), b"val");
    for (source, names) in [
        ("hf://datasets/own/data@v1/terra", vec!["train.jsonl", "val file.jsonl"]),
        ("hf://datasets/own/data@refs/pr/1", vec!["other.txt", "terra/train.jsonl", "terra/val file.jsonl"]),
        (&format!("hf://datasets/own/data@{first}/terra/"), vec!["train.jsonl", "val file.jsonl"]),
        ("hf://datasets/own/data", vec!["new.txt"]),
    ] {
        let result = project.fetched(&["--set", &format!("source={source}")]);
        assert_eq!(files_below(&result).unwrap(), names, "{source}");
    }
    let missing = project.fails(&["--set", "source=hf://datasets/own/data@v1/terra/test.jsonl"]);
    assert!(missing.contains("no file or folder of this name") && missing.contains("`terra/train.jsonl`"), "{missing}");
    let missing = project.fails(&["--set", "source=hf://datasets/own/data@v2"]);
    assert!(missing.contains("hf://datasets/own/data has no revision `v2` (404)"), "{missing}");
}

#[test]
fn what_hugging_faces_programs_have_fetched_is_used() {
    let project = Project::new("hf://own/model");
    let mut files = model();
    let commit = commit(&project.server, "models/own/model", &files);
    let cache = project.hub_cache().join("models--own--model");
    // All but one shard is there; another is damaged; a file that is not needed lies in the snapshot.
    fs::create_dir_all(cache.join("blobs")).unwrap();
    fs::create_dir_all(cache.join("snapshots").join(&commit)).unwrap();
    files.remove("model-00002-of-00002.safetensors");
    for (name, bytes) in &files {
        let etag = etag(name, bytes);
        let bytes = if *name == "config.json" { vec![b' '; bytes.len()] } else { bytes.clone() };
        fs::write(cache.join("blobs").join(&etag), bytes).unwrap();
        let link = cache.join("snapshots").join(&commit).join(name);
        std::os::unix::fs::symlink(format!("../../blobs/{etag}"), link).unwrap();
    }
    let output = project.run(&[]);
    assert!(told(&output).contains("`config.json` in the Hugging Face cache is damaged"), "{}", told(&output));
    holds(&project.result(), &model(), &NEEDED);
    let fetched: Vec<String> = project.server.log().into_iter().filter(|r| r.method == "GET").map(|r| r.path).collect();
    assert!(fetched.iter().any(|path| path.contains("config.json")));
    assert!(fetched.iter().any(|path| path.contains("model-00002")));
    assert!(!fetched.iter().any(|path| path.contains("model-00001") || path.contains("tokenizer")), "{fetched:?}");

    // `HF_HOME` and `HF_HUB_CACHE` say where it is; the latter is stronger.
    project.forget_results();
    fs::rename(project.hub_cache(), project.root.join("hub elsewhere")).unwrap();
    let run = |variables: &[(&str, &str)]| {
        let mut command = project.command(&["run", "pipelines/x.yaml", "--offline"]);
        command.envs(variables.iter().copied());
        command.output().unwrap()
    };
    assert!(told(&run(&[("HF_HOME", "other")])).contains("is not in the Hugging Face cache"));
    assert!(run(&[("HF_HOME", "other"), ("HF_HUB_CACHE", "hub elsewhere")]).status.success());
    project.forget_results();
    fs::create_dir(project.root.join("other")).unwrap();
    fs::rename(project.root.join("hub elsewhere"), project.root.join("other/hub")).unwrap();
    assert!(run(&[("HF_HOME", "other")]).status.success());
}

#[test]
fn offline_nothing_is_asked() {
    let project = Project::new("hf://own/model");
    let files = model();
    commit(&project.server, "models/own/model", &files);
    let missing = project.fails(&["--offline"]);
    assert!(missing.contains("is not in the Hugging Face cache, and nothing may be fetched"), "{missing}");
    assert!(missing.contains("help: run once without --offline") && !project.lock().exists(), "{missing}");
    assert!(project.server.log().is_empty());

    project.fetched(&[]);
    project.server.log();
    // Also without the lock: the Hub's cache remembers where `main` was.
    fs::remove_file(project.lock()).unwrap();
    project.forget_results();
    let output = project.run(&["--offline"]);
    assert!(
        output.status.success() && told(&output).contains("as it was when it was last fetched"),
        "{}",
        told(&output)
    );
    holds(&project.result(), &files, &NEEDED);
    project.forget_results();
    let output = project.command(&["run", "pipelines/x.yaml"]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert!(project.server.log().is_empty());

    let project = Project::new("HUB/files/a.txt");
    project.server.file("a.txt", b"text", &[]);
    let missing = project.fails(&["--offline"]);
    assert!(missing.contains("/files/a.txt is not here, and nothing may be fetched"), "{missing}");
    project.fetched(&[]);
    project.forget_results();
    project.server.log();
    assert_eq!(fs::read(project.fetched(&["--offline"])).unwrap(), b"text");
    assert!(project.server.log().is_empty());
}

#[test]
fn a_token_comes_from_the_file_that_a_login_leaves() {
    let project = Project::new("hf://own/model");
    commit(&project.server, "models/own/model", &model());
    project.server.gate("models/own/model", TOKEN);
    let home = project.root.join("home/.cache/huggingface");
    fs::create_dir_all(&home).unwrap();
    let refused = project.fails(&[]);
    assert!(refused.contains("hf://own/model is gated: its owner wants its terms to be accepted (401)"), "{refused}");
    let page = format!("accept them at {}/own/model with your account, then make a token", project.server.endpoint());
    assert!(refused.contains(&page) && refused.contains("set HF_TOKEN to it"), "{refused}");
    assert!(!project.lock().exists());

    let other = project.command(&["run", "pipelines/x.yaml"]).env("HF_TOKEN", "hf_other").output().unwrap();
    assert!(told(&other).contains("is gated: its owner wants its terms to be accepted (403)"), "{}", told(&other));
    assert!(told(&other).contains("whether the token in HF_TOKEN may read it"), "{}", told(&other));
    let odd = project.command(&["run", "pipelines/x.yaml"]).env("HF_TOKEN", "two words").output().unwrap();
    assert_eq!(odd.status.code(), Some(2));
    assert!(told(&odd).contains("HF_TOKEN is not a token") && !told(&odd).contains("two words"), "{}", told(&odd));

    fs::write(home.join("token"), format!("{TOKEN}\n")).unwrap();
    project.fetched(&[]);
    fs::remove_file(home.join("token")).unwrap();
    project.no_secret("");
}

#[test]
fn plain_files_are_unpacked_and_fetched_once_for_several_steps() {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for name in ["TERRa/train.jsonl", "TERRa/val.jsonl"] {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, name.as_bytes()).unwrap();
    }
    let zip = zip.finish().unwrap().into_inner();
    let project = Project::new("HUB/files/TERRa");
    let url = project.server.file("TERRa", &zip, &[("ETag", "\"1\"")]);
    let text = format!(
        "name: x\nsteps:\n  it: {{ uses: download, with: {{ source: '{url}', entry: TERRa/val.jsonl }} }}\n  \
         train: {{ uses: download, with: {{ source: '{url}', entry: TERRa/train.jsonl }} }}\n"
    );
    fs::write(project.root.join("pipelines/x.yaml"), text).unwrap();
    assert_eq!(fs::read(project.fetched(&["-j2"])).unwrap(), b"TERRa/val.jsonl");
    assert_eq!(project.server.log().len(), 1);
    assert_eq!(project.locked("HUB/files/TERRa").unwrap().files["TERRa"].sha256, sha256(&zip));
}

#[test]
fn a_proxy_is_used_but_for_its_exceptions() {
    let project = Project::new("http://files.example/files/a.txt");
    // Only the proxy knows this name; the port is that of the server.
    let port = project.server.endpoint().rsplit_once(':').unwrap().1.to_owned();
    project.server.file("a.txt", b"through", &[]);
    let source = format!("source=http://files.example:{port}/files/a.txt");
    let pin = sha256(b"through");
    project.write("x", "HUB/files/a.txt", &format!(", pin: 'sha256:{pin}'"));
    let (address, seen) = proxy();
    let run = |source: &str, variables: &[(&str, &str)]| {
        let mut command = project.command(&["run", "pipelines/x.yaml", "--set", source]);
        command.envs(variables.iter().copied());
        command.output().unwrap()
    };
    let output = run(&source, &[("HTTP_PROXY", &address)]);
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(fs::read(project.result()).unwrap(), b"through");
    assert_eq!(*seen.lock().unwrap(), [format!("CONNECT files.example:{port}")]);
    project.no_secret(&told(&output));

    // An https proxy is not for http, and an exception is not passed through it.
    let direct = format!("source={}/files/a.txt", project.server.endpoint());
    for variables in [
        vec![("HTTPS_PROXY", address.as_str())],
        vec![("http_proxy", address.as_str()), ("NO_PROXY", "localhost,127.0.0.1")],
    ] {
        project.forget_results();
        project.forget_fetched();
        let output = run(&direct, &variables);
        assert!(output.status.success(), "{}", told(&output));
    }
    assert_eq!(seen.lock().unwrap().len(), 1);
    let output = run(&direct, &[("HTTP_PROXY", "no address at all"), ("NO_PROXY", "")]);
    assert!(output.status.success(), "reused without asking: {}", told(&output));
    project.forget_results();
    project.forget_fetched();
    let output = run(&direct, &[("HTTP_PROXY", "no address at all")]);
    assert!(told(&output).contains("the proxy for `http` is not an address"), "{}", told(&output));
}

#[test]
fn what_config_json_must_say_is_checked() {
    let project = Project::with("hf://own/model", ", config: { model_type: llama, hidden_size: 64.0 }");
    commit(&project.server, "models/own/model", &model());
    project.fetched(&[]);
    project.write("x", "hf://own/model", ", config: { model_type: llama, hidden_size: 4096 }");
    let told = project.fails(&[]);
    assert!(told.contains("config.json of hf://own/model says `hidden_size: 64`, not `4096`"), "{told}");
}
