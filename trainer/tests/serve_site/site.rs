//! `pagebert site`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::rooms::*;

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
            "has version 9 of the format and this pagebert knows version 3",
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
