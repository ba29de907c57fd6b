//! `render`: a template and the data of another step make a text.
//! It does not know what the text is; the content of the template and of what it includes enters the key.

use std::fs;
use std::path::{Path as FilePath, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Path, Problem, Result};
use crate::report::render::render;
use crate::report::template::Templates;
use crate::step::{Arity, Context, Input, Kind, Output, Source};

/// The step kind.
pub struct Render;

/// What it can be told.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The template, relative to the project: `templates/report.ru.txt`. The result bears its file name.
    pub template: String,
}

impl Kind for Render {
    const NAME: &'static str = "render";
    /// 1: the first.
    /// 2: layers that follow each other are drawn together, as `0–31`.
    /// 3: templates see tests, verdicts and the page.
    /// 4: templates see how to repeat a comparison, and of how many runs its figures are means.
    const VERSION: u32 = 4;
    const SUMMARY: &'static str = "Renders a report from a comparison, or any text from any JSON object";
    const EXAMPLE: &'static str =
        "report:\n  uses: render\n  in: { data: compare.comparison }\n  with: { template: templates/report.ru.txt }\n";
    const INPUTS: &'static [Input] = &[Input {
        name: "data",
        arity: Arity::One,
        named: false,
        doc: "A comparison, which becomes everything that a report shows, or any other JSON object",
    }];
    const OUTPUTS: &'static [Output] =
        &[Output { name: "report", file: "report", doc: "A folder with the text, named like the template" }];
    type Params = Params;

    fn check(params: &Params) -> Vec<Problem> {
        let named = FilePath::new(&params.template).file_name().and_then(|name| name.to_str()).is_some();
        if named && !params.template.ends_with('/') {
            return Vec::new();
        }
        let problem = Problem::new(format!("`{}` does not name a template", params.template))
            .at(Path::root().key("template"))
            .expected("the path of a file, such as `templates/report.ru.txt`");
        vec![problem]
    }

    fn sources(params: &Params, root: &FilePath) -> Vec<Source> {
        let files = Templates::files(&path(params, root));
        files.into_iter().map(|(name, path)| Source { name, path }).collect()
    }

    /// A template that lies behind a link out of the folder is not read.
    fn looked_at(params: &Params, root: &FilePath) -> Vec<PathBuf> {
        Templates::files(&path(params, root)).into_values().collect()
    }

    fn keyed(params: &Params) -> Value {
        // The folder does not count; the file name does, because the result bears it.
        json!({ "template": FilePath::new(&params.template).file_name().and_then(|name| name.to_str()) })
    }

    fn run(params: &Params, cx: &mut Context) -> Result<()> {
        let templates = Templates::read(&path(params, cx.root()))?;
        let data = cx.input("data")?;
        if data.path.is_dir() {
            return Err(Problem::new(format!("{} is a folder, and `data` takes a JSON file", data.label()))
                .help("connect a file, such as `compare.comparison`"));
        }
        let bytes = fs::read(&data.path).map_err(|error| Problem::io("read", &data.path, &error))?;
        let text = String::from_utf8(bytes).map_err(|_| Problem::new(format!("{} is not UTF-8", data.label())))?;
        let report = render(&templates, &text, &data.label())?;
        let folder = cx.output("report");
        fs::create_dir_all(&folder).map_err(|error| Problem::io("make", &folder, &error))?;
        let file = folder.join(&templates.main);
        fs::write(&file, report).map_err(|error| Problem::io("write", &file, &error))
    }
}

fn path(params: &Params, root: &FilePath) -> PathBuf {
    root.join(&params.template)
}
