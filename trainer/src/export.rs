//! To be written.

use crate::cli::ExportArgs;
use crate::progress::Console;

/// `pagebert export`.
pub fn run(_args: &ExportArgs, _console: &Console) -> anyhow::Result<()> {
    anyhow::bail!("not there yet")
}
