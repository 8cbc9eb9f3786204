//! To be written.

use crate::cli::InspectArgs;
use crate::progress::Console;

/// `pagebert inspect`.
pub fn run(_args: &InspectArgs, _console: &Console) -> anyhow::Result<()> {
    anyhow::bail!("not there yet")
}
