//! From a view's keyed part to hop grids, windows and slots.
//!
//! Does not know keys or events.

use falaj_definitions::plan::{AggregateCall, Frame, Shape as ViewShape, ViewPlan};

use crate::aggregate::{Lane, Layout, Output, Selector};
use crate::group::ring::Shape;

/// What a group operator computes.
#[derive(Clone, Debug, Default)]
pub struct GroupPlan {
    /// Columns of the prepared row taken from the key's latest event.
    pub bare: Vec<usize>,
    /// The aggregates, in output order; `input` and `filter` are columns of the prepared row.
    pub aggregates: Vec<AggregateCall>,
    /// Whether events can be retracted.
    pub retractable: bool,
    /// After this long past its event time a retractable event is forgotten, microseconds.
    pub horizon_us: Option<u64>,
    /// Whether rows may say what time will make of them ([`falaj_event::foretold`]) instead of being
    /// put out again when something leaves a window.
    pub foretells: bool,
}

impl GroupPlan {
    /// The keyed part of a view; nothing for a view that computes rows one by one.
    pub fn of(plan: &ViewPlan) -> Self {
        let ViewShape::Keyed { bare, aggregates } = &plan.shape else { return Self::default() };
        Self {
            bare: bare.clone(),
            aggregates: aggregates.clone(),
            retractable: plan.is_retractable(),
            horizon_us: plan.horizon_us,
            // A row that time alone takes away cannot be foretold.
            foretells: plan.having.is_none(),
        }
    }

    /// The columns of the prepared row that the operator reads, ascending: the cells of an event.
    pub fn cell_columns(plan: &ViewPlan) -> Vec<usize> {
        Self::of(plan).cells()
    }

    /// As [`Self::cell_columns`].
    pub(crate) fn cells(&self) -> Vec<usize> {
        let inputs =
            self.aggregates.iter().flat_map(|call| call.input.into_iter().chain(call.filter));
        let mut wanted: Vec<usize> = inputs.chain(self.bare.iter().copied()).collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }
}

/// One window length on a grid.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    preceding: u64,
    /// Tiles up to this one have left at the time reached; `i64::MIN` (no event is as early) for
    /// none.
    pub(crate) limit: i64,
    /// Where its running totals begin in a key's words and objects.
    pub(crate) words_at: usize,
    pub(crate) objects_at: usize,
    /// The calls that it answers.
    pub(crate) calls: Vec<usize>,
}

/// All windows that share a hop, the longest first. The lifetime frame is a grid of one endless tile
/// and no windows.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    /// Microseconds; `None` for the lifetime frame.
    pub(crate) hop: Option<u64>,
    pub(crate) windows: Vec<Window>,
    pub(crate) layout: Layout,
    /// A key's tiles are few and small enough to be stored in one entry.
    pub(crate) packed: bool,
}

/// A grid with more tiles per key than this has an entry for each of them.
const MOST_PACKED: u64 = 128;

impl Grid {
    fn new(hop: Option<u64>, windows: Vec<Window>, layout: Layout) -> Self {
        let longest = windows.first().map_or(0, |window| window.preceding);
        let packed = layout.objects() == 0 && longest / hop.unwrap_or(1) <= MOST_PACKED;
        Self { hop, windows, layout, packed }
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape { words: self.layout.empty().len(), objects: self.layout.objects() }
    }

    /// The tile that an event belongs to.
    #[inline]
    pub(crate) fn tile_of(&self, event_time: i64) -> i64 {
        match self.hop {
            None => 0,
            Some(1) => event_time,
            Some(hop) => i64::try_from(hop).map_or_else(
                |_| if event_time < 0 { -1 } else { 0 },
                |hop| event_time.div_euclid(hop),
            ),
        }
    }

    /// The first event time of a tile, and the first one after it (`None` when there is none).
    pub(crate) fn span(&self, tile: i64) -> (i64, Option<i64>) {
        let Some(hop) = self.hop else { return (i64::MIN, None) };
        let start = i128::from(tile) * i128::from(hop);
        let start = i64::try_from(start).unwrap_or(i64::MIN);
        (start, i64::try_from((i128::from(tile) + 1) * i128::from(hop)).ok())
    }

    /// When a tile leaves a window: `(tile + 1) · hop + preceding`; `i64::MAX` for never.
    pub(crate) fn leave(&self, tile: i64, window: &Window) -> i64 {
        let hop = self.hop.unwrap_or(1);
        let small = || {
            let end = tile.checked_add(1)?.checked_mul(i64::try_from(hop).ok()?)?;
            end.checked_add_unsigned(window.preceding)
        };
        if let Some(leave) = small() {
            return leave;
        }
        let leave = (i128::from(tile) + 1) * i128::from(hop) + i128::from(window.preceding);
        i64::try_from(leave).unwrap_or(if leave < 0 { i64::MIN } else { i64::MAX })
    }

    /// The last tile that has left every window.
    pub(crate) fn gone(&self) -> i64 {
        self.windows.first().map_or(i64::MIN, |longest| longest.limit)
    }

    /// The last tile that has left a window at `time`: those before `floor_hop(time − preceding)`.
    pub(crate) fn limit_at(&self, time: i64, window: &Window) -> i64 {
        let hop = self.hop.unwrap_or(1);
        let small = || {
            let edge = time.checked_sub_unsigned(window.preceding)?;
            edge.div_euclid(i64::try_from(hop).ok()?).checked_sub(1)
        };
        if let Some(limit) = small() {
            return limit;
        }
        let edge = i128::from(time) - i128::from(window.preceding);
        i64::try_from(edge.div_euclid(i128::from(hop)) - 1).unwrap_or(i64::MIN)
    }

    /// Moves the windows to time `now`.
    pub(crate) fn step(&mut self, now: i64) {
        for index in 0..self.windows.len() {
            let limit = self.limit_at(now, &self.windows[index]);
            self.windows[index].limit = limit.max(self.windows[index].limit);
        }
    }
}

/// Where a call's slots are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Window { grid: usize, window: usize },
    Lifetime { grid: usize },
    Rows { frame: usize },
}

/// A ROWS frame: the latest `events` events.
#[derive(Clone, Debug)]
pub(crate) struct RowsFrame {
    pub(crate) events: u64,
    pub(crate) layout: Layout,
}

/// The plan, compiled.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    /// Finds the cells of an event.
    pub(crate) selector: Selector,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) grids: Vec<Grid>,
    pub(crate) rows: Vec<RowsFrame>,
    pub(crate) calls: Vec<(Place, Output)>,
    /// Which cells.
    pub(crate) bare: Vec<usize>,
    /// How many latest events an append-only key keeps.
    pub(crate) keep: u64,
    /// Words and objects of a key's running totals.
    pub(crate) totals: Shape,
    pub(crate) empty_totals: Vec<u64>,
    /// Rows say what time will make of them.
    pub(crate) foretells: bool,
}

/// The number of each call's lane, and the lanes.
fn lanes_of(plan: &GroupPlan, wanted: &[usize]) -> (Vec<usize>, Vec<Lane>) {
    let place = |column: usize| wanted.iter().position(|have| *have == column);
    let mut lanes: Vec<Lane> = Vec::new();
    let of_call = plan.aggregates.iter().map(|call| {
        let lane =
            Lane::new(call.input.and_then(place), call.filter.and_then(place), &call.input_type);
        lanes.iter().position(|have| *have == lane).unwrap_or_else(|| {
            lanes.push(lane);
            lanes.len() - 1
        })
    });
    (of_call.collect(), lanes)
}

impl Compiled {
    pub(crate) fn new(plan: &GroupPlan) -> Self {
        let wanted = plan.cells();
        let (lane_of, lanes) = lanes_of(plan, &wanted);
        let place = |column: &usize| wanted.iter().position(|have| have == column);
        let mut compiled = Self {
            bare: plan.bare.iter().filter_map(place).collect(),
            selector: Selector::new(wanted.len()),
            lanes,
            grids: Vec::new(),
            rows: Vec::new(),
            calls: Vec::new(),
            keep: u64::from(!plan.bare.is_empty()),
            totals: Shape { words: 0, objects: 0 },
            empty_totals: Vec::new(),
            foretells: false,
        };
        let mut placed: Vec<Option<(Place, Output)>> = vec![None; plan.aggregates.len()];
        compiled.add_grids(plan, &lane_of, &mut placed);
        compiled.add_rows(plan, &lane_of, &mut placed);
        compiled.calls = placed.into_iter().flatten().collect();
        for (index, (place, _)) in compiled.calls.iter().enumerate() {
            if let Place::Window { grid, window } = place {
                compiled.grids[*grid].windows[*window].calls.push(index);
            }
        }
        let mut windowed = compiled.grids.iter().filter(|grid| !grid.windows.is_empty()).peekable();
        compiled.foretells = plan.foretells
            && !plan.retractable
            && windowed.peek().is_some()
            && windowed.all(|grid| grid.layout.is_small());
        compiled
    }

    fn add_grids(
        &mut self,
        plan: &GroupPlan,
        lane_of: &[usize],
        placed: &mut [Option<(Place, Output)>],
    ) {
        let hop_of = |frame: Frame| match frame {
            Frame::Range { hop_us, .. } => Some(Some(hop_us.max(1))),
            Frame::Lifetime => Some(None),
            Frame::Rows { .. } => None,
        };
        let mut hops: Vec<Option<u64>> =
            plan.aggregates.iter().filter_map(|call| hop_of(call.frame)).collect();
        hops.sort_unstable();
        hops.dedup();
        for hop in hops {
            let members: Vec<usize> = (0..plan.aggregates.len())
                .filter(|index| hop_of(plan.aggregates[*index].frame) == Some(hop))
                .collect();
            let calls: Vec<_> =
                members.iter().map(|index| (&plan.aggregates[*index], lane_of[*index])).collect();
            let (layout, outputs) = Layout::compile(&calls, &self.lanes);
            let windows = self.add_windows(plan, &members, &layout);
            let grid = self.grids.len();
            for (index, output) in members.into_iter().zip(outputs) {
                let place = match plan.aggregates[index].frame {
                    Frame::Range { preceding_us, .. } => Place::Window {
                        grid,
                        window: windows
                            .iter()
                            .position(|window| window.preceding == preceding_us)
                            .unwrap_or(0),
                    },
                    _ => Place::Lifetime { grid },
                };
                placed[index] = Some((place, output));
            }
            self.grids.push(Grid::new(hop, windows, layout));
        }
    }

    fn add_windows(&mut self, plan: &GroupPlan, members: &[usize], layout: &Layout) -> Vec<Window> {
        let mut lengths: Vec<u64> = members
            .iter()
            .filter_map(|index| match plan.aggregates[*index].frame {
                Frame::Range { preceding_us, .. } => Some(preceding_us),
                _ => None,
            })
            .collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        let windows = lengths.into_iter().map(|preceding| {
            let window = Window {
                preceding,
                limit: i64::MIN,
                words_at: self.totals.words,
                objects_at: self.totals.objects,
                calls: Vec::new(),
            };
            self.empty_totals.extend_from_slice(layout.empty());
            self.totals.words += layout.empty().len();
            self.totals.objects += layout.objects();
            window
        });
        windows.collect()
    }

    fn add_rows(
        &mut self,
        plan: &GroupPlan,
        lane_of: &[usize],
        placed: &mut [Option<(Place, Output)>],
    ) {
        let rows_of = |frame: Frame| match frame {
            Frame::Rows { preceding } => Some(preceding.saturating_add(1)),
            _ => None,
        };
        let mut lengths: Vec<u64> =
            plan.aggregates.iter().filter_map(|call| rows_of(call.frame)).collect();
        lengths.sort_unstable();
        lengths.dedup();
        for events in lengths {
            let members: Vec<usize> = (0..plan.aggregates.len())
                .filter(|index| rows_of(plan.aggregates[*index].frame) == Some(events))
                .collect();
            let calls: Vec<_> =
                members.iter().map(|index| (&plan.aggregates[*index], lane_of[*index])).collect();
            let (layout, outputs) = Layout::compile(&calls, &self.lanes);
            for (index, output) in members.into_iter().zip(outputs) {
                placed[index] = Some((Place::Rows { frame: self.rows.len() }, output));
            }
            self.keep = self.keep.max(events);
            self.rows.push(RowsFrame { events, layout });
        }
    }
}
