//! The working folder: inputs as links, code as copies, and whether they are afterwards what they were before.
//! It does not know what runs in between.

#[cfg(unix)]
use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::path::{Component, Path as FilePath, PathBuf};

use super::Params;
use crate::digest::{Digest, files_below};
use crate::error::{Path, Problem, Result};
use crate::step::{Context, Source};

/// Where inputs lie unless they are told to lie elsewhere.
const IN: &str = "in";

// ---- what may stand where ---------------------------------------------------------------------------------------

/// Whether a path stays below the folder that it starts from, and names something there.
fn stays_inside(path: &str) -> bool {
    let parts = || FilePath::new(path).components();
    let inside = !path.is_empty() && !path.contains('\0') && parts().all(|part| matches!(part, Component::Normal(_)));
    // A `.` or a `//` in the middle disappears from the components, and would make two names of one path.
    inside && parts().collect::<PathBuf>().as_os_str() == path
}

/// Holds the paths of a step against each other.
pub(super) fn check(params: &Params, problems: &mut Vec<Problem>) {
    let root = Path::root();
    let code = params.code.iter().enumerate().map(|(i, path)| (path, root.key("code").index(i)));
    let inputs = params.inputs.iter().map(|(name, path)| (path, root.key("inputs").key(name)));
    let outputs = params.outputs.iter().map(|(name, path)| (path, root.key("outputs").key(name)));
    if let Some(figures) = params.figures.as_ref().filter(|path| !stays_inside(path)) {
        let problem = Problem::new(format!("`{figures}` is not a path below the working folder"));
        problems.push(problem.at(root.key("figures")).expected("a relative path, such as `metrics.json`"));
    }
    let is_output = |place: &Path| place.0.first() == root.key("outputs").0.first();
    let is_code = |place: &Path| place.0.first() == root.key("code").0.first();
    let mut seen: Vec<(&FilePath, Path)> = Vec::new();
    for (path, place) in code.chain(inputs).chain(outputs) {
        if !stays_inside(path) {
            let problem = Problem::new(format!("`{path}` is not a path below the working folder")).at(place);
            problems.push(problem.expected("a relative path without `.` and `..`, such as `scripts/features.py`"));
            continue;
        }
        let new = FilePath::new(path);
        if is_output(&place) && new.starts_with(IN) {
            let problem = Problem::new(format!("`{path}` is where inputs lie")).at(place);
            problems.push(problem.help(format!("put it outside of `{IN}/`")));
            continue;
        }
        // An input or output in a folder of code is a place where programs look for it.
        let clash = seen.iter().find(|(old, at)| {
            old.starts_with(new) || (new.starts_with(old) && (!is_code(at) || is_code(&place) || new == *old))
        });
        match clash {
            Some((old, at)) => {
                let what = format!("`{path}` and `{}` of `{at}` are one place or lie in each other", old.display());
                problems.push(Problem::new(what).at(place));
            }
            None => seen.push((new, place)),
        }
    }
}

// ---- code -------------------------------------------------------------------------------------------------------

/// The files of the project that belong to these paths, by the names that they have in the working folder.
pub(super) fn code(paths: &[String], root: &FilePath) -> Vec<Source> {
    let one = |path: &String| {
        let place = root.join(path);
        // Most are files: a folder's list is not asked for in vain.
        match place.is_dir().then(|| files_below(&place)) {
            Some(Ok(files)) => {
                let files = files.into_iter().filter(|file| !file.split('/').any(is_left_out));
                files.map(|file| Source { name: format!("{path}/{file}"), path: place.join(&file) }).collect()
            }
            // A file, or nothing: whoever reads it tells that it is not there.
            _ => vec![Source { name: path.clone(), path: place }],
        }
    };
    paths.iter().flat_map(one).collect()
}

/// What programs write beside the code, and what tools keep there.
fn is_left_out(name: &str) -> bool {
    name.starts_with('.') || name == "__pycache__"
}

// ---- before and after -------------------------------------------------------------------------------------------

/// What tells cheaply that a file may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stat {
    bytes: u64,
    modified: Option<std::time::SystemTime>,
    #[cfg(unix)]
    inode: (u64, u64, i64, i64),
}

impl Stat {
    fn of(meta: &Metadata) -> Self {
        Self {
            bytes: meta.len(),
            modified: meta.modified().ok(),
            #[cfg(unix)]
            inode: {
                use std::os::unix::fs::MetadataExt;
                (meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec())
            },
        }
    }
}

/// The files of a file or folder, each with its state.
fn stats(path: &FilePath) -> Result<Vec<(String, Stat)>> {
    let stat = |path: &FilePath| fs::metadata(path).map_err(|e| Problem::io("read", path, &e));
    let meta = stat(path)?;
    if !meta.is_dir() {
        return Ok(vec![(String::new(), Stat::of(&meta))]);
    }
    files_below(path)?.into_iter().map(|file| Ok((file.clone(), Stat::of(&stat(&path.join(file))?)))).collect()
}

/// An input in the working folder.
struct Linked {
    /// The name under `in:`.
    port: String,
    /// Relative to the working folder.
    place: String,
    /// What the link leads to.
    object: PathBuf,
    digest: Digest,
    before: Vec<(String, Stat)>,
}

/// A file of the project in the working folder.
struct Copied {
    source: Source,
    before: Stat,
}

/// What lies in the working folder before the program starts.
pub(super) struct Laid {
    inputs: Vec<Linked>,
    code: Vec<Copied>,
}

/// Puts inputs and code into the working folder.
///
/// Code is copied: through a link a program finds what lies beside the file in the project, and Python does so by
/// itself, so that a helper which nobody declared would be used without being part of the key. Inputs may be large and
/// are links; beside them in the store lies nothing that has a name.
#[cfg(unix)]
pub(super) fn lay(params: &Params, inputs: &[String], cx: &Context) -> Result<Laid> {
    let folder = cx.folder();
    let mut laid = Laid { inputs: Vec::new(), code: Vec::new() };
    let mut folders = Folders(BTreeSet::from([folder.to_owned()]));
    for source in code(&params.code, cx.root()) {
        let to = folder.join(&source.name);
        folders.make_for(&to)?;
        let meta = copy(&source.path, &to).map_err(|e| Problem::io("copy", &source.path, &e))?;
        laid.code.push(Copied { source, before: Stat::of(&meta) });
    }
    for port in inputs {
        let artifacts = cx.inputs(port);
        let whole = params.inputs.get(port).cloned().unwrap_or_else(|| format!("{IN}/{port}"));
        for artifact in artifacts {
            let place = match artifact.listed || artifacts.len() > 1 {
                true => format!("{whole}/{}", entry_name(&artifact.name)),
                false => whole.clone(),
            };
            let to = folder.join(&place);
            folders.make_for(&to)?;
            // The folder may be moved, so the link must not depend on where it lies.
            let object = std::path::absolute(&artifact.path).map_err(|e| Problem::io("find", &artifact.path, &e))?;
            let before = stats(&object)?;
            std::os::unix::fs::symlink(&object, &to).map_err(|e| Problem::io("link", &to, &e))?;
            let digest = artifact.digest.clone();
            laid.inputs.push(Linked { port: port.clone(), place, object, digest, before });
        }
    }
    for file in params.outputs.values() {
        folders.make_for(&folder.join(file))?;
    }
    Ok(laid)
}

impl Laid {
    /// The first input or piece of code that is not what it was, told as a problem; what is damaged in the store is
    /// passed on in any case.
    pub(super) fn changed(&self, cx: &mut Context) -> Option<Problem> {
        let mut first = None;
        for input in &self.inputs {
            let named = format!("`{}` ({})", input.port, input.place);
            // What cannot be read any more is not what it was either.
            let same = stats(&input.object).is_ok_and(|now| now == input.before)
                || Digest::of_path(&input.object).is_ok_and(|now| now == input.digest);
            if !same {
                cx.damaged(input.digest.clone());
                first.get_or_insert_with(|| {
                    Problem::new(format!("its input {named} changed while the command ran")).help(
                        "an input is a result that others read too: write to another file; nothing was recorded, and the step that made it will run again",
                    )
                });
            } else if fs::read_link(cx.folder().join(&input.place)).ok().as_ref() != Some(&input.object) {
                first.get_or_insert_with(|| {
                    Problem::new(format!("the command put something else in the place of its input {named}"))
                        .help("write to another file; nothing was recorded")
                });
            }
        }
        for file in &self.code {
            let copy = cx.folder().join(&file.source.name);
            let same = fs::symlink_metadata(&copy).is_ok_and(|meta| Stat::of(&meta) == file.before)
                || Digest::of_file(&copy).ok() == Digest::of_file(&file.source.path).ok();
            if !same {
                first.get_or_insert_with(|| {
                    Problem::new(format!("its code file {} changed while the command ran", file.source.name))
                        .help("let it write to another file; nothing was recorded")
                });
            }
        }
        first
    }
}

/// Holds the outputs against what was promised, and makes them independent of files elsewhere.
#[cfg(unix)]
pub(super) fn outputs(params: &Params, cx: &Context) -> Result<()> {
    for (name, file) in params.outputs.iter() {
        let path = cx.folder().join(file);
        let mut parent = path.parent();
        // The folder on the way may have become a link that leads out.
        while let Some(folder) = parent.filter(|folder| *folder != cx.folder()) {
            if fs::symlink_metadata(folder).is_ok_and(|meta| meta.is_symlink()) {
                return Err(wrong(name, file, "lies behind a link"));
            }
            parent = folder.parent();
        }
        match fs::symlink_metadata(&path) {
            Ok(meta) => own(name, file, &path, &meta)?,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Err(Problem::new(format!(
                    "the command ended well, but did not make its output `{name}` ({file})"
                ))
                .help("paths of outputs are relative to its working folder"));
            }
            Err(e) => return Err(Problem::io("read", &path, &e)),
        }
    }
    Ok(())
}

/// More is copied by the system, which may share the bytes; for less that takes several times as long.
#[cfg(unix)]
const SMALL: u64 = 64 << 10;

/// Copies a file with its permissions; answers what the copy looks like.
#[cfg(unix)]
fn copy(from: &FilePath, to: &FilePath) -> std::io::Result<Metadata> {
    use std::io::{Read, Write};
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    let file = fs::File::open(from)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() >= SMALL {
        fs::copy(from, to)?;
        return fs::metadata(to);
    }
    let mut text = Vec::with_capacity(meta.len() as usize + 1);
    // It may grow meanwhile: whoever takes its digest once more will notice.
    file.take(SMALL).read_to_end(&mut text)?;
    let mut copy = fs::File::options().write(true).create_new(true).mode(meta.mode()).open(to)?;
    copy.write_all(&text)?;
    let made = copy.metadata()?;
    if made.mode() == meta.mode() {
        return Ok(made);
    }
    copy.set_permissions(meta.permissions())?;
    copy.metadata()
}

#[cfg(unix)]
fn wrong(name: &str, file: &str, what: &str) -> Problem {
    Problem::new(format!("its output `{name}` ({file}) {what}"))
        .expected("a file, or a folder of files")
        .help("copy what it leads to: a result must not depend on files elsewhere")
}

/// Refuses what is neither file nor folder. A file that has a second name is copied, because somebody may write to it
/// under that name.
#[cfg(unix)]
fn own(name: &str, file: &str, path: &FilePath, meta: &Metadata) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    if meta.is_symlink() {
        return Err(wrong(name, file, "is a link"));
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path).map_err(|e| Problem::io("list", path, &e))? {
            let entry = entry.map_err(|e| Problem::io("list", path, &e))?;
            let meta = entry.metadata().map_err(|e| Problem::io("read", path, &e))?;
            own(name, &format!("{file}/{}", entry.file_name().to_string_lossy()), &entry.path(), &meta)?;
        }
    } else if !meta.is_file() {
        return Err(wrong(name, file, "is neither a file nor a folder"));
    } else if meta.nlink() > 1 {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".copy");
        let aside = PathBuf::from(aside);
        let copied = fs::copy(path, &aside).and_then(|_| fs::rename(&aside, path));
        copied.map_err(|e| Problem::io("copy", path, &e))?;
    }
    Ok(())
}

/// Folders that are there: each is made once, however many files lie in it.
#[cfg(unix)]
struct Folders(BTreeSet<PathBuf>);

#[cfg(unix)]
impl Folders {
    fn make_for(&mut self, path: &FilePath) -> Result<()> {
        let parent = path.parent().unwrap_or(path);
        if self.0.contains(parent) {
            return Ok(());
        }
        self.0.insert(parent.to_owned());
        fs::create_dir_all(parent).map_err(|e| Problem::io("make the folder", parent, &e))
    }
}

/// The id of a step as the name of a file: as it is, but for what a file name cannot hold. Names that would fall
/// together are kept apart by a piece of their hash.
#[cfg(unix)]
fn entry_name(id: &str) -> String {
    let plain = |c: char| c != '/' && !c.is_control();
    if id.chars().all(plain) && id.len() <= 200 {
        return id.to_owned();
    }
    let mut name: String = id.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    while name.len() > 180 {
        name.pop();
    }
    format!("{name}~{}", &Digest::of(id.as_bytes()).as_str()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_paths_stay_inside() {
        for good in ["a", "a/b.txt", "папка/файл с пробелом", ".hidden", "a..b"] {
            assert!(stays_inside(good), "{good}");
        }
        for bad in ["", ".", "..", "/a", "../a", "a/../b", "./a", "a/./b", "a//b", "a/", "a\0b"] {
            assert!(!stays_inside(bad), "{bad:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_copy_has_the_bytes_and_the_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        for bytes in [0, 1, SMALL - 1, SMALL, SMALL + 1] {
            for mode in [0o755, 0o777, 0o600, 0o444] {
                fs::write(&from, vec![7; bytes as usize]).unwrap();
                fs::set_permissions(&from, PermissionsExt::from_mode(mode)).unwrap();
                let meta = copy(&from, &to).unwrap();
                let looks = fs::metadata(&to).unwrap();
                assert_eq!((looks.permissions().mode() & 0o777, looks.len()), (mode, bytes));
                assert!(Stat::of(&meta) == Stat::of(&looks) && fs::read(&to).unwrap() == fs::read(&from).unwrap());
                [&from, &to].into_iter().for_each(|path| fs::remove_file(path).unwrap());
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn steps_have_different_names_of_files() {
        assert_eq!(entry_name("lora[rank=4,alpha=8]"), "lora[rank=4,alpha=8]");
        let ids = ["a[x=\"b/c\"]", "a[x=\"b_c\"]", "a[x=\"b\nc\"]", &"ж".repeat(300)];
        let names: BTreeSet<String> = ids.iter().map(|id| entry_name(id)).collect();
        assert_eq!(names.len(), ids.len());
        assert!(names.iter().all(|name| !name.contains('/') && name.len() < 255));
    }
}
