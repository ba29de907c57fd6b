//! `pipe.lock`: later runs get the same bytes or fail; and what is known without asking anybody.

use super::*;

fn key_of(output: &Output) -> serde_json::Value {
    let lines = String::from_utf8(output.stdout.clone()).unwrap();
    let event = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    lines.lines().map(event).find(|event| event["key"].is_string()).expect("a key")["key"].clone()
}

#[test]
fn a_later_run_gets_the_same_revision() {
    let project = Project::new("hf://own/model");
    let old = model();
    let first = commit(&project.server, "models/own/model", &old);
    let run = project.run(&[]);
    let key = key_of(&run);
    let mut new = model();
    new.insert("config.json", b"{\"new\": true}".to_vec());
    let second = commit(&project.server, "models/own/model", &new);
    assert_ne!(first, second);

    // On another machine, with nothing but the lock.
    project.forget_fetched();
    project.forget_results();
    project.server.log();
    let again = project.run(&[]);
    assert_eq!(key_of(&again), key);
    holds(&project.result(), &old, &NEEDED);
    assert!(project.server.log().iter().all(|request| !request.path.contains(&second)));

    let lock = fs::read_to_string(project.lock()).unwrap();
    let updated = project.run(&["--update"]);
    assert_ne!(key_of(&updated), key);
    holds(&project.result(), &new, &NEEDED);
    assert_eq!(project.locked("hf://own/model").unwrap().revision.as_deref(), Some(second.as_str()));
    // Without news an update changes nothing, and the step need not run.
    let renewed = fs::read_to_string(project.lock()).unwrap();
    assert!(told(&project.run(&["--update"])).contains("step_reused"));
    assert_eq!(fs::read_to_string(project.lock()).unwrap(), renewed);

    // The old lock brings the old bytes back, from the caches.
    fs::write(project.lock(), lock).unwrap();
    project.server.log();
    let back = project.run(&[]);
    assert!(told(&back).contains("step_reused") && key_of(&back) == key);
    assert!(project.server.log().is_empty());
}

#[test]
fn other_bytes_under_the_same_name_are_refused() {
    let project = Project::new("hf://own/model");
    let commit = commit(&project.server, "models/own/model", &model());
    project.fetched(&[]);
    project.forget_fetched();
    project.forget_results();
    project.server.rewrite(
        "models/own/model",
        &commit,
        "config.json",
        br#"{"model_type": "llama", "hidden_size": 65}"#,
    );
    let refused = project.fails(&[]);
    assert!(refused.contains("hf://own/model: config.json is not what it should be"), "{refused}");
    project.server.rewrite("models/own/model", &commit, "config.json", b"{}");
    let refused = project.fails(&[]);
    assert!(refused.contains("config.json has 2 bytes, and pipe.lock says 42"), "{refused}");

    let project = Project::new("HUB/files/a.txt");
    let url = project.server.file("a.txt", b"old", &[("ETag", "\"1\"")]);
    let key = key_of(&project.run(&[]));
    project.server.file("a.txt", b"new", &[("ETag", "\"2\"")]);
    // As long as the old bytes are here, nobody is asked.
    project.forget_results();
    assert_eq!(fs::read(project.fetched(&[])).unwrap(), b"old");
    project.forget_results();
    project.forget_fetched();
    let refused = project.fails(&[]);
    assert!(
        refused.contains(&format!("{url} is not what pipe.lock says: its sha256 is {}", sha256(b"new"))),
        "{refused}"
    );
    assert!(refused.contains("to take the new one, run with --update"), "{refused}");
    let updated = project.run(&["--update"]);
    assert_ne!(key_of(&updated), key);
    assert_eq!(fs::read(project.result()).unwrap(), b"new");
    // What is unchanged on the server is not sent again.
    project.server.log();
    project.fetched(&["--update"]);
    let log = project.server.log();
    assert_eq!((log.len(), log[0].header("if-none-match")), (1, Some("\"2\"")));
}

#[test]
fn where_a_source_lies_is_not_in_the_key() {
    let project = Project::new("HUB/files/a.txt");
    project.server.file("a.txt", b"text", &[]);
    project.server.file("b.txt", b"text", &[]);
    let key = key_of(&project.run(&[]));
    let other = format!("source={}/files/b.txt", project.server.endpoint());
    let run = project.run(&["--set", &other]);
    assert!(key_of(&run) == key && told(&run).contains("step_reused"), "{}", told(&run));
    fs::write(project.root.join("here.txt"), "text").unwrap();
    let run = project.run(&["--set", "source=here.txt"]);
    assert!(key_of(&run) == key && told(&run).contains("step_reused"), "{}", told(&run));
    // Both stay in the lock: going back and forth asks nobody.
    project.server.log();
    project.fetched(&[]);
    project.fetched(&["--set", &other]);
    assert!(project.server.log().is_empty());
    assert!(project.locked("HUB/files/a.txt").is_some() && project.locked("HUB/files/b.txt").is_some());
}

#[test]
fn pipelines_of_one_folder_share_the_lock() {
    let project = Project::new("HUB/files/a.txt");
    project.write("y", "HUB/files/a.txt", "");
    project.server.file("a.txt", b"old", &[]);
    project.fetched(&[]);
    project.server.file("a.txt", b"new", &[]);
    project.server.log();
    let output = project.pipe(&["run", "pipelines/y.yaml", "--json"]);
    assert!(told(&output).contains("step_reused"), "{}", told(&output));
    assert!(project.server.log().is_empty());
}

#[test]
fn a_plan_asks_nobody_and_writes_nothing() {
    let project = Project::new("hf://own/model");
    commit(&project.server, "models/own/model", &model());
    let text = fs::read_to_string(project.root.join("pipelines/x.yaml")).unwrap();
    let more = "  next: { uses: tokenizer, in: { text: [it] } }\n";
    fs::write(project.root.join("pipelines/x.yaml"), format!("{text}{more}")).unwrap();
    let plan = |more: &[&str]| {
        let output = project.pipe(&[&["plan", "pipelines/x.yaml"], more].concat());
        assert!(output.status.success(), "{}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let words = plan(&[]);
    assert_eq!(
        words,
        "run      it    hf://own/model is not in pipe.lock yet\ndepends  next  unknown until it has run\n"
    );
    let explained = told(&project.pipe(&["explain", "pipelines/x.yaml", "it"]));
    assert!(explained.starts_with("it: runs\n  why:\n    hf://own/model is not in pipe.lock yet\n"), "{explained}");
    assert!(project.server.log().is_empty() && !project.lock().exists() && !project.root.join("cache").exists());

    // With a lock the key is known, wherever the bytes are.
    assert!(project.pipe(&["run", "pipelines/x.yaml", "it"]).status.success());
    project.server.log();
    assert!(plan(&["it"]).starts_with("reuse"));
    let key = plan(&["it", "--json"]);
    fs::remove_dir_all(project.root.join("cache")).unwrap();
    project.forget_fetched();
    assert!(plan(&["it"]).starts_with("run      it  never run before"), "{}", plan(&["it"]));
    // The step's line; the one after it tells how long it will take.
    let field = |text: &str| {
        let line = text.lines().next().expect("a line");
        serde_json::from_str::<serde_json::Value>(line).unwrap()["key"].clone()
    };
    assert_eq!(field(&plan(&["it", "--json"])), field(&key));
    assert!(project.server.log().is_empty());
}

#[test]
fn a_damaged_lock_stops_what_needs_it_and_nothing_else() {
    let project = Project::new("HUB/files/a.txt");
    project.server.file("a.txt", b"text", &[]);
    fs::write(project.lock(), "format: pipe/lock@1\n<<<<<<< HEAD\nsources: {}\n").unwrap();
    let output = project.pipe(&["run", "pipelines/x.yaml"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        told(&output).contains("pipelines/pipe.lock:3") && told(&output).contains("take it from version control"),
        "{}",
        told(&output)
    );
    fs::write(project.root.join("here.txt"), "text").unwrap();
    project.fetched(&["--set", "source=here.txt"]);
    assert!(project.server.log().is_empty());
}

/// L4: `pipe` replaces the file whole, so a piece of it is somebody else's doing; whatever is left of it, it is told, or
/// the bytes are the same.
#[test]
fn l4_a_lock_that_was_cut_short_is_told_or_brings_the_same_bytes() {
    let project = Project::new("HUB/files/a.txt");
    project.server.file("a.txt", b"text", &[("ETag", "\"1\"")]);
    project.fetched(&[]);
    let whole = fs::read(project.lock()).unwrap();
    let (mut refused, mut right) = (0, 0);
    for cut in (0..whole.len()).step_by(9).chain([1, whole.len() - 1]) {
        fs::write(project.lock(), &whole[..cut]).unwrap();
        let output = project.pipe(&["run", "pipelines/x.yaml"]);
        if output.status.success() {
            right += 1;
            assert_eq!(fs::read(project.result()).unwrap(), b"text", "cut at {cut}");
            assert!(project.locked("HUB/files/a.txt").is_some(), "cut at {cut}");
        } else {
            refused += 1;
            let told = told(&output);
            assert_eq!(output.status.code(), Some(3), "cut at {cut}: {told}");
            assert!(told.contains("pipe.lock") && told.contains("or delete it: then"), "cut at {cut}: {told}");
        }
    }
    assert!(refused > 10, "{refused} refused, {right} right");
    fs::remove_file(project.lock()).unwrap();
    assert_eq!(fs::read(project.fetched(&[])).unwrap(), b"text");
}

#[test]
fn progress_tells_how_much_of_how_much() {
    let project = Project::new("hf://own/model");
    commit(&project.server, "models/own/model", &model());
    project.server.fault("/lfs/", 2, Fault::Slow(20_000, 20));
    let output = project.run(&[]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let events: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().any(|e| e["event"] == "step_fetching" && e["source"] == "hf://own/model"), "{lines}");
    let progress: Vec<_> = events.iter().filter_map(|event| event["say"]["progress"].as_object()).collect();
    let total: u64 =
        model().iter().filter(|(name, _)| NEEDED.contains(name)).map(|(_, bytes)| bytes.len() as u64).sum();
    let far = |p: &serde_json::Map<String, serde_json::Value>| (p["done"].as_u64(), p["total"].as_u64());
    assert!(
        progress.iter().any(|p| far(p).1 == Some(total) && far(p).0.is_some_and(|d| d > 0 && d < total)),
        "{lines}"
    );
    assert!(progress.iter().all(|p| p["unit"] == "B"));
}
