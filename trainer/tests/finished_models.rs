//! `predict`, `evaluate` and `export` as a user runs them.

mod support;

use std::io::Write;

use flate2::write::GzEncoder;
use serde_json::Value;
use support::*;

fn tiny() -> String {
    fixture("tiny").to_string_lossy().into_owned()
}

/// Answers to one text: its neighbours in a batch may change the last bits.
#[track_caller]
fn alike(a: &Value, b: &Value) {
    let logits = |answer: &Value| -> Vec<f64> {
        answer["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let close = logits(a).iter().zip(logits(b)).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(close && a["label"] == b["label"] && a["tokens"] == b["tokens"], "{a} {b}");
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
    for (precision, bound) in [("f32", 1e-6), ("f16", 2e-3), ("int8", 0.1)] {
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
fn integers_are_rounded_with_training_texts_where_they_are() {
    let project = Project::new(200);
    project.train("run", &["epochs=1", "lr=1e-3"]).ok();
    let weights = |options: &[&str]| {
        let said = project.run(&[&["export", "run", "--out", "bundle"], options].concat()).ok();
        (project.read("bundle/model.safetensors"), said.err)
    };
    let (looked, said) = weights(&[]);
    assert!(!said.contains("without training texts"), "{said}");
    assert!(weights(&[]).0 == looked, "the same texts give the same integers");
    assert!(weights(&["--threads", "1"]).0 == looked, "and so does one thread");
    let (alone, _) = weights(&["--calibrate", "0"]);
    assert!(alone != looked);
    std::fs::remove_file(project.path("data.csv")).unwrap();
    let (without, said) = weights(&[]);
    assert!(said.contains("rounded without training texts") && said.contains("data.csv"), "{said}");
    assert!(without == alone);
}

#[test]
fn integers_answer_the_same_on_every_processor_and_beside_any_neighbour() {
    let project = Project::new(60);
    project.train("run", &["epochs=1", "lr=1e-3"]).ok();
    project.run(&["export", "run", "--out", "bundle"]).ok();
    let texts = ["good", "hate it, and the story, and all of it", "the film. ".repeat(100).leak()];
    let answers = |isa: &str, texts: &[&str]| -> Vec<String> {
        let mut command = pagebert(project.folder.path(), &["predict", "bundle"]);
        let said = command.args(texts).env("PAGEBERT_ISA", isa).output().unwrap();
        assert!(said.status.success(), "{said:?}");
        String::from_utf8(said.stdout).unwrap().lines().map(str::to_string).collect()
    };
    let expected = answers("base", &texts);
    for isa in ["avx2", "avx512", "amx"] {
        assert_eq!(answers(isa, &texts), expected, "{isa}");
    }
    for (text, expected) in texts.iter().zip(&expected) {
        assert_eq!(&answers("base", &[text])[0], expected);
    }
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
    let today = format!("\"version\": {}", pagebert_model::bundle::VERSION);
    assert!(manifest.contains(&today), "{manifest}");
    let version = manifest.replace(&today, "\"version\": 9");
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

#[test]
fn an_output_that_is_no_number_is_an_error_and_never_a_label() {
    let project = Project::new(2);
    project.model_that_fails_on("watch", "model");
    let said = project.run(&["predict", "model", "good", "watch it", "film"]);
    let answers = said.lines();
    said.fails(1, &["1 of 3 rows"]);
    let errors: Vec<bool> = answers.iter().map(|answer| answer["error"].is_string()).collect();
    assert_eq!(errors, [false, true, false]);
    let alone = project.run(&["predict", "model", "good"]).ok().lines();
    alike(&alone[0], &answers[0]);
    project.write("new.csv", "text,label\ngood,good\nwatch it,bad\n");
    let said = project.run(&["evaluate", "model", "--data", "new.csv", "--json", "figures.json"]);
    assert!(said.out.is_empty() && !project.path("figures.json").exists(), "{said:#?}");
    said.fails(1, &["`watch it`", "damaged"]);
    project.run(&["export", "model", "--out", "bundle"]).fails(2, &["f16", "--precision f32"]);
    assert!(!project.path("bundle").exists());
}

#[test]
fn figures_are_those_of_the_predictions() {
    let project = Project::new(2);
    let csv = "text,label\ngood film,good\nterrible story,bad\nx,fair\nvery good,good\n";
    project.write("new.csv", csv);
    let truths = ["good", "bad", "fair", "good"];
    let answers = project.run(&["predict", &tiny(), "--data", "new.csv"]).ok().lines();
    let score = |answer: &Value, label: &str| {
        let scores = answer["scores"].as_array().unwrap();
        let found = scores.iter().find(|score| score["label"] == label).unwrap();
        found["score"].as_f64().unwrap()
    };
    let right = answers.iter().zip(truths).filter(|(answer, truth)| answer["label"] == *truth);
    let loss: f64 =
        answers.iter().zip(truths).map(|(answer, truth)| -score(answer, truth).ln()).sum();
    let shown = project.run(&["evaluate", &tiny(), "--data", "new.csv", "--json", "f.json"]).ok();
    let figures: Value = serde_json::from_str(&project.text("f.json")).unwrap();
    assert_eq!(figures["accuracy"], right.count() as f64 / 4.0);
    assert!((figures["loss"].as_f64().unwrap() - loss / 4.0).abs() < 1e-5, "{figures}");
    assert_eq!(figures["labels"], serde_json::json!(["bad", "fair", "good"]));
    assert_eq!((&figures["trained_on"], &figures["data"]), (&Value::Null, &"new.csv".into()));
    let row = |class: usize| -> u64 {
        figures["confusion"][class].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum()
    };
    assert_eq!([row(0), row(1), row(2)], [1, 1, 2]);
    for words in ["accuracy", "macro F1", "precision", "has", "fair"] {
        assert!(shown.out.contains(words), "{words}: {}", shown.out);
    }
}

#[test]
fn sides_are_measured_as_training_measured_them() {
    let project = Project::new(200);
    project.write("test.csv", "text,label\ngreat film,yes\nbad plot,no\nlove it,yes\n");
    // In bf16 the valid side is measured in bf16 while training, and in f32 afterwards.
    project.train("run", &["epochs=1", "precision=f32", "--test", "test.csv"]).ok();
    let log = json_lines(&project.text("run/metrics.jsonl"));
    for split in ["valid", "test"] {
        let json = project.run(&["evaluate", "run", "--split", split, "--json", "-"]).ok();
        let figures: Value = serde_json::from_str(&json.out).unwrap();
        let line = log.iter().rfind(|line| line["split"] == split).unwrap();
        assert_eq!(figures["split"], split);
        for key in ["accuracy", "macro_f1", "loss"] {
            let (a, b) = (figures[key].as_f64().unwrap(), line[key].as_f64().unwrap());
            assert!((a - b).abs() < 1e-6, "{split} {key}: {a} {b}");
        }
    }
    let data = project.path("test.csv").display().to_string();
    project.write("test.csv", "text,label\ngreat film,no\nbad plot,no\nlove it,yes\n");
    project.run(&["evaluate", "run"]).fails(2, &[&data, "changed"]);
    project.run(&["evaluate", "run", "--split", "valid"]).ok();
    project.run(&["evaluate", &tiny()]).fails(2, &["records no split", "--data"]);
}

#[test]
fn a_bundle_without_its_data_carries_no_figures_and_the_same_export_the_same_bytes() {
    let project = Project::new(80);
    project.train("run", &["epochs=1"]).ok();
    std::fs::remove_file(project.path("data.csv")).unwrap();
    for out in ["a", "b", "a"] {
        let mut command =
            pagebert(project.folder.path(), &["export", "run", "--out", out, "--precision", "f32"]);
        let said = command.env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap();
        let said = String::from_utf8(said.stderr).unwrap();
        assert!(said.contains("no figures") && said.contains("data.csv"), "{said}");
    }
    for file in ["manifest.json", "model.safetensors", "tokenizer.txt"] {
        assert!(project.read(&format!("a/{file}")) == project.read(&format!("b/{file}")), "{file}");
    }
    let manifest: Value = serde_json::from_slice(&project.read("a/manifest.json")).unwrap();
    assert_eq!(manifest["metrics"], Value::Null);
    assert_eq!(manifest["provenance"]["date"], "2023-11-14T22:13:20Z");
    assert_eq!(manifest["provenance"]["base"], "tiny");
    for key in ["base_sha256", "data_sha256", "weights_sha256"] {
        assert_eq!(manifest["provenance"][key].as_str().unwrap().len(), 64, "{key}");
    }
    let mut left: Vec<_> = std::fs::read_dir(project.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["a", "b", "cache", "run"]);
}

#[test]
fn answers_never_replace_their_texts_nor_go_where_nothing_can_be_written() {
    let project = Project::new(2);
    let texts = project.text("data.csv");
    std::fs::create_dir(project.path("folder.csv")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(project.path("socket")).unwrap();
    for (arguments, words) in [
        (&["predict", "--data", "data.csv", "--out", "./data.csv"][..], "another name"),
        (&["predict", "--data", "data.csv", "--out", "none/out.csv"], "no folder none"),
        (&["predict", "--data", "data.csv", "--out", "folder.csv"], "is a folder"),
        (&["evaluate", "--data", "data.csv", "--json", "none/f.json"], "no folder none"),
        (&["evaluate", "--data", "data.csv", "--json", "socket"], "no ordinary file"),
        (&["predict", "--data", "data.csv", "a text"], "TEXT"),
    ] {
        let tiny = tiny();
        let all = [&arguments[..1], &[&*tiny], &arguments[1..]].concat();
        let said = project.run(&all).fails(2, &[words]);
        assert!(said.out.is_empty(), "{said:#?}");
    }
    assert_eq!(project.text("data.csv"), texts);
    // A link is followed, and stays one.
    project.write("real.csv", "old");
    std::os::unix::fs::symlink("real.csv", project.path("link.csv")).unwrap();
    project.run(&["predict", &tiny(), "good", "--out", "link.csv"]).ok();
    assert!(project.path("link.csv").is_symlink());
    assert!(project.text("real.csv").starts_with("label,score"));
}

#[test]
fn products_of_fewer_bits_change_answers_by_little() {
    let project = Project::new(2);
    let answer = |precision: &str| -> Vec<f64> {
        let text = "a very good film, and not a word too long";
        let said = project.run(&["predict", &tiny(), text, "--precision", precision]).ok();
        let answer: Value = serde_json::from_str(&said.out).unwrap();
        answer["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let f32 = answer("f32");
    project.run(&["export", &tiny(), "--out", "bundle"]).ok();
    for (precision, bound) in [("bf16", 0.02), ("int8", 0.06)] {
        let found = answer(precision);
        assert_ne!(f32, found, "{precision}");
        for (x, y) in f32.iter().zip(&found) {
            assert!((x - y).abs() < bound, "{precision}: {f32:?} {found:?}");
        }
        let refused = ["predict", "bundle", "x", "--precision", precision];
        project.run(&refused).fails(2, &["a bundle has its own precision"]);
    }
    let tiny = tiny();
    let refused = ["predict", &tiny, "x", "--precision", "int8", "--device", "cuda"];
    project.run(&refused).fails(2, &["by processors alone", "leave --precision int8 or --device"]);
}

#[test]
fn lines_of_stdin_may_begin_with_a_byte_order_mark_and_be_books() {
    let project = Project::new(2);
    let tiny = tiny();
    // A word this long is one token, so that megabytes are soon read.
    let book = format!("{} good ", "y".repeat(120)).repeat(24_000);
    let input = format!("\u{feff}good\n{}\r\n{}\nbad", book, &book[..1_400_000]);
    let folder = project.folder.path();
    let said = run_with_input(folder, &["predict", &tiny], input.as_bytes()).ok().lines();
    assert_eq!(said.len(), 4);
    let alone = project.run(&["predict", &tiny, "good", "bad"]).ok().lines();
    alike(&said[0], &alone[0]);
    alike(&said[3], &alone[1]);
    assert!(said[1]["windows"].as_u64().unwrap() > 1000, "{}", said[1]);
}
