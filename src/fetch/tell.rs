//! What a failure means to a person: what happened, and what to do.
//! It does not know how requests are made.

use super::address::{Repo, is_loopback};
use super::client::{Failure, Status};
use super::settings::Settings;
use super::url::Url;
use crate::error::Problem;

const KEPT: &str = "what has arrived is kept, so that the next run goes on from there";

/// A failure with a repository of the Hub.
pub(super) fn hub(failure: Failure, repo: &Repo, settings: &Settings) -> Problem {
    let status = match failure {
        Failure::Final(problem) => return *problem,
        Failure::Stopped => return Problem::cancelled(),
        Failure::Broken(words) => {
            return broken(&repo.to_string(), &words, "--offline uses what is in the Hugging Face cache");
        }
        Failure::Status(status) => status,
    };
    let hub = Url::parse(&settings.endpoint);
    if hub.as_ref().is_some_and(|hub| hub.host() != status.host) {
        return refused(&repo.to_string(), &status);
    }
    let endpoint = settings.endpoint.trim_end_matches('/');
    let page = format!("{endpoint}/{}{}", repo.prefix(), repo.id);
    let tokens = format!("{endpoint}/settings/tokens");
    let in_clear = hub.is_some_and(|hub| hub.scheme() == "http" && !is_loopback(hub.host()));
    let token = match (&settings.token, in_clear) {
        (None, _) => format!("make a token at {tokens} and set HF_TOKEN to it"),
        (Some(_), true) => "HF_ENDPOINT is plain http, so that the token is not sent: write `https://`".to_owned(),
        (Some(_), false) => format!("see at {tokens} whether the token in HF_TOKEN may read it"),
    };
    let whole = Repo { revision: None, path: None, ..repo.clone() };
    let (what, help) = match (status.code, status.error.as_str()) {
        (401 | 403, "GatedRepo") => (
            format!("{whole} is gated: its owner wants its terms to be accepted"),
            format!("accept them at {page} with your account, then {token}"),
        ),
        (404, "RevisionNotFound") => (
            format!("{whole} has no revision `{}`", repo.revision()),
            format!("its branches and commits are at {page}/commits"),
        ),
        (404, "EntryNotFound") => {
            (format!("{repo} does not have a file that it names"), format!("its files are at {page}/tree"))
        }
        (404, _) | (_, "RepoNotFound") => (
            format!("there is no repository {whole}, or it is private"),
            format!("check the name at {page}; if it is private, {token}"),
        ),
        (401, _) if settings.token.is_some() && !in_clear => (
            "the Hub does not accept the token".to_owned(),
            format!("make a new one at {tokens} and set HF_TOKEN to it"),
        ),
        (401, _) => {
            (format!("{whole} is private or gated"), format!("{token}; if it is gated, accept its terms at {page}"))
        }
        (403, _) => {
            (format!("{whole} may not be read"), format!("if it is gated, accept its terms at {page}; then {token}"))
        }
        (429, _) => (
            format!("the Hub is asked too often for {whole}"),
            format!("{KEPT}; with a token in HF_TOKEN more requests are allowed"),
        ),
        _ => return refused(&repo.to_string(), &status),
    };
    Problem::new(format!("{what} ({})", status.code)).help(help)
}

/// A failure with a file of a web server.
pub(super) fn web(failure: Failure, url: &str, settings: &Settings) -> Problem {
    let status = match failure {
        Failure::Final(problem) => return *problem,
        Failure::Stopped => return Problem::cancelled(),
        Failure::Broken(words) => return broken(url, &words, "or fetch the file yourself and give its path"),
        Failure::Status(status) => status,
    };
    match status.code {
        401 | 403 | 407 => {
            let hub = Url::parse(&settings.endpoint).is_some_and(|hub| hub.host() == status.host);
            let help = if hub {
                "write it as `hf://owner/name/file`: then it is said what is missing"
            } else {
                "fetch the file yourself and give its path"
            };
            Problem::new(format!("{} does not give {url} to everybody ({})", status.host, status.code)).help(help)
        }
        404 | 410 => Problem::new(format!("there is no file at {url} ({})", status.code))
            .help("check the address; if the file has moved, give the new one"),
        _ => refused(url, &status),
    }
}

fn broken(what: &str, words: &str, help: &str) -> Problem {
    Problem::new(format!("{what} cannot be fetched: {words}")).help(format!("{KEPT}; {help}"))
}

fn refused(what: &str, status: &Status) -> Problem {
    let wait = status.retry_after.map(|wait| format!(", and wants to be asked again in {} s", wait.as_secs()));
    let wait = wait.unwrap_or_default();
    Problem::new(format!("{what} cannot be fetched: {} answers {}{wait}", status.host, status.code))
        .help(format!("{KEPT}; try again later"))
}
