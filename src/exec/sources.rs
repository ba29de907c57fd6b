//! The sources of a step: files outside the store, told by their content, which may be many gigabytes.
//! It does not know which thread reads them, nor what their digests are for.

use std::time::{Duration, Instant};

use crate::digest::{Digest, bytes_of};
use crate::error::{Problem, Result};
use crate::event::Say;
use crate::step::Source;
use crate::store::Store;

/// Sources as they were when they were read.
pub type Sources = Vec<(Source, Digest)>;

/// Readings that are over sooner are not told: a bar that flickers tells nothing.
const QUIET: Duration = Duration::from_millis(250);

/// The sources, if nothing has to be read for them because they have not changed since they were.
pub fn remembered(store: &Store, sources: &[Source]) -> Option<Sources> {
    sources.iter().map(|source| Some((source.clone(), store.remembered(&source.path)?))).collect()
}

/// Reads the sources, those that have changed since they were last read. `watch` is told how many of all their bytes
/// have been read; its problem ends the reading.
pub fn read(store: &Store, sources: Vec<Source>, watch: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Sources> {
    let total = sources.iter().map(|source| bytes_of(&source.path)).sum::<Result<u64>>()?;
    let mut done = 0;
    let mut count = |bytes| {
        done += bytes;
        // A file that grows meanwhile.
        watch(done, total.max(done))
    };
    let one = |source: Source| store.digest_of(&source.path, &mut count).map(|digest| (source, digest));
    sources.into_iter().map(one).collect()
}

/// Tells how far a reading is by `say`, and ends it once `stop` says so.
pub fn told<'a>(
    text: &'a str,
    say: &'a dyn Fn(Say),
    stop: &'a dyn Fn() -> bool,
) -> impl FnMut(u64, u64) -> Result<()> + 'a {
    let begun = Instant::now();
    move |done, total| {
        if stop() {
            return Err(Problem::cancelled());
        }
        if begun.elapsed() >= QUIET {
            say(Say::Progress { done, total: Some(total), unit: "B".to_owned(), text: text.to_owned() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sources_count_towards_one_total() {
        let folder = tempfile::tempdir().unwrap();
        let source = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            Source { name: name.to_owned(), path }
        };
        let sources = vec![source("один", "12"), source("два", "345")];
        let mut heard = Vec::new();
        let store = Store::at(folder.path().join("cache"));
        let read = read(&store, sources.clone(), &mut |done, total| {
            heard.push((done, total));
            Ok(())
        });
        assert_eq!(heard, [(2, 5), (5, 5)]);
        assert_eq!(read.unwrap(), sources.into_iter().zip([Digest::of(b"12"), Digest::of(b"345")]).collect::<Vec<_>>());
    }

    #[test]
    fn a_reading_is_left_when_it_is_asked_to_stop() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), "text").unwrap();
        let source = Source { name: "f".into(), path: folder.path().join("f") };
        let heard = std::cell::RefCell::new(Vec::new());
        let stop = std::cell::Cell::new(false);
        let (say, stopped) = (|say| heard.borrow_mut().push(say), || stop.get());
        let store = Store::at(folder.path().join("cache"));
        read(&store, vec![source.clone()], &mut told("", &say, &stopped)).unwrap();
        assert!(heard.borrow().is_empty(), "what is over at once is not told");
        stop.set(true);
        assert!(read(&store, vec![source], &mut told("", &say, &stopped)).unwrap_err().cancelled);
    }
}
