//! The two commands on a fresh machine: what is missing is said in one sentence, and a download survives being cut.
//! It does not touch the network, nor build anything.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::JoinHandle;

use sha2::{Digest, Sha256};

use crate::support::repository;

/// A copy of the wrapper in a folder with an awkward name, and a `PATH` that holds only what a test puts there.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    /// A machine with everything but libtorch and Python.
    fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        fs::create_dir_all(machine.root().join(".cargo")).expect("a folder");
        fs::create_dir_all(machine.bin()).expect("a folder");
        for file in ["pipe", "Cargo.toml", ".cargo/prerequisites.sh", ".cargo/libtorch.py", ".cargo/libtorch.lock"] {
            fs::copy(repository().join(file), machine.root().join(file)).expect(file);
        }
        for tool in ["sh", "sed", "sort", "head", "cat", "find", "readlink", "dirname", "mkdir", "rm"] {
            let real = which(tool).expect(tool);
            std::os::unix::fs::symlink(real, machine.bin().join(tool)).expect("a link");
        }
        machine.fake("rustc", "echo 'rustc 1.95.0 (59807616e 2026-04-14)'");
        machine.fake("c++", "");
        machine.fake("cc", "");
        // A cargo whose build is this binary: it tells where it runs and with which arguments.
        fs::create_dir_all(machine.root().join("src")).expect("a folder");
        for file in ["build.rs", "Cargo.lock", "src/lib.rs"] {
            fs::write(machine.root().join(file), "").expect(file);
        }
        let built = machine.root().join("собранное");
        fs::write(&built, "#!/bin/sh\npwd\nprintf '<%s>' \"$@\"\n").expect("a script");
        executable(&built);
        machine.fake(
            "cargo",
            &format!("test -f Cargo.toml || exit 9\nprintf '%s\\n' '{{\"reason\":\"compiler-artifact\",\"executable\":\"{}\",\"fresh\":true}}'", built.display()),
        );
        machine
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("мой проект")
    }

    fn bin(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    fn fake(&self, name: &str, script: &str) {
        let path = self.bin().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
        executable(&path);
    }

    fn without(self, name: &str) -> Self {
        fs::remove_file(self.bin().join(name)).expect(name);
        self
    }

    fn with_libtorch(self) -> Self {
        fs::create_dir_all(self.root().join(".libtorch/lib")).expect("a folder");
        fs::write(self.root().join(".libtorch/lib/libtorch.so"), "INPUT(libtorch_cpu.so)\n").expect("a file");
        fs::write(self.root().join(".libtorch/build-version"), "2.11.0\n").expect("a file");
        self
    }

    fn pipe(&self, arguments: &[&str]) -> Output {
        let elsewhere = self.folder.path().join("else where");
        fs::create_dir_all(&elsewhere).expect("a folder");
        let mut command = Command::new(self.root().join("pipe"));
        command.args(arguments).current_dir(elsewhere).env_clear().env("PATH", self.bin());
        command.output().expect("the wrapper starts")
    }
}

fn executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permissions");
}

fn which(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(tool)).find(|file| file.is_file())
}

/// The Python script, or `None`, with a word, where there is no Python.
fn libtorch_py() -> Option<Command> {
    let Some(python) = which("python3") else {
        eprintln!("skipped: python3 is not there");
        return None;
    };
    let mut command = Command::new(python);
    command.arg(repository().join(".cargo/libtorch.py"));
    for chosen in ["LIBTORCH", "LIBTORCH_USE_PYTORCH", "HTTP_PROXY", "http_proxy"] {
        command.env_remove(chosen);
    }
    Some(command)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Fails, with one line on stderr that holds each of `words`.
fn says(output: &Output, words: &[&str]) {
    let told = stderr(output);
    assert!(!output.status.success(), "it should have failed: {told}");
    assert_eq!(told.trim_end().lines().count(), 1, "one sentence is enough:\n{told}");
    for word in words {
        assert!(told.contains(word), "`{word}` is not said: {told}");
    }
}

#[test]
fn each_missing_prerequisite_is_one_sentence() {
    says(&Machine::new().without("cargo").pipe(&[]), &["cargo is not there", "https://rustup.rs"]);
    says(&Machine::new().without("rustc").pipe(&[]), &["rustc is not there", "https://rustup.rs"]);
    says(&Machine::new().without("c++").pipe(&[]), &["c++ is not there", "apt install g++"]);
    says(&Machine::new().without("cc").pipe(&[]), &["cc is not there", "apt install gcc"]);
    says(&Machine::new().pipe(&[]), &["python3 is not there", "apt install python3"]);
    let old = Machine::new();
    old.fake("rustc", "echo 'rustc 1.88.0 (6b00bc388 2025-06-23)'");
    says(&old.pipe(&[]), &["1.88.0", "1.89", "rustup update"]);
}

#[test]
fn arguments_and_the_folder_of_the_caller_reach_the_binary() {
    let output = Machine::new().with_libtorch().pipe(&["run", "мой файл.yaml", "--set", "a=*"]);
    let out = String::from_utf8(output.stdout.clone()).expect("text");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(out.lines().next().is_some_and(|folder| folder.ends_with("else where")), "{out}");
    assert!(out.ends_with("<run><мой файл.yaml><--set><a=*>"), "{out}");
    assert_eq!(stderr(&output), "", "a build that does nothing says nothing");
}

#[test]
fn it_can_be_called_through_links_and_by_its_name() {
    let machine = Machine::new().with_libtorch();
    let elsewhere = machine.folder.path().join("else where");
    fs::create_dir_all(&elsewhere).expect("a folder");
    let link = |from: &Path, to: &Path| std::os::unix::fs::symlink(from, to).expect("a link");
    link(Path::new("../мой проект/pipe"), &elsewhere.join("ссылка"));
    link(&elsewhere.join("ссылка"), &machine.bin().join("pipe"));
    for name in ["./ссылка", "pipe"] {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("{name} plan 'мой файл.yaml'")]);
        let output = command.current_dir(&elsewhere).env_clear().env("PATH", machine.bin()).output().expect("sh");
        let out = String::from_utf8(output.stdout.clone()).expect("text");
        assert!(output.status.success() && stderr(&output).is_empty(), "{name}: {}", stderr(&output));
        assert!(out.contains("else where\n<plan><мой файл.yaml>"), "{name}: {out}");
    }
}

/// From nothing: libtorch from a local index, a build, the run, all in a folder with a space and Cyrillic letters.
#[test]
fn from_nothing_to_a_run_in_a_folder_with_an_awkward_name() {
    let (Some(python), machine) = (which("python3"), Machine::new()) else {
        eprintln!("skipped: python3 is not there");
        return;
    };
    // What is called python3 may be a script of some version manager, which needs more than is on this `PATH`.
    let itself = Command::new(python).args(["-c", "import sys; print(sys.executable)"]).output().expect("python");
    let itself = String::from_utf8(itself.stdout).expect("a path");
    machine.fake("python3", &format!("exec '{}' \"$@\"", itself.trim()));
    // pip itself parts `PIP_FIND_LINKS` at spaces.
    let wheels = machine.folder.path().join("колёса");
    fs::create_dir(&wheels).expect("a folder");
    fs::copy(index(&wheels, None), machine.root().join(".cargo/libtorch.lock")).expect("a lock");
    let run = || {
        let mut command = Command::new(machine.root().join("pipe"));
        command.arg("--version").current_dir(&wheels).env_clear().env("PATH", machine.bin());
        command.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", &wheels).env("PYTHONNOUSERSITE", "1");
        command.output().expect("the wrapper starts")
    };
    let output = run();
    assert!(output.status.success(), "{}", stderr(&output));
    let into = machine.root().join(".libtorch");
    assert_eq!(fs::read_to_string(into.join("build-version")).expect("there"), "2.11.0\n");
    assert!(into.join("lib/libtorch.so").exists() && into.join("include/ATen").is_dir());
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("<--version>"));
    let again = run();
    assert!(again.status.success() && again.stderr.is_empty(), "{}", stderr(&again));
}

#[test]
fn a_libtorch_of_another_version_is_got_anew() {
    let machine = Machine::new().with_libtorch();
    fs::write(machine.root().join(".libtorch/build-version"), "2.10.0\n").expect("a file");
    says(&machine.pipe(&[]), &["python3 is not there"]);
}

/// Asking cargo takes longer than most commands do.
#[test]
fn cargo_is_asked_only_when_something_changed() {
    let machine = Machine::new().with_libtorch();
    let asked = machine.folder.path().join("asked");
    let cargo = fs::read_to_string(machine.bin().join("cargo")).expect("a script");
    machine.fake("cargo", &format!("echo >>'{}'\n{cargo}", asked.display()));
    let builds = || fs::read_to_string(&asked).map_or(0, |text| text.lines().count());
    let run = |expected: usize, why: &str| {
        let output = machine.pipe(&["--version"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{why}: {}", stderr(&output));
        assert!(String::from_utf8_lossy(&output.stdout).ends_with("<--version>"), "{why}");
        assert_eq!(builds(), expected, "{why}");
    };
    run(2, "with libtorch, and without it");
    run(2, "nothing changed");
    // The clock of the file system may not tell this write from the one that is remembered.
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    let source = fs::File::create(machine.root().join("src/lib.rs")).expect("a file");
    source.set_modified(later).expect("a time");
    run(4, "a source changed");
    source.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("a time");
    run(4, "nothing is newer than that build");
    fs::remove_dir_all(machine.root().join("target")).expect("a folder");
    run(6, "what is remembered is gone");
    fs::remove_file(machine.root().join(".libtorch/lib/libtorch.so")).expect("a file");
    says(&machine.pipe(&["--version"]), &["python3 is not there"]);
}

#[test]
fn a_failed_build_fails() {
    let machine = Machine::new().with_libtorch();
    machine.fake("cargo", "exit 101");
    says(&machine.pipe(&["--version"]), &["the build failed"]);
}

#[test]
fn every_place_names_one_version() {
    let lock = fs::read_to_string(repository().join("Cargo.lock")).expect("Cargo.lock");
    assert!(lock.contains("name = \"torch-sys\"\nversion = \"0.24.0\""), "another tch needs another libtorch");
    for file in [".cargo/libtorch.py", ".cargo/libtorch.lock", ".cargo/prerequisites.sh"] {
        let text = fs::read_to_string(repository().join(file)).expect(file);
        assert!(text.contains("2.11.0"), "{file} is about another libtorch");
    }
}

#[test]
fn a_chosen_libtorch_is_respected_if_it_is_the_right_one() {
    let Some(mut command) = libtorch_py() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let into = folder.path().join("into");
    command.arg("get").arg("--into").arg(&into);
    says(&command.env("LIBTORCH", "vendor/torch").output().expect("python"), &["vendor/torch", "whole path"]);
    says(&command.env("LIBTORCH", folder.path()).output().expect("python"), &["`include` and `lib`"]);
    for part in ["include", "lib"] {
        fs::create_dir(folder.path().join(part)).expect("a folder");
    }
    fs::write(folder.path().join("build-version"), "2.4.1+cpu\n").expect("a file");
    says(&command.output().expect("python"), &["2.4.1", "2.11.0"]);
    fs::write(folder.path().join("build-version"), "2.11.0+cpu\n").expect("a file");
    assert!(command.output().expect("python").status.success());
    assert!(!into.exists(), "nothing is fetched beside it");
}

/// Makes Python find a PyTorch of this version in `site`; its library can be loaded if there is a C compiler.
fn install(site: &Path, version: &str, loadable: bool) -> bool {
    let info = site.join(format!("torch-{version}.dist-info"));
    for folder in [&info, &site.join("torch/include/ATen"), &site.join("torch/lib")] {
        fs::create_dir_all(folder).expect("a folder");
    }
    fs::write(info.join("METADATA"), format!("Metadata-Version: 2.1\nName: torch\nVersion: {version}\n"))
        .expect("a file");
    fs::write(site.join("torch/__init__.py"), "raise RuntimeError('imported')\n").expect("a file");
    let library = site.join("torch/lib/libtorch.so");
    if !loadable {
        fs::write(library, "not a library").expect("a file");
        return true;
    }
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-x", "c", "/dev/null", "-o"]).arg(library);
    let built = cc.status().is_ok_and(|status| status.success());
    if !built {
        eprintln!("skipped: cc is not there");
    }
    built
}

#[test]
fn use_pytorch_wants_the_right_one() {
    let Some(mut command) = libtorch_py() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (site, into) = (folder.path().join("мои пакеты"), folder.path().join("into"));
    command.arg("get").arg("--into").arg(&into).env("PYTHONPATH", &site).env("LIBTORCH_USE_PYTORCH", "1");
    install(&site, "2.4.1", false);
    says(&command.output().expect("python"), &["2.4.1 installed", "pip install torch==2.11.0", "unset it"]);
    fs::remove_dir_all(&site).expect("removed");
    install(&site, "2.11.0+cpu", false);
    let output = command.output().expect("python");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
    assert!(!into.exists(), "nothing is fetched beside it");
}

#[test]
fn an_installed_pytorch_is_taken_if_it_can_be_loaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let (site, into) = (folder.path().join("мои пакеты"), folder.path().join("into"));
    let lock = index(folder.path(), None);
    let get = || {
        let mut command = libtorch_py()?;
        command.args(["get", "--part", "cpu", "--into"]).arg(&into).arg("--lock").arg(&lock);
        command.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", folder.path()).env("PYTHONPATH", &site);
        Some(command.output().expect("python"))
    };
    if !install(&site, "2.11.0", true) {
        return;
    }
    let Some(output) = get() else { return };
    assert!(output.status.success() && stderr(&output).contains("the installed PyTorch"), "{}", stderr(&output));
    assert_eq!(fs::read_link(into.join("lib")).expect("a link"), site.join("torch/lib").canonicalize().expect("there"));
    assert_eq!(fs::read_to_string(into.join("build-version")).expect("there"), "2.11.0\n");

    // One that is gone, or that cannot be loaded, is not used: the wheel is taken.
    install(&site, "2.11.0", false);
    fs::remove_dir_all(site.join("torch/lib")).expect("removed");
    fs::create_dir(site.join("torch/lib")).expect("a folder");
    fs::write(site.join("torch/lib/libtorch_cpu.so"), "").expect("a file");
    let output = get().expect("python");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!into.join("lib").is_symlink() && stderr(&output).contains("unpacking"), "{}", stderr(&output));
}

/// What a server does with each connection in turn.
#[derive(Clone, Copy)]
enum Answer {
    /// The asked range, cut after so many bytes.
    Cut(usize),
    /// The asked range to its end.
    Rest,
    /// Everything, whatever was asked.
    Whole,
    /// So many bytes, and then nothing until the caller is gone.
    Stall(usize),
}

/// Serves `body`; joined, it tells the `Range` of each request.
fn serve(body: Vec<u8>, answers: Vec<Answer>) -> (String, JoinHandle<Vec<Option<usize>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/torch.whl", listener.local_addr().expect("an address"));
    let thread = std::thread::spawn(move || {
        answers.into_iter().map(|answer| reply(listener.accept().expect("a connection").0, &body, answer)).collect()
    });
    (url, thread)
}

fn reply(mut stream: TcpStream, body: &[u8], answer: Answer) -> Option<usize> {
    let request = BufReader::new(stream.try_clone().expect("a stream"));
    let lines = request.lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let from = lines
        .filter_map(|line| line.to_lowercase().strip_prefix("range: bytes=")?.trim_end_matches('-').parse().ok())
        .next();
    let start = if matches!(answer, Answer::Whole) { 0 } else { from.unwrap_or(0) };
    let end = if let Answer::Cut(bytes) | Answer::Stall(bytes) = answer { start + bytes } else { body.len() };
    let head = match (answer, from) {
        (Answer::Whole, _) | (_, None) => "200 OK".to_owned(),
        _ => format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{}", body.len() - 1, body.len()),
    };
    let length = body.len() - start;
    write!(stream, "HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").expect("a head");
    stream.write_all(&body[start..end]).expect("a body");
    if matches!(answer, Answer::Stall(_)) {
        let _ = stream.read(&mut [0]);
    }
    from
}

fn body() -> Vec<u8> {
    (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Downloads from `answers` into `file`; what was said, and the ranges asked for.
fn fetch(file: &Path, answers: Vec<Answer>, sha256: &str) -> Option<(Output, Vec<Option<usize>>)> {
    let mut command = libtorch_py()?;
    let (url, server) = serve(body(), answers);
    command.arg("fetch").arg(url).arg(file).args(["--sha256", sha256, "--size", &body().len().to_string()]);
    let output = command.output().expect("python");
    Some((output, server.join().expect("the server")))
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("torch.whl");
    let answers = vec![Answer::Cut(100_000), Answer::Cut(50_000), Answer::Rest];
    let Some((output, ranges)) = fetch(&file, answers, &sha256(&body())) else { return };
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(ranges, [None, Some(100_000), Some(150_000)]);
    assert_eq!(fs::read(&file).expect("the file"), body());
}

#[test]
fn a_download_that_is_killed_in_the_middle_goes_on() {
    let Some(mut command) = libtorch_py() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (file, part) = (folder.path().join("torch.whl"), folder.path().join("torch.whl.part"));
    let body: Vec<u8> = body().into_iter().cycle().take(5 << 20).collect();
    let (url, server) = serve(body.clone(), vec![Answer::Stall(3_500_000), Answer::Rest]);
    command.arg("fetch").arg(url).arg(&file).args(["--sha256", &sha256(&body), "--size", &body.len().to_string()]);
    let mut first = command.stderr(std::process::Stdio::null()).spawn().expect("python");
    let begun = std::time::Instant::now();
    while fs::metadata(&part).map_or(0, |meta| meta.len()) < 3 << 20 {
        assert!(begun.elapsed().as_secs() < 30, "nothing comes");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    first.kill().expect("killed");
    first.wait().expect("gone");
    assert!(!file.exists());
    let second = command.output().expect("python");
    assert!(second.status.success(), "{}", stderr(&second));
    assert_eq!(server.join().expect("the server"), [None, Some(3 << 20)]);
    assert!(fs::read(&file).expect("the file") == body && !part.exists());
}

#[test]
fn what_an_earlier_command_left_is_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("torch.whl");
    fs::write(folder.path().join("torch.whl.part"), &body()[..123_456]).expect("a part");
    let Some((output, ranges)) = fetch(&file, vec![Answer::Rest], &sha256(&body())) else { return };
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(ranges, [Some(123_456)]);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "no part is left");
}

#[test]
fn a_server_without_ranges_begins_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("torch.whl");
    fs::write(folder.path().join("torch.whl.part"), &body()[..1000]).expect("a part");
    let Some((output, _)) = fetch(&file, vec![Answer::Whole], &sha256(&body())) else { return };
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(fs::read(&file).expect("the file"), body());
}

#[test]
fn a_file_with_another_hash_is_refused_and_thrown_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("torch.whl");
    let Some((output, _)) = fetch(&file, vec![Answer::Rest], &sha256(b"another")) else { return };
    says(&output, &["not the pinned file", &sha256(&body()), &sha256(b"another")]);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

/// A package index of one small wheel in the layout of PyTorch's, and a lock that pins it to `sha256` (its own: `None`).
fn index(folder: &Path, sha256_of: Option<&str>) -> PathBuf {
    let name = format!("torch-2.11.0-cp311-cp311-manylinux_2_28_{}.whl", std::env::consts::ARCH);
    let mut wheel = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (path, text) in [
        ("torch/include/ATen/ATen.h", "header"),
        ("torch/lib/libtorch_cpu.so", "cpu"),
        ("torch/lib/libtorch.so", "asks for cuda"),
        ("torch/lib/libtorch_cuda.so", "cuda"),
        ("torch/lib/libgomp.so.1", "gomp"),
        ("torch/nn/__init__.py", "python"),
        ("torch-2.11.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 2.11.0\n"),
        ("torch-2.11.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\n"),
        ("torch-2.11.0.dist-info/RECORD", ""),
    ] {
        wheel.start_file(path, zip::write::SimpleFileOptions::default()).expect("an entry");
        wheel.write_all(text.as_bytes()).expect("an entry");
    }
    let bytes = wheel.finish().expect("a wheel").into_inner();
    fs::write(folder.join(name), &bytes).expect("a wheel");
    let pinned = sha256_of.map_or_else(|| sha256(&bytes), str::to_owned);
    let lock = folder.join("lock");
    let line = format!("cpu {} torch 2.11.0 {} {pinned}\n", std::env::consts::ARCH, bytes.len());
    fs::write(&lock, line).expect("a lock");
    lock
}

fn get(folder: &Path, lock: &Path) -> Option<Output> {
    let mut command = libtorch_py()?;
    command.args(["get", "--part", "cpu", "--into"]).arg(folder.join("into")).arg("--lock").arg(lock);
    // `-m pip` of the machine, shut off from any network and from a PyTorch that may be installed.
    command.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", folder).env("PYTHONNOUSERSITE", "1");
    Some(command.output().expect("python"))
}

#[test]
fn the_cpu_part_of_the_pinned_wheel_is_put_in_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let lock = index(folder.path(), None);
    let Some(output) = get(folder.path(), &lock) else { return };
    assert!(output.status.success(), "{}", stderr(&output));
    let into = folder.path().join("into");
    let text = |path: &str| fs::read_to_string(into.join(path)).expect(path);
    if into.join("lib").is_symlink() {
        eprintln!("skipped: this Python has PyTorch 2.11.0");
        return;
    }
    assert_eq!(text("build-version"), "2.11.0\n");
    assert_eq!(text("include/ATen/ATen.h"), "header");
    assert_eq!(text("lib/libtorch_cpu.so"), "cpu");
    assert_eq!(text("lib/libtorch.so"), "INPUT(libtorch_cpu.so)\n");
    assert!(!into.join("lib/libtorch_cuda.so").exists() && !into.join("downloads").exists());
    // Ready is ready: the second call needs neither pip nor the wheel, and says nothing.
    fs::remove_file(&lock).expect("the lock");
    let again = get(folder.path(), &lock).expect("python");
    assert!(again.status.success() && again.stderr.is_empty(), "{}", stderr(&again));
}

#[test]
fn a_wheel_with_another_hash_leaves_no_libtorch() {
    let folder = tempfile::tempdir().expect("a folder");
    let lock = index(folder.path(), Some(&sha256(b"another")));
    let Some(output) = get(folder.path(), &lock) else { return };
    if folder.path().join("into/lib").is_symlink() {
        eprintln!("skipped: this Python has PyTorch 2.11.0");
        return;
    }
    assert!(!output.status.success());
    assert!(stderr(&output).contains("not the pinned file"), "{}", stderr(&output));
    assert!(!folder.path().join("into/build-version").exists() && !folder.path().join("into/lib").exists());
}

#[test]
fn a_python_without_pip_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let lock = index(folder.path(), None);
    let Some(mut command) = libtorch_py() else { return };
    fs::create_dir(folder.path().join("pip")).expect("a folder");
    fs::write(folder.path().join("pip/__init__.py"), "").expect("a file");
    command.args(["get", "--part", "cpu", "--into"]).arg(folder.path().join("into")).arg("--lock").arg(lock);
    let output = command.env("PYTHONPATH", folder.path()).output().expect("python");
    if folder.path().join("into/lib").is_symlink() {
        eprintln!("skipped: this Python has PyTorch 2.11.0");
        return;
    }
    assert!(!output.status.success());
    assert!(stderr(&output).contains("pip is not there: install it"), "{}", stderr(&output));
}
