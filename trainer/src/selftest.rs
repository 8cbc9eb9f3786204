//! To be written.

use crate::devices::DeviceSpec;
use crate::progress::Console;

/// `pagebert devices --selftest`.
pub fn run(_device: DeviceSpec, _console: &Console) -> anyhow::Result<()> {
    anyhow::bail!("not there yet")
}
