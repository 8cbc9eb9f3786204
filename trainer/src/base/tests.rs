//! Bases: names and folders. What goes over the network is in tests/hub.rs.

use super::*;

#[test]
fn hub_names_are_read() {
    for (text, owner, name, revision) in [
        ("google-bert/bert-base-uncased", "google-bert", "bert-base-uncased", None),
        ("bert-base-uncased", "", "bert-base-uncased", None),
        ("o/n@v1.0", "o", "n", Some("v1.0")),
        ("o/n@refs/pr/1", "o", "n", Some("refs/pr/1")),
    ] {
        let model = HubModel::parse(text).unwrap();
        assert_eq!((model.owner.as_str(), model.name.as_str()), (owner, name));
        assert_eq!(model.revision.as_deref(), revision);
        assert_eq!(model.to_string(), format!("hf:{text}"));
    }
    for text in ["", "o/", "a/b/c", "o/n@", "o/n@../x", "../x", "o/n m", "https://x/y", "o/n@a//b"]
    {
        assert!(HubModel::parse(text).is_err(), "{text}");
    }
}

fn folder_with(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        std::fs::write(folder.path().join(file), b"x").unwrap();
    }
    folder
}

#[test]
fn a_folder_is_a_base() {
    let folder = folder_with(&["config.json", "model.safetensors", "vocab.txt", "tokenizer.json"]);
    let files = resolve_folder(folder.path()).unwrap();
    assert_eq!(files.tokenizer, TokenizerFile::Json(folder.path().join("tokenizer.json")));
    assert_eq!(files.tokenizer_config, None);
    assert_eq!(files.weights, folder.path().join("model.safetensors"));

    let folder =
        folder_with(&["config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"]);
    let files = resolve_folder(folder.path()).unwrap();
    assert_eq!(files.tokenizer, TokenizerFile::Vocab(folder.path().join("vocab.txt")));
    assert_eq!(files.tokenizer_config, Some(folder.path().join("tokenizer_config.json")));
}

#[test]
fn an_incomplete_folder_says_what_it_lacks() {
    for (files, expected) in [
        (&[][..], "has no config.json. Give the folder of a Hugging Face"),
        (&["manifest.json"], "has no config.json. It is a bundle"),
        (&["config.json", "model.safetensors"], "has neither tokenizer.json nor vocab.txt"),
        (&["config.json", "vocab.txt"], "has no model.safetensors"),
        (
            &["config.json", "vocab.txt", "pytorch_model.bin"],
            "has its weights as pytorch_model.bin, and pagebert reads model.safetensors alone. Convert",
        ),
    ] {
        let folder = folder_with(files);
        let error = resolve_folder(folder.path()).unwrap_err().to_string();
        let expected = format!("{} {expected}", folder.path().display());
        assert!(error.starts_with(&expected), "{error}\n  not\n{expected}");
    }
}

#[test]
fn a_missing_folder_may_be_a_hub_name() {
    let error = resolve_folder(Path::new("org/name")).unwrap_err().to_string();
    assert_eq!(
        error,
        "org/name: there is no such folder. For a model of the Hugging Face Hub write hf:org/name"
    );
    let error = resolve_folder(Path::new("./name")).unwrap_err().to_string();
    assert!(error.contains("Give a folder with config.json"), "{error}");
}
