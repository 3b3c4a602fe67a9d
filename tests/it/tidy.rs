//! The architecture, as assertions: who may depend on whom, who may name a heavy dependency, and
//! the habits that every file keeps.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Levels from the bottom; siblings never see each other.
const LAYERS: &[&[&str]] = &[
    &["falaj-event"],
    &[
        "falaj-log",
        "falaj-definitions",
        "falaj-vault",
        "falaj-proof",
        "falaj-drift",
        "falaj-rocks-files",
    ],
    &[
        "falaj-log-rocksdb",
        "falaj-log-fluvio",
        "falaj-dataflow",
        "falaj-views",
        "falaj-lifecycle",
        "falaj-model",
        "falaj-monitor",
    ],
    &["falaj-gateway"],
    &["falaj-node"],
    &["falaj-tests", "falaj-benches"],
];

/// The log's blocks are sealed by the vault and rooted by the proof crate: the two exceptions to
/// "siblings are strangers" on the first level. The benches use the tests' temporary nodes.
const ALLOWED_SIBLINGS: &[(&str, &str)] =
    &[("falaj-log", "falaj-vault"), ("falaj-log", "falaj-proof"), ("falaj-benches", "falaj-tests")];

/// A heavy dependency and the crates that may name it.
const OWNERS: &[(&str, &[&str])] = &[
    // What is read without RocksDB is tested on what RocksDB writes.
    ("rocksdb", &["falaj-log-rocksdb", "falaj-views", "falaj-rocks-files", "falaj-benches"]),
    ("fluvio", &["falaj-log-fluvio"]),
    ("rustls", &["falaj-gateway"]),
    ("timely", &["falaj-dataflow", "falaj-benches"]),
    ("differential-dataflow", &["falaj-dataflow", "falaj-benches"]),
    ("datafusion", &["falaj-definitions"]),
    ("tonic", &["falaj-gateway", "falaj-tests", "falaj-benches"]),
    ("arrow-flight", &["falaj-gateway", "falaj-tests", "falaj-benches"]),
    ("rcgen", &["falaj-gateway"]),
    ("candle-core", &["falaj-model", "falaj-benches"]),
    ("candle-nn", &["falaj-benches"]),
    ("gemm", &["falaj-benches"]),
    ("cudarc", &["falaj-model"]),
    ("forust-ml", &["falaj-model"]),
    ("safetensors", &["falaj-model"]),
    ("parquet", &["falaj-node"]),
    ("clap", &["falaj-node"]),
    ("indicatif", &["falaj-node"]),
    ("anyhow", &["falaj-node", "falaj-tests", "falaj-benches"]),
];

fn packages() -> BTreeMap<String, Vec<(String, String)>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(kit::root())
        .output()
        .expect("cargo metadata runs");
    let metadata: Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let text = |value: &Value| value.as_str().unwrap_or("normal").to_owned();
    let dependencies = |package: &Value| {
        let list = package["dependencies"].as_array().expect("dependencies");
        list.iter().map(|d| (text(&d["name"]), text(&d["kind"]))).collect()
    };
    let list = metadata["packages"].as_array().expect("packages");
    list.iter().map(|package| (text(&package["name"]), dependencies(package))).collect()
}

#[test]
fn dependencies_point_down() {
    let level = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    let mut breaches = Vec::new();
    for (package, dependencies) in packages() {
        let Some(own) = level(&package) else {
            breaches.push(format!("{package} stands in no layer of tests/it/tidy.rs"));
            continue;
        };
        for (dependency, kind) in dependencies {
            let Some(other) = level(&dependency) else { continue };
            let allowed = ALLOWED_SIBLINGS.contains(&(package.as_str(), dependency.as_str()));
            let itself = package == dependency && kind == "dev";
            if other >= own && !allowed && !itself {
                breaches.push(format!("{package} -> {dependency} does not point down"));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn heavy_dependencies_have_their_owners() {
    let mut breaches = Vec::new();
    for (package, dependencies) in packages() {
        for (dependency, _) in dependencies {
            let owners =
                OWNERS.iter().find(|(name, _)| *name == dependency).map(|(_, owners)| owners);
            if owners.is_some_and(|owners| !owners.contains(&package.as_str())) {
                breaches.push(format!("{package} names {dependency}, which is not its to name"));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn manifests_take_versions_from_the_workspace() {
    let mut breaches = Vec::new();
    for manifest in files("toml").into_iter().filter(|path| path.ends_with("Cargo.toml")) {
        if manifest == kit::root().join("Cargo.toml") {
            continue;
        }
        let text = fs::read_to_string(&manifest).expect("a manifest is text");
        let dependencies = text.split("[").filter(|part| part.contains("dependencies]"));
        for line in dependencies.flat_map(str::lines).filter(|line| line.contains('=')) {
            if !line.contains("workspace = true") && line.contains('"') && line.contains("version")
            {
                breaches.push(format!("{}: {line}", manifest.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn every_source_file_keeps_the_habits() {
    let mut breaches = Vec::new();
    for path in files("rs") {
        let text = fs::read_to_string(&path).expect("source is text");
        let place = path.display();
        if !text.starts_with("//!") {
            breaches.push(format!("{place}: does not open with //!"));
        }
        for forbidden in [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("X", "XX")] {
            if text.contains(forbidden) {
                breaches.push(format!("{place}: {forbidden}"));
            }
        }
        let lines = text.lines().take_while(|line| !line.starts_with("mod tests {")).count();
        if lines > 500 && !is_test(&path) {
            breaches.push(format!("{place}: {lines} lines without tests, more than 500"));
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn one_version_of_the_heavy_libraries() {
    let lock = fs::read_to_string(kit::root().join("Cargo.lock")).expect("a lock file");
    for name in [
        "arrow-array",
        "arrow-schema",
        "tonic",
        "prost",
        "rustls",
        "tokio",
        "object_store",
        "parquet",
        "ring",
    ] {
        let needle = format!("name = \"{name}\"\n");
        assert!(lock.matches(&needle).count() <= 1, "more than one version of {name}");
    }
}

fn is_test(path: &Path) -> bool {
    path.starts_with(kit::root().join("tests"))
        || path
            .file_stem()
            .is_some_and(|stem| stem == "tests" || stem.to_string_lossy().ends_with("_tests"))
        || path.components().any(|part| part.as_os_str() == "tests")
}

fn files(extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![kit::root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder").flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
