//! Content digests: what a file or a folder is, independent of where it lies and when it was written.
//! It does not know the store, nor what a digest is used for.

mod read;
mod shape;

use std::fmt;
use std::fs;
use std::path::Path;

use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::error::{Problem, Result};
pub use shape::shape;

/// blake3 of a content, as 64 lower-case hexadecimal digits.
///
/// The digits themselves and no `String`: thousands of steps have several each, and they are copied all the time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; DIGITS]);

/// So many digits has a digest.
const DIGITS: usize = 64;

/// Follows a long reading: told how many bytes were read since the last time; its problem ends the reading.
pub type Watch<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(&blake3::hash(bytes))
    }

    /// The digest of a file, or of a folder: see [`Digest::of_folder`].
    pub fn of_path(path: &Path) -> Result<Self> {
        Self::of_path_watched(path, &mut |_| Ok(()))
    }

    /// The same, followed by `watch`.
    pub fn of_path_watched(path: &Path, watch: Watch) -> Result<Self> {
        let meta = fs::metadata(path).map_err(|e| Problem::io("read", path, &e))?;
        if meta.is_dir() { Self::folder(path, watch) } else { Self::file(path, watch) }
    }

    /// The digest of a file's bytes.
    pub fn of_file(path: &Path) -> Result<Self> {
        Self::file(path, &mut |_| Ok(()))
    }

    /// The digest of a folder: blake3 over its files in order of their relative paths, each as
    /// `digest path-with-slashes\n`. Empty folders, times and permissions do not count.
    pub fn of_folder(folder: &Path) -> Result<Self> {
        Self::folder(folder, &mut |_| Ok(()))
    }

    fn folder(folder: &Path, watch: Watch) -> Result<Self> {
        Self::of_files_watched(folder, &files_below(folder)?, watch)
    }

    /// The digest that a folder would have if it held these of its files alone; their names are sorted.
    pub fn of_files(folder: &Path, names: &[impl AsRef<str>]) -> Result<Self> {
        Self::of_files_watched(folder, names, &mut |_| Ok(()))
    }

    fn of_files_watched(folder: &Path, names: &[impl AsRef<str>], watch: Watch) -> Result<Self> {
        let paths: Vec<_> = names.iter().map(|name| folder.join(name.as_ref())).collect();
        Ok(Self::of_listing(names, &Self::each(&paths, watch)?))
    }

    /// The digest of a folder that holds files of these names and digests; the names are sorted.
    pub fn of_listing(names: &[impl AsRef<str>], digests: &[Self]) -> Self {
        let mut listing = String::from("pipe folder 1\n");
        for (name, digest) in names.iter().zip(digests) {
            listing.push_str(digest.as_str());
            listing.push(' ');
            listing.push_str(name.as_ref());
            listing.push('\n');
        }
        Self::of(listing.as_bytes())
    }

    /// The digest of each of these files, many read at a time.
    pub fn each(paths: &[impl AsRef<Path>], watch: Watch) -> Result<Vec<Self>> {
        read::files(&paths.iter().map(AsRef::as_ref).collect::<Vec<_>>(), watch)
    }

    fn file(path: &Path, watch: Watch) -> Result<Self> {
        Ok(Self::each(&[path], watch)?.remove(0))
    }

    fn from_hash(hash: &blake3::Hash) -> Self {
        let mut digits = [0; DIGITS];
        digits.copy_from_slice(hash.to_hex().as_bytes());
        Self(digits)
    }

    /// The digest with these bytes.
    pub fn from_bytes(bytes: &[u8; DIGITS / 2]) -> Self {
        Self::from_hash(&blake3::Hash::from_bytes(*bytes))
    }

    /// The bytes that the digits stand for.
    pub fn to_bytes(&self) -> [u8; DIGITS / 2] {
        *blake3::Hash::from_hex(self.0).expect("digits are hexadecimal").as_bytes()
    }

    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits are ASCII")
    }

    /// The first twelve digits, enough to tell digests apart for a person.
    pub fn short(&self) -> &str {
        &self.as_str()[..12]
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: [u8; DIGITS] = text.as_bytes().try_into().ok()?;
        digits.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)).then_some(Self(digits))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.as_str())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Digits;
        impl Visitor<'_> for Digits {
            type Value = Digest;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("64 hexadecimal digits")
            }
            fn visit_str<E: Error>(self, text: &str) -> std::result::Result<Digest, E> {
                Digest::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Digits)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The size of a file; that of a folder is the sum of its files.
pub fn bytes_of(path: &Path) -> Result<u64> {
    let size = |path: &Path| fs::metadata(path).map_err(|e| Problem::io("read", path, &e));
    let meta = size(path)?;
    if !meta.is_dir() {
        return Ok(meta.len());
    }
    files_below(path)?.iter().map(|file| Ok(size(&path.join(file))?.len())).sum()
}

/// The files below a folder as relative paths with `/`, sorted by their bytes. Links are followed;
/// a name that is not UTF-8 is refused, because it could not be written down.
pub fn files_below(folder: &Path) -> Result<Vec<String>> {
    fn walk(folder: &Path, prefix: &str, depth: usize, found: &mut Vec<String>) -> Result<()> {
        if depth > 64 {
            return Err(Problem::new(format!("{} is nested more than 64 folders deep", folder.display()))
                .help("look for a link that points back into the folder"));
        }
        let entries = fs::read_dir(folder).map_err(|e| Problem::io("list", folder, &e))?;
        for entry in entries {
            let entry = entry.map_err(|e| Problem::io("list", folder, &e))?;
            let name = entry
                .file_name()
                .into_string()
                .map_err(|name| Problem::new(format!("the file name {name:?} in {} is not UTF-8", folder.display())))?;
            let relative = format!("{prefix}{name}");
            let path = entry.path();
            let meta = fs::metadata(&path).map_err(|e| Problem::io("read", &path, &e))?;
            if meta.is_dir() {
                walk(&path, &format!("{relative}/"), depth + 1, found)?;
            } else {
                found.push(relative);
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(folder, "", 0, &mut found)?;
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Objects lie at paths that are made of their digests: one that is read must not lead elsewhere.
    #[test]
    fn what_is_no_digest_is_not_read_as_one() {
        let good = Digest::of(b"x");
        let text = serde_json::to_string(&good).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&text).unwrap(), good);
        for bad in ["", "a", "ж", "../../../../etc/passwd", &good.as_str()[1..], &good.as_str().to_uppercase()] {
            assert!(serde_json::from_value::<Digest>(bad.into()).is_err(), "{bad}");
        }
    }

    #[test]
    fn digits_and_bytes_are_the_same_digest() {
        for text in ["", "a", "текст"] {
            let digest = Digest::of(text.as_bytes());
            assert_eq!(digest.as_str(), blake3::hash(text.as_bytes()).to_hex().as_str());
            assert_eq!(Digest::from_bytes(&digest.to_bytes()), digest);
            assert_eq!(Digest::parse(digest.as_str()), Some(digest.clone()));
            let json = serde_json::to_string(&digest).unwrap();
            assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        }
        let bad = ["".to_owned(), "0".repeat(63), "0".repeat(65), "F".repeat(64), "г".repeat(32)];
        for text in bad {
            assert_eq!(Digest::parse(&text), None);
            let error = serde_json::from_value::<Digest>(text.into()).unwrap_err().to_string();
            assert!(error.contains("expected 64 hexadecimal digits"), "{error}");
        }
    }

    #[test]
    fn a_large_file_is_followed_and_can_be_left() {
        let window = read::WINDOW;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("большой файл");
        let bytes: Vec<u8> = (0..2 * window + 7).map(|i| ((i * i) >> 3) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        let mut told = Vec::new();
        let digest = Digest::of_path_watched(&path, &mut |read| {
            told.push(read);
            Ok(())
        });
        assert_eq!(digest.unwrap(), Digest::of(&bytes));
        assert_eq!(told.iter().filter(|&&read| read > 0).collect::<Vec<_>>(), [&window, &window, &7]);
        let left = Digest::of_path_watched(folder.path(), &mut |_| Err(Problem::cancelled()));
        assert!(left.unwrap_err().cancelled);
        fs::write(folder.path().join("пустой"), "").unwrap();
        assert_eq!(bytes_of(folder.path()).unwrap(), bytes.len() as u64);
        assert_eq!(Digest::of_file(&folder.path().join("пустой")).unwrap(), Digest::of(b""));
    }
}
