//! Pseudo-random numbers that are the same everywhere: splitmix64 (Steele, Lea and Flood, 2014).

use std::num::NonZero;
use std::thread;

/// A stream of numbers that depends on its seed alone.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

/// What lies between two states of a stream.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of splitmix64: scatters the bits of its argument.
pub(crate) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(GAMMA);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Fills a slice on all cores with what depends on places only: `fill` gets an even place and what begins there.
pub(crate) fn fill_on_all_cores<T: Send>(out: &mut [T], fill: impl Fn(usize, &mut [T]) + Sync) {
    /// Values that are not worth a thread.
    const FEW: usize = 1 << 14;
    if out.len() <= FEW {
        return fill(0, out);
    }
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = out.len().div_ceil(threads).next_multiple_of(2).max(FEW);
    thread::scope(|scope| {
        for (i, part) in out.chunks_mut(share).enumerate() {
            let fill = &fill;
            scope.spawn(move || fill(i * share, part));
        }
    });
}

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed ^ 0x6c61_7069_6461_7279)
    }

    /// A stream for each name (FNV-1a) under a seed.
    pub fn named(seed: u64, name: &str) -> Random {
        let hash = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3);
        Random::new(name.bytes().fold(0xcbf2_9ce4_8422_2325 ^ mix(seed), hash))
    }

    pub fn next(&mut self) -> u64 {
        let out = mix(self.0);
        self.0 = self.0.wrapping_add(GAMMA);
        out
    }

    /// The stream without its next `n` numbers.
    pub fn after(&self, n: u64) -> Random {
        Random(self.0.wrapping_add(n.wrapping_mul(GAMMA)))
    }

    /// Uniform in (0, 1].
    pub fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// By Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let (u, v) = (self.unit(), self.unit());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Below a limit of at least 1.
    pub fn below(&mut self, limit: u32) -> u32 {
        (self.next() % u64::from(limit.max(1))) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn a_stream_can_be_taken_up_anywhere() {
        let mut stream = Random::new(5);
        let mut later = stream.after(7);
        for _ in 0..7 {
            stream.next();
        }
        assert_eq!(stream.next(), later.next());
    }
}
