//! The models that the program trains, and how: a module for each, of which the formulas are in `hypatia_models`.
//!
//! A new model is a module here and a line in [`MODELS`]. A classifier is a [`classifier::Classifier`] and nothing more.

mod autoencoders;
mod best;
pub mod classifier;
mod dbn;
mod lenet;
mod logistic_cg;
mod logreg;
mod lstm;
mod mcrbm;
mod mlp;
mod pretraining;
mod rbm;
mod rnn_rbm;
mod rnn_slu;
mod sda;

use hypatia::RandomStreams;
use hypatia_datasets::numpy::{RandomState, RandomStateError};

use crate::model::Model;

/// Every model, in the order of the tutorials.
pub const MODELS: &[Model] = &[
    logreg::MODEL,
    logistic_cg::MODEL,
    mlp::MODEL,
    lenet::MODEL,
    autoencoders::DENOISING,
    autoencoders::CONTRACTIVE,
    sda::MODEL,
    rbm::MODEL,
    dbn::MODEL,
    rnn_slu::MODEL,
    lstm::MODEL,
    rnn_rbm::MODEL,
    mcrbm::MODEL,
];

/// The model of that name.
#[must_use]
pub fn find_model(name: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.name == name)
}

/// Name of the state of the streams in checkpoints.
const STREAMS: &str = "random_streams";

/// The streams whose seed is the next draw of `rng`, as in the tutorials.
fn next_streams(rng: &mut RandomState) -> Result<RandomStreams, RandomStateError> {
    let seed = rng.randint(0, 1 << 30, 1)?[0];
    Ok(RandomStreams::new(seed.unsigned_abs()))
}
