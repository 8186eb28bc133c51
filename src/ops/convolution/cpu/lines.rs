//! The points of one channel that a box of outputs reads, in f32, padding resolved.
//!
//! Along an axis, taps that read at the same place between strides share a section: with stride s, a section holds every
//! s-th point, so that the next output always reads the next place. A tap much farther away than a box is long gets a
//! section of its own; so there are never many more points than outputs times taps.
//! Sections of all axes come first, then depth, height and width in them: the place that output (d, h, w) of the box
//! reads for a tap is `taps[tap] + (d · pitch[0] + h) · pitch[1] + w`.
//!
//! Points that are zero are written once, before the first channel.

use super::{Axis, Floats, Padding, Window};
use crate::backend::cpu::Scratch;
use crate::backend::cpu::simd::Simd;
use crate::simd_fn;
use std::ops::Range;

/// Places beyond the last point that may be read as well: what is read whole vectors at a time ends in them.
pub const SLACK: usize = 128;

/// Sections along one axis.
struct Track {
    /// The point at the first place of each section; further ones lie `step` apart.
    origins: Vec<isize>,
    step: isize,
    len: usize,
    /// Of each tap: its section, and the place in it that output 0 of the box reads.
    places: Vec<(usize, usize)>,
    size: usize,
    padding: Padding,
}

impl Track {
    fn new(axis: &Axis, first: usize, count: usize) -> Track {
        let step = axis.step as isize;
        let far = count.max(8) as isize;
        let mut order: Vec<usize> = (0..axis.taps.len()).collect();
        order.sort_by_key(|&t| axis.taps[t]);
        let mut origins: Vec<isize> = Vec::new();
        let mut places = vec![(0, 0); axis.taps.len()];
        for t in order {
            let at = axis.taps[t] + first as isize * step;
            let near = |&origin: &isize| (at - origin) % step == 0 && (at - origin) / step <= far;
            let section = origins.iter().position(near).unwrap_or_else(|| {
                origins.push(at);
                origins.len() - 1
            });
            places[t] = (section, ((at - origins[section]) / step) as usize);
        }
        let len = count + places.iter().map(|p| p.1).max().unwrap_or(0);
        Track { origins, step, len, places, size: axis.size, padding: axis.padding }
    }

    fn sections(&self) -> usize {
        self.origins.len()
    }

    /// The point at a place of a section; `None` where there is zero.
    fn source(&self, section: usize, i: usize) -> Option<usize> {
        self.padding.source(self.origins[section] + i as isize * self.step, self.size)
    }

    /// The places of a section whose points are not padding's.
    fn inner(&self, section: usize) -> Range<usize> {
        let origin = self.origins[section];
        let before = |point: isize| ((point - origin).max(0) as usize).div_ceil(self.step as usize).min(self.len);
        before(0)..before(self.size as isize)
    }
}

/// Points along the width that lie at equal distances.
struct Piece {
    section: usize,
    to: usize,
    count: usize,
    from: usize,
    step: usize,
}

/// The points of one channel.
pub struct Lines {
    /// Where output 0 of the box reads for each tap, in the order of the weight.
    pub taps: Vec<usize>,
    /// Lines of a plane, places of a line.
    pub pitch: [usize; 2],
    pub data: Scratch,
    tracks: [Track; 2],
    pieces: Vec<Piece>,
    /// Sections of the width, and places of a section.
    sections: usize,
    volume: usize,
}

impl Lines {
    /// For the outputs of a window from `first` on.
    pub fn new(window: &Window, first: [usize; 3], extent: [usize; 3]) -> Lines {
        let [d, h, w] = std::array::from_fn(|i| Track::new(&window.axes[i], first[i], extent[i]));
        let (pitch, sections, volume) = ([h.len, w.len], w.sections(), d.len * h.len * w.len);
        let mut taps = Vec::with_capacity(window.taps());
        for &(ds, di) in &d.places {
            for &(hs, hi) in &h.places {
                let section = (ds * h.sections() + hs) * sections;
                taps.extend(w.places.iter().map(|&(ws, wi)| (section + ws) * volume + (di * h.len + hi) * w.len + wi));
            }
        }
        let data = Scratch::new(d.sections() * h.sections() * sections * volume + SLACK);
        Lines { taps, pitch, data, pieces: pieces(&w), tracks: [d, h], sections, volume }
    }

    /// Reads a channel of `x` that begins at `base`; `strides` are those of depth and height.
    pub fn fill<S: Simd>(&mut self, s: S, x: Floats<'_>, base: usize, strides: [usize; 2]) {
        fill(s, self, x, base, strides);
    }
}

simd_fn! {
    fn fill[S](s, lines: &mut Lines, x: Floats<'_>, base: usize, strides: [usize; 2]) {
        let Lines { data, pitch, tracks: [d, h], pieces, sections, volume, .. } = lines;
        let mut plane = 0;
        for (ds, hs) in (0..d.sections()).flat_map(|ds| (0..h.sections()).map(move |hs| (ds, hs))) {
            for di in 0..d.len {
                let Some(depth) = d.source(ds, di) else { continue };
                for hi in 0..h.len {
                    let Some(height) = h.source(hs, hi) else { continue };
                    let from = base + depth * strides[0] + height * strides[1];
                    let to = plane + (di * pitch[0] + hi) * pitch[1];
                    for p in &*pieces {
                        x.copy(s, from + p.from, p.step, &mut data[to + p.section * *volume + p.to..][..p.count]);
                    }
                }
            }
            plane += *sections * *volume;
        }
    }
}

/// The points of a line in few pieces: in each section one, and padding's one by one.
fn pieces(w: &Track) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for section in 0..w.sections() {
        let inner = w.inner(section);
        for to in (0..inner.start).chain(inner.end..w.len) {
            pieces.extend(w.source(section, to).map(|from| Piece { section, to, count: 1, from, step: 1 }));
        }
        if let Some(from) = w.source(section, inner.start).filter(|_| !inner.is_empty()) {
            pieces.push(Piece { section, to: inner.start, count: inner.len(), from, step: w.step as usize });
        }
    }
    pieces
}

/// Neighbouring outputs of a box that read neighbouring places.
#[derive(Clone, Copy)]
pub struct Run {
    /// The first output.
    pub to: usize,
    pub count: usize,
    /// The place that it reads, besides its tap's.
    pub from: usize,
}

/// The outputs of a box as runs, in groups of `lanes` outputs, which are numbered anew in each.
pub struct Runs {
    runs: Vec<Run>,
    /// Where each group ends.
    ends: Vec<usize>,
}

impl Runs {
    pub fn new(pitch: [usize; 2], extent: [usize; 3], lanes: usize) -> Runs {
        let mut runs: Vec<Run> = Vec::new();
        let mut ends = Vec::with_capacity(extent.iter().product::<usize>().div_ceil(lanes));
        for line in 0..extent[0] * extent[1] {
            let place = (line / extent[1] * pitch[0] + line % extent[1]) * pitch[1];
            let mut done = 0;
            while done < extent[2] {
                let to = (line * extent[2] + done) % lanes;
                let (from, count) = (place + done, (lanes - to).min(extent[2] - done));
                match runs.last_mut() {
                    Some(last) if to > 0 && last.from + last.count == from => last.count += count,
                    _ => runs.push(Run { to, count, from }),
                }
                done += count;
                if to + count == lanes {
                    ends.push(runs.len());
                }
            }
        }
        if ends.last().is_none_or(|&end| end < runs.len()) {
            ends.push(runs.len());
        }
        Runs { runs, ends }
    }

    /// How many groups.
    pub fn groups(&self) -> usize {
        self.ends.len()
    }

    /// The runs of a group.
    pub fn group(&self, i: usize) -> &[Run] {
        &self.runs[if i == 0 { 0 } else { self.ends[i - 1] }..self.ends[i]]
    }
}

/// Copies what outputs in runs read for each tap into a row of `out`; rows lie `distance` apart. Runs are copied in whole
/// vectors: what is written beyond one is the next one's or, behind the last row, may hold anything.
#[inline(always)]
pub fn copy_runs<S: Simd>(s: S, data: &[f32], taps: &[usize], runs: &[Run], distance: usize, out: &mut [f32]) {
    for (row, &tap) in taps.iter().enumerate() {
        let out = &mut out[row * distance..];
        for run in runs {
            let len = run.count.next_multiple_of(S::LANES);
            let (from, to) = (&data[tap + run.from..][..len], &mut out[run.to..][..len]);
            for (x, to) in from.chunks_exact(S::LANES).zip(to.chunks_exact_mut(S::LANES)) {
                s.store(s.load(x), to);
            }
        }
    }
}
