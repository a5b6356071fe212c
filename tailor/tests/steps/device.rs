//! Where these tests compute: on the device that `TAILOR_TEST_DEVICE` names (as `--device` does), or on the
//! CPU.

use candle_core::Device;
use std::sync::LazyLock;
use tailor::device::Choice;

/// The device.
pub fn device() -> &'static Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| {
        let choice = std::env::var("TAILOR_TEST_DEVICE").map_or(Choice::Cpu, |name| name.parse().unwrap());
        choice.open().unwrap().0
    });
    &DEVICE
}
