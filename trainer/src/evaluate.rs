//! To be written.

use crate::cli::EvaluateArgs;
use crate::progress::Console;

/// `pagebert evaluate`.
pub fn run(_args: &EvaluateArgs, _console: &Console) -> anyhow::Result<()> {
    anyhow::bail!("not there yet")
}
