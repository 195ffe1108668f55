//! Ctrl-C, the termination signal and the hang-up: the first one asks the training scan to save and stop, the second
//! one ends the program at once.
//!
//! A signal that the program was started to ignore stays ignored: `nohup` does that to the hang-up, and a shell without
//! job control to Ctrl-C where it starts something in the background. Whether it was can be told on Linux only.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit status after an interrupt, as shells report it: 128 + SIGINT.
pub const INTERRUPTED_STATUS: i32 = 130;

/// Signals that ask the program to end, by name and number.
const SIGNALS: &[(&str, i32)] = &[
    ("INT", SIGINT),
    ("TERM", SIGTERM),
    #[cfg(unix)]
    ("HUP", signal_hook::consts::SIGHUP),
];

/// Lets a write beyond the largest size of a file fail as an error, instead of ending the program by its signal.
///
/// # Errors
///
/// [`io::Error`] when the system refuses a handler.
pub fn keep_writing_errors() -> io::Result<()> {
    #[cfg(unix)]
    flag::register(signal_hook::consts::SIGXFSZ, Arc::default())?;
    Ok(())
}

/// The name and number of each signal that [`Interrupt::install`] catches: those that ask the program to end and that
/// it was not started to ignore. Asked after that, it tells the same.
#[must_use]
pub fn caught_signals() -> Vec<(&'static str, i32)> {
    let ignored = ignored_signals();
    SIGNALS.iter().copied().filter(|(_, signal)| ignored >> (signal - 1) & 1 == 0).collect()
}

/// The signals that the program ignores: signal `n` is bit `n - 1`.
#[cfg(target_os = "linux")]
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// None, as far as can be told.
#[cfg(not(target_os = "linux"))]
fn ignored_signals() -> u64 {
    0
}

/// A flag that the first signal raises. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches the signals of [`caught_signals`] for the rest of the program. Call it once.
    ///
    /// # Errors
    ///
    /// [`io::Error`] when the system refuses a handler.
    pub fn install() -> io::Result<Self> {
        let interrupt = Self::default();
        for (_, signal) in caught_signals() {
            // In this order: what the second signal does looks at the flag before the same signal raises it.
            flag::register_conditional_shutdown(signal, INTERRUPTED_STATUS, Arc::clone(&interrupt.0))?;
            flag::register(signal, Arc::clone(&interrupt.0))?;
        }
        Ok(interrupt)
    }

    /// Whether a signal has come.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Raises the flag without a signal.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
