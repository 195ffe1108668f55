//! Ctrl-C and the termination signal: the first one asks the training loop to save and stop, the second one ends the
//! program at once.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit status after an interrupt, as shells report it: 128 + SIGINT.
pub const INTERRUPTED_STATUS: i32 = 130;

/// A flag that the first signal raises. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches Ctrl-C, and SIGTERM and SIGHUP where there are such, for the rest of the program. Call it once.
    ///
    /// # Errors
    ///
    /// [`ctrlc::Error`] when a handler stands already or the system refuses one.
    pub fn install() -> Result<Self, ctrlc::Error> {
        let interrupt = Self::default();
        let flag = Arc::clone(&interrupt.0);
        ctrlc::try_set_handler(move || {
            if flag.swap(true, Ordering::SeqCst) {
                process::exit(INTERRUPTED_STATUS);
            }
        })?;
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
