//! `pipe export` through the binary: what comes out can be read again, what would lose something is refused, and a
//! folder appears whole or not at all. It does not know how adapters compute.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pipe::ml::adapters::{Arm, Base};
use pipe::ml::models::{Input, Model, load};
use pipe::ml::weights::{fingerprint, read_file, write_file};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::ml_laws::{DORA, IA3, IA3_OUT, LORA, MLP, REGEX, checkpoint, configs, trained};

/// A base and adapters on it, in one folder.
struct Desk {
    folder: tempfile::TempDir,
    model: Box<dyn Model>,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("base");
        fs::create_dir(&base).unwrap();
        checkpoint(&configs()[0], &base);
        let model = load(&base, Device::Cpu, Kind::Float).unwrap();
        Self { folder, model }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn adapter(&self, name: &str, yaml: &str) {
        let print = fingerprint(&self.path("base")).unwrap();
        let base = Base { name: "base", fingerprint: Some(print.as_str()) };
        trained(yaml, self.model.as_ref()).save(&self.path(name), base).unwrap();
    }

    /// Exit code, stdout, stderr.
    fn export(&self, args: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_pipe"))
            .arg("export")
            .args(args)
            .args(["--device", "cpu"])
            .current_dir(self.folder.path())
            .env("NO_COLOR", "1")
            .output()
            .expect("running pipe");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
    }

    fn logits(&self, arm: &Arm) -> Tensor {
        logits(self.model.as_ref(), arm)
    }

    fn arm(&self, name: &str) -> Arm {
        Arm::load(&self.path(name), self.model.as_ref()).unwrap_or_else(|e| panic!("{e}"))
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn logits(model: &dyn Model, arm: &Arm) -> Tensor {
    let ids = Tensor::from_slice(&[1_i64, 5, 9, 40, 0, 7]).unsqueeze(0);
    tch::no_grad(|| model.logits(&model.hidden(&Input::of(&ids), arm, None)))
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn each_way_of_adapting_goes_where_a_format_has_a_word_for_it() {
    let desk = Desk::new();
    let both = format!("{LORA}\n{MLP}");
    let apart = format!("{REGEX}\n{MLP}");
    let named = [("lora", LORA), ("dora", DORA), ("ia3", IA3), ("ia3_out", IA3_OUT), ("mlp", MLP)];
    for (name, yaml) in named.into_iter().chain([("both", both.as_str()), ("apart", apart.as_str())]) {
        desk.adapter(name, yaml);
        for (format, refused) in [
            (
                "peft",
                match name {
                    "mlp" => Some("no bottleneck"),
                    "both" | "apart" => Some("several kinds"),
                    _ => None,
                },
            ),
            (
                "adapterhub",
                match name {
                    "dora" => Some("DoRA"),
                    "ia3" => Some("scales what a projection gives"),
                    "apart" => Some("o_proj"),
                    _ => None,
                },
            ),
        ] {
            let output = format!("{name}.{format}");
            // Its own side-car tells the base.
            let (code, stdout, told) = desk.export(&[name, "--format", format, "-o", &output]);
            match refused {
                None => {
                    assert_eq!((code, stdout.trim()), (0, output.as_str()), "{told}");
                    let (before, after) = (desk.arm(name), desk.arm(&output));
                    assert!(desk.logits(&before).equal(&desk.logits(&after)), "{output}");
                    assert_eq!(after.base(), before.base());
                    assert_eq!(before.describe(), after.describe());
                }
                Some(reason) => {
                    assert_eq!(code, 1, "{told}");
                    assert!(told.contains("would lose something") && told.contains(reason), "{output}: {told}");
                    assert!(!desk.path(&output).exists());
                }
            }
        }
    }
    assert!(desk.names().iter().all(|name| !name.starts_with('.')), "{:?}", desk.names());
}

#[test]
fn peft_files_have_the_minimal_fields() {
    let desk = Desk::new();
    let fields = |name: &str, yaml: &str| {
        desk.adapter(name, yaml);
        let config = json_of(&desk.path(name).join("adapter_config.json"));
        config.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    let lora = [
        "base_model_name_or_path",
        "bias",
        "lora_alpha",
        "lora_dropout",
        "peft_type",
        "r",
        "target_modules",
        "task_type",
    ];
    assert_eq!(fields("plain", "lora: { rank: 2 }"), lora);
    let ia3 = ["base_model_name_or_path", "feedforward_modules", "peft_type", "target_modules", "task_type"];
    assert_eq!(fields("ia3", IA3), ia3);
}

#[test]
fn a_merge_is_certified_and_kept_only_if_it_is_good() {
    let desk = Desk::new();
    desk.adapter("lora", LORA);
    let (code, stdout, told) = desk.export(&["lora", "--format", "merged", "--base", "base"]);
    assert_eq!((code, stdout.trim()), (0, "merged"), "{told}");
    for word in ["f32", "bf16", "flips", "drawn ids"] {
        assert!(told.contains(word), "{told}");
    }
    let merged = load(&desk.path("merged"), Device::Cpu, Kind::Float).unwrap();
    let apart = (logits(merged.as_ref(), &Arm::none()) - desk.logits(&desk.arm("lora"))).abs().max().double_value(&[]);
    assert!(apart < 1e-3, "{apart}");
    assert!(desk.path("merged/config.json").exists());
    #[cfg(unix)]
    for file in fs::read_dir(desk.path("merged")).unwrap().map(|entry| entry.unwrap().path()) {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let ordinary = desk.path("ordinary");
        fs::write(&ordinary, "").unwrap();
        assert_eq!(mode(&file), mode(&ordinary), "{}", file.display());
    }

    // A read-only base, as a store has it, gives a folder that its owner may change.
    let config = desk.path("base/config.json");
    let mut read_only = fs::metadata(&config).unwrap().permissions();
    read_only.set_readonly(true);
    fs::set_permissions(&config, read_only).unwrap();
    let (code, _, told) = desk.export(&["lora", "--format", "merged", "--base", "base", "-o", "again"]);
    assert_eq!(code, 0, "{told}");
    assert!(!fs::metadata(desk.path("again/config.json")).unwrap().permissions().readonly());

    // A weak adapter in a narrow base: what it adds lies below the last bit.
    desk.adapter("weak", &LORA.replace("alpha: 7", "alpha: 0.001"));
    let tensors = read_file(&desk.path("base/model.safetensors"), None, Device::Cpu).unwrap();
    fs::create_dir(desk.path("narrow")).unwrap();
    let narrow: Vec<_> = tensors.into_iter().map(|(name, tensor)| (name, tensor.to_kind(Kind::BFloat16))).collect();
    write_file(&desk.path("narrow/model.safetensors"), &narrow).unwrap();
    fs::copy(desk.path("base/config.json"), desk.path("narrow/config.json")).unwrap();
    fs::remove_file(desk.path("weak/pipe_adapter.json")).unwrap();
    let merge =
        |more: &[&str]| desk.export(&[&["weak", "--format", "merged", "--base", "narrow", "-o", "out"], more].concat());
    let (code, stdout, told) = merge(&[]);
    assert_eq!((code, stdout.as_str()), (1, ""), "{told}");
    assert!(told.contains("loses") && told.contains("--dtype f32") && !desk.path("out").exists(), "{told}");
    assert!(desk.names().iter().all(|name| !name.starts_with('.')), "{:?}", desk.names());
    let (code, _, told) = merge(&["--dtype", "f32"]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(json_of(&desk.path("out/config.json"))["torch_dtype"], "float32");
}

#[test]
fn a_merge_that_cannot_be_is_refused_before_it_begins() {
    let desk = Desk::new();
    desk.adapter("mlp", MLP);
    let (code, _, told) = desk.export(&["mlp", "--format", "merged", "--base", "base"]);
    assert!(code == 1 && told.contains("not linear") && told.contains("--format adapterhub"), "{told}");

    desk.adapter("lora", LORA);
    let (code, _, told) = desk.export(&["lora", "--format", "merged"]);
    assert!(code == 1 && told.contains("--base"), "{told}");

    // Another base of the same shape.
    fs::create_dir(desk.path("other")).unwrap();
    fs::copy(desk.path("base/config.json"), desk.path("other/config.json")).unwrap();
    let tensors = read_file(&desk.path("base/model.safetensors"), None, Device::Cpu).unwrap();
    let other: Vec<_> = tensors.into_iter().map(|(name, tensor)| (name, tensor + 0.01)).collect();
    write_file(&desk.path("other/model.safetensors"), &other).unwrap();
    for format in ["merged", "peft", "adapterhub"] {
        let (code, _, told) = desk.export(&["lora", "--format", format, "--base", "other", "-o", "x"]);
        assert!(code == 1 && told.contains("trained on another base") && !desk.path("x").exists(), "{told}");
    }
}

#[test]
fn what_is_asked_wrongly_is_told_and_nothing_is_touched() {
    let desk = Desk::new();
    desk.adapter("lora", LORA);
    fs::create_dir(desk.path("full")).unwrap();
    fs::write(desk.path("full/keep"), "").unwrap();
    let refused = |args: &[&str], code: i32, words: &str| {
        let (found, stdout, told) = desk.export(args);
        assert_eq!((found, stdout.as_str()), (code, ""), "{told}");
        assert!(told.contains(words), "{told}");
    };
    refused(&["lora", "--format", "peft", "-o", "full"], 1, "is there already");
    assert!(desk.path("full/keep").exists());
    refused(&["lora", "--format", "onnx"], 2, "possible values");
    refused(&["nowhere", "--format", "peft"], 1, "no adapter_config.json");
    refused(&["lora", "--format", "peft", "--dtype", "f32"], 1, "--format merged");
    refused(&["lora", "--format", "merged", "--base", "base", "--max-flips", "2"], 1, "--max-flips");
    refused(&["lora", "--format", "merged", "--base", "base", "--probes", "full/keep"], 1, "tokenizer.json");
    fs::remove_file(desk.path("lora/pipe_adapter.json")).unwrap();
    refused(&["lora", "--format", "adapterhub"], 1, "--base");
    // The base's configuration is enough for a conversion.
    fs::create_dir(desk.path("config")).unwrap();
    fs::copy(desk.path("base/config.json"), desk.path("config/config.json")).unwrap();
    let (code, _, told) = desk.export(&["lora", "--format", "adapterhub", "--base", "config", "-o", "hub"]);
    assert_eq!(code, 0, "{told}");
    let config = json_of(&desk.path("hub/adapter_config.json"));
    assert_eq!(
        config.pointer("/config/intermediate_lora"),
        Some(&json!(true)),
        "down_proj is AdapterHub's intermediate"
    );
    assert_eq!(config.pointer("/config/leave_out"), Some(&json!([0])));
    assert_eq!(config.pointer("/config/attn_matrices"), Some(&json!(["q", "v"])));
}
