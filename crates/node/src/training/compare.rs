//! How the features of two modes differ: the skew between training and serving, per feature.
//!
//! Names follow Chronon's consistency metrics (`CompareMetrics`): left is the set that was asked for,
//! right the other mode. Does not know how either came about.

use falaj_definitions::pipelines::TrainingMode;
use falaj_event::Value;
use falaj_event::cells::Cells;
use serde_json::{Value as Json, json};

use super::answers::Features;

/// Compares the features asked for with those of `mode`, over the rows that both have something to say
/// about.
pub fn compare(mode: TrainingMode, left: &Features, right: &Features) -> Json {
    let is_without = |row: &usize| {
        [left, right].into_iter().any(|side| side.without.get(*row).copied().unwrap_or(false))
    };
    let rows: Vec<usize> = (0..left.rows()).filter(|row| !is_without(row)).collect();
    let mut differs = vec![false; left.rows()];
    let features: Vec<Json> = left
        .names
        .iter()
        .zip(left.arrays.iter().zip(&right.arrays))
        .map(|(name, (left, right))| {
            let skew = match (Cells::new(left.as_ref()), Cells::new(right.as_ref())) {
                (Ok(left), Ok(right)) => column(&left, &right, &rows, &mut differs),
                _ => Skew::default(),
            };
            skew.to_json(name)
        })
        .collect();
    json!({
        "mode": mode.as_str(),
        "rows": rows.len(),
        "rows_without": left.rows() - rows.len(),
        "differing_rows": differs.iter().filter(|differs| **differs).count(),
        "features": features,
    })
}

/// What is counted of one feature.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Skew {
    both_null: u64,
    left_null: u64,
    right_null: u64,
    /// Rows with values on both sides that are not the same.
    mismatch: u64,
    /// Rows with numbers on both sides.
    numbers: u64,
    sum_absolute: f64,
    greatest_absolute: f64,
    /// Sum of |l − r| / (|l| + |r|), 0 where both are 0.
    sum_relative: f64,
}

fn column(left: &Cells<'_>, right: &Cells<'_>, rows: &[usize], differs: &mut [bool]) -> Skew {
    let mut skew = Skew::default();
    for row in rows.iter().copied() {
        let (left, right) = (left.value(row), right.value(row));
        differs[row] |= left != right;
        match (left.is_null(), right.is_null()) {
            (true, true) => skew.both_null += 1,
            (true, false) => skew.left_null += 1,
            (false, true) => skew.right_null += 1,
            (false, false) => skew.add(&left, &right),
        }
    }
    skew
}

impl Skew {
    fn add(&mut self, left: &Value, right: &Value) {
        self.mismatch += u64::from(left != right);
        let (Some(left), Some(right)) = (number(left), number(right)) else { return };
        self.numbers += 1;
        let absolute = (left - right).abs();
        if absolute > 0.0 {
            self.sum_absolute += absolute;
            self.greatest_absolute = self.greatest_absolute.max(absolute);
            self.sum_relative += absolute / (left.abs() + right.abs());
        }
    }

    fn to_json(self, name: &str) -> Json {
        let mean = |sum: f64| match self.numbers {
            0 => Json::Null,
            count => json!(sum / count as f64),
        };
        json!({
            "name": name,
            "both_null": self.both_null,
            "left_null": self.left_null,
            "right_null": self.right_null,
            "mismatch": self.mismatch,
            "mean_absolute": mean(self.sum_absolute),
            "greatest_absolute": if self.numbers > 0 { json!(self.greatest_absolute) } else { Json::Null },
            // Symmetric mean absolute percentage error, between 0 and 2.
            "smape": mean(2.0 * self.sum_relative),
        })
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::UInt(value) => Some(*value as f64),
        Value::Float32(value) => Some(f64::from(*value)),
        Value::Float64(value) => Some(*value),
        Value::Decimal(unscaled, scale) => Some(*unscaled as f64 / 10f64.powi(i32::from(*scale))),
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array};

    #[test]
    fn differences_are_counted_and_measured() {
        let left = Int64Array::from(vec![Some(1), Some(2), None, Some(4), None]);
        let right = Int64Array::from(vec![Some(1), Some(6), None, None, Some(5)]);
        let mut differs = vec![false; 5];
        let (cells, others) = (Cells::new(&left).unwrap(), Cells::new(&right).unwrap());
        let skew = column(&cells, &others, &[0, 1, 2, 3, 4], &mut differs);
        assert_eq!((skew.both_null, skew.left_null, skew.right_null, skew.mismatch), (1, 1, 1, 1));
        assert_eq!((skew.numbers, skew.sum_absolute, skew.greatest_absolute), (2, 4.0, 4.0));
        assert_eq!(differs, [false, true, false, true, true]);
        assert_eq!(skew.to_json("n")["smape"], 0.5);
        // The same NaN on both sides is no difference.
        let floats = Float64Array::from(vec![f64::NAN, 0.0]);
        let cells = Cells::new(&floats).unwrap();
        let same = column(&cells, &Cells::new(&floats).unwrap(), &[0, 1], &mut differs);
        assert_eq!((same.mismatch, same.greatest_absolute), (0, 0.0));
    }
}
