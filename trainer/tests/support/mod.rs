//! What integration tests share: the command, data for the tiny model of tests/fixtures, the Hub.
#![allow(dead_code)] // Each test file uses a part.

pub mod hub;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use candle_core::{Device, Tensor};

/// The folder of a fixture.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// `pagebert` with arguments, in a folder.
pub fn pagebert(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagebert"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    for variable in ["PAGEBERT_WWW", "HF_ENDPOINT", "HF_TOKEN", "HF_HOME", "HF_HUB_OFFLINE"] {
        command.env_remove(variable);
    }
    // No test may find what another left, nor leave anything with the user.
    command.env("PAGEBERT_CACHE", folder.join("cache"));
    command
}

/// Runs it; what it said, with its exit code.
pub fn run(folder: &Path, arguments: &[&str]) -> Said {
    Said::of(pagebert(folder, arguments).output().unwrap())
}

/// Runs it with something on stdin.
pub fn run_with_input(folder: &Path, arguments: &[&str], input: &[u8]) -> Said {
    let mut child = pagebert(folder, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    Said::of(child.wait_with_output().unwrap())
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    fn of(output: Output) -> Said {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// What it said, which must have gone well.
    #[track_caller]
    pub fn ok(self) -> Said {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// What it said, which must have ended with this code and these words on stderr.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Said {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for words in words {
            assert!(self.err.contains(words), "{words}: {self:#?}");
        }
        self
    }

    /// stdout as JSON Lines.
    pub fn lines(&self) -> Vec<serde_json::Value> {
        json_lines(&self.out)
    }
}

pub fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Texts of words that the tiny model knows; the label follows from them.
pub fn reviews(rows: usize) -> String {
    const WORDS: [&str; 8] =
        ["film", "story", "the acting", "plot", "scene", "it was", "very", "never"];
    let mut csv = String::from("text,label\n");
    for i in 0..rows {
        let (opinion, label) = [("great love good", "yes"), ("terrible hate bad", "no")][i % 2];
        let (a, b) = (WORDS[i % 8], WORDS[i / 8 % 8]);
        csv += &format!("{a} {opinion} {b} {i},{label}\n");
    }
    csv
}

/// A folder with `data.csv`, and the arguments that train the tiny model on it.
pub struct Project {
    pub folder: tempfile::TempDir,
}

impl Project {
    pub fn new(rows: usize) -> Project {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("data.csv"), reviews(rows)).unwrap();
        Project { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    /// A copy of the tiny model in which one word's embedding overflows all that follows.
    pub fn model_that_fails_on(&self, word: &str, name: &str) {
        std::fs::create_dir(self.path(name)).unwrap();
        for file in ["config.json", "tokenizer.json", "model.safetensors"] {
            let content = std::fs::read(fixture("tiny").join(file)).unwrap();
            self.write(&format!("{name}/{file}"), content);
        }
        let tokenizer: serde_json::Value =
            serde_json::from_slice(&self.read(&format!("{name}/tokenizer.json"))).unwrap();
        let id = tokenizer["model"]["vocab"][word].as_u64().unwrap() as usize;
        let path = self.path(name).join("model.safetensors");
        let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        let table = tensors.get_mut("bert.embeddings.word_embeddings.weight").unwrap();
        let mut rows = table.to_vec2::<f32>().unwrap();
        rows[id].iter_mut().enumerate().for_each(|(i, x)| *x = 3e38 * (1.0 - (i % 2) as f32));
        *table = Tensor::new(rows, &Device::Cpu).unwrap();
        candle_core::safetensors::save(&tensors, &path).unwrap();
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        run(self.folder.path(), arguments)
    }

    /// `pagebert train --data data.csv --base TINY --out OUT …`
    pub fn train(&self, out: &str, more: &[&str]) -> Said {
        self.run(
            &self.train_arguments("data.csv", out, more).iter().map(|a| &**a).collect::<Vec<_>>(),
        )
    }

    pub fn train_arguments(&self, data: &str, out: &str, more: &[&str]) -> Vec<String> {
        let base = fixture("tiny").to_string_lossy().into_owned();
        let fixed = ["train", "--data", data, "--base", &base, "--out", out].map(String::from);
        fixed.into_iter().chain(more.iter().map(|argument| argument.to_string())).collect()
    }
}
