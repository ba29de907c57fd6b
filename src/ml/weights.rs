//! Checkpoints in safetensors form: read by mmap, sharded or not, and written.
//! It does not know architectures: who reads says which tensors there must be.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensors, View};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::memory;
pub use super::shapes::Shapes;
use super::shapes::count;
use crate::digest::Digest;
use crate::error::{Problem, Result};

/// Tensors by their names.
pub type Tensors = BTreeMap<String, Tensor>;

/// One safetensors file, mapped.
pub struct Mapped {
    path: PathBuf,
    map: Mmap,
}

impl Mapped {
    /// Maps a file and checks its header: sizes, offsets, dtypes, no overlap.
    pub fn open(path: &Path) -> Result<Self> {
        if path.extension().is_some_and(|e| e == "bin" || e == "pt" || e == "pth") {
            return Err(pickle(path));
        }
        let file = File::open(path).map_err(|e| Problem::io("open", path, &e))?;
        #[expect(unsafe_code, reason = "mmap has no safe form")]
        // SAFETY: objects of the store and checkpoints are read-only for us; if another program shortens the file
        // while it is mapped, the process ends with SIGBUS, as it would in every other reader that maps.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Problem::io("map", path, &e))?;
        let mapped = Self { path: path.to_owned(), map };
        mapped.parsed()?;
        Ok(mapped)
    }

    fn parsed(&self) -> Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.map).map_err(|e| {
            Problem::new(format!("not a whole safetensors file: {e}"))
                .in_file(self.path.display().to_string(), None)
                .help("it may be truncated: compare its size and hash with the source's")
        })
    }

    /// The header: names and shapes.
    pub fn shapes(&self) -> Result<Shapes> {
        let parsed = self.parsed()?;
        parsed.iter().map(|(name, view)| Ok((name.to_owned(), self.shape(name, view.shape())?))).collect()
    }

    /// blake3 of each tensor: of its dtype, its shape and its bytes.
    pub fn digests(&self) -> Result<BTreeMap<String, String>> {
        let parsed = self.parsed()?;
        let one = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(format!("{:?} {:?}\n", view.dtype(), view.shape()).as_bytes());
            hasher.update_rayon(view.data());
            (name, hasher.finalize().to_hex().to_string())
        };
        Ok(parsed.tensors().into_iter().map(one).collect())
    }

    fn shape(&self, name: &str, shape: &[usize]) -> Result<Vec<i64>> {
        shape.iter().map(|&n| i64::try_from(n)).collect::<std::result::Result<_, _>>().map_err(|_| {
            Problem::new(format!("tensor `{name}` has the shape {shape:?}"))
                .in_file(self.path.display().to_string(), None)
        })
    }

    /// All tensors on `device`: those of real numbers converted to `dtype`, or all as they are. Weights are real
    /// numbers: with a `dtype`, whole numbers are refused.
    pub fn tensors(&self, dtype: Option<Kind>, device: Device) -> Result<Tensors> {
        self.wanted(|_| true, dtype, device)
    }

    /// The same for the tensors with these names.
    pub fn wanted(&self, wanted: impl Fn(&str) -> bool, dtype: Option<Kind>, device: Device) -> Result<Tensors> {
        let parsed = self.parsed()?;
        let mut tensors = Tensors::new();
        for (name, view) in parsed.tensors().into_iter().filter(|(name, _)| wanted(name)) {
            let stored = kind_of(view.dtype()).ok_or_else(|| {
                Problem::new(format!("tensor `{name}` has the dtype {:?}, which is not supported", view.dtype()))
                    .in_file(self.path.display().to_string(), None)
            })?;
            let real = matches!(stored, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16);
            if dtype.is_some() && !real {
                return Err(Problem::new(format!("tensor `{name}` holds {stored:?} instead of real numbers"))
                    .in_file(self.path.display().to_string(), None));
            }
            let tensor = Tensor::from_data_size(view.data(), &self.shape(&name, view.shape())?, stored);
            tensors.insert(name, tensor.to_kind(dtype.unwrap_or(stored)).to_device(device));
        }
        Ok(tensors)
    }
}

/// What there is to say about a checkpoint in Python's own format.
pub fn pickle(path: &Path) -> Problem {
    Problem::new(format!("{} is a pickle, which can run code when read", path.display()))
        .help("convert it once, where you trust it: load it in Python and save it with `safetensors.torch.save_file`")
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

/// The inverse of [`kind_of`].
fn dtype_of(kind: Kind) -> Option<Dtype> {
    let known = [Dtype::F32, Dtype::F64, Dtype::F16, Dtype::BF16, Dtype::I64, Dtype::I32, Dtype::I16, Dtype::I8];
    known.into_iter().chain([Dtype::U8, Dtype::BOOL]).find(|dtype| kind_of(*dtype) == Some(kind))
}

/// The tensors of one safetensors file.
pub fn read_file(path: &Path, dtype: Option<Kind>, device: Device) -> Result<Tensors> {
    Mapped::open(path)?.tensors(dtype, device)
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
/// large and how old they are, and what was made of them.
fn identity(files: &[PathBuf], dtype: Kind, device: Device) -> Result<String> {
    let mut identity = format!("{dtype:?} {device:?}");
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
    let identity = identity(&files, dtype, device)?;
    let mut resident = RESIDENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((_, tensors)) = resident.as_ref().filter(|(of, _)| *of == identity) {
        // The configuration may have changed although the tensors did not.
        if cover(shapes, &shapes_of(tensors)).is_ok() {
            return Ok(share(tensors));
        }
    }
    // Before the next one takes its place in memory.
    *resident = None;
    let mapped = files.iter().map(|path| Mapped::open(path)).collect::<Result<Vec<_>>>()?;
    let mut found = Shapes::new();
    for file in &mapped {
        for (tensor, shape) in file.shapes()? {
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
    let mut tensors = Tensors::new();
    for file in &mapped {
        let read = file.wanted(|tensor| shapes.contains_key(&rename(tensor)), Some(dtype), device)?;
        tensors.extend(read.into_iter().map(|(tensor, values)| (rename(&tensor), values)));
    }
    *resident = Some((identity, share(&tensors)));
    Ok(tensors)
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
/// the names, each digest that of a tensor's dtype, shape and bytes.
pub fn fingerprint(folder: &Path) -> Result<Digest> {
    let files = files(folder)?;
    let identity = identity(&files, Kind::Float, Device::Cpu)?;
    let mut last = FINGERPRINT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((_, digest)) = last.as_ref().filter(|(of, _)| *of == identity) {
        return Ok(digest.clone());
    }
    let mut all = BTreeMap::new();
    for file in &files {
        all.append(&mut Mapped::open(file)?.digests()?);
    }
    let mut listing = String::from("pipe weights 1\n");
    for (name, digest) in all {
        let _ = writeln!(listing, "{digest} {name}");
    }
    let digest = Digest::of(listing.as_bytes());
    *last = Some((identity, digest.clone()));
    Ok(digest)
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
