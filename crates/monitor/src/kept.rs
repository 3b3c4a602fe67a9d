//! The fold's state as bytes, so that a restart goes on where it stopped.
//!
//! Bytes are a function of the state: maps are written in the order of their keys. They are read by the
//! program version that wrote them and by no other (whoever keeps them sees to that), so there are no
//! tags and nothing is skipped. Does not know where bytes are kept.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use falaj_event::encoding::{decode_row, encode_row, read_varint, write_varint};
use falaj_event::{LogTime, Op, Value};

use crate::{Actual, Label, Prediction};

/// What can be written and read back, bit for bit.
pub trait Kept: Sized {
    /// Appends the bytes.
    fn put(&self, out: &mut Vec<u8>);

    /// Reads what [`Kept::put`] wrote off the front of `bytes`; `None` where they hold no such thing.
    fn take(bytes: &mut &[u8]) -> Option<Self>;
}

/// Writes and reads a struct field by field, in the order given.
macro_rules! kept {
    ($name:ty { $($field:ident),* $(,)? }) => {
        impl $crate::kept::Kept for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::kept::Kept::put(&self.$field, out);)*
            }

            fn take(bytes: &mut &[u8]) -> Option<Self> {
                $(let $field = $crate::kept::Kept::take(bytes)?;)*
                Some(Self { $($field),* })
            }
        }
    };
}
pub(crate) use kept;

/// What has a serialised form that comes back bit for bit, as JSON.
#[derive(Clone, Debug)]
pub struct AsJson<T>(pub T);

impl<T: serde::Serialize + serde::de::DeserializeOwned> Kept for AsJson<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_json(&self.0, out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        take_json(bytes).map(Self)
    }
}

/// Writes what has a serialised form.
pub fn put_json<T: serde::Serialize>(value: &T, out: &mut Vec<u8>) {
    put_bytes(&serde_json::to_vec(value).unwrap_or_default(), out);
}

/// Reads what [`put_json`] wrote.
pub fn take_json<T: serde::de::DeserializeOwned>(bytes: &mut &[u8]) -> Option<T> {
    serde_json::from_slice(take_bytes(bytes)?).ok()
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(read_varint(bytes)?).ok()?;
    let (own, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(own)
}

impl Kept for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        write_varint(*self, out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        read_varint(bytes)
    }
}

impl Kept for u32 {
    fn put(&self, out: &mut Vec<u8>) {
        u64::from(*self).put(out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        u64::take(bytes)?.try_into().ok()
    }
}

impl Kept for usize {
    fn put(&self, out: &mut Vec<u8>) {
        (*self as u64).put(out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        u64::take(bytes)?.try_into().ok()
    }
}

impl Kept for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        match first {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Kept for f64 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_bits().to_le_bytes());
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let (own, rest) = bytes.split_first_chunk::<8>()?;
        *bytes = rest;
        Some(Self::from_bits(u64::from_le_bytes(*own)))
    }
}

impl Kept for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self.as_bytes(), out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some(std::str::from_utf8(take_bytes(bytes)?).ok()?.to_owned())
    }
}

impl Kept for Arc<str> {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self.as_bytes(), out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some(std::str::from_utf8(take_bytes(bytes)?).ok()?.into())
    }
}

impl Kept for Arc<[u8]> {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self, out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some(take_bytes(bytes)?.into())
    }
}

impl Kept for Arc<[f64]> {
    fn put(&self, out: &mut Vec<u8>) {
        self.to_vec().put(out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some(Vec::take(bytes)?.into())
    }
}

impl Kept for Arc<[Value]> {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(&encode_row(self.iter()), out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some(decode_row(take_bytes(bytes)?).ok()?.into())
    }
}

impl Kept for LogTime {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        u64::take(bytes).map(Self)
    }
}

impl Kept for Op {
    fn put(&self, out: &mut Vec<u8>) {
        let number: u32 = match self {
            Self::Insert => 0,
            Self::Upsert => 1,
            Self::Delete => 2,
        };
        number.put(out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        match u32::take(bytes)? {
            0 => Some(Self::Insert),
            1 => Some(Self::Upsert),
            2 => Some(Self::Delete),
            _ => None,
        }
    }
}

impl Kept for Arc<Actual> {
    fn put(&self, out: &mut Vec<u8>) {
        match &**self {
            Actual::Class(class) => {
                true.put(out);
                class.put(out);
            }
            Actual::Number(number) => {
                false.put(out);
                number.put(out);
            }
        }
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self::new(match bool::take(bytes)? {
            true => Actual::Class(String::take(bytes)?),
            false => Actual::Number(f64::take(bytes)?),
        }))
    }
}

kept!(Prediction { id, key, t, version, served, score, scores, predicted, inputs, keys });
kept!(Label { name, op, prediction_id, key, observed_at, row });

/// What is shared is written once for each that shares it.
macro_rules! shared {
    ($($name:ty),*) => {
        $(impl Kept for Arc<$name> {
            fn put(&self, out: &mut Vec<u8>) {
                (**self).put(out);
            }

            fn take(bytes: &mut &[u8]) -> Option<Self> {
                <$name>::take(bytes).map(Self::new)
            }
        })*
    };
}
shared!(Prediction, Label);

impl<T: Kept> Kept for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some(match bool::take(bytes)? {
            true => Some(T::take(bytes)?),
            false => None,
        })
    }
}

impl<A: Kept, B: Kept> Kept for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::take(bytes)?, B::take(bytes)?))
    }
}

impl<A: Kept, B: Kept, C: Kept> Kept for (A, B, C) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
        self.2.put(out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::take(bytes)?, B::take(bytes)?, C::take(bytes)?))
    }
}

impl<T: Kept> Kept for Reverse<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        T::take(bytes).map(Self)
    }
}

fn put_all<'a, T: Kept + 'a>(items: impl ExactSizeIterator<Item = &'a T>, out: &mut Vec<u8>) {
    items.len().put(out);
    items.for_each(|item| item.put(out));
}

fn take_all<T: Kept, C: FromIterator<T>>(bytes: &mut &[u8]) -> Option<C> {
    (0..usize::take(bytes)?).map(|_| T::take(bytes)).collect()
}

impl<T: Kept> Kept for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_all(self.iter(), out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        take_all(bytes)
    }
}

impl<T: Kept> Kept for VecDeque<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_all(self.iter(), out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        take_all(bytes)
    }
}

impl<T: Kept + Ord> Kept for BTreeSet<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_all(self.iter(), out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        take_all(bytes)
    }
}

impl<T: Kept + Ord> Kept for BinaryHeap<T> {
    fn put(&self, out: &mut Vec<u8>) {
        let mut sorted: Vec<&T> = self.iter().collect();
        sorted.sort_unstable();
        put_all(sorted.into_iter(), out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        take_all(bytes)
    }
}

impl<K: Kept + Ord, V: Kept> Kept for BTreeMap<K, V> {
    fn put(&self, out: &mut Vec<u8>) {
        self.len().put(out);
        for (key, value) in self {
            key.put(out);
            value.put(out);
        }
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        take_all(bytes)
    }
}

impl<K: Kept + Ord + Hash, V: Kept> Kept for HashMap<K, V> {
    fn put(&self, out: &mut Vec<u8>) {
        let mut sorted: Vec<(&K, &V)> = self.iter().collect();
        sorted.sort_unstable_by(|a, b| a.0.cmp(b.0));
        sorted.len().put(out);
        for (key, value) in sorted {
            key.put(out);
            value.put(out);
        }
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        take_all(bytes)
    }
}
