//! What goes wrong on the way, one thing at a time.

use super::*;

/// The requests for a piece of path, as `Range` headers.
fn ranges(server: &Server, on: &str) -> Vec<Option<String>> {
    let log = server.log().into_iter().filter(|request| request.method == "GET" && request.path.contains(on));
    log.map(|request| request.header("range").map(str::to_owned)).collect()
}

#[test]
fn a_connection_that_breaks_is_gone_on_with() {
    let bytes = noise(7, 300_000);
    let project = Project::new("HUB/files/a.bin");
    for validator in [("ETag", "\"one\""), ("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")] {
        project.server.file("a.bin", &bytes, &[validator]);
        project.server.fault("a.bin", 1, Fault::Cut(100_000));
        project.server.fault("a.bin", 1, Fault::Cut(150_000));
        project.server.fault("a.bin", 1, Fault::Drop);
        assert!(fs::read(project.fetched(&[])).unwrap() == bytes);
        let log = project.server.log();
        let asked: Vec<_> = log.iter().map(|request| (request.header("range"), request.header("if-range"))).collect();
        let (first, second) = (Some("bytes=100000-"), Some("bytes=250000-"));
        let proof = Some(validator.1);
        assert_eq!(asked, [(None, None), (first, proof), (second, proof), (second, proof)], "{validator:?}");
        project.forget_results();
        project.forget_fetched();
        fs::remove_file(project.lock()).unwrap();
    }

    // Of the Hub the content is known by its hash, so that nothing else has to be proven.
    let project = Project::new("hf://own/model");
    let files = model();
    commit(&project.server, "models/own/model", &files);
    let shard = sha256(&files["model-00001-of-00002.safetensors"]);
    project.server.fault(&format!("GET /lfs/{shard}"), 2, Fault::Cut(120_000));
    project.server.fault("GET /own/model/resolve", 1, Fault::Status(503, vec![]));
    project.server.fault("HEAD /own/model/resolve", 1, Fault::Drop);
    project.server.fault("GET /api/models", 1, Fault::Status(500, vec![]));
    holds(&project.fetched(&[]), &files, &NEEDED);
    let again = ["bytes=120000-", "bytes=240000-"].map(|range| Some(range.to_owned()));
    assert_eq!(ranges(&project.server, &shard), [&[None], again.as_slice()].concat());
}

#[test]
fn what_cannot_be_proven_to_belong_together_begins_anew() {
    let bytes = noise(8, 200_000);
    for (headers, fault) in [
        // Nothing proves that the rest is of the same file.
        (vec![], Fault::Cut(100_000)),
        (vec![("ETag", "W/\"weak\"")], Fault::Cut(100_000)),
        (vec![("ETag", "\"strong\"")], Fault::NoRange),
    ] {
        let project = Project::new("HUB/files/a.bin");
        project.server.file("a.bin", &bytes, &headers);
        project.server.fault("a.bin", 1, Fault::Cut(100_000));
        project.server.fault("a.bin", 1, fault);
        assert!(fs::read(project.fetched(&[])).unwrap() == bytes);
    }
    // The file changes between the pieces.
    let project = Project::new("HUB/files/a.bin");
    project.server.file("a.bin", &bytes, &[("ETag", "\"one\"")]);
    project.server.fault("a.bin", 1, Fault::Cut(100_000));
    project.server.fault("a.bin", 5, Fault::Status(502, vec![]));
    assert!(project.fails(&[]).contains("answers 502"));
    let other = noise(9, 210_000);
    project.server.heal();
    project.server.file("a.bin", &other, &[("ETag", "\"two\"")]);
    assert!(fs::read(project.fetched(&[])).unwrap() == other);
}

#[test]
fn a_busy_server_is_waited_for_as_long_as_it_wants() {
    let project = Project::new("HUB/files/a.txt");
    project.server.file("a.txt", b"text", &[]);
    project.server.fault("a.txt", 1, Fault::Status(429, vec![("Retry-After", "2".to_owned())]));
    let started = std::time::Instant::now();
    let output = project.run(&[]);
    assert!(output.status.success() && started.elapsed().as_secs_f64() >= 2.0, "{}", told(&output));
    let waits = "127.0.0.1 is asked too often; again in 2 s";
    assert!(told(&output).contains(waits), "{}", told(&output));

    let project = Project::new("hf://own/model");
    commit(&project.server, "models/own/model", &model());
    project.server.fault("/api/models", 1, Fault::Status(429, vec![("Retry-After", "86400".to_owned())]));
    let refused = project.fails(&[]);
    assert!(refused.contains("the Hub is asked too often for hf://own/model (429)"), "{refused}");
    assert!(refused.contains("with a token in HF_TOKEN more requests are allowed"), "{refused}");
    assert_eq!(project.server.log().len(), 1);
}

#[test]
fn refusals_say_what_to_do() {
    let project = Project::new("hf://own/nothing");
    let refused = project.fails(&[]);
    assert!(refused.contains("there is no repository hf://own/nothing, or it is private (401)"), "{refused}");
    for (code, word, help) in [
        (401, "hf://own/nothing is private or gated (401)", "set HF_TOKEN to it; if it is gated, accept its terms"),
        (403, "hf://own/nothing may not be read (403)", "accept its terms at"),
        (404, "there is no repository hf://own/nothing", "check the name at"),
        (451, "127.0.0.1 answers 451", "try again later"),
    ] {
        project.server.fault("/api/", 1, Fault::Status(code, vec![]));
        let refused = project.fails(&[]);
        assert!(refused.contains(word) && refused.contains(help), "{refused}");
    }
    let output = {
        project.server.fault("/api/", 1, Fault::Status(401, vec![]));
        project.command(&["run", "pipelines/x.yaml"]).env("HF_TOKEN", TOKEN).output().unwrap()
    };
    assert!(told(&output).contains("the Hub does not accept the token (401)"), "{}", told(&output));
    project.no_secret(&told(&output));
    let output = project.command(&["run", "pipelines/x.yaml"]).env("HF_ENDPOINT", "no address").output().unwrap();
    assert!(told(&output).contains("HF_ENDPOINT is `no address`"), "{}", told(&output));

    let project = Project::new("HUB/files/none.txt");
    assert!(project.fails(&[]).contains("/files/none.txt (404)"));
    for (code, word) in [(404, "there is no file at"), (403, "fetch the file yourself"), (418, "answers 418")] {
        project.server.file("none.txt", b"", &[]);
        project.server.fault("none.txt", 1, Fault::Status(code, vec![]));
        let refused = project.fails(&["--set", &format!("source={}/files/none.txt", project.server.cdn())]);
        assert!(refused.contains(word), "{refused}");
    }
    assert!(!project.lock().exists());
}

#[test]
fn bytes_that_are_not_what_they_should_be_do_not_get_in() {
    let project = Project::new("hf://own/model");
    let files = model();
    let commit_of = |project: &Project| commit(&project.server, "models/own/model", &model());
    let commit = commit_of(&project);
    let shard = sha256(&files["model-00002-of-00002.safetensors"]);
    project.server.fault(&format!("/lfs/{shard}"), 1, Fault::Wrong);
    let refused = project.fails(&[]);
    assert!(refused.contains("hf://own/model: model-00002-of-00002.safetensors is not what it should be"), "{refused}");
    assert!(refused.contains(&format!("not {shard}")), "{refused}");
    let cache = project.hub_cache().join("models--own--model/blobs");
    assert!(!cache.join(&shard).exists() && !cache.join(format!("{shard}.incomplete")).exists());
    // What lies in git itself is known by git's own hash.
    project.forget_fetched();
    let config = format!("GET /own/model/resolve/{commit}/config.json");
    project.server.fault(&config, 1, Fault::Wrong);
    let refused = project.fails(&[]);
    assert!(refused.contains("config.json is not what it should be: its hash is"), "{refused}");
    assert!(!project.lock().exists());

    // A beginning that was wrong is thrown away, once.
    fs::write(cache.join(format!("{shard}.incomplete")), b"not the beginning").unwrap();
    holds(&project.fetched(&[]), &files, &NEEDED);

    // A pin is compared before anything is remembered.
    for (pin, good) in [(sha256(b"text"), true), (sha256(b"other"), false)] {
        let project = Project::with("HUB/files/a.txt", &format!(", pin: 'sha256:{pin}'"));
        project.server.file("a.txt", b"text", &[]);
        if good {
            project.fetched(&[]);
        } else {
            let refused = project.fails(&[]);
            assert!(refused.contains("is not what is pinned: its sha256 is"), "{refused}");
        }
        assert_eq!(project.lock().exists(), good);
    }
    let project = Project::with("hf://own/model", &format!(", pin: 'blake3:{}'", "0".repeat(64)));
    commit_of(&project);
    let refused = project.fails(&[]);
    assert!(refused.contains("hf://own/model is not what is pinned: its blake3 is"), "{refused}");
    assert!(!project.lock().exists());
}

#[test]
fn a_length_that_is_a_lie_is_found_out() {
    let bytes = noise(5, 10_000);
    // More is promised than comes, always: the rest is asked for, and there is none.
    let project = Project::new("HUB/files/a.bin");
    project.server.file("a.bin", &bytes, &[("ETag", "\"1\"")]);
    project.server.fault("a.bin", 1, Fault::Length(500));
    let output = project.run(&[]);
    // The server has changed its mind about the size: what it says in the end counts.
    assert!(output.status.success(), "{}", told(&output));
    assert!(fs::read(project.result()).unwrap() == bytes);
    project.forget_results();
    project.forget_fetched();
    fs::remove_file(project.lock()).unwrap();
    project.server.fault("a.bin", 1000, Fault::Length(500));
    let refused = project.fails(&[]);
    assert!(refused.contains("10000 of 10500 bytes") || refused.contains("contradicts itself"), "{refused}");
    assert!(!project.lock().exists());

    // Another size than the Hub has named.
    for lie in [500, -500] {
        let project = Project::new("hf://own/model");
        let files = model();
        commit(&project.server, "models/own/model", &files);
        let shard = sha256(&files["model-00001-of-00002.safetensors"]);
        project.server.fault(&format!("GET /lfs/{shard}"), 1000, Fault::Length(lie));
        let refused = project.fails(&[]);
        let word = format!("should have 300000 bytes, and the server would send {}", 300_000 + lie);
        assert!(refused.contains(&word), "{refused}");
    }

    // No length at all is no lie.
    let project = Project::new("HUB/files/a.bin");
    project.server.file("a.bin", &bytes, &[]);
    project.server.fault("a.bin", 1, Fault::Chunked);
    assert!(fs::read(project.fetched(&[])).unwrap() == bytes);
}

#[test]
fn pickles_are_refused_before_they_are_fetched() {
    let project = Project::new("hf://own/model");
    project.server.commit("models/own/model", &[("config.json", b"{}"), ("pytorch_model.bin", b"pickle")]);
    let refused = project.fails(&[]);
    assert!(refused.contains("hf://own/model has its weights as pickles only (pytorch_model.bin)"), "{refused}");
    assert!(refused.contains("safe_serialization=True"), "{refused}");
    assert!(project.server.log().iter().all(|request| request.path.starts_with("/api/")));
}

#[test]
fn sizes_are_checked_before_bytes_are_taken() {
    let project = Project::with("hf://own/model", ", max_bytes: 400000");
    commit(&project.server, "models/own/model", &model());
    let refused = project.fails(&[]);
    assert!(refused.contains("hf://own/model has 500") && refused.contains("raise `max_bytes`"), "{refused}");
    assert!(project.server.log().iter().all(|request| request.server == "hub"));

    let project = Project::with("HUB/files/a.bin", ", max_bytes: 9000");
    project.server.file("a.bin", &noise(1, 10_000), &[]);
    let refused = project.fails(&[]);
    assert!(refused.contains("a.bin has 10000 bytes or more, and `max_bytes` allows 9000"), "{refused}");
    project.server.fault("a.bin", 1, Fault::Chunked);
    assert!(project.fails(&[]).contains("`max_bytes` allows 9000"));

    // No disk has an exabyte.
    let project = Project::with("HUB/files/a.bin", ", max_bytes: 9000000000000000000");
    project.server.file("a.bin", b"", &[]);
    project.server.fault("a.bin", 1, Fault::Length(1_000_000_000_000_000_000));
    let refused = project.fails(&[]);
    assert!(
        refused.contains("a.bin into ")
            && refused.contains("needs 1000000.0 TB, and ")
            && refused.contains("free some space"),
        "{refused}"
    );
}

#[test]
fn redirects_are_followed_as_far_as_it_is_safe() {
    // A repository that was renamed: the token goes on to the same server.
    let project = Project::new("hf://old/name");
    let files = model();
    let commit = commit(&project.server, "models/own/model", &files);
    let api = format!("/api/models/own/model/revision/{commit}");
    project.server.fault("/api/models/old/name/", 1, Fault::Redirect(307, api));
    for name in NEEDED {
        let to = format!("/own/model/resolve/{commit}/{name}");
        project.server.fault(&format!("/old/name/resolve/{commit}/{name}"), 9, Fault::Redirect(307, to));
    }
    let output = project.command(&["run", "pipelines/x.yaml"]).env("HF_TOKEN", TOKEN).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    holds(&project.result(), &files, &NEEDED);
    for request in project.server.log() {
        assert_eq!(request.header("authorization").is_some(), request.server == "hub", "{request:?}");
    }

    let project = Project::new("HUB/files/a.txt");
    project.server.file("a.txt", b"text", &[]);
    let circle = format!("{}/files/a.txt", project.server.endpoint());
    project.server.fault("a.txt", 1000, Fault::Redirect(302, circle));
    assert!(project.fails(&[]).contains("redirects in circles"));
    project.server.heal();
    project.server.fault("a.txt", 1, Fault::Redirect(302, "ftp://example.org/a.txt".to_owned()));
    assert!(project.fails(&[]).contains("redirects to what is not an address"));
}

#[test]
fn an_answer_that_is_no_hub_is_told_from_one() {
    let project = Project::new("hf://own/model");
    project.server.commit("models/own/model", &[("config.json", b"{}"), ("../x.safetensors", b"evil")]);
    let refused = project.fails(&[]);
    assert!(refused.contains("answers with the file name") && refused.contains("HF_ENDPOINT"), "{refused}");
    project.server.fault("/api/", 1, Fault::Wrong);
    let refused = project.fails(&[]);
    assert!(refused.contains("what is not a description of a repository"), "{refused}");

    let project = Project::new("hf://own/model");
    let index = br#"{"weight_map": {"a": "../../../../etc/x.safetensors"}}"#;
    project.server.commit("models/own/model", &[("model.safetensors.index.json", index)]);
    let refused = project.fails(&[]);
    assert!(refused.contains("which is not a safetensors file of this folder"), "{refused}");
}
