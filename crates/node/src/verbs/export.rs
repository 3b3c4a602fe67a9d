//! `falaj export`: topics and views as Parquet, and oracle SQL.

use std::path::Path;

use anyhow::{Context, Result};
use falaj_gateway::wire::ReadTicket;
use serde_json::json;

use super::text::{bar, count, log_time};
use super::{Session, describe};
use crate::cli::Export;
use crate::parquet_file;

/// Writes the file or prints the SQL.
///
/// # Errors
/// When the node cannot be asked, there is no such thing, or the file cannot be written.
pub async fn run(options: Export, json: bool) -> Result<()> {
    let session = Session::open_existing(&options.connection).await?;
    let outcome = match options.oracle {
        true => oracle(&session, &options, json).await,
        false => data(&session, &options, json).await,
    };
    session.close().await?;
    outcome
}

async fn oracle(session: &Session, options: &Export, json: bool) -> Result<()> {
    let at = options.at.as_deref().map(log_time).transpose()?;
    let body = json!({ "view": options.name, "at": at });
    let answer = session.client.json_action("oracle", &body).await?;
    let sql = answer["sql"].as_str().context("an oracle is SQL")?;
    match &options.to {
        Some(path) if path != Path::new("-") => {
            std::fs::write(path, sql).with_context(|| format!("writing {}", path.display()))?;
        }
        _ if json => println!("{answer}"),
        _ => println!("{sql}"),
    }
    Ok(())
}

async fn data(session: &Session, options: &Export, json: bool) -> Result<()> {
    let path = options.to.as_ref().context("--to names the Parquet file")?;
    let entry = describe(&session.client, &options.name).await?;
    let at = options.at.as_deref().map(log_time).transpose()?.map(|t| t.0);
    let is_view = entry["kind"] == "view";
    let ticket = match is_view {
        true => ReadTicket { as_of: at, ..ReadTicket::view(&options.name) },
        false => ReadTicket { to_t: at, ..ReadTicket::topic(&options.name) },
    };
    let door = if is_view { "features" } else { "topics" };
    let records = session.client.info(&[door, &options.name]).await?.total_records;
    let mut reading = session.client.read(&ticket).await?;
    // Written beside and renamed, so that a file of this name is always whole.
    let temporary = path.with_extension("parquet.part");
    let mut writer = parquet_file::writer(&temporary, reading.schema().clone())?;
    let progress = bar(u64::try_from(records).unwrap_or(0), &options.name);
    let mut rows = 0;
    while let Some(batch) = reading.next().await? {
        rows += batch.num_rows() as u64;
        writer.write(&batch)?;
        progress.set_position(rows);
    }
    writer.close()?;
    progress.finish_and_clear();
    std::fs::rename(&temporary, path).with_context(|| format!("writing {}", path.display()))?;
    match json {
        true => println!("{}", json!({ "rows": rows, "file": path, "t": reading.t() })),
        false => println!("{} rows of {} in {}", count(rows), options.name, path.display()),
    }
    Ok(())
}
