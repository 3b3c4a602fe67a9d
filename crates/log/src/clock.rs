//! `T` of the next epoch: a pure function of the `T` before, the wall clock (wall mode) or the event
//! times that came (event mode).
//!
//! # How far events move an event clock
//! One event with an absurd time (a sentinel such as 9999-12-31, nanoseconds taken for microseconds)
//! would move `T` for good, and every honest event after it would be late for ever. So an event moves
//! `T` only as far as its topic's **gap** allows: the longest silence that the topic declares possible.
//! Taken in the order of their times, each event must lie within its topic's gap of the event before
//! it, or of the `T` before; `T` is the last one so reached. Nights, weekends and years of sparse
//! history in one epoch therefore pass, and an event beyond a gap does not move `T`; whether it is
//! then too far ahead of `T` to be taken is the admission's decision.
//!
//! The first events of a log have nothing before them: while `T` is within the first day of 1970,
//! where only derived events have been, the run of events without a gap that holds most of the epoch's
//! events (of equal runs the latest) sets the clock, unless it lies at [`LATEST_FIRST_T`] or later.
//!
//! Does not know topics, rows or which events are derived.

use falaj_event::LogTime;

use crate::epoch::ClockMode;

/// The smallest `T`: 0 means "before every epoch".
const FIRST_T: u64 = 1;
/// Below this `T` no event has moved the clock yet: each epoch of derived events alone adds 1.
const UNSET_BELOW: u64 = 86_400_000_000;
/// Events from here on (2200-01-01 UTC) do not set the clock of a log that has none.
pub const LATEST_FIRST_T: i64 = 7_258_118_400_000_000;

/// `T` of the next epoch.
///
/// `reached` is how far the epoch's events move an event clock ([`Reach`]); the wall clock does not
/// matter in event mode, nor the events in wall mode.
pub fn choose_t(
    mode: ClockMode,
    previous: Option<LogTime>,
    wall_clock_us: u64,
    reached: Option<i64>,
) -> LogTime {
    let after = previous.map_or(FIRST_T, |t| t.0.saturating_add(1));
    let now = match mode {
        ClockMode::Wall => wall_clock_us,
        ClockMode::Event => reached.and_then(|time| u64::try_from(time).ok()).unwrap_or(0),
    };
    LogTime(after.max(now))
}

/// How far the events of one epoch move an event clock; see the module's documentation.
#[derive(Debug)]
pub struct Reach {
    previous: LogTime,
    /// Times after `previous` with the gap of their topic, microseconds.
    ahead: Vec<(u64, u64)>,
}

impl Reach {
    /// No events yet, after an epoch at `previous`.
    pub fn after(previous: Option<LogTime>) -> Self {
        Self { previous: previous.unwrap_or_default(), ahead: Vec::new() }
    }

    /// Adds events of one topic; `max_gap_us` is the topic's gap, `None` any.
    pub fn add(&mut self, event_times: &[i64], max_gap_us: Option<u64>) {
        let gap = max_gap_us.unwrap_or(u64::MAX);
        let times = event_times.iter().filter_map(|time| u64::try_from(*time).ok());
        self.ahead.extend(times.filter(|time| *time > self.previous.0).map(|time| (time, gap)));
    }

    /// The event time that was reached; `None` when no event lies after the `T` before.
    pub fn reached(mut self) -> Option<i64> {
        self.ahead.sort_unstable();
        if self.previous.0 < UNSET_BELOW {
            return self.largest_run();
        }
        let mut at = self.previous.0;
        for (time, gap) in &self.ahead {
            if time - at <= *gap {
                at = *time;
            }
        }
        (at > self.previous.0).then(|| LogTime(at).as_event_time())
    }

    /// The end of the run that holds most events; `ahead` is sorted.
    fn largest_run(&self) -> Option<i64> {
        let (mut run, mut last) = (0, 0);
        let (mut most, mut end) = (0, None);
        for (time, gap) in &self.ahead {
            let Some(event_time) = i64::try_from(*time).ok().filter(|at| *at < LATEST_FIRST_T)
            else {
                break;
            };
            run = if run > 0 && time - last > *gap { 1 } else { run + 1 };
            last = *time;
            if run >= most {
                (most, end) = (run, Some(event_time));
            }
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;
    /// 2026-01-01 UTC.
    const NEW_YEAR: i64 = 1_767_225_600_000_000;

    fn reached(previous: i64, events: &[(i64, i64)]) -> Option<i64> {
        let mut reach = Reach::after(u64::try_from(previous).ok().map(LogTime));
        for (time, gap) in events {
            reach.add(&[*time], u64::try_from(*gap).ok());
        }
        reach.reached()
    }

    #[test]
    fn t_follows_the_clock_and_never_stands_still() {
        let wall = |previous: Option<u64>, now| {
            choose_t(ClockMode::Wall, previous.map(LogTime), now, Some(1 << 50)).0
        };
        assert_eq!(
            [wall(None, 0), wall(None, 9), wall(Some(9), 9), wall(Some(9), 3)],
            [1, 9, 10, 10]
        );
        let event = |previous: Option<u64>, reached| {
            choose_t(ClockMode::Event, previous.map(LogTime), 1 << 50, reached).0
        };
        assert_eq!([event(None, None), event(None, Some(-5)), event(None, Some(8))], [1, 1, 8]);
        assert_eq!(
            [event(Some(8), Some(8)), event(Some(8), Some(20)), event(Some(8), None)],
            [9, 20, 9]
        );
        assert_eq!(choose_t(ClockMode::Wall, Some(LogTime(u64::MAX)), 0, None).0, u64::MAX);
    }

    #[test]
    fn a_step_beyond_the_gap_moves_nothing() {
        let last = NEW_YEAR;
        assert_eq!(reached(last, &[(last + 3 * DAY, 3 * DAY)]), Some(last + 3 * DAY));
        assert_eq!(reached(last, &[(last + 3 * DAY + 1, 3 * DAY)]), None);
        // An absurd event among honest ones, in any order.
        let absurd = (100 * NEW_YEAR, 3 * DAY);
        let honest = (last + DAY, 3 * DAY);
        assert_eq!(reached(last, &[absurd, honest]), Some(last + DAY));
        assert_eq!(reached(last, &[honest, absurd]), Some(last + DAY));
        assert_eq!(reached(last, &[(last - DAY, DAY), (last, DAY), (-5, DAY)]), None);
        assert_eq!(reached(last, &[(i64::MAX, -1)]), Some(i64::MAX), "no gap is declared");
    }

    #[test]
    fn sparse_history_is_crossed_step_by_step() {
        let last = NEW_YEAR;
        let years: Vec<_> = (1..=10).map(|year| (last + year * 365 * DAY, 400 * DAY)).collect();
        assert_eq!(reached(last, &years), Some(last + 3650 * DAY));
        // The topic with the longer silence carries the others along.
        let bridge = [(last + 10 * DAY, DAY), (last + 9 * DAY, 9 * DAY)];
        assert_eq!(reached(last, &bridge), Some(last + 10 * DAY));
    }

    #[test]
    fn the_first_events_set_the_clock() {
        assert_eq!(reached(-1, &[(NEW_YEAR, DAY)]), Some(NEW_YEAR));
        assert_eq!(reached(3, &[(NEW_YEAR, DAY)]), Some(NEW_YEAR), "after derived events alone");
        assert_eq!(reached(3, &[(5, DAY), (NEW_YEAR, DAY)]), Some(NEW_YEAR));
        let honest = (NEW_YEAR..NEW_YEAR + 3 * DAY).step_by(DAY as usize).map(|at| (at, DAY));
        let mut events: Vec<_> = honest.collect();
        events.extend([(40 * DAY, DAY), (2 * NEW_YEAR, DAY), (3 * NEW_YEAR, DAY)]);
        assert_eq!(reached(3, &events), Some(NEW_YEAR + 2 * DAY));
        assert_eq!(reached(-1, &[(LATEST_FIRST_T, DAY), (NEW_YEAR, DAY)]), Some(NEW_YEAR));
        assert_eq!(reached(-1, &[(LATEST_FIRST_T, -1)]), None, "nor without a gap");
        assert_eq!(reached(-1, &[(LATEST_FIRST_T - 1, DAY)]), Some(LATEST_FIRST_T - 1));
    }

    proptest::proptest! {
        #[test]
        fn order_and_grouping_do_not_matter(
            previous in 0u64..1 << 40,
            mut events in proptest::collection::vec((0i64..1 << 41, 0u64..1 << 38), 0..20),
        ) {
            let all = |events: &[(i64, u64)]| {
                let mut reach = Reach::after(Some(LogTime(previous)));
                events.iter().for_each(|(time, gap)| reach.add(&[*time], Some(*gap)));
                reach.reached()
            };
            let forward = all(&events);
            events.reverse();
            proptest::prop_assert_eq!(forward, all(&events));
            // What was reached stays reached when the epoch is followed by one with the rest.
            if let Some(reached) = forward {
                proptest::prop_assert!(reached > i64::try_from(previous).unwrap());
                proptest::prop_assert!(events.iter().any(|(time, _)| *time == reached));
            }
        }
    }
}
