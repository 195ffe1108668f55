//! What a graph begins with: inputs, shared variables and constant arrays.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::array::Array;
use crate::diagnostic::Site;
use crate::op::LeafId;
use crate::shape::TensorType;
use crate::tensor::Tensor;

/// A named or constant beginning of a graph.
#[derive(Debug)]
pub struct Leaf {
    /// Its identity.
    pub id: LeafId,
    /// The user's name for it; inputs and shared variables have one.
    pub name: Option<Arc<str>>,
    /// Its declared type.
    pub ty: TensorType,
    /// Where it was made; graphs read from text know no line.
    pub site: Option<Site>,
    /// What it is.
    pub kind: LeafKind,
}

/// What a leaf is.
#[derive(Clone, Debug)]
pub enum LeafKind {
    /// Given at every call.
    Input,
    /// Kept between calls.
    Shared(Arc<SharedCell>),
    /// Fixed.
    Constant(Arc<Array>),
    /// Kept from step to step of a scan; stands only in the scan's body.
    Carry,
}

impl Leaf {
    /// The name for messages.
    pub fn label(&self) -> String {
        match (&self.name, &self.kind) {
            (Some(name), _) => format!("`{name}`"),
            (None, LeafKind::Input) => "an unnamed input".to_string(),
            (None, LeafKind::Shared(_)) => "an unnamed shared variable".to_string(),
            (None, LeafKind::Constant(_)) => "a constant".to_string(),
            (None, LeafKind::Carry) => "a carry".to_string(),
        }
    }
}

/// A leaf identity that was never given before in this process.
pub(crate) fn fresh_leaf_id() -> LeafId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    LeafId(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The value of a shared variable as it lies on a device, newer than the one on the host.
pub trait RemoteValue: Send {
    /// Copies the value into `host`, which has the right type and shape; the message says what failed.
    fn fetch(&self, host: &mut Array) -> Result<(), String>;
}

/// The default update of a shared variable, as its state keeps it.
#[derive(Clone)]
pub(crate) struct DefaultUpdate {
    /// The next value, in which leaves without a state stand for the variable itself and for its partners.
    pub(crate) value: Tensor,
    /// Variables that it reads and does not keep alive.
    pub(crate) partners: Vec<Weak<Leaf>>,
}

/// The state behind a shared variable.
pub struct SharedCell {
    state: Mutex<SharedState>,
    default_update: Mutex<Option<DefaultUpdate>>,
}

/// The value of a shared variable. While a `remote` is set, that is the value and `host` is out of date.
pub struct SharedState {
    /// The value on the host.
    pub host: Array,
    /// The newer value on a device.
    pub remote: Option<Box<dyn RemoteValue>>,
    /// Rises with every change, so that copies on devices know when they are out of date.
    pub version: u64,
}

impl SharedState {
    /// Brings the newest value to the host.
    pub fn fetch(&mut self) -> Result<(), String> {
        if let Some(remote) = &self.remote {
            remote.fetch(&mut self.host)?;
            self.remote = None;
        }
        Ok(())
    }
}

impl SharedCell {
    pub(crate) fn new(value: Array) -> SharedCell {
        SharedCell {
            state: Mutex::new(SharedState { host: value, remote: None, version: 0 }),
            default_update: Mutex::new(None),
        }
    }

    /// Locks the value. A panic elsewhere while it was locked left it whole: only finished values are written.
    pub fn lock(&self) -> MutexGuard<'_, SharedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn default_update(&self) -> MutexGuard<'_, Option<DefaultUpdate>> {
        self.default_update.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SharedCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state.try_lock() {
            Ok(state) => write!(f, "SharedCell({:?})", state.host),
            Err(_) => f.write_str("SharedCell(in use)"),
        }
    }
}
