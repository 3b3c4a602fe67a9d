//! `falaj trainer`: one training run, as a process of its own. A node starts it; see
//! [`crate::models::job`] for what they say to each other.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use falaj_model::artifact::Artifact;
use falaj_model::train::train;

use crate::cli;
use crate::models::job::{Folder, replace};

/// Runs the job.
///
/// # Errors
/// Why there is no model; also told on standard output.
pub fn run(options: &cli::Trainer) -> Result<()> {
    let folder = Folder(options.job.clone());
    let job = folder.read_job()?;
    let rows = folder.read_rows()?;
    let cancel = Arc::new(AtomicBool::new(false));
    if !options.detached {
        end_with_input(Arc::clone(&cancel));
    }
    let mut output = std::io::stdout();
    let mut broken = None;
    let trained = train(&job.spec, &rows, &folder.checkpoints(), &cancel, &mut |event| {
        let told = serde_json::to_string(&event)
            .map_err(std::io::Error::from)
            .and_then(|line| writeln!(output, "{line}").and_then(|()| output.flush()));
        if let Err(error) = told {
            // Nobody listens any more: the run goes on from its checkpoint another time.
            cancel.store(true, Ordering::Relaxed);
            broken.get_or_insert(error);
        }
    });
    if let Some(error) = broken {
        return Err(error).context("telling the node");
    }
    let artifact = Artifact::new(&job.spec, trained?, job.provenance)?;
    replace(&folder.artifact(), &artifact.to_bytes())
}

/// Cancels when standard input ends: the node is gone.
fn end_with_input(cancel: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let mut byte = [0; 64];
        while std::io::stdin().lock().read(&mut byte).is_ok_and(|read| read > 0) {}
        cancel.store(true, Ordering::Relaxed);
    });
}
