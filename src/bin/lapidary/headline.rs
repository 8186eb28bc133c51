//! `lapidary` without a command: the device, its limits, and the kernels that matter most.

use crate::bench::bench;
use crate::shared::{Shared, Status};
use lapidary::Result;
use lapidary::bench::{Call, Options, Pattern, Preset, Stop};
use std::time::Duration;

pub fn run(shared: &Shared) -> Result<Status> {
    let device = shared.device()?;
    let calls = Call::for_device(Preset::Headline.calls(&Pattern::any(), &Pattern::any())?, &device);
    let stop = Stop { budget: Duration::from_millis(500), ..Stop::default() };
    bench(&calls, &[device], Options { stop, row: None }, shared.json)
}
