//! What `config.json` of every architecture says, and what is refused by name: without libtorch.
//! It does not know how anything is computed.

use pipe::ml::config::ModelConfig;
use pipe::ml::config::rope::{Rope, RopeScaling};
use pipe::ml::models::tensors;
use pipe::ml::shapes::count;
use serde_json::{Value, json};

/// An architecture's configuration with these options.
pub fn config(model_type: &str, more: Value) -> Value {
    let mut config = if model_type == "gpt2" {
        json!({"n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 40})
    } else {
        json!({"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4})
    };
    let fields = config.as_object_mut().unwrap();
    fields.extend([("vocab_size".to_owned(), json!(41)), ("model_type".to_owned(), json!(model_type))]);
    if !["gpt2", "gpt_neox"].contains(&model_type) {
        fields.extend([("num_key_value_heads".to_owned(), json!(2)), ("head_dim".to_owned(), json!(6))]);
    }
    fields.extend(more.as_object().unwrap().clone());
    config
}

#[test]
fn options_that_are_not_computed_are_refused_by_name() {
    let rope = |table: Value| json!({ "rope_scaling": table });
    for (model_type, more, named) in [
        ("llama", json!({"model_type": "mamba"}), "`mamba`"),
        ("llama", json!({"model_type": "gemma3"}), "`gemma3`"),
        ("llama", json!({"hidden_act": "prelu"}), "hidden_act: prelu"),
        ("llama", json!({"pretraining_tp": 2}), "pretraining_tp"),
        ("llama", json!({"quantization_config": {"bits": 4}}), "quantization_config"),
        ("llama", json!({"sliding_window": 8}), "sliding_window"),
        ("llama", json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        ("llama", json!({"attn_logit_softcapping": 30.0}), "attn_logit_softcapping"),
        ("llama", json!({"layer_types": ["sliding_attention"]}), "layer_types"),
        ("llama", json!({"residual_multiplier": 0.2}), "residual_multiplier"),
        ("llama", json!({"num_local_experts": 8}), "num_local_experts"),
        ("llama", json!({"num_key_value_heads": 3}), "3 key"),
        ("llama", json!({"head_dim": 7}), "head_dim"),
        ("llama", json!({"rope_theta": 0.5}), "rope_theta"),
        ("llama", json!({"eos_token_id": -1}), "eos_token_id"),
        ("llama", json!({"rms_norm_eps": 0}), "rms_norm_eps"),
        ("llama", rope(json!({"rope_type": "longrope", "factor": 2.0})), "longrope"),
        ("llama", rope(json!({"rope_type": "linear"})), "factor"),
        ("llama", rope(json!({"rope_type": "linear", "factor": 2.0, "beta_fast": 3})), "beta_fast"),
        ("llama", rope(json!({"rope_type": "linear", "type": "yarn", "factor": 2.0})), "yarn"),
        ("llama", rope(json!({"type": "mrope", "mrope_section": [1, 1, 1]})), "mrope"),
        ("llama", json!({"rope_parameters": {"rope_theta": 5e4}, "rope_theta": 1e4}), "rope_theta"),
        (
            "llama",
            json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0},
                "rope_scaling": {"rope_type": "linear", "factor": 3.0}}),
            "rope_parameters",
        ),
        ("mistral", json!({"layer_types": ["full_attention"]}), "layer_types"),
        ("mistral", json!({"sliding_window": 0}), "sliding_window"),
        (
            "qwen2",
            json!({"layer_types": ["full_attention", "chunked_attention", "full_attention"]}),
            "chunked_attention",
        ),
        ("qwen2", json!({"layer_types": ["full_attention"]}), "layer_types"),
        (
            "qwen3",
            json!({"layer_types": ["sliding_attention", "full_attention", "full_attention"], "sliding_window": 4}),
            "sliding_window",
        ),
        ("gpt2", json!({"add_cross_attention": true}), "add_cross_attention"),
        ("gpt2", json!({"n_head": 5}), "n_head"),
        ("gpt2", json!({"activation_function": "snake"}), "snake"),
        ("gpt2", rope(json!({"rope_type": "linear", "factor": 2.0})), "rope_scaling"),
        ("gpt_neox", json!({"rotary_pct": 1.5}), "rotary_pct"),
        ("gpt_neox", json!({"rotary_pct": 0.5, "partial_rotary_factor": 0.25}), "partial_rotary_factor"),
        ("gpt_neox", json!({"num_attention_heads": 5}), "num_attention_heads"),
        ("gemma", json!({"final_logit_softcapping": 30.0}), "final_logit_softcapping"),
        ("gemma2", json!({"use_bidirectional_attention": true}), "use_bidirectional_attention"),
        ("gemma2", json!({"attn_logit_softcapping": -1.0}), "attn_logit_softcapping"),
        ("gemma3_text", json!({"attn_logit_softcapping": 50.0}), "attn_logit_softcapping"),
        ("gemma3_text", json!({"rope_parameters": {"rope_type": "default"}}), "rope_type"),
    ] {
        let problem = ModelConfig::from_value(&config(model_type, more.clone())).err();
        let problem = problem.unwrap_or_else(|| panic!("{model_type} {more} was not refused")).to_string();
        assert!(problem.contains(named), "{model_type} {more}: {problem}");
    }
}

#[test]
fn options_that_change_nothing_are_taken() {
    for (model_type, more) in [
        ("llama", json!({"sliding_window": null, "layer_types": [], "quantization_config": null})),
        ("llama", json!({"partial_rotary_factor": 1.0, "pretraining_tp": 1, "is_encoder_decoder": false})),
        ("llama", json!({"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "rope_theta": 10000})),
        ("llama", json!({"attention_dropout": 0.1, "made_by": "somebody", "logits_scaling": 1.0})),
        ("qwen2", json!({"sliding_window": 4, "use_sliding_window": false, "max_window_layers": 0})),
        ("gpt2", json!({"summary_type": "cls_index", "task_specific_params": {"x": 1}, "n_ctx": 40})),
        ("gpt_neox", json!({"rotary_emb_base": 10000, "rope_theta": 10000, "classifier_dropout": 0.1})),
    ] {
        ModelConfig::from_value(&config(model_type, more.clone())).unwrap_or_else(|e| panic!("{more}: {e}"));
    }
    let read = |model_type, more| ModelConfig::from_value(&config(model_type, more)).unwrap();
    // Dropout of the base is told, not applied.
    assert_eq!(read("llama", json!({"attention_dropout": 0.1})).dropout, [("attention_dropout", 0.1)]);
    assert!(read("gpt2", json!({"attn_pdrop": 0.0, "resid_pdrop": 0, "embd_pdrop": null})).dropout.is_empty());
    // Absent is the family's default, null is none.
    assert_eq!(read("mistral", json!({})).attention.window.unwrap().size, 4096);
    assert_eq!(read("gpt2", json!({})).eos_token_ids, [50_256]);
    assert!(read("gpt2", json!({"eos_token_id": null})).eos_token_ids.is_empty());
    assert_eq!(read("gemma2", json!({})).attention.softcap, Some(50.0));
    assert_eq!(read("gemma2", json!({"attn_logit_softcapping": null})).attention.softcap, None);
    assert_eq!(read("llama", json!({"num_key_value_heads": null})).num_key_value_heads, 4);
}

/// Published sizes, to the last number.
#[test]
fn sizes_follow_from_the_configuration_alone() {
    let gpt2 = json!({"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12});
    let llama = json!({"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32});
    let mistral = json!({"model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8});
    let qwen2 = json!({"model_type": "qwen2", "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": true});
    let pythia = json!({"model_type": "gpt_neox", "vocab_size": 50304, "hidden_size": 512, "intermediate_size": 2048,
        "num_hidden_layers": 6, "num_attention_heads": 8});
    for (config, parameters) in [
        (gpt2, 124_439_808),      // GPT-2
        (llama, 6_738_415_616),   // Llama-2-7B
        (mistral, 7_241_732_096), // Mistral-7B
        (qwen2, 494_032_768),     // Qwen2-0.5B
        (pythia, 70_426_624),     // Pythia-70M
    ] {
        let shapes = tensors::shapes(&ModelConfig::from_value(&config).unwrap());
        assert_eq!(count(&shapes), parameters, "{config}");
    }
}

/// Figures of transformers 4.57.6 (`ROPE_INIT_FUNCTIONS`) for a head of 16 and θ = 10000: frequencies 0, 1, 2 and 5,
/// and what cos and sin are multiplied by.
const FIGURES: [(&str, [f64; 4], f64); 6] = [
    ("default", [1.0, 0.31622776, 0.1, 0.0031622779], 1.0),
    ("dynamic", [1.0, 0.31622776, 0.1, 0.0031622779], 1.0),
    ("linear", [0.25, 0.079056941, 0.025, 0.00079056947], 1.0),
    ("llama3", [1.0, 0.24438459, 0.013042256, 0.00039528473], 1.0),
    ("yarn", [1.0, 0.19764236, 0.025, 0.00079056947], 1.138629436111989),
    ("yarn, not truncated", [1.0, 0.14849025, 0.025, 0.00079056947], 0.8),
];

#[test]
fn frequencies_are_those_of_transformers() {
    let yarn = |truncate, attention_factor| RopeScaling::Yarn {
        factor: 4.0,
        original: 32.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate,
        attention_factor,
    };
    for (scaling, right, factor) in FIGURES.map(|(name, right, factor)| {
        let scaling = match name {
            "default" => RopeScaling::Default,
            "dynamic" => RopeScaling::Dynamic { factor: 4.0 },
            "linear" => RopeScaling::Linear { factor: 4.0 },
            "llama3" => RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 64.0 },
            "yarn" => yarn(true, factor),
            _ => yarn(false, factor),
        };
        (scaling, right, factor)
    }) {
        let rope = Rope { theta: 1e4, dim: 16, scaling };
        let ours = rope.inverse_frequencies();
        assert_eq!((ours.len(), rope.width()), (8, 16));
        for (at, right) in [0, 1, 2, 5].into_iter().zip(right) {
            assert!((ours[at] - right).abs() <= 1e-6 * right, "{:?} {at}: {} {right}", rope.scaling, ours[at]);
        }
        assert_eq!(rope.attention_factor(), factor);
    }
    // An odd share of a head is rounded up to pairs.
    let odd = Rope { theta: 1e4, dim: 5, scaling: RopeScaling::Default };
    assert_eq!((odd.width(), odd.inverse_frequencies().len()), (6, 3));
    // YaRN's attention grows with the factor, if nobody says otherwise.
    let read = |more: Value| {
        let mut table = json!({"rope_type": "yarn", "factor": 4.0});
        table.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let config = ModelConfig::from_value(&config("llama", json!({ "rope_scaling": table }))).unwrap();
        let pipe::ml::config::Positions::Rotary { rope, .. } = config.positions else { panic!("rotary") };
        rope.attention_factor()
    };
    let grown = 0.1 * 4f64.ln() + 1.0;
    assert_eq!(read(json!({})), grown);
    assert_eq!(read(json!({"attention_factor": 0.8})), 0.8);
    assert_eq!(read(json!({"mscale": 1.0, "mscale_all_dim": 1.0})), 1.0);
    assert_eq!(read(json!({"mscale": 2.0})), grown);
}
