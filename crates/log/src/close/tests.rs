//! Closing is a function of its inputs.

use falaj_event::{Op, ProducerId};
use falaj_vault::SeededRandom;

use super::*;
use crate::submission::{Ops, Origin, Submission};
use crate::testing::{batch, payment, payments};

fn prepared(vault: &Vault) -> Prepared {
    let schema = Arc::new(payments(3));
    let rows: Vec<_> = (0..20).map(|i| payment(&format!("c{i}"), i, i)).collect();
    let submission = Submission {
        batch: batch(&schema, &rows),
        schema,
        origin: Origin::Producer {
            producer: ProducerId([1; 16]),
            first_sequence: 0,
            sequences: 20,
        },
        ops: Ops::All(Op::Insert),
        positions: None,
        rejected: None,
        reply: Box::new(|_| {}),
    };
    submission.prepare(vault).0.unwrap()
}

fn close() -> (ClosedEpoch, Vault) {
    let vault = Vault::ephemeral(3).unwrap();
    let segment = segment_of(&prepared(&vault), 4, &[0, 15]).unwrap();
    assert_eq!((segment.ops.len(), segment.ids.len()), (14, 14 * EVENT_ID_BYTES));
    let closed = close_epoch(EpochInputs {
        term: 4,
        t: LogTime(99),
        clock: ClockMode::Event,
        wall_clock_us: 5,
        definitions: Hash256([1; 32]),
        tail: None,
        segments: vec![segment],
        producers: Vec::new(),
        random: &SeededRandom::new(6),
        next_offset: &|_, partition| u64::from(partition) * 100,
    });
    (closed.unwrap(), vault)
}

#[test]
fn closing_is_a_function_of_its_inputs() {
    let ((mut one, vault), (mut two, same_vault)) = (close(), close());
    assert_eq!(one.entry, two.entry);
    let sealed = |closed: &mut ClosedEpoch, vault: &Vault| -> Vec<StagedBlock> {
        closed.blocks.drain(..).map(|block| block.seal(vault).unwrap()).collect()
    };
    let (blocks, same) = (sealed(&mut one, &vault), sealed(&mut two, &same_vault));
    let bytes = |blocks: &[StagedBlock]| -> Vec<Arc<[u8]>> {
        blocks.iter().map(|block| Arc::clone(&block.bytes)).collect()
    };
    assert_eq!(bytes(&blocks), bytes(&same));
    let named =
        one.entry.partitions.iter().map(|part| (part.topic, part.partition, part.blocks[0]));
    assert!(named.eq(blocks.iter().map(|block| (block.topic, block.partition, block.id))));
    assert_eq!(one.entry.check(), Ok(()));
    assert_eq!((one.entry.record.epoch, one.entry.record.events), (0, 14));
    let ranges = &one.ranges[0];
    assert!(ranges.iter().all(|(partition, first, _)| *first == u64::from(*partition) * 100));
    assert_eq!(ranges.iter().map(|(_, _, count)| count).sum::<u32>(), 14);
}
