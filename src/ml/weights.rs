//! Checkpoints in safetensors form: read, sharded or not, and written; what tells their weights from others.
//! It does not know architectures: who reads says which tensors there must be.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use safetensors::tensor::{Dtype, View};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

mod stored;

pub use self::stored::Stored;
use self::stored::dtype_of;
use super::memory;
pub use super::shapes::Shapes;
use super::shapes::count;
use crate::digest::Digest;
use crate::error::{Problem, Result};

/// Tensors by their names.
pub type Tensors = BTreeMap<String, Tensor>;

/// What there is to say about a checkpoint in Python's own format.
pub fn pickle(path: &Path) -> Problem {
    Problem::new(format!("{} is a pickle, which can run code when read", path.display()))
        .help("convert it once, where you trust it: load it in Python and save it with `safetensors.torch.save_file`")
}

/// The tensors of one safetensors file.
pub fn read_file(path: &Path, dtype: Option<Kind>, device: Device) -> Result<Tensors> {
    Stored::open(path)?.tensors(dtype, device)
}

/// The files of a checkpoint folder: `model.safetensors`, or the shards that its index names.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let single = folder.join("model.safetensors");
    if single.exists() {
        return Ok(vec![single]);
    }
    let index = folder.join("model.safetensors.index.json");
    if !index.exists() {
        for name in ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt"] {
            if folder.join(name).exists() {
                return Err(pickle(&folder.join(name)));
            }
        }
        return Err(Problem::new(format!("no model.safetensors in {}", folder.display())).expected(
            "a Hugging Face checkpoint: config.json with model.safetensors, or with shards and their index",
        ));
    }
    let text = fs::read_to_string(&index).map_err(|e| Problem::io("read", &index, &e))?;
    let broken = |what: String| Problem::new(what).in_file(index.display().to_string(), None);
    let value: Value = serde_json::from_str(&text).map_err(|e| broken(format!("not JSON: {e}")))?;
    let map = value.get("weight_map").and_then(Value::as_object).ok_or_else(|| broken("no `weight_map`".to_owned()))?;
    let name =
        |value: &'_ Value| value.as_str().map(str::to_owned).ok_or_else(|| broken(format!("the shard name `{value}`")));
    let names = map.values().map(name).collect::<Result<BTreeSet<_>>>()?;
    for name in &names {
        // A shard is a plain name beside the index: nothing may lead out of the folder.
        if name.contains(['/', '\\']) || name.starts_with('.') {
            return Err(broken(format!("the shard name `{name}` leads out of the folder")));
        }
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// The checkpoint that was read last, with what tells it from others.
static RESIDENT: Mutex<Option<(String, Tensors)>> = Mutex::new(None);

/// What tells a checkpoint from every other, and from itself before somebody wrote to it: where its files are, how
/// large and how old they are.
fn place(files: &[PathBuf]) -> Result<String> {
    let mut identity = String::new();
    for path in files {
        let io = |e| Problem::io("open", path, &e);
        let about = fs::metadata(path).map_err(io)?;
        let modified = about.modified().map_err(io)?;
        let path = path.canonicalize().map_err(io)?;
        let _ = write!(identity, "\n{} {} {modified:?}", path.display(), about.len());
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            // A file that was replaced, or whose age was set back.
            let _ = write!(identity, " {} {} {}.{}", about.dev(), about.ino(), about.ctime(), about.ctime_nsec());
        }
    }
    Ok(identity)
}

/// The weights of a checkpoint, exactly those of `shapes`: a tensor more, a tensor less or another shape is an
/// error that lists both sides. `ignored` tells which extra tensors do no harm. `base` is the module that holds
/// everything but the head: a checkpoint that was saved without a head lacks it in all names. Fails if the tensors
/// do not fit into memory.
///
/// The base of one experiment is read once in a process: the last checkpoint stays resident, and whoever reads it
/// again shares its memory, as long as its files are the same.
pub fn read_checkpoint(
    folder: &Path,
    shapes: &Shapes,
    base: &str,
    ignored: impl Fn(&str) -> bool,
    dtype: Kind,
    device: Device,
) -> Result<Tensors> {
    let files = files(folder)?;
    let place = place(&files)?;
    let identity = format!("{dtype:?} {device:?}{place}");
    let mut resident = RESIDENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((_, tensors)) = resident.as_ref().filter(|(of, _)| *of == identity) {
        // The configuration may have changed although the tensors did not.
        if cover(shapes, &shapes_of(tensors)).is_ok() {
            return Ok(share(tensors));
        }
    }
    // Before the next one takes its place in memory.
    *resident = None;
    let stored = files.iter().map(|path| Stored::open(path)).collect::<Result<Vec<_>>>()?;
    let mut found = Shapes::new();
    for file in &stored {
        for (tensor, shape) in file.shapes() {
            if found.insert(tensor.clone(), shape).is_some() {
                return Err(Problem::new(format!("tensor `{tensor}` stands in two shards of {}", folder.display())));
            }
        }
    }
    let base = format!("{base}.");
    let bare = !found.keys().any(|tensor| tensor.starts_with(&base));
    let rename = |tensor: &str| {
        let whole = format!("{base}{tensor}");
        if bare && shapes.contains_key(&whole) { whole } else { tensor.to_owned() }
    };
    let mut found: Shapes = found.into_iter().map(|(tensor, shape)| (rename(&tensor), shape)).collect();
    found.retain(|tensor, _| shapes.contains_key(tensor) || !ignored(tensor));
    cover(shapes, &found).map_err(|problem| problem.in_file(folder.display().to_string(), None))?;
    if device == Device::Cpu {
        memory::check("the weights of the model", count(shapes), dtype.elt_size_in_bytes() as u128)?;
    }
    let (mut tensors, mut digests) = (Tensors::new(), BTreeMap::new());
    for file in &stored {
        let wanted = |tensor: &str| shapes.contains_key(&rename(tensor));
        let (read, mut of_file) = file.wanted_with_digests(&wanted, dtype, device)?;
        tensors.extend(read.into_iter().map(|(tensor, values)| (rename(&tensor), values)));
        digests.append(&mut of_file);
    }
    *FINGERPRINT.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some((place, printed(&digests)));
    *resident = Some((identity, share(&tensors)));
    Ok(tensors)
}

/// These tensors, some of which are matrices that now lie the other way round in memory: the same numbers, [outputs, inputs]
/// as a view of [inputs, outputs]. One after the other, so that only one is there twice; if they are the resident
/// checkpoint's, whoever reads it again gets them so.
pub fn turned(tensors: Tensors, which: impl Fn(&str) -> bool) -> Tensors {
    let mut resident = RESIDENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let turn = |(name, tensor): (String, Tensor)| {
        if !which(&name) || !tensor.is_contiguous() {
            return (name, tensor);
        }
        let other = tensor.tr().contiguous().tr();
        let kept = resident.as_mut().and_then(|(_, kept)| kept.get_mut(&name));
        if let Some(kept) = kept.filter(|kept| kept.data_ptr() == tensor.data_ptr()) {
            *kept = other.shallow_clone();
        }
        (name, other)
    };
    tensors.into_iter().map(turn).collect()
}

/// What shapes these tensors have.
pub fn shapes_of(tensors: &Tensors) -> Shapes {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect()
}

fn share(tensors: &Tensors) -> Tensors {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
}

/// Every name of one side stands on the other, with the same shape; otherwise the error lists both sides.
pub fn cover(expected: &Shapes, found: &Shapes) -> Result<()> {
    let list = |names: Vec<String>| {
        let more = names.len().saturating_sub(6);
        let shown = names.into_iter().take(6).collect::<Vec<_>>().join(", ");
        if more > 0 { format!("{shown} and {more} more") } else { shown }
    };
    let missing: Vec<String> =
        expected.iter().filter(|(n, _)| !found.contains_key(*n)).map(|(n, s)| format!("`{n}` {s:?}")).collect();
    let extra: Vec<String> =
        found.iter().filter(|(n, _)| !expected.contains_key(*n)).map(|(n, s)| format!("`{n}` {s:?}")).collect();
    let other: Vec<String> = expected
        .iter()
        .filter_map(|(n, s)| found.get(n).filter(|f| *f != s).map(|f| format!("`{n}` is {f:?} instead of {s:?}")))
        .collect();
    let mut parts = Vec::new();
    for (words, names) in [("missing", missing), ("without a place", extra), ("of another shape", other)] {
        if !names.is_empty() {
            parts.push(format!("{words}: {}", list(names)));
        }
    }
    if parts.is_empty() {
        return Ok(());
    }
    Err(Problem::new(format!("the tensors do not fit; {}", parts.join("; "))))
}

/// The checkpoint whose fingerprint was asked last, and the fingerprint.
static FINGERPRINT: Mutex<Option<(String, Digest)>> = Mutex::new(None);

/// What the weights of a checkpoint are, however they are split into files: blake3 over `digest name\n` in the order of
/// the names, each digest that of a tensor's dtype, shape and bytes. Nothing is read if this checkpoint was read last.
pub fn fingerprint(folder: &Path) -> Result<Digest> {
    let files = files(folder)?;
    let place = place(&files)?;
    let mut last = FINGERPRINT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((_, digest)) = last.as_ref().filter(|(of, _)| *of == place) {
        return Ok(digest.clone());
    }
    let mut digests = BTreeMap::new();
    for file in &files {
        digests.append(&mut Stored::open(file)?.digests()?);
    }
    let digest = printed(&digests);
    *last = Some((place, digest.clone()));
    Ok(digest)
}

fn printed(digests: &BTreeMap<String, String>) -> Digest {
    let mut listing = String::from("pipe weights 1\n");
    for (name, digest) in digests {
        let _ = writeln!(listing, "{digest} {name}");
    }
    Digest::of(listing.as_bytes())
}

/// A tensor whose bytes are copied when they are written, one after the other.
struct Outgoing {
    dtype: Dtype,
    shape: Vec<usize>,
    tensor: Tensor,
}

impl Outgoing {
    fn bytes(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

impl View for &Outgoing {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        let mut data = vec![0_u8; self.bytes()];
        let whole = self.tensor.to_device(Device::Cpu).contiguous();
        whole.copy_data_u8(&mut data, whole.numel());
        Cow::Owned(data)
    }
    fn data_len(&self) -> usize {
        self.bytes()
    }
}

/// Writes tensors as one safetensors file, in the order of their names, with the metadata `{"format": "pt"}` that
/// Python's readers look for.
pub fn write_file(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let mut views = BTreeMap::new();
    for (name, tensor) in tensors {
        let dtype = dtype_of(tensor.kind())
            .ok_or_else(|| Problem::new(format!("cannot write `{name}` as {:?}", tensor.kind())))?;
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        views.insert(name.as_str(), Outgoing { dtype, shape, tensor: tensor.detach() });
    }
    let metadata = Some([("format".to_owned(), "pt".to_owned())].into_iter().collect());
    // The library makes a file that its owner alone may read: what an ordinary file here is like is asked first.
    let io = |e| Problem::io("write", path, &e);
    let permissions = File::create(path).and_then(|file| file.metadata()).map_err(io)?.permissions();
    safetensors::serialize_to_file(&views, metadata, path)
        .map_err(|e| Problem::new(format!("cannot write {}: {e}", path.display())))?;
    fs::set_permissions(path, permissions).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_that_was_loaded_has_its_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        let tensors = [("m.a".to_owned(), Tensor::ones([3, 2], (Kind::Float, Device::Cpu)))];
        write_file(&folder.path().join("model.safetensors"), &tensors).unwrap();
        let shapes = Shapes::from([("m.a".to_owned(), vec![3, 2])]);
        let of_it = place(&files(folder.path()).unwrap()).unwrap();
        // Tests beside this one load others: whoever was last stands there.
        let known = (0..100).find_map(|_| {
            *RESIDENT.lock().unwrap() = None;
            read_checkpoint(folder.path(), &shapes, "m", |_| false, Kind::BFloat16, Device::Cpu).unwrap();
            FINGERPRINT.lock().unwrap().as_ref().filter(|(of, _)| *of == of_it).map(|(_, digest)| digest.clone())
        });
        *FINGERPRINT.lock().unwrap() = None;
        assert_eq!(known, Some(fingerprint(folder.path()).unwrap()));
    }
}
