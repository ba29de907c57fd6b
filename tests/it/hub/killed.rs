//! A kill or Ctrl-C in the middle of a download: the next run goes on and ends with the right file.

use super::*;

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Starts a run and waits until so many bytes of the file have arrived.
fn begun(project: &Project, part: &Path, bytes: u64) -> Child {
    let mut command = project.command(&["run", "pipelines/x.yaml", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while fs::metadata(part).map_or(0, |meta| meta.len()) < bytes.max(1) {
        assert!(Instant::now() < until && child.try_wait().unwrap().is_none(), "the download did not get far");
        thread::sleep(Duration::from_millis(1));
    }
    child
}

/// Kills run after run, each at another byte, and lets the last one finish.
fn kill_at(project: &Project, part: &Path, on: &str, bytes: &[u8]) {
    let mut far = 0;
    for at in [1, 2_000, 30_001, 70_000, 99_999] {
        project.server.heal();
        project.server.fault(on, 1, Fault::Slow(1000, 2));
        let mut child = begun(project, part, at);
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        let now = fs::metadata(part).unwrap().len();
        assert!(now >= far && now < bytes.len() as u64, "{now} after {far}");
        assert!(fs::read(part).unwrap() == bytes[..now as usize], "it is no beginning of the file");
        far = now;
        assert!(!project.lock().exists(), "what is not whole must not be in the lock");
    }
    project.server.heal();
    project.server.log();
    project.fetched(&[]);
    let log = project.server.log();
    let ranges: Vec<_> = log.iter().filter(|r| r.method == "GET").filter_map(|r| r.header("range")).collect();
    assert!(ranges.contains(&format!("bytes={far}-").as_str()), "{ranges:?}");
    assert!(!part.exists());
}

#[test]
fn a_plain_file_is_gone_on_with() {
    let bytes = noise(11, 150_000);
    let project = Project::new("HUB/files/a.bin");
    let url = project.server.file("a.bin", &bytes, &[("ETag", "\"1\"")]);
    let folder = project.root.join("cache/downloads").join(&Digest::of(url.as_bytes()).as_str()[..32]);
    kill_at(&project, &folder.join("part"), "a.bin", &bytes);
    assert!(fs::read(project.result()).unwrap() == bytes);
}

#[test]
fn a_model_is_gone_on_with() {
    let project = Project::new("hf://own/model");
    let files = BTreeMap::from([("config.json", b"{}".to_vec()), ("model.safetensors", noise(12, 150_000))]);
    commit(&project.server, "models/own/model", &files);
    let shard = sha256(&files["model.safetensors"]);
    let part = project.hub_cache().join(format!("models--own--model/blobs/{shard}.incomplete"));
    kill_at(&project, &part, &format!("/lfs/{shard}"), &files["model.safetensors"]);
    holds(&project.result(), &files, &["config.json", "model.safetensors"]);
}

#[test]
fn ctrl_c_stops_a_slow_body_at_once() {
    let bytes = noise(13, 100_000);
    let project = Project::new("HUB/files/a.bin");
    let url = project.server.file("a.bin", &bytes, &[("ETag", "\"1\"")]);
    let part = project.root.join("cache/downloads").join(&Digest::of(url.as_bytes()).as_str()[..32]).join("part");
    // The second piece would come in a minute.
    project.server.fault("a.bin", 1, Fault::Slow(50_000, 60_000));
    let child = begun(&project, &part, 50_000);
    let started = Instant::now();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", told(&output));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(!told(&output).contains("step_failed") && !project.lock().exists(), "{}", told(&output));
    project.server.log();
    assert!(fs::read(project.fetched(&[])).unwrap() == bytes);
    assert_eq!(project.server.log()[0].header("range"), Some("bytes=50000-"));
}

#[test]
fn two_processes_fetch_once() {
    let project = Project::new("hf://own/model");
    let files = model();
    commit(&project.server, "models/own/model", &files);
    let shard = sha256(&files["model-00001-of-00002.safetensors"]);
    project.server.fault(&format!("/lfs/{shard}"), 1, Fault::Slow(30_000, 100));
    let children: Vec<Child> = (0..2)
        .map(|i| {
            let cache = format!("cache{i}");
            let mut command = project.command(&["run", "pipelines/x.yaml", "--json", "--cache", &cache]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut words = String::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
        words.push_str(&told(&output));
    }
    assert!(words.contains("another process fetches hf://own/model: model-00001"), "{words}");
    let gets = project.server.log().into_iter().filter(|r| r.method == "GET" && r.path.contains(&shard)).count();
    assert_eq!(gets, 1);
    for i in 0..2 {
        holds(&fs::canonicalize(project.root.join(format!("cache{i}/results/x/it/file"))).unwrap(), &files, &NEEDED);
    }
}
