//! Where rows to be scored come from: a Parquet file, or a view as of one `T`.
//!
//! Gives parts of equal size whatever the batches behind them are, in an order that is the same at
//! every start, so that parts which are there can be passed over. Does not know scores.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::Field;
use falaj_gateway::client::Reading;
use falaj_gateway::wire::ReadTicket;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use serde::{Deserialize, Serialize};

use crate::cli::Score;
use crate::models::job::replace;
use crate::parquet_file;
use crate::verbs::text::log_time;
use crate::verbs::{Session, describe};

/// What a folder of scores holds; beside the parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Plan {
    model: String,
    view: String,
    /// The `T` at which keys and features are read.
    t: u64,
}

/// Name of the plan's file.
const PLAN: &str = "scoring.json";

enum Rows {
    File(ParquetRecordBatchReader),
    View(Reading),
}

/// Rows to be scored.
pub struct Source {
    rows: Rows,
    name: String,
    all: u64,
    as_of: Option<u64>,
    /// Inputs that the view has no column for, and the model can do without.
    left_out: Vec<String>,
    /// What was read and not given yet.
    rest: Vec<RecordBatch>,
}

impl Source {
    /// Opens what `options` name; `wanted` are the model's keys and request features.
    ///
    /// # Errors
    /// When it cannot be read, lacks an input of the model, or the folder holds other scores.
    pub async fn open(session: &Session, options: &Score, wanted: &[Arc<Field>]) -> Result<Self> {
        match (&options.from, &options.view) {
            (Some(path), _) => file(path),
            (None, Some(name)) => view(session, options, name, wanted).await,
            (None, None) => bail!("give --from FILE or --view VIEW"),
        }
    }

    /// What ids begin with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of all rows, as far as it is known.
    pub fn rows(&self) -> u64 {
        self.all
    }

    /// The `T` at which features are read; `None`: the newest.
    pub fn as_of(&self) -> Option<u64> {
        self.as_of
    }

    /// Whether the model is asked without this input.
    pub fn leaves_out(&self, input: &str) -> bool {
        self.left_out.iter().any(|name| name == input)
    }

    /// The next `rows` rows; fewer at the end, then `None`.
    ///
    /// # Errors
    /// When reading fails.
    pub async fn next(&mut self, rows: usize) -> Result<Option<RecordBatch>> {
        let mut held: usize = self.rest.iter().map(RecordBatch::num_rows).sum();
        while held < rows {
            let more = match &mut self.rows {
                Rows::File(reader) => reader.next().transpose()?,
                Rows::View(reading) => reading.next().await?,
            };
            let Some(more) = more else { break };
            held += more.num_rows();
            self.rest.push(more);
        }
        let Some(first) = self.rest.first() else { return Ok(None) };
        let all = concat_batches(&first.schema(), &self.rest)?;
        let taken = all.slice(0, rows.min(all.num_rows()));
        let left = all.num_rows() - taken.num_rows();
        self.rest = if left > 0 { vec![all.slice(taken.num_rows(), left)] } else { Vec::new() };
        Ok((taken.num_rows() > 0).then_some(taken))
    }
}

fn file(path: &Path) -> Result<Source> {
    let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into());
    let reader = parquet_file::reader(path, super::PART_ROWS)?;
    Ok(Source {
        rows: Rows::File(reader),
        name,
        all: parquet_file::rows(path)?,
        as_of: None,
        left_out: Vec::new(),
        rest: Vec::new(),
    })
}

async fn view(
    session: &Session,
    options: &Score,
    name: &str,
    wanted: &[Arc<Field>],
) -> Result<Source> {
    let (columns, left_out) = columns(session, options, name, wanted).await?;
    let path = options.to.join(PLAN);
    let begun = plan(&path)?;
    let at = options.at.as_deref().map(log_time).transpose()?.map(|t| t.0);
    let as_of = begun.as_ref().map(|plan| plan.t).or(at);
    let ticket = ReadTicket { as_of, columns: Some(columns), ..ReadTicket::view(name) };
    let reading = session.client.read(&ticket).await?;
    let t = reading.t().context("a view is read at some T")?;
    let own = Plan { model: options.model.clone(), view: name.to_owned(), t };
    match begun {
        Some(begun) if begun != own || at.is_some_and(|at| at < t) => bail!(
            "{} holds scores of {} over view {} at T = {}: give another folder",
            options.to.display(),
            begun.model,
            begun.view,
            begun.t
        ),
        Some(_) => {}
        None => replace(&path, &serde_json::to_vec_pretty(&own)?)?,
    }
    let all = session.client.info(&["features", name]).await?.total_records;
    Ok(Source {
        rows: Rows::View(reading),
        name: format!("{name}@{t}"),
        all: u64::try_from(all).unwrap_or(0),
        as_of: Some(t),
        left_out,
        rest: Vec::new(),
    })
}

fn plan(path: &Path) -> Result<Option<Plan>> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let plan = serde_json::from_slice(&bytes);
            Ok(Some(plan.with_context(|| format!("{} is no plan", path.display()))?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// The view's columns that the model is asked with, and the inputs that are left out.
async fn columns(
    session: &Session,
    options: &Score,
    name: &str,
    wanted: &[Arc<Field>],
) -> Result<(Vec<String>, Vec<String>)> {
    let entry = describe(&session.client, name).await?;
    if entry["kind"] != "view" {
        bail!("`{name}` is a {}, not a view", entry["kind"].as_str().unwrap_or_default());
    }
    let schema = session.client.columns(&["features", name]).await?;
    let model = describe(&session.client, &options.model).await?;
    let optional = |input: &str| {
        let all = model["request"].as_array().into_iter().flatten();
        all.into_iter().any(|column| column["name"] == input && column["nullable"] == true)
    };
    let (mut columns, mut left_out) = (Vec::new(), Vec::new());
    for field in wanted {
        let input = field.name();
        if schema.column_with_name(input).is_some() {
            columns.push(input.clone());
        } else if optional(input) {
            left_out.push(input.clone());
        } else {
            bail!(
                "view `{name}` has no column `{input}`, which {} is asked with: score a view that has \
                 it, or a file",
                options.model
            );
        }
    }
    Ok((columns, left_out))
}
