//! The files of a RocksDB store, looked at without RocksDB: which one is damaged, at which byte, and
//! what RocksDB must not be shown at all.
//!
//! Why it exists: RocksDB often says only that something is damaged, and one kind of damage keeps it
//! reading for ever. Every store of this program is checked by the same eyes. Does not know what
//! records hold. Reads write-ahead logs and MANIFEST files, which are both sequences of 32 KiB blocks
//! of physical records: masked CRC-32C (4, little-endian), length (2, little-endian), type (1),
//! payload; and of table files what their footer commits to.

mod table;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;

/// Where the damage is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file, and the byte where that is known.
    pub place: String,
    /// What does not fit.
    pub why: String,
}

/// The first damage among CURRENT, MANIFEST, write-ahead logs and table files of a store, in that
/// order.
pub fn first_damage(store: &Path) -> Option<Damage> {
    if let Some(damage) = current(store) {
        return Some(damage);
    }
    let mut files: Vec<(u8, PathBuf)> = std::fs::read_dir(store)
        .ok()?
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            if name.starts_with("MANIFEST-") {
                Some((0, entry.path()))
            } else if name.ends_with(".log") {
                Some((1, entry.path()))
            } else if name.ends_with(".sst") {
                Some((2, entry.path()))
            } else {
                None
            }
        })
        .collect();
    files.sort();
    files.into_iter().find_map(|(kind, path)| {
        let (at, why) = match kind {
            2 => table::damage(&path)?,
            _ => records(&std::fs::read(&path).ok()?)?,
        };
        Some(Damage { place: format!("{}, byte {at}", path.display()), why: why.to_owned() })
    })
}

/// Damage that RocksDB must not be shown: of CURRENT, or a record in the MANIFEST that it names or in
/// a write-ahead log whose type is not written there, which keeps RocksDB's reader from ever ending.
/// A torn last record is none (a crash leaves it, and RocksDB drops it).
pub fn unreadable(store: &Path) -> Option<Damage> {
    if let Some(damage) = current(store) {
        return Some(damage);
    }
    let name = std::fs::read_to_string(store.join("CURRENT")).ok()?;
    let mut files = vec![store.join(name.trim_end())];
    let listed = std::fs::read_dir(store).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    files.extend(listed.filter(|path| path.extension().is_some_and(|end| end == "log")));
    files.sort();
    files.into_iter().find_map(|path| {
        let (at, why) = foreign_record(File::open(&path).ok()?)?;
        Some(Damage { place: format!("{}, byte {at}", path.display()), why: why.to_owned() })
    })
}

/// The store as its MANIFEST describes it, for damage that no single file shows.
pub fn described(store: &Path) -> String {
    let current = std::fs::read_to_string(store.join("CURRENT")).unwrap_or_default();
    format!("the store {} (as {} describes it)", store.display(), current.trim_end())
}

fn current(store: &Path) -> Option<Damage> {
    let path = store.join("CURRENT");
    let damage =
        |why: &str| Some(Damage { place: path.display().to_string(), why: why.to_owned() });
    let Ok(bytes) = std::fs::read(&path) else { return damage("it cannot be read") };
    let name = String::from_utf8(bytes).ok().and_then(|text| {
        let name = text.strip_suffix('\n')?;
        let number = name.strip_prefix("MANIFEST-")?;
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| name.to_owned())
    });
    match name {
        None => damage("it does not name a MANIFEST file"),
        Some(name) if !store.join(&name).exists() => {
            damage(&format!("it names {name}, which does not exist"))
        }
        Some(_) => None,
    }
}

/// The offset of the first physical record that is not as it was written.
fn records(bytes: &[u8]) -> Option<(u64, &'static str)> {
    for (index, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
        let start = index * BLOCK_BYTES;
        let mut at = 0;
        while block.len() - at >= HEADER_BYTES {
            let header = &block[at..at + HEADER_BYTES];
            let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
            let end = at + HEADER_BYTES + length;
            if header == [0; HEADER_BYTES] && block[at..].iter().all(|byte| *byte == 0) {
                break;
            }
            if end > block.len() {
                return Some((
                    (start + at) as u64,
                    "a record's length points beyond its block or the end",
                ));
            }
            let stored = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
            if unmask(stored) != crc32c(&block[at + 6..end]) {
                return Some(((start + at) as u64, "a record's checksum does not match"));
            }
            at = end;
        }
    }
    None
}

/// Full, first, middle and last: the types of records in files that are not recycled.
const TYPES: std::ops::RangeInclusive<u8> = 1..=4;

/// The offset of the first record of another type than [`TYPES`], up to the first damage of another
/// kind.
fn foreign_record(file: impl Read) -> Option<(u64, &'static str)> {
    let mut reader = BufReader::with_capacity(BLOCK_BYTES, file);
    let mut start = 0u64;
    loop {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        reader.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block).ok()?;
        if block.is_empty() {
            return None;
        }
        let mut at = 0;
        while block.len() - at >= HEADER_BYTES {
            let header = &block[at..at + HEADER_BYTES];
            if header == [0; HEADER_BYTES] && block[at..].iter().all(|byte| *byte == 0) {
                break;
            }
            if !TYPES.contains(&header[6]) {
                return Some((start + at as u64, "a record is of a type that is not written here"));
            }
            let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
            at += HEADER_BYTES + length;
            if at > block.len() {
                return None;
            }
        }
        start += block.len() as u64;
    }
}

fn unmask(stored: u32) -> u32 {
    stored.wrapping_sub(0xa282_ead8).rotate_right(17)
}

/// CRC-32C (Castagnoli), reflected polynomial 0x82F63B78.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut table = [0u32; 256];
    for (entry, value) in table.iter_mut().zip(0u32..) {
        *entry =
            (0..8).fold(value, |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (0u32.wrapping_sub(crc & 1))));
    }
    !bytes
        .iter()
        .fold(!0u32, |crc, byte| (crc >> 8) ^ table[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_published_one() {
        // The check value of CRC-32C.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    fn record(payload: &[u8]) -> Vec<u8> {
        let mut tail = vec![1];
        tail.extend(payload);
        let masked = crc32c(&tail).rotate_left(17).wrapping_add(0xa282_ead8);
        let mut bytes = masked.to_le_bytes().to_vec();
        bytes.extend((payload.len() as u16).to_le_bytes());
        bytes.extend(tail);
        bytes
    }

    #[test]
    fn the_damaged_record_is_named() {
        let bytes = [record(b"one"), record(b"two")].concat();
        assert_eq!(records(&bytes), None);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(records(&flipped).unwrap().0, if at < 10 { 0 } else { 10 });
        }
    }

    #[test]
    fn a_record_of_a_foreign_type_is_found_and_a_torn_one_is_not() {
        let mut bytes = [record(b"one"), record(b"two")].concat();
        assert_eq!(foreign_record(bytes.as_slice()), None);
        let second = record(b"one").len();
        assert_eq!(foreign_record(&bytes[..second + 9]), None);
        bytes[second..].fill(7);
        let found = foreign_record(bytes.as_slice()).unwrap();
        assert_eq!(found.0, second as u64);
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let mut state = 1u64;
        for length in (0..70_000).step_by(1_711) {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 40) as u8
                })
                .collect();
            let _ = records(&bytes);
        }
    }
}
