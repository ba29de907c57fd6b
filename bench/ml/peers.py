#!/usr/bin/env python3
"""The work of bench/ml in Python, written as its users would write it well: transformers, PEFT, AdapterHub and
lm-evaluation-harness on the same base, adapters, rows, dtype and threads. One measurement a process.

    python3 peers.py WORK FOLDER key=value ...

Prints one line of JSON with the keys of the Rust side.
"""

import json
import os
import resource
import statistics
import sys
import time

what, folder = sys.argv[1], sys.argv[2]
options = dict(word.split("=", 1) for word in sys.argv[3:])
threads = int(options.get("threads", 2))
os.environ.setdefault("OMP_NUM_THREADS", str(threads))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "true" if what == "tokenize" else "false"

if what == "tokenize":
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{options.get('tokenizer', folder + '/tokenizer')}/tokenizer.json")
    text = open(options.get("text", f"{folder}/prose.txt"), encoding="utf-8").read()
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    best, cpu = float("inf"), 0.0
    for _ in range(6):
        began, used = time.perf_counter(), time.process_time()
        encoded = tokenizer.encode_batch_fast(lines, add_special_tokens=False)
        seconds = time.perf_counter() - began
        if seconds < best:
            best, cpu = seconds, time.process_time() - used
    # To take the ids out is not counted.
    ids = sum(len(line.ids) for line in encoded)
    print(json.dumps({
        "tokens_per_second": ids / best, "bytes_per_second": len(text.encode()) / best, "seconds": best,
        "cpu_seconds": cpu, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "losses": [ids],
    }))
    sys.exit()

import torch  # noqa: E402

torch.set_num_threads(threads)


def since_start():
    """Seconds since this process was started: the interpreter and the imports count."""
    started = float(open("/proc/self/stat").read().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
    return float(open("/proc/uptime").read().split()[0]) - started


DTYPE = torch.bfloat16 if options.get("dtype") == "bf16" else torch.float32
DEVICE = options.get("device", "cpu")


def rows(name):
    from safetensors.torch import load_file

    tensors = load_file(f"{folder}/{name}/tokens.safetensors")
    ids, offsets, targets = (tensors[key].tolist() for key in ("ids", "offsets", "targets"))
    return [(ids[a:b], t) for a, b, t in zip(offsets, offsets[1:], targets)]


def base():
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(f"{folder}/base", dtype=DTYPE, attn_implementation="sdpa")
    return model.to(DEVICE)


def armed(name, trainable):
    model = base()
    if name == "base":
        return model
    if name == "lora":
        from peft import PeftModel

        return PeftModel.from_pretrained(model, f"{folder}/lora", is_trainable=trainable)
    import adapters

    adapters.init(model)
    adapter = model.load_adapter(f"{folder}/mlp", set_active=True, use_safetensors=True)
    if trainable:
        model.train_adapter(adapter)
    model.adapter_to(adapter, device=DEVICE, dtype=torch.float32 if DTYPE == torch.float32 else DTYPE)
    return model


def peak_mib():
    if DEVICE != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def synchronize():
    if DEVICE != "cpu":
        torch.cuda.synchronize()


def collate(batch, width=None):
    width = width or max(len(ids) for ids, _ in batch)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in batch])
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in batch])
    labels = torch.tensor([[-100] * t + ids[t:] + [-100] * (width - len(ids)) for ids, t in batch])
    full = all(len(ids) == width for ids, _ in batch)
    return ids.to(DEVICE), None if full else mask.to(DEVICE), labels.to(DEVICE)


def update(run, parameters, optimiser, batch):
    """One step of a hand-written loop; answers the loss before it."""
    ids, mask, labels = collate(batch)
    loss = run(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return loss.detach()


def train():
    """A hand-written loop; `plan`, if given, is a file with the rows of each step."""
    data = rows(options.get("rows", "full"))
    model = armed(options.get("arm", "lora"), True)
    model.train()
    steps, warm, size = int(options.get("steps", 13)), int(options.get("warm", 3)), int(options.get("batch", 8))
    if "plan" in options:
        plan = [step[0] for step in json.load(open(options["plan"]))]
    else:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1)).tolist()
        order = order * (steps * size // len(order) + 1)
        plan = [order[i * size : (i + 1) * size] for i in range(steps)]
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    run = torch.compile(model) if options.get("compile") else model
    losses, times, ids_seen, first, cpu, ready = [], [], 0, None, 0.0, since_start()
    for step, chosen in enumerate(plan[:steps]):
        losses.append(update(run, parameters, optimiser, [data[i] for i in chosen]))
        synchronize()
        first = first or since_start()
        if step + 1 == warm:
            cpu = time.process_time()
        if step + 1 >= warm:
            times.append(time.perf_counter())
        if step + 1 > warm:
            ids_seen += sum(len(data[i][0]) for i in chosen)
    seconds = times[-1] - times[0]
    return {
        "tokens_per_second": ids_seen / seconds,
        "seconds": seconds,
        "cpu_seconds": time.process_time() - cpu,
        "ready": ready,
        "first_step": first,
        "peak_mib": peak_mib(),
        "losses": [float(loss) for loss in losses],
    }


def grid():
    """Eight LoRA of rank 2 to 16, one after the other over one base, in a hand-written loop."""
    from peft import LoraConfig, get_peft_model

    data, model = rows(options.get("rows", "full")), base()
    steps, size = int(options.get("steps", 13)), int(options.get("batch", 8))
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1)).tolist()
    plan = [order[i * size : (i + 1) * size] for i in range(steps)]

    def one(rank, plan):
        config = LoraConfig(r=rank, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        run = get_peft_model(model, config)
        run.train()
        parameters = [p for p in run.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
        for chosen in plan:
            loss = update(run, parameters, optimiser, [data[i] for i in chosen])
        run.unload()
        return float(loss)

    one(2, plan[:2])
    synchronize()
    began, cpu = time.perf_counter(), time.process_time()
    losses = [one(2 << (at % 4), plan) for at in range(8)]
    synchronize()
    seconds = time.perf_counter() - began
    return {
        "tokens_per_second": 8 * sum(len(data[i][0]) for chosen in plan for i in chosen) / seconds,
        "seconds": seconds,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": peak_mib(),
        "losses": losses,
    }


def trainer():
    """transformers' Trainer with its padding collator."""
    import transformers

    data = rows(options.get("rows", "full"))
    model = armed(options.get("arm", "lora"), True)
    steps, warm, size = int(options.get("steps", 13)), int(options.get("warm", 3)), int(options.get("batch", 8))
    marks, seen = [], []

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return len(data)

        def __getitem__(self, i):
            ids, t = data[i]
            return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100] * t + ids[t:]}

    def pad(batch):
        seen.append(sum(len(row["input_ids"]) for row in batch))
        width = max(len(row["input_ids"]) for row in batch)
        fill = {"input_ids": 0, "attention_mask": 0, "labels": -100}
        return {k: torch.tensor([r[k] + [v] * (width - len(r[k])) for r in batch]) for k, v in fill.items()}

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, arguments, state, control, **rest):
            marks.append((time.perf_counter(), time.process_time(), since_start()))

    arguments = transformers.TrainingArguments(
        output_dir="/tmp/trainer", per_device_train_batch_size=size, max_steps=steps, learning_rate=1e-3,
        weight_decay=0.0, max_grad_norm=1.0, lr_scheduler_type="constant", logging_strategy="no", save_strategy="no",
        report_to=[], use_cpu=DEVICE == "cpu", bf16=False, dataloader_num_workers=0, disable_tqdm=True,
        label_names=["labels"],
    )
    result = transformers.Trainer(
        model=model, args=arguments, train_dataset=Rows(), data_collator=pad, callbacks=[Clock()]
    ).train()
    seconds = marks[-1][0] - marks[warm - 1][0]
    # The loader may be some batches ahead of the step.
    return {
        "tokens_per_second": sum(seen[warm:steps]) / seconds,
        "seconds": seconds,
        "cpu_seconds": marks[-1][1] - marks[warm - 1][1],
        "first_step": marks[0][2],
        "peak_mib": peak_mib(),
        "losses": [result.training_loss],
    }


def pairs():
    return [(ids[:t], ids[t:]) for ids, t in rows("pairs")]


def arms():
    return options.get("arms", "base,lora,mlp").split(",")


def lm_eval():
    """HFLM, an arm after the other; loading is not counted."""
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", bos_token="<s>", pad_token="</s>")
    items, seconds, cpu, sums = pairs(), 0.0, 0.0, []
    for name in arms():
        model = armed(name, False).eval()
        lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=int(options.get("batch", 16)), backend="causal")
        requests = [((str(i), str(i)), context, label) for i, (context, label) in enumerate(items)]
        began, used = time.perf_counter(), time.process_time()
        answers = lm._loglikelihood_tokens(requests, disable_tqdm=True)
        seconds += time.perf_counter() - began
        cpu += time.process_time() - used
        sums.append(statistics.fmean(float(a[0]) for a in answers))
    nominal = sum(len(c) + len(l) for c, l in items) * len(arms())
    return {"tokens_per_second": nominal / seconds, "seconds": seconds, "cpu_seconds": cpu, "peak_mib": peak_mib(),
            "losses": sums}


def generate():
    """transformers' `generate`, in batches, an arm after the other; loading is not counted."""
    prompts = [context for context, _ in pairs()][::2][: int(options.get("prompts", 100))]
    shown = prompts[0]
    prompts.sort(key=len)
    new, size, seconds, cpu, made, first = int(options.get("new", 64)), int(options.get("batch", 50)), 0.0, 0.0, 0, []
    for name in arms():
        model = armed(name, False).eval()
        began, used = time.perf_counter(), time.process_time()
        with torch.no_grad():
            for at in range(0, len(prompts), size):
                batch = prompts[at : at + size]
                width = max(map(len, batch))
                ids = torch.tensor([[0] * (width - len(p)) + p for p in batch], device=DEVICE)
                mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in batch], device=DEVICE)
                out = model.generate(
                    input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=new, min_new_tokens=new,
                    pad_token_id=0,
                )
                made += out[:, width:].numel()
                first.extend(out[row, width:].tolist() for row, prompt in enumerate(batch) if prompt is shown)
        seconds += time.perf_counter() - began
        cpu += time.process_time() - used
    return {"tokens_per_second": made / seconds, "seconds": seconds, "cpu_seconds": cpu, "peak_mib": peak_mib(),
            "losses": first}


WORK = {"train": train, "grid": grid, "trainer": trainer, "lm_eval": lm_eval, "generate": generate}
print(json.dumps(WORK[what]()))
