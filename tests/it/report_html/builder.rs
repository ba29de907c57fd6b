//! A whole comparison by hand: many arms, seeds, three tasks, everything that a page can show.

use serde_json::{Map, Value, json};

/// The arms beside the base: name, title, kind, coordinates, parameters.
fn arms() -> Vec<(String, String, Value, Value, u64)> {
    let lora = |rank: u64, alpha: u64| json!([{"kind": "lora", "rank": rank, "alpha": alpha, "dropout": 0.05, "target_modules": ["q_proj", "v_proj"]}]);
    let mlp = |size: u64| json!([{"kind": "mlp", "hidden_size": size, "layers": [0, 2], "dropout": 0.1}]);
    let mut arms = vec![
        ("lora".into(), "LoRA".into(), lora(4, 8), json!({}), 2_097_152),
        ("mlp".into(), "MLP".into(), mlp(128), json!({}), 4_211_200),
        ("idle".into(), "DoRA без обучения".into(), lora(4, 8), json!({}), 2_100_000),
    ];
    for rank in [2, 4, 8, 16] {
        for alpha in [8, 16, 32] {
            arms.push((
                format!("lora_grid[alpha={alpha},rank={rank}]"),
                format!("LoRA α={alpha}, r={rank}"),
                lora(rank, alpha),
                json!({"alpha": alpha, "rank": rank}),
                rank * 524_288,
            ));
        }
    }
    for size in [32, 64, 128, 256] {
        arms.push((
            format!("mlp_grid[hidden_size={size}]"),
            format!("MLP h={size}"),
            mlp(size),
            json!({"hidden_size": size}),
            size * 32_900,
        ));
    }
    arms
}

/// A number in 0..1 that is the same in every run.
fn noise(seed: u64) -> f64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 32;
    (x >> 11) as f64 / (1u64 << 53) as f64
}

fn training(i: u64, seed: u64, idle: bool) -> Value {
    let curve: Vec<Value> = (0..40)
        .map(|k| {
            let step = k * 6 + 1;
            let loss =
                0.3 + 1.9 * (-(step as f64) / (40.0 + 9.0 * i as f64)).exp() + 0.08 * noise(i * 977 + seed * 31 + k);
            json!({"step": step, "loss": if idle { 2.2 } else { loss }})
        })
        .collect();
    json!({"rows": 1200, "epochs": 3, "steps": 225, "batch_size": 16, "tokens": 81_234, "target_tokens": 9000,
        "lr": if i == 1 { 0.001 } else { 0.003 }, "schedule": "linear", "seed": seed,
        "data": "0f3a9c77d1e25b86a4c0d9e8f7b6a5948372615041322314a5b6c7d8e9f00112", "first_loss": 2.2,
        "last_loss": if idle { 2.2 } else { 0.34 }, "curve": curve})
}

fn certificate(idle: bool, sites: usize) -> Value {
    let sites: Vec<Value> = (0..sites)
        .map(|s| {
            let delta = if idle { 0.0 } else { 0.4 + noise(s as u64) };
            json!({"name": format!("model.layers.{}.self_attn.{}", s / 2, ["q_proj", "v_proj"][s % 2]), "kind": "lora",
                "delta_norm": delta, "weight_norm": 11.3})
        })
        .collect();
    if idle {
        return json!({"state": "untrained", "reason": "матрица B нулевая во всех местах, поэтому адаптер ничего не меняет.",
            "tensors": {"placed": 16, "expected": 16}, "sites": sites,
            "probe": {"inputs": 16, "max_logit_change": 0.0, "mean_logit_change": 0.0, "argmax_flips": 0}});
    }
    json!({"state": "active", "reason": "логиты меняются на пробных входах.",
        "tensors": {"placed": 16, "expected": 16}, "sites": sites,
        "probe": {"inputs": 16, "max_logit_change": 1.237, "mean_logit_change": 0.104, "argmax_flips": 5}})
}

/// One task: the base's value, a gain for each arm, half a width for its interval, and the margin.
struct Plan {
    metric: &'static str,
    base: f64,
    half: f64,
    margin: f64,
    lower_is_better: bool,
    gain: fn(usize, &Value) -> f64,
}

fn test(arm: &str, against: &str, difference: f64, plan: &Plan, pairs: bool) -> Value {
    let (low, high) = (difference - plan.half, difference + plan.half * 1.1);
    let sign = if plan.lower_is_better { -1.0 } else { 1.0 };
    let verdict = match (low > 0.0, high < 0.0) {
        (true, _) if sign > 0.0 => "better",
        (_, true) if sign < 0.0 => "better",
        (true, _) | (_, true) => "worse",
        _ if low > -plan.margin && high < plan.margin => "equivalent",
        _ => "indistinguishable",
    };
    let p = (1.0 - (difference.abs() / plan.half).min(0.9999)).max(0.0002);
    let mut test = json!({"against": against, "arm": arm, "difference": difference,
        "interval": {"low": low, "high": high}, "p": p, "p_holm": (p * 3.0).min(1.0),
        "equivalence": {"margin": plan.margin, "p": (difference.abs() / plan.margin).min(1.0)},
        "probability_ahead": if difference > 0.0 { 0.93 } else { 0.21 }, "verdict": verdict});
    if pairs {
        test["discordant"] =
            json!({"fixed": 31, "broken": 12, "exact_p": 0.0054, "mid_p": 0.0041, "detectable": 0.061});
    }
    test
}

fn fill(task: &mut Value, plan: &Plan) {
    let pairs = task["role"] == "general";
    let (mut results, mut intervals, mut by_seed, mut tests) = (Map::new(), Map::new(), Map::new(), Vec::new());
    let mut put = |name: &str, value: f64| {
        let mut figures = json!({plan.metric: value});
        if !plan.lower_is_better {
            figures["precision"] = json!(value + 0.021);
            figures["recall"] = json!(value - 0.019);
            figures["accuracy"] = json!(value + 0.004);
        }
        results.insert(name.to_owned(), figures);
        let interval = json!({"low": value - plan.half, "high": value + plan.half});
        intervals.insert(name.to_owned(), json!({plan.metric: interval}));
    };
    put("base", plan.base);
    for (i, (name, _, _, coordinates, _)) in arms().iter().enumerate() {
        let difference = if name == "idle" { 0.0 } else { (plan.gain)(i, coordinates) };
        put(name, plan.base + difference);
        tests.push(test(name, "base", difference, plan, pairs));
        if name.contains('[') {
            let spread = plan.half / 2.0;
            let at = |k: i32| plan.base + difference + f64::from(k) * spread;
            by_seed.insert(name.clone(), json!({"1": at(-1), "2": at(0), "3": at(1)}));
        }
    }
    tests.push(test("mlp", "lora", (plan.gain)(1, &json!({})) - (plan.gain)(0, &json!({})), plan, pairs));
    task["results"] = json!(results);
    task["intervals"] = json!(intervals);
    task["by_seed"] = json!(by_seed);
    task["tests"] = json!(tests);
}

fn of(coordinates: &Value, axis: &str) -> f64 {
    coordinates[axis].as_f64().unwrap_or(4.0)
}

fn terra() -> Value {
    let mut task = json!({"id": "terra", "title": "TERRa", "role": "general", "metric": "f1", "average": "macro", "n": 307,
        "classes": {"entailment": 153, "not_entailment": 154}, "clusters": ["premise", 198],
        "label_mass": {"base": 0.412, "lora": 0.618, "mlp": 0.702},
        "shortcuts": [
            {"name": "majority", "title": "самый частый класс", "n": 307, "figures": {"accuracy": 0.5016, "f1": 0.3341}},
            {"name": "opposite_of_train", "title": "противоположное метке той же посылки в обучении", "n": 307,
                "figures": {"accuracy": 0.6091, "f1": 0.6088}}],
        "leaks": {"what": "premise", "shared": 204, "total": 307,
            "leak_free": {"base": {"f1": 0.401}, "lora": {"f1": 0.422}, "mlp": {"f1": 0.398}}},
        "variants": [
            {"name": "prompt=1", "values": {"base": 0.41, "lora": 0.43, "mlp": 0.44}},
            {"name": "prompt=2", "values": {"base": 0.39, "lora": 0.45, "mlp": 0.40}},
            {"name": "prompt=3", "values": {"base": 0.36, "lora": 0.42, "mlp": 0.41}}],
        "findings": [{"code": "shared_premises", "severity": "warning", "count": 204,
            "text": "Посылка 204 из 307 примеров есть и в обучающих данных.", "examples": ["0", "7", "12"]}],
        "examples": [{"id": "terra-17",
            "text": "Посылка: Автор поста написал в комментарии, что прорвалась канализация.\nГипотеза: Автор поста написал про канализацию.",
            "gold": "entailment", "answers": {"base": "not_entailment", "lora": "entailment", "mlp": "entailment",
                "lora_grid[alpha=8,rank=2]": "not_entailment"}, "right": ["lora", "mlp"]}]});
    fill(
        &mut task,
        &Plan {
            metric: "f1",
            base: 0.4103,
            half: 0.035,
            margin: 0.04,
            lower_is_better: false,
            gain: |i, at| 0.012 - 0.006 * (i % 5) as f64 - 0.0004 * of(at, "alpha") - if i == 1 { 0.07 } else { 0.0 },
        },
    );
    task
}

fn nerus() -> Value {
    let text = "Вице-премьер по социальным вопросам Татьяна Голикова рассказала, в каких регионах России зафиксирована \
                наиболее высокая смертность от рака, сообщает РИА Новости.";
    let mut task = json!({"id": "nerus", "title": "Nerus", "role": "special", "metric": "f1", "average": "micro", "n": 512,
        "documents": 60, "classes": {"LOC": 401, "ORG": 355, "PER": 522}, "clusters": ["document", 60],
        "averages": {"macro_types": {"base": {"f1": 0.22}, "lora": {"f1": 0.35}}},
        "parse": {"base": {"valid": 471, "unparsed": 29, "truncated": 12, "hallucinated": 44, "duplicate": 9},
            "lora": {"valid": 509, "unparsed": 3, "truncated": 0, "hallucinated": 5, "duplicate": 1},
            "mlp": {"valid": 511, "unparsed": 1, "truncated": 0, "hallucinated": 3, "duplicate": 0}},
        "examples": [
            {"id": "doc-4/2", "text": text, "gold": "PER:36:52 LOC:82:88 ORG:149:160",
                "answers": {"base": "", "lora": "PER:36:52 LOC:82:88", "mlp": "PER:36:52 LOC:82:88 ORG:149:160"}, "right": ["mlp"]},
            {"id": "doc-9/1", "text": "Иван Петров едет в Томск.", "gold": "PER:0:11 LOC:19:24",
                "answers": {"base": "PER:0:4 PER:2:11 LOC:19:99", "lora": "PER:0:11 LOC:19:24", "mlp": "Петров, Томск"},
                "right": ["lora"]}]});
    fill(
        &mut task,
        &Plan {
            metric: "f1",
            base: 0.2985,
            half: 0.028,
            margin: 0.03,
            lower_is_better: false,
            gain: |i, at| {
                0.03 + 0.018 * of(at, "rank").log2()
                    + 0.0004 * of(at, "alpha")
                    + 0.0002 * at["hidden_size"].as_f64().unwrap_or(0.0)
                    + if i == 1 { 0.09 } else { 0.0 }
            },
        },
    );
    task
}

fn retention() -> Value {
    let mut task = json!({"id": "lm", "title": "Связный текст", "role": "retention", "metric": "loss",
        "lower_is_better": true, "n": 400, "clusters": ["item", 400]});
    fill(
        &mut task,
        &Plan {
            metric: "loss",
            base: 2.8134,
            half: 0.012,
            margin: 0.02,
            lower_is_better: true,
            gain: |i, at| 0.001 * of(at, "rank") - 0.004 + if i == 1 { 0.05 } else { 0.0 },
        },
    );
    task
}

/// Everything at once.
pub fn full() -> Value {
    let mut all = vec![json!({"name": "base", "title": "Базовая модель", "adapters": [], "trainable_parameters": 0})];
    for (i, (name, title, adapters, coordinates, parameters)) in arms().into_iter().enumerate() {
        let seeds: Vec<u64> = if name.contains('[') { vec![1, 2, 3] } else { vec![] };
        let idle = name == "idle";
        let runs: Vec<Value> = if seeds.is_empty() { &[42][..] } else { &seeds }
            .iter()
            .map(|seed| training(i as u64, *seed, idle))
            .collect();
        let mut arm = json!({"name": name, "title": title, "coordinates": coordinates, "adapters": adapters,
            "trainable_parameters": parameters, "seeds": seeds, "training": runs, "certificate": certificate(idle, 8)});
        if name == "lora" || name == "mlp" {
            arm["selection"] = json!({"trials": 2, "metric": "f1",
                "split": "7c1d3e5f7a9b1c3d5e7f9a1b3c5d7e9f1a3b5c7d9e1f3a5b7c9d1e3f5a7b9c1d",
                "values": [{"name": format!("{name}[lr=0.001]"), "value": 0.41}, {"name": format!("{name}[lr=0.003]"), "value": 0.44}]});
        }
        all.push(arm);
    }
    json!({"format": "pipe/comparison@2", "generated": true, "arms": all, "tasks": [terra(), nerus(), retention()],
        "settings": {"alpha": 0.05, "resamples": 10_000, "seed": 20_250_315},
        "provenance": {
            "data": {"nerus.test": "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90",
                "terra.val": "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"},
            "environment": {"device": "cpu", "dtype": "f32", "libtorch": "2.11.0"}}})
}
