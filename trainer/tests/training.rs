//! `pagebert train` as a user runs it.

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use support::*;

const QUICK: [&str; 4] = ["epochs=2", "lr=2e-3", "batch_size=8", "log_every=1"];

#[test]
fn it_learns_and_leaves_a_checkpoint_with_its_records() {
    let project = Project::new(400);
    let said = project.train("run", &["epochs=6", "lr=3e-3", "batch_size=8"]).ok();
    for words in ["rows", "tokens", "steps", "time", "memory", "test accuracy"] {
        assert!(said.err.contains(words), "{words}: {}", said.err);
    }
    assert!(said.out.is_empty(), "stdout is for data: {}", said.out);
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "run.toml",
        "split.csv",
        "report.html",
    ] {
        assert!(project.path("run").join(name).is_file(), "{name}");
    }
    assert!(!project.path("run/last").exists(), "there is nothing to resume");
    let config: serde_json::Value =
        serde_json::from_slice(&project.read("run/config.json")).unwrap();
    assert_eq!(config["id2label"]["1"], "yes");
    let log = json_lines(&project.text("run/metrics.jsonl"));
    let splits = |name: &str| log.iter().filter(|line| line["split"] == name).count();
    assert_eq!((splits("valid"), splits("test")), (6, 1));
    for key in ["step", "epoch", "loss", "lr", "grad_norm", "tokens_per_s"] {
        assert!(log[0][key].is_number(), "{key}: {}", log[0]);
    }
    let json = project.run(&["evaluate", "run", "--json", "-"]).ok();
    let figures: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert!(figures["accuracy"].as_f64().unwrap() > 0.95, "{figures}");
    let test = log.iter().find(|line| line["split"] == "test").unwrap();
    for key in ["accuracy", "macro_f1"] {
        assert_eq!(test[key], figures[key], "{key}");
    }
    let loss = |value: &serde_json::Value| value["loss"].as_f64().unwrap();
    assert!((loss(test) - loss(&figures)).abs() < 1e-6);
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
    let project = Project::new(120);
    let weights = |out: &str, more: &[&str]| {
        project.train(out, &[&QUICK[..], more].concat()).ok();
        project.read(&format!("{out}/model.safetensors"))
    };
    let first = weights("a", &[]);
    assert!(first == weights("b", &[]), "the same seed");
    assert!(first == weights("c", &["threads=1"]), "one thread");
    let int8 = weights("int8", &["precision=int8"]);
    assert!(int8 == weights("int8-again", &["precision=int8", "threads=1"]), "int8, one thread");
    assert!(int8 != first, "int8");
    assert!(first != weights("d", &["seed=43"]), "another seed");
}

#[test]
fn an_interrupted_run_resumes_to_the_same_bytes() {
    let project = Project::new(400);
    let settings = ["epochs=30", "lr=1e-3", "batch_size=4", "accumulate=2", "log_every=1"];
    project.train("whole", &settings).ok();

    let arguments = project.train_arguments("data.csv", "run", &settings);
    let arguments: Vec<&str> = arguments.iter().map(|argument| &**argument).collect();
    let mut interruptions = 0;
    let mut resume: Vec<&str> = arguments[..7].to_vec();
    resume.push("--resume");
    let mut next = arguments.clone();
    loop {
        let child = pagebert(project.folder.path(), &next)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if interruptions < 2 {
            let before = lines_of(&project);
            let start = Instant::now();
            while lines_of(&project) < before + 40 && start.elapsed() < Duration::from_secs(60) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let pid = child.id().to_string();
            std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap();
        }
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        if output.status.success() {
            break;
        }
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(err.contains("interrupted after step") && err.contains("--resume"), "{err}");
        interruptions += 1;
        next = resume.clone();
    }
    assert!(interruptions >= 1, "it was over before it could be interrupted");
    assert!(project.read("run/model.safetensors") == project.read("whole/model.safetensors"));
    let log = |run: &str| -> Vec<(u64, String)> {
        json_lines(&project.text(&format!("{run}/metrics.jsonl")))
            .iter()
            .map(|line| (line["step"].as_u64().unwrap(), line["loss"].to_string()))
            .collect()
    };
    assert_eq!(log("run"), log("whole"));
    let said = project.run(&resume);
    said.fails(2, &["nothing to resume"]);
}

fn lines_of(project: &Project) -> usize {
    std::fs::read_to_string(project.path("run/metrics.jsonl"))
        .map(|text| text.lines().count())
        .unwrap_or(0)
}

/// A base in which one word's embedding overflows all that follows: training meets it in some step.
#[test]
fn a_loss_that_is_no_number_stops_and_keeps_the_best() {
    let project = Project::new(120);
    project.model_that_fails_on("watch", "base");
    // Several such rows, so that the training side has one.
    let odd: String = (0..8).map(|i| format!("watch it {i},yes\n")).collect();
    project.write("data.csv", reviews(400) + &odd);
    let base = ["train", "--data", "data.csv", "--base", "base", "--out", "run"];
    let said = project.run(&[&base[..], &["batch_size=4", "eval_every=1", "seed=3"]].concat());
    said.fails(1, &["so training stopped", "is kept", "lower lr"]);
    project.run(&["predict", "run", "good story"]).ok();
}

#[test]
fn what_exists_is_not_overwritten() {
    let project = Project::new(80);
    project.train("run", &["epochs=1"]).ok();
    let weights = project.read("run/model.safetensors");
    project.train("run", &["epochs=1", "seed=9"]).fails(2, &["--force"]);
    assert!(project.read("run/model.safetensors") == weights);
    project.train("run", &["epochs=1", "seed=9", "--force"]).ok();
    assert!(project.read("run/model.safetensors") != weights);
    project.write("run/notes.txt", "mine");
    project.train("run", &["epochs=1", "--force"]).fails(2, &["notes.txt"]);
    std::fs::create_dir(project.path("mine")).unwrap();
    project.write("mine/thesis.txt", "mine");
    project.train("mine", &["epochs=1", "--force"]).fails(2, &["did not write"]);
}

#[test]
fn max_steps_end_early_and_sides_may_be_files() {
    let project = Project::new(200);
    project.write(
        "valid.csv",
        reviews(250)
            .replace("great", "good")
            .lines()
            .enumerate()
            .filter(|(i, _)| *i == 0 || *i > 200)
            .map(|(_, line)| format!("{line}\n"))
            .collect::<String>(),
    );
    let more = ["--valid", "valid.csv", "--test", "valid.csv", "max_steps=3", "log_every=1"];
    project.train("run", &more).ok();
    let log = json_lines(&project.text("run/metrics.jsonl"));
    assert_eq!(log.iter().map(|line| line["step"].as_u64().unwrap()).max(), Some(3));
    let json = project.run(&["evaluate", "run", "--json", "-"]).ok();
    let figures: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(figures["rows"], 50);
}

#[test]
fn long_texts_are_windows_in_training_and_after() {
    let project = Project::new(60);
    let long: String = reviews(60)
        .lines()
        .enumerate()
        .map(|(i, line)| match i % 5 {
            1 => format!("{} {line}\n", "the film ".repeat(100)),
            _ => format!("{line}\n"),
        })
        .collect();
    project.write("data.csv", long);
    project.train("run", &["epochs=1", "max_windows=3", "stride=10"]).ok();
    let said = project.run(&["predict", "run", &"the film ".repeat(100)]).ok();
    let answer = &said.lines()[0];
    // 200 tokens in windows of 62 that overlap by 10.
    assert_eq!(answer["windows"], 4);
    assert_eq!(answer["tokens"], 200 + 3 * 10 + 4 * 2);
}

#[test]
fn an_old_checkpoint_is_a_base_too_and_what_it_lacks_is_told() {
    let project = Project::new(80);
    let base = fixture("tiny-old");
    let base = base.to_str().unwrap();
    let said = project
        .run(&["train", "--data", "data.csv", "--base", base, "--out", "run", "epochs=1"])
        .ok();
    assert!(said.err.contains("bert.pooler.dense.weight"), "{}", said.err);
    project.run(&["predict", "run", "good"]).ok();
}

#[test]
fn the_self_test_passes_on_the_cpu() {
    let project = Project::new(2);
    let said = project.run(&["devices", "--selftest"]).ok();
    assert!(said.out.contains("passed"), "{}", said.out);
    if !cfg!(feature = "cuda") {
        project
            .run(&["devices", "--selftest", "--device", "cuda:0"])
            .fails(2, &["--features cuda"]);
    }
}
