//! `falaj audit`: digests and verification.

use anyhow::{Result, bail};
use serde_json::{Value as Json, json};

use super::Session;
use super::text::{count, spinner, table, time};
use crate::cli::Audit;

/// Runs the asked audits.
///
/// # Errors
/// When the node cannot be asked, or an audit finds a difference.
pub async fn run(options: Audit, as_json: bool) -> Result<()> {
    let session = Session::open_existing(&options.connection).await?;
    let outcome = ask(&session, &options).await;
    session.close().await?;
    let answers = outcome?;
    match as_json {
        true => println!("{answers}"),
        false => print(&answers),
    }
    if answers["rebuild"]["equal"] == false {
        bail!("the rebuilt state differs from the present one");
    }
    Ok(())
}

async fn ask(session: &Session, options: &Audit) -> Result<Json> {
    let mut answers = json!({});
    for (wanted, name, action, message) in [
        (options.state, "state", "audit_state", "reading all state"),
        (options.rebuild, "rebuild", "audit_rebuild", "rebuilding the state from the log"),
        (options.log, "log", "audit_log", "verifying every block, hash and root of the log"),
    ] {
        if wanted {
            let bar = spinner(message);
            let answer = session.client.json_action(action, &Json::Null).await;
            bar.finish_and_clear();
            answers[name] = answer?;
        }
    }
    Ok(answers)
}

fn print(answers: &Json) {
    if let Some(state) = answers.get("state") {
        print_state("state", state);
    }
    if let Some(rebuild) = answers.get("rebuild") {
        print_state("present state", &rebuild["present"]);
        print_state("rebuilt state", &rebuild["rebuilt"]);
        if let Some(epoch) = rebuild["baseline"]["epoch"].as_u64() {
            println!("the log is cut: rebuilt from the baseline of epoch {} on", count(epoch));
        }
        match rebuild["equal"].as_bool() {
            Some(true) => println!("EQUAL, entry for entry"),
            _ => println!("DIFFERENT: {}", rebuild["differences"]),
        }
    }
    if let Some(log) = answers.get("log") {
        println!(
            "log: {} epochs, {} events: chain, blocks, event hashes and roots are right\n  head {}",
            count(log["epochs"].as_u64().unwrap_or_default()),
            count(log["events"].as_u64().unwrap_or_default()),
            log["head"].as_str().unwrap_or_default()
        );
        if let Some(cut) = log["events_cut"].as_u64().filter(|cut| *cut > 0) {
            println!("  of {} events that retention cut, the roots are chained", count(cut));
        }
    }
}

fn print_state(what: &str, state: &Json) {
    let t = state["t"].as_i64().unwrap_or_default();
    println!("{what} at epoch {} (T = {t}, {})", state["epoch"], time(t));
    let mut rows = table(["column family", "entries", "bytes", "SHA-256"]);
    for family in state["families"].as_array().into_iter().flatten() {
        rows.add_row([
            family["name"].as_str().unwrap_or_default().to_owned(),
            count(family["entries"].as_u64().unwrap_or_default()),
            count(family["bytes"].as_u64().unwrap_or_default()),
            family["digest"].as_str().unwrap_or_default().to_owned(),
        ]);
    }
    println!("{rows}\ndigest {}\n", state["digest"].as_str().unwrap_or_default());
}
