"""Writes models.json beside it: logits of tiny models of every architecture, computed by transformers.

Made with transformers 4.57.6 and torch 2.11.0 (`pip install transformers==4.57.6 torch==2.11.0`), in float32 with
`attn_implementation="eager"`: other kernels of that version leave soft caps and GPT-2's own scales out.
The weights follow from names and places by `weights`, which tests/it/model_reference.rs repeats.
"""

import json
import math
import pathlib

import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY = 31
IDS = [[1, 5, 9, 30, 0, 7, 12, 3, 29, 22, 4, 17], [3, 3, 2, 11, 12, 13, 8, 28, 6, 1, 25, 19]]


def weights(shapes, one):
    """Numbers from -0.5 to 0.5 that repeat nowhere, widened by what a tensor is for."""
    made = {}
    for j, name in enumerate(sorted(shapes)):
        count = math.prod(shapes[name])
        noise = [math.sin(12.9898 * i + 78.233 * j) * 43758.5453 for i in range(count)]
        noise = torch.tensor([x - math.floor(x) - 0.5 for x in noise], dtype=torch.float64)
        if len(shapes[name]) > 1:
            values = noise * 0.8
        else:
            values = noise * 0.4 + (0.0 if name.endswith(".bias") else one)
        made[name] = values.to(torch.float32).reshape(shapes[name])
    return made


def llama(model_type, **more):
    return dict(
        model_type=model_type, vocab_size=VOCABULARY, hidden_size=24, intermediate_size=40, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=6, max_position_embeddings=64, **more,
    )


def neox(**more):
    config = llama("gpt_neox", **more)
    del config["num_key_value_heads"], config["head_dim"]
    return config


def gpt2(**more):
    return dict(model_type="gpt2", vocab_size=VOCABULARY, n_embd=24, n_layer=3, n_head=4, n_positions=16, **more)


def rope(kind, **more):
    return {"rope_scaling": {"rope_type": kind, **more}}


SLIDES = dict(use_sliding_window=True, sliding_window=3, max_window_layers=1)
CONFIGS = [
    llama("llama"),
    llama("llama", attention_bias=True, mlp_bias=True, tie_word_embeddings=True, hidden_act="gelu"),
    llama("llama", **rope("linear", factor=2.0)),
    llama("llama", **rope("dynamic", factor=2.0)),
    llama("llama", **rope("yarn", factor=4.0, original_max_position_embeddings=8)),
    llama("llama", **rope("yarn", factor=4.0, original_max_position_embeddings=8, beta_fast=4.0, beta_slow=0.5,
                          mscale=0.7, mscale_all_dim=1.3, truncate=False)),
    llama("llama", **rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                          original_max_position_embeddings=8)),
    llama("mistral", sliding_window=4),
    llama("mistral", sliding_window=None, hidden_act="relu2"),
    llama("qwen2", **SLIDES),
    llama("qwen2", use_sliding_window=True, sliding_window=3,
          layer_types=["sliding_attention", "full_attention", "full_attention"], tie_word_embeddings=True),
    llama("qwen3"),
    llama("qwen3", attention_bias=True, hidden_act="quick_gelu", **SLIDES),
    gpt2(),
    gpt2(scale_attn_by_inverse_layer_idx=True, n_inner=20, activation_function="relu", tie_word_embeddings=False),
    gpt2(scale_attn_weights=False, activation_function="gelu"),
    neox(rotary_pct=0.5),
    neox(rotary_pct=1.0, use_parallel_residual=False, attention_bias=False, rotary_emb_base=500),
    neox(rotary_pct=0.25, tie_word_embeddings=True, hidden_act="mish"),
    llama("gemma"),
    llama("gemma2", sliding_window=3, query_pre_attn_scalar=9, attn_logit_softcapping=2.0, final_logit_softcapping=3.0),
    llama("gemma2", sliding_window=3, query_pre_attn_scalar=9, attn_logit_softcapping=None,
          final_logit_softcapping=None, attention_bias=True),
    llama("gemma3_text", sliding_window=3, sliding_window_pattern=2, query_pre_attn_scalar=9,
          rope_local_base_freq=100.0, final_logit_softcapping=5.0, **rope("linear", factor=4.0)),
]

cases = []
for config in CONFIGS:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), attn_implementation="eager").eval()
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        state = {name: tensor for name, tensor in state.items() if name != "lm_head.weight" and name != "embed_out.weight"}
    one = 0.0 if config["model_type"].startswith("gemma") else 1.0
    model.load_state_dict(weights({name: tuple(tensor.shape) for name, tensor in state.items()}, one), strict=False)
    model.tie_weights()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(IDS), use_cache=False).logits
    rounded = [[round(x, 5) for x in row[-1].tolist()] for row in logits]
    cases.append(json.dumps({"config": config, "logits": rounded}))

path = pathlib.Path(__file__).with_name("models.json")
path.write_text('{"ids": %s,\n "cases": [\n%s\n]}\n' % (json.dumps(IDS), ",\n".join(cases)))
