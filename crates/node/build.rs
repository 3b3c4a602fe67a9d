//! Lists the payments definitions that the binary carries for the demo.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root =
        PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?).join("../..");
    let mut entries = Vec::new();
    for (folder, extension) in
        [("topics/payments", "toml"), ("dataflows/payments", "sql"), ("dataflows/payments", "toml")]
    {
        println!("cargo::rerun-if-changed={}", root.join(folder).display());
        collect(&root, Path::new(folder), extension, &mut entries)?;
    }
    entries.sort();
    let list: String = entries
        .iter()
        .map(|(name, path)| {
            format!("({name:?}, include_str!({:?})),\n", path.display().to_string())
        })
        .collect();
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?).join("definitions.rs");
    fs::write(out, format!("[{list}]"))
}

fn collect(
    root: &Path,
    folder: &Path,
    extension: &str,
    entries: &mut Vec<(String, PathBuf)>,
) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let path = folder.join(entry?.file_name());
        if root.join(&path).is_dir() {
            collect(root, &path, extension, entries)?;
        } else if path.extension().is_some_and(|found| found == extension) {
            entries.push((path.display().to_string(), fs::canonicalize(root.join(&path))?));
        }
    }
    Ok(())
}
