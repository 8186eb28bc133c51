//! The encoder that everything is recorded into, and what goes with it: parameters, staging, readback, the clock.

use super::device::Device;
use super::memory::Buffer;
use crate::error::{Error, Result};
use std::time::Instant;
use wgpu::util::StagingBelt;

/// Bytes of a dispatch's parameters, the places of its bindings included.
pub(super) const PARAMS_BYTES: u64 = 256;
/// Dispatches of one submission: more than a token of a large decoder has.
const DISPATCHES: u64 = 4096;
/// Bytes of one staging buffer.
const STAGING_CHUNK: u64 = 4 << 20;
/// Uploaded bytes after which the queue is submitted and waited for, so that staging stays small beside a model.
const STAGING_LIMIT: u64 = 64 << 20;
/// Moments that the clock keeps; the oldest are overwritten.
const STAMPS: u32 = 4096;

/// A moment in the queue.
#[derive(Clone, Copy, Debug)]
pub enum Stamp {
    /// By the adapter's clock: its number since the device was opened.
    Adapter(u64),
    /// By the host's, where the adapter has none: after everything before had run.
    Host(Instant),
}

/// What was recorded and not yet submitted.
pub(super) struct Recorder {
    /// Before `encoder`: an open pass must be closed first.
    pass: Option<wgpu::ComputePass<'static>>,
    encoder: Option<wgpu::CommandEncoder>,
    /// The parameters of the dispatches since the last submission.
    params: Vec<u8>,
    pub params_buffer: wgpu::Buffer,
    /// From one dispatch's parameters to the next.
    params_stride: u64,
    belt: StagingBelt,
    staged_bytes: u64,
    readback: Option<wgpu::Buffer>,
    /// What indexes out of range are reported in.
    pub faults: wgpu::Buffer,
    pub fault_ops: Vec<&'static str>,
    clock: Option<Clock>,
    stamps: u64,
    pub submissions: u64,
}

struct Clock {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    seconds_per_tick: f64,
}

/// Words of the fault report: how many, and value, place, limit and op of one of them.
const FAULT_BYTES: u64 = 32;

impl Recorder {
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue, timestamps: bool, software: bool) -> Recorder {
        let buffer = |label, size, usage| {
            device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
        };
        let params_stride = PARAMS_BYTES.max(u64::from(device.limits().min_uniform_buffer_offset_alignment));
        let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        Recorder {
            pass: None,
            encoder: None,
            params: Vec::new(),
            params_buffer: buffer(
                "parameters",
                params_stride * DISPATCHES,
                wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            ),
            params_stride,
            belt: StagingBelt::new(device.clone(), STAGING_CHUNK),
            staged_bytes: 0,
            readback: None,
            faults: buffer("faults", FAULT_BYTES, usage | wgpu::BufferUsages::STORAGE),
            fault_ops: Vec::new(),
            clock: timestamps
                .then(|| Clock {
                    set: device.create_query_set(&wgpu::QuerySetDescriptor {
                        label: Some("clock"),
                        ty: wgpu::QueryType::Timestamp,
                        count: STAMPS,
                    }),
                    resolved: buffer("clock", 512, usage | wgpu::BufferUsages::QUERY_RESOLVE),
                    // A software driver says 1 ns and means it; so do all others, in their own unit.
                    seconds_per_tick: f64::from(queue.get_timestamp_period()) * 1e-9,
                })
                .filter(|c| c.seconds_per_tick > 0.0 || software),
            stamps: 0,
            submissions: 0,
        }
    }
}

impl Device {
    /// The encoder, with no pass open.
    fn encoder<'a>(&self, r: &'a mut Recorder) -> &'a mut wgpu::CommandEncoder {
        r.pass = None;
        r.encoder.get_or_insert_with(|| self.raw().create_command_encoder(&Default::default()))
    }

    /// The open compute pass.
    fn pass<'a>(&self, r: &'a mut Recorder) -> &'a mut wgpu::ComputePass<'static> {
        if r.pass.is_none() {
            let pass = self.encoder(r).begin_compute_pass(&Default::default()).forget_lifetime();
            r.pass = Some(pass);
        }
        r.pass.as_mut().expect("just opened")
    }

    /// Records a dispatch.
    pub(super) fn record(
        &self,
        pipeline: &wgpu::ComputePipeline,
        bindings: &wgpu::BindGroup,
        params: &[u32],
        grid: [u32; 3],
    ) -> Result<()> {
        let mut r = self.recorder();
        if r.params.len() as u64 >= r.params_stride * DISPATCHES {
            self.submit(&mut r)?;
        }
        let at = r.params.len() as u32;
        r.params.extend_from_slice(bytemuck::cast_slice(params));
        let filled = u64::from(at) + r.params_stride;
        r.params.resize(filled as usize, 0);
        let pass = self.pass(&mut r);
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, bindings, &[]);
        pass.set_bind_group(1, self.params_group(), &[at]);
        pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
        Ok(())
    }

    /// Hands what was recorded to the queue.
    fn submit(&self, r: &mut Recorder) -> Result<()> {
        r.pass = None;
        if let Some(encoder) = r.encoder.take() {
            r.belt.finish();
            // The one write that may pass the encoder: only the dispatches of this submission read it, and the queue puts
            // it behind all submissions before.
            if !r.params.is_empty() {
                self.queue().write_buffer(&r.params_buffer, 0, &r.params);
            }
            self.queue().submit([encoder.finish()]);
            r.submissions += 1;
            r.belt.recall();
            r.params.clear();
            r.staged_bytes = 0;
            self.poll(wgpu::PollType::Poll)?;
        }
        self.healthy()
    }

    fn wait(&self, r: &mut Recorder) -> Result<()> {
        self.submit(r)?;
        self.poll(wgpu::PollType::wait_indefinitely())?;
        self.healthy()
    }

    fn poll(&self, poll: wgpu::PollType) -> Result<()> {
        self.raw().poll(poll).map(drop).map_err(|e| self.failed(format!("waiting for it: {e}")))
    }

    /// Waits until everything recorded has run.
    pub(super) fn synchronise(&self) -> Result<()> {
        let mut r = self.recorder();
        if r.fault_ops.is_empty() {
            return self.wait(&mut r);
        }
        let faults = r.faults.clone();
        self.fetch(&mut r, &[(&faults, 0, FAULT_BYTES)], |r, bytes| self.judge(r, bytes))
    }

    /// Records an upload.
    pub(super) fn upload(&self, to: &Buffer, at: usize, from: &[u8]) -> Result<()> {
        let end = at + from.len();
        // Copies are of whole words. What follows the buffer's contents may be overwritten with zeros only where nothing
        // follows; a part within a tensor of narrow elements keeps its neighbours.
        let (first, last) = (at & !3, end.next_multiple_of(4));
        if first != at || (last != end && last as u64 + 256 < to.raw.size()) {
            let mut words = vec![0; last - first];
            self.download(to, first, &mut words)?;
            words[at - first..end - first].copy_from_slice(from);
            return self.upload(to, first, &words);
        }
        let mut r = self.recorder();
        for (i, piece) in from.chunks(STAGING_CHUNK as usize).enumerate() {
            let size = piece.len().next_multiple_of(4) as u64;
            if r.staged_bytes + size > STAGING_LIMIT {
                self.wait(&mut r)?;
            }
            r.staged_bytes += size;
            self.encoder(&mut r);
            let Recorder { belt, encoder, .. } = &mut *r;
            let encoder = encoder.as_mut().expect("just opened");
            let place = (at + i * STAGING_CHUNK as usize) as u64;
            let size = wgpu::BufferSize::new(size).expect("pieces are not empty");
            let mut view = belt.write_buffer(encoder, &to.raw, place, size);
            view.slice(..piece.len()).copy_from_slice(piece);
        }
        Ok(())
    }

    /// Records zeros.
    pub(super) fn clear(&self, buffer: &Buffer, at: usize, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let mut r = self.recorder();
        let size = (bytes as u64).next_multiple_of(4).min(buffer.raw.size() - at as u64);
        self.encoder(&mut r).clear_buffer(&buffer.raw, at as u64, Some(size));
        Ok(())
    }

    /// Copies to the host, after everything recorded before.
    pub(super) fn download(&self, from: &Buffer, at: usize, to: &mut [u8]) -> Result<()> {
        let (first, last) = (at & !3, (at + to.len()).next_multiple_of(4));
        let mut r = self.recorder();
        let faults = r.faults.clone();
        let parts = [(&from.raw, first as u64, (last - first) as u64), (&faults, 0, FAULT_BYTES)];
        let parts = if r.fault_ops.is_empty() { &parts[..1] } else { &parts[..] };
        self.fetch(&mut r, parts, |r, bytes| {
            to.copy_from_slice(&bytes[at - first..at - first + to.len()]);
            match bytes.get(last - first..) {
                Some(report) if !report.is_empty() => self.judge(r, report),
                _ => Ok(()),
            }
        })
    }

    /// Copies parts of buffers to the host, one behind the other, and hands them over.
    fn fetch(
        &self,
        r: &mut Recorder,
        parts: &[(&wgpu::Buffer, u64, u64)],
        take: impl FnOnce(&mut Recorder, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let size: u64 = parts.iter().map(|p| p.2).sum();
        if r.readback.as_ref().is_none_or(|b| b.size() < size) {
            r.readback = None;
            r.readback = Some(
                self.create(super::memory::rounded(size), wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)?,
            );
        }
        let readback = r.readback.clone().expect("just made");
        let mut at = 0;
        for &(buffer, from, bytes) in parts {
            self.encoder(r).copy_buffer_to_buffer(buffer, from, &readback, at, bytes);
            at += bytes;
        }
        self.submit(r)?;
        let slice = readback.slice(..size);
        let (tell, told) = std::sync::mpsc::channel();
        slice.map_async(wgpu::MapMode::Read, move |outcome| drop(tell.send(outcome)));
        self.poll(wgpu::PollType::wait_indefinitely())?;
        self.healthy()?;
        let mapped = told.recv().map_err(|e| e.to_string()).and_then(|o| o.map_err(|e| e.to_string()));
        mapped.map_err(|e| self.failed(format!("reading memory back: {e}")))?;
        let outcome = match slice.get_mapped_range() {
            Ok(view) => take(r, &view),
            Err(e) => Err(self.failed(format!("reading memory back: {e}"))),
        };
        readback.unmap();
        outcome
    }

    /// An error if the report says so; it is empty afterwards.
    fn judge(&self, r: &mut Recorder, report: &[u8]) -> Result<()> {
        let word = |i: usize| report.get(4 * i..4 * i + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        if word(0) == 0 {
            return Ok(());
        }
        let faults = r.faults.clone();
        self.encoder(r).clear_buffer(&faults, 0, None);
        let op = r.fault_ops.get(word(4) as usize).copied().unwrap_or("a kernel");
        Err(Error::Index { op, value: word(1).into(), index: word(2) as usize, limit: word(3).into() })
    }

    /// The number by which a kernel names its op in the report, and the report.
    pub(super) fn fault_report(&self, op: &'static str) -> (u32, wgpu::Buffer) {
        let mut r = self.recorder();
        let ops = &mut r.fault_ops;
        let place = ops.iter().position(|&known| known == op).unwrap_or(ops.len());
        if place == ops.len() {
            ops.push(op);
        }
        (place as u32, r.faults.clone())
    }

    /// Marks this place in the queue.
    pub(super) fn stamp(&self) -> Result<Stamp> {
        let mut r = self.recorder();
        let number = r.stamps;
        r.stamps += 1;
        let Some(clock) = &r.clock else {
            self.wait(&mut r)?;
            return Ok(Stamp::Host(Instant::now()));
        };
        // A pass of its own: what the standard has. The clock is read once everything before has run.
        let set = clock.set.clone();
        let writes = wgpu::ComputePassTimestampWrites {
            query_set: &set,
            beginning_of_pass_write_index: Some((number % u64::from(STAMPS)) as u32),
            end_of_pass_write_index: None,
        };
        let pass = wgpu::ComputePassDescriptor { label: Some("clock"), timestamp_writes: Some(writes) };
        drop(self.encoder(&mut r).begin_compute_pass(&pass));
        Ok(Stamp::Adapter(number))
    }

    /// The seconds between two moments; waits until the later one is past.
    pub(super) fn seconds(&self, from: &Stamp, to: &Stamp) -> Result<f64> {
        match (from, to) {
            (Stamp::Host(from), Stamp::Host(to)) => Ok(to.saturating_duration_since(*from).as_secs_f64()),
            (&Stamp::Adapter(from), &Stamp::Adapter(to)) => {
                let mut r = self.recorder();
                let oldest = r.stamps.saturating_sub(u64::from(STAMPS));
                if from.min(to) < oldest {
                    return Err(self.failed(format!("the clock keeps {STAMPS} moments, and one of these is older")));
                }
                let Some(clock) = &r.clock else { return Ok(0.0) };
                let (set, resolved, tick) = (clock.set.clone(), clock.resolved.clone(), clock.seconds_per_tick);
                let encoder = self.encoder(&mut r);
                for (i, number) in [from, to].into_iter().enumerate() {
                    let at = (number % u64::from(STAMPS)) as u32;
                    encoder.resolve_query_set(&set, at..at + 1, &resolved, 256 * i as u64);
                }
                let mut ticks = [0u64; 2];
                self.fetch(&mut r, &[(&resolved, 0, 8), (&resolved, 256, 8)], |_, bytes| {
                    ticks.iter_mut().zip(bytes.chunks_exact(8)).for_each(|(t, b)| {
                        *t = b.iter().rev().fold(0, |t, &byte| t << 8 | u64::from(byte));
                    });
                    Ok(())
                })?;
                Ok(ticks[1].saturating_sub(ticks[0]) as f64 * tick)
            }
            _ => Err(self.failed("its clock changed between two moments".into())),
        }
    }
}
