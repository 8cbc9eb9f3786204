//! `pagebert serve`.

use std::fs;
use std::net::TcpStream;
use std::process::Command;

use super::rooms::*;

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
