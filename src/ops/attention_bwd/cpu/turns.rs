//! Taking turns: parts of a loop that add to the same place do it in a fixed order, whoever runs them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How often a part looks before it lets others run.
const SPIN: u32 = 4000;

/// Places, each with the number of turns that have been taken there, and the part that comes next.
pub struct Turns {
    taken: Vec<AtomicUsize>,
    next: AtomicUsize,
    broken: AtomicBool,
}

impl Turns {
    pub fn new(places: usize) -> Turns {
        let taken = (0..places).map(|_| AtomicUsize::new(0)).collect();
        Turns { taken, next: AtomicUsize::new(0), broken: AtomicBool::new(false) }
    }

    /// The number of the part to do, whichever the pool has asked for: one after the other. The pool gives each thread a run of
    /// neighbours instead, of which those of the second thread would wait until the first has done all of its own.
    pub fn next_part(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Does `work` when the `turn` turns before it at this place have been taken. A turn may only wait for parts with lower
    /// [numbers](Turns::next_part): those are done or at work.
    pub fn take(&self, place: usize, turn: usize, work: impl FnOnce()) {
        let taken = &self.taken[place];
        let mut spins = 0;
        while taken.load(Ordering::Acquire) != turn {
            if self.broken.load(Ordering::Relaxed) {
                // The turn will never come; the pool tells the caller about the panic.
                return;
            }
            spins += 1;
            if spins < SPIN { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        work();
        taken.store(turn + 1, Ordering::Release);
    }

    /// To be held by a part at work: if it panics, those that wait for its turns give up.
    pub fn watch(&self) -> Watch<'_> {
        Watch(&self.broken)
    }
}

/// See [`Turns::watch`].
pub struct Watch<'a>(&'a AtomicBool);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Pool;
    use std::sync::Mutex;

    #[test]
    fn turns_come_in_order() {
        let pool = Pool::new(4);
        let (turns, order) = (Turns::new(3), Mutex::new(Vec::new()));
        pool.run(60, |_| {
            let part = turns.next_part();
            turns.take(part % 3, part / 3, || order.lock().unwrap().push(part));
        });
        let order = order.into_inner().unwrap();
        for place in 0..3 {
            assert!(order.iter().filter(|p| *p % 3 == place).is_sorted());
        }
        assert_eq!(order.len(), 60);
    }

    #[test]
    fn a_panic_lets_nobody_wait_for_ever() {
        let pool = Pool::new(2);
        let turns = Turns::new(1);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(8, |_| {
                let _watch = turns.watch();
                let part = turns.next_part();
                assert!(part != 2);
                turns.take(0, part, || {});
            });
        }));
        assert!(caught.is_err());
    }
}
