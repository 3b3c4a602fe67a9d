//! What the operator's oracle reaches too rarely: overflow, errors that come and go, shared slots,
//! rounding of decimals, canonical bytes of accumulators.

use falaj_definitions::plan::{AggregateCall, AggregateFunction, Frame};
use falaj_event::encoding::encode_row;
use falaj_event::{ColumnType, EventOrder, LogTime, Value};

use super::*;

const MONEY: ColumnType = ColumnType::Decimal { precision: 38, scale: 2 };

/// One frame over rows of (input, filter).
struct OneFrame {
    layout: Layout,
    outputs: Vec<Output>,
    lane: Lane,
    words: Vec<u64>,
    objects: Vec<Object>,
    offset: u64,
}

impl OneFrame {
    fn new(input: &ColumnType, functions: &[(AggregateFunction, ColumnType)]) -> Self {
        let calls: Vec<AggregateCall> = functions
            .iter()
            .map(|(function, output_type)| AggregateCall {
                function: *function,
                input: Some(0),
                input_type: input.clone(),
                filter: Some(1),
                frame: Frame::Lifetime,
                output_type: output_type.clone(),
            })
            .collect();
        let lane = Lane::new(Some(0), Some(1), input);
        let placed: Vec<_> = calls.iter().map(|call| (call, 0)).collect();
        let (layout, outputs) = Layout::compile(&placed, std::slice::from_ref(&lane));
        let words = layout.empty().to_vec();
        let objects = (0..layout.objects()).map(|_| None).collect();
        Self { layout, outputs, lane, words, objects, offset: 0 }
    }

    fn change(&mut self, input: Value, filter: Value, remove: bool) {
        let cells = encode_row(&[input, filter]);
        let mut ranges = Vec::new();
        Selector::new(2).ranges(&cells, &mut ranges).unwrap();
        let parsed = [self.lane.parse(&cells, &ranges)];
        self.offset += 1;
        let order = EventOrder { event_time: 5, t: LogTime(6), partition: 0, offset: self.offset };
        let event = Event { parsed: &parsed, cells: &cells, order: &order };
        let slots = &mut Slots { words: &mut self.words, objects: &mut self.objects };
        match remove {
            false => self.layout.add(slots, &event),
            true => self.layout.remove(slots, &event, &mut Vec::new()),
        }
    }

    fn add(&mut self, input: Value) {
        self.change(input, Value::Bool(true), false);
    }

    fn take(&mut self, input: Value) {
        self.change(input, Value::Bool(true), true);
    }

    fn seen(&self) -> Seen<'_> {
        Seen { words: &self.words, objects: &self.objects }
    }

    /// What the aggregates answer, which is what they write.
    fn values(&self) -> Vec<Value> {
        let values: Vec<Value> =
            self.outputs.iter().map(|output| output.render(self.seen())).collect();
        let mut bytes = Vec::new();
        self.outputs.iter().for_each(|output| output.encode(self.seen(), &mut bytes));
        assert_eq!(bytes, encode_row(&values));
        values
    }

    /// Merges or subtracts another one's contents; says which operators are stale then.
    fn combine(&mut self, other: &Self, subtract: bool) -> Vec<usize> {
        let (slots, mut stale) =
            (&mut Slots { words: &mut self.words, objects: &mut self.objects }, Vec::new());
        match subtract {
            true => self.layout.subtract(slots, other.seen(), &mut stale),
            false => self.layout.merge(slots, other.seen()),
        }
        stale
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.layout.write(self.seen(), &mut bytes);
        bytes
    }
}

#[test]
fn a_decimal_sum_overflows_into_an_error_and_back() {
    let mut frame = OneFrame::new(&MONEY, &[(AggregateFunction::Sum, MONEY)]);
    let most = 10i128.pow(38) - 1;
    for _ in 0..5 {
        frame.add(Value::Decimal(most, 2));
    }
    assert_eq!(frame.values(), [Value::Error]);
    for _ in 0..4 {
        frame.take(Value::Decimal(most, 2));
    }
    assert_eq!(frame.values(), [Value::Decimal(most, 2)]);
    frame.take(Value::Decimal(most, 2));
    assert_eq!(frame.values(), [Value::Null]);
    assert!(frame.objects.iter().all(Option::is_none));
}

#[test]
fn an_error_poisons_for_as_long_as_it_is_there() {
    let functions = [
        (AggregateFunction::Count, ColumnType::Int64),
        (AggregateFunction::Sum, ColumnType::Decimal { precision: 38, scale: 0 }),
        (AggregateFunction::Max, ColumnType::Int64),
        (AggregateFunction::CountDistinct, ColumnType::Int64),
    ];
    let mut frame = OneFrame::new(&ColumnType::Int64, &functions);
    frame.add(Value::Int(7));
    frame.add(Value::Error);
    frame.change(Value::Int(8), Value::Error, false);
    frame.change(Value::Error, Value::Bool(false), false);
    frame.change(Value::Int(9), Value::Null, false);
    assert_eq!(frame.values(), vec![Value::Error; 4]);
    frame.take(Value::Error);
    assert_eq!(frame.values(), vec![Value::Error; 4]);
    frame.change(Value::Int(8), Value::Error, true);
    let seven = [Value::Int(1), Value::Decimal(7, 0), Value::Int(7), Value::Int(1)];
    assert_eq!(frame.values(), seven);
}

#[test]
fn averages_of_decimals_round_half_away_from_zero() {
    let average = (AggregateFunction::Avg, ColumnType::Decimal { precision: 9, scale: 4 });
    for (inputs, expected) in [
        (vec![1, 0, 0], 33),
        (vec![1, 1, 0], 67),
        (vec![-1, 0, 0], -33),
        (vec![-1, -1, 0], -67),
        (vec![1, 0, 0, 0, 0, 0, 0, 0], 13),
        (vec![-1, 0, 0, 0, 0, 0, 0, 0], -13),
    ] {
        let mut frame = OneFrame::new(
            &ColumnType::Decimal { precision: 5, scale: 2 },
            std::slice::from_ref(&average),
        );
        inputs.iter().for_each(|input| frame.add(Value::Decimal(*input, 2)));
        assert_eq!(frame.values(), [Value::Decimal(expected, 4)], "{inputs:?}");
    }
}

#[test]
fn aggregates_of_one_input_share_their_slots() {
    let float = ColumnType::Float64;
    let alone =
        OneFrame::new(&float, &[(AggregateFunction::Stddev { sample: true }, float.clone())]);
    let together = OneFrame::new(
        &float,
        &[
            (AggregateFunction::Count, ColumnType::Int64),
            (AggregateFunction::Sum, float.clone()),
            (AggregateFunction::Avg, float.clone()),
            (AggregateFunction::Variance { sample: false }, float.clone()),
            (AggregateFunction::Stddev { sample: true }, float.clone()),
        ],
    );
    assert_eq!(alone.words.len(), together.words.len());
    let lists = OneFrame::new(
        &float,
        &[(AggregateFunction::TopN(2), float.clone()), (AggregateFunction::TopN(5), float.clone())],
    );
    assert_eq!(lists.objects.len(), 1);
}

#[test]
fn equal_contents_write_equal_bytes_that_read_back() {
    let float = ColumnType::Float64;
    let functions = [
        (AggregateFunction::Stddev { sample: true }, float.clone()),
        (AggregateFunction::CountDistinct, ColumnType::Int64),
        (AggregateFunction::ApproxQuantile(0.5), float.clone()),
    ];
    let mut plain = OneFrame::new(&float, &functions);
    let mut twisted = OneFrame::new(&float, &functions);
    for value in [1e300, -2.5, 1e-300] {
        plain.add(Value::Float64(value));
    }
    for value in [f64::NAN, 1e-300, 1e308, 1e300, -2.5] {
        twisted.add(Value::Float64(value));
    }
    twisted.take(Value::Float64(1e308));
    twisted.take(Value::Float64(f64::NAN));
    assert_eq!(plain.bytes(), twisted.bytes());
    assert_eq!(plain.values(), twisted.values());

    let mut read = OneFrame::new(&float, &functions);
    let bytes = plain.bytes();
    let mut rest = bytes.as_slice();
    let slots = &mut Slots { words: &mut read.words, objects: &mut read.objects };
    read.layout.read(slots, &mut rest).unwrap();
    assert!(rest.is_empty());
    assert_eq!(read.bytes(), bytes);
    assert_eq!(read.values(), plain.values());
    for end in 0..bytes.len() {
        let mut short = OneFrame::new(&float, &functions);
        let slots = &mut Slots { words: &mut short.words, objects: &mut short.objects };
        assert!(short.layout.read(slots, &mut &bytes[..end]).is_err(), "{end} bytes");
    }
}

#[test]
fn integer_sums_reach_beyond_64_bits() {
    let decimal = ColumnType::Decimal { precision: 38, scale: 0 };
    let functions = [
        (AggregateFunction::Sum, decimal),
        (AggregateFunction::Avg, ColumnType::Float64),
        (AggregateFunction::Variance { sample: false }, ColumnType::Float64),
    ];
    let mut frame = OneFrame::new(&ColumnType::UInt64, &functions);
    frame.add(Value::UInt(u64::MAX));
    frame.add(Value::UInt(u64::MAX));
    let expected = [
        Value::Decimal(2 * i128::from(u64::MAX), 0),
        Value::Float64(18_446_744_073_709_551_615.0),
        Value::Float64(0.0),
    ];
    assert_eq!(frame.values(), expected);
    frame.add(Value::UInt(u64::MAX - 3));
    // (0 + 0 + 9)/3 − 1 = 2
    assert_eq!(frame.values()[2], Value::Float64(2.0));
}

#[test]
fn integers_are_counted_summed_and_compared_at_their_limits() {
    let functions = |input: &ColumnType| {
        [
            (AggregateFunction::Count, ColumnType::Int64),
            (AggregateFunction::Sum, ColumnType::Decimal { precision: 19, scale: 0 }),
            (AggregateFunction::Avg, ColumnType::Float64),
            (AggregateFunction::Min, input.clone()),
            (AggregateFunction::Max, input.clone()),
        ]
    };
    let decimal = |sum: i128| Value::Decimal(sum, 0);
    let mut signed = OneFrame::new(&ColumnType::Int64, &functions(&ColumnType::Int64));
    assert_eq!(signed.values()[1..], vec![Value::Null; 4]);
    signed.add(Value::Int((1 << 53) + 1));
    let large = Value::Int((1 << 53) + 1);
    let one = [decimal((1 << 53) + 1), Value::Float64(9_007_199_254_740_992.0)];
    assert_eq!(signed.values()[1..], [one.to_vec(), vec![large.clone(), large.clone()]].concat());
    signed.add(Value::Int(-4));
    let mean = Value::Float64(4_503_599_627_370_494.5);
    assert_eq!(signed.values()[2..], [mean, Value::Int(-4), large]);
    // Two of the greatest are more than 19 digits.
    signed.add(Value::Int(i64::MAX));
    signed.add(Value::Int(i64::MAX));
    assert_eq!(signed.values()[1], Value::Error);

    let unsigned = |inputs: &[u64]| {
        let mut frame = OneFrame::new(&ColumnType::UInt64, &functions(&ColumnType::UInt64));
        inputs.iter().for_each(|input| frame.add(Value::UInt(*input)));
        frame
    };
    let (part, rest) = (unsigned(&[7, 9]), unsigned(&[3, 8]));
    let mut both = unsigned(&[3, 8]);
    assert!(both.combine(&part, false).is_empty());
    assert_eq!(both.values(), unsigned(&[3, 8, 7, 9]).values());
    // The greatest may have been that of the part, the least cannot.
    let stale = both.combine(&part, true);
    assert_eq!(stale.len(), 1);
    assert_eq!(both.values()[..4], rest.values()[..4]);
    let slots = &mut Slots { words: &mut both.words, objects: &mut both.objects };
    both.layout.refold(stale[0], slots, std::iter::once(rest.seen()));
    assert_eq!((both.values(), both.bytes()), (rest.values(), rest.bytes()));
    assert!(both.combine(&rest, true).is_empty());
    assert_eq!(both.bytes(), unsigned(&[]).bytes());
    assert_eq!(both.words, unsigned(&[]).words);
}

#[test]
fn signed_numbers_take_as_many_bytes_as_they_need() {
    let at_most = |bits: u32| [(1 << bits) - 1, -(1 << bits), 1 << bits, -(1 << bits) - 1];
    let ends = [0, -1, i128::MAX, i128::MIN];
    for value in (0..126).flat_map(at_most).chain(ends) {
        let mut bytes = Vec::new();
        write_signed(value, &mut bytes);
        let zigzag = (value << 1) ^ (value >> 127);
        let needed = (128 - zigzag.leading_zeros()).div_ceil(8) as usize;
        assert_eq!(bytes.len(), 1 + needed, "{value}");
        let mut rest = bytes.as_slice();
        assert_eq!(read_signed(&mut rest), Ok(value));
        assert!(rest.is_empty());
        assert!(read_signed(&mut &bytes[..needed]).is_err());
    }
    assert!(read_signed(&mut [17; 18].as_slice()).is_err());
}
