//! Objects: files and folders that are named by their content and never change.
//! It does not know which step made one.

use std::fs::{self, File, Metadata};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Store;
use super::commit::rename;
use crate::digest::{Digest, Watch, bytes_of, files_below};
use crate::error::{Problem, Result};

/// What a record says about an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// Its content.
    pub digest: Digest,
    /// Its size; a folder's is the sum of its files.
    pub bytes: u64,
    /// Whether it is a folder.
    pub is_folder: bool,
}

impl Store {
    /// True if the object is there with the size that it should have. The content is not read: that is what
    /// makes a run without work fast, and `pipe` never changes an object that it has moved in.
    pub fn has(&self, object: &Object) -> bool {
        measure(&self.object(&object.digest)).is_ok_and(|found| found == (object.is_folder, object.bytes))
    }

    /// The same; of a store that trusts nothing, its content is read, too.
    pub(super) fn holds(&self, object: &Object) -> bool {
        let same = || Digest::of_path(&self.object(&object.digest)).is_ok_and(|digest| digest == object.digest);
        self.has(object) && (!self.paranoid || same())
    }

    /// Reads an object to its end; a problem if it is not what it should be, or not there.
    pub fn check(&self, object: &Object, watch: Watch) -> Result<()> {
        let place = self.object(&object.digest);
        // A link would lead to what is not the store's.
        refuse_links(&place)?;
        if self.has(object) && Digest::of_path_watched(&place, watch)? == object.digest {
            return Ok(());
        }
        let what = format!("{} is damaged: its content is not what its name says", place.display());
        Err(Problem::new(what).help("`pipe cache verify --repair` puts it aside; its step then runs again"))
    }

    /// Hashes what a step wrote and moves it in. If the object is there already, that one is kept: somebody
    /// may be reading it. `watch` follows the hashing.
    pub(super) fn take_in(&self, written: &Path, aside: &Path, watch: Watch) -> Result<Object> {
        let meta = refuse_links(written)?;
        let (is_folder, bytes) = if meta.is_dir() { measure(written)? } else { (false, meta.len()) };
        let digest = if is_folder {
            Digest::of_path_watched(written, watch)?
        } else {
            Digest::each(&[written], watch)?.remove(0)
        };
        let object = Object { digest, bytes, is_folder };
        let place = self.object(&object.digest);
        if place.symlink_metadata().is_ok() {
            if self.holds(&object) {
                // It is as young as what will name it, for those who look for what nobody needs.
                let _ = File::open(&place).and_then(|file| file.set_modified(std::time::SystemTime::now()));
                return Ok(object);
            }
            // A damaged object makes way; it is deleted with the rest of the step's scratch folder.
            let _ = fs::rename(&place, aside);
        }
        seal(written, meta)?;
        match rename(written, &place) {
            Ok(()) => Ok(object),
            // Another process was faster.
            Err(_) if self.holds(&object) => Ok(object),
            Err(problem) => Err(problem),
        }
    }
}

/// Whether a path is a folder, and its size.
fn measure(path: &Path) -> Result<(bool, u64)> {
    let meta = fs::metadata(path).map_err(|e| Problem::io("read", path, &e))?;
    Ok(if meta.is_dir() { (true, bytes_of(path)?) } else { (false, meta.len()) })
}

/// A link would make the object depend on a file outside the store. Answers what the path itself is.
fn refuse_links(path: &Path) -> Result<Metadata> {
    let meta = fs::symlink_metadata(path).map_err(|e| Problem::io("read", path, &e))?;
    if meta.is_symlink() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        return Err(Problem::new(format!("the step wrote the link `{name}` where a file or folder is due")));
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path).map_err(|e| Problem::io("list", path, &e))? {
            refuse_links(&entry.map_err(|e| Problem::io("list", path, &e))?.path())?;
        }
    }
    Ok(meta)
}

/// Makes files read-only. They are flushed before the record is written, by whoever writes it (`commit`).
///
/// Folders stay writable: a read-only folder cannot be moved by everyone, and `rm -r cache` would fail.
fn seal(path: &Path, meta: Metadata) -> Result<()> {
    let read_only = |path: &Path, meta: Metadata| {
        let mut permissions = meta.permissions();
        permissions.set_readonly(true);
        fs::set_permissions(path, permissions).map_err(|e| Problem::io("write", path, &e))
    };
    if !meta.is_dir() {
        return read_only(path, meta);
    }
    for file in files_below(path)? {
        let path = path.join(file);
        let meta = fs::metadata(&path).map_err(|e| Problem::io("read", &path, &e))?;
        read_only(&path, meta)?;
    }
    Ok(())
}

/// Writes a small file and flushes it.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|e| Problem::io("write", path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("cache"));
        (folder, store)
    }

    fn put(store: &Store, files: &BTreeMap<String, Vec<u8>>) -> Object {
        let stage = store.stage().unwrap();
        let out = stage.folder().join("out");
        fs::create_dir(&out).unwrap();
        for (name, bytes) in files {
            super::super::make_parent(&out.join(name)).unwrap();
            fs::write(out.join(name), bytes).unwrap();
        }
        store.take_in(&out, &stage.folder().join("aside"), &mut |_| Ok(())).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]

        #[test]
        fn what_was_put_can_be_got(
            files in prop::collection::btree_map("[a-cж]{1,3}/[a-c ]{1,3}x", prop::collection::vec(any::<u8>(), 0..40), 0..5)
        ) {
            let (_folder, store) = store();
            let object = put(&store, &files);
            prop_assert!(store.has(&object));
            prop_assert_eq!(object.bytes, files.values().map(|bytes| bytes.len() as u64).sum::<u64>());
            let place = store.object(&object.digest);
            prop_assert_eq!(&files_below(&place).unwrap(), &files.keys().cloned().collect::<Vec<_>>());
            for (name, bytes) in &files {
                prop_assert_eq!(&fs::read(place.join(name)).unwrap(), bytes);
                prop_assert!(fs::metadata(place.join(name)).unwrap().permissions().readonly());
            }
            prop_assert_eq!(put(&store, &files), object);
        }
    }

    #[test]
    fn damage_of_the_same_size_is_found_by_reading() {
        let (_folder, store) = store();
        let object = put(&store, &BTreeMap::from([("a".to_owned(), b"text".to_vec())]));
        store.check(&object, &mut |_| Ok(())).unwrap();
        let file = store.object(&object.digest).join("a");
        fs::remove_file(&file).unwrap();
        fs::write(&file, "tex7").unwrap();
        assert!(store.has(&object));
        let problem = store.check(&object, &mut |_| Ok(())).unwrap_err();
        assert!(problem.what.ends_with("is damaged: its content is not what its name says"), "{problem}");
        fs::remove_dir_all(store.object(&object.digest)).unwrap();
        assert!(store.check(&object, &mut |_| Ok(())).unwrap_err().what.starts_with("cannot read "));
    }

    #[test]
    fn a_damaged_object_is_replaced() {
        let (_folder, store) = store();
        let files = BTreeMap::from([("a".to_owned(), b"text".to_vec())]);
        let object = put(&store, &files);
        let place = store.object(&object.digest);
        fs::remove_file(place.join("a")).unwrap();
        assert!(!store.has(&object));
        assert_eq!(put(&store, &files), object);
        assert_eq!(fs::read(place.join("a")).unwrap(), b"text");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_refused() {
        let (_folder, store) = store();
        let stage = store.stage().unwrap();
        let out = stage.folder().join("out");
        fs::create_dir(&out).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", out.join("sly")).unwrap();
        let problem = store.take_in(&out, &stage.folder().join("aside"), &mut |_| Ok(())).unwrap_err();
        assert!(problem.what.contains("the link `sly`"), "{problem}");
    }
}
