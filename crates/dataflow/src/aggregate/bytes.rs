//! Canonical bytes of slots.
//!
//! Does not know which entry of the state they belong to.

use std::collections::BTreeMap;

use falaj_event::encoding::{encoded_len, write_varint};
use falaj_event::{EventOrder, LogTime};

use crate::aggregate::BadAccumulator;
use crate::aggregate::heap::{Encoded, Heap, Object};
use crate::aggregate::input::{Repr, decimal_of};
use crate::aggregate::layout::read_varint;
use crate::aggregate::ops::{Kind, Op};
use crate::aggregate::slots::{ORDER_WORDS, Seen, Slots};
use crate::exact::ExactSum;
use crate::sketch::{HyperLogLog, QuantileBuckets};

/// Bytes of an order in state entries.
pub(crate) const ORDER_BYTES: usize = 28;

/// The order as bytes that compare as it does.
pub(crate) fn order_bytes(order: &EventOrder) -> [u8; ORDER_BYTES] {
    let mut bytes = [0; ORDER_BYTES];
    let time = order.event_time.cast_unsigned() ^ 1 << 63;
    bytes[..8].copy_from_slice(&time.to_be_bytes());
    bytes[8..16].copy_from_slice(&order.t.0.to_be_bytes());
    bytes[16..20].copy_from_slice(&order.partition.to_be_bytes());
    bytes[20..].copy_from_slice(&order.offset.to_be_bytes());
    bytes
}

/// Reads an order off the front of `bytes`.
pub(crate) fn read_order(bytes: &mut &[u8]) -> Result<EventOrder, BadAccumulator> {
    let time = u64::from_be_bytes(take(bytes)?) ^ 1 << 63;
    Ok(EventOrder {
        event_time: time.cast_signed(),
        t: LogTime(u64::from_be_bytes(take(bytes)?)),
        partition: u32::from_be_bytes(take(bytes)?),
        offset: u64::from_be_bytes(take(bytes)?),
    })
}

pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], BadAccumulator> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(BadAccumulator)?;
    *bytes = rest;
    Ok(*head)
}

fn take_encoded(bytes: &mut &[u8]) -> Result<Encoded, BadAccumulator> {
    let length = encoded_len(bytes).ok_or(BadAccumulator)?;
    let (value, rest) = bytes.split_at(length);
    *bytes = rest;
    Ok(value.into())
}

/// Appends a number that is small more often than not: the length of its zigzag form and, little-endian,
/// the bytes of that.
pub(crate) fn write_signed(value: i128, out: &mut Vec<u8>) {
    let zigzag = ((value << 1) ^ (value >> 127)).cast_unsigned();
    let length = 16 - (zigzag.leading_zeros() / 8) as usize;
    out.push(length as u8);
    out.extend_from_slice(&zigzag.to_le_bytes()[..length]);
}

/// Reads what [`write_signed`] wrote.
pub(crate) fn read_signed(bytes: &mut &[u8]) -> Result<i128, BadAccumulator> {
    let [length] = take(bytes)?;
    let (value, rest) = bytes.split_at_checked(usize::from(length)).ok_or(BadAccumulator)?;
    *bytes = rest;
    let mut wide = [0; 16];
    wide.get_mut(..value.len()).ok_or(BadAccumulator)?.copy_from_slice(value);
    let zigzag = u128::from_le_bytes(wide);
    Ok((zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed()))
}

impl Op {
    /// Appends the bytes of a slot that has inputs.
    pub(crate) fn write(&self, seen: Seen<'_>, out: &mut Vec<u8>) {
        match self.kind {
            Kind::IntegerSum => write_signed(seen.wide(self.at).cast_signed(), out),
            Kind::Sum | Kind::Squares => seen.sum(self.at, self.object).write(out),
            Kind::Trues => write_varint(seen.words[self.at], out),
            Kind::Min | Kind::Max => self.write_value(seen, self.at, out),
            Kind::First | Kind::Last => {
                let order = seen.order(self.at);
                out.extend_from_slice(&order[0].to_be_bytes());
                out.extend_from_slice(&order[1].to_be_bytes());
                out.extend_from_slice(&(order[2].saturating_sub(1) as u32).to_be_bytes());
                out.extend_from_slice(&order[3].to_be_bytes());
                self.write_value(seen, self.at + ORDER_WORDS, out);
            }
            _ => write_object(seen.objects[self.object].as_deref(), out),
        }
    }

    fn write_value(&self, seen: Seen<'_>, at: usize, out: &mut Vec<u8>) {
        match self.repr {
            Repr::Decimal(_) => write_signed(decimal_of(seen.wide(at)), out),
            Repr::Bytes => out.extend_from_slice(seen.bytes(self.object).unwrap_or(&[0])),
            Repr::Int | Repr::Timestamp => {
                write_signed((seen.words[at] ^ 1 << 63).cast_signed().into(), out);
            }
            Repr::UInt => write_varint(seen.words[at], out),
            _ => out.extend_from_slice(&seen.words[at].to_be_bytes()),
        }
    }

    /// Reads a slot that has inputs.
    pub(crate) fn read(
        &self,
        slots: &mut Slots<'_>,
        bytes: &mut &[u8],
    ) -> Result<(), BadAccumulator> {
        match self.kind {
            Kind::IntegerSum => slots.set_wide(self.at, read_signed(bytes)?.cast_unsigned()),
            Kind::Sum | Kind::Squares => {
                let read = ExactSum::read(bytes)?;
                slots.with_sum(self.at, self.object, |sum| *sum = read);
            }
            Kind::Trues => slots.words[self.at] = read_varint(bytes)?,
            Kind::Min | Kind::Max => self.read_value(slots, self.at, bytes)?,
            Kind::First | Kind::Last => {
                let order = crate::aggregate::slots::order_words(&read_order(bytes)?);
                slots.words[self.at..self.at + ORDER_WORDS].copy_from_slice(&order);
                self.read_value(slots, self.at + ORDER_WORDS, bytes)?;
            }
            _ => slots.objects[self.object] = self.read_object(bytes)?,
        }
        Ok(())
    }

    fn read_value(
        &self,
        slots: &mut Slots<'_>,
        at: usize,
        bytes: &mut &[u8],
    ) -> Result<(), BadAccumulator> {
        match self.repr {
            Repr::Decimal(_) => {
                slots.set_wide(at, read_signed(bytes)?.cast_unsigned() ^ 1 << 127);
            }
            Repr::Bytes => {
                let value = take_encoded(bytes)?;
                slots.objects[self.object] = Some(Box::new(Heap::Bytes(value)));
            }
            Repr::Int | Repr::Timestamp => {
                let value = i64::try_from(read_signed(bytes)?).map_err(|_| BadAccumulator)?;
                slots.words[at] = value.cast_unsigned() ^ 1 << 63;
            }
            Repr::UInt => slots.words[at] = read_varint(bytes)?,
            _ => slots.words[at] = u64::from_be_bytes(take(bytes)?),
        }
        Ok(())
    }

    fn read_object(&self, bytes: &mut &[u8]) -> Result<Object, BadAccumulator> {
        let heap = match self.kind {
            Kind::Registers => Heap::Registers(HyperLogLog::read(bytes)?),
            Kind::Buckets => Heap::Buckets(QuantileBuckets::read(bytes)?),
            Kind::Counts => {
                let mut counts = BTreeMap::new();
                for _ in 0..read_varint(bytes)? {
                    let value = take_encoded(bytes)?;
                    counts.insert(value, read_varint(bytes)?);
                }
                Heap::Counts(counts)
            }
            Kind::Latest(_) => {
                let mut list = Vec::new();
                for _ in 0..read_varint(bytes)? {
                    let order = read_order(bytes)?;
                    list.push((order, take_encoded(bytes)?));
                }
                Heap::Latest(list)
            }
            _ => {
                let mut list = Vec::new();
                for _ in 0..read_varint(bytes)? {
                    list.push(take_encoded(bytes)?);
                }
                Heap::Greatest(list)
            }
        };
        Ok(Some(Box::new(heap)))
    }
}

/// Lists begin with their length as a varint; values are in canonical encoding.
fn write_object(heap: Option<&Heap>, out: &mut Vec<u8>) {
    match heap {
        Some(Heap::Registers(registers)) => registers.write(out),
        Some(Heap::Buckets(buckets)) => buckets.write(out),
        Some(Heap::Counts(counts)) => {
            write_varint(counts.len() as u64, out);
            for (value, count) in counts {
                out.extend_from_slice(value);
                write_varint(*count, out);
            }
        }
        Some(Heap::Greatest(list)) => {
            write_varint(list.len() as u64, out);
            list.iter().for_each(|value| out.extend_from_slice(value));
        }
        Some(Heap::Latest(list)) => {
            write_varint(list.len() as u64, out);
            for (order, value) in list {
                out.extend_from_slice(&order_bytes(order));
                out.extend_from_slice(value);
            }
        }
        Some(Heap::Spill(_) | Heap::Bytes(_)) | None => write_varint(0, out),
    }
}
