"""Trains small SentencePiece models of every kind that is read, and writes down what the library answers.

    python3 make.py TEXT OUT        # sentencepiece 0.2.3, protobuf; TEXT is any UTF-8 file with lines of prose

The models beside this file were trained on the text of a `generate` step.
"""

import json
import random
import sys
import tempfile
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto

RULES = [  # replacements, some of several characters, some across graphemes
    ("\n", " "), ("\t", " "), ("\r\n", " "), ("\u00a0", " "), ("\u00ad", ""), ("\ufeff", ""), ("…", "..."),
    ("№", "No"), ("ё", "е"), ("е\u0308", "ё"), ("и\u0306", "й"), ("ﬁ", "fi"), ("ſ", "s"), ("²", "2"), ("A\u030a", "Å"),
    ("👨\u200d👩", "двое"), ("« ", "«"), ("ab", "AB"), ("abc", "x"),
]
OWN = ["[NL]", "<br>", "Москв"]
COMMON = dict(hard_vocab_limit=False, num_threads=1, minloglevel=2, max_sentence_length=100000)
MODELS = {
    "unigram_rules": dict(model_type="unigram", vocab_size=320, rules=True),
    "unigram_bytes": dict(model_type="unigram", vocab_size=640, byte_fallback=True, normalization_rule_name="identity",
                          remove_extra_whitespaces=False, user_defined_symbols=OWN),
    "unigram_own_rules": dict(model_type="unigram", vocab_size=300, rules=True, user_defined_symbols=OWN),
    "unigram_suffix": dict(model_type="unigram", vocab_size=300, rules=True, treat_whitespace_as_suffix=True),
    "unigram_whole": dict(model_type="unigram", vocab_size=320, normalization_rule_name="identity",
                          split_by_whitespace=False, add_dummy_prefix=False),
    "bpe_llama": dict(model_type="bpe", vocab_size=700, byte_fallback=True, normalization_rule_name="identity",
                      remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True),
    "bpe_rules": dict(model_type="bpe", vocab_size=400, rules=True, user_defined_symbols=OWN),
    "bpe_unused": dict(model_type="bpe", vocab_size=400, normalization_rule_name="identity", unused=True),
    "bpe_no_prefix": dict(model_type="bpe", vocab_size=400, rules=True, add_dummy_prefix=False,
                          remove_extra_whitespaces=False),
}
TRICKY = [
    "", " ", "  ", "\n", " да", "да ", "  два  пробела  ", "строка\nстрока\r\n\tи ещё", "ааааааааааааа", "мама мыла раму",
    "Привет, мир! 🙂 ё Ё", "👨\u200d👩\u200d👧 семья", "е\u0308лка и\u0306од A\u030angström", "ﬁn ſtraße ² № 5 …", "«  кавычки »",
    "abcabab ab abc", "東京 العربية हिन्दी", "▁ ▁▁ подчёркнуто▁", "<s>да</s> <unk> <0x0A>", "до[NL]после<br>конец Москва Москвой",
    "12345 3,14 1 000 000", "x" * 300, "\u00ad\ufeff\u00a0", "А.С. Пушкин — «Капитанская дочка» (1836)", "\u0000 ноль", "﷽ ﷺ",
    "т\u0301е\u0301к\u0301с\u0301т", "🇷🇺🏳️\u200d🌈", "\u2028\u2029\u3000", "[NL]", "[NL][NL] [NL]", "[N L] <br", " ▁ ",
]


def fuzz(seed: int, lines: list[str], count: int) -> list[str]:
    rng = random.Random(seed)
    odd = list("\n\t\r \u00a0▁\u00ad\u0308\u0306\u0301\u200d…№ёЁе²ﬁſab[]<>🙂👨👩東م\u0000") + OWN + [s for s, _ in RULES] + ["<s>", "</s>"]
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 8)):
            if rng.random() < 0.5:
                line = rng.choice(lines)
                start = rng.randrange(len(line))
                parts.append(line[start:start + rng.randint(1, 20)])
            else:
                parts.append("".join(rng.choices(odd, k=rng.randint(1, 5))))
        texts.append("".join(parts))
    return texts


def train(text: str, name: str, options: dict, folder: Path) -> Path:
    options = {**COMMON, **options}
    unused = options.pop("unused", False)
    if options.pop("rules", False):
        rules = folder / "rules.tsv"
        code = lambda s: " ".join(f"{ord(c):X}" for c in s)
        rules.write_text("".join(f"{code(a)}\t{code(b)}\n" for a, b in RULES), encoding="utf-8")
        options["normalization_rule_tsv"] = str(rules)
    prefix = folder / name
    sentencepiece.SentencePieceTrainer.train(input=text, model_prefix=str(prefix), **options)
    model = prefix.with_suffix(".model")
    parsed = proto.ModelProto.FromString(model.read_bytes())
    parsed.trainer_spec.ClearField("input")  # a path of this machine
    parsed.trainer_spec.ClearField("model_prefix")
    parsed.normalizer_spec.ClearField("normalization_rule_tsv")
    parsed.trainer_spec.ClearField("normalization_rule_tsv") if hasattr(parsed.trainer_spec, "normalization_rule_tsv") else None
    if unused:
        normal = [p for p in parsed.pieces if p.type == 1 and len(p.piece) > 2]
        for piece in normal[::3]:
            piece.type = 5
    model.write_bytes(parsed.SerializeToString())
    return model


def main() -> None:
    text, out = sys.argv[1], Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    lines = [line for line in Path(text).read_text(encoding="utf-8").splitlines() if line.strip()]
    for seed, (name, options) in enumerate(MODELS.items()):
        with tempfile.TemporaryDirectory() as folder:
            model = train(text, name, options, Path(folder))
            (out / f"{name}.model").write_bytes(model.read_bytes())
        processor = sentencepiece.SentencePieceProcessor(model_file=str(out / f"{name}.model"))
        cases = []
        for text_ in TRICKY + fuzz(seed, lines, 60):
            ids = processor.encode(text_)
            words = [i for i in ids if not processor.is_unknown(i)]
            cases.append({"text": text_, "ids": ids, "decoded": processor.decode(words)})
        rows = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases)
        (out / f"{name}.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
