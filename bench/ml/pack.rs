//! A grid of adapters over one base, trained one by one or together, with what both cost and how far their results are
//! apart. It does not know how either works.

use std::path::Path;
use std::time::Instant;

use pipe::error::{Problem, Result};
use pipe::ml::adapters::{AdapterParams, Arm, Pack};
use pipe::ml::models::Model;
use pipe::ml::tokens::Tokens;
use pipe::ml::train::Fit;
use pipe::ml::train::Watch;
use pipe::ml::train::adamw::AdamWOptions;
use pipe::ml::train::arms::{Recipe, divided, train_arm};
use pipe::ml::train::batch::{Length, Limits, Plan};
use pipe::ml::train::memory::Memory;
use pipe::ml::train::pack::{Joining, Member, train_pack};
use pipe::ml::train::schedule::Schedule;
use pipe::step::stream;
use serde_json::{Value, json};
use tch::Tensor;

use crate::usage;
use crate::work::{Options, base, synchronize};

struct Silent;

impl Watch for Silent {
    fn check(&mut self) -> Result<()> {
        Ok(())
    }
}

/// LoRA of the ranks 2, 4, 8 and 16 in turn, or bottlenecks of 8, 16, 32 and 64.
fn adapter(kind: &str, at: usize) -> Result<AdapterParams> {
    let size = 1 << (at % 4);
    let value = match kind {
        "lora" => json!({"lora": {"rank": 2 * size, "alpha": 8.0, "target_modules": ["q_proj", "v_proj"]}}),
        "lora_all" => json!({"lora": {"rank": 2 * size, "alpha": 8.0, "target_modules": "all-linear"}}),
        "mlp" => json!({"mlp": {"hidden_size": 8 * size}}),
        other => return Err(Problem::new(format!("unknown adapter `{other}`"))),
    };
    serde_json::from_value(value).map_err(|error| Problem::new(error.to_string()))
}

fn arms(options: &Options, model: &dyn Model, count: usize) -> Result<Vec<Arm>> {
    let kind = options.text("arm", "lora");
    (0..count).map(|at| Arm::init(&adapter(kind, at)?, model, &mut stream(2, &at.to_string()))).collect()
}

fn values(arm: &Arm) -> Vec<f32> {
    let flat: Vec<Tensor> = arm.parameters().iter().map(|(_, tensor)| tensor.detach().reshape([-1])).collect();
    Vec::try_from(Tensor::cat(&flat, 0)).unwrap_or_default()
}

/// Does it; `seeds=1` gives each arm an order of rows of its own, with `together=0` they are only trained one by one.
pub fn run(folder: &Path, options: &Options) -> Result<Value> {
    let model = base(folder, options)?;
    let tokens = Tokens::read(&folder.join(options.text("rows", "full")))?;
    let (count, steps) = (options.number("arms", 8), options.number("steps", 20) as u64);
    let lengths: Vec<usize> = (0..tokens.rows()).map(|row| tokens.row(row).len()).collect();
    let limits = Limits { rows: options.number("batch", 1), tokens: None };
    let fit = Fit { lr: 1e-3, schedule: Schedule::Constant, schedule_steps: steps, warmup: 0, steps, clip: Some(1.0) };
    let adamw = AdamWOptions { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 };
    let own = options.number("seeds", 0) > 0;
    let plan = |at: usize| {
        let seed = if own { 7 + at as u64 } else { 7 };
        let plan = Plan::new(&lengths, limits, 1, Length::Steps(steps), |epoch| stream(seed, &format!("{epoch}")))?;
        Ok(divided(plan, &lengths, model.as_ref()))
    };
    let plans: Vec<Plan> = (0..count).map(plan).collect::<Result<_>>()?;
    let recipes: Vec<Recipe> =
        (0..count).map(|at| Recipe { fit, adamw, seed: at as u64, memory: Memory::Normal }).collect();
    let warm = Plan::new(&lengths, limits, 1, Length::Steps(2), |epoch| stream(1, &format!("{epoch}")))?;
    let short = Recipe { fit: Fit { steps: 2, ..fit }, adamw, seed: 1, memory: Memory::Normal };
    train_arm(model.as_ref(), &arms(options, model.as_ref(), 1)?[0], &tokens, &warm, &short, &mut Silent)?;

    let timed = |work: &mut dyn FnMut() -> Result<()>| -> Result<(f64, f64)> {
        synchronize(model.device());
        let (begun, cpu) = (Instant::now(), usage::cpu_seconds());
        work()?;
        synchronize(model.device());
        Ok((begun.elapsed().as_secs_f64(), usage::cpu_seconds() - cpu))
    };
    let rounds = options.number("rounds", 3);
    let (mut alone, mut together, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    let (mut apart, mut equal) = (0.0f32, true);
    for _ in 0..rounds {
        let singles = arms(options, model.as_ref(), count)?;
        alone.push(timed(&mut || {
            for ((arm, plan), recipe) in singles.iter().zip(&plans).zip(&recipes) {
                let curve = train_arm(model.as_ref(), arm, &tokens, plan, recipe, &mut Silent)?;
                losses.push(curve.points.last().map_or(f64::NAN, |point| point.loss));
            }
            Ok(())
        })?);
        if options.number("together", 1) == 0 {
            continue;
        }
        let pack = Arm::pack(arms(options, model.as_ref(), count)?);
        let waste = options.number("waste", 0) as f64 / 100.0;
        together.push(timed(&mut || {
            let mut watches: Vec<Silent> = (0..count).map(|_| Silent).collect();
            let mut members: Vec<Member> = (plans.iter().zip(&recipes).zip(&mut watches))
                .map(|((plan, recipe), watch)| Member { tokens: &tokens, plan, recipe, watch })
                .collect();
            for result in train_pack(
                model.as_ref(),
                &pack,
                &mut members,
                Joining { waste, batched: options.number("batched", 1) > 0 },
            )? {
                result?;
            }
            Ok(())
        })?);
        let packed = pack.packed().map(Pack::arms).unwrap_or_default();
        for (one, other) in singles.iter().zip(packed) {
            let (one, other) = (values(one), values(other));
            equal &= one == other;
            let far = one.iter().zip(&other).map(|(one, other)| (one - other).abs());
            apart = far.fold(apart, f32::max);
        }
    }
    let least = |of: &dyn Fn(&(f64, f64)) -> f64, all: &[(f64, f64)]| all.iter().map(of).fold(f64::INFINITY, f64::min);
    let (wall, cpu) = (|all: &[(f64, f64)]| least(&|one| one.0, all), |all: &[(f64, f64)]| least(&|one| one.1, all));
    let ids: usize = plans.iter().flat_map(|plan| plan.steps.iter().flatten().flatten()).map(|&row| lengths[row]).sum();
    if together.is_empty() {
        return Ok(json!({
            "tokens_per_second": ids as f64 / wall(&alone), "seconds": wall(&alone), "cpu_seconds": cpu(&alone),
            "peak_mib": usage::peak_mib(), "losses": losses,
        }));
    }
    Ok(json!({
        "alone": {"seconds": wall(&alone), "cpu": cpu(&alone)},
        "together": {"seconds": wall(&together), "cpu": cpu(&together)},
        "ratio": {"seconds": wall(&alone) / wall(&together), "cpu": cpu(&alone) / cpu(&together)},
        "equal": equal, "apart": apart, "peak_mib": usage::peak_mib(),
    }))
}
