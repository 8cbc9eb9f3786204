//! The command line: what parses, what is refused, what help says.

use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("pagebert").chain(line.split_whitespace()))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_explains_itself_with_examples() {
    for command in Cli::command().get_subcommands_mut() {
        let name = command.get_name().to_string();
        let help = command.render_help().to_string();
        assert!(help.contains(&format!("pagebert {name}")), "{name} has no example:\n{help}");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{name}: {} has no help", argument.get_id());
        }
    }
}

#[test]
fn the_help_of_train_names_every_setting() {
    let defaults: toml::Table = crate::settings::DEFAULT_TOML.parse().unwrap();
    for key in defaults.keys() {
        assert!(examples::TRAIN.split_whitespace().any(|word| word == key), "{key}");
    }
}

#[test]
fn arguments_mean_what_they_say() {
    let cli = parse(
        "train --data d.csv --base hf:o/n --out r epochs=2 lr=1e-4 --config a.toml \
             --config b.toml --text-column title,body --delimiter ; --device cuda:1 -q",
    )
    .unwrap();
    assert_eq!(cli.verbosity(), Verbosity::Quiet);
    let Command::Train(args) = cli.command else { panic!("not train") };
    assert_eq!(args.settings, ["epochs=2", "lr=1e-4"]);
    assert_eq!(args.config, [PathBuf::from("a.toml"), PathBuf::from("b.toml")]);
    assert_eq!(args.device, DeviceSpec::Cuda(1));
    let read = args.read.options().unwrap().read;
    assert_eq!(read.text_columns, ["title", "body"]);
    assert_eq!((read.label_column.as_str(), read.delimiter), ("label", Some(b';')));
}

#[test]
fn contradictions_are_refused() {
    for line in [
        "train --data d --base b --out r --resume --force",
        "train --data d --out r",
        "evaluate r --split valid --data d.csv",
        "predict r text --data d.csv",
        "serve s --port 70000",
        "devices --device cuda",
        "devices --selftest --device tpu",
        "export r --out b --precision f64",
        "inspect d.csv -q -v",
        "",
    ] {
        let code = parse(line).map(|_| ()).unwrap_err().exit_code();
        assert_eq!(code, 2, "{line}");
    }
}
