//! A pool of threads for jobs of a few microseconds.
//!
//! A job is a number of parts; an atomic counter hands them out to the caller and to the workers, so any thread may
//! run any part and a result must not depend on which. Between jobs a worker spins for some 30 microseconds and then
//! sleeps: waking costs microseconds, but spinning for ever starves whoever shares the machine.
//! The caller never waits for a worker that has not begun: it closes the job, then waits for those inside.
//! Deliberately absent: queues, stealing, nesting (an inner job simply runs on the thread that asks for it).
#![allow(
    unsafe_code,
    reason = "a job borrows from the caller's stack, which only the protocol of the gate makes sound"
)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread spins before it sleeps.
const SPIN: Duration = Duration::from_micros(30);
/// Spin-loop hints between two looks at the clock.
const SPINS_PER_LOOK: u32 = 16;

/// The gate's bit that lets workers enter.
const OPEN: u64 = 1 << 31;
/// The gate's bit that says the caller sleeps until the last worker has left.
const AWAITED: u64 = 1 << 30;
/// The gate's bits that count the workers inside.
const INSIDE: u64 = AWAITED - 1;
/// The number of the job stands above the other bits.
const GENERATION_SHIFT: u32 = 32;

/// What one part of a job runs: the part's number and the number of the thread that runs it (the caller is 0), which is
/// below [`Pool::threads`] and the same for no two parts that run at one time.
type Body<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// The job that the open gate shows; written only while the gate is closed and nobody is inside.
struct Job {
    body: *const Body<'static>,
    parts: usize,
}

struct Shared {
    /// Generation, [`OPEN`], [`AWAITED`] and the count of workers inside, in one word so that they change together.
    gate: AtomicU64,
    job: UnsafeCell<Job>,
    /// The next part to run.
    next: AtomicUsize,
    /// The first panic of a part, for the caller.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    /// Wakes workers when a job opens.
    opened: Condvar,
    /// Wakes the caller when the last worker has left.
    left: Condvar,
}

// SAFETY: `job` is the only field that is not `Sync` by itself. The caller writes it while the gate is closed and
// empty, and workers read it only between entering an open gate (acquire) and leaving it (release).
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer in `job` is followed only while the caller that made it is inside `run`.
unsafe impl Send for Shared {}

/// A fixed set of threads that run the parts of one job after another.
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// let pool = hypatia_kernels::pool::Pool::new(2);
/// let sum = AtomicUsize::new(0);
/// pool.run(10, &|part, _thread| {
///     sum.fetch_add(part, Ordering::Relaxed);
/// });
/// assert_eq!(sum.into_inner(), 45);
/// ```
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the caller whose job is open.
    caller: Mutex<()>,
}

impl Pool {
    /// A pool of `threads` threads, the caller's own among them; 0 counts as 1.
    ///
    /// Where the system refuses a thread the pool is smaller than asked for; see [`Pool::threads`].
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: UnsafeCell::new(Job { body: &|_, _| (), parts: 0 }),
            next: AtomicUsize::new(0),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            opened: Condvar::new(),
            left: Condvar::new(),
        });
        let mut workers = Vec::new();
        for number in 1..threads {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name(format!("hypatia-{number}"));
            match builder.spawn(move || shared.work(number)) {
                Ok(worker) => workers.push(worker),
                Err(_) => break,
            }
        }
        Self { shared, workers, caller: Mutex::new(()) }
    }

    /// The number of threads that run parts, the caller's own among them.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `body(part, thread)` for each part below `parts`, on any thread and in any order, and returns when all are
    /// done. `thread` is below [`Pool::threads`], and no two parts that run at one time see the same.
    ///
    /// While another job is under way in this pool, the caller runs all parts itself, as thread 0.
    ///
    /// # Panics
    /// With the panic of a part, after the parts under way have ended; parts not begun are then left out.
    pub fn run(&self, parts: usize, body: &Body<'_>) {
        let alone = |parts| (0..parts).for_each(|part| body(part, 0));
        if self.workers.is_empty() || parts < 2 {
            return alone(parts);
        }
        let Ok(caller) = self.caller.try_lock() else { return alone(parts) };
        self.shared.open(parts, body, self.workers.len());
        self.shared.run_parts(parts, body, 0);
        self.shared.close();
        let panic = locked(&self.shared.panic).take();
        drop(caller);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(locked(&self.shared.sleep));
        self.shared.opened.notify_all();
        for worker in self.workers.drain(..) {
            // Workers catch the panics of parts, so joining one cannot fail.
            let _ = worker.join();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

impl Shared {
    /// Shows a job to the workers. The gate is closed and empty before.
    fn open(&self, parts: usize, body: &Body<'_>, workers: usize) {
        let body: *const Body<'_> = body;
        // SAFETY: only the lifetime changes. `Pool::run` returns after `close`, when nobody can follow the pointer.
        let body = unsafe { std::mem::transmute::<*const Body<'_>, *const Body<'static>>(body) };
        // SAFETY: the caller holds the pool's lock, the gate is closed and nobody is inside, so nobody else reads.
        unsafe { *self.job.get() = Job { body, parts } };
        self.next.store(0, Ordering::Relaxed);
        let generation = (self.gate.load(Ordering::Relaxed) >> GENERATION_SHIFT).wrapping_add(1);
        self.gate.store(generation << GENERATION_SHIFT | OPEN, Ordering::SeqCst);
        // Sequential consistency: either this sees the sleeper, or the sleeper sees the gate before it sleeps.
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(locked(&self.sleep));
            for _ in 0..workers.min(parts - 1) {
                self.opened.notify_one();
            }
        }
    }

    /// Lets nobody in any more, and waits until the workers inside have left.
    fn close(&self) {
        let mut gate = self.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let empty = || self.gate.load(Ordering::Acquire) & INSIDE == 0;
        if gate & INSIDE == 0 || spin_until(empty) {
            return;
        }
        let mut asleep = locked(&self.sleep);
        gate = self.gate.fetch_or(AWAITED, Ordering::AcqRel);
        while gate & INSIDE != 0 {
            asleep = self.left.wait(asleep).unwrap_or_else(PoisonError::into_inner);
            gate = self.gate.load(Ordering::Acquire);
        }
    }

    /// Runs parts until none is left. A panic stops further parts and is kept for the caller.
    fn run_parts(&self, parts: usize, body: &Body<'_>, thread: usize) {
        let run = || {
            loop {
                let part = self.next.fetch_add(1, Ordering::Relaxed);
                if part >= parts {
                    break;
                }
                body(part, thread);
            }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            // Half of the range: later increments cannot wrap around to a part.
            self.next.store(usize::MAX / 2, Ordering::Relaxed);
            locked(&self.panic).get_or_insert(panic);
        }
    }

    /// The life of a worker: wait for a gate that it has not been through, enter, run parts, leave.
    fn work(&self, thread: usize) {
        let mut seen = 0;
        while let Some(generation) = self.next_generation(seen) {
            seen = generation;
            if !self.enter(generation) {
                continue;
            }
            // SAFETY: inside the gate the job stays as the caller wrote it, and the caller stays in `run`; entering
            // acquired what it wrote.
            let (body, parts) = unsafe { (&*(*self.job.get()).body, (*self.job.get()).parts) };
            self.run_parts(parts, body, thread);
            let gate = self.gate.fetch_sub(1, Ordering::AcqRel);
            if gate & INSIDE == 1 && gate & AWAITED != 0 {
                drop(locked(&self.sleep));
                self.left.notify_one();
            }
        }
    }

    /// Enters the gate of `generation` if it is still open.
    fn enter(&self, generation: u64) -> bool {
        let enter = |gate| (gate >> GENERATION_SHIFT == generation && gate & OPEN != 0).then(|| gate + 1);
        self.gate.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter).is_ok()
    }

    /// Waits for a job after `seen`, spinning first, then asleep; none when the pool stops.
    fn next_generation(&self, seen: u64) -> Option<u64> {
        let generation = || self.gate.load(Ordering::SeqCst) >> GENERATION_SHIFT;
        let wanted = || generation() != seen || self.stop.load(Ordering::SeqCst);
        if !spin_until(wanted) {
            let mut asleep = locked(&self.sleep);
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            while !wanted() {
                asleep = self.opened.wait(asleep).unwrap_or_else(PoisonError::into_inner);
            }
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
        (!self.stop.load(Ordering::SeqCst)).then(generation)
    }
}

/// Spins until the condition holds; false when it does not within [`SPIN`].
fn spin_until(condition: impl Fn() -> bool) -> bool {
    // Read the clock after the first round only: a short wait should not pay for it.
    let mut start = None;
    loop {
        for _ in 0..SPINS_PER_LOOK {
            if condition() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.get_or_insert_with(Instant::now).elapsed() > SPIN {
            return false;
        }
    }
}

/// Locks; no code panics under these locks, and what they guard stays whole anyway.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_runs_once() {
        for threads in [0, 1, 2, 5] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads.max(1));
            for parts in [0, 1, 2, 3, 64, 1000] {
                let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                pool.run(parts, &|part, thread| {
                    assert!(thread < pool.threads());
                    counts[part].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn many_small_jobs_and_pauses() {
        let pool = Pool::new(3);
        let sum = AtomicUsize::new(0);
        for job in 0..20_000 {
            pool.run(4, &|part, _| {
                sum.fetch_add(part + 1, Ordering::Relaxed);
            });
            // Now and then the workers fall asleep, so that waking is exercised as well.
            if job % 2000 == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        assert_eq!(sum.into_inner(), 20_000 * 10);
    }

    #[test]
    fn threads_at_one_time_have_different_numbers() {
        let pool = Pool::new(4);
        let busy: Vec<AtomicBool> = (0..4).map(|_| AtomicBool::new(false)).collect();
        pool.run(200, &|_, thread| {
            assert!(!busy[thread].swap(true, Ordering::SeqCst));
            std::thread::yield_now();
            busy[thread].store(false, Ordering::SeqCst);
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3);
        for panicking in [0, 7, 63] {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(64, &|part, _| assert!(part != panicking, "part {part} fails"));
            }));
            let panic = outcome.unwrap_err();
            assert_eq!(panic.downcast_ref::<String>().unwrap(), &format!("part {panicking} fails"));
            let sum = AtomicUsize::new(0);
            pool.run(10, &|part, _| {
                sum.fetch_add(part, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 45);
        }
    }

    #[test]
    fn a_job_within_a_job_and_two_callers() {
        let pool = Pool::new(2);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        pool.run(4, &|_, _| {
                            pool.run(3, &|part, _| {
                                sum.fetch_add(part, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 2 * 100 * 4 * 3);
    }
}
