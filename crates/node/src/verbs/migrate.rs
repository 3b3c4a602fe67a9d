//! `falaj migrate`: moves a data directory's log between the directory and a cluster.

use anyhow::{Context, Result, bail};
use falaj_log::Log;
use serde_json::json;

use super::load;
use super::text::{count, spinner};
use crate::cli::Migrate;
use crate::endpoint::{self, DataDirectory};
use crate::migrate::{Copied, compare, copy};
use crate::place::{self, LogPlace};
use crate::serve::connect;

/// Copies the log, compares the copy, and has the directory use it from now on. The old log stays.
///
/// # Errors
/// When a node is running on the directory, or a log does not open, fails, or differs.
pub async fn run(options: Migrate, as_json: bool) -> Result<()> {
    let data = DataDirectory(options.data.clone());
    if !endpoint::is_data_directory(&options.data) {
        bail!("{} is no data directory", options.data.display());
    }
    if let Some(found) = endpoint::read(&data)
        && connect(&data, found.address).await.is_ok()
    {
        bail!("a node is running on {}; stop it first", options.data.display());
    }
    let to = options.place();
    let (from, copied) = tokio::task::spawn_blocking(move || migrate(&options, &data, &to))
        .await
        .context("copying the log")??;
    let to = copied.0;
    let Copied { epochs, copied, bytes } = copied.1;
    if as_json {
        let (from, to) = (from.to_string(), to.to_string());
        println!(
            "{}",
            json!({ "from": from, "to": to, "epochs": epochs, "copied": copied, "bytes": bytes })
        );
        return Ok(());
    }
    println!(
        "{} epochs are in {to}, byte for byte as in {from}: {} copied now ({} bytes of blocks), all compared",
        count(epochs),
        count(copied),
        count(bytes)
    );
    println!("the data directory uses {to} from now on; the log in {from} was left as it is");
    Ok(())
}

fn migrate(
    options: &Migrate,
    data: &DataDirectory,
    to: &LogPlace,
) -> Result<(LogPlace, (LogPlace, Copied))> {
    let catalog = load(&options.definitions)?;
    let from = place::resolve(data, None)?;
    if from == *to {
        bail!("the log of {} is {to} already", data.0.display());
    }
    // A sequencer that still writes to the source is fenced off by this.
    let source = place::open(data, &from, &catalog)?.log;
    let destination: Box<dyn Log> = match to {
        LogPlace::Embedded => Box::new(place::open_embedded(data)?),
        LogPlace::Fluvio(cluster) => Box::new(place::open_cluster(data, cluster, &catalog)?),
    };
    let bar = spinner("copying the log");
    let copied = copy(&*source, &*destination, &mut |done, all| {
        bar.set_message(format!("copying the log: epoch {done} of {all}"));
    })?;
    compare(&*source, &*destination, &mut |done, all| {
        bar.set_message(format!("comparing the logs: epoch {done} of {all}"));
    })?;
    bar.finish_and_clear();
    place::store(data, to)?;
    Ok((from, (to.clone(), copied)))
}
