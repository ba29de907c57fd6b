#!/usr/bin/env python3
"""Random weights in bf16 for the configuration in FOLDER/base, made on a GPU: `ml make FOLDER L` leaves them out.

    python3 base.py FOLDER
"""

import json
import sys

import torch
from safetensors.torch import save_file

folder = f"{sys.argv[1]}/base"
config = json.load(open(f"{folder}/config.json"))
width, inner, vocabulary = (config[key] for key in ("hidden_size", "intermediate_size", "vocab_size"))
torch.manual_seed(1)


def normal(*shape):
    return (torch.randn(shape, device="cuda") * 0.02).bfloat16().cpu()


ones = torch.ones(width, dtype=torch.bfloat16)
tensors = {"model.embed_tokens.weight": normal(vocabulary, width), "model.norm.weight": ones.clone()}
for layer in range(config["num_hidden_layers"]):
    block = f"model.layers.{layer}"
    for name in "qkvo":
        tensors[f"{block}.self_attn.{name}_proj.weight"] = normal(width, width)
    for name, shape in [("gate", (inner, width)), ("up", (inner, width)), ("down", (width, inner))]:
        tensors[f"{block}.mlp.{name}_proj.weight"] = normal(*shape)
    for name in ("input_layernorm", "post_attention_layernorm"):
        tensors[f"{block}.{name}.weight"] = ones.clone()
if not config["tie_word_embeddings"]:
    tensors["lm_head.weight"] = normal(vocabulary, width)
save_file(tensors, f"{folder}/model.safetensors")
