//! Bases from the Hub, against a small server on loopback that answers as the Hub does.

mod support;

use std::path::Path;

use pagebert::UsageError;
use pagebert::base::{BaseFiles, Hub, TokenizerFile};
use pagebert::progress::{Console, Verbosity};
use support::hub::{COMMIT, FakeHub, Fault, OTHER_COMMIT, WEIGHTS};

const MODEL: &str = "hf:org/tiny";

/// A server, an empty cache, and the way to them.
struct Setup {
    server: FakeHub,
    cache: tempfile::TempDir,
    hub: Hub,
}

fn setup() -> Setup {
    let server = FakeHub::start();
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub {
        endpoint: Some(server.url()),
        cache: Some(cache.path().to_path_buf()),
        token: Some("hf_right".to_string()),
        offline: false,
    };
    Setup { server, cache, hub }
}

fn resolve(hub: &Hub, base: &str) -> anyhow::Result<BaseFiles> {
    hub.resolve(base, &Console::new(Verbosity::Quiet))
}

/// The whole message, and whether the user can set it right.
fn refusal(hub: &Hub, base: &str) -> (String, bool) {
    let error = resolve(hub, base).unwrap_err();
    let usage = error.downcast_ref::<UsageError>().is_some();
    (format!("{error:#}"), usage)
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_model_is_fetched_into_the_shared_cache() {
    let Setup { server, cache, hub } = setup();
    let files = resolve(&hub, MODEL).unwrap();

    assert_eq!(files.name, format!("hf:org/tiny@{COMMIT}"));
    assert_eq!(std::fs::read(&files.weights).unwrap(), WEIGHTS);
    assert_eq!(text(&files.config), r#"{"hidden_size": 4}"#);
    let TokenizerFile::Json(tokenizer) = &files.tokenizer else { panic!("{:?}", files.tokenizer) };
    assert_eq!(text(tokenizer), r#"{"model": {}}"#);
    assert_eq!(files.tokenizer_config, None);

    // The layout that the Python library reads and writes.
    let folder = cache.path().join("models--org--tiny");
    assert_eq!(text(&folder.join("refs/main")), COMMIT);
    assert_eq!(files.weights, folder.join("snapshots").join(COMMIT).join("model.safetensors"));
    assert!(server.requests().iter().all(|request| request.token.as_deref() == Some("hf_right")));
}

#[test]
fn what_is_in_the_cache_is_not_fetched_again() {
    let Setup { server, cache: _cache, hub } = setup();
    let first = resolve(&hub, MODEL).unwrap();
    server.forget_requests();
    assert_eq!(resolve(&hub, MODEL).unwrap(), first);
    let bodies: Vec<_> = server.requests().into_iter().filter(|r| r.method == "GET").collect();
    assert!(bodies.is_empty(), "{bodies:?}");
}

#[test]
fn offline_mode_uses_the_cache_and_makes_no_request() {
    let Setup { server, cache: _cache, hub } = setup();
    let first = resolve(&hub, MODEL).unwrap();
    server.forget_requests();
    let offline = Hub { offline: true, ..hub };
    assert_eq!(resolve(&offline, MODEL).unwrap(), first);

    let (message, usage) = refusal(&offline, "hf:org/other");
    assert!(message.contains("config.json is not in the cache at"), "{message}");
    assert!(message.contains("HF_HUB_OFFLINE") && usage, "{message}");
    assert!(server.requests().is_empty());
}

#[test]
fn without_a_network_the_cache_serves() {
    let Setup { server, cache, hub } = setup();
    let first = resolve(&hub, MODEL).unwrap();
    drop(server);
    assert_eq!(resolve(&hub, MODEL).unwrap(), first);

    let empty = tempfile::tempdir().unwrap();
    let (message, usage) = refusal(&Hub { cache: Some(empty.path().to_path_buf()), ..hub }, MODEL);
    assert!(message.contains("can't be reached. Check the network"), "{message}");
    assert!(!usage);
    drop(cache);
}

#[test]
fn a_revision_is_another_commit() {
    let Setup { server: _server, cache, hub } = setup();
    for revision in ["v2", "refs/pr/1", OTHER_COMMIT] {
        let files = resolve(&hub, &format!("{MODEL}@{revision}")).unwrap();
        assert_eq!(files.name, format!("hf:org/tiny@{OTHER_COMMIT}"), "{revision}");
        assert_eq!(text(&files.config), r#"{"hidden_size": 8}"#);
        // This commit has an old tokenizer.
        let TokenizerFile::Vocab(vocab) = &files.tokenizer else { panic!("{:?}", files.tokenizer) };
        assert_eq!(text(vocab), "[PAD]\n[UNK]\n");
        assert!(files.tokenizer_config.is_some());
    }
    assert_eq!(text(&cache.path().join("models--org--tiny/refs/v2")), OTHER_COMMIT);
}

#[test]
fn wrong_names_are_told_apart() {
    let Setup { server, cache: _cache, hub } = setup();
    for (base, expected) in [
        ("hf:org/absent", "hf:org/absent: there is no such model at "),
        ("hf:org/tiny@v9", "hf:org/tiny@v9: the model has no branch, tag or commit `v9`"),
        ("hf:org/empty", "hf:org/empty has no config.json"),
        (
            "hf:org/pickled",
            "hf:org/pickled has its weights as pytorch_model.bin, and pagebert reads",
        ),
        ("hf:org/mute", "hf:org/mute has neither tokenizer.json nor vocab.txt"),
        ("hf:org/tiny/x", "hf:org/tiny/x: expected hf:org/name"),
    ] {
        let (message, usage) = refusal(&hub, base);
        assert!(message.starts_with(expected), "{message}\n  not\n{expected}");
        assert!(usage, "{message}");
    }
    assert!(server.requests().iter().all(|request| !request.path.contains("tiny/x")));
}

#[test]
fn a_login_that_is_missing_or_too_weak_is_explained() {
    let Setup { server, cache: _cache, hub } = setup();
    let wrong = Hub { token: Some("hf_wrong".to_string()), ..hub.clone() };
    let (message, usage) = refusal(&wrong, "hf:org/private");
    assert!(message.contains("(401)") && message.contains("set HF_TOKEN"), "{message}");
    assert!(usage);

    let (message, usage) = refusal(&hub, "hf:org/gated");
    let page = format!("Accept its terms at {}/org/gated", server.url());
    assert!(message.contains("(403)") && message.contains(&page), "{message}");
    assert!(usage);

    let files = resolve(&hub, "hf:org/private").unwrap();
    assert_eq!(std::fs::read(files.weights).unwrap(), WEIGHTS);
}

#[test]
fn a_download_that_breaks_off_is_not_kept() {
    let Setup { server, cache: _cache, hub } = setup();
    server.fault(Some(Fault::Truncated));
    let (message, usage) = refusal(&hub, MODEL);
    assert!(message.contains("the download of model.safetensors broke off"), "{message}");
    assert!(!usage);

    server.fault(None);
    assert_eq!(std::fs::read(resolve(&hub, MODEL).unwrap().weights).unwrap(), WEIGHTS);
}

#[test]
fn what_is_not_the_announced_file_is_not_kept() {
    for fault in [Fault::ErrorPage, Fault::OtherBytes] {
        let Setup { server, cache: _cache, hub } = setup();
        server.fault(Some(fault));
        let (message, usage) = refusal(&hub, MODEL);
        assert!(message.contains("model.safetensors arrived broken"), "{message}");
        assert!(!usage);

        server.fault(None);
        assert_eq!(std::fs::read(resolve(&hub, MODEL).unwrap().weights).unwrap(), WEIGHTS);
    }
}

#[test]
fn a_wrong_endpoint_is_named() {
    let hub = Hub { endpoint: Some("not an address".to_string()), ..Hub::default() };
    let (message, usage) = refusal(&hub, MODEL);
    assert!(message.starts_with("HF_ENDPOINT is no address") && usage, "{message}");
}

/// Runs `resolve_as_the_environment_says` with an environment, in a process of its own.
fn in_environment(variables: &[(&str, &str)]) -> (bool, String) {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "resolve_as_the_environment_says", "--ignored", "--nocapture"]);
    for name in ["HF_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_OFFLINE"] {
        command.env_remove(name);
    }
    let output = command.envs(variables.iter().copied()).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
#[ignore = "is run by others, with an environment"]
fn resolve_as_the_environment_says() {
    let files = pagebert::base::resolve("hf:org/private", &Console::new(Verbosity::Quiet)).unwrap();
    println!("resolved {}", files.weights.display());
}

#[test]
fn the_environment_is_honoured() {
    let server = FakeHub::start();
    let home = tempfile::tempdir().unwrap();
    let (home, url) = (home.path().to_str().unwrap(), server.url());
    let online = [("HF_ENDPOINT", url.as_str()), ("HF_HOME", home), ("HF_TOKEN", "hf_right")];
    let weights = Path::new(home)
        .join("hub/models--org--private/snapshots")
        .join(COMMIT)
        .join("model.safetensors");
    let expected = format!("resolved {}", weights.display());

    let (_, output) = in_environment(&online);
    assert!(output.contains(&expected), "{output}");

    server.forget_requests();
    let mut offline = online.to_vec();
    offline.push(("HF_HUB_OFFLINE", "1"));
    let (_, output) = in_environment(&offline);
    assert!(output.contains(&expected), "{output}");
    assert!(server.requests().is_empty());

    let (fine, _) = in_environment(&online[..2]);
    assert!(!fine, "a private model was read without HF_TOKEN");
}
