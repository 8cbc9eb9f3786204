//! Devices as this crate's users share them among threads.

use candle_core::{Device, Result};

/// The CUDA card of this number, from 0.
///
/// All threads put what they ask for on one stream, where things happen in the order in which they
/// were asked for. candle's own `Device::new_cuda` takes the stream of whichever thread asks, and
/// what one thread has asked for is not waited for when another reads it: on an H200 that gave
/// logits of other texts' memory.
///
/// # Errors
/// When there is no such card, or this build knows of none.
pub fn cuda(index: usize) -> Result<Device> {
    let device = Device::new_cuda_with_stream(index)?;
    #[cfg(feature = "cuda")]
    // SAFETY: candle's events order what happens on several streams, and this device has one. They
    // would be recorded twice for each of a step's thousands of operations.
    unsafe {
        device.as_cuda_device()?.disable_event_tracking();
    }
    Ok(device)
}
