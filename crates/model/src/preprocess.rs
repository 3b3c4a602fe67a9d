//! From values to the numbers a model computes with: standardisation, indicators, piecewise-linear
//! encodings, vocabularies. Fitted on training rows only; the same code encodes at training and at
//! prediction.
//!
//! Does not know what is computed with the numbers.

use serde::{Deserialize, Serialize};

use crate::table::{Input, InputType, TableColumn};

/// Code of a category that is not in the vocabulary.
pub const UNKNOWN: u32 = 0;
/// Code of a missing category.
pub const MISSING: u32 = 1;
/// Code of the vocabulary's first entry.
pub const FIRST: u32 = 2;

/// How one column is encoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Encoding {
    /// `(value − mean) / deviation`, then the indicator, then the bins.
    Number {
        /// Mean of the training rows.
        mean: f64,
        /// Population standard deviation of the training rows; 1 where they are all alike.
        deviation: f64,
        /// Whether there is an input that is 1 where the value is missing.
        indicator: bool,
        /// Boundaries of the piecewise-linear encoding (quantiles of the training rows), empty
        /// where there is none; n boundaries give n − 1 inputs.
        bins: Vec<f64>,
    },
    /// An entry of the vocabulary, or one of two buckets.
    Category {
        /// The known categories, ascending as text.
        vocabulary: Vec<String>,
    },
}

/// One column of the signature with its encoding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Name of the column.
    pub name: String,
    /// What values it takes.
    pub input: InputType,
    /// Whether it may be missing.
    pub nullable: bool,
    /// How it is encoded.
    pub encoding: Encoding,
}

/// Encodings of all columns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// In the order of the signature.
    pub columns: Vec<Column>,
}

/// Why a value is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ValueError {
    /// The row has another number of values than the signature.
    #[error("the row has {given} values, the signature {expected}")]
    Width {
        /// Values in the row.
        given: usize,
        /// Columns of the signature.
        expected: usize,
    },
    /// A column that must be there is not.
    #[error("`{column}` is missing, and the model has never seen it missing")]
    Missing {
        /// The column.
        column: String,
    },
    /// A value has the wrong type.
    #[error("`{column}` takes {expected}, and was given {given}")]
    Type {
        /// The column.
        column: String,
        /// The signature's type.
        expected: &'static str,
        /// What came.
        given: &'static str,
    },
    /// An infinite number.
    #[error("`{column}` is infinite")]
    Infinite {
        /// The column.
        column: String,
    },
}

impl Column {
    fn refuse(&self, value: &Input<'_>) -> ValueError {
        ValueError::Type {
            column: self.name.clone(),
            expected: self.input.name(),
            given: value.type_name(),
        }
    }

    /// The value as a number, NaN where it is missing.
    fn number(&self, value: &Input<'_>) -> Result<f64, ValueError> {
        let number = match (value, self.input) {
            (Input::Missing, _) => f64::NAN,
            (Input::Number(number), InputType::Float64) => *number,
            (Input::Integer(number), InputType::Float64 | InputType::Int64) => *number as f64,
            (Input::Boolean(flag), InputType::Boolean) => f64::from(u8::from(*flag)),
            _ => return Err(self.refuse(value)),
        };
        if number.is_infinite() {
            return Err(ValueError::Infinite { column: self.name.clone() });
        }
        if number.is_nan() && !self.nullable {
            return Err(ValueError::Missing { column: self.name.clone() });
        }
        Ok(number)
    }

    /// The code of the value in `vocabulary`.
    fn code(&self, value: &Input<'_>, vocabulary: &[String]) -> Result<u32, ValueError> {
        let mut buffer = [0; INTEGER_BYTES];
        let text = match (value, self.input) {
            (Input::Missing, _) if self.nullable => return Ok(MISSING),
            (Input::Missing, _) => {
                return Err(ValueError::Missing { column: self.name.clone() });
            }
            (Input::Text(text), InputType::String) => text,
            (Input::Integer(number), InputType::Int64) => integer_text(*number, &mut buffer),
            (Input::Boolean(flag), InputType::Boolean) => boolean_text(*flag),
            _ => return Err(self.refuse(value)),
        };
        let found = vocabulary.binary_search_by(|entry| entry.as_str().cmp(text));
        Ok(found.map_or(UNKNOWN, |at| at as u32 + FIRST))
    }
}

const INTEGER_BYTES: usize = 20;

/// Decimal text of an integer, without an allocation.
fn integer_text(number: i64, buffer: &mut [u8; INTEGER_BYTES]) -> &str {
    let mut rest = number.unsigned_abs();
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    std::str::from_utf8(&buffer[at..]).unwrap_or_default()
}

fn boolean_text(flag: bool) -> &'static str {
    if flag { "true" } else { "false" }
}

/// Text of a category as vocabularies hold it; `None` for floats and missing values.
pub fn category_text(value: &Input<'_>) -> Option<String> {
    match value {
        Input::Text(text) => Some((*text).to_owned()),
        Input::Integer(number) => Some(number.to_string()),
        Input::Boolean(flag) => Some(boolean_text(*flag).to_owned()),
        Input::Number(_) | Input::Missing => None,
    }
}

impl Preprocessing {
    /// Checks what was read from somewhere.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        for column in &self.columns {
            match &column.encoding {
                Encoding::Number { mean, deviation, bins, .. } => {
                    if !mean.is_finite() || !deviation.is_finite() || *deviation <= 0.0 {
                        return Err(
                            "a column is scaled by something that is not a positive number",
                        );
                    }
                    if bins.len() == 1 || !bins.is_sorted_by(|low, high| low < high) {
                        return Err("the bins of a column are not ascending");
                    }
                }
                Encoding::Category { vocabulary } => {
                    if vocabulary.windows(2).any(|pair| pair[0] >= pair[1]) {
                        return Err("a vocabulary is not ascending");
                    }
                }
            }
        }
        Ok(())
    }

    /// Number of columns that become numbers.
    pub fn numbers(&self) -> usize {
        self.columns.iter().filter(|c| matches!(c.encoding, Encoding::Number { .. })).count()
    }

    /// Number of columns that become codes.
    pub fn codes(&self) -> usize {
        self.columns.len() - self.numbers()
    }

    /// Codes of each categorical column, the two buckets included.
    pub fn code_counts(&self) -> Vec<usize> {
        let count = |column: &Column| match &column.encoding {
            Encoding::Category { vocabulary } => Some(vocabulary.len() + FIRST as usize),
            Encoding::Number { .. } => None,
        };
        self.columns.iter().filter_map(count).collect()
    }

    /// Number of inputs that the numbers become.
    pub fn width(&self) -> usize {
        let width = |column: &Column| match &column.encoding {
            Encoding::Number { indicator, bins, .. } => {
                1 + usize::from(*indicator) + bins.len().saturating_sub(1)
            }
            Encoding::Category { .. } => 0,
        };
        self.columns.iter().map(width).sum()
    }

    /// One row: its numbers (NaN where missing) and its codes, each in the order of the columns.
    ///
    /// # Errors
    /// [`ValueError`]; `numbers` and `codes` are then unspecified.
    pub fn read(
        &self,
        inputs: &[Input<'_>],
        numbers: &mut [f64],
        codes: &mut [u32],
    ) -> Result<(), ValueError> {
        if inputs.len() != self.columns.len() {
            return Err(ValueError::Width { given: inputs.len(), expected: self.columns.len() });
        }
        let (mut number, mut code) = (0, 0);
        for (column, value) in self.columns.iter().zip(inputs) {
            match &column.encoding {
                Encoding::Number { .. } => {
                    numbers[number] = column.number(value)?;
                    number += 1;
                }
                Encoding::Category { vocabulary } => {
                    codes[code] = column.code(value, vocabulary)?;
                    code += 1;
                }
            }
        }
        Ok(())
    }

    /// The inputs for one row's `numbers`; `out` has [`Preprocessing::width`] entries.
    pub fn encode(&self, numbers: &[f64], out: &mut [f32]) {
        let encodings = self.columns.iter().map(|column| &column.encoding);
        let mut at = 0;
        let mut numbers = numbers.iter();
        for encoding in encodings {
            let Encoding::Number { mean, deviation, indicator, bins } = encoding else { continue };
            let Some(number) = numbers.next() else { return };
            let missing = number.is_nan();
            out[at] = if missing { 0.0 } else { ((number - mean) / deviation) as f32 };
            at += 1;
            if *indicator {
                out[at] = f32::from(u8::from(missing));
                at += 1;
            }
            let inputs = bins.len().saturating_sub(1);
            piecewise(*number, bins, &mut out[at..at + inputs]);
            at += inputs;
        }
    }
}

/// The piecewise-linear encoding (Gorishniy et al. 2022, equation 1): full below, a share of the bin
/// that holds the value, empty above; the outer bins go on linearly. All empty where missing.
fn piecewise(number: f64, bins: &[f64], out: &mut [f32]) {
    if number.is_nan() {
        out.fill(0.0);
        return;
    }
    let last = out.len().saturating_sub(1);
    for (bin, share) in out.iter_mut().enumerate() {
        let (low, high) = (bins[bin], bins[bin + 1]);
        *share = if number < low && bin > 0 {
            0.0
        } else if number >= high && bin < last {
            1.0
        } else {
            ((number - low) / (high - low)) as f32
        };
    }
}

/// The encoding of a numeric column, from its training rows.
pub fn fit_number(
    column: &TableColumn,
    rows: &[u32],
    indicator: bool,
    bins: usize,
) -> Result<Encoding, &'static str> {
    let mut values = Vec::with_capacity(rows.len());
    for row in rows {
        let value = match column.value(*row as usize) {
            Input::Number(number) => number,
            Input::Integer(number) => number as f64,
            Input::Boolean(flag) => f64::from(u8::from(flag)),
            Input::Missing => continue,
            Input::Text(_) => return Err("it holds text: declare it categorical"),
        };
        if value.is_finite() {
            values.push(value);
        } else if value.is_infinite() {
            return Err("it holds an infinite value: exclude it in the view");
        }
    }
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
    let deviation = variance.sqrt();
    if !mean.is_finite() || !deviation.is_finite() {
        return Err("its values are too large for a mean: scale it in the view");
    }
    // Rounding leaves a constant column a deviation of some ulps of its mean.
    let deviation = if deviation > 1e-12 * mean.abs() { deviation } else { 1.0 };
    Ok(Encoding::Number { mean, deviation, indicator, bins: quantiles(values, bins) })
}

/// Distinct boundaries of `bins` bins of equal count; none where there are fewer than two.
fn quantiles(mut values: Vec<f64>, bins: usize) -> Vec<f64> {
    if bins == 0 || values.is_empty() {
        return Vec::new();
    }
    values.sort_unstable_by(f64::total_cmp);
    let last = (values.len() - 1) as f64;
    let at = |bin: usize| {
        let position = last * bin as f64 / bins as f64;
        let below = position.floor();
        let (low, high) = (values[below as usize], values[position.ceil() as usize]);
        low + (high - low) * (position - below)
    };
    let mut boundaries: Vec<f64> = (0..=bins).map(at).collect();
    boundaries.dedup_by(|next, before| *next <= *before);
    if boundaries.len() < 2 { Vec::new() } else { boundaries }
}

/// The vocabulary of a categorical column: the `most` most frequent categories of its training rows.
pub fn fit_category(column: &TableColumn, rows: &[u32], most: usize) -> Option<Encoding> {
    let mut counts = std::collections::BTreeMap::<String, u64>::new();
    for row in rows {
        let value = column.value(*row as usize);
        if matches!(value, Input::Number(_)) {
            return None;
        }
        if let Some(text) = category_text(&value) {
            *counts.entry(text).or_default() += 1;
        }
    }
    let mut entries: Vec<(String, u64)> = counts.into_iter().collect();
    entries.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    entries.truncate(most);
    let mut vocabulary: Vec<String> = entries.into_iter().map(|(text, _)| text).collect();
    vocabulary.sort_unstable();
    Some(Encoding::Category { vocabulary })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_written_as_text() {
        for number in [0, 7, -1, 42, i64::MAX, i64::MIN] {
            assert_eq!(integer_text(number, &mut [0; INTEGER_BYTES]), number.to_string());
        }
    }

    #[test]
    fn the_piecewise_encoding_is_the_papers() {
        let bins = [0.0, 1.0, 3.0];
        let encode = |value| {
            let mut out = [0.0; 2];
            piecewise(value, &bins, &mut out);
            out
        };
        assert_eq!(encode(0.5), [0.5, 0.0]);
        assert_eq!(encode(1.0), [1.0, 0.0]);
        assert_eq!(encode(2.0), [1.0, 0.5]);
        assert_eq!(encode(5.0), [1.0, 2.0]);
        assert_eq!(encode(-1.0), [-1.0, 0.0]);
        assert_eq!(encode(f64::NAN), [0.0, 0.0]);
    }

    #[test]
    fn quantiles_of_ties_are_distinct() {
        assert_eq!(quantiles(vec![1.0; 9], 4), Vec::<f64>::new());
        assert_eq!(quantiles(vec![1.0, 1.0, 1.0, 2.0, 3.0], 4), vec![1.0, 2.0, 3.0]);
    }
}
