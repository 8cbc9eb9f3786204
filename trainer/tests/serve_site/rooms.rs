//! A folder with a small bundle and a small built page, and a preview of the site made of them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const WEIGHTS: &[u8] = b"weights";
pub const WASM: &[u8] = b"\0asm\x01\0\0\0";

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder with a small bundle and a small built page.
pub struct Rooms {
    pub folder: tempfile::TempDir,
}

impl Rooms {
    pub fn new() -> Rooms {
        let rooms = Rooms { folder: tempfile::tempdir().unwrap() };
        let entry = |path: &str, bytes: &[u8]| json!({"path": path, "bytes": bytes.len(), "sha256": sha256(bytes)});
        let wasm = format!("wasm/simd-{}.wasm", &sha256(WASM)[..16]);
        rooms.write("bundle/model.safetensors", WEIGHTS);
        rooms.write("bundle/tokenizer.txt", b"[PAD]\n");
        rooms.write_json(
            "bundle/manifest.json",
            &json!({
                "format": "pagebert-bundle", "version": pagebert_model::bundle::VERSION, "labels": ["no", "yes"], "threshold": 0.0,
                "files": {
                    "model": entry("model.safetensors", WEIGHTS),
                    "tokenizer": entry("tokenizer.txt", b"[PAD]\n"),
                },
                "metrics": null, "unknown": {"kept": [1, 2]},
            }),
        );
        rooms.write("www/index.html", b"<!doctype html>");
        rooms.write("www/page.js", b"export {};");
        rooms.write("www/wasm/simd.js", b"export {};");
        rooms.write(&format!("www/{wasm}"), WASM);
        let build = json!({
            "js": "wasm/simd.js", "wasm": wasm, "bytes": WASM.len(), "sha256": sha256(WASM),
        });
        rooms.write_json("www/engine.json", &json!({"builds": {"simd": build}}));
        rooms
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub fn write(&self, relative: &str, bytes: &[u8]) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub fn write_json(&self, relative: &str, value: &Value) {
        self.write(relative, serde_json::to_string_pretty(value).unwrap().as_bytes());
    }

    pub fn json(&self, relative: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(relative)).unwrap()).unwrap()
    }

    pub fn edit_json(&self, relative: &str, edit: impl FnOnce(&mut Value)) {
        let mut value = self.json(relative);
        edit(&mut value);
        self.write_json(relative, &value);
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pagebert"));
        command.args(arguments).current_dir(self.folder.path()).env("PAGEBERT_WWW", "www");
        command
    }

    pub fn pagebert(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Makes the site and fails the test if that fails.
    pub fn site(&self) {
        let output = self.pagebert(&["site", "bundle", "--out", "site"]);
        assert!(output.status.success(), "{}", stderr(&output));
    }

    pub fn listing(&self, relative: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(relative))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A preview; ended when dropped.
pub struct Preview {
    pub child: Child,
    pub address: String,
}

impl Preview {
    pub fn start(rooms: &Rooms, extra: &[&str]) -> Preview {
        let mut child = rooms
            .command(&["serve", "site", "--port", "0"])
            .args(extra)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("http://").unwrap().trim_end_matches('/');
        let address = address.to_string();
        Preview { child, address }
    }

    /// Status and headers, names in lower case, and the body.
    pub fn get(&self, path: &str, extra: &str) -> (u16, Vec<(String, String)>, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let host = &self.address;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{extra}\r\n")
            .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_string()))
            .collect();
        (status, headers, answer[end + 4..].to_vec())
    }
}

impl Drop for Preview {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn header<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
    headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
}
