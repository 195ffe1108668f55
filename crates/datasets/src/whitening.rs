//! Whitening by principal components: data of many correlated inputs become few uncorrelated ones of unit variance.
//!
//! Rows are centred and projected on the eigenvectors of their covariance (divisor `n - 1`), largest variance first,
//! each divided by its standard deviation. The largest entry of an eigenvector is positive, so that the same data give
//! the same signs. Computed in f64. Whitening that turns back into the input space (ZCA) is deliberately absent.

use nalgebra::{DMatrix, DMatrixView, SymmetricEigen};
use thiserror::Error;

use crate::count::Counted;

/// Rows taken at a time, so that little of the data stands in memory as f64.
const CHUNK: usize = 1024;

/// Why data cannot be whitened.
#[derive(Debug, Error, PartialEq)]
pub enum WhiteningError {
    /// Values that are not whole rows, or too few rows for a covariance.
    #[error("whitening: expected at least 2 rows of {}, found {} in all", Counted(*inputs, "value"), Counted(*found, "value"))]
    Rows {
        /// Values of a row.
        inputs: usize,
        /// Values in all.
        found: usize,
    },
    /// A value that is NaN or infinite.
    #[error("whitening: row {row}, value {value}: expected a finite number, found {found}")]
    NotFinite {
        /// Index of the row, from 0.
        row: usize,
        /// Index in the row, from 0.
        value: usize,
        /// What stands there.
        found: f32,
    },
    /// More components than the data have directions in which they vary.
    #[error(
        "whitening: expected between 1 and {possible} components, as the data vary in {}, found {wanted}",
        Counted(*possible, "direction")
    )]
    Components {
        /// Directions in which the data vary.
        possible: usize,
        /// Components asked for.
        wanted: usize,
    },
}

/// The linear map that whitens data, and its inverse on what is kept of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Whitening {
    mean: Vec<f64>,
    /// Variances along the components that are kept, descending.
    variances: Vec<f64>,
    /// Sum of the variances along all components.
    total_variance: f64,
    /// Eigenvectors as columns, `[inputs, components]`.
    vectors: DMatrix<f64>,
}

impl Whitening {
    /// The map for the data `rows`, row-major of shape `[n, inputs]`, that keeps so many components.
    ///
    /// # Errors
    ///
    /// [`WhiteningError`].
    pub fn fit(rows: &[f32], inputs: usize, components: usize) -> Result<Self, WhiteningError> {
        if inputs == 0 || !rows.len().is_multiple_of(inputs) || rows.len() / inputs < 2 {
            return Err(WhiteningError::Rows { inputs, found: rows.len() });
        }
        if let Some(place) = rows.iter().position(|value| !value.is_finite()) {
            let (row, value) = (place / inputs, place % inputs);
            return Err(WhiteningError::NotFinite { row, value, found: rows[place] });
        }
        let count = (rows.len() / inputs) as f64;
        let mut mean = vec![0.0; inputs];
        for row in rows.chunks_exact(inputs) {
            mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += f64::from(*value));
        }
        mean.iter_mut().for_each(|mean| *mean /= count);
        let mut covariance = DMatrix::zeros(inputs, inputs);
        for chunk in rows.chunks(CHUNK * inputs) {
            let centred = centre(chunk, &mean);
            covariance.gemm(1.0 / (count - 1.0), &centred, &centred.transpose(), 1.0);
        }
        let total_variance = covariance.trace();
        let eigen = SymmetricEigen::new(covariance);
        let mut order: Vec<usize> = (0..inputs).collect();
        order.sort_by(|a, b| eigen.eigenvalues[*b].total_cmp(&eigen.eigenvalues[*a]));
        // Smaller variances cannot be told from errors of rounding.
        let noise = eigen.eigenvalues.max() * inputs as f64 * f64::EPSILON;
        let possible = order.iter().filter(|index| eigen.eigenvalues[**index] > noise).count();
        if components == 0 || components > possible {
            return Err(WhiteningError::Components { possible, wanted: components });
        }
        order.truncate(components);
        let mut vectors = eigen.eigenvectors.select_columns(&order);
        for mut vector in vectors.column_iter_mut() {
            if vector[vector.icamax()] < 0.0 {
                vector.neg_mut();
            }
        }
        let variances = order.iter().map(|index| eigen.eigenvalues[*index]).collect();
        Ok(Self { mean, variances, total_variance, vectors })
    }

    /// Values of a row of data.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.mean.len()
    }

    /// Values of a row of whitened data.
    #[must_use]
    pub fn components(&self) -> usize {
        self.variances.len()
    }

    /// Variances along the components, in falling order.
    #[must_use]
    pub fn variances(&self) -> &[f64] {
        &self.variances
    }

    /// The share of the data's variance along the components that are kept, at most 1.
    #[must_use]
    pub fn explained_variance(&self) -> f64 {
        self.variances.iter().sum::<f64>() / self.total_variance
    }

    /// Data `[n, inputs]` as whitened rows `[n, components]`. A last row that is not whole is left out.
    #[must_use]
    pub fn whiten(&self, rows: &[f32]) -> Vec<f32> {
        let mut whitened = Vec::with_capacity(rows.len() / self.inputs() * self.components());
        for chunk in rows.chunks(CHUNK * self.inputs()) {
            let projected = self.vectors.transpose() * centre(chunk, &self.mean);
            for row in projected.column_iter() {
                let scaled = row.iter().zip(&self.variances).map(|(value, variance)| value / variance.sqrt());
                whitened.extend(scaled.map(|value| value as f32));
            }
        }
        whitened
    }

    /// The data `[n, inputs]` that whitened rows `[n, components]` stand for, up to what was not kept of them.
    #[must_use]
    pub fn unwhiten(&self, rows: &[f32]) -> Vec<f32> {
        self.invert(rows, &self.mean)
    }

    /// As [`Whitening::unwhiten`] without the mean: directions, such as filters, in the space of the data.
    #[must_use]
    pub fn unwhiten_directions(&self, rows: &[f32]) -> Vec<f32> {
        self.invert(rows, &vec![0.0; self.inputs()])
    }

    fn invert(&self, rows: &[f32], offset: &[f64]) -> Vec<f32> {
        let components = self.components();
        let mut values = Vec::with_capacity(rows.len() / components * self.inputs());
        for chunk in rows.chunks(CHUNK * components) {
            let scaled = DMatrix::from_fn(components, chunk.len() / components, |component, row| {
                f64::from(chunk[row * components + component]) * self.variances[component].sqrt()
            });
            for row in (&self.vectors * scaled).column_iter() {
                values.extend(row.iter().zip(offset).map(|(value, offset)| (value + offset) as f32));
            }
        }
        values
    }
}

/// The rows of a chunk without their mean, as the columns of a matrix.
fn centre(chunk: &[f32], mean: &[f64]) -> DMatrix<f64> {
    let inputs = mean.len();
    let count = chunk.len() / inputs;
    // Rows one after another are the columns of a column-major matrix.
    let rows = DMatrixView::from_slice(&chunk[..count * inputs], inputs, count);
    DMatrix::from_fn(inputs, count, |input, row| f64::from(rows[(input, row)]) - mean[input])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numpy::Generator;
    use crate::patches::ColourImages;

    /// Values made by `tests/reference/whitening.py`: 12 rows of 5 correlated inputs, 3 components.
    fn reference(name: &str) -> Vec<f32> {
        let text = include_str!("../../../tests/reference/whitening.txt");
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(|number| number.parse().unwrap()).collect()
    }

    fn assert_close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{found} {expected}");
        }
    }

    #[test]
    fn whitening_is_that_of_numpy() {
        let rows = reference("rows ");
        let whitening = Whitening::fit(&rows, 5, 3).unwrap();
        let variances: Vec<f32> = whitening.variances().iter().map(|variance| *variance as f32).collect();
        assert_close(&variances, &reference("variances "));
        assert_close(&[whitening.explained_variance() as f32], &reference("explained "));
        let whitened = whitening.whiten(&rows);
        assert_close(&whitened, &reference("whitened "));
        assert_close(&whitening.unwhiten(&whitened), &reference("unwhitened "));
    }

    #[test]
    fn whitened_data_are_uncorrelated_and_come_back() {
        // More rows than a chunk, as many components as inputs.
        let (count, inputs) = (3000, 12);
        let mut generator = Generator::new(5);
        let mixing = generator.random(inputs * inputs);
        let sources = generator.random(count * inputs);
        let mut rows = Vec::new();
        for source in sources.chunks(inputs) {
            rows.extend(mixing.chunks(inputs).map(|mix| {
                100.0 + 30.0 * mix.iter().zip(source).map(|(weight, value)| weight * value).sum::<f32>()
            }));
        }
        let whitening = Whitening::fit(&rows, inputs, inputs).unwrap();
        assert!((whitening.explained_variance() - 1.0).abs() < 1e-12);
        let whitened = whitening.whiten(&rows);
        for a in 0..inputs {
            for b in 0..inputs {
                let products = whitened.chunks(inputs).map(|row| f64::from(row[a]) * f64::from(row[b]));
                let covariance = products.sum::<f64>() / (count - 1) as f64;
                assert!((covariance - f64::from(u8::from(a == b))).abs() < 1e-4, "{a} {b} {covariance}");
            }
        }
        assert_close(&whitening.unwhiten(&whitened), &rows);
        let difference: Vec<f32> = rows[..inputs].iter().zip(&rows[inputs..]).map(|(a, b)| a - b).collect();
        let direction: Vec<f32> =
            whitened[..inputs].iter().zip(&whitened[inputs..]).map(|(a, b)| a - b).collect();
        let back = whitening.unwhiten_directions(&direction);
        assert!(back.iter().zip(&difference).all(|(a, b)| (a - b).abs() < 1e-3));
    }

    /// Figures of the data's own description.
    #[test]
    fn natural_patches_need_134_components_for_99_percent() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/patches");
        if !path.exists() {
            eprintln!("skipped: no real data at {}", path.display());
            return;
        }
        let patches = ColourImages::read(&path).unwrap();
        let rows: Vec<f32> = patches.bytes().iter().map(|byte| f32::from(*byte)).collect();
        let whitening = Whitening::fit(&rows, 768, 134).unwrap();
        let share =
            |count: usize| whitening.variances()[..count].iter().sum::<f64>() / whitening.total_variance;
        assert!(share(133) < 0.99 && share(134) >= 0.99);
        assert!((share(105) - 0.985).abs() < 5e-4, "{}", share(105));
    }

    #[test]
    fn data_that_cannot_be_whitened_are_described() {
        let message = |rows: &[f32], inputs, components| {
            Whitening::fit(rows, inputs, components).unwrap_err().to_string()
        };
        assert_eq!(
            message(&[1.0; 5], 2, 1),
            "whitening: expected at least 2 rows of 2 values, found 5 values in all"
        );
        assert_eq!(
            message(&[1.0, 2.0, f32::NAN, 4.0], 2, 1),
            "whitening: row 1, value 0: expected a finite number, found NaN"
        );
        // The second input is twice the first.
        let line = [1.0, 2.0, 2.0, 4.0, 4.0, 8.0];
        assert_eq!(
            message(&line, 2, 2),
            "whitening: expected between 1 and 1 components, as the data vary in 1 direction, found 2"
        );
        assert_eq!(Whitening::fit(&line, 2, 1).unwrap().components(), 1);
    }
}
