//! How remote sources are reached, as the command line and the environment say; and `pipe.lock` beside the pipeline.
//! It does not reach anything.

use std::path::{Path, PathBuf};

use crate::error::{Problem, Result};
use crate::fetch::{Proxies, Settings, Token};
use crate::graph::Graph;
use crate::lockfile::{self, Lockfile};
use crate::spec::Pipeline;
use crate::store::Store;

/// The settings of the user: options, then the variables that the programs of Hugging Face read, then their files.
pub fn settings(offline: bool, store: &Store) -> Result<Settings> {
    let home = variable("HF_HOME").map(path).or_else(|| {
        let cache =
            variable("XDG_CACHE_HOME").map(path).or_else(|| variable("HOME").map(|home| path(home).join(".cache")));
        cache.map(|cache| cache.join("huggingface"))
    });
    let home = home.unwrap_or_else(|| store.root().join("huggingface"));
    let hub_cache = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")).map(path);
    let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| Settings::default().endpoint);
    let settings = Settings {
        offline: offline || flag("HF_HUB_OFFLINE"),
        endpoint: endpoint.trim_end_matches('/').to_owned(),
        token: token(&home)?,
        hub_cache: hub_cache.unwrap_or_else(|| home.join("hub")),
        downloads: store.root().join("downloads"),
        proxies: Proxies {
            https: proxy("https_proxy"),
            http: proxy("http_proxy"),
            except: either("no_proxy").unwrap_or_default(),
        },
        certificates: variable("SSL_CERT_FILE").map(path),
    };
    Ok(settings)
}

/// `pipe.lock` beside the pipeline, if a step that is needed has a remote source; of several pipelines of one file.
pub fn lockfile(pipelines: &[Pipeline]) -> Result<Lockfile> {
    let remote = |pipeline: &Pipeline| {
        let needed = Graph::of(pipeline).order(&pipeline.targets);
        needed.iter().any(|&step| pipeline.steps[step].action.remote().is_some())
    };
    let Some(pipeline) = pipelines.iter().find(|pipeline| remote(pipeline)) else { return Ok(Lockfile::none()) };
    let beside = pipeline.file.parent().unwrap_or(Path::new(""));
    Lockfile::read(beside.join(lockfile::NAME))
}

/// The token of `HF_TOKEN`, or of the file in which `hf auth login` leaves it.
fn token(home: &Path) -> Result<Option<Token>> {
    if let Some(text) = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")) {
        let wrong = || {
            Problem::new("HF_TOKEN is not a token: it has characters that no token has")
                .help("set it to a token from https://huggingface.co/settings/tokens, or unset it")
        };
        return Token::new(&text).map(Some).ok_or_else(wrong);
    }
    let file = variable("HF_TOKEN_PATH").map_or_else(|| home.join("token"), path);
    // A file that is not there or cannot be read is no token: what needs one says so.
    Ok(std::fs::read_to_string(file).ok().as_deref().and_then(Token::new))
}

/// A variable that says something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// In small letters or in capitals, as every program reads them.
fn either(name: &str) -> Option<String> {
    variable(name).or_else(|| variable(&name.to_uppercase()))
}

fn proxy(name: &str) -> Option<String> {
    either(name).or_else(|| either("all_proxy"))
}

/// As Hugging Face's programs read flags.
fn flag(name: &str) -> bool {
    variable(name).is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str()))
}

/// `~/` is the home folder also where no shell has read it.
fn path(text: String) -> PathBuf {
    match (text.strip_prefix("~/"), variable("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(text),
    }
}
