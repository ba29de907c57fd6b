//! What lies in a folder, without its contents: whoever listed it before would find the same names again.
//! It does not know what is done with the files.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::Digest;

/// A folder with more entries is not worth being compared.
const MOST_ENTRIES: usize = 200_000;

/// More folders within each other are a link that leads back; a system gives up following one not much later.
const DEEPEST: usize = 32;

/// The shape of a folder: where it really is, and of each entry below it the name, what it is, and where a link leads.
/// Of a file: where it really is. `None` if that cannot be told.
pub fn shape(path: &Path) -> Option<Digest> {
    let mut text = format!("pipe shape 1\n{}\n", path.canonicalize().ok()?.to_str()?);
    if path.is_dir() {
        walk(path, 0, &mut 0, &mut text)?;
    }
    Some(Digest::of(text.as_bytes()))
}

fn walk(folder: &Path, depth: usize, count: &mut usize, text: &mut String) -> Option<()> {
    if depth > DEEPEST {
        return None;
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).ok()? {
        let entry = entry.ok()?;
        entries.push((entry.file_name().into_string().ok()?, entry.file_type().ok()?));
    }
    *count += entries.len();
    if *count > MOST_ENTRIES {
        return None;
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, kind) in entries {
        let path = folder.join(&name);
        let is_folder = kind.is_dir() || (kind.is_symlink() && path.is_dir());
        let leads = if kind.is_symlink() { fs::read_link(&path).ok()? } else { Default::default() };
        // Debug writes line breaks and quotes in names so that no two listings look the same.
        writeln!(text, "{depth} {name:?} {is_folder} {leads:?}").ok()?;
        if is_folder {
            walk(&path, depth + 1, count, text)?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_and_contents_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("папка");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/f"), "1").unwrap();
        let before = shape(&root).unwrap();
        fs::write(root.join("a/f"), "22").unwrap();
        assert_eq!(shape(&root).unwrap(), before);
        let changes: [(&str, &dyn Fn()); 3] = [
            ("a new file", &|| fs::write(root.join("a/b/g"), "").unwrap()),
            ("a new name", &|| fs::rename(root.join("a/f"), root.join("a/h")).unwrap()),
            ("a file in place of a folder", &|| {
                fs::remove_dir_all(root.join("a/b")).unwrap();
                fs::write(root.join("a/b"), "").unwrap();
            }),
        ];
        let mut seen = vec![before];
        for (what, change) in changes {
            change();
            let now = shape(&root).unwrap();
            assert!(!seen.contains(&now), "{what}");
            seen.push(now);
        }
        assert_eq!(shape(&folder.path().join("nothing")), None);
    }

    #[cfg(unix)]
    #[test]
    fn where_links_lead_counts() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("folder");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("f"), "").unwrap();
        symlink("f", root.join("link")).unwrap();
        let (before, file) = (shape(&root).unwrap(), shape(&root.join("link")).unwrap());
        assert_eq!(file, shape(&root.join("f")).unwrap());
        fs::remove_file(root.join("link")).unwrap();
        fs::write(root.join("link"), "").unwrap();
        assert_ne!((shape(&root).unwrap(), shape(&root.join("link")).unwrap()), (before, file));
        symlink(".", root.join("loop")).unwrap();
        assert_eq!(shape(&root), None, "it does not end");
    }
}
