//! `pagebert train`: from a table of texts to a checkpoint.
//!
//! Owns the order of things: everything that can be wrong is looked for before the first step and
//! before the first file is written. The loop is in `session`.

mod announce;
pub mod engine;
mod finish;
mod folder;
mod interrupt;
mod measure;
mod plan;
mod prefetch;
mod prepare;
mod session;
mod state;
mod test_rows;
mod texts;
mod token_cache;
mod tokens;

use anyhow::Result;

use crate::UsageError;
use crate::cli::TrainArgs;
use crate::progress::Console;
use crate::run_record::RunRecord;
use crate::settings::Settings;

pub use plan::{Batching, Schedule};
pub use texts::{Texts, Windowing};

use folder::RunFolder;
use prepare::Prepared;
use session::Session;

/// Runs the command.
///
/// # Errors
/// [`UsageError`] and `DataError` for what the user can set right; anything else is a failure.
pub fn run(args: &TrainArgs, console: &Console) -> Result<()> {
    let settings = Settings::load(&args.config, &args.settings)?;
    let device = args.device.built()?;
    crate::inference::set_threads(settings.threads)?;
    if args.resume {
        let record = resumed(args, &settings)?;
        let folder = RunFolder { path: args.out.clone() };
        let saved = state::load(&args.out)?.ok_or_else(|| {
            UsageError(format!(
                "{} has nothing to resume: it is complete, or was stopped before its first save. \
                 --force starts anew",
                args.out.display()
            ))
        })?;
        let prepared =
            Prepared::new(args, record.settings.clone(), device, Some(&record), console)?;
        return Session::resume(prepared, folder, saved, console)?.train();
    }
    let folder = RunFolder::check_new(&args.out, args.force)?;
    let prepared = Prepared::new(args, settings, device, None, console)?;
    Session::start(prepared, folder, console)?.train()
}

/// The record of the run to go on with. Its settings hold; others can't be given any more.
fn resumed(args: &TrainArgs, given: &Settings) -> Result<RunRecord> {
    let shown = args.out.display();
    let record = RunRecord::read(&args.out)?.ok_or_else(|| {
        UsageError(format!("{shown} holds no run to resume. Leave --resume away to start one"))
    })?;
    let said_nothing = args.config.is_empty() && args.settings.is_empty();
    if !said_nothing && *given != record.settings {
        return Err(UsageError(format!(
            "--resume goes on with the settings in {shown}/run.toml, and others were given. Leave \
             them away, or start anew with --force"
        ))
        .into());
    }
    Ok(record)
}
