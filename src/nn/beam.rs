//! Beam search: the best few continuations side by side, as transformers' `BeamSearchScorer` keeps them.

use crate::{Error, Result};

/// The search over a batch of sequences.
pub(super) struct Beams {
    width: usize,
    eos: Vec<u32>,
    length_penalty: f32,
    groups: Vec<Group>,
}

/// The beams of one sequence.
struct Group {
    /// New tokens and sum of log-probabilities of each running beam.
    running: Vec<(Vec<u32>, f32)>,
    /// Those that ended, with their final scores.
    ended: Vec<(Vec<u32>, f32)>,
    done: bool,
}

/// What a step decided: for each beam the one that it goes on from, and its new token.
pub(super) struct Moves {
    pub from: Vec<usize>,
    pub ids: Vec<u32>,
}

impl Beams {
    pub fn new(batch: usize, width: usize, eos: &[u32], length_penalty: f32) -> Beams {
        // Equal beams count once: all but the first begin hopeless.
        let start = (0..width).map(|i| (Vec::new(), if i == 0 { 0.0 } else { -1e9 })).collect::<Vec<_>>();
        let groups = (0..batch).map(|_| Group { running: start.clone(), ended: Vec::new(), done: false }).collect();
        Beams { width, eos: eos.to_vec(), length_penalty, groups }
    }

    /// Whether every sequence has its beams.
    pub fn done(&self) -> bool {
        self.groups.iter().all(|g| g.done)
    }

    /// Takes the scores of all beams, [batch · width, vocabulary], which become log-probabilities.
    pub fn step(&mut self, scores: &mut [f32], vocabulary: usize, pad: u32) -> Result<Moves> {
        let width = self.width;
        let mut moves = Moves { from: Vec::new(), ids: Vec::new() };
        for (b, group) in self.groups.iter_mut().enumerate() {
            let first = b * width;
            if group.done {
                moves.from.extend(first..first + width);
                moves.ids.extend(std::iter::repeat_n(pad, width));
                continue;
            }
            let rows = &mut scores[first * vocabulary..(first + width) * vocabulary];
            for (row, (_, sum)) in rows.chunks_exact_mut(vocabulary).zip(&group.running) {
                log_softmax(row, *sum)?;
            }
            let best = largest(rows, 2 * width);
            let mut next = Vec::with_capacity(width);
            let length = group.running[0].0.len() + 1;
            for (rank, &at) in best.iter().enumerate() {
                let (beam, id, sum) = (at / vocabulary, (at % vocabulary) as u32, rows[at]);
                let mut ids = group.running[beam].0.clone();
                ids.push(id);
                if self.eos.contains(&id) {
                    // Only one of the best `width` may end.
                    if rank < width {
                        group.ended.push((ids, scored(sum, length, self.length_penalty)));
                        group.ended.sort_by(|x, y| y.1.total_cmp(&x.1));
                        group.ended.truncate(width);
                    }
                } else if next.len() < width {
                    moves.from.push(first + beam);
                    moves.ids.push(id);
                    next.push((ids, sum));
                }
            }
            if next.len() < width {
                return Err(Error::Config(format!("a vocabulary of {vocabulary} is too small for {width} beams")));
            }
            group.running = next;
            let attainable = scored(rows[best[0]], length, self.length_penalty);
            group.done = group.ended.len() == width && group.ended[width - 1].1 >= attainable;
        }
        Ok(moves)
    }

    /// The best continuation of each sequence.
    pub fn best(self) -> Vec<Vec<u32>> {
        let Beams { length_penalty, groups, .. } = self;
        let best = |group: Group| {
            let mut all = group.ended;
            if !group.done {
                let finished = |(ids, sum): (Vec<u32>, f32)| {
                    let score = scored(sum, ids.len(), length_penalty);
                    (ids, score)
                };
                all.extend(group.running.into_iter().map(finished));
            }
            let first = all.into_iter().reduce(|a, b| if b.1 > a.1 { b } else { a });
            first.map_or_else(Vec::new, |(ids, _)| ids)
        };
        groups.into_iter().map(best).collect()
    }
}

fn scored(sum: f32, length: usize, penalty: f32) -> f32 {
    sum / (length as f32).powf(penalty)
}

/// Scores to log-probabilities plus `shift`.
fn log_softmax(row: &mut [f32], shift: f32) -> Result<()> {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if !largest.is_finite() || row.iter().any(|x| x.is_nan()) {
        return Err(Error::Config("scores of a beam are not finite: the weights or the input are broken".into()));
    }
    let sum: f64 = row.iter().map(|&x| f64::from(x - largest).exp()).sum();
    let offset = largest + sum.ln() as f32 - shift;
    row.iter_mut().for_each(|x| *x -= offset);
    Ok(())
}

/// The places of the `n` largest values, largest first; of equal ones the first.
fn largest(values: &[f32], n: usize) -> Vec<usize> {
    let order = |&a: &usize, &b: &usize| values[b].total_cmp(&values[a]).then(a.cmp(&b));
    let mut places: Vec<usize> = (0..values.len()).collect();
    let n = n.min(places.len());
    if n > 0 && n < places.len() {
        places.select_nth_unstable_by(n - 1, order);
        places.truncate(n);
    }
    places.sort_unstable_by(order);
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain where the greedy first step is not on the best path: 0 then anything has probability 0.6 · 0.4, 1 then 2
    /// has 0.4 · 0.9.
    #[test]
    fn the_best_path_need_not_begin_with_the_best_token() {
        let chances = |last: Option<u32>| -> [f32; 4] {
            match last {
                None => [0.6, 0.4, 1e-9, 1e-9],
                Some(0) => [0.4, 0.3, 0.3 - 1e-9, 1e-9],
                Some(1) => [0.05, 0.05, 0.9 - 1e-9, 1e-9],
                _ => [1e-9, 1e-9, 1e-9, 1.0],
            }
        };
        let mut beams = Beams::new(1, 2, &[3], 0.0);
        let mut last: Vec<Option<u32>> = vec![None, None];
        for _ in 0..3 {
            let mut scores: Vec<f32> = last.iter().flat_map(|&l| chances(l).map(f32::ln)).collect();
            let moves = beams.step(&mut scores, 4, 0).unwrap();
            last = moves.ids.iter().map(|&id| Some(id)).collect();
        }
        assert_eq!(beams.best(), [vec![1, 2, 3]]);
    }

    #[test]
    fn broken_scores_are_refused() {
        assert!(Beams::new(1, 2, &[], 1.0).step(&mut [f32::NAN; 8], 4, 0).is_err());
        // All that there is ends.
        assert!(Beams::new(1, 2, &[0], 1.0).step(&mut [0.0; 2], 1, 0).is_err());
    }
}
