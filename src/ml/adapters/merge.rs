//! Adapters merged into the weights of their base, as a checkpoint of its own, with a certificate of what the merge
//! changed: on probe inputs, in each dtype. It does not know how an adapter merges, nor where probes come from.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::arm::{Arm, Frozen};
use crate::error::{Problem, Result};
use crate::ml::device::Precision;
use crate::ml::models::{self, Input, Model, Point, check_ids, check_length};
use crate::ml::weights::{self, Mapped};

/// The file beside the merged weights that says how they came about.
pub const FILE: &str = "pipe_merge.json";

/// What is merged, where to, and how it is judged.
pub struct Merge<'a> {
    /// The adapter's folder.
    pub adapter: &'a Path,
    /// The base's checkpoint folder.
    pub base: &'a Path,
    /// The folder to write into, which is there and empty.
    pub output: &'a Path,
    /// The dtype of the merged weights; `None` keeps that of each tensor.
    pub dtype: Option<Precision>,
    /// Token ids to compare on, a list per row.
    pub probes: &'a [Vec<i64>],
    /// Where to compute.
    pub device: Device,
}

/// What a merge changed in one dtype.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What both sides computed in.
    pub dtype: Precision,
    /// Positions that were compared.
    pub positions: usize,
    /// Largest change of a logit, merged against adapter on its base.
    pub max_change: f64,
    /// Root of the mean square of the changes.
    pub change: f64,
    /// The same of the adapter's own effect, adapter against bare base.
    pub effect: f64,
    /// Positions with another likeliest id.
    pub flips: usize,
}

impl Change {
    /// Which share of the adapter's effect the merge changed.
    pub fn lost(&self) -> f64 {
        if self.change == 0.0 { 0.0 } else { self.change / self.effect }
    }

    /// Share of the positions whose likeliest id is another.
    pub fn flipped(&self) -> f64 {
        self.flips as f64 / self.positions.max(1) as f64
    }
}

/// What was merged and what that changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Certificate {
    /// The dtype that decides: the one in which the weights are stored.
    pub stored: Precision,
    /// One per dtype.
    pub changes: Vec<Change>,
    /// How many projections were changed.
    pub projections: usize,
}

/// The most that a merge may change in the dtype in which it is stored.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Share of the adapter's effect.
    pub lost: f64,
    /// Share of the positions.
    pub flipped: f64,
}

impl Certificate {
    /// Fails if the merge changed more than `limits` allow in the dtype in which it is stored.
    pub fn judge(&self, limits: Limits) -> Result<()> {
        for change in self.changes.iter().filter(|change| change.dtype == self.stored) {
            let name = change.dtype.name();
            let what = if !change.max_change.is_finite() {
                "the merged weights give logits that are no numbers".to_owned()
            } else if change.lost() > limits.lost {
                format!("in {name} the merge loses {:.1} % of the adapter's effect", 100.0 * change.lost())
            } else if change.flipped() > limits.flipped {
                let (flips, all) = (change.flips, change.positions);
                format!("in {name} the merge gives another likeliest id at {flips} of {all} positions")
            } else {
                continue;
            };
            let most = format!(
                "at most {:.1} % of the effect and {:.1} % of the positions",
                100.0 * limits.lost,
                100.0 * limits.flipped
            );
            let help = if self.stored == Precision::F32 {
                "export the adapter itself, or allow more with --max-lost and --max-flips"
            } else {
                "store it wider with --dtype f32, or export the adapter itself, or allow more with --max-lost and \
                 --max-flips"
            };
            return Err(Problem::new(what).expected(most).help(help));
        }
        Ok(())
    }
}

/// Logits [N, V] of the bare base and of the base with its adapter.
struct Before {
    bare: Tensor,
    adapted: Tensor,
}

/// Writes the merged checkpoint and compares it with the adapter on its base. The files are whole when this returns;
/// who asked judges, and throws them away or keeps them. `tell` is told what happens; its error ends the work.
pub fn merge(merge: &Merge, tell: &mut dyn FnMut(&str) -> Result<()>) -> Result<Certificate> {
    let precisions = [Precision::F32, Precision::Bf16];
    let mut before = Vec::new();
    let mut written = None;
    // Bf16 first: the model in f32 is then still there to be merged into.
    for precision in precisions.iter().rev() {
        tell(&format!("the adapter on its base in {}", precision.name()))?;
        let model = models::load(merge.base, merge.device, precision.kind())?;
        check_ids(model.as_ref(), merge.probes.iter().flatten().copied())?;
        check_length(model.as_ref(), merge.probes.iter().map(Vec::len).max().unwrap_or(0))?;
        let arm = Arm::load(merge.adapter, model.as_ref())?;
        let bare = logits(model.as_ref(), &Arm::none(), merge.probes, tell)?;
        let adapted = logits(model.as_ref(), &arm, merge.probes, tell)?;
        before.push((*precision, Before { bare, adapted }));
        if *precision == Precision::F32 {
            written = Some(write(merge, model.as_ref(), &arm, tell)?);
        }
    }
    let (stored, projections) = written.ok_or_else(|| Problem::new("nothing was merged"))?;
    let mut changes = Vec::new();
    for (precision, Before { bare, adapted }) in before.into_iter().rev() {
        tell(&format!("the merged weights in {}", precision.name()))?;
        let model = models::load(merge.output, merge.device, precision.kind())?;
        let merged = logits(model.as_ref(), &Arm::none(), merge.probes, tell)?;
        changes.push(compare(precision, &bare, &adapted, &merged));
    }
    let certificate = Certificate { stored, changes, projections };
    record(merge, &certificate)?;
    Ok(certificate)
}

fn compare(dtype: Precision, bare: &Tensor, adapted: &Tensor, merged: &Tensor) -> Change {
    let root_mean_square = |x: Tensor| x.square().mean(Kind::Double).sqrt().double_value(&[]);
    let best = |x: &Tensor| x.argmax(-1, false);
    let flips = best(adapted).ne_tensor(&best(merged)).sum(Kind::Int64).int64_value(&[]);
    // NaN must not hide in a maximum.
    let worst = (merged - adapted).abs().nan_to_num(f64::INFINITY, f64::INFINITY, f64::INFINITY).max();
    Change {
        dtype,
        positions: adapted.size()[0] as usize,
        max_change: worst.double_value(&[]),
        change: root_mean_square(merged - adapted),
        effect: root_mean_square(adapted - bare),
        flips: flips as usize,
    }
}

/// The logits at every position of the probes, [N, V] f32 on the CPU.
fn logits(
    model: &dyn Model,
    arm: &Arm,
    probes: &[Vec<i64>],
    tell: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Tensor> {
    let mut rows = Vec::new();
    for probe in probes {
        tell("")?;
        let ids = Tensor::from_slice(probe).unsqueeze(0).to_device(model.device());
        let input = Input::of(&ids);
        rows.push(tch::no_grad(|| {
            model.logits(&model.hidden(&input, arm, None)).squeeze_dim(0).to_device(Device::Cpu)
        }));
    }
    if rows.is_empty() {
        return Err(Problem::new("there is no probe to compare the merge on"));
    }
    Ok(Tensor::cat(&rows, 0))
}

/// Writes every file of the base, the projections merged. Gives the dtype of the merged ones and their number.
fn write(
    merge: &Merge,
    model: &dyn Model,
    arm: &Arm,
    tell: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<(Precision, usize)> {
    let paths = weights::files(merge.base)?;
    let files = paths.iter().map(|path| Mapped::open(path)).collect::<Result<Vec<_>>>()?;
    let checkpoint = Checkpoint::of(&files, model)?;
    let (mut projections, mut half, mut bytes) = (0, false, 0);
    for (at, (path, file)) in paths.iter().zip(&files).enumerate() {
        tell(&format!("merging file {} of {}", at + 1, files.len()))?;
        let mut tensors = Vec::new();
        for (name, stored) in file.tensors(None, Device::Cpu)? {
            let kept = stored_as(&stored, merge.dtype);
            // Rounded once, to what is stored: on the way through a narrow base a wide merge would lose everything.
            let merged = checkpoint.merged(&files, &name, arm)?.map(|tensor| tensor.to_kind(kept.kind()).contiguous());
            let changed = merged.filter(|tensor| !tensor.equal(&kept));
            if changed.is_some() && name.ends_with(".weight") {
                projections += 1;
                half |= kept.kind() == Kind::BFloat16;
            }
            tensors.push((name, changed.unwrap_or(kept)));
        }
        bytes += tensors.iter().map(|(_, t)| t.numel() * t.kind().elt_size_in_bytes()).sum::<usize>();
        let name = path.file_name().ok_or_else(|| Problem::new(format!("{} has no name", path.display())))?;
        weights::write_file(&merge.output.join(name), &tensors)?;
    }
    copy_others(merge, bytes)?;
    let stored = merge.dtype.unwrap_or(if half { Precision::Bf16 } else { Precision::F32 });
    Ok((stored, projections))
}

/// Where the projections of a model lie in its checkpoint's files.
struct Checkpoint {
    /// Number and layout of a projection's site, by the name that its module has in the files.
    sites: BTreeMap<String, (usize, bool)>,
    /// The file of each tensor.
    places: BTreeMap<String, usize>,
}

impl Checkpoint {
    fn of(files: &[Mapped], model: &dyn Model) -> Result<Self> {
        let mut places = BTreeMap::new();
        for (at, file) in files.iter().enumerate() {
            places.extend(file.shapes()?.into_keys().map(|name| (name, at)));
        }
        // A checkpoint that was saved without a head lacks the first part of all names.
        let base = format!("{}.", model.config().names.base);
        let bare = !places.keys().any(|name| name.starts_with(&base));
        let named =
            |name: &str| if bare { name.strip_prefix(&base).unwrap_or(name).to_owned() } else { name.to_owned() };
        let sites = model.sites().iter().enumerate().filter_map(|(i, site)| match site.point {
            Point::Linear { fan_in_fan_out, .. } => Some((named(&site.name), (i, fan_in_fan_out))),
            _ => None,
        });
        Ok(Self { sites: sites.collect(), places })
    }

    /// What a tensor of a projection, its weight or its bias, is with the arm in it, f32; `None` for other tensors.
    fn merged(&self, files: &[Mapped], name: &str, arm: &Arm) -> Result<Option<Tensor>> {
        let Some((module, part)) = name.rsplit_once('.').filter(|(_, part)| ["weight", "bias"].contains(part)) else {
            return Ok(None);
        };
        let Some(&(site, transposed)) = self.sites.get(module) else { return Ok(None) };
        // Weight and bias may lie in two files.
        let (weight, bias) = (format!("{module}.weight"), format!("{module}.bias"));
        let read = |name: &str| {
            let Some(&at) = self.places.get(name) else { return Ok(None) };
            let mut found = files[at].wanted(|tensor| tensor == name, Some(Kind::Float), Device::Cpu)?;
            Ok(found.remove(name))
        };
        let stored = read(&weight)?.ok_or_else(|| Problem::new(format!("the base has no tensor `{weight}`")))?;
        let frozen = Frozen { weight: oriented(&stored, transposed), bias: read(&bias)? };
        let merged = tch::no_grad(|| arm.merge(site, frozen))?;
        Ok(if part == "weight" { Some(oriented(&merged.weight, transposed)) } else { merged.bias })
    }
}

fn oriented(weight: &Tensor, transposed: bool) -> Tensor {
    if transposed { weight.tr() } else { weight.shallow_clone() }
}

fn stored_as(tensor: &Tensor, dtype: Option<Precision>) -> Tensor {
    let real = matches!(tensor.kind(), Kind::Float | Kind::Half | Kind::BFloat16 | Kind::Double);
    match dtype {
        Some(dtype) if real => tensor.to_kind(dtype.kind()),
        _ => tensor.shallow_clone(),
    }
}

/// What a checkpoint has beside its weights: configuration, tokenizer, licence. Folders and other weights stay.
fn copy_others(merge: &Merge, bytes: usize) -> Result<()> {
    let weights = ["safetensors", "bin", "pt", "pth", "gguf", "h5", "msgpack", "onnx", "ot"];
    let entries = fs::read_dir(merge.base).map_err(|e| Problem::io("list", merge.base, &e))?;
    for entry in entries {
        let from = entry.map_err(|e| Problem::io("list", merge.base, &e))?.path();
        let Some(name) = from.file_name().and_then(|name| name.to_str()) else { continue };
        let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let skipped = weights.contains(&extension) || name.ends_with(".bin.index.json") || name == FILE;
        if !from.is_file() || name.starts_with('.') || skipped {
            continue;
        }
        let to = merge.output.join(name);
        match name {
            "config.json" if merge.dtype.is_some() => edit(&from, &to, |config| {
                let dtype = if merge.dtype == Some(Precision::F32) { "float32" } else { "bfloat16" };
                // transformers 5 calls it `dtype`.
                let field = if config.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
                config[field] = Value::from(dtype);
            })?,
            "model.safetensors.index.json" => {
                edit(&from, &to, |index| index["metadata"]["total_size"] = Value::from(bytes))?;
            }
            // Not `fs::copy`: what lies in a store is read-only, and this folder is the user's.
            _ => {
                let bytes = fs::read(&from).map_err(|e| Problem::io("read", &from, &e))?;
                fs::write(&to, bytes).map_err(|e| Problem::io("write", &to, &e))?;
            }
        }
    }
    Ok(())
}

fn edit(from: &Path, to: &Path, change: impl FnOnce(&mut Value)) -> Result<()> {
    let text = fs::read_to_string(from).map_err(|e| Problem::io("read", from, &e))?;
    let mut value: Value = serde_json::from_str(&text).map_err(|e| {
        Problem::new(format!("not JSON: {e}")).in_file(from.display().to_string(), Some(e.line() as u64))
    })?;
    change(&mut value);
    fs::write(to, format!("{value:#}\n")).map_err(|e| Problem::io("write", to, &e))
}

/// Writes [`FILE`]: which base and adapter, and the certificate.
fn record(merge: &Merge, certificate: &Certificate) -> Result<()> {
    let changes: Vec<Value> = certificate
        .changes
        .iter()
        .map(|change| {
            json!({
                "dtype": change.dtype.name(), "positions": change.positions, "max_logit_change": change.max_change,
                "logit_change_rms": change.change, "adapter_effect_rms": change.effect, "argmax_flips": change.flips,
            })
        })
        .collect();
    let value = json!({
        "format": "pipe merge 1",
        "base": weights::fingerprint(merge.base)?.as_str(),
        "adapter": crate::digest::Digest::of_folder(merge.adapter)?.as_str(),
        "stored": certificate.stored.name(),
        "projections": certificate.projections,
        "changes": changes,
    });
    let path = merge.output.join(FILE);
    fs::write(&path, format!("{value:#}\n")).map_err(|e| Problem::io("write", &path, &e))
}
