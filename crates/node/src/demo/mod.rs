//! `falaj demo`: the whole platform on a simulation of card payments, every claim checked.
//!
//! A node runs in a process of its own, so that killing it is a real kill; everything else goes through
//! the same doors as any client's. Knows the payments definitions that ship in `topics/` and
//! `dataflows/`.

mod checks;
mod child;
mod lookups;
mod loop_checks;
mod models;
pub mod outcome;
mod random;
pub mod rows;
pub mod simulation;
mod stream;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::cli::Demo;
use crate::place::{self, LogPlace};
use crate::verbs::text::{count, duration, table};
use child::Child;
use simulation::{Simulation, SimulationOptions};
use stream::{Streamer, Tally};

/// The definitions that the binary carries.
const DEFINITIONS: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/definitions.rs"));

/// One line of the closing table.
pub(crate) struct Line {
    /// What was claimed.
    pub claim: String,
    /// What was seen.
    pub evidence: String,
    /// Whether they agree.
    pub holds: bool,
}

/// Runs the demo.
///
/// # Errors
/// When a claim does not hold, or something fails on the way.
pub async fn run(options: Demo, as_json: bool) -> Result<()> {
    let started = Instant::now();
    let temporary = tempfile::tempdir().context("making a temporary directory")?;
    let root = match &options.keep {
        Some(path) if path.exists() => {
            bail!("{} exists already: --keep needs a new directory", path.display())
        }
        Some(path) => path.clone(),
        None => temporary.path().to_owned(),
    };
    let definitions = match &options.definitions {
        Some(path) => path.clone(),
        None => write_definitions(&root.join("definitions"))?,
    };
    eprintln!(
        "falaj demo: card payments in the Emirates, {} of them, seed {}",
        count(options.events),
        options.seed
    );
    let simulation = Simulation::new(SimulationOptions {
        seed: options.seed,
        payments: options.events,
        ..SimulationOptions::default()
    });
    let happenings = simulation.happenings();
    let data = root.join("data");
    let log = fresh_log(&options);
    let mut child = Child::start(&definitions, &data, options.workers, log.as_ref()).await?;
    let mut streamer = Streamer::new(&happenings, options.rate)?;
    let has_models = child.client.columns(&["predict", models::PIPELINE]).await.is_ok();
    let at = |share: f64| simulation.start_us() + (share * simulation.span_us() as f64) as i64;
    let train_at = streamer.batch_at(at(0.38));
    let kill_from = streamer.batch_at(at(0.46));
    streamer.run(&child.client, 0..train_at).await?;
    let mut asked = None;
    if has_models {
        models::train_first(&child.client, streamer.bar()).await?;
        let till = models::Till::start(child.client.clone())?;
        streamer.show_to(Some(till.sender()));
        streamer.run(&child.client, train_at..kill_from).await?;
        streamer.show_to(None);
        asked = Some(till.stop().await?);
    } else {
        streamer.run(&child.client, train_at..kill_from).await?;
    }
    // The last batches are on their way when the process is killed.
    streamer.run_until_killed(&mut child, kill_from..streamer.batches(), 20).await?;
    let reopening = Instant::now();
    child = Child::start(&definitions, &data, options.workers, log.as_ref()).await?;
    let reopened_us = u64::try_from(reopening.elapsed().as_micros())?;
    let till = has_models.then(|| models::Till::start(child.client.clone())).transpose()?;
    streamer.resume(&child.client, streamer.batch_at(at(0.5))).await?;
    streamer.show_to(till.as_ref().map(models::Till::sender));
    let days = i64::from(simulation.options().days);
    for day in days / 2..=days {
        let from = streamer.batch_at(at(0.5).max(at(day as f64 / days as f64)));
        let end = match day == days {
            true => streamer.batches(),
            false => streamer.batch_at(at((day + 1) as f64 / days as f64)),
        };
        streamer.run(&child.client, from.min(end)..end).await?;
        if has_models {
            models::settle(&child.client, streamer.bar()).await?;
        }
    }
    streamer.show_to(None);
    if let (Some(asked), Some(till)) = (&mut asked, till) {
        asked.add(till.stop().await?)?;
    }
    streamer.finish();

    let mut lines =
        checks::run(&child.client, &simulation, &happenings, &streamer, reopened_us).await?;
    if let Some(asked) = &asked {
        lines.extend(loop_checks::run(&child.client, &simulation, asked).await?);
    }
    child.stop().await?;
    report(&lines, streamer.tally(), started, as_json, &options, &root)?;
    match lines.iter().all(|line| line.holds) {
        true => Ok(()),
        false => bail!("a claim does not hold: see the table"),
    }
}

/// The log that is asked for; on a cluster, in a deployment of its own unless one is named.
fn fresh_log(options: &Demo) -> Option<LogPlace> {
    let mut log = options.log.place()?;
    if let LogPlace::Fluvio(place) = &mut log
        && place.deployment == place::DEPLOYMENT
    {
        place.deployment = format!("demo-{:x}", std::process::id());
    }
    eprintln!("the log is {log}");
    Some(log)
}

fn write_definitions(folder: &Path) -> Result<PathBuf> {
    for (name, text) in DEFINITIONS {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(folder.to_owned())
}

fn report(
    lines: &[Line],
    tally: &Tally,
    started: Instant,
    as_json: bool,
    options: &Demo,
    root: &Path,
) -> Result<()> {
    let seconds = started.elapsed().as_secs_f64();
    if as_json {
        let lines: Vec<_> = lines
            .iter()
            .map(|line| json!({ "claim": line.claim, "evidence": line.evidence, "holds": line.holds }))
            .collect();
        println!("{}", json!({ "lines": lines, "seconds": seconds, "tally": tally.to_json() }));
        return Ok(());
    }
    let mut rows = table(["", "what", "seen"]);
    for line in lines {
        rows.add_row([if line.holds { "✓" } else { "✗" }, &line.claim, &line.evidence]);
    }
    println!("\n{rows}");
    println!("{seconds:.0} s in all; p99 of a lookup {}", duration(tally.lookup_us(0.99)));
    match &options.keep {
        Some(_) => {
            let path = root.display();
            println!(
                "\nGo on with the data in {path}:\n\
                 \x20 falaj up --definitions {path}/definitions --data {path}/data --clock event\n\
                 then, from Python, with nothing of ours installed (pip install pyarrow):\n\
                 \x20 export FALAJ_URL=grpc+tls://127.0.0.1:8815 FALAJ_CA={path}/data/tls/ca.pem \
                 FALAJ_TOKEN_FILE={path}/data/token\n\
                 \x20 python3 tools/python/falaj_flight.py lookup customer_activity --keys \
                 '{{\"customer_id\": [\"CUS-000042\"]}}'"
            );
        }
        None => println!(
            "\nThe data is gone now. `falaj demo --keep DIR` keeps it, says how to start a node on it, and how to \
             read it from Python with nothing but pyarrow (see tools/python)."
        ),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_carries_definitions_that_are_right() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_definitions(folder.path()).unwrap();
        let catalog = falaj_definitions::catalog::Catalog::load(&path).unwrap();
        assert!(catalog.topics.get("payments").is_some());
        assert!(catalog.views.len() >= 5);
    }
}
