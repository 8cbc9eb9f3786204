//! To be written.

use crate::cli::PredictArgs;
use crate::progress::Console;

/// `pagebert predict`.
pub fn run(_args: &PredictArgs, _console: &Console) -> anyhow::Result<()> {
    anyhow::bail!("not there yet")
}
