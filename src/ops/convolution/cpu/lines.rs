//! The points of one channel that a box of outputs reads, in f32, padding resolved.
//!
//! Along an axis, taps that read at the same place between strides share a section: with stride s, a section holds every
//! s-th point, so that the next output always reads the next place. A tap much farther away than a box is long gets a
//! section of its own; so there are never many more points than outputs times taps.
//! Sections of all axes come first, then depth, height and width in them: the place that output (d, h, w) of the box
//! reads for a tap is `taps[tap] + (d · pitch[0] + h) · pitch[1] + w`.
//!
//! Points that are zero are written once, before the first channel.

use super::{Axis, Floats, Window};
use crate::backend::cpu::simd::Simd;
use crate::simd_fn;

/// Places beyond the last point that may be read as well: what is read whole vectors at a time ends in them.
pub const SLACK: usize = 128;

/// Sections along one axis.
struct Track {
    sections: usize,
    len: usize,
    /// Of each tap: its section, and the place in it that output 0 reads.
    places: Vec<(usize, usize)>,
    /// The point at each place of each section.
    sources: Vec<Option<usize>>,
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
            let at = axis.taps[t];
            let near = |&origin: &isize| (at - origin) % step == 0 && (at - origin) / step <= far;
            let section = origins.iter().position(near).unwrap_or_else(|| {
                origins.push(at);
                origins.len() - 1
            });
            places[t] = (section, ((at - origins[section]) / step) as usize);
        }
        let len = count + places.iter().map(|p| p.1).max().unwrap_or(0);
        let point = |origin: isize, i: usize| axis.padding.source(origin + (first + i) as isize * step, axis.size);
        let sources = origins.iter().flat_map(|&origin| (0..len).map(move |i| point(origin, i))).collect();
        Track { sections: origins.len(), len, places, sources }
    }

    fn source(&self, section: usize, i: usize) -> Option<usize> {
        self.sources[section * self.len + i]
    }
}

/// Points along the width that lie at equal distances.
struct Piece {
    section: usize,
    to: usize,
    count: usize,
    from: usize,
    step: isize,
}

/// The points of one channel.
pub struct Lines {
    /// Where output 0 of the box reads for each tap, in the order of the weight.
    pub taps: Vec<usize>,
    /// Lines of a plane, places of a line.
    pub pitch: [usize; 2],
    pub data: Vec<f32>,
    tracks: [Track; 3],
    pieces: Vec<Piece>,
}

impl Lines {
    /// For the outputs of a window from `first` on.
    pub fn new(window: &Window, first: [usize; 3], extent: [usize; 3]) -> Lines {
        let [d, h, w] = std::array::from_fn(|i| Track::new(&window.axes[i], first[i], extent[i]));
        let pitch = [h.len, w.len];
        let volume = d.len * h.len * w.len;
        let mut taps = Vec::with_capacity(d.places.len() * h.places.len() * w.places.len());
        for &(ds, di) in &d.places {
            for &(hs, hi) in &h.places {
                let section = (ds * h.sections + hs) * w.sections;
                taps.extend(w.places.iter().map(|&(ws, wi)| (section + ws) * volume + (di * h.len + hi) * w.len + wi));
            }
        }
        let data = vec![0.0; d.sections * h.sections * w.sections * volume + SLACK];
        let pieces = pieces(&w);
        Lines { taps, pitch, data, tracks: [d, h, w], pieces }
    }

    /// Reads a channel of `x` that begins at `base`; `strides` are those of depth and height.
    pub fn fill<S: Simd>(&mut self, s: S, x: Floats<'_>, base: usize, strides: [usize; 2]) {
        let [d, h, w] = &self.tracks;
        let mut plane = 0;
        for (ds, hs) in (0..d.sections).flat_map(|ds| (0..h.sections).map(move |hs| (ds, hs))) {
            for di in 0..d.len {
                let Some(depth) = d.source(ds, di) else { continue };
                for hi in 0..h.len {
                    let Some(height) = h.source(hs, hi) else { continue };
                    let from = base + depth * strides[0] + height * strides[1];
                    let to = plane + (di * h.len + hi) * w.len;
                    read_line(s, x, from, &self.pieces, d.len * h.len * w.len, &mut self.data[to..]);
                }
            }
            plane += w.sections * d.len * h.len * w.len;
        }
    }
}

simd_fn! {
    /// One line in each section of the width; sections lie `volume` apart.
    fn read_line[S](s, x: Floats<'_>, from: usize, pieces: &[Piece], volume: usize, out: &mut [f32]) {
        for p in pieces {
            let to = p.section * volume + p.to;
            x.copy(s, from + p.from, p.step, &mut out[to..to + p.count]);
        }
    }
}

/// The points of a line in as few pieces as there are.
fn pieces(w: &Track) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (section, to) in (0..w.sections).flat_map(|section| (0..w.len).map(move |i| (section, i))) {
        let Some(from) = w.source(section, to) else { continue };
        if let Some(p) = pieces.last_mut().filter(|p| p.section == section && p.to + p.count == to) {
            let step = from as isize - (p.from as isize + (p.count as isize - 1) * p.step);
            if p.count == 1 || step == p.step {
                (p.step, p.count) = (step, p.count + 1);
                continue;
            }
        }
        pieces.push(Piece { section, to, count: 1, from, step: 1 });
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

/// The outputs of a box as runs, for each group of `lanes` of them; numbers begin anew in each.
pub fn runs_of(pitch: [usize; 2], extent: [usize; 3], lanes: usize) -> Vec<Vec<Run>> {
    let mut groups: Vec<Vec<Run>> = vec![Vec::new(); extent.iter().product::<usize>().div_ceil(lanes)];
    for line in 0..extent[0] * extent[1] {
        let place = (line / extent[1] * pitch[0] + line % extent[1]) * pitch[1];
        let mut done = 0;
        while done < extent[2] {
            let output = line * extent[2] + done;
            let (group, to) = (&mut groups[output / lanes], output % lanes);
            let (from, count) = (place + done, (lanes - to).min(extent[2] - done));
            match group.last_mut() {
                Some(last) if last.from + last.count == from => last.count += count,
                _ => group.push(Run { to, count, from }),
            }
            done += count;
        }
    }
    groups
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
