//! Models of other tools: an ONNX file as a candidate version of a pipeline.
//!
//! The file becomes an artifact in the folder of a run, and the run goes the way of every other from
//! there: its turn, the rows held out, the gates. Does not know how ONNX is evaluated (see
//! `falaj_model::onnx`). Rows that the pipeline holds out may be among those that another tool has
//! trained on: who registers a file answers for that.

use anyhow::{Context, Result, bail};
use arrow::record_batch::RecordBatch;
use falaj_definitions::pipelines::{InputKind, Pipeline, Task};
use falaj_lifecycle::{Actor, VersionNumber};
use falaj_model::artifact::Artifact;
use falaj_model::artifact::manifest::Provenance;
use falaj_model::model::Model;
use falaj_model::onnx::OnnxModel;
use falaj_model::table::{Input, InputType, Table};
use falaj_model::train::events::RowCounts;

use super::job::{Folder, replace};
use super::registry::CommandError;
use super::rules::LABEL;
use super::{ModelLoop, loaded, predictor, rules};

/// The trigger of a version that was registered.
pub const TRIGGER: &str = "registered";

/// The artifact of an ONNX file for `pipeline`, checked against its signature: as many inputs, all of
/// them numbers, named alike where the file names them, and as many scores as there are classes.
///
/// # Errors
/// What does not fit.
pub fn artifact(pipeline: &Pipeline, run: &str, file: Vec<u8>) -> Result<Artifact> {
    let graph = OnnxModel::read(&file).context("the file cannot be used")?;
    check_inputs(pipeline, &graph)?;
    let spec = rules::job_spec(pipeline);
    let inputs = &pipeline.signature.inputs;
    let columns: Vec<(String, bool)> =
        inputs.iter().map(|input| (input.name.clone(), input.nullable)).collect();
    let classes = predictor::classes(pipeline);
    let mut model = Model::onnx(spec.task, &columns, classes, file);
    for (column, input) in model.preprocessing.columns.iter_mut().zip(inputs) {
        if input.kind == InputKind::Boolean {
            column.input = InputType::Boolean;
        }
    }
    let provenance = Provenance {
        run: run.to_owned(),
        mode: TRIGGER.to_owned(),
        pipeline: falaj_event::ids::hex(&pipeline.hash.0),
        code_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Provenance::default()
    };
    let artifact = Artifact::registered(&spec, model, provenance)?;
    let version = loaded(pipeline, 0, &artifact)?;
    let made_up: Vec<Input<'_>> = inputs
        .iter()
        .map(|input| match input.kind {
            InputKind::Boolean => Input::Boolean(false),
            _ => Input::Number(0.0),
        })
        .collect();
    let mut scores = vec![0.0; version.scorer.outputs()];
    version
        .scorer
        .score_into(&made_up, &mut version.scorer.scratch(), &mut scores)
        .context("the file does not score a row of zeros")?;
    if pipeline.task != Task::Regression && !scores.iter().all(|s| (0.0..=1.0).contains(s)) {
        bail!("the file gives {scores:?} for a row of zeros: these are no probabilities");
    }
    Ok(artifact)
}

fn check_inputs(pipeline: &Pipeline, graph: &OnnxModel) -> Result<()> {
    let inputs = &pipeline.signature.inputs;
    let of_kind = inputs.iter().filter(|input| input.kind == InputKind::Categorical);
    let categories: Vec<&str> = of_kind.map(|input| input.name.as_str()).collect();
    if !categories.is_empty() {
        bail!(
            "an ONNX model takes numbers, and {} of {} are categories: turn them into numbers in a view",
            categories.join(", "),
            pipeline.name
        );
    }
    let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    if graph.columns().is_some_and(|columns| columns != names.len()) {
        bail!(
            "the file takes {} columns, and the signature of {} has {}: {}",
            graph.columns().unwrap_or_default(),
            pipeline.name,
            names.len(),
            names.join(", ")
        );
    }
    let own: Vec<&str> = graph.inputs().iter().map(|input| input.name.as_str()).collect();
    if own.len() > 1 && own != names {
        bail!(
            "the file's inputs are {}, and the signature of {} is {}: they must be the same, in this \
             order",
            own.join(", "),
            pipeline.name,
            names.join(", ")
        );
    }
    Ok(())
}

/// How the labelled rows of a training set are divided for a model that was not trained on them here:
/// the pipeline's share of test rows (of validation rows, where it has no test rows) is held out.
///
/// # Errors
/// When the training set has no label column, or too few rows to hold any out.
pub fn counts(pipeline: &Pipeline, rows: &[RecordBatch]) -> Result<RowCounts> {
    let table = Table::new(rows);
    let labels = table.column(LABEL)?;
    let labelled = (0..table.rows()).filter(|row| labels.value(*row) != Input::Missing).count();
    let split = &pipeline.split;
    let share = if split.test > 0.0 { split.test } else { split.validation };
    let test = (labelled as f64 * share).round() as usize;
    if test == 0 {
        bail!(
            "{labelled} labelled rows and a share of {share}: none can be held out for the gates"
        );
    }
    let without_label = table.rows() - labelled;
    Ok(RowCounts { train: labelled - test, validation: 0, test, without_label })
}

impl ModelLoop {
    /// Enters an ONNX file as a candidate version; gives the name of its run and its number. The
    /// verdict of its gates follows.
    ///
    /// # Errors
    /// When the file does not fit the pipeline, or the registry's refusal: a run is in flight, …
    pub fn register(
        &self,
        pipeline: &str,
        actor: Actor,
        file: Vec<u8>,
        reason: &str,
    ) -> Result<(String, VersionNumber), CommandError> {
        let invalid = |error: anyhow::Error| CommandError::Unfit(format!("{error:#}"));
        let declared = self.core.catalog.pipeline(pipeline);
        let declared = declared.with_context(|| format!("there is no pipeline `{pipeline}`"));
        let declared = declared.map_err(invalid)?;
        let next =
            self.registry(|state| state.pipeline(pipeline).map_or(1, |state| state.next_version()));
        // A run of its own name: the folder decides that nothing is left to train.
        let run = format!("{pipeline}-{next}-{}-onnx", self.now().0);
        let artifact = artifact(declared, &run, file).map_err(invalid)?;
        let folder = Folder(self.core.options.data.runs().join(&run));
        // Made anew, so that nobody else's is taken over, or removed below.
        std::fs::create_dir_all(self.core.options.data.runs())
            .and_then(|()| std::fs::create_dir(&folder.0))
            .with_context(|| format!("creating {}", folder.0.display()))
            .and_then(|()| replace(&folder.artifact(), &artifact.to_bytes()))
            .map_err(CommandError::Log)?;
        let asked = self.request(pipeline, actor, TRIGGER, Vec::new(), reason, Some(run));
        if asked.is_err() {
            // Nothing names it: a leftover would only take room.
            let _ = std::fs::remove_dir_all(&folder.0);
        }
        asked
    }
}
