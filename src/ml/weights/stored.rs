//! One safetensors file, read in pieces straight into tensors of the wanted dtype: never a second copy of it in memory.
//! It does not know which tensors there must be.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata};
use tch::{Device, Kind, Tensor};

use super::{Shapes, Tensors, pickle};
use crate::error::{Problem, Result};
use crate::ml::device::limit_threads;

/// The format's own limit to a header.
const HEADER: u64 = 100_000_000;
/// What is read, converted and hashed at once: it stays in a core's cache on the way.
const PIECE: usize = 1 << 20;
/// The same for a GPU, where each piece is a transfer.
const PIECE_FOR_GPU: usize = 16 << 20;
/// Files below this are read by the thread that asks.
const SMALL: u64 = 16 << 20;

/// A file whose header was checked. It is read, not mapped: a file that somebody cuts short is an error then, where a
/// map would end the process, and no page of it counts as memory of ours.
pub struct Stored {
    path: PathBuf,
    file: File,
    tensors: BTreeMap<String, Slot>,
    bytes: u64,
}

/// A tensor in the file.
struct Slot {
    dtype: Dtype,
    shape: Vec<i64>,
    begin: u64,
    bytes: u64,
}

/// A tensor that is to be read: the memory for it, in its shape and flat, and the dtype in which it is stored.
struct Job<'a> {
    name: &'a str,
    slot: &'a Slot,
    target: Option<(Tensor, Tensor, Kind)>,
}

/// What came of it.
struct Passed<'a> {
    name: &'a str,
    tensor: Option<Tensor>,
    digest: Option<blake3::Hash>,
}

/// What is made of the tensors that are read.
struct Wish<'a> {
    wanted: &'a (dyn Fn(&str) -> bool + Sync),
    dtype: Option<Kind>,
    device: Device,
    digests: bool,
}

impl Stored {
    /// Opens a file and checks its header: sizes, offsets, dtypes, no overlap.
    pub fn open(path: &Path) -> Result<Self> {
        if path.extension().is_some_and(|e| e == "bin" || e == "pt" || e == "pth") {
            return Err(pickle(path));
        }
        let io = |e| Problem::io("read", path, &e);
        let mut file = File::open(path).map_err(|e| Problem::io("open", path, &e))?;
        let size = file.metadata().map_err(io)?.len();
        let broken = |error: SafeTensorError| {
            Problem::new(format!("not a whole safetensors file: {error}"))
                .in_file(path.display().to_string(), None)
                .help("it may be truncated: compare its size and hash with the source's")
        };
        let mut length = [0; 8];
        if size < 8 {
            return Err(broken(SafeTensorError::HeaderTooSmall));
        }
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > HEADER {
            return Err(broken(SafeTensorError::HeaderTooLarge));
        }
        if length > size - 8 {
            return Err(broken(SafeTensorError::InvalidHeaderLength));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(io)?;
        let header: Metadata = serde_json::from_slice(&header)
            .map_err(|error| broken(SafeTensorError::InvalidHeaderDeserialization(error)))?;
        if 8 + length + header.data_len() as u64 != size {
            return Err(broken(SafeTensorError::MetadataIncompleteBuffer));
        }
        let mut tensors = BTreeMap::new();
        for name in header.offset_keys() {
            let Some(info) = header.info(&name) else { continue };
            let shape = info.shape.iter().map(|&n| i64::try_from(n)).collect::<std::result::Result<_, _>>();
            let shape = shape.map_err(|_| {
                Problem::new(format!("tensor `{name}` has the shape {:?}", info.shape))
                    .in_file(path.display().to_string(), None)
            })?;
            let (begin, end) = info.data_offsets;
            let slot = Slot { dtype: info.dtype, shape, begin: 8 + length + begin as u64, bytes: (end - begin) as u64 };
            tensors.insert(name, slot);
        }
        Ok(Self { path: path.to_owned(), file, tensors, bytes: size })
    }

    /// Names and shapes.
    pub fn shapes(&self) -> Shapes {
        self.tensors.iter().map(|(name, slot)| (name.clone(), slot.shape.clone())).collect()
    }

    /// blake3 of each tensor: of its dtype, its shape and its bytes.
    pub fn digests(&self) -> Result<BTreeMap<String, String>> {
        let wish = Wish { wanted: &|_| false, dtype: None, device: Device::Cpu, digests: true };
        Ok(self.pass(&wish)?.1)
    }

    /// All tensors on `device`: those of real numbers converted to `dtype`, or all as they are. Weights are real
    /// numbers: with a `dtype`, whole numbers are refused.
    pub fn tensors(&self, dtype: Option<Kind>, device: Device) -> Result<Tensors> {
        self.wanted(&|_| true, dtype, device)
    }

    /// The same for the tensors with these names.
    pub fn wanted(
        &self,
        wanted: &(dyn Fn(&str) -> bool + Sync),
        dtype: Option<Kind>,
        device: Device,
    ) -> Result<Tensors> {
        Ok(self.pass(&Wish { wanted, dtype, device, digests: false })?.0)
    }

    /// The same, and in the same reading the digests of all tensors.
    pub fn wanted_with_digests(
        &self,
        wanted: &(dyn Fn(&str) -> bool + Sync),
        dtype: Kind,
        device: Device,
    ) -> Result<(Tensors, BTreeMap<String, String>)> {
        self.pass(&Wish { wanted, dtype: Some(dtype), device, digests: true })
    }

    /// Reads each tensor once, the largest first, as many beside each other as the calling thread may use threads.
    fn pass(&self, wish: &Wish) -> Result<(Tensors, BTreeMap<String, String>)> {
        let mut jobs = Vec::new();
        for (name, slot) in self.tensors.iter().filter(|(name, _)| wish.digests || (wish.wanted)(name)) {
            // All that stays is asked for before any piece: what is asked for between pieces that come and go would
            // stand in the holes that they leave, and each next piece would need new memory.
            let target = if (wish.wanted)(name) { Some(self.target(name, slot, wish)?) } else { None };
            jobs.push(Job { name, slot, target });
        }
        jobs.sort_by_key(|job| job.slot.bytes);
        let count = jobs.len();
        let own = usize::try_from(tch::get_num_threads()).unwrap_or(1);
        let jobs = Mutex::new(jobs);
        let work = || {
            let (mut scratch, mut passed) = (Vec::new(), Vec::with_capacity(count));
            loop {
                let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some(job) = job else { return Ok::<_, Problem>(passed) };
                passed.push(self.one(job, wish, &mut scratch)?);
            }
        };
        let passed = if own.min(count) <= 1 || self.bytes < SMALL {
            work()?
        } else {
            let results: Vec<_> = thread::scope(|scope| {
                let alone = || {
                    // Each of these threads is one of those that the caller may use.
                    limit_threads(1);
                    work()
                };
                let started: Vec<_> = (0..own.min(count)).map(|_| scope.spawn(alone)).collect();
                started.into_iter().map(ScopedJoinHandle::join).collect()
            });
            // libtorch's default for threads to come is the number that was asked for last.
            limit_threads(own);
            let mut all = Vec::new();
            for result in results {
                all.extend(result.unwrap_or_else(|panic| resume_unwind(panic))?);
            }
            all
        };
        let (mut tensors, mut digests) = (Tensors::new(), BTreeMap::new());
        for Passed { name, tensor, digest } in passed {
            if let Some(tensor) = tensor {
                tensors.insert(name.to_owned(), tensor);
            }
            if let Some(digest) = digest {
                digests.insert(name.to_owned(), digest.to_hex().to_string());
            }
        }
        Ok((tensors, digests))
    }

    fn one<'a>(&self, job: Job<'a>, wish: &Wish, scratch: &mut Vec<u8>) -> Result<Passed<'a>> {
        let Job { name, slot, target } = job;
        let mut hasher = wish.digests.then(|| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(format!("{:?} {:?}\n", slot.dtype, slot.shape).as_bytes());
            hasher
        });
        let piece = if wish.device == Device::Cpu { PIECE } else { PIECE_FOR_GPU };
        let mut at = 0;
        while at < slot.bytes {
            let length = (slot.bytes - at).min(piece as u64) as usize;
            // Grows to the largest piece of all that go through it.
            if scratch.len() < length {
                scratch.resize(length, 0);
            }
            let bytes = &mut scratch[..length];
            self.file.read_exact_at(bytes, slot.begin + at).map_err(|e| Problem::io("read", &self.path, &e))?;
            if let Some(hasher) = &mut hasher {
                hasher.update(bytes);
            }
            if let Some((_, flat, stored)) = &target {
                let size = stored.elt_size_in_bytes() as u64;
                let count = (length as u64 / size) as i64;
                flat.narrow(0, (at / size) as i64, count).copy_(&Tensor::from_data_size(bytes, &[count], *stored));
            }
            at += length as u64;
        }
        let tensor = target.map(|(whole, ..)| whole);
        Ok(Passed { name, tensor, digest: hasher.map(|hasher| hasher.finalize()) })
    }

    /// Memory for a tensor, in its shape and flat, and the dtype in which it is stored.
    fn target(&self, name: &str, slot: &Slot, wish: &Wish) -> Result<(Tensor, Tensor, Kind)> {
        let fail = |what: String| Err(Problem::new(what).in_file(self.path.display().to_string(), None));
        let Some(stored) = kind_of(slot.dtype) else {
            return fail(format!("tensor `{name}` has the dtype {:?}, which is not supported", slot.dtype));
        };
        let real = matches!(stored, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16);
        if wish.dtype.is_some() && !real {
            return fail(format!("tensor `{name}` holds {stored:?} instead of real numbers"));
        }
        let whole = Tensor::empty(&slot.shape[..], (wish.dtype.unwrap_or(stored), wish.device));
        let flat = whole.view([-1]);
        Ok((whole, flat, stored))
    }
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
pub(super) fn dtype_of(kind: Kind) -> Option<Dtype> {
    let known = [Dtype::F32, Dtype::F64, Dtype::F16, Dtype::BF16, Dtype::I64, Dtype::I32, Dtype::I16, Dtype::I8];
    known.into_iter().chain([Dtype::U8, Dtype::BOOL]).find(|dtype| kind_of(*dtype) == Some(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ml::weights::write_file;

    /// Three pieces and a bit, beside small tensors and whole numbers.
    fn written(kind: Kind) -> (tempfile::TempDir, PathBuf, Tensor) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let count = (3 * PIECE / kind.elt_size_in_bytes() + 5) as i64;
        let large = (Tensor::arange(count, (Kind::Float, Device::Cpu)) / 7.0 - 1000.0).to_kind(kind).view([1, -1]);
        let tensors = [
            ("large".to_owned(), large.shallow_clone()),
            ("scalar".to_owned(), Tensor::from(0.5_f32).to_kind(kind)),
            ("nothing".to_owned(), Tensor::zeros([0, 4], (kind, Device::Cpu))),
            ("whole".to_owned(), Tensor::from_slice(&[1_i64, -2])),
        ];
        write_file(&path, &tensors).unwrap();
        (folder, path, large)
    }

    #[test]
    fn pieces_make_the_tensor_that_one_conversion_makes() {
        for stored in [Kind::Float, Kind::BFloat16, Kind::Half, Kind::Double] {
            let (_folder, path, large) = written(stored);
            let file = Stored::open(&path).unwrap();
            for dtype in [Kind::Float, Kind::BFloat16] {
                let read = file.wanted(&|name| name != "whole", Some(dtype), Device::Cpu).unwrap();
                assert!(read["large"].equal(&large.to_kind(dtype)), "{stored:?} as {dtype:?}");
                assert_eq!((read["large"].size(), read["large"].kind()), (large.size(), dtype));
                assert_eq!((read["scalar"].size(), read["scalar"].double_value(&[])), (Vec::new(), 0.5));
                assert_eq!(read["nothing"].size(), [0, 4]);
            }
            let as_it_is = file.tensors(None, Device::Cpu).unwrap();
            assert!(as_it_is["large"].equal(&large) && as_it_is["large"].kind() == stored);
            assert!(as_it_is["whole"].equal(&Tensor::from_slice(&[1_i64, -2])));
            assert!(file.tensors(Some(Kind::Float), Device::Cpu).unwrap_err().to_string().contains("`whole`"));
        }
    }

    #[test]
    fn digests_are_of_dtype_shape_and_bytes_however_they_are_read() {
        let (_folder, path, _) = written(Kind::Float);
        let bytes = std::fs::read(&path).unwrap();
        let whole = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let file = Stored::open(&path).unwrap();
        let digests = file.digests().unwrap();
        assert_eq!(digests.len(), 4);
        for (name, view) in whole.iter() {
            let head = format!("{:?} {:?}\n", view.dtype(), view.shape());
            assert_eq!(digests[name], blake3::hash(&[head.as_bytes(), view.data()].concat()).to_hex().as_str());
        }
        let (read, beside) = file.wanted_with_digests(&|name| name == "large", Kind::BFloat16, Device::Cpu).unwrap();
        assert_eq!((read.len(), &beside), (1, &digests));
    }

    #[test]
    fn threads_share_the_tensors_of_a_large_file_and_leave_the_number_of_threads_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let tensors: Vec<(String, Tensor)> = (0..9)
            .map(|i| (format!("{i}"), Tensor::full([700, 800 + i], i as f64 + 0.5, (Kind::Float, Device::Cpu))))
            .collect();
        write_file(&path, &tensors).unwrap();
        limit_threads(3);
        let file = Stored::open(&path).unwrap();
        assert!(file.bytes > SMALL, "{}", file.bytes);
        let (read, digests) = file.wanted_with_digests(&|_| true, Kind::BFloat16, Device::Cpu).unwrap();
        assert_eq!((read.len(), digests.len(), tch::get_num_threads()), (9, 9, 3));
        for (name, tensor) in &tensors {
            assert!(read[name].equal(&tensor.to_kind(Kind::BFloat16)), "{name}");
        }
    }

    #[test]
    fn a_file_that_was_cut_after_it_was_opened_is_an_error() {
        let (_folder, path, _) = written(Kind::Float);
        let file = Stored::open(&path).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(PIECE as u64).unwrap();
        let problem = file.tensors(None, Device::Cpu).unwrap_err().to_string();
        assert!(problem.contains("read") && problem.contains("model.safetensors"), "{problem}");
        let problem = Stored::open(&path).err().unwrap().to_string();
        assert!(problem.contains("not a whole safetensors file"), "{problem}");
    }
}
