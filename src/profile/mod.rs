//! Spans of kernels and layers, and what is made of them. Off by default: then a span costs one branch.

mod sinks;

pub use sinks::{chrome_trace, json, table};

use crate::cost::Cost;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

/// What a span covers.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A kernel launch: its row and what the problem costs.
    Kernel { row: &'static str, cost: Cost },
    /// A model, block or layer.
    Layer,
    /// Bytes to or from a device.
    Transfer { bytes: u64 },
}

/// Something that took time.
#[derive(Clone, Debug)]
pub struct Event {
    /// A kernel's problem as text, or a layer's name.
    pub name: String,
    pub what: What,
    /// Seconds since the profiler was made.
    pub start: f64,
    /// Seconds.
    pub seconds: f64,
    /// How many layers it lies in.
    pub depth: usize,
}

/// Collects events while it is on.
pub struct Profiler {
    on: AtomicBool,
    depth: AtomicUsize,
    began: Instant,
    events: Mutex<Vec<Event>>,
}

impl Default for Profiler {
    fn default() -> Profiler {
        Profiler {
            on: AtomicBool::new(false),
            depth: AtomicUsize::new(0),
            began: Instant::now(),
            events: Mutex::default(),
        }
    }
}

impl Profiler {
    /// Switches collection on or off.
    pub fn enable(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Whether events are collected.
    #[inline]
    pub fn enabled(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Everything collected so far, in order of start; the collection is empty afterwards.
    pub fn take(&self) -> Vec<Event> {
        let mut events = std::mem::take(&mut *self.events());
        events.sort_by(|a, b| a.start.total_cmp(&b.start).then(a.depth.cmp(&b.depth)));
        events
    }

    /// Opens a layer's span, closed when the guard is dropped. The name is made only while the profiler is on.
    #[inline]
    pub fn span(&self, name: impl FnOnce() -> String) -> Span<'_> {
        Span(self.enabled().then(|| {
            let depth = self.depth.fetch_add(1, Ordering::Relaxed);
            (self, Event { name: name(), what: What::Layer, start: self.now(), seconds: 0.0, depth })
        }))
    }

    /// Records a launch or a transfer that has just ended and took `seconds`.
    pub(crate) fn record(&self, name: String, what: What, seconds: f64) {
        let depth = self.depth.load(Ordering::Relaxed);
        let start = self.now() - seconds;
        self.events().push(Event { name, what, start, seconds, depth });
    }

    fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// An open span of a layer; nothing while the profiler is off.
pub struct Span<'a>(Option<(&'a Profiler, Event)>);

impl Drop for Span<'_> {
    fn drop(&mut self) {
        if let Some((profiler, mut event)) = self.0.take() {
            event.seconds = profiler.now() - event.start;
            profiler.depth.fetch_sub(1, Ordering::Relaxed);
            profiler.events().push(event);
        }
    }
}
