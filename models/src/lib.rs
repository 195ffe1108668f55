//! The models of the Deep Learning Tutorials as graphs, and how they are optimised.
//!
//! The classes of the tutorials hold formulas ([`logistic_regression`], [`mlp`], [`lenet`], [`autoencoder`], [`sda`],
//! [`rbm`], [`dbn`], [`rnn_slu`], [`lstm`], [`rnn_rbm`], [`mcrbm`]); [`hmc`] samples from any density, [`descent`] makes
//! updates of gradients, [`conjugate_gradients`] minimises a cost over all data, [`early_stopping`] says when to stop.
//! Data, files, training runs and the command line are deliberately absent: see `crates/datasets` and `crates/cli`.
//!
//! Two steps of logistic regression on generated digits:
//!
//! ```
//! use hypatia::{Array, function, grad, matrix, vector};
//! use hypatia_datasets::{CLASSES, Dataset, IMAGE_PIXELS, SetSizes};
//! use hypatia_models::descent::Descent;
//! use hypatia_models::logistic_regression::LogisticRegression;
//! use hypatia_models::parameter::Parameter;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (x, y) = (matrix::<f32>("x"), vector::<i32>("y"));
//! let model = LogisticRegression::new(&x, IMAGE_PIXELS, CLASSES);
//! let cost = model.negative_log_likelihood(&y);
//! let parameters = Parameter::list(&["W", "b"], model.params());
//! let (updates, _) = Descent::sgd(0.1).updates(&parameters, grad(&cost, model.params()));
//! let updates: Vec<_> = updates.iter().map(|(shared, next)| (shared, next.clone())).collect();
//! let mut train = function(&[&x, &y], &[&cost], &updates)?;
//!
//! let digits = Dataset::generate(1, SetSizes { train: 100, valid: 0, test: 0 }).train;
//! let images = Array::new(&[digits.len(), IMAGE_PIXELS], digits.pixels())?;
//! let labels = Array::vector(digits.labels());
//! let first = train.call(&[&images, &labels])?.scalar(0)?;
//! assert!(train.call(&[&images, &labels])?.scalar(0)? < first);
//! # Ok(())
//! # }
//! ```

pub mod autoencoder;
pub mod conjugate_gradients;
pub mod dbn;
pub mod descent;
pub mod early_stopping;
pub mod hmc;
pub mod lenet;
pub mod logistic_regression;
pub mod lstm;
pub mod mcrbm;
pub mod mlp;
pub mod parameter;
pub mod rbm;
pub mod rnn_rbm;
pub mod rnn_slu;
pub mod sda;

#[cfg(test)]
mod tests;
