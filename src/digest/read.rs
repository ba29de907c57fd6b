//! How contents are read and hashed as fast as the machine can: pieces of a large file, or many files, at a time.
//! It does not know what a digest is used for.
//!
//! Files are read, not mapped: a file that somebody cuts short meanwhile would kill the process that has it mapped.
//! blake3 is a tree over the content, so each core reads a piece into a buffer that stays in its cache, hashes it
//! there, and the values are put together as the tree has them. That touches memory less than a mapping would.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use rayon::prelude::*;

use super::{Digest, Watch};
use crate::error::{Problem, Result};

/// What one core reads at a time; a power of two, and small enough for its cache.
const PIECE: u64 = 256 << 10;

/// What all cores read before `watch` is asked whether to go on; a power of two.
pub(super) const WINDOW: u64 = 32 << 20;

/// Files up to this size are read by one core each, many of them at a time.
const SMALL: u64 = 1 << 20;

/// As many files are read between two questions whether to go on.
const FILES: usize = 512;

thread_local! {
    /// One buffer for each thread: to make and clear one for each piece would cost more than the hashing.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The digest of each of these files, in their order, and how many bytes it has.
pub(super) fn files(paths: &[&Path], watch: Watch) -> Result<Vec<Digest>> {
    let mut digests = Vec::with_capacity(paths.len());
    for group in paths.chunks(FILES) {
        let read: Vec<Option<(Digest, u64)>> = match group {
            [only] => vec![small(only)?],
            several => several.par_iter().map(|path| small(path)).collect::<Result<_>>()?,
        };
        let mut bytes = 0;
        for (path, read) in group.iter().zip(read) {
            digests.push(match read {
                Some((digest, length)) => {
                    bytes += length;
                    digest
                }
                None => large(path, watch)?,
            });
        }
        watch(bytes)?;
    }
    Ok(digests)
}

/// A file that is read in one go; `None` if it is too large for that.
fn small(path: &Path) -> Result<Option<(Digest, u64)>> {
    let failed = |e: std::io::Error| Problem::io("read", path, &e);
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length > SMALL {
        return Ok(None);
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        // One more shows the end: else it is looked for with reads of a few bytes.
        buffer.reserve(length as usize + 1);
        // It may have grown, or be no regular file, which has no length.
        file.take(SMALL + 1).read_to_end(buffer).map_err(failed)?;
        let fits = buffer.len() as u64 <= SMALL;
        Ok(fits.then(|| (Digest::of(buffer), buffer.len() as u64)))
    })
}

/// A file of any size.
fn large(path: &Path, watch: Watch) -> Result<Digest> {
    let failed = |e: std::io::Error| Problem::io("read", path, &e);
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !cfg!(unix) || !meta.is_file() || meta.len() <= PIECE {
        return stream(file, path, watch);
    }
    let tree = Tree { file: &file, path };
    let left = left_subtree_len(meta.len());
    let (one, two) = (tree.walk(0, left, watch)?, tree.walk(left, meta.len() - left, watch)?);
    if file.metadata().map_err(failed)?.len() != meta.len() {
        return Err(changed(path));
    }
    Ok(Digest::from_hash(&merge_subtrees_root(&one, &two, Mode::Hash)))
}

/// What has no size that can be known before it is read.
fn stream(file: File, path: &Path, watch: Watch) -> Result<Digest> {
    let (mut hasher, mut block) = (blake3::Hasher::new(), Vec::new());
    loop {
        block.clear();
        (&file).take(WINDOW).read_to_end(&mut block).map_err(|e| Problem::io("read", path, &e))?;
        if block.is_empty() {
            return Ok(Digest::from_hash(&hasher.finalize()));
        }
        hasher.update_rayon(&block);
        watch(block.len() as u64)?;
    }
}

fn changed(path: &Path) -> Problem {
    Problem::new(format!("{} changed while it was read", path.display())).help("run again once the file is complete")
}

struct Tree<'a> {
    file: &'a File,
    path: &'a Path,
}

impl Tree<'_> {
    /// Window after window, so that a reading can be followed and left.
    fn walk(&self, offset: u64, length: u64, watch: Watch) -> Result<ChainingValue> {
        if length <= WINDOW {
            let value = self.window(offset, length)?;
            watch(length)?;
            return Ok(value);
        }
        let left = left_subtree_len(length);
        let (one, two) = (self.walk(offset, left, watch)?, self.walk(offset + left, length - left, watch)?);
        Ok(merge_subtrees_non_root(&one, &two, Mode::Hash))
    }

    /// All cores at once.
    fn window(&self, offset: u64, length: u64) -> Result<ChainingValue> {
        if length <= PIECE {
            return self.piece(offset, length);
        }
        let left = left_subtree_len(length);
        let (one, two) = rayon::join(|| self.window(offset, left), || self.window(offset + left, length - left));
        Ok(merge_subtrees_non_root(&one?, &two?, Mode::Hash))
    }

    fn piece(&self, offset: u64, length: u64) -> Result<ChainingValue> {
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(buffer.len().max(length as usize), 0);
            let bytes = &mut buffer[..length as usize];
            read_at(self.file, bytes, offset).map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => changed(self.path),
                _ => Problem::io("read", self.path, &error),
            })?;
            Ok(blake3::Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root())
        })
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(not(unix))]
fn read_at(_file: &File, _bytes: &mut [u8], _offset: u64) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn pieces_make_the_digest_of_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let bytes: Vec<u8> = (0..WINDOW + 3 * PIECE).map(|i| ((i * i) >> 3) as u8).collect();
        for length in [
            0,
            1,
            1024,
            1025,
            PIECE,
            PIECE + 1,
            SMALL,
            SMALL + 1,
            5 * PIECE + 1023,
            WINDOW,
            WINDOW + 1,
            bytes.len() as u64,
        ] {
            let part = &bytes[..length as usize];
            fs::write(&path, part).unwrap();
            let mut told = 0;
            let mut watch = |read| {
                told += read;
                Ok(())
            };
            assert_eq!(files(&[&path], &mut watch).unwrap(), [Digest::of(part)], "{length}");
            assert_eq!(told, length);
            assert_eq!(large(&path, &mut |_| Ok(())).unwrap(), Digest::of(part), "{length}");
        }
    }

    #[test]
    fn files_of_all_sizes_keep_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<_> = (0..FILES + 40).map(|i| folder.path().join(i.to_string())).collect();
        let text = |i: usize| if i % 300 == 7 { vec![i as u8; SMALL as usize + i] } else { i.to_string().into_bytes() };
        paths.iter().enumerate().for_each(|(i, path)| fs::write(path, text(i)).unwrap());
        let paths: Vec<&Path> = paths.iter().map(AsRef::as_ref).collect();
        let digests = files(&paths, &mut |_| Ok(())).unwrap();
        assert_eq!(digests, (0..paths.len()).map(|i| Digest::of(&text(i))).collect::<Vec<_>>());
        fs::remove_file(paths[5]).unwrap();
        let problem = files(&paths, &mut |_| Ok(())).unwrap_err();
        assert!(problem.what.starts_with("cannot read "), "{problem}");
    }

    #[test]
    fn a_file_that_is_cut_short_or_grows_meanwhile_is_a_problem() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        for length in [3, WINDOW * 2, WINDOW * 4] {
            fs::write(&path, vec![7; WINDOW as usize * 3]).unwrap();
            let mut first = true;
            let read = large(&path, &mut |_| {
                if std::mem::take(&mut first) {
                    File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
                }
                Ok(())
            });
            assert!(read.unwrap_err().what.ends_with("changed while it was read"));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_of_no_size_is_read_to_its_end() {
        let text = fs::read("/proc/version").unwrap();
        assert!(!text.is_empty());
        assert_eq!(files(&[Path::new("/proc/version")], &mut |_| Ok(())).unwrap(), [Digest::of(&text)]);
    }
}
