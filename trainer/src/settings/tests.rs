//! Settings: layers, names, types and ranges.

use super::*;

fn arguments(list: &[&str]) -> Vec<String> {
    list.iter().map(|argument| argument.to_string()).collect()
}

fn config(text: &str) -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("my.toml");
    std::fs::write(&file, text).unwrap();
    (folder, vec![file])
}

#[test]
fn the_default_file_is_valid_and_complete() {
    let settings = Settings::load(&[], &[]).unwrap();
    assert_eq!((settings.epochs, settings.lr, settings.batch_size), (3, 5e-5, 32));
    assert_eq!((settings.max_tokens, settings.stride, settings.max_windows), (512, 64, 8));
    assert_eq!(settings.dropout, None);
    assert_eq!(settings.precision, Precision::Auto);

    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let in_table = sorted(KEYS.iter().map(|(name, _)| name.to_string()).collect());
    let in_file = sorted(DEFAULT_TOML.parse::<Table>().unwrap().keys().cloned().collect());
    let in_struct = sorted(settings.to_toml().parse::<Table>().unwrap().keys().cloned().collect());
    assert_eq!(in_table, in_file);
    assert_eq!(in_table, in_struct);
}

#[test]
fn every_default_gives_its_reason() {
    for line in DEFAULT_TOML.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')) {
        let reason = line.split_once('#').map(|(_, reason)| reason.trim());
        assert!(reason.is_some_and(|reason| reason.len() > 10), "no reason: {line}");
    }
}

#[test]
fn the_experiments_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf/experiments");
    let files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 2);
    for file in files {
        assert_ne!(Settings::load(std::slice::from_ref(&file), &[]).unwrap(), Settings::default());
    }
}

#[test]
fn later_layers_win() {
    let (_folder, mut files) = config("epochs = 5\nlr = 1e-4\n");
    let (_other, second) = config("epochs = 6\n");
    files.extend(second);
    let settings = Settings::load(&files, &arguments(&["lr=2e-5", "seed=7", "seed=8"])).unwrap();
    assert_eq!((settings.epochs, settings.lr, settings.seed), (6, 2e-5, 8));
    assert_eq!(settings.batch_size, 32);
}

#[test]
fn what_is_written_reads_the_same() {
    let given =
        arguments(&["dropout=0.25", "precision=bf16", "lr=3e-05", "warmup=0", "max_steps=1e3"]);
    let settings = Settings::load(&[], &given).unwrap();
    assert_eq!((settings.dropout, settings.warmup, settings.max_steps), (Some(0.25), 0.0, 1000));
    let (_folder, files) = config(&settings.to_toml());
    assert_eq!(Settings::load(&files, &[]).unwrap(), settings);

    let (_folder, files) = config(&Settings::default().to_toml());
    assert_eq!(Settings::load(&files, &[]).unwrap(), Settings::default());
}

#[test]
fn a_checkpoints_dropout_can_be_asked_for_again() {
    let (_folder, files) = config("dropout = 0.3");
    let settings = Settings::load(&files, &arguments(&["dropout=checkpoint"])).unwrap();
    assert_eq!(settings.dropout, None);
}

#[test]
fn wrong_arguments_are_named_with_the_way_out() {
    for (argument, expected) in [
        ("lr=abc", "lr=abc: expected a number, like 5e-5"),
        ("lr=2", "lr=2: expected a number from 0.000000000001 to 1, like 5e-5"),
        ("lr=nan", "lr=nan: expected a number from 0.000000000001 to 1, like 5e-5"),
        ("lr=", "lr=: expected a number, like 5e-5"),
        ("epochs=0", "epochs=0: expected a whole number from 1 to 10000, like 3"),
        ("epochs=1.5", "epochs=1.5: expected a whole number from 1 to 10000, like 3"),
        ("seed=-1", "seed=-1: expected a whole number of 0 or more, like 42"),
        ("precision=fp16", "precision=fp16: expected one of auto, f32, bf16, int8"),
        (
            "dropout=off",
            "dropout=off: expected a number from 0 to 0.95, like 0.1, or \"checkpoint\"",
        ),
        ("batchsize=8", "batchsize=8: there is no setting `batchsize`; did you mean batch_size?"),
        (
            "learning_rate=1",
            "learning_rate=1: there is no setting `learning_rate`; did you mean lr?",
        ),
        (
            "reviews.csv",
            "`reviews.csv` is no setting: settings look like epochs=2, and files are given with \
             --data, --base and --out",
        ),
        (
            "stride=510",
            "stride=510 leaves windows of max_tokens=512 nothing new to read: give a stride below 510",
        ),
        (
            "test_fraction=0.85",
            "valid_fraction=0.1 and test_fraction=0.85 leave less than a tenth to train on",
        ),
    ] {
        let error = Settings::load(&[], &arguments(&[argument])).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let error = Settings::load(&[], &arguments(&["zzz=1"])).unwrap_err().to_string();
    assert!(
        error.starts_with("zzz=1: there is no setting `zzz`; there are epochs, max_steps, "),
        "{error}"
    );
}

#[test]
fn wrong_files_are_named_with_the_way_out() {
    for (text, expected) in [
        ("lr = \"abc\"", "lr = \"abc\": expected a number, like 5e-5"),
        ("epochs = true", "epochs = true: expected a whole number from 1 to 10000, like 3"),
        ("epoch = 1", "there is no setting `epoch`; did you mean epochs?"),
        ("[train]\nlr = 1e-5", "settings stand in no section: remove [train]"),
        ("lr = ", "this is not TOML: "),
    ] {
        let (_folder, files) = config(text);
        let error = Settings::load(&files, &[]).unwrap_err().to_string();
        let expected = format!("{}: {expected}", files[0].display());
        assert!(error.starts_with(&expected), "{error}\n  not\n{expected}");
    }
    let error = Settings::load(&[PathBuf::from("no/such.toml")], &[]).unwrap_err().to_string();
    assert!(error.starts_with("no/such.toml: the settings can't be read: "), "{error}");
}
