//! Copies a log to another place, byte for byte: blocks and epoch records stay what they are, and with
//! them every hash, root and proof. What retention has cut from the source is cut from the copy.
//!
//! Knows the contract only.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use falaj_event::TopicId;
use falaj_log::{EpochEntry, Log, LogError, StagedBlock};

/// Called with (done, all).
pub type Report<'a> = &'a mut dyn FnMut(u64, u64);

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Epochs that the source holds.
    pub epochs: u64,
    /// Those that were copied now; the destination held the others.
    pub copied: u64,
    /// Bytes of blocks that were copied.
    pub bytes: u64,
}

/// Copies what `to` lacks of `from`. May be repeated after an interruption, and goes on where it was.
///
/// # Errors
/// When `to` holds anything that `from` does not, or one of them fails.
pub fn copy(from: &dyn Log, to: &dyn Log, report: Report<'_>) -> Result<Copied> {
    let all = from.tail().map_or(0, |tail| tail.record.epoch + 1);
    let first = check_prefix(from, to)?;
    let mut copied = Copied { epochs: all, ..Copied::default() };
    let mut topics = BTreeSet::new();
    for epoch in 0..all {
        let entry = entry(from, epoch)?;
        topics.extend(entry.partitions.iter().map(|part| part.topic));
        if epoch < first {
            continue;
        }
        let blocks = blocks(from, &entry)?;
        copied.bytes += blocks.iter().map(|block| block.bytes.len() as u64).sum::<u64>();
        to.append(blocks).with_context(|| format!("copying the blocks of epoch {epoch}"))?;
        to.commit(&entry).with_context(|| format!("copying epoch {epoch}"))?;
        copied.copied += 1;
        report(epoch + 1 - first, all - first);
    }
    for topic in topics {
        cut(from, to, topic)?;
    }
    Ok(copied)
}

/// Compares two logs, entry for entry and block for block.
///
/// # Errors
/// Names the first difference.
pub fn compare(from: &dyn Log, to: &dyn Log, report: Report<'_>) -> Result<()> {
    let all = from.tail().map_or(0, |tail| tail.record.epoch + 1);
    let there = to.tail().map_or(0, |tail| tail.record.epoch + 1);
    if all != there {
        bail!("the copy has {there} epochs, not {all}");
    }
    for epoch in 0..all {
        let (original, copy) = (entry(from, epoch)?, entry(to, epoch)?);
        if original.encode() != copy.encode() {
            bail!("epoch {epoch} differs from its copy");
        }
        for part in &original.partitions {
            if from.first_kept(part.topic) != to.first_kept(part.topic) {
                bail!("topic {:?} is cut elsewhere in the copy", part.topic);
            }
        }
        let pairs = blocks(from, &original)?.into_iter().zip(blocks(to, &copy)?);
        for (original, copy) in pairs {
            if original.bytes != copy.bytes {
                bail!("block {:?} of epoch {epoch} differs from its copy", original.id);
            }
        }
        report(epoch + 1, all);
    }
    Ok(())
}

/// The first epoch that `to` lacks.
fn check_prefix(from: &dyn Log, to: &dyn Log) -> Result<u64> {
    let Some(tail) = to.tail() else { return Ok(0) };
    let epoch = tail.record.epoch;
    let same = from.entry(epoch)?.is_some_and(|entry| entry.record.hash() == tail.record.hash());
    if !same {
        bail!(
            "the destination already holds a log, which is not the beginning of this one (its epoch \
             {epoch} is another); choose a place of its own"
        );
    }
    Ok(epoch + 1)
}

/// Lets go in the copy of what the source has let go of.
fn cut(from: &dyn Log, to: &dyn Log, topic: TopicId) -> Result<()> {
    let first_kept = from.first_kept(topic);
    if to.cut(topic, first_kept).context("cutting the copy")? != first_kept {
        bail!("topic {topic:?} is cut later in the destination than in the source");
    }
    Ok(())
}

fn entry(log: &dyn Log, epoch: u64) -> Result<Arc<EpochEntry>> {
    log.entry(epoch)?.with_context(|| format!("epoch {epoch} is missing"))
}

fn blocks(log: &dyn Log, entry: &EpochEntry) -> Result<Vec<StagedBlock>> {
    let mut blocks = Vec::new();
    for part in &entry.partitions {
        let (topic, partition) = (part.topic, part.partition);
        for id in &part.blocks {
            // Of a block that was cut, the copy names the same id, and cuts it too.
            let bytes = match log.block(topic, partition, *id) {
                Err(LogError::Cut { .. }) => Arc::from([]),
                other => other?,
            };
            blocks.push(StagedBlock { topic, partition, id: *id, bytes });
        }
    }
    Ok(blocks)
}
