//! Examples, their order, and batches of them.

use crate::random::{Random, mix};
use crate::{Error, Result};

/// A row of tokens and, beside each, what it is held against as a target: its own id, or -100 where it does not count. (The
/// loss shifts them.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    pub ids: Vec<u32>,
    pub labels: Vec<i32>,
}

impl Example {
    /// Targets that the loss counts: the first token has nothing before it.
    pub fn targets(&self) -> usize {
        self.labels.iter().skip(1).filter(|&&l| l >= 0).count()
    }
}

/// Rows padded on the right to one length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// [rows, len]
    pub ids: Vec<u32>,
    /// [rows, len]; -100 for padding.
    pub labels: Vec<i32>,
    pub len: usize,
    /// Targets that the loss counts.
    pub targets: usize,
}

/// All examples, in an order that depends on a seed and the epoch alone.
#[derive(Clone, Debug)]
pub struct Examples {
    all: Vec<Example>,
    seed: u64,
    pad_id: u32,
}

impl Examples {
    /// # Errors
    /// There are none, or one has nothing to predict.
    pub fn new(all: Vec<Example>, seed: u64, pad_id: u32) -> Result<Examples> {
        if all.is_empty() {
            return Err(Error::Config("there is nothing to train on".into()));
        }
        match all.iter().position(|e| e.targets() == 0 || e.ids.len() != e.labels.len()) {
            Some(i) => Err(Error::Config(format!("example {i} has no token to predict; rows need two or more"))),
            None => Ok(Examples { all, seed, pad_id }),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none: never.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Rows `first` to before `first + rows` of an endless stream, in which each epoch has another order.
    pub fn batch(&self, first: usize, rows: usize) -> Batch {
        let mut orders: Vec<(usize, Vec<usize>)> = Vec::new();
        let chosen: Vec<&Example> = (first..first + rows)
            .map(|i| {
                let (epoch, place) = (i / self.all.len(), i % self.all.len());
                if orders.last().is_none_or(|(e, _)| *e != epoch) {
                    orders.push((epoch, self.order(epoch)));
                }
                &self.all[orders[orders.len() - 1].1[place]]
            })
            .collect();
        let len = chosen.iter().map(|e| e.ids.len()).max().unwrap_or(0);
        let mut batch = Batch { ids: Vec::new(), labels: Vec::new(), len, targets: 0 };
        for (i, example) in chosen.iter().enumerate() {
            batch.ids.extend_from_slice(&example.ids);
            batch.ids.resize((i + 1) * len, self.pad_id);
            batch.labels.extend_from_slice(&example.labels);
            batch.labels.resize((i + 1) * len, -100);
            batch.targets += example.targets();
        }
        batch
    }

    /// A permutation, by Fisher and Yates.
    fn order(&self, epoch: usize) -> Vec<usize> {
        let mut random = Random::new(mix(self.seed) ^ epoch as u64);
        let mut order: Vec<usize> = (0..self.all.len()).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, random.below(i as u32 + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(n: u32) -> Examples {
        let all =
            (0..n).map(|i| Example { ids: vec![i; 2 + i as usize % 3], labels: vec![i as i32; 2 + i as usize % 3] });
        Examples::new(all.collect(), 5, 99).unwrap()
    }

    #[test]
    fn an_epoch_has_each_example_once_and_the_next_another_order() {
        let all = examples(20);
        let rows = |first: usize| -> Vec<u32> { (first..first + 20).map(|i| all.batch(i, 1).ids[0]).collect() };
        let (mut a, b) = (rows(0), rows(20));
        assert_ne!(a, b);
        assert_eq!(a, rows(0));
        a.sort_unstable();
        assert_eq!(a, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn batches_are_padded_and_counted() {
        let batch = examples(4).batch(0, 4);
        assert_eq!((batch.len, batch.ids.len(), batch.targets), (4, 16, 1 + 2 + 3 + 1));
        assert_eq!(
            batch.ids.iter().filter(|&&id| id == 99).count(),
            batch.labels.iter().filter(|&&l| l == -100).count()
        );
        assert!(Examples::new(vec![Example { ids: vec![1], labels: vec![1] }], 0, 0).is_err());
        assert!(Examples::new(Vec::new(), 0, 0).is_err());
    }
}
