//! `predict`, `evaluate` and `export` as a user runs them.

mod support;

use std::io::Write;

use flate2::write::GzEncoder;
use serde_json::Value;
use support::*;

fn tiny() -> String {
    fixture("tiny").to_string_lossy().into_owned()
}

#[test]
fn answers_come_in_order_from_arguments_files_and_stdin() {
    let project = Project::new(20);
    let tiny = tiny();
    let texts = ["good", "terrible story", "the film was good", "x"];
    let arguments: Vec<&str> = ["predict", &tiny].into_iter().chain(texts).collect();
    let expected = project.run(&arguments).ok().lines();
    assert_eq!(expected.len(), 4);
    for answer in &expected {
        let scores = answer["scores"].as_array().unwrap();
        assert_eq!((scores.len(), answer["logits"].as_array().unwrap().len()), (3, 3));
        let sum: f64 = scores.iter().map(|score| score["score"].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{answer}");
        assert_eq!(answer["label"], scores[0]["label"]);
    }
    assert_eq!(expected[3]["tokens"], 3);

    let input = texts.join("\r\n");
    let piped = run_with_input(project.folder.path(), &["predict", &tiny], input.as_bytes()).ok();
    assert_eq!(piped.lines(), expected);

    let csv: String = texts.iter().map(|text| format!("{text}\n")).collect();
    project.write("in.csv", format!("text\n{csv}"));
    let mut gz = GzEncoder::new(Vec::new(), Default::default());
    texts.iter().for_each(|text| writeln!(gz, "{}", serde_json::json!({ "text": text })).unwrap());
    project.write("in.jsonl.gz", gz.finish().unwrap());
    for input in ["in.csv", "in.jsonl.gz"] {
        project.run(&["predict", &tiny, "--data", input, "--out", "out.jsonl"]).ok();
        assert_eq!(json_lines(&project.text("out.jsonl")), expected, "{input}");
    }
    project.run(&["predict", &tiny, "--data", "in.csv", "--out", "out.csv"]).ok();
    let mut csv = csv::Reader::from_reader(project.text("out.csv").into_bytes().leak() as &[u8]);
    let header = csv.headers().unwrap().clone();
    assert_eq!(
        header.iter().take(6).collect::<Vec<_>>(),
        ["label", "score", "unsure", "tokens", "windows", "error"]
    );
    assert_eq!(&header[6], "score:bad");
    for (record, expected) in csv.records().zip(&expected) {
        let record = record.unwrap();
        assert_eq!(&record[0], expected["label"].as_str().unwrap());
        let logit: f64 = record[9].parse().unwrap();
        assert!((logit - expected["logits"][0].as_f64().unwrap()).abs() < 1e-6);
    }
}

#[test]
fn a_row_that_cannot_be_read_has_an_error_and_the_rest_have_answers() {
    let project = Project::new(2);
    project.write("in.csv", b"text,n\ngood,1\n,2\nbad,3,4\ncaf\xe9,5\nfair,6\n");
    let said = project.run(&["predict", &tiny(), "--data", "in.csv", "--out", "out.jsonl"]);
    said.fails(1, &["3 of 5 rows"]);
    let answers = json_lines(&project.text("out.jsonl"));
    let errors: Vec<bool> = answers.iter().map(|answer| answer["error"].is_string()).collect();
    assert_eq!(errors, [false, true, true, true, false]);
    assert!(answers[3]["error"].as_str().unwrap().contains("row 4"), "{}", answers[3]);
    let piped = run_with_input(project.folder.path(), &["predict", &tiny()], b"good\n\n\xff\n");
    assert_eq!((piped.code, piped.out.lines().count()), (Some(1), 3), "{piped:#?}");
}

#[test]
fn a_bundle_answers_as_its_checkpoint() {
    let project = Project::new(200);
    project.train("run", &["epochs=2", "lr=1e-3"]).ok();
    let said = |model: &str| project.run(&["predict", model, "good story", "hate it"]).ok().lines();
    for (precision, bound) in [("f32", 1e-6), ("f16", 2e-3)] {
        let told =
            project.run(&["export", "run", "--out", "bundle", "--precision", precision]).ok();
        assert!(told.err.contains("test accuracy"), "{}", told.err);
        for (a, b) in said("run").iter().zip(said("bundle")) {
            for (a, b) in
                a["logits"].as_array().unwrap().iter().zip(b["logits"].as_array().unwrap())
            {
                assert!((a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < bound, "{precision}");
            }
        }
        let manifest: Value =
            serde_json::from_slice(&project.read("bundle/manifest.json")).unwrap();
        assert_eq!(manifest["precision"], precision);
        assert!(manifest["metrics"]["accuracy"].is_number(), "{manifest}");
        assert!(!manifest.to_string().contains(project.folder.path().to_str().unwrap()));
    }
    project.run(&["evaluate", "bundle"]).fails(2, &["--data"]);
    let json = project.run(&["evaluate", "bundle", "--data", "data.csv", "--json", "-"]).ok();
    let figures: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&figures["rows"], &figures["trained_on"]), (&200.into(), &Value::Null));
    let json = project.run(&["evaluate", "run", "--data", "data.csv", "--json", "-"]).ok();
    let figures: Value = serde_json::from_str(&json.out).unwrap();
    assert!(figures["trained_on"].as_u64().unwrap() > 100, "{figures}");
}

#[test]
fn a_bundle_that_is_wrong_is_named() {
    let project = Project::new(2);
    project.run(&["export", &tiny(), "--out", "good"]).ok();
    let manifest = project.text("good/manifest.json");
    let weights = project.read("good/model.safetensors");
    let broken = |file: &str, content: &[u8]| {
        for name in ["manifest.json", "model.safetensors", "tokenizer.txt"] {
            std::fs::create_dir_all(project.path("broken")).unwrap();
            project.write(&format!("broken/{name}"), project.read(&format!("good/{name}")));
        }
        project.write(&format!("broken/{file}"), content);
        project.run(&["predict", "broken", "good"])
    };
    let mut flipped = weights.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    broken("model.safetensors", &weights[..100]).fails(2, &["model.safetensors", "bytes"]);
    broken("model.safetensors", &flipped).fails(2, &["model.safetensors", "SHA-256"]);
    let version = manifest.replace("\"version\": 1", "\"version\": 9");
    broken("manifest.json", version.as_bytes()).fails(2, &["version 9"]);
    broken("manifest.json", &manifest.as_bytes()[..200]).fails(2, &["manifest.json"]);
    let shape = manifest.replace("\"intermediate_size\": 80", "\"intermediate_size\": 88");
    broken("manifest.json", shape.as_bytes()).fails(2, &["shape", "intermediate"]);
    std::fs::remove_file(project.path("broken/tokenizer.txt")).unwrap();
    project.write("broken/manifest.json", &manifest);
    project.run(&["predict", "broken", "good"]).fails(2, &["tokenizer.txt", "missing"]);
}

#[test]
fn export_replaces_bundles_alone_and_refuses_what_a_page_cannot_tokenize() {
    let project = Project::new(2);
    project.run(&["export", &tiny(), "--out", "bundle"]).ok();
    project.run(&["export", &tiny(), "--out", "bundle"]).ok();
    project.write("bundle/notes.txt", "mine");
    project.run(&["export", &tiny(), "--out", "bundle"]).fails(2, &["notes.txt"]);
    project.run(&["export", "bundle", "--out", "other"]).fails(2, &["a bundle already"]);
    std::fs::create_dir(project.path("bpe")).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let content = std::fs::read(fixture("tiny").join(name)).unwrap();
        project.write(&format!("bpe/{name}"), content);
    }
    let other = project.text("bpe/tokenizer.json").replace("\"BertNormalizer\"", "\"Lowercase\"");
    project.write("bpe/tokenizer.json", other);
    project.run(&["export", "bpe", "--out", "other"]).fails(2, &["Lowercase", "BertNormalizer"]);
    assert!(!project.path("other").exists());
}
