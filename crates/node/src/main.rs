//! `falaj`, the one binary: reads the command line and runs the verb.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// Rows of views are many small allocations made by one thread and freed by another; the system's
/// allocator spends as long on them as the engine does.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = falaj_node::cli::Cli::parse();
    let json = cli.json;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("falaj: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(falaj_node::verbs::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if json {
                println!("{}", serde_json::json!({ "error": told(&error) }));
            } else {
                eprintln!("falaj: {}", told(&error));
            }
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, without those that it repeats in its own words.
fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}
