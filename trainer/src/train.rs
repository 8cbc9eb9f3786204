//! To be written.

use crate::cli::TrainArgs;
use crate::progress::Console;

/// `pagebert train`.
pub fn run(_args: &TrainArgs, _console: &Console) -> anyhow::Result<()> {
    anyhow::bail!("not there yet")
}
