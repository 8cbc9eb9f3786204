//! The `pagebert` command: parse, do it, say what went wrong. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use pagebert::UsageError;
use pagebert::cli::{Cli, Command};
use pagebert::data::DataError;
use pagebert::progress::Console;

// Training allocates and frees large buffers on every step, from every thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let console = Console::new(cli.verbosity());
    match run(&cli.command, &console) {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads stdout has seen enough, as in `pagebert predict … | head`.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", chain(&error));
            ExitCode::from(exit_code(&error))
        }
    }
}

fn run(command: &Command, console: &Console) -> anyhow::Result<()> {
    match command {
        Command::Inspect(args) => pagebert::inspect::run(args, console),
        Command::Train(args) => pagebert::train::run(args, console),
        Command::Evaluate(args) => pagebert::evaluate::run(args, console),
        Command::Predict(args) => pagebert::predict::run(args, console),
        Command::Export(args) => pagebert::export::run(args, console),
        Command::Site(args) => pagebert::site::run(args, console),
        Command::Serve(args) => pagebert::serve::run(args, console),
        Command::Devices(args) if args.selftest => {
            pagebert::selftest::run(args.device.unwrap_or_default().built()?, console)
        }
        Command::Devices(args) => pagebert::devices::run(args, console),
    }
}

/// 2 for what the user can set right in the command or the data, 1 for everything else.
fn exit_code(error: &anyhow::Error) -> u8 {
    // Asked of anyhow's error first: a message added as context is not in the chain under its type.
    let wrong_usage = error.downcast_ref::<UsageError>().is_some()
        || error.chain().any(|cause| cause.is::<UsageError>());
    let wrong_data = error
        .downcast_ref::<DataError>()
        .or_else(|| error.chain().find_map(|cause| cause.downcast_ref::<DataError>()))
        .is_some_and(|error| !matches!(error, DataError::Io { .. }));
    if wrong_usage || wrong_data { 2 } else { 1 }
}

/// Only where writing is the failure itself: a connection of the network breaks in other types.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let closed = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    error.downcast_ref::<std::io::Error>().is_some_and(closed)
        || error
            .downcast_ref::<serde_json::Error>()
            .is_some_and(|error| error.io_error_kind() == Some(std::io::ErrorKind::BrokenPipe))
}

/// The error and its causes. Some libraries repeat a cause in their own words: said once is enough.
fn chain(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text += &format!("\n  caused by: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn wrong_input_is_2_and_failure_is_1() {
        let usage = || UsageError("epochs=x".to_string());
        let io = || std::io::Error::other("disk");
        let missing = || DataError::NotFound { file: "x.csv".to_string() };
        let unreadable = || DataError::Io { file: "x.csv".to_string(), source: io() };
        for (error, expected) in [
            (anyhow!(usage()), 2),
            (anyhow!(usage()).context("in a context"), 2),
            (anyhow!(io()).context(usage()), 2),
            (anyhow!(missing()), 2),
            (anyhow!(missing()).context("in a context"), 2),
            (anyhow!(unreadable()), 1),
            (anyhow!(io()), 1),
        ] {
            assert_eq!(exit_code(&error), expected, "{error:?}");
        }
    }

    #[test]
    fn causes_are_told_once() {
        let error = Err::<(), _>(anyhow!("the disk is full"))
            .context("it failed: the disk is full")
            .context("RUN can't be written")
            .unwrap_err();
        assert_eq!(
            chain(&error),
            "error: RUN can't be written\n  caused by: it failed: the disk is full"
        );
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let closed = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(is_closed_pipe(&anyhow!(closed())));
        assert!(!is_closed_pipe(&anyhow!("closed")));
        assert!(!is_closed_pipe(&anyhow!(std::io::Error::other("disk"))));
    }
}
