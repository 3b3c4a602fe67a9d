//! The typed plan of a feature view: what the definitions crate hands to the engine.
//!
//! A view is `source → joins → prepare → (keyed aggregation | per row) → finish`. Everything
//! stateless is a vectorised [`Program`]; everything stateful is named here as data and executed by
//! the engine. This module knows no engine and no storage.

use std::sync::Arc;

use falaj_event::{ColumnType, Hash256, TopicSchema, ViewId};

use crate::program::Program;

/// One feature view, ready to be executed.
#[derive(Clone, Debug)]
pub struct ViewPlan {
    /// The view's name in SQL.
    pub name: String,
    /// Hash of everything that decides the view's contents: its normalised SQL and options, the
    /// schemas and hashes of what it reads, the engine and function-set versions.
    pub hash: Hash256,
    /// First bytes of `hash`.
    pub id: ViewId,
    /// Where rows come from.
    pub source: Source,
    /// Joins applied in order. The row before the first join is the source's columns; join `i`
    /// appends all declared columns of its table (NULL where there is no match).
    pub joins: Vec<Join>,
    /// Maps joined rows to prepared rows.
    pub prepare: Program,
    /// Column of the prepared row that holds WHERE's boolean (NULL and false drop the row).
    pub predicate: Option<usize>,
    /// Columns of the prepared row that are the view's key, in key order.
    pub key: Vec<usize>,
    /// What happens to prepared rows.
    pub shape: Shape,
    /// [`Shape::Keyed`]: maps (key columns ++ bare columns ++ aggregate results) to the output
    /// columns. [`Shape::PerRow`]: maps prepared rows to the output columns.
    pub finish: Program,
    /// Column of `finish`'s output that holds HAVING's boolean (NULL and false: the key has no
    /// row). When present it is the last column and not part of `output`.
    pub having: Option<usize>,
    /// The view's columns: what a reader gets.
    pub output: Vec<OutputColumn>,
    /// Indices into `output` of the key columns, in key order.
    pub output_key: Vec<usize>,
    /// A value older than this (`T_r` − latest event time) is EXPIRED. Microseconds.
    pub ttl_us: Option<u64>,
    /// How long history is kept. Microseconds.
    pub retain_us: u64,
    /// After this long past its event time an event can no longer influence any row (other than by
    /// the existence of its key and the key's latest event time), so stateful inputs may forget it.
    /// `Some` only when every frame is RANGE, nothing is bare, and neither WHERE nor the key reads
    /// a joined table; the largest `preceding + hop`. Microseconds.
    pub horizon_us: Option<u64>,
    /// Header and documentation of the view.
    pub description: Description,
}

/// What the comment header of a view's file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Who answers for the view.
    pub owner: Option<String>,
    /// What it is for.
    pub text: Option<String>,
    /// Free labels.
    pub tags: Vec<String>,
}

/// One column of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputColumn {
    /// Name.
    pub name: String,
    /// Type.
    pub column_type: ColumnType,
    /// Cost class of the dearest aggregate behind the column.
    pub class: CostClass,
    /// Whether an aggregate behind the column (other than a first or last value) is over all events
    /// ever: such a column moves by itself as time passes, whether or not anything changes.
    pub lifetime: bool,
}

/// Where a view's rows come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Events of an event topic, or the changing rows of a table topic. The row is all declared
    /// columns in declared order (pii columns as stored `binary`; no plan reads them).
    Topic(Arc<TopicSchema>),
    /// Rows of another view, as they change. The row is that view's output columns.
    View(Arc<ViewPlan>),
}

/// A join with a table topic.
#[derive(Clone, Debug)]
pub struct Join {
    /// Its meaning.
    pub kind: JoinKind,
    /// The table topic.
    pub table: Arc<TopicSchema>,
    /// Maps the row so far to the table's key columns, in the order of `table.key`. A NULL in any
    /// of them matches nothing.
    pub left_key: Program,
}

/// How a table row is chosen for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// The row current at `T` (reactive).
    Left,
    /// The newest row version with `version.event_time <= event.event_time`, in the total event
    /// order, among those known at `T`; a delete version matches nothing. Always a left join.
    AsOf,
}

/// What a view does with prepared rows.
#[derive(Clone, Debug)]
pub enum Shape {
    /// One row per key.
    Keyed {
        /// Columns of the prepared row taken from the key's latest event (total order).
        bare: Vec<usize>,
        /// Aggregates.
        aggregates: Vec<AggregateCall>,
    },
    /// One output row per prepared row; only over [`Source::View`], keyed as that view is.
    PerRow,
}

/// One aggregate over one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregateCall {
    /// The function.
    pub function: AggregateFunction,
    /// Column of the prepared row; `None` for `count(*)` only.
    pub input: Option<usize>,
    /// Type of the input column (`Bool` when there is none).
    pub input_type: ColumnType,
    /// Column of the prepared row that holds `FILTER (WHERE …)`'s boolean.
    pub filter: Option<usize>,
    /// Which events count.
    pub frame: Frame,
    /// Type of the result.
    pub output_type: ColumnType,
}

/// Aggregate functions. NULL inputs are ignored by all of them but `CountRows`; on an empty frame
/// counts are 0 and everything else is NULL. An input marked as an error makes the result an error
/// for as long as it is in the frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AggregateFunction {
    /// `count(*)`: int64.
    CountRows,
    /// `count(x)`: int64.
    Count,
    /// `count(DISTINCT x)`: int64.
    CountDistinct,
    /// `sum(x)`: integers → decimal(38,0); decimal(p,s) → decimal(38,s); floats → float64, the exact
    /// sum rounded once. Overflow of decimal(38,·) is an error.
    Sum,
    /// `avg(x)`: integers and floats → float64; decimal(p,s) → decimal(min(38,p+4), min(38,s+4)),
    /// rounded half away from zero; the exact quotient rounded once.
    Avg,
    /// `min(x)`: the input's type.
    Min,
    /// `max(x)`: the input's type.
    Max,
    /// `var_samp` / `var_pop`: float64, the exact value rounded once; NULL below two (one) inputs.
    Variance {
        /// Divide by n − 1 rather than n.
        sample: bool,
    },
    /// `stddev_samp` / `stddev_pop`: float64: the square root of the exact variance, rounded once.
    Stddev {
        /// Divide by n − 1 rather than n.
        sample: bool,
    },
    /// `first_value(x)`: of the earliest event (total order) with a non-NULL input.
    First,
    /// `last_value(x)`: of the latest event (total order) with a non-NULL input.
    Last,
    /// `last_n(x, n)`: list of the latest n non-NULL inputs, latest first.
    LastN(u32),
    /// `top_n(x, n)`: list of the n greatest inputs, greatest first, repeats kept.
    TopN(u32),
    /// `approx_distinct(x)`: int64, HyperLogLog.
    ApproxDistinct,
    /// `approx_quantile(x, q)`: float64, from mergeable relative-error buckets.
    ApproxQuantile(f64),
    /// `bool_and(x)`
    BoolAnd,
    /// `bool_or(x)`
    BoolOr,
}

/// Which of a key's events an aggregate counts at `T`; never one with event_time > `T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// `floor_hop(T - preceding) <= event_time <= T`; exact when `hop_us` is 1.
    Range {
        /// Window length, microseconds.
        preceding_us: u64,
        /// Grid on which events leave, microseconds, aligned to 1970 UTC. At least 1.
        hop_us: u64,
    },
    /// The key's latest event and `preceding` events before it, in the total order.
    Rows {
        /// Number of events before the latest.
        preceding: u64,
    },
    /// All events so far.
    Lifetime,
}

/// What keeping an aggregate up to date costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CostClass {
    /// No aggregate: the latest event's column.
    #[default]
    Plain,
    /// A group: changes add and subtract.
    Accumulable,
    /// A semigroup: folded over tiles, never subtracted.
    Hierarchical,
    /// Re-evaluated from the events in the frame.
    Basic,
}

impl AggregateFunction {
    /// The cost class on append-only input.
    pub fn class(&self) -> CostClass {
        match self {
            Self::CountRows
            | Self::Count
            | Self::CountDistinct
            | Self::Sum
            | Self::Avg
            | Self::Variance { .. }
            | Self::Stddev { .. }
            | Self::ApproxQuantile(_)
            | Self::BoolAnd
            | Self::BoolOr => CostClass::Accumulable,
            Self::Min
            | Self::Max
            | Self::First
            | Self::Last
            | Self::TopN(_)
            | Self::ApproxDistinct => CostClass::Hierarchical,
            Self::LastN(_) => CostClass::Basic,
        }
    }
}

impl ViewPlan {
    /// Whether events of this view's source can be retracted or changed: a table topic, another
    /// view, or a join whose right side changes.
    pub fn is_retractable(&self) -> bool {
        !self.joins.is_empty()
            || match &self.source {
                Source::Topic(topic) => topic.kind == falaj_event::TopicKind::Table,
                Source::View(_) => true,
            }
    }
}
