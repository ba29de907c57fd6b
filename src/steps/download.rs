//! The step kind `download`: brings a file or a folder in from outside, checked and unpacked.
//! It does not know what the file is for.

mod file;
mod pin;
mod source;
mod unpack;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path as FilePath, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Path, Problem, Result};
use crate::step::{Context, Input, Kind, Output, Source as Outside};
use source::Source;

/// See the module.
pub struct Download;

/// What to bring in.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Where it is: a path, or `file:PATH`. Relative paths start at the folder that holds `pipelines/`.
    pub source: String,
    /// What it must be: `blake3:…` or `sha256:…` of the file as it lies there; of a folder, only `blake3:…`.
    #[serde(default)]
    pub pin: Option<String>,
    /// The file to take out of a zip archive; not needed where the archive has only one.
    #[serde(default)]
    pub entry: Option<String>,
    /// True to unpack gzip and zip files; their content tells, not their name.
    #[serde(default = "unpack")]
    pub unpack: bool,
    /// The most bytes that may come out, so that a damaged or hostile archive cannot fill the disk.
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
    const EXAMPLE: &'static str =
        "terra_val:\n  uses: download\n  with:\n    source: data/TERRa.zip\n    entry: TERRa/val.jsonl\n";
    const INPUTS: &'static [Input] = &[];
    const OUTPUTS: &'static [Output] = &[Output { name: "file", file: FILE, doc: "The file or folder" }];
    type Params = Params;

    fn check(params: &Params) -> Vec<Problem> {
        let source = Source::parse(&params.source).map(drop).map_err(at_source);
        let pin = params.pin.as_deref().map_or(Ok(()), |pin| pin::Pin::parse(pin).map(drop));
        let pin = pin.map_err(|problem| problem.at(Path::root().key("pin")));
        let mut problems: Vec<Problem> = [source, pin].into_iter().filter_map(std::result::Result::err).collect();
        if params.entry.is_some() && !params.unpack {
            problems.push(
                Problem::new("`entry` takes a file out of an archive, but `unpack` is false")
                    .at(Path::root().key("entry")),
            );
        }
        problems
    }

    fn sources(params: &Params, root: &FilePath) -> Vec<Outside> {
        match Source::parse(&params.source) {
            Ok(Source::File(path)) => vec![Outside { name: "source".to_owned(), path: root.join(path) }],
            Err(_) => Vec::new(),
        }
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
        let Source::File(written) = Source::parse(&params.source).map_err(at_source)?;
        let path = file::find(&written, cx.root()).map_err(at_source)?;
        if let Some(pin) = &params.pin {
            pin::Pin::parse(pin)?.verify(&path, &params.source, cx)?;
        }
        let out = cx.output(FILE);
        if path.is_dir() {
            if params.entry.is_some() {
                return Err(at_source(Problem::new(format!(
                    "{} is a folder, so `entry` has no archive",
                    params.source
                ))));
            }
            return file::copy_folder(&path, &out, params.max_bytes, cx);
        }
        match if params.unpack { unpack::format(&path)? } else { unpack::Format::Plain } {
            unpack::Format::Gzip if params.entry.is_none() => unpack::gzip(&path, &out, params, cx),
            unpack::Format::Zip => unpack::zip(&path, &out, params, cx),
            _ if params.entry.is_some() => {
                Err(Problem::new(format!("{} is not a zip archive", params.source)).at(Path::root().key("entry")))
            }
            _ => file::copy_file(&path, &out, params.max_bytes, cx),
        }
    }
}

fn at_source(problem: Problem) -> Problem {
    problem.at(Path::root().key("source"))
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
                return Err(Problem::new(format!("more than {} bytes come out of the source", self.most))
                    .at(Path::root().key("max_bytes"))
                    .help("raise `max_bytes` if the source is what you expect"));
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
