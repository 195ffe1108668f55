//! The random generators of NumPy, draw for draw: the legacy one and the present default.

mod generator;
mod random_state;

pub use generator::Generator;
pub use random_state::{Mt19937State, RandomState, RandomStateError};
