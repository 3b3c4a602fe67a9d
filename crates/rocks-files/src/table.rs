//! Table files: their footer and the blocks that open with the file (index, filter, properties).
//!
//! Does not know data blocks, whose file RocksDB names itself. Little-endian; the footer is the last
//! 53 bytes of a file, in format versions 6 and 7:
//!
//! | at | bytes | footer |
//! | --- | --- | --- |
//! | 0 | 1 | checksum type, 4: the lower half of XXH3-64 |
//! | 1 | 4 | `3E 00 7A 00` |
//! | 5 | 4 | checksum of the footer with this field zero |
//! | 9 | 4 | base of the context that is added to every checksum |
//! | 13 | 4 | size of the metaindex block, which ends right before the footer |
//! | 41 | 4 | format version |
//! | 45 | 8 | magic number |
//!
//! A block is followed by its compression type (1) and the checksum of both (4). The metaindex lists
//! the other blocks: entries of varints (shared, rest and value length), key and value; a value is
//! a block's offset and size, as varints. Its last 4 bytes count restart points of 4 bytes each.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

const FOOTER_BYTES: usize = 53;
const TRAILER_BYTES: usize = 5;
const MAGIC: u64 = 0x88e2_41b7_85f4_cff7;
const EXTENDED_MAGIC: [u8; 4] = [0x3e, 0, 0x7a, 0];
const XXH3: u8 = 4;
const LARGEST_BLOCK: u64 = 256 << 20;

type Found = (u64, &'static str);

struct Table {
    file: File,
    length: u64,
    context: u32,
}

/// The first damage of the table file at `path`, and its offset; `None` where nothing is found.
pub(super) fn damage(path: &Path) -> Option<Found> {
    let file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    check(file, length).err()
}

fn check(file: File, length: u64) -> Result<(), Found> {
    let at = length
        .checked_sub((FOOTER_BYTES + TRAILER_BYTES) as u64)
        .ok_or((length, "it is too short for a table file"))?
        + TRAILER_BYTES as u64;
    let mut footer = [0; FOOTER_BYTES];
    file.read_exact_at(&mut footer, at).map_err(|_| (at, "its footer cannot be read"))?;
    let magic = u64::from_le_bytes(field(&footer, 45));
    let version = u32::from_le_bytes(field(&footer, 41));
    if magic != MAGIC || !(6..=7).contains(&version) {
        return Err((at, "its footer has a wrong magic number or format version"));
    }
    if footer[0] != XXH3 || footer[1..5] != EXTENDED_MAGIC {
        return Err((at, "its footer has a wrong checksum type or extended magic number"));
    }
    let stored = u32::from_le_bytes(field(&footer, 5));
    let context = u32::from_le_bytes(field(&footer, 9));
    let size = u64::from(u32::from_le_bytes(field(&footer, 13)));
    footer[5..9].fill(0);
    let (body, last) = (&footer[..FOOTER_BYTES - 1], footer[FOOTER_BYTES - 1]);
    if checksum(body, last, context, at) != stored {
        return Err((at, "the checksum of its footer does not match"));
    }
    let table = Table { file, length, context };
    let index_at = at.checked_sub(size + TRAILER_BYTES as u64);
    let index = table.block(index_at.ok_or((at, "its footer names no metaindex block"))?, size)?;
    for (offset, size) in handles(&index) {
        table.block(offset, size)?;
    }
    Ok(())
}

impl Table {
    /// The content of a block whose checksum matches.
    fn block(&self, at: u64, size: u64) -> Result<Vec<u8>, Found> {
        let end = at.checked_add(size).and_then(|end| end.checked_add(TRAILER_BYTES as u64));
        if size > LARGEST_BLOCK || end.is_none_or(|end| end > self.length) {
            return Err((at, "a block lies outside of the file"));
        }
        let mut bytes = vec![0; size as usize + TRAILER_BYTES];
        self.file.read_exact_at(&mut bytes, at).map_err(|_| (at, "a block cannot be read"))?;
        let trailer = bytes.split_off(size as usize);
        let stored = u32::from_le_bytes(field(&trailer, 1));
        if checksum(&bytes, trailer[0], self.context, at) == stored {
            Ok(bytes)
        } else {
            Err((at, "the checksum of a block does not match"))
        }
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// The checksum of `bytes ‖ last` that stands at `offset`.
fn checksum(bytes: &[u8], last: u8, context: u32, offset: u64) -> u32 {
    let plain = (xxh3_64(bytes) & 0xffff_ffff) as u32 ^ u32::from(last).wrapping_mul(0x6b90_83d9);
    if context == 0 {
        return plain;
    }
    let place = (offset as u32).wrapping_add((offset >> 32) as u32);
    plain.wrapping_add(context ^ place)
}

/// The blocks that a metaindex block lists; ends early where it is not one.
fn handles(block: &[u8]) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let restarts = block.last_chunk::<4>().map_or(0, |count| u32::from_le_bytes(*count) as usize);
    let tail = restarts.saturating_add(1).saturating_mul(4);
    let mut rest = &block[..block.len().saturating_sub(tail)];
    while !rest.is_empty() {
        let Some(((offset, size), after)) = entry(rest) else { break };
        found.push((offset, size));
        rest = after;
    }
    found
}

fn entry(bytes: &[u8]) -> Option<((u64, u64), &[u8])> {
    let (_, bytes) = varint(bytes)?;
    let (key, bytes) = varint(bytes)?;
    let (value, bytes) = varint(bytes)?;
    let bytes = bytes.get(usize::try_from(key).ok()?..)?;
    let (handle, rest) = bytes.split_at_checked(usize::try_from(value).ok()?)?;
    let (offset, size) = varint(handle)?;
    let (size, _) = varint(size)?;
    Some(((offset, size), rest))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A table file as RocksDB writes it, with enough rows for an index and a filter.
    fn written() -> (tempfile::TempDir, std::path::PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x.sst");
        let mut table = rocksdb::BlockBasedOptions::default();
        table.set_bloom_filter(10.0, false);
        let mut options = rocksdb::Options::default();
        options.set_compression_type(rocksdb::DBCompressionType::None);
        options.set_block_based_table_factory(&table);
        let mut writer = rocksdb::SstFileWriter::create(&options);
        writer.open(&path).unwrap();
        for row in 0u32..2_000 {
            writer.put(row.to_be_bytes(), row.to_le_bytes()).unwrap();
        }
        writer.finish().unwrap();
        (home, path)
    }

    #[test]
    fn what_rocksdb_writes_is_whole() {
        let (_home, path) = written();
        assert_eq!(damage(&path), None);
        let length = fs::metadata(&path).unwrap().len();
        let file = File::open(&path).unwrap();
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(&mut footer, length - FOOTER_BYTES as u64).unwrap();
        let size = u64::from(u32::from_le_bytes(field(&footer, 13)));
        let context = u32::from_le_bytes(field(&footer, 9));
        let table = Table { file, length, context };
        let at = length - (FOOTER_BYTES + TRAILER_BYTES) as u64 - size;
        // Index, filter and properties at least: the walk is not empty.
        assert!(handles(&table.block(at, size).unwrap()).len() >= 3);
    }

    #[test]
    fn flipped_and_cut_files_are_found() {
        let (_home, path) = written();
        let bytes = fs::read(&path).unwrap();
        let mut found = 0;
        // From the back: everything after the data blocks.
        for at in (bytes.len() - 1_500..bytes.len()).step_by(7) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            fs::write(&path, flipped).unwrap();
            found += usize::from(damage(&path).is_some());
        }
        assert_eq!(found, 1_500usize.div_ceil(7));
        for end in (0..bytes.len()).step_by(997) {
            fs::write(&path, &bytes[..end]).unwrap();
            assert!(damage(&path).is_some(), "cut at {end}");
        }
    }
}
