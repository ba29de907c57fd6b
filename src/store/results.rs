//! Links for people: `results/PIPELINE/STEP/FILE` leads to the object.
//! It does not know which results a person wants to see.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use super::commit::rename;
use super::{Store, file_name, make_parent};
use crate::digest::{Digest, files_below};
use crate::error::{Problem, Result};

impl Store {
    /// The folder of a pipeline's results.
    pub fn results(&self, pipeline: &str) -> PathBuf {
        self.root().join("results").join(file_name(pipeline))
    }

    /// Where the link to a result lies, or would.
    pub fn published(&self, pipeline: &str, step: &str, file: &str) -> PathBuf {
        let (pipeline, step) = (file_name(pipeline), file_name(step));
        let bytes = self.root().as_os_str().len() + pipeline.len() + step.len() + file.len();
        let mut path = PathBuf::with_capacity(bytes + "/results///".len());
        path.push(self.root());
        ["results", &pipeline, &step, file].iter().for_each(|part| path.push(part));
        path
    }

    /// True if the link at this place, where [`Store::published`] puts that of a file, leads to an object.
    pub fn leads(&self, place: &Path, file: &str, digest: &Digest) -> bool {
        fs::read_link(place).is_ok_and(|link| link == target(Path::new(file), digest))
    }

    /// Lets `results/PIPELINE/STEP/FILE` lead to an object, and tells where that is. The link is relative, so the
    /// cache can be moved; it appears by rename, so it always leads somewhere. Where the file system has no
    /// links, it is a copy.
    pub fn publish(&self, pipeline: &str, step: &str, file: &str, digest: &Digest) -> Result<PathBuf> {
        let relative = Path::new(file);
        if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(Problem::new(format!("the result file `{file}` is not a name inside its folder")));
        }
        let (place, target) = (self.published(pipeline, step, file), target(relative, digest));
        match fs::read_link(&place) {
            Ok(link) if link == target => return Ok(place),
            // The most common case after that, and the cheapest.
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    && (link(&target, &place).is_ok()
                        || (make_parent(&place).is_ok() && link(&target, &place).is_ok())) =>
            {
                return Ok(place);
            }
            _ => {}
        }
        let aside = self.aside()?;
        if link(&target, &aside).is_err() {
            copy(&self.object(digest), &aside)?;
        }
        // A rename replaces a link or a file, but not a folder that an earlier copy left.
        if fs::symlink_metadata(&place).is_ok_and(|meta| meta.is_dir()) {
            // Deleted with all that this process leaves.
            fs::rename(&place, self.aside()?).map_err(|e| Problem::io("replace", &place, &e))?;
        }
        rename(&aside, &place)?;
        Ok(place)
    }

    /// Writes a table of a whole run beside the results of its steps, and tells where that is.
    pub fn publish_text(&self, pipeline: &str, file: &str, text: &str) -> Result<PathBuf> {
        let place = self.results(pipeline).join(file_name(file));
        self.write(&place, text)?;
        Ok(place)
    }
}

/// What the link to an object says. results/PIPELINE/STEP are three folders below the root, and a file may lie deeper.
fn target(file: &Path, digest: &Digest) -> PathBuf {
    let up = "../".repeat(2 + file.components().count());
    PathBuf::from(format!("{up}objects/{}/{digest}", &digest.as_str()[..2]))
}

#[cfg(unix)]
fn link(target: &Path, place: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, place)
}

#[cfg(not(unix))]
fn link(_target: &Path, _place: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

fn copy(object: &Path, place: &Path) -> Result<()> {
    let one = |from: &Path, to: &Path| {
        make_parent(to)?;
        fs::copy(from, to).map_err(|e| Problem::io("write", to, &e)).map(|_| ())
    };
    if !object.is_dir() {
        return one(object, place);
    }
    fs::create_dir(place).map_err(|e| Problem::io("make the folder", place, &e))?;
    files_below(object)?.iter().try_for_each(|file| one(&object.join(file), &place.join(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &Store, text: &str) -> Digest {
        let stage = store.stage().unwrap();
        fs::write(stage.folder().join("f"), text).unwrap();
        store.take_in(&stage.folder().join("f"), &stage.folder().join("aside"), &mut |_| Ok(())).unwrap().digest
    }

    #[test]
    fn results_lead_to_the_object_even_after_a_move() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("cache"));
        let (one, two) = (put(&store, "один"), put(&store, "два"));
        let place = store.publish("p", "s[a=1/2]", "sub/report.txt", &one).unwrap();
        assert_eq!(fs::read_to_string(&place).unwrap(), "один");
        assert_eq!(store.publish("p", "s[a=1/2]", "sub/report.txt", &two).unwrap(), place);
        assert_eq!(fs::read_to_string(&place).unwrap(), "два");
        fs::rename(folder.path().join("cache"), folder.path().join("moved")).unwrap();
        let moved = folder.path().join("moved").join(place.strip_prefix(folder.path().join("cache")).unwrap());
        assert_eq!(fs::read_to_string(moved).unwrap(), "два");
    }

    #[test]
    fn a_copied_folder_makes_way_for_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let digest = put(&store, "text");
        let place = store.results("p").join("s").join("f");
        fs::create_dir_all(place.join("old")).unwrap();
        copy(&store.object(&digest), &place.join("copy")).unwrap();
        assert_eq!(fs::read_to_string(place.join("copy")).unwrap(), "text");
        store.publish("p", "s", "f", &digest).unwrap();
        assert_eq!(fs::read_to_string(&place).unwrap(), "text");
    }

    #[test]
    fn nothing_is_published_outside() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let digest = put(&store, "text");
        for file in ["../x", "/x", "a/../../x"] {
            assert!(store.publish("p", "s", file, &digest).is_err(), "{file}");
        }
    }
}
