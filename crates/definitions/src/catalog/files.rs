//! The files of a definitions directory, in an order that every machine agrees on.
//!
//! Does not know what is in them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::diagnostics::{Diagnostics, SourceFile};

/// Directories nested deeper than this are refused: a link that leads back up would never end.
const MAX_DEPTH: usize = 16;

/// A definition is text that a person reads; anything longer than this is something else.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What a definitions directory holds.
#[derive(Default)]
pub(super) struct Found {
    pub topics: Vec<SourceFile>,
    pub views: Vec<SourceFile>,
    pub pipelines: Vec<SourceFile>,
}

/// Reads all definition files below `directory`, by path.
pub(super) fn collect(directory: &Path, out: &mut Diagnostics) -> Found {
    let mut found = Found::default();
    let (topics, dataflows) = (directory.join("topics"), directory.join("dataflows"));
    if !topics.is_dir() && !dataflows.is_dir() {
        let message =
            "this is not a directory of definitions: it has neither `topics` nor `dataflows`";
        let finding =
            SourceFile::new(directory, "").error_at("no-definitions", (1, 1), None, message);
        out.push(finding.with_help("name the directory that holds them"));
        return found;
    }
    for path in walk(&topics, out) {
        if has_extension(&path, "toml") {
            found.topics.extend(read(&path, out));
        }
    }
    for path in walk(&dataflows, out) {
        if has_extension(&path, "sql") {
            found.views.extend(read(&path, out));
        } else if has_extension(&path, "toml") {
            found.pipelines.extend(read(&path, out));
        }
    }
    found
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// All files below `directory` in path order; hidden ones are skipped, a missing directory is empty.
fn walk(directory: &Path, out: &mut Diagnostics) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if directory.is_dir() {
        descend(directory, 0, &mut files, out);
    }
    files
}

fn descend(directory: &Path, depth: usize, files: &mut Vec<PathBuf>, out: &mut Diagnostics) {
    let mut paths = Vec::new();
    match fs::read_dir(directory) {
        Ok(entries) => {
            for entry in entries {
                match entry {
                    Ok(entry) => paths.push(entry.path()),
                    Err(error) => unreadable(directory, &error.to_string(), out),
                }
            }
        }
        Err(error) => unreadable(directory, &error.to_string(), out),
    }
    paths.sort();
    for path in paths {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        if !path.is_dir() {
            files.push(path);
        } else if depth < MAX_DEPTH {
            descend(&path, depth + 1, files, out);
        } else {
            unreadable(&path, "directories are nested too deeply here", out);
        }
    }
}

fn read(path: &Path, out: &mut Diagnostics) -> Option<SourceFile> {
    let size = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) => {
            unreadable(path, &error.to_string(), out);
            return None;
        }
    };
    if size > MAX_FILE_BYTES {
        unreadable(path, &format!("{size} bytes are too many for a definition"), out);
        return None;
    }
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            unreadable(path, &error.to_string(), out);
            return None;
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => Some(SourceFile::new(path, text)),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let readable = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let file = SourceFile::new(path, readable);
            out.push(file.error("not-utf8", valid..valid, "from here on this is not UTF-8 text"));
            None
        }
    }
}

fn unreadable(path: &Path, why: &str, out: &mut Diagnostics) {
    let message = format!("this cannot be read: {why}");
    out.push(SourceFile::new(path, "").error_at("unreadable", (1, 1), None, message));
}
