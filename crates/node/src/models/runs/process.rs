//! The process of one training run: started, listened to, waited for.
//!
//! Does not know what it trains, nor what becomes of its model.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command as Process, Stdio};

use anyhow::{Context, Result, bail};
use falaj_event::{Hash256, LogTime, Value};
use falaj_lifecycle::VersionNumber;
use falaj_lifecycle::queue::QueuedRun;
use serde_json::Value as Json;

use super::end;
use crate::models::ModelLoop;
use crate::models::job::Folder;
use crate::models::rows::{derived, moment, text};
use crate::pump::wall_clock_us;

/// Runs the process and records what it says.
pub(super) fn train(
    all: &ModelLoop,
    run: &QueuedRun,
    version: VersionNumber,
    folder: &Folder,
) -> Result<()> {
    let program = all.core.options.trainer.clone();
    let program = program.map_or_else(std::env::current_exe, Ok).context("finding this program")?;
    let mut child = Process::new(&program)
        .arg("trainer")
        .arg("--job")
        .arg(&folder.0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {} trainer", program.display()))?;
    // Held until the process has ended: it ends when its standard input does.
    let input = child.stdin.take();
    let output = child.stdout.take().context("a trainer has an output")?;
    let errors = child.stderr.take().context("a trainer has an error output")?;
    {
        let mut state = all.runs.lock();
        let stopping = state.stopping;
        let entry = state.at_work.get_mut(&run.run).context("the run was let go of")?;
        entry.child = Some(child);
        if stopping || entry.cancelled_by.is_some() {
            end(&mut entry.child);
        }
    }
    let told = std::thread::spawn(move || {
        let mut text = String::new();
        // What cannot be read is not told.
        let _ = BufReader::new(errors).take(64 << 10).read_to_string(&mut text);
        text
    });
    let failure = listen(all, run, version, output);
    drop(input);
    let child = all.runs.lock().at_work.get_mut(&run.run).and_then(|entry| entry.child.take());
    let status = child.context("the run was let go of")?.wait()?;
    let told = told.join().unwrap_or_default();
    match (failure?, status.success()) {
        (None, true) => Ok(()),
        (Some(error), _) => bail!("{error}"),
        (None, false) => bail!("the trainer ended with {status}: {}", told.trim()),
    }
}

/// Records reports until the process ends; gives the failure that it reported.
fn listen(
    all: &ModelLoop,
    run: &QueuedRun,
    version: VersionNumber,
    output: impl Read,
) -> Result<Option<String>> {
    let topic = all.core.catalog.topics.get("falaj.runs").context("no falaj.runs")?;
    let cause = all.now();
    let attempt =
        all.registry(|state| Some(state.pipeline(&run.pipeline)?.versions.get(&version)?.attempts));
    let mut failure = None;
    for (ordinal, line) in BufReader::new(output).lines().enumerate() {
        let line = line.context("reading a trainer's reports")?;
        let Ok(report) = serde_json::from_str::<Json>(&line) else { continue };
        let kind = report["event"].as_str().unwrap_or("report").to_owned();
        if kind == "failed" {
            failure = Some(report["error"].as_str().unwrap_or("it did not say why").to_owned());
        }
        let key = format!("{} {} {ordinal}", run.run, attempt.unwrap_or_default());
        let row = vec![
            ("run", text(&run.run)),
            ("pipeline", text(&run.pipeline)),
            ("version", Value::UInt(version.into())),
            ("t", moment(cause)),
            ("kind", text(kind)),
            ("ordinal", Value::UInt(ordinal as u64)),
            ("detail", text(line)),
            ("wall_clock", moment(LogTime(wall_clock_us()))),
        ];
        let keys = [key.into_bytes()];
        let submission = derived(&topic.schema, &Hash256::default(), cause, &keys, vec![row])?;
        all.core.sequencer.submit(submission);
    }
    Ok(failure)
}
