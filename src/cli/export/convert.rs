//! The part of `pipe export` that needs libtorch: reads the adapter, writes it aside, certifies a merge, moves it in.
//! It does not know how adapters are stored or merged.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand_chacha::rand_core::Rng;

use super::{Args, StoredIn, Target};
use crate::error::{Problem, Result};
use crate::ml::adapters::merge::{Certificate, Limits, Merge, merge};
use crate::ml::adapters::{Arm, Base, Format, sidecar};
use crate::ml::config::ModelConfig;
use crate::ml::device::{self, Precision};
use crate::ml::models::{self, Model};
use crate::ml::weights;
use crate::task::encode::Encoder;
use crate::ui;

/// Sentences that a merge is compared on.
const PROBES: [&str; 8] = [
    "Столица России — Москва, а крупнейший порт на Балтике — Санкт-Петербург.",
    "Президент компании Иван Петров заявил на встрече в Берлине, что завод откроют весной.",
    "Текст: Дождь шёл весь день. Утверждение: Весь день было сухо. Ответ:",
    "В 1961 году Юрий Гагарин первым полетел в космос.",
    "The quick brown fox jumps over the lazy dog, and the dog does not mind.",
    "1 + 1 = 2, 2 + 2 = 4, 3 + 3 =",
    "Она открыла окно, посмотрела на улицу и сказала:",
    "Журналисты «Коммерсанта» узнали о сделке от источника в правительстве.",
];

/// Ids of a probe at most, and of a drawn one.
const LONGEST: usize = 256;
const DRAWN: usize = 32;

/// Writes `output`, whole or not at all.
pub fn write(args: &Args, output: &Path) -> Result<()> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|e| Problem::io("create", folder, &e))?;
    let aside = tempfile::Builder::new()
        .prefix(".pipe-export-")
        .tempdir_in(folder)
        .map_err(|e| Problem::io("create a folder in", folder, &e))?;
    let inner = aside.path().join("export");
    fs::create_dir(&inner).map_err(|e| Problem::io("create", &inner, &e))?;
    match args.format {
        Target::Peft => convert(args, Format::Peft, &inner)?,
        Target::Adapterhub => convert(args, Format::AdapterHub, &inner)?,
        Target::Merged => merged(args, &inner)?,
    }
    fs::rename(&inner, output).map_err(|e| Problem::io("write", output, &e))?;
    ui::out(&output.display().to_string());
    Ok(())
}

/// Names and shapes are all that a conversion needs of the base.
fn convert(args: &Args, format: Format, folder: &Path) -> Result<()> {
    let config = match &args.base {
        Some(base) => ModelConfig::read(base)?,
        None => kept_config(&args.adapter)?,
    };
    let (model, fingerprint) = match &args.base {
        // DoRA holds the frozen weights, and the side-car wants to know which they are.
        Some(base) if weights::files(base).is_ok() => {
            let model = models::load_as(base, &config, device::torch_device("cpu"), Precision::F32.kind())?;
            (model, Some(weights::fingerprint(base)?))
        }
        _ => (models::hollow(&config), None),
    };
    let arm = load(args, model.as_ref())?;
    if let Some(base) = args.base.as_ref().filter(|_| fingerprint.is_some()) {
        arm.check_base(base)?;
    }
    let known = arm.base().map(str::to_owned);
    let fingerprint = fingerprint.as_ref().map(|digest| digest.as_str().to_owned()).or(known);
    let name = fingerprint.clone().unwrap_or_default();
    arm.save_as(format, folder, Base { name: &name, fingerprint: fingerprint.as_deref() })
        .map_err(|problem| Problem { what: format!("this would lose something: {}", problem.what), ..problem })
}

fn load(args: &Args, model: &dyn Model) -> Result<Arm> {
    let arm = Arm::load(&args.adapter, model)?;
    arm.notes().iter().for_each(|note| ui::err(&format!("note: {note}")));
    Ok(arm)
}

/// The base's configuration as the adapter's side-car keeps it.
fn kept_config(adapter: &Path) -> Result<ModelConfig> {
    let folders: Vec<PathBuf> = Arm::folders(adapter)?;
    let first = folders.first().map_or(adapter, PathBuf::as_path);
    sidecar::model(first)?.ok_or_else(|| {
        Problem::new(format!("{} has no {}, so its base is not known", adapter.display(), sidecar::FILE))
            .help("name the base's folder with --base: its config.json is enough")
    })
}

fn merged(args: &Args, folder: &Path) -> Result<()> {
    let base = args
        .base
        .as_ref()
        .ok_or_else(|| Problem::new("a merge needs the base's weights").help("name its folder with --base"))?;
    let device = device::device(&args.device)?;
    device::use_threads(device.cores);
    let config = ModelConfig::read(base)?;
    // What can be refused is refused before anything large is read.
    let hollow = models::hollow(&config);
    let arm = load(args, hollow.as_ref())?;
    arm.mergeable()?;
    arm.check_base(base)?;
    drop(arm);
    let probes = probes(args, base, &config)?;
    let what = Merge {
        adapter: &args.adapter,
        base,
        output: folder,
        dtype: args.dtype.map(|dtype| match dtype {
            StoredIn::F32 => Precision::F32,
            StoredIn::Bf16 => Precision::Bf16,
        }),
        probes: &probes,
        device: device::torch_device(&device.name),
    };
    let cancel = Arc::new(AtomicBool::new(false));
    let heard = cancel.clone();
    let listening = ctrlc::set_handler(move || heard.store(true, Ordering::Relaxed));
    listening.map_err(|error| Problem::new(format!("cannot listen to Ctrl-C: {error}")))?;
    let certificate = merge(&what, &mut |text| {
        if cancel.load(Ordering::Relaxed) {
            return Err(Problem::cancelled());
        }
        if !text.is_empty() {
            ui::err(text);
        }
        Ok(())
    })?;
    ui::err(&table(&certificate));
    certificate.judge(Limits { lost: args.max_lost, flipped: args.max_flips })
}

fn table(certificate: &Certificate) -> String {
    let mut text = format!(
        "{} projections merged, stored in {}\n\ndtype  positions  max |Δlogit|  rms Δlogit  adapter's effect  lost     flips",
        certificate.projections,
        certificate.stored.name()
    );
    for change in &certificate.changes {
        text.push_str(&format!(
            "\n{:<5}  {:>9}  {:>12.2e}  {:>10.2e}  {:>16.2e}  {:>6.2}%  {:>5}",
            change.dtype.name(),
            change.positions,
            change.max_change,
            change.change,
            change.effect,
            100.0 * change.lost(),
            change.flips
        ));
    }
    text
}

/// Texts as ids of the base's tokenizer; without one, ids drawn from its vocabulary.
fn probes(args: &Args, base: &Path, config: &ModelConfig) -> Result<Vec<Vec<i64>>> {
    let longest = LONGEST.min(usize::try_from(config.max_position_embeddings).unwrap_or(LONGEST)).max(1);
    if !base.join("tokenizer.json").is_file() {
        if args.probes.is_some() {
            return Err(Problem::new(format!("{} has no tokenizer.json to read the probes with", base.display())));
        }
        ui::err("note: the base has no tokenizer.json: the merge is compared on drawn ids");
        let mut rng = crate::step::stream(0, "probes of a merge");
        let vocabulary = config.vocab_size.max(1) as u64;
        let mut row = || (0..DRAWN.min(longest)).map(|_| (rng.next_u64() % vocabulary) as i64).collect();
        return Ok((0..PROBES.len()).map(|_| row()).collect());
    }
    let encoder = Encoder::open(base, &base.display().to_string())?;
    let given = match &args.probes {
        Some(path) => fs::read_to_string(path).map_err(|e| Problem::io("read", path, &e))?,
        None => PROBES.join("\n"),
    };
    let mut rows = Vec::new();
    for line in given.lines().filter(|line| !line.trim().is_empty()) {
        let ids = encoder.ids(line)?.into_iter().take(longest).map(i64::from).collect::<Vec<_>>();
        rows.extend((!ids.is_empty()).then_some(ids));
    }
    if rows.is_empty() {
        return Err(Problem::new("the probes are empty").expected("a line of text for each probe"));
    }
    Ok(rows)
}
