//! The step kind `download`: brings a file or a folder in from outside, checked and unpacked.
//! It does not know what the file is for.

mod config;
mod file;
mod pin;
mod source;
mod unpack;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path as FilePath, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::files_below;
use crate::error::{Path, Place, Problem, Result};
use crate::fetch::{self, Address, Brought, Request};
use crate::lockfile::Locked;
use crate::step::{Context, Input, Kind, Outlook, Output, Source as Outside};
use pin::Pin;
use source::Source;

/// See the module.
pub struct Download;

/// What to bring in.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Where it is: a path (relative ones start at the folder that holds `pipelines/`),
    /// `hf://owner/name[@revision][/path]`, `hf://datasets/owner/name[@revision][/path]`, or `https://…`. Of a model's
    /// repository what is needed is taken: configuration, tokenizer, safetensors. What a remote source is found to be
    /// is written into `pipe.lock` beside the pipeline, and later runs get that or fail.
    pub source: String,
    /// What it must be: `blake3:…` or `sha256:…` of the file as it lies there; of a folder, only `blake3:…`.
    #[serde(default)]
    pub pin: Option<String>,
    /// What `config.json` of a model must say, field by field. It is known before the model is here, so that
    /// `pipe plan` can count an adapter's parameters, and checked once it is.
    #[serde(default)]
    pub config: Option<BTreeMap<String, Value>>,
    /// The file to take out of a zip archive; not needed where the archive has only one.
    #[serde(default)]
    pub entry: Option<String>,
    /// True to unpack gzip and zip files; their content tells, not their name. What lies in a folder stays as it is.
    #[serde(default = "unpack")]
    pub unpack: bool,
    /// The most bytes that may be fetched or come out, so that a mistake, or a damaged or hostile archive, cannot fill
    /// the disk.
    #[serde(default = "max_bytes")]
    #[schemars(range(min = 1))]
    pub max_bytes: u64,
}

fn unpack() -> bool {
    true
}
fn max_bytes() -> u64 {
    64 << 30
}

const FILE: &str = "file";

impl Kind for Download {
    const NAME: &'static str = "download";
    /// 1: files and folders of this machine; gzip and zip.
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Brings a file or a folder in from outside, checked against a pin and unpacked";
    const EXAMPLE: &'static str = "terra_val:\n  uses: download\n  with:\n    source: https://example.org/TERRa.zip\n    entry: TERRa/val.jsonl\n";
    const INPUTS: &'static [Input] = &[];
    const OUTPUTS: &'static [Output] = &[Output { name: "file", file: FILE, doc: "The file or folder" }];
    type Params = Params;

    fn check(params: &Params) -> Vec<Problem> {
        let source = source(params);
        let pin = params.pin.as_deref().map_or(Ok(()), |pin| Pin::parse(pin).map(drop)).map_err(at("pin"));
        let whole = matches!(&source, Ok(Source::Remote(Address::Hub(repo))) if repo.path.is_none());
        let mut problems: Vec<Problem> =
            [source.map(drop), pin].into_iter().filter_map(std::result::Result::err).collect();
        if params.entry.is_some() && !params.unpack {
            problems.push(at("entry")(Problem::new("`entry` takes a file out of an archive, but `unpack` is false")));
        }
        if whole && params.entry.is_some() {
            problems.push(at("entry")(
                Problem::new("a repository is no archive to take an entry out of")
                    .help("write the path of the file behind its name: `hf://owner/name/path`"),
            ));
        }
        if whole && sha256(params).is_some() {
            problems.push(at("pin")(
                Problem::new("a repository has no sha256")
                    .help("its revision pins it: `hf://owner/name@COMMIT`; pipe.lock has the sha256 of each file"),
            ));
        }
        problems
    }

    fn sources(params: &Params, root: &FilePath) -> Vec<Outside> {
        match source(params) {
            Ok(Source::File(path)) => vec![Outside { name: "source".to_owned(), path: root.join(path) }],
            Ok(Source::Remote(_)) | Err(_) => Vec::new(),
        }
    }

    fn remote(params: &Params) -> Option<String> {
        match source(params) {
            Ok(Source::Remote(address)) => Some(address.to_string()),
            Ok(Source::File(_)) | Err(_) => None,
        }
    }

    /// All but the checks of the content, which `run` repeats: a wrong pin must not get into `pipe.lock`.
    fn fetch(params: &Params, cx: &mut Context) -> Result<Locked> {
        let fetched = fetched(params, None, cx)?;
        if let Some(pin) = &params.pin {
            Pin::parse(pin)?.verify_fetched(&fetched, &params.source)?;
        }
        Ok(fetched.locked)
    }

    /// The model that is here, or else what the pipeline says of it.
    fn outlook(params: &Params, _inputs: &BTreeMap<String, Vec<Outlook>>, made: Option<&FilePath>) -> Outlook {
        let said = || params.config.clone().map(|fields| Value::Object(fields.into_iter().collect()));
        Outlook { config: made.and_then(super::config_of).or_else(said), ..Outlook::default() }
    }

    fn origin(params: &Params) -> Option<String> {
        let entry = params.entry.as_deref().map(|entry| format!("!{entry}")).unwrap_or_default();
        Some(format!("{}{entry}", params.source))
    }

    /// The content of the source enters the key by itself; where it lies does not.
    fn keyed(params: &Params) -> Value {
        let mut value = serde_json::json!(params);
        if let Some(fields) = value.as_object_mut() {
            fields.remove("source");
        }
        value
    }

    fn run(params: &Params, cx: &mut Context) -> Result<()> {
        let out = cx.output(FILE);
        let pin = params.pin.as_deref().map(Pin::parse).transpose()?;
        let (path, folder) = match source(params)? {
            Source::File(written) => {
                let path = file::find(&written, cx.root()).map_err(at("source"))?;
                if let Some(pin) = pin {
                    pin.verify(&path, &params.source, cx)?;
                }
                let folder = if path.is_dir() { Some(files_below(&path)?) } else { None };
                (path, folder)
            }
            Source::Remote(_) => {
                let known = cx.outside().known.clone();
                let fetched = fetched(params, known.as_ref(), cx)?;
                if let Some(pin) = pin {
                    pin.verify_fetched(&fetched, &params.source)?;
                }
                let folder = fetched.is_folder.then(|| fetched.names());
                (fetched.path, folder)
            }
        };
        if let Some(expected) = &params.config {
            config::check(expected, &path.join("config.json"), &params.source)?;
        }
        if let Some(names) = folder {
            if params.entry.is_some() {
                let what = format!("{} is a folder, so `entry` has no archive", params.source);
                return Err(at("source")(Problem::new(what)));
            }
            return file::copy_folder(&path, &names, &out, params.max_bytes, cx);
        }
        match if params.unpack { unpack::format(&path)? } else { unpack::Format::Plain } {
            unpack::Format::Gzip if params.entry.is_none() => unpack::gzip(&path, &out, params, cx),
            unpack::Format::Zip => unpack::zip(&path, &out, params, cx),
            _ if params.entry.is_some() => {
                Err(at("entry")(Problem::new(format!("{} is not a zip archive", params.source))))
            }
            _ => file::copy_file(&path, &out, params.max_bytes, cx),
        }
    }
}

fn source(params: &Params) -> Result<Source> {
    Source::parse(&params.source, params.pin.is_some()).map_err(at("source"))
}

fn sha256(params: &Params) -> Option<String> {
    let pin = Pin::parse(params.pin.as_deref()?).ok()?;
    pin.as_sha256().map(str::to_owned)
}

/// Brings the remote source to this machine.
fn fetched(params: &Params, known: Option<&Locked>, cx: &Context) -> Result<Brought> {
    let Source::Remote(address) = source(params)? else {
        return Err(Problem::new(format!("{} lies on this machine", params.source)));
    };
    let sha256 = sha256(params);
    let request = Request { address: &address, known, sha256: sha256.as_deref(), max_bytes: params.max_bytes };
    // A problem that knows its place, such as a damaged index of weights, keeps it.
    fetch::bring(&request, &cx.outside().settings, cx).map_err(|problem| match problem.place {
        Place::Nowhere if !problem.cancelled => at("source")(problem),
        _ => problem,
    })
}

fn at(key: &'static str) -> impl Fn(Problem) -> Problem {
    move |problem| problem.at(Path::root().key(key))
}

fn too_much(most: u64) -> Problem {
    at("max_bytes")(Problem::new(format!("more than {most} bytes come out of the source")))
        .help("raise `max_bytes` if the source is what you expect")
}

/// Copies all that comes, up to `most` bytes, and says how far it is; `total` is what progress counts towards, and
/// `position` how far the reading is if that is not what comes out.
struct Pump<'a> {
    cx: &'a Context,
    most: u64,
    done: u64,
    total: Option<u64>,
}

impl Pump<'_> {
    fn run(
        &mut self,
        from: &mut dyn Read,
        to: &FilePath,
        reading: &dyn Fn(std::io::Error) -> Problem,
        position: Option<&dyn Fn() -> u64>,
    ) -> Result<()> {
        let mut file = fs::File::create(to).map_err(|e| Problem::io("write", to, &e))?;
        let mut buffer = vec![0; 1 << 18];
        loop {
            self.cx.check_cancelled()?;
            let read = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(reading(e)),
            };
            self.done += read as u64;
            if self.done > self.most {
                return Err(too_much(self.most));
            }
            file.write_all(&buffer[..read]).map_err(|e| Problem::io("write", to, &e))?;
            self.cx.progress(position.map_or(self.done, |position| position()), self.total, "B", "");
        }
    }
}

fn size(path: &FilePath) -> Result<u64> {
    Ok(fs::metadata(path).map_err(|e| Problem::io("read", path, &e))?.len())
}

fn parent(path: &FilePath) -> PathBuf {
    path.parent().map_or_else(PathBuf::new, FilePath::to_owned)
}
