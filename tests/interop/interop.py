"""The Python side of the round trips: adapters as PEFT and AdapterHub make them, and what they compute with ours.

`interop.py make DIR` writes bases, ids and adapters with their logits below DIR; `interop.py check DIR` loads what
`pipe` wrote below DIR/ours, compares logits, and writes each adapter again below DIR/back. Both print JSON.
"""

import json
import os
import shutil
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
warnings.filterwarnings("ignore")

import adapters
import numpy
import peft
import torch
import transformers
from adapters import BnConfig, ConfigUnion, DoubleSeqBnConfig, IA3Config, LoRAConfig, ParBnConfig, SeqBnConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)

SMALL = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
BASES = {
    "llama": transformers.LlamaConfig(**SMALL),
    "mistral": transformers.MistralConfig(**SMALL, sliding_window=None, head_dim=8),
    "qwen2": transformers.Qwen2Config(**SMALL),
    "gpt2": transformers.GPT2Config(vocab_size=61, n_embd=32, n_layer=3, n_head=4, n_positions=64,
                                    bos_token_id=1, eos_token_id=2),
}
IDS = [[1, 5, 9, 60, 0, 7, 33, 12, 4, 58], [3, 3, 2, 11, 12, 13, 40, 41, 42, 43]]


def peft_cases():
    lora = lambda **more: peft.LoraConfig(task_type="CAUSAL_LM", **{"r": 3, "lora_alpha": 7, **more})
    ia3 = lambda **more: peft.IA3Config(task_type="CAUSAL_LM", **more)
    q_v = ["q_proj", "v_proj"]
    yield "llama", "lora", lora(target_modules=q_v, lora_dropout=0.1)
    yield "llama", "lora_all_linear", lora(target_modules="all-linear")
    yield "llama", "lora_regex", lora(target_modules=r".*\.[12]\.(self_attn\.q|mlp\.down)_proj")
    yield "llama", "lora_exclude", lora(target_modules=q_v, exclude_modules=r".*layers\.0\..*")
    yield "llama", "lora_rslora_layers", lora(target_modules=q_v, use_rslora=True, layers_to_transform=[0, 2])
    yield "llama", "lora_layers_pattern", lora(target_modules=q_v, layers_to_transform=1, layers_pattern="layers")
    yield "llama", "lora_patterns", lora(target_modules=[*q_v, "down_proj"], rank_pattern={
        r"layers\.1\.self_attn\.q_proj": 5, "q_proj": 2}, alpha_pattern={r"^model.layers.2.*v_proj": 11, "down_proj": 1.5})
    yield "llama", "lora_gaussian", lora(target_modules=["o_proj"], init_lora_weights="gaussian")
    yield "llama", "dora", lora(target_modules=[*q_v, "up_proj"], use_dora=True, lora_dropout=0.2)
    yield "llama", "dora_rslora", lora(target_modules="all-linear", use_dora=True, use_rslora=True)
    yield "llama", "ia3", ia3(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])
    yield "llama", "ia3_outputs", ia3(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=[])
    yield "llama", "ia3_regex", ia3(target_modules=r".*\.(k_proj|up_proj)", feedforward_modules=r".*1\.mlp\.up_proj")
    yield "qwen2", "lora_all_linear", lora(target_modules="all-linear")
    yield "qwen2", "dora_biases", lora(target_modules=[*q_v, "k_proj"], use_dora=True)
    yield "qwen2", "ia3_biases", ia3(target_modules=[*q_v, "down_proj"], feedforward_modules=["down_proj"])
    yield "mistral", "lora", lora(target_modules=q_v)
    yield "gpt2", "lora", lora(target_modules=["c_attn"])
    yield "gpt2", "lora_all_linear", lora(target_modules="all-linear")
    yield "gpt2", "dora", lora(target_modules=["c_attn", "mlp.c_proj"], use_dora=True)
    yield "gpt2", "ia3", ia3(target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"])


def adapterhub_cases():
    for base in ["llama", "mistral"]:
        yield base, "seq_bn", SeqBnConfig(reduction_factor=4, dropout=0.1)
        yield base, "double_seq_bn", DoubleSeqBnConfig(reduction_factor=8)
        yield base, "par_bn", ParBnConfig(reduction_factor=4)
        yield base, "lora", LoRAConfig(r=3, alpha=7, attn_matrices=["q", "k", "v"], intermediate_lora=True,
                                       output_lora=True, dropout=0.1)
        yield base, "union", ConfigUnion(LoRAConfig(r=2, alpha=5, leave_out=[0]), SeqBnConfig(reduction_factor=4, leave_out=[1]))
    yield "llama", "seq_bn_leave_out", SeqBnConfig(reduction_factor=4, leave_out=[0, 2])
    yield "llama", "seq_bn_factors", SeqBnConfig(reduction_factor={"0": 100, "1": 0.3, "default": 7.5})
    yield "llama", "seq_bn_ln_after", SeqBnConfig(reduction_factor=4, ln_after=True)
    yield "llama", "seq_bn_ln_after_residual_before", SeqBnConfig(reduction_factor=4, ln_after=True,
                                                                  adapter_residual_before_ln=True)
    yield "llama", "seq_bn_residual_after_ln", SeqBnConfig(reduction_factor=4, residual_before_ln=False)
    yield "llama", "seq_bn_no_ln_after", SeqBnConfig(reduction_factor=4, original_ln_after=False)
    yield "llama", "double_no_ln_after_residual_after", DoubleSeqBnConfig(
        reduction_factor=4, original_ln_after=False, residual_before_ln=False)
    yield "llama", "adapter_plus", SeqBnConfig(reduction_factor=4, original_ln_after=False, residual_before_ln=False,
                                               init_weights="houlsby", scaling="channel", non_linearity="gelu")
    yield "llama", "par_bn_options", ParBnConfig(reduction_factor=4, mh_adapter=True, ln_after=True, scaling="learned",
                                                 original_ln_after=False)
    for name in ["gelu", "gelu_new", "gelu_fast", "quick_gelu", "gelu_10", "leaky_relu", "leakyrelu", "linear", "mish",
                 "relu2", "relu6", "sigmoid", "silu", "tanh", "laplace", "gelu_pytorch_tanh", "gelu_accurate"]:
        yield "llama", f"seq_bn_{name}", SeqBnConfig(reduction_factor=4, non_linearity=name)
    yield "llama", "ln_before", SeqBnConfig(reduction_factor=4, ln_before=True)
    yield "llama", "lora_leave_out", LoRAConfig(r=4, alpha=8, leave_out=[1], selfattn_lora=False, output_lora=True)
    yield "llama", "dora", LoRAConfig(r=2, alpha=5, use_dora=True)
    yield "llama", "ia3", IA3Config()
    yield "llama", "ia3_alpha", IA3Config(alpha=3, output_lora=True)
    yield "llama", "union_of_places", ConfigUnion(
        BnConfig(mh_adapter=True, output_adapter=False, reduction_factor=4, non_linearity="relu"),
        BnConfig(mh_adapter=False, output_adapter=True, reduction_factor=8, non_linearity="tanh"))
    yield "llama", "union_ia3_par_bn", ConfigUnion(IA3Config(), ParBnConfig(reduction_factor=8))


def base_of(root, name):
    return AutoModelForCausalLM.from_pretrained(os.path.join(root, "bases", name), torch_dtype=torch.float32).eval()


def randomise(parameters, seed):
    """So that everything does something: B, U and vectors begin where they change nothing."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def logits(model):
    with torch.no_grad():
        return model(torch.tensor(IDS)).logits.float()


def write_logits(folder, tensor):
    save_file({"logits": tensor.contiguous()}, os.path.join(folder, "expected.safetensors"))


def make(root):
    for at, (name, config) in enumerate(BASES.items()):
        torch.manual_seed(100 + at)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            # Wide enough that logits differ and norms are not all one.
            parameter.data.add_(torch.randn_like(parameter) * (0.15 if parameter.dim() > 1 else 0.1))
        model.save_pretrained(os.path.join(root, "bases", name))
    made = []
    for at, (base, case, config) in enumerate(peft_cases()):
        folder = os.path.join(root, "theirs", f"peft-{base}-{case}")
        torch.manual_seed(at)
        model = base_of(root, base)
        bare = logits(model)
        model = peft.get_peft_model(model, config).eval()
        randomise([p for n, p in model.named_parameters() if "lora_" in n or "ia3_" in n], at)
        model.save_pretrained(folder)
        result = logits(model)
        write_logits(folder, result)
        made.append({"case": f"peft-{base}-{case}", "base": base, "effect": (result - bare).abs().max().item()})
    for at, (base, case, config) in enumerate(adapterhub_cases()):
        folder = os.path.join(root, "theirs", f"adapterhub-{base}-{case}")
        torch.manual_seed(at)
        model = base_of(root, base)
        bare = logits(model)
        adapters.init(model)
        model.add_adapter("ru", config=config)
        model.set_active_adapters("ru")
        model.eval()
        randomise([p for n, p in model.named_parameters() if ".ru." in n], at)
        if case == "ln_before":
            # The library has its norm under two names and cannot write them as safetensors: copies can be written.
            os.makedirs(folder)
            model.save_adapter(folder, "ru", use_safetensors=False)
            tensors = torch.load(os.path.join(folder, "pytorch_adapter.bin"), weights_only=True)
            save_file({name: tensor.clone() for name, tensor in tensors.items()},
                      os.path.join(folder, "adapter.safetensors"))
            os.remove(os.path.join(folder, "pytorch_adapter.bin"))
        else:
            os.makedirs(folder)
            model.save_adapter(folder, "ru", use_safetensors=True)
        result = logits(model)
        write_logits(folder, result)
        made.append({"case": f"adapterhub-{base}-{case}", "base": base, "effect": (result - bare).abs().max().item()})
    versions = {module.__name__: module.__version__ for module in [torch, transformers, peft, adapters, numpy]}
    versions["python"] = sys.version.split()[0]
    print(json.dumps({"versions": versions, "ids": IDS, "cases": made}))


def load_peft(model, folder):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = peft.PeftModel.from_pretrained(model, folder).eval()
    said = [str(w.message) for w in caught if "adapter keys" in str(w.message) or "Unexpected keyword" in str(w.message)]
    return model, said


def load_adapterhub(model, folder):
    adapters.init(model)
    info = {}
    name = model.load_adapter(folder, loading_info=info, use_safetensors=True, with_head=False)
    model.set_active_adapters(name)
    unexpected = [key for key in info.get("unexpected_keys", [])]
    missing = [key for key in info.get("missing_keys", []) if f".{name}." in key]
    return model.eval(), missing + unexpected, name


def check(root):
    found = []
    ours = os.path.join(root, "ours")
    for case in sorted(os.listdir(ours)):
        folder = os.path.join(ours, case)
        base = json.load(open(os.path.join(folder, "case.json")))["base"]
        expected = load_file(os.path.join(folder, "expected.safetensors"))["logits"]
        back = os.path.join(root, "back", case)
        said = []
        if case.startswith("merged"):
            model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
        elif case.startswith("peft"):
            model, said = load_peft(base_of(root, base), folder)
            model.save_pretrained(back)
        else:
            model, said, name = load_adapterhub(base_of(root, base), folder)
            os.makedirs(back)
            try:
                model.save_adapter(back, name, use_safetensors=True)
            except RuntimeError as error:
                # Its norm before the bottleneck has two names.
                if "share memory" not in str(error):
                    raise
                shutil.rmtree(back)
        found.append({"case": case, "difference": (logits(model) - expected).abs().max().item(), "said": said})
    print(json.dumps(found))


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](sys.argv[2])
