//! A template and all templates that it includes or extends, read from one folder.
//! It does not know what they say, nor the data.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Problem, Result};

/// The largest template that is read.
const MOST_BYTES: u64 = 4 << 20;

/// A template with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates {
    /// The name of the first one: its file name.
    pub main: String,
    /// Contents by name; a name is the path below the folder of the first one, with `/`.
    pub texts: BTreeMap<String, String>,
}

impl Templates {
    /// Reads a template and, as far as they go, those that it names in `include` and `extends`.
    pub fn read(path: &Path) -> Result<Self> {
        let (folder, main) = split(path)?;
        let mut texts = BTreeMap::new();
        texts.insert(main.clone(), read_text(path)?);
        let mut open = vec![main.clone()];
        while let Some(name) = open.pop() {
            for (line, other) in named(&texts[&name]) {
                if !texts.contains_key(&other) {
                    let text = below(&folder, &other).and_then(|path| read_text(&path));
                    let text =
                        text.map_err(|problem| problem.in_file(folder.join(&name).display().to_string(), Some(line)))?;
                    texts.insert(other.clone(), text);
                    open.push(other);
                }
            }
        }
        Ok(Self { main, texts })
    }

    /// The files behind a template, by name, as far as they can be found: what a result depends on.
    pub fn files(path: &Path) -> BTreeMap<String, PathBuf> {
        let Ok((folder, main)) = split(path) else { return BTreeMap::new() };
        let mut files = BTreeMap::from([(main.clone(), path.to_owned())]);
        let mut open = vec![main];
        while let Some(name) = open.pop() {
            let Ok(text) = read_text(&files[&name]) else { continue };
            for (_, other) in named(&text) {
                if let (false, Ok(file)) = (files.contains_key(&other), below(&folder, &other)) {
                    files.insert(other.clone(), file);
                    open.push(other);
                }
            }
        }
        files
    }
}

fn split(path: &Path) -> Result<(PathBuf, String)> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Problem::new(format!("{} does not name a template", path.display())))?;
    Ok((path.parent().unwrap_or(Path::new("")).to_owned(), name.to_owned()))
}

/// A named template's file, which must lie in the folder, also after links are followed.
fn below(folder: &Path, name: &str) -> Result<PathBuf> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':', '\0']);
    if !name.split('/').all(plain) {
        return Err(Problem::new(format!("the template `{name}` lies outside the template's folder"))
            .help("name it by its path below the folder of the first template"));
    }
    let path = folder.join(name);
    let root = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if let (Ok(real), Ok(root)) = (path.canonicalize(), root.canonicalize())
        && !real.starts_with(root)
    {
        return Err(Problem::new(format!("the template `{name}` is a link out of the template's folder")));
    }
    Ok(path)
}

fn read_text(path: &Path) -> Result<String> {
    let meta = fs::metadata(path).map_err(|error| Problem::io("read the template", path, &error))?;
    if !meta.is_file() || meta.len() > MOST_BYTES {
        return Err(Problem::new(format!("{} is not a template: no file of at most 4 MiB", path.display())));
    }
    let bytes = fs::read(path).map_err(|error| Problem::io("read the template", path, &error))?;
    String::from_utf8(bytes).map_err(|_| Problem::new(format!("the template {} is not UTF-8", path.display())))
}

/// The names after `{% include` and `{% extends`, each with its line.
fn named(text: &str) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("{%") {
        let tag = text[at + 2..].trim_start_matches('-').trim_start();
        let rest = tag.strip_prefix("include").or_else(|| tag.strip_prefix("extends"));
        let Some(rest) = rest.map(str::trim_start) else { continue };
        let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'' | '`')) else { continue };
        if let Some((name, _)) = rest[1..].split_once(quote) {
            let line = text[..at].matches('\n').count() + 1;
            found.push((line as u64, name.to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_are_found_with_their_lines() {
        let text = "{% extends \"a.txt\" %}\n{%- include 'b/c.txt' -%}\n{% if include %}{% includes %}";
        assert_eq!(named(text), [(1, "a.txt".to_owned()), (2, "b/c.txt".to_owned())]);
    }

    #[test]
    fn names_stay_in_the_folder() {
        for name in ["../x", "/etc/passwd", "a/../../x", "", "a//b", "./x"] {
            assert!(below(Path::new("templates"), name).is_err(), "{name}");
        }
        assert!(below(Path::new("templates"), "parts/x.txt").is_ok());
    }
}
