//! The training set in memory: numbers, codes, labels, weights, and the chronological split.
//!
//! Rows are kept as they came (float64 and codes) and encoded batch by batch with the code that
//! encodes at prediction, so that memory does not grow with the encoding.

use sha2::{Digest, Sha256};

use super::TrainError;
use super::events::RowCounts;
use crate::model::Target;
use crate::preprocess::{self, Column, Encoding, Preprocessing};
use crate::spec::{ClassWeights, FeatureKind, JobSpec, Task, Trainer};
use crate::table::{Input, InputType, Table, TableColumn};

/// Rows that the model learns from.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// How columns are encoded.
    pub preprocessing: Preprocessing,
    /// What the label stands for.
    pub target: Target,
    /// `rows × numbers`, NaN where missing.
    pub numbers: Vec<f64>,
    /// `rows × codes`.
    pub codes: Vec<u32>,
    /// 0 or 1, the class, or the standardised number.
    pub labels: Vec<f32>,
    /// The label before standardisation.
    pub raw_labels: Vec<f64>,
    /// Weight of each row in the training loss.
    pub weights: Vec<f32>,
    /// The table's row of each row.
    pub rows: Vec<u32>,
    /// How they are divided.
    pub counts: RowCounts,
}

/// A run of consecutive rows.
pub type Range = std::ops::Range<usize>;

impl Dataset {
    /// Reads `table` for `spec`.
    ///
    /// # Errors
    /// [`TrainError`].
    pub fn read(spec: &JobSpec, table: &Table<'_>) -> Result<Self, TrainError> {
        let total = table.rows();
        if total > spec.bounds.max_rows {
            return Err(TrainError::TooManyRows { rows: total, bound: spec.bounds.max_rows });
        }
        let label = table.column(&spec.label)?;
        let is_labelled = |row: &u32| match label.value(*row as usize) {
            Input::Missing => false,
            Input::Number(number) => !number.is_nan(),
            _ => true,
        };
        let rows: Vec<u32> = (0..total as u32).filter(is_labelled).collect();
        let counts = split(spec, rows.len(), total)?;
        let train = &rows[..counts.train];
        let (target, raw_labels) = labels(spec, &label, &rows, train)?;
        let (preprocessing, columns) = encodings(spec, table, &rows, train)?;
        let needed =
            rows.len() * (8 * preprocessing.numbers() + 4 * preprocessing.codes() + 8 + 4 + 4 + 4);
        if needed > spec.bounds.max_bytes {
            return Err(TrainError::TooLarge { needed, bound: spec.bounds.max_bytes });
        }
        let weights = weights(spec, &raw_labels, &target, counts.train)?;
        let standardised = |label: &f64| match target {
            Target::Number { mean, deviation } => ((label - mean) / deviation) as f32,
            Target::Classes { .. } => *label as f32,
        };
        let labels = raw_labels.iter().map(standardised).collect();
        let (numbers, codes) = values(&preprocessing, &columns, &rows)?;
        Ok(Self {
            preprocessing,
            target,
            numbers,
            codes,
            labels,
            raw_labels,
            weights,
            rows,
            counts,
        })
    }

    /// The rows to train on.
    pub fn train(&self) -> Range {
        0..self.counts.train
    }

    /// The rows that follow.
    pub fn validation(&self) -> Range {
        self.counts.train..self.counts.train + self.counts.validation
    }

    /// The newest rows.
    pub fn test(&self) -> Range {
        self.counts.train + self.counts.validation..self.rows.len()
    }

    /// Numbers of one row.
    pub fn numbers_of(&self, row: usize) -> &[f64] {
        let width = self.preprocessing.numbers();
        &self.numbers[row * width..(row + 1) * width]
    }

    /// Codes of one row.
    pub fn codes_of(&self, row: usize) -> &[u32] {
        let width = self.preprocessing.codes();
        &self.codes[row * width..(row + 1) * width]
    }

    /// SHA-256 over everything a run depends on besides the job.
    pub fn fingerprint(&self) -> String {
        let mut hasher = Sha256::new();
        for number in &self.numbers {
            hasher.update(number.to_bits().to_le_bytes());
        }
        for code in &self.codes {
            hasher.update(code.to_le_bytes());
        }
        for (label, weight) in self.raw_labels.iter().zip(&self.weights) {
            hasher.update(label.to_bits().to_le_bytes());
            hasher.update(weight.to_bits().to_le_bytes());
        }
        crate::artifact::hex(&hasher.finalize())
    }
}

fn split(spec: &JobSpec, labelled: usize, total: usize) -> Result<RowCounts, TrainError> {
    let share = |share: f64| (share * labelled as f64).round() as usize;
    let train = share(spec.split.train).min(labelled);
    let validation = if spec.split.test == 0.0 {
        labelled - train
    } else {
        share(spec.split.validation).min(labelled - train)
    };
    if train == 0 || validation == 0 {
        return Err(TrainError::TooFewRows { labelled });
    }
    Ok(RowCounts {
        train,
        validation,
        test: labelled - train - validation,
        without_label: total - labelled,
    })
}

fn labels(
    spec: &JobSpec,
    column: &TableColumn,
    rows: &[u32],
    train: &[u32],
) -> Result<(Target, Vec<f64>), TrainError> {
    let wrong = |why: String| TrainError::Label { column: spec.label.clone(), why };
    if spec.task == Task::Regression {
        let number = |row: &u32| match column.value(*row as usize) {
            Input::Number(number) if number.is_finite() => Ok(number),
            Input::Integer(number) => Ok(number as f64),
            other => {
                Err(wrong(format!("row {row} holds {}, not a finite number", other.type_name())))
            }
        };
        let values = rows.iter().map(number).collect::<Result<Vec<f64>, _>>()?;
        let Encoding::Number { mean, deviation, .. } =
            preprocess::fit_number(column, train, false, 0).map_err(|why| wrong(why.to_owned()))?
        else {
            return Err(wrong("it is no number".to_owned()));
        };
        return Ok((Target::Number { mean, deviation }, values));
    }
    let texts = rows.iter().map(|row| class_text(&column.value(*row as usize)));
    let texts = texts
        .collect::<Option<Vec<String>>>()
        .ok_or_else(|| wrong("a class is a boolean, an integer or text".to_owned()))?;
    let mut classes = texts.clone();
    let numeric = |text: &String| text.parse::<i64>().ok();
    classes.sort_unstable_by(|a, b| numeric(a).cmp(&numeric(b)).then_with(|| a.cmp(b)));
    classes.dedup();
    if spec.task == Task::Binary {
        complete_binary(&mut classes);
    }
    let count = classes.len();
    if count < 2 || (spec.task == Task::Binary && count != 2) || count > 1_000 {
        let list = classes.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        let needed = if spec.task == Task::Binary { "2" } else { "2 to 1000" };
        return Err(wrong(format!("it has {count} classes ({list}), the task needs {needed}")));
    }
    let position: std::collections::HashMap<&str, usize> =
        classes.iter().enumerate().map(|(at, class)| (class.as_str(), at)).collect();
    let values: Vec<f64> = texts.iter().map(|text| position[text.as_str()] as f64).collect();
    for (class, name) in classes.iter().enumerate() {
        if !values[..train.len()].contains(&(class as f64)) {
            return Err(wrong(format!("class `{name}` does not occur in the training rows")));
        }
    }
    let input = column.input_type().unwrap_or(InputType::String);
    Ok((Target::Classes { input, classes }, values))
}

/// Class of a label; floats are taken where they are whole, because a SUM or a CASE gives such.
fn class_text(value: &Input<'_>) -> Option<String> {
    match value {
        Input::Number(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
            Some((*number as i64).to_string())
        }
        other => preprocess::category_text(other),
    }
}

/// A table in which one of 0 and 1 (false and true) happens not to occur is still of two classes; that
/// nothing can be learnt from it is said later.
fn complete_binary(classes: &mut Vec<String>) {
    if classes.len() != 1 {
        return;
    }
    for pair in [["0", "1"], ["false", "true"]] {
        if pair.contains(&classes[0].as_str()) {
            *classes = pair.map(str::to_owned).to_vec();
            return;
        }
    }
}

fn encodings(
    spec: &JobSpec,
    table: &Table<'_>,
    rows: &[u32],
    train: &[u32],
) -> Result<(Preprocessing, Vec<TableColumn>), TrainError> {
    let bins = if let Trainer::Resnet { bins, .. } = spec.trainer { bins } else { 0 };
    let mut preprocessing = Preprocessing::default();
    let mut columns = Vec::new();
    for feature in &spec.features {
        let column = table.column(&feature.name)?;
        let wrong =
            |why: &str| TrainError::Feature { column: feature.name.clone(), why: why.to_owned() };
        let is_missing = |row: &u32| match column.value(*row as usize) {
            Input::Missing => true,
            Input::Number(number) => number.is_nan(),
            _ => false,
        };
        let nullable = feature.nullable.unwrap_or_else(|| rows.iter().any(is_missing));
        let found = column.input_type();
        let (encoding, input) = match feature.kind {
            FeatureKind::Categorical => {
                let encoding = preprocess::fit_category(&column, train, spec.max_categories)
                    .ok_or_else(|| {
                        wrong("a category is text, an integer or a boolean, not a float")
                    })?;
                (encoding, found.unwrap_or(InputType::String))
            }
            FeatureKind::Boolean | FeatureKind::Numeric => {
                let boolean = feature.kind == FeatureKind::Boolean;
                if found.is_some_and(|found| (found == InputType::Boolean) != boolean) {
                    return Err(wrong(if boolean {
                        "it is declared boolean and holds something else"
                    } else {
                        "it is declared numeric and holds booleans: declare it boolean"
                    }));
                }
                let bins = if boolean { 0 } else { bins };
                let encoding =
                    preprocess::fit_number(&column, train, nullable, bins).map_err(wrong)?;
                (encoding, if boolean { InputType::Boolean } else { InputType::Float64 })
            }
        };
        preprocessing.columns.push(Column {
            name: feature.name.clone(),
            input,
            nullable,
            encoding,
        });
        columns.push(column);
    }
    Ok((preprocessing, columns))
}

fn values(
    preprocessing: &Preprocessing,
    columns: &[TableColumn],
    rows: &[u32],
) -> Result<(Vec<f64>, Vec<u32>), TrainError> {
    let (wide, coded) = (preprocessing.numbers(), preprocessing.codes());
    let mut numbers = vec![0.0; rows.len() * wide];
    let mut codes = vec![0; rows.len() * coded];
    let mut inputs = Vec::with_capacity(columns.len());
    for (at, row) in rows.iter().enumerate() {
        inputs.clear();
        inputs.extend(columns.iter().map(|column| column.value(*row as usize)));
        let numbers = &mut numbers[at * wide..(at + 1) * wide];
        let codes = &mut codes[at * coded..(at + 1) * coded];
        preprocessing
            .read(&inputs, numbers, codes)
            .map_err(|source| TrainError::Value { row: *row as usize, source })?;
    }
    Ok((numbers, codes))
}

fn weights(
    spec: &JobSpec,
    labels: &[f64],
    target: &Target,
    train: usize,
) -> Result<Vec<f32>, TrainError> {
    let classes = target.classes().len();
    let by_class: Vec<f64> = match &spec.class_weights {
        ClassWeights::None => return Ok(vec![1.0; labels.len()]),
        ClassWeights::Given(weights) if weights.len() != classes => {
            let why = format!("{} class weights are given for {classes} classes", weights.len());
            return Err(TrainError::Label { column: spec.label.clone(), why });
        }
        ClassWeights::Given(weights) => weights.clone(),
        ClassWeights::Balanced => {
            let count = |class: usize| {
                labels[..train].iter().filter(|label| **label as usize == class).count().max(1)
            };
            (0..classes).map(|class| train as f64 / (classes * count(class)) as f64).collect()
        }
    };
    Ok(labels.iter().map(|label| by_class[*label as usize] as f32).collect())
}
