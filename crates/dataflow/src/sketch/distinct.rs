//! HyperLogLog with 4,096 registers: standard error 1.04/√4096 = 1.6 %.
//!
//! A value's hash is XXH3-64 (seed 0) of its canonical encoding. The top 12 bits choose a register;
//! the register holds the greatest number of leading zeros, plus one, of the remaining 52 bits.
//! Merging takes the greater register. The estimate is Ertl's improved raw estimator ("New
//! cardinality estimation algorithms for HyperLogLog sketches", 2017), which needs no bias tables:
//! with `C[k]` registers of value `k`, `m = 4096` and `q = 52`,
//! `z = m·τ(1 − C[q+1]/m)`, then `z ← (z + C[k])/2` for `k = q … 1`, then `z ← z + m·σ(C[0]/m)`, and
//! the estimate is `m² / (2·ln 2·z)`, rounded to the nearest integer. Only + − × ÷ √ are used, so it
//! is the same everywhere.
//!
//! Does not know what was hashed.

use crate::sketch::BadSketch;

const PRECISION: u32 = 12;
const REGISTERS: usize = 1 << PRECISION;
const TAIL_BITS: u32 = 64 - PRECISION;
/// Up to this many registers are kept as a sorted list; the form depends on their number alone.
const SPARSE_MAX: usize = 512;

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HyperLogLog {
    form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// `register << 8 | value`, ascending, one per non-zero register.
    Sparse(Vec<u32>),
    Dense(Box<[u8; REGISTERS]>),
}

impl Default for HyperLogLog {
    fn default() -> Self {
        Self { form: Form::Sparse(Vec::new()) }
    }
}

impl HyperLogLog {
    /// Counts a hash.
    pub fn add(&mut self, hash: u64) {
        let register = (hash >> TAIL_BITS) as usize;
        // The bit below the tail ends the run of zeros at q + 1 = 53.
        let tail = hash << PRECISION | 1 << (PRECISION - 1);
        self.raise(register, tail.leading_zeros() as u8 + 1);
    }

    fn raise(&mut self, register: usize, value: u8) {
        match &mut self.form {
            Form::Dense(registers) => registers[register] = registers[register].max(value),
            Form::Sparse(list) => {
                let entry = (register as u32) << 8 | u32::from(value);
                match list.binary_search_by_key(&register, |entry| (entry >> 8) as usize) {
                    Ok(at) => list[at] = list[at].max(entry),
                    Err(at) => list.insert(at, entry),
                }
                if list.len() > SPARSE_MAX {
                    self.densify();
                }
            }
        }
    }

    fn densify(&mut self) {
        if let Form::Sparse(list) = &self.form {
            let mut registers = Box::new([0; REGISTERS]);
            for entry in list {
                registers[(entry >> 8) as usize] = *entry as u8;
            }
            self.form = Form::Dense(registers);
        }
    }

    /// The union of both.
    pub fn merge(&mut self, other: &Self) {
        match &other.form {
            Form::Sparse(list) => {
                for entry in list {
                    self.raise((entry >> 8) as usize, *entry as u8);
                }
            }
            Form::Dense(theirs) => {
                self.densify();
                if let Form::Dense(ours) = &mut self.form {
                    for (ours, theirs) in ours.iter_mut().zip(theirs.iter()) {
                        *ours = (*ours).max(*theirs);
                    }
                }
            }
        }
    }

    /// The estimated number of distinct hashes.
    pub fn estimate(&self) -> u64 {
        let mut counts = [0u32; TAIL_BITS as usize + 2];
        match &self.form {
            Form::Sparse(list) => {
                counts[0] = (REGISTERS - list.len()) as u32;
                list.iter().for_each(|entry| counts[usize::from(*entry as u8)] += 1);
            }
            Form::Dense(registers) => {
                registers.iter().for_each(|value| counts[usize::from(*value)] += 1);
            }
        }
        let m = REGISTERS as f64;
        let top = TAIL_BITS as usize + 1;
        let mut z = m * tau(1.0 - f64::from(counts[top]) / m);
        for count in counts[1..top].iter().rev() {
            z = 0.5 * (z + f64::from(*count));
        }
        z += m * sigma(f64::from(counts[0]) / m);
        // An empty sketch has z = ∞ and estimates 0.
        (m * m / (2.0 * std::f64::consts::LN_2 * z)).round_ties_even() as u64
    }

    /// Appends the canonical bytes: `00`, the number of entries as u16 big-endian and each entry as
    /// register (u16 big-endian) and value; or `01` and all registers.
    pub fn write(&self, out: &mut Vec<u8>) {
        match &self.form {
            Form::Sparse(list) => {
                out.push(0);
                out.extend_from_slice(&(list.len() as u16).to_be_bytes());
                list.iter().for_each(|entry| out.extend_from_slice(&entry.to_be_bytes()[1..]));
            }
            Form::Dense(registers) => {
                out.push(1);
                out.extend_from_slice(registers.as_slice());
            }
        }
    }

    /// Reads canonical bytes off the front of `bytes`.
    ///
    /// # Errors
    /// When `bytes` do not begin with a sketch.
    pub fn read(bytes: &mut &[u8]) -> Result<Self, BadSketch> {
        let (form, rest) = bytes.split_first().ok_or(BadSketch)?;
        let mut sketch = Self::default();
        if *form == 1 {
            let (registers, rest) = rest.split_first_chunk::<REGISTERS>().ok_or(BadSketch)?;
            if registers.iter().any(|value| u32::from(*value) > TAIL_BITS + 1) {
                return Err(BadSketch);
            }
            sketch.form = Form::Dense(Box::new(*registers));
            *bytes = rest;
            return Ok(sketch);
        }
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(BadSketch)?;
        let length = usize::from(u16::from_be_bytes(*length)) * 3;
        let (entries, rest) = rest.split_at_checked(length).ok_or(BadSketch)?;
        for entry in entries.chunks_exact(3) {
            let register = usize::from(u16::from_be_bytes([entry[0], entry[1]]));
            if register >= REGISTERS || u32::from(entry[2]) > TAIL_BITS + 1 {
                return Err(BadSketch);
            }
            sketch.raise(register, entry[2]);
        }
        *bytes = rest;
        Ok(sketch)
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match &self.form {
            Form::Sparse(list) => list.capacity() * 4,
            Form::Dense(_) => REGISTERS,
        }
    }
}

fn sigma(x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut x, mut y, mut z) = (x, 1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut x, mut y, mut z) = (x, 1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}
