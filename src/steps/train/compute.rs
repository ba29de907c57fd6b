//! The part of `train` that needs libtorch: base and rows in, adapter, curve and summary out.
//! It does not know the pipeline language.

use std::fs;

use serde_json::json;

use super::Params;
use super::listener::Listener;
use crate::error::{Problem, Result};
use crate::ml::adapters::{AdapterParams, Arm, Base, Pack, parameter_count};
use crate::ml::config::ModelConfig;
use crate::ml::device::Precision;
use crate::ml::models::Model;
use crate::ml::tokens::Tokens;
use crate::ml::train::arms::{Recipe, divided, train_arm};
use crate::ml::train::batch::{Length, Limits, Plan};
use crate::ml::train::curve::Curve;
use crate::ml::train::pack::{Joining, Member, train_pack};
use crate::ml::{device, weights};
use crate::report::evidence::{CurvePoint, Training};
use crate::step::{Artifact, Context, Ended};
use crate::steps::{self, facts, json};
use crate::task::encode::Encoder;

/// The most points of the curve that stand beside an adapter.
const POINTS: usize = 200;
/// The share of padding that micro-batches of unlike width may cost on a GPU to go through the base together.
const WASTE: f64 = 0.1;

/// See [`super::Train`].
pub fn run(params: &Params, cx: &mut Context) -> Result<()> {
    device::use_threads(cx.threads());
    let work = Work::read(params, cx)?;
    let model = steps::base::load_in(&work.base, work.precision, cx)?;
    let arm = work.arm(params, cx, model.as_ref())?;
    let plan = plan(params, cx, &work.tokens, model.as_ref())?;
    let recipe = recipe(params, plan.steps.len() as u64);
    let curve = train_arm(model.as_ref(), &arm, &work.tokens, &plan, &recipe, &mut Listener(cx))?;
    work.write(params, cx, &arm, &plan, &curve)
}

/// See [`crate::step::Kind::run_together`].
pub fn run_together(members: &mut [(&Params, &mut Context)], exact: bool, ended: &mut Ended<'_>) -> Result<()> {
    // No other order of work on a GPU promises the same bits, one after the other neither.
    let on_gpu = members.first().is_some_and(|(_, cx)| cx.machine().device.starts_with("cuda"));
    if exact && !on_gpu {
        for (at, (params, cx)) in members.iter_mut().enumerate() {
            let result = run(params, cx);
            ended(vec![(at, cx, result)]);
        }
        return Ok(());
    }
    let results = all(members)?;
    let ends = members.iter_mut().enumerate().zip(results).map(|((at, (_, cx)), result)| (at, &mut **cx, result));
    ended(ends.collect());
    Ok(())
}

/// One result for each, or what kept all of them from beginning.
fn all(members: &mut [(&Params, &mut Context)]) -> Result<Vec<Result<()>>> {
    let [(params, first), ..] = &mut *members else { return Ok(Vec::new()) };
    device::use_threads(first.threads());
    let work = Work::read(params, first)?;
    let model = steps::base::load_in(&work.base, work.precision, first)?;
    let on_gpu = first.machine().device.starts_with("cuda");
    let mut works = vec![work];
    for (params, cx) in members.iter_mut().skip(1) {
        works.push(Work::read(params, cx)?);
    }
    let (mut arms, mut plans, mut recipes) = (Vec::new(), Vec::new(), Vec::new());
    for ((params, cx), work) in members.iter().zip(&works) {
        arms.push(work.arm(params, cx, model.as_ref())?);
        let plan = plan(params, cx, &work.tokens, model.as_ref())?;
        recipes.push(recipe(params, plan.steps.len() as u64));
        plans.push(plan);
    }
    let pack = Arm::pack(arms);
    let joining = Joining { waste: if on_gpu { WASTE } else { 0.0 }, batched: true };
    let curves = {
        let mut listeners: Vec<Listener> = members.iter().map(|(_, cx)| Listener(cx)).collect();
        let each = works.iter().zip(&plans).zip(recipes.iter().zip(&mut listeners));
        let mut trained: Vec<Member> =
            each.map(|((work, plan), (recipe, watch))| Member { tokens: &work.tokens, plan, recipe, watch }).collect();
        train_pack(model.as_ref(), &pack, &mut trained, joining)?
    };
    let arms = pack.packed().map(Pack::arms).unwrap_or_default();
    let mut results = Vec::new();
    for ((((params, cx), work), (arm, plan)), curve) in
        members.iter_mut().zip(&works).zip(arms.iter().zip(&plans)).zip(curves)
    {
        results.push(curve.and_then(|(curve, made)| {
            cx.weigh(made);
            work.write(params, cx, arm, plan, &curve)
        }));
    }
    Ok(results)
}

/// What a step trains on.
struct Work {
    base: Artifact,
    data: Artifact,
    tokens: Tokens,
    precision: Precision,
    adapter: AdapterParams,
    /// What the adapter was asked to have as many parameters as.
    wanted: Option<u64>,
}

impl Work {
    fn read(params: &Params, cx: &Context) -> Result<Self> {
        let (base, data) = (cx.input("model")?.clone(), cx.input("data")?.clone());
        let config = ModelConfig::read(&base.path)?;
        let tokens = Tokens::read(&data.path)?;
        same_tokenizer(&tokens, &data, &base, &config)?;
        let precision = steps::base::precision(&config, params.dtype, cx);
        if !config.dropout.is_empty() {
            let options: Vec<String> = config.dropout.iter().map(|(name, share)| format!("`{name}` {share}")).collect();
            cx.note(format!("the base is frozen: its own dropout ({}) is not applied", options.join(", ")));
        }
        let adapter = params.adapter_for(&config)?;
        let wanted = params.match_parameters.as_ref().map(|other| parameter_count(other, &config)).transpose()?;
        Ok(Self { base, data, tokens, precision, adapter, wanted })
    }

    fn arm(&self, params: &Params, cx: &Context, model: &dyn Model) -> Result<Arm> {
        let arm = Arm::init(&self.adapter, model, &mut cx.rng(params.seed, "adapter"))?;
        if let Some(wanted) = self.wanted {
            cx.note(format!("{} parameters for {wanted}: {}", arm.trainable_parameters(), size(&self.adapter)));
        }
        Ok(arm)
    }

    fn write(&self, params: &Params, cx: &mut Context, arm: &Arm, plan: &Plan, curve: &Curve) -> Result<()> {
        let Self { base, data, tokens, precision, .. } = self;
        let folder = cx.output("adapter");
        fs::create_dir_all(&folder).map_err(|e| Problem::io("create", &folder, &e))?;
        // Digest, not path or step name: the adapter says which base it is for, and its bytes do not depend on names.
        let fingerprint = weights::fingerprint(&base.path)?;
        arm.save(&folder, Base { name: base.digest.as_str(), fingerprint: Some(fingerprint.as_str()) })?;
        facts::write_training(&folder, &training(params, data, tokens, curve))?;
        curve.write(&cx.output("curve.csv"))?;
        let summary = json!({
            "trainable_parameters": arm.trainable_parameters(),
            "rows": tokens.rows(),
            "steps": curve.points.len(),
            "tokens": curve.tokens(),
            "target_tokens": curve.target_tokens(),
            "padding_share": plan.padding_share(),
            "first_loss": curve.first_loss(),
            "last_loss": curve.last_loss(),
            "dtype": precision.name(),
        });
        json::write(&cx.output("summary.json"), &summary)?;
        say(cx, curve);
        cx.figure("trainable_parameters", arm.trainable_parameters() as f64);
        Ok(())
    }
}

/// The size that was solved for.
fn size(adapter: &AdapterParams) -> String {
    match (&adapter.lora, &adapter.mlp) {
        (Some(lora), _) => format!("rank {}", lora.rank),
        (None, Some(mlp)) => format!("hidden_size {}", mlp.hidden_size),
        (None, None) => String::new(),
    }
}

/// What the training was given, for everyone who will compare the adapter.
fn training(params: &Params, data: &Artifact, tokens: &Tokens, curve: &Curve) -> Training {
    Training {
        rows: tokens.rows() as u64,
        epochs: params.steps.is_none().then_some(params.epochs),
        steps: curve.points.len() as u64,
        batch_size: u64::from(params.batch_size) * u64::from(params.accumulation),
        tokens: curve.tokens(),
        target_tokens: curve.target_tokens(),
        lr: params.lr,
        schedule: params.schedule.name().to_owned(),
        seed: params.seed,
        data: data.digest.as_str().to_owned(),
        first_loss: curve.first_loss(),
        last_loss: curve.last_loss(),
        curve: curve.thinned(POINTS).into_iter().map(|(step, loss)| CurvePoint { step, loss }).collect(),
    }
}

/// Ids mean nothing under another tokenizer, and nothing would fail: so it is refused.
fn same_tokenizer(tokens: &Tokens, data: &Artifact, base: &Artifact, config: &ModelConfig) -> Result<()> {
    let (data, model) = (data.label(), base.label());
    if tokens.info.vocab_size > config.vocab_size as u64 {
        let what = format!(
            "{data} has ids of a vocabulary of {}, but the model {model} has one of {}",
            tokens.info.vocab_size, config.vocab_size
        );
        return Err(Problem::new(what).help("tokenize with the model's own tokenizer"));
    }
    if Encoder::open(&base.path, &model)?.digest()?.as_str() != tokens.info.tokenizer {
        return Err(Problem::new(format!(
            "{data} was tokenized with another tokenizer than that of the model {model}"
        ))
        .help("connect the `tokenizer` input of `tokenize` to the model that is trained"));
    }
    Ok(())
}

fn plan(params: &Params, cx: &Context, tokens: &Tokens, model: &dyn Model) -> Result<Plan> {
    let lengths: Vec<usize> = (0..tokens.rows()).map(|row| tokens.row(row).len()).collect();
    let limits = Limits { rows: params.batch_size as usize, tokens: params.batch_tokens.map(|tokens| tokens as usize) };
    let length = params.steps.map_or(Length::Epochs(params.epochs), Length::Steps);
    let epoch = |epoch| cx.rng(params.seed, &format!("rows of epoch {epoch}"));
    let plan = Plan::new(&lengths, limits, params.accumulation as usize, length, epoch)?;
    Ok(divided(plan, &lengths, model))
}

fn recipe(params: &Params, steps: u64) -> Recipe {
    let fit = params.fit(steps, params.warmup_steps);
    Recipe { fit, adamw: params.adamw(), seed: params.seed, memory: params.memory }
}

/// Records the loss where the run began and where it ended.
pub fn say(cx: &mut Context, curve: &Curve) {
    for (name, loss) in [("first_loss", curve.first_loss()), ("loss", curve.last_loss())] {
        if let Some(loss) = loss {
            cx.figure(name, loss);
        }
    }
}
