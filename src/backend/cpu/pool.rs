//! The thread pool: one job at a time, whose parts the caller and the workers take.
//!
//! Each thread has a run of neighbouring parts, and helps others when its own are done. So a thread meets the same part of a
//! tensor in each loop over it and finds it in its own cache, and threads of a product read different panels of a weight.
//!
//! A kernel cuts its work into parts by the problem alone, never by the number of threads, and a part's result does not
//! depend on who runs it; so the bits are the same with any number of threads.
//!
//! Why not rayon: a launch has one flat loop and wants to start within a microsecond or two. Workers look for a new job
//! for a short while after each one (`SPIN`), then sleep. What a start and the barrier at its end cost is measured by
//! [`probe::launch_seconds`](super::probe::launch_seconds) and shown beside the peaks; work that is too little for it never
//! gets here (`Launch::pool`).

use super::deal;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a worker looks for the next job before it sleeps, and a caller for the last part before it gives way: longer than
/// what lies between two launches of a model, shorter than what another process would miss.
const SPIN: Duration = Duration::from_micros(60);

/// Waits for `done` without sleeping, for as long as [`SPIN`]; whether it came.
fn spin(done: impl Fn() -> bool) -> bool {
    // A pause takes 10 to 140 cycles, by processor; the clock is looked at now and then.
    const LOOKS: usize = 32;
    let look = || {
        (0..LOOKS).any(|_| {
            done() || {
                std::hint::spin_loop();
                false
            }
        })
    };
    if look() {
        return true;
    }
    let began = Instant::now();
    while began.elapsed() < SPIN {
        if look() {
            return true;
        }
    }
    false
}

type Work = dyn Fn(usize) + Sync;

/// A number of threads, the calling one included, that share loops.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the caller whose job is running: callers on other threads queue here.
    turn: Mutex<()>,
}

struct Shared {
    /// Counts jobs; a worker that has seen number n waits for n + 1.
    epoch: AtomicU64,
    board: Mutex<Board>,
    wake: Condvar,
    /// For each thread the next part to take of its run.
    next: Box<[Cursor]>,
    /// Workers that have taken the current job and not finished with it.
    busy: AtomicUsize,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn std::any::Any + Send>>>,
}

/// A counter with its cache line, and the one that comes along with it, to itself.
#[derive(Default)]
#[repr(align(128))]
struct Cursor(AtomicUsize);

#[derive(Default)]
struct Board {
    /// Taken down once its parts are gone: a worker that comes late, from sleep perhaps, is not waited for.
    job: Option<Job>,
    /// Workers that wait to be woken. Waking is a call of the system even where nobody sleeps, so it is left out then.
    asleep: usize,
}

#[derive(Clone, Copy)]
struct Job {
    work: *const Work,
    parts: usize,
}

// SAFETY: `work` points at a `Sync` closure that outlives the job: `run` returns only when no worker uses it any more.
unsafe impl Send for Job {}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

impl Pool {
    /// A pool of `threads` threads (at least one), the caller's being the first.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            board: Mutex::default(),
            wake: Condvar::new(),
            next: (0..threads.max(1)).map(|_| Cursor::default()).collect(),
            busy: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let spawn = |i: usize| {
            let shared = shared.clone();
            std::thread::Builder::new().name(format!("lapidary-{i}")).spawn(move || shared.work(i)).ok()
        };
        // A system that refuses more threads leaves a smaller pool; results do not depend on it.
        let workers = (1..threads).map_while(spawn).collect();
        Pool { shared, workers, turn: Mutex::new(()) }
    }

    /// The number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work(0)`, …, `work(parts - 1)`, each once, on any thread and in any order, and returns when all are
    /// done. From inside a part it runs on the calling thread alone.
    ///
    /// # Panics
    /// When a part panics.
    pub fn run(&self, parts: usize, work: impl Fn(usize) + Sync) {
        self.run_parts(parts, &work);
    }

    /// As [`run`](Pool::run). Not generic, so that a kernel's part is compiled once, not once more for a thread that is alone.
    fn run_parts(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        if parts <= 1 || self.workers.is_empty() || INSIDE.get() {
            (0..parts).for_each(work);
            return;
        }
        let _turn = lock(&self.turn);
        // SAFETY: only the lifetime is changed. Workers use the closure between taking the job from the board, when they
        // increment `busy`, and decrementing it; this function takes the job down and waits for `busy` to reach zero.
        let work: *const Work = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static Work>(work) };
        let s = &*self.shared;
        for (thread, next) in s.next.iter().enumerate() {
            next.0.store(deal(parts, s.next.len(), thread).start, Ordering::Relaxed);
        }
        let asleep = {
            let mut board = lock(&s.board);
            board.job = Some(Job { work, parts });
            s.epoch.fetch_add(1, Ordering::Release);
            board.asleep
        };
        if asleep > 0 {
            s.wake.notify_all();
        }
        s.take_parts(0, work, parts);
        lock(&s.board).job = None;
        let idle = || s.busy.load(Ordering::Acquire) == 0;
        if !spin(idle) {
            while !idle() {
                std::thread::yield_now();
            }
        }
        let panic = lock(&s.panic).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Splits `out` into chunks of `len` elements (the last may be shorter) and calls `work(i, chunk)` for each.
    pub fn chunks_mut<T: Send>(&self, out: &mut [T], len: usize, work: impl Fn(usize, &mut [T]) + Sync) {
        let (total, len) = (out.len(), len.max(1));
        let base = Base(out.as_mut_ptr());
        self.run(total.div_ceil(len), |i| {
            let start = i * len;
            // SAFETY: parts are distinct, so the chunks [start, start + len) are disjoint and lie inside `out`, which
            // is borrowed mutably for the whole call.
            let chunk = unsafe { std::slice::from_raw_parts_mut(base.get().add(start), len.min(total - start)) };
            work(i, chunk);
        });
    }

    /// As [`chunks_mut`](Pool::chunks_mut) for two slices side by side; the first says how many chunks there are, and where
    /// the second is at its end its chunks are shorter or empty.
    pub fn chunk_pairs_mut<T: Send, U: Send>(
        &self,
        a: (&mut [T], usize),
        b: (&mut [U], usize),
        work: impl Fn(usize, &mut [T], &mut [U]) + Sync,
    ) {
        let (b, len) = b;
        let total = b.len();
        let base = Base(b.as_mut_ptr());
        self.chunks_mut(a.0, a.1, |i, a| {
            let start = (i * len).min(total);
            // SAFETY: parts are distinct, so the chunks [start, start + len) are disjoint and lie inside `b`, which is
            // borrowed mutably for the whole call.
            let b = unsafe { std::slice::from_raw_parts_mut(base.get().add(start), len.min(total - start)) };
            work(i, a, b);
        });
    }
}

/// A base pointer that the parts of one job share.
struct Base<T>(*mut T);
impl<T> Base<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}
// SAFETY: only used to derive disjoint chunks, one per part.
unsafe impl<T: Send> Sync for Base<T> {}

impl Shared {
    /// Takes parts as thread `me`: its own, then the next thread's, and so on.
    fn take_parts(&self, me: usize, work: *const Work, parts: usize) {
        INSIDE.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let threads = self.next.len();
            for owner in (me..threads).chain(0..me) {
                let (next, end) = (&self.next[owner].0, deal(parts, threads, owner).end);
                // Looking costs less than taking what others have taken.
                while next.load(Ordering::Relaxed) < end {
                    let part = next.fetch_add(1, Ordering::Relaxed);
                    if part >= end {
                        break;
                    }
                    // SAFETY: see `Pool::run`: the closure is alive until every worker has left this function.
                    unsafe { (*work)(part) };
                }
            }
        }));
        INSIDE.set(false);
        if let Err(panic) = outcome {
            self.next.iter().for_each(|next| next.0.store(parts, Ordering::Relaxed));
            *lock(&self.panic) = Some(panic);
        }
    }

    fn work(&self, me: usize) {
        let mut seen = 0;
        loop {
            spin(|| self.epoch.load(Ordering::Acquire) != seen);
            let job = {
                let mut board = lock(&self.board);
                while self.epoch.load(Ordering::Relaxed) == seen {
                    board.asleep += 1;
                    board = self.wake.wait(board).unwrap_or_else(|e| e.into_inner());
                    board.asleep -= 1;
                }
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                seen = self.epoch.load(Ordering::Relaxed);
                let Some(job) = board.job else { continue };
                self.busy.fetch_add(1, Ordering::Relaxed);
                job
            };
            self.take_parts(me, job.work, job.parts);
            self.busy.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let _board = lock(&self.shared.board);
            self.shared.stop.store(true, Ordering::Relaxed);
            self.shared.epoch.fetch_add(1, Ordering::Release);
        }
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            for parts in [0, 1, 2, 7, 1000] {
                let mut hits = vec![0u32; parts];
                pool.chunks_mut(&mut hits, 1, |i, h| h[0] += 1 + i as u32);
                assert!(hits.iter().enumerate().all(|(i, &h)| h == 1 + i as u32), "{threads} threads, {parts} parts");
            }
        }
    }

    #[test]
    fn a_nested_loop_runs_where_it_is() {
        let pool = Pool::new(3);
        let count = AtomicUsize::new(0);
        pool.run(4, |_| {
            pool.run(5, |_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(count.into_inner(), 20);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        let caught = catch_unwind(AssertUnwindSafe(|| pool.run(10, |i| assert!(i != 7))));
        assert!(caught.is_err());
        let count = AtomicUsize::new(0);
        pool.run(10, |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 10);
    }
}
