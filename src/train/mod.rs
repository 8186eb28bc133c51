//! Training: the loop around a loss. Parameters are f32 masters; a step puts them on the tape as leaves, walks the loss
//! back, clips, and updates them in place.
//!
//! The loop knows no model: it is handed a function from leaves and a batch to a loss.

mod data;
mod lora;
mod rows;
mod schedule;
mod store;
mod trainer;

pub use data::{Batch, Example, Examples};
pub use lora::Lora;
pub use rows::{Source, read_jsonl};
pub use schedule::{Decay, Schedule};
pub use trainer::{Report, Settings, Trainer};
