//! The binary without libtorch in front of the one that has it: what it does itself, and what it hands over.
//! It does not compute anything: what stands behind the front is a script.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::data_steps::project;
use crate::engine::command::{stderr, stdout};

/// `pipe-front` with a `pipe` beside it that tells its arguments.
struct Installed(tempfile::TempDir);

impl Installed {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::copy(env!("CARGO_BIN_EXE_pipe"), folder.path().join("pipe-front")).expect("a copy");
        let behind = folder.path().join("pipe");
        fs::write(&behind, "#!/bin/sh\nprintf 'behind'\nprintf '<%s>' \"$@\"\nexit 7\n").expect("a script");
        fs::set_permissions(&behind, fs::Permissions::from_mode(0o755)).expect("permissions");
        Self(folder)
    }

    fn front(&self) -> PathBuf {
        self.0.path().join("pipe-front")
    }

    fn run(&self, root: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.front());
        command.args(arguments).args(["--device", "cpu"]).current_dir(root).env_remove("PIPE_CACHE");
        command.output().expect("the front starts")
    }
}

const COMPUTES: &str = "steps:
  raw: { uses: generate, with: { nerus_train: 3, nerus_dev: 1, nerus_test: 1, terra_train: 2, terra_val: 2, base_nerus: 1, base_terra: 2, text_bytes: 2000 } }
  words: { uses: tokenizer, in: { text: raw.text }, with: { vocab_size: 300 } }
  base: { uses: pretrain, in: { text: raw.text, tokenizer: words }, with: { steps: 1 } }
";

#[test]
fn what_needs_no_libtorch_is_done_in_front() {
    let installed = Installed::new();
    let root = project(&[("p.yaml", b"steps:\n  a: { uses: download, with: { source: 'file:d' } }\n"), ("d", b"text")]);
    let output = installed.run(root.path(), &["run", "p.yaml"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!stdout(&output).contains("behind"));
    let output = installed.run(root.path(), &["plan", "p.yaml"]);
    assert!(stdout(&output).contains("reuse"), "{}", stdout(&output));
}

#[test]
fn what_computes_is_handed_over_whole() {
    let installed = Installed::new();
    let root = project(&[("мой файл.yaml", COMPUTES.as_bytes())]);
    let output = installed.run(root.path(), &["run", "мой файл.yaml", "base"]);
    assert_eq!(stdout(&output), "behind<run><мой файл.yaml><base><--device><cpu>", "{}", stderr(&output));
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(7), ""));
    assert!(!root.path().join("cache").exists(), "nothing was begun here");
    // What its targets do not need does not matter.
    let output = installed.run(root.path(), &["run", "мой файл.yaml", "raw"]);
    assert!(output.status.success() && !stdout(&output).contains("behind"), "{}", stderr(&output));
    // What is measured there is what runs there.
    let output = installed.run(root.path(), &["bench", "мой файл.yaml", "base"]);
    assert_eq!(stdout(&output), "behind<bench><мой файл.yaml><base><--device><cpu>", "{}", stderr(&output));
    // It is planned here: that needs nothing of libtorch where there is no GPU.
    let output = installed.run(root.path(), &["plan", "мой файл.yaml"]);
    assert!(stdout(&output).contains("base"), "{}", stderr(&output));
}

/// What libraries read before any code of ours.
const SETTINGS: [&str; 6] = [
    "GOMP_SPINCOUNT",
    "OMP_WAIT_POLICY",
    "TORCH_CUDNN_SDPA_DEPRIORITIZED",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF",
    "GLIBC_TUNABLES",
];

#[test]
fn settings_of_libraries_are_made_unless_somebody_chose_otherwise() {
    let installed = Installed::new();
    let names = SETTINGS.map(|name| format!("\"${{{name}-none}}\"")).join(" ");
    let told = format!("#!/bin/sh\nprintf '%s|' {names}\n");
    fs::write(installed.0.path().join("pipe"), told).expect("a script");
    let root = project(&[("p.yaml", COMPUTES.as_bytes())]);
    let run = |variables: &[(&str, &str)]| {
        let mut command = Command::new(installed.front());
        command.args(["run", "p.yaml", "base", "--device", "cpu"]).current_dir(root.path());
        for name in ["PIPE_CACHE"].iter().chain(&SETTINGS) {
            command.env_remove(name);
        }
        stdout(&command.envs(variables.iter().copied()).output().expect("the front starts"))
    };
    let memory = "glibc.malloc.mxfast=0:glibc.malloc.tcache_count=0";
    assert_eq!(run(&[]), format!("1000|none|1|expandable_segments:True|none|{memory}|"));
    assert_eq!(run(&[("GOMP_SPINCOUNT", "5")]), format!("5|none|1|expandable_segments:True|none|{memory}|"));
    let told = run(&[("OMP_WAIT_POLICY", "PASSIVE")]);
    assert_eq!(told, format!("none|PASSIVE|1|expandable_segments:True|none|{memory}|"));
    let told = run(&[("TORCH_CUDNN_SDPA_DEPRIORITIZED", "0")]);
    assert_eq!(told, format!("1000|none|0|expandable_segments:True|none|{memory}|"));
    assert_eq!(run(&[("PYTORCH_ALLOC_CONF", "a:1")]), format!("1000|none|1|none|a:1|{memory}|"));
    assert_eq!(run(&[("GLIBC_TUNABLES", "a=1")]), "1000|none|1|expandable_segments:True|none|a=1|");
}

#[test]
fn alone_it_is_a_binary_without_libtorch() {
    let installed = Installed::new();
    fs::remove_file(installed.0.path().join("pipe")).expect("there");
    let root = project(&[("p.yaml", COMPUTES.as_bytes())]);
    let output = installed.run(root.path(), &["run", "p.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("built without libtorch"), "{}", stderr(&output));
}
