//! The last step for rows from outside: reasons from reading and reasons from expectations put
//! together, good rows parted from bad ones.
//!
//! Why it exists: every way in (JSON, CSV, Arrow) must refuse the same rows for the same reasons, and
//! a bad row never takes its neighbours with it. Does not know how rows came or where they go.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use falaj_event::cells::{Cells, UnsupportedArrowType};
use falaj_event::{Op, Value};

use crate::expectations::Checks;
use crate::reasons::{Reason, ReasonCode, RejectedRow};

/// Rows from outside, parted.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The good rows: the topic's columns in declared types and order, every field nullable.
    pub batch: RecordBatch,
    /// What each good row does.
    pub ops: Vec<Op>,
    /// Where each good row stood in what the producer sent, ascending.
    pub positions: Vec<u32>,
    /// The other rows, ascending by position.
    pub rejected: Vec<RejectedRow>,
}

/// A batch that could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// A column is of a type that no topic has.
    #[error(transparent)]
    Type(#[from] UnsupportedArrowType),
    /// Arrow refused to build or filter a batch.
    #[error("the batch could not be built: {0}")]
    Arrow(#[from] ArrowError),
}

/// What reading found wrong.
#[derive(Debug, Default)]
pub(crate) struct Misread {
    rows: BTreeMap<usize, Vec<Reason>>,
    /// Cells that hold NULL because what came could not be read.
    cells: BTreeSet<(usize, String)>,
}

impl Misread {
    /// A reason against a row; where it names a column, that cell must be NULL in the batch.
    pub fn add(&mut self, row: usize, reason: Reason) {
        if let Some(column) = &reason.column {
            self.cells.insert((row, column.clone()));
        }
        self.rows.entry(row).or_default().push(reason);
    }

    /// Whether a reason only follows from one that is known: what could not be read is not missing,
    /// and a row that could not be read at all lacks nothing.
    fn implies(&self, row: usize, reason: &Reason) -> bool {
        let Some(known) = self.rows.get(&row) else {
            return false;
        };
        let unread = known.iter().any(|reason| reason.code == ReasonCode::Malformed);
        let cell = reason.column.as_ref().map(|column| (row, column.clone()));
        reason.code == ReasonCode::Null
            && (unread || cell.is_some_and(|cell| self.cells.contains(&cell)))
    }
}

/// Parts the rows of `batch`. `ops` has one entry per row; `original` gives a row as it came.
pub(crate) fn part(
    checks: &Checks,
    batch: RecordBatch,
    ops: Vec<Op>,
    mut misread: Misread,
    original: impl Fn(usize) -> String,
) -> Result<Checked, DoorError> {
    let op = |row: usize| ops.get(row).copied().unwrap_or(Op::Insert);
    for found in checks.check(op, &batch)? {
        let reasons = found.reasons.into_iter();
        let reasons: Vec<Reason> =
            reasons.filter(|reason| !misread.implies(found.row, reason)).collect();
        if !reasons.is_empty() {
            misread.rows.entry(found.row).or_default().extend(reasons);
        }
    }
    let rows = batch.num_rows();
    if misread.rows.is_empty() {
        let positions = (0..rows).map(position).collect();
        return Ok(Checked { batch, ops, positions, rejected: Vec::new() });
    }
    let subjects = checks.topic().schema.subject.and_then(|index| batch.columns().get(index));
    let subjects = subjects.map(|array| Cells::new(array.as_ref())).transpose()?;
    let good = |row: &usize| !misread.rows.contains_key(row);
    let kept = BooleanArray::from_iter((0..rows).map(|row| Some(good(&row))));
    let checked = Checked {
        batch: filter_record_batch(&batch, &kept)?,
        ops: (0..rows).filter(good).map(op).collect(),
        positions: (0..rows).filter(good).map(position).collect(),
        rejected: Vec::new(),
    };
    let rejected = misread.rows.into_iter().map(|(row, reasons)| RejectedRow {
        position: position(row),
        reasons,
        subject: subjects.as_ref().map_or(Value::Null, |cells| cells.value(row)),
        row: original(row),
    });
    Ok(Checked { rejected: rejected.collect(), ..checked })
}

fn position(row: usize) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}
