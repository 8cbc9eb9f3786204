//! `pagebert site` and `pagebert serve`, as a user runs them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const WEIGHTS: &[u8] = b"weights";
const WASM: &[u8] = b"\0asm\x01\0\0\0";

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder with a small bundle and a small built page.
struct Rooms {
    folder: tempfile::TempDir,
}

impl Rooms {
    fn new() -> Rooms {
        let rooms = Rooms { folder: tempfile::tempdir().unwrap() };
        let entry = |path: &str, bytes: &[u8]| json!({"path": path, "bytes": bytes.len(), "sha256": sha256(bytes)});
        let wasm = format!("wasm/simd-{}.wasm", &sha256(WASM)[..16]);
        rooms.write("bundle/model.safetensors", WEIGHTS);
        rooms.write("bundle/tokenizer.txt", b"[PAD]\n");
        rooms.write_json(
            "bundle/manifest.json",
            &json!({
                "format": "pagebert-bundle", "version": 2, "labels": ["no", "yes"], "threshold": 0.0,
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

    fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    fn write(&self, relative: &str, bytes: &[u8]) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn write_json(&self, relative: &str, value: &Value) {
        self.write(relative, serde_json::to_string_pretty(value).unwrap().as_bytes());
    }

    fn json(&self, relative: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(relative)).unwrap()).unwrap()
    }

    fn edit_json(&self, relative: &str, edit: impl FnOnce(&mut Value)) {
        let mut value = self.json(relative);
        edit(&mut value);
        self.write_json(relative, &value);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pagebert"));
        command.args(arguments).current_dir(self.folder.path()).env("PAGEBERT_WWW", "www");
        command
    }

    fn pagebert(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Makes the site and fails the test if that fails.
    fn site(&self) {
        let output = self.pagebert(&["site", "bundle", "--out", "site"]);
        assert!(output.status.success(), "{}", stderr(&output));
    }

    fn listing(&self, relative: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(relative))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_site_is_the_page_around_the_bundle() {
    let rooms = Rooms::new();
    let output = rooms.pagebert(&["site", "bundle", "--out", "some/where/site"]);
    let said = stderr(&output);
    assert!(output.status.success() && output.stdout.is_empty(), "{said}");
    assert!(said.contains("some/where/site: 8 files, "), "{said}");
    assert!(said.contains("pagebert serve some/where/site"), "{said}");

    let weights = format!("model-{}.safetensors", &sha256(WEIGHTS)[..16]);
    let tokenizer = format!("tokenizer-{}.txt", &sha256(b"[PAD]\n")[..16]);
    assert_eq!(
        rooms.listing("some/where/site/model"),
        ["manifest.json".to_string(), weights.clone(), tokenizer.clone()]
    );
    assert_eq!(fs::read(rooms.path("some/where/site/model").join(&weights)).unwrap(), WEIGHTS);
    assert_eq!(rooms.listing("some/where"), ["site"], "something was left beside the site");

    let mut expected = rooms.json("bundle/manifest.json");
    expected["files"]["model"]["path"] = json!(weights);
    expected["files"]["tokenizer"]["path"] = json!(tokenizer);
    let written = rooms.json("some/where/site/model/manifest.json");
    assert_eq!(written.to_string(), expected.to_string(), "order or content has changed");
}

#[test]
fn a_site_replaces_itself_and_nothing_else() {
    let rooms = Rooms::new();
    rooms.site();
    rooms.write("www/new.js", b"export {};");
    fs::remove_file(rooms.path("www/page.js")).unwrap();
    rooms.site();
    assert_eq!(
        rooms.listing("site"),
        [".pagebert-site", "engine.json", "index.html", "model", "new.js", "wasm"]
    );

    rooms.write("site/robots.txt", b"mine");
    let output = rooms.pagebert(&["site", "bundle", "--out", "site"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("site holds robots.txt, which pagebert did not write"));
    assert_eq!(fs::read(rooms.path("site/robots.txt")).unwrap(), b"mine");

    let output = rooms.pagebert(&["site", "bundle", "--out", "site", "--force", "-q"]);
    assert!(output.status.success());
    assert_eq!(stderr(&output), "");
    assert!(!rooms.path("site/robots.txt").exists());

    rooms.write("photos/cat.jpg", b"cat");
    let output = rooms.pagebert(&["site", "bundle", "--out", "photos"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("photos holds files that pagebert did not write"));
    assert!(rooms.path("photos/cat.jpg").exists());
}

#[test]
fn an_empty_folder_and_a_sites_own_model_will_do() {
    let rooms = Rooms::new();
    fs::create_dir(rooms.path("site")).unwrap();
    rooms.site();
    let first = rooms.json("site/model/manifest.json");
    let output = rooms.pagebert(&["site", "site/model", "--out", "site", "--www", "site"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(rooms.json("site/model/manifest.json"), first);
}

#[cfg(unix)]
#[test]
fn other_users_may_read_the_site() {
    use std::os::unix::fs::PermissionsExt;

    let rooms = Rooms::new();
    rooms.site();
    fs::create_dir(rooms.path("plain")).unwrap();
    let mode = |relative| fs::metadata(rooms.path(relative)).unwrap().permissions().mode();
    assert_eq!(mode("site"), mode("plain"));
}

#[test]
fn a_bundle_or_page_that_is_not_whole_is_refused() {
    type Damage = fn(&Rooms);
    let cases: [(&str, Damage, i32, &str); 10] = [
        (
            "shorter",
            |rooms| rooms.write("bundle/model.safetensors", b"weight"),
            2,
            "has 6 bytes where the manifest says 7",
        ),
        (
            "changed",
            |rooms| rooms.write("bundle/model.safetensors", b"WEIGHTS"),
            2,
            "is not the file that the manifest describes",
        ),
        (
            "missing",
            |rooms| fs::remove_file(rooms.path("bundle/tokenizer.txt")).unwrap(),
            2,
            "tokenizer.txt is missing, though the manifest names it",
        ),
        (
            "no bundle",
            |rooms| fs::remove_file(rooms.path("bundle/manifest.json")).unwrap(),
            2,
            "bundle is no bundle: ",
        ),
        (
            "newer",
            |rooms| {
                rooms.edit_json("bundle/manifest.json", |manifest| manifest["version"] = json!(9))
            },
            2,
            "has version 9 of the format and this pagebert knows version 2",
        ),
        (
            "another format",
            |rooms| rooms.write("bundle/manifest.json", b"{}"),
            2,
            "is not a bundle's manifest",
        ),
        (
            "outside",
            |rooms| {
                rooms.edit_json("bundle/manifest.json", |manifest| {
                    manifest["files"]["model"]["path"] = json!("../secret");
                });
            },
            2,
            "`../secret` is no plain file name",
        ),
        (
            "no page",
            |rooms| fs::remove_file(rooms.path("www/engine.json")).unwrap(),
            2,
            "scripts/build-web",
        ),
        (
            "changed engine",
            |rooms| {
                let wasm = format!("www/wasm/simd-{}.wasm", &sha256(WASM)[..16]);
                rooms.write(&wasm, b"\0asm\x02\0\0\0");
            },
            1,
            "is not what engine.json describes",
        ),
        ("a file in the way", |rooms| rooms.write("site", b"a file"), 2, "site is a file"),
    ];
    for (name, damage, code, expected) in cases {
        let rooms = Rooms::new();
        damage(&rooms);
        let before = rooms.listing(".");
        let output = rooms.pagebert(&["site", "bundle", "--out", "site"]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{name}: {said}");
        assert!(said.starts_with("error: ") && said.contains(expected), "{name}: {said}");
        assert_eq!(rooms.listing("."), before, "{name}: something was written");
    }
}

/// A preview; ended when dropped.
struct Preview {
    child: Child,
    address: String,
}

impl Preview {
    fn start(rooms: &Rooms, extra: &[&str]) -> Preview {
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
    fn get(&self, path: &str, extra: &str) -> (u16, Vec<(String, String)>, Vec<u8>) {
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

fn header<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
    headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
}

#[test]
fn a_preview_sends_what_a_good_host_sends() {
    let rooms = Rooms::new();
    rooms.site();
    let preview = Preview::start(&rooms, &[]);
    let wasm = format!("/wasm/simd-{}.wasm", &sha256(WASM)[..16]);
    let weights = format!("/model/model-{}.safetensors", &sha256(WEIGHTS)[..16]);
    let fixed = "public, max-age=31536000, immutable";
    for (path, status, content_type, cache) in [
        ("/", 200, "text/html", "no-cache"),
        ("/index.html", 200, "text/html", "no-cache"),
        ("/page.js", 200, "text/javascript", "no-cache"),
        ("/model/manifest.json", 200, "application/json", "no-cache"),
        (wasm.as_str(), 200, "application/wasm", fixed),
        (weights.as_str(), 200, "application/octet-stream", fixed),
        ("/absent.js", 404, "", "no-cache"),
        ("/absent-0123456789abcdef.wasm", 404, "", "no-cache"),
        ("/../bundle/manifest.json", 404, "", "no-cache"),
    ] {
        let (found, headers, _) = preview.get(path, "");
        assert_eq!(found, status, "{path}");
        assert!(header(&headers, "content-type").starts_with(content_type), "{path}: {headers:?}");
        assert_eq!(header(&headers, "cache-control"), cache, "{path}");
        let policy = header(&headers, "content-security-policy");
        assert!(
            policy.starts_with("default-src 'self'; script-src 'self' 'wasm-unsafe-eval';"),
            "{path}: {policy}"
        );
        assert_eq!(header(&headers, "cross-origin-opener-policy"), "same-origin");
        assert_eq!(header(&headers, "cross-origin-embedder-policy"), "require-corp");
        assert_eq!(header(&headers, "x-content-type-options"), "nosniff");
    }
    assert_eq!(preview.get(&weights, "").2, WEIGHTS);
    let (status, _, part) = preview.get(&weights, "Range: bytes=2-4\r\n");
    assert_eq!((status, part.as_slice()), (206, &WEIGHTS[2..5]));
}

#[test]
fn compressed_twins_are_sent_to_who_reads_them() {
    let rooms = Rooms::new();
    rooms.site();
    rooms.write("site/page.js.br", b"brotli");
    let preview = Preview::start(&rooms, &[]);
    let (_, headers, body) = preview.get("/page.js", "Accept-Encoding: br\r\n");
    assert_eq!((header(&headers, "content-encoding"), body.as_slice()), ("br", &b"brotli"[..]));
    assert!(header(&headers, "content-type").starts_with("text/javascript"));
    assert_eq!(preview.get("/page.js", "").2, b"export {};");
}

#[test]
fn a_bucket_sends_files_alone() {
    let rooms = Rooms::new();
    rooms.site();
    rooms.write("site/page.js.br", b"brotli");
    let preview = Preview::start(&rooms, &["--as-bucket"]);
    let (status, headers, body) = preview.get("/page.js", "Accept-Encoding: br\r\n");
    assert_eq!((status, body.as_slice()), (200, &b"export {};"[..]));
    assert!(header(&headers, "content-type").starts_with("text/javascript"));
    assert!(!header(&headers, "last-modified").is_empty());
    for name in ["content-security-policy", "cross-origin-opener-policy", "cache-control"] {
        assert_eq!(header(&headers, name), "", "{name}");
    }
}

#[test]
fn twins_are_made_where_they_save_something() {
    let rooms = Rooms::new();
    let script = b"export const words = [];\n".repeat(400);
    rooms.write("www/long.js", &script);
    // Nothing to be saved: hashes of numbers.
    let noise: String = (0..100u8).map(|i| sha256(&[i])).collect();
    let noise: Vec<u8> = noise
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    rooms.write("www/noise.bin", &noise);
    let output = rooms.pagebert(&["site", "bundle", "--out", "site", "--precompress"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let twins: Vec<String> =
        rooms.listing("site").into_iter().filter(|name| name.ends_with(".br")).collect();
    assert_eq!(twins, ["long.js.br"]);

    let preview = Preview::start(&rooms, &[]);
    let (_, headers, body) = preview.get("/long.js", "Accept-Encoding: br\r\n");
    assert_eq!(header(&headers, "content-encoding"), "br");
    let mut text = Vec::new();
    brotli::BrotliDecompress(&mut body.as_slice(), &mut text).unwrap();
    assert_eq!(text, script);

    // They belong to the site, which may be made again without them.
    rooms.site();
    assert!(!rooms.path("site/long.js.br").exists());
    let output =
        rooms.pagebert(&["site", "bundle", "--out", "site", "--www", "site", "--precompress"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!rooms.path("site/long.js.br.br").exists());
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_preview_at_once_and_well() {
    let rooms = Rooms::new();
    rooms.site();
    for signal in ["-INT", "-TERM"] {
        let mut preview = Preview::start(&rooms, &[]);
        // An idle connection, such as a browser keeps, must not hold it up.
        let _idle = TcpStream::connect(&preview.address).unwrap();
        let id = preview.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        assert!(preview.child.wait().unwrap().success(), "{signal}");
    }
}

#[test]
fn a_taken_port_is_told_with_a_free_one() {
    let rooms = Rooms::new();
    rooms.site();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = rooms.pagebert(&["serve", "site", "--port", &port.to_string()]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.starts_with(&format!(
            "error: port {port} on 127.0.0.1 is taken by another program: --port "
        )),
        "{said}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn what_is_no_site_is_refused_with_the_way_out() {
    let rooms = Rooms::new();
    fs::create_dir(rooms.path("empty")).unwrap();
    for (arguments, expected) in [
        (&["serve", "absent"][..], "absent: there is no such folder"),
        (&["serve", "empty"], "empty has no index.html"),
        (&["serve", "bundle"], "pagebert site bundle --out SITE"),
        (&["serve", "www", "--host", "203.0.113.7"], "--host 203.0.113.7 is no address"),
    ] {
        let output = rooms.pagebert(arguments);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn the_page_is_found_beside_the_program() {
    let rooms = Rooms::new();
    let program = Path::new(env!("CARGO_BIN_EXE_pagebert"));
    for place in ["prefix/bin", "tree/target/release", "unpacked"] {
        let folder = rooms.path(place);
        fs::create_dir_all(&folder).unwrap();
        // By another process: a test that starts a command at this moment would hand a file that is
        // open for writing here down to it, and what is open for writing can't be run.
        let copied = Command::new("cp").arg(program).arg(folder.join("pagebert")).status();
        assert!(copied.unwrap().success());
        let page = match place {
            "prefix/bin" => "prefix/share/pagebert/www",
            "tree/target/release" => "tree/target/www",
            _ => "unpacked/www",
        };
        fs::create_dir_all(rooms.path(page).parent().unwrap()).unwrap();
        fs::rename(rooms.path("www"), rooms.path(page)).unwrap();
        // Only this page has it: another one, found further off, would not.
        rooms.write(&format!("{page}/here.txt"), place.as_bytes());
        let output = Command::new(folder.join("pagebert"))
            .args(["site", "bundle", "--out", "site"])
            .current_dir(rooms.folder.path())
            .env_remove("PAGEBERT_WWW")
            .output()
            .unwrap();
        assert!(output.status.success(), "{place}: {}", stderr(&output));
        assert_eq!(fs::read(rooms.path("site/here.txt")).unwrap(), place.as_bytes());
        fs::rename(rooms.path(page), rooms.path("www")).unwrap();
    }
}
