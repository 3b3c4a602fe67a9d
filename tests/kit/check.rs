//! A catalog's views over a history, epoch by epoch: the engine against the reference, bit for bit,
//! and against the SQL oracle.
//!
//! Does not know where views and histories come from.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use falaj_definitions::catalog::Catalog;
use falaj_event::encoding::decode_row;
use falaj_event::{EpochChanges, LogTime};

use crate::engine::{self, Contents, Rows, Run};
use crate::history::History;
use crate::oracle::SqlOracle;
use crate::reference;

/// Which epochs are compared.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// With the reference: every one whose number this divides, and the last; 0 for none.
    pub reference: u64,
    /// With the SQL oracle: every one whose number this divides, and the last; 0 for none.
    pub sql: u64,
}

/// What was compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Rows equal to the reference's.
    pub rows: u64,
    /// Views at an epoch that agree with their SQL.
    pub queries: u64,
}

/// Runs `catalog`'s views over `history` and compares.
///
/// # Errors
/// The first difference: view, epoch, key and both values.
pub fn check(catalog: &Arc<Catalog>, history: &History, run: Run, sample: Sample) -> Result<Tally> {
    let changes = engine::changes(&catalog.views, history, run)?;
    compare(catalog, history, &changes, sample)
}

/// Compares what the engine said with what is right.
///
/// # Errors
/// The first difference.
pub fn compare(
    catalog: &Arc<Catalog>,
    history: &History,
    changes: &[EpochChanges],
    sample: Sample,
) -> Result<Tally> {
    let sql = SqlOracle::new(catalog, history)?;
    compare_with(&sql, catalog, history, changes, sample)
}

/// As [`compare`], with this oracle.
///
/// # Errors
/// The first difference.
pub fn compare_with(
    sql: &SqlOracle,
    catalog: &Catalog,
    history: &History,
    changes: &[EpochChanges],
    sample: Sample,
) -> Result<Tally> {
    let mut contents = Contents::default();
    let mut tally = Tally::default();
    let last = history.epochs.len() as u64 - 1;
    for (epoch, changes) in history.epochs.iter().zip(changes) {
        contents.apply(changes);
        let due = |every: u64| every > 0 && (epoch.number % every == 0 || epoch.number == last);
        let events = history.until(epoch.t);
        for view in &catalog.views {
            let place = || format!("view {} at epoch {}, T {}", view.name, epoch.number, epoch.t.0);
            let found = contents.of(view.id)?;
            if due(sample.reference) {
                let expected = reference::rows(view, &events, epoch.t);
                equal(&found, &expected).with_context(place)?;
                tally.rows += expected.len() as u64;
            }
            if due(sample.sql) {
                sql.check(view, epoch.t, &found).with_context(place)?;
                tally.queries += 1;
            }
        }
    }
    Ok(tally)
}

/// The rows of every view at `t` by the reference equal `contents`.
///
/// # Errors
/// The first difference.
pub fn equals_reference(
    catalog: &Catalog,
    history: &History,
    t: LogTime,
    contents: &Contents,
) -> Result<()> {
    let events = history.until(t);
    for view in &catalog.views {
        let expected = reference::rows(view, &events, t);
        equal(&contents.of(view.id)?, &expected)
            .with_context(|| format!("view {} at T {}", view.name, t.0))?;
    }
    Ok(())
}

/// Whether two contents of a view are equal bit for bit.
///
/// # Errors
/// The first difference: key, both latest event times and both rows.
pub fn equal(found: &Rows, expected: &Rows) -> Result<()> {
    let show = |row: Option<&(i64, Vec<u8>)>| match row {
        None => "no row".to_owned(),
        Some((time, columns)) => format!("{:?}, latest event at {time}", decode_row(columns)),
    };
    for key in found.keys().chain(expected.keys()) {
        let (a, b) = (found.get(key), expected.get(key));
        if a != b {
            let key = decode_row(key);
            bail!("key {key:?}: the view has {}, the reference {}", show(a), show(b));
        }
    }
    Ok(())
}
