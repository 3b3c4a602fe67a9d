//! Windows: PARTITION BY, ORDER BY and the frame of an OVER clause, named or inline.
//!
//! Does not know columns; callers say which expression is the event time.

use datafusion::sql::sqlparser::ast::{
    self, NamedWindowDefinition, NamedWindowExpr, OrderByExpr, Value, WindowFrame,
    WindowFrameBound, WindowFrameUnits, WindowSpec, WindowType,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::header::Hop;
use super::literals;
use super::refusal::{Checked, Refusal, Tokens, span_of, unknown, unsupported};
use super::statement::fold;
use crate::plan::Frame;

/// A window with its references followed.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub partition_by: Vec<ast::Expr>,
    pub order_by: Vec<OrderByExpr>,
    pub frame: Option<WindowFrame>,
    pub span: Span,
}

/// Follows an OVER clause.
pub(crate) fn resolve(
    over: &WindowType,
    named: &[NamedWindowDefinition],
    span: Span,
) -> Checked<Window> {
    match over {
        WindowType::NamedWindow(name) => named_window(&fold(name), name.span, named, 0),
        WindowType::WindowSpec(spec) => inline(spec, named, span, 0),
    }
}

fn named_window(
    name: &str,
    span: Span,
    named: &[NamedWindowDefinition],
    depth: usize,
) -> Checked<Window> {
    let found = named.iter().find(|definition| fold(&definition.0) == name);
    let Some(NamedWindowDefinition(ident, window)) = found.filter(|_| depth <= named.len()) else {
        return Err(unknown(span, format!("there is no window `{name}`"))
            .help("define it: WINDOW w AS (PARTITION BY …)"));
    };
    match window {
        NamedWindowExpr::NamedWindow(other) => {
            named_window(&fold(other), other.span, named, depth + 1)
        }
        NamedWindowExpr::WindowSpec(spec) => inline(spec, named, ident.span, depth + 1),
    }
}

fn inline(
    spec: &WindowSpec,
    named: &[NamedWindowDefinition],
    span: Span,
    depth: usize,
) -> Checked<Window> {
    let mut window = match &spec.window_name {
        Some(name) => named_window(&fold(name), name.span, named, depth)?,
        None => Window { partition_by: Vec::new(), order_by: Vec::new(), frame: None, span },
    };
    let based = spec.window_name.is_some();
    if based && !spec.partition_by.is_empty()
        || !window.order_by.is_empty() && !spec.order_by.is_empty()
        || based && window.frame.is_some()
    {
        return Err(unsupported(span, "a window may only add to the one it names")
            .help("write the whole window out"));
    }
    if !spec.partition_by.is_empty() {
        window.partition_by.clone_from(&spec.partition_by);
    }
    if !spec.order_by.is_empty() {
        window.order_by.clone_from(&spec.order_by);
    }
    if spec.window_frame.is_some() {
        window.frame.clone_from(&spec.window_frame);
    }
    Ok(window)
}

/// The events that a window counts.
pub(crate) fn frame(window: &Window, hop: Hop, tokens: &Tokens) -> Checked<Frame> {
    let span = window.span;
    let Some(frame) = &window.frame else { return Ok(Frame::Lifetime) };
    if window.order_by.is_empty() {
        return Err(unsupported(span, "a frame needs an order").help("add ORDER BY event_time"));
    }
    let place = |word: &str| tokens.find(word, span.start).unwrap_or(span);
    match &frame.end_bound {
        None | Some(WindowFrameBound::CurrentRow) => {}
        Some(WindowFrameBound::Following(_)) => {
            return Err(unsupported(place("following"), "a feature cannot see the future")
                .help("end the frame at CURRENT ROW; for all events of the key leave ORDER BY and the frame out"));
        }
        Some(WindowFrameBound::Preceding(_)) => {
            return Err(unsupported(place("preceding"), "a frame ends at the current row")
                .help("write … AND CURRENT ROW"));
        }
    }
    let start = match &frame.start_bound {
        WindowFrameBound::Preceding(None) => {
            return match frame.units {
                WindowFrameUnits::Groups => Err(groups(place("groups"))),
                _ => Ok(Frame::Lifetime),
            };
        }
        WindowFrameBound::Preceding(Some(start)) => start,
        WindowFrameBound::CurrentRow => {
            return match frame.units {
                WindowFrameUnits::Rows => Ok(Frame::Rows { preceding: 0 }),
                _ => Err(unsupported(place("current"), "this frame holds no time")
                    .help("write RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW")),
            };
        }
        WindowFrameBound::Following(_) => {
            return Err(unsupported(place("following"), "a feature cannot see the future")
                .help("begin the frame with PRECEDING"));
        }
    };
    match frame.units {
        WindowFrameUnits::Groups => Err(groups(place("groups"))),
        WindowFrameUnits::Rows => rows(start, span),
        WindowFrameUnits::Range => range(start, hop, span),
    }
}

fn groups(span: Span) -> Refusal {
    unsupported(span, "GROUPS frames are not supported")
        .help("write RANGE for a length of time or ROWS for a number of events")
}

fn rows(start: &ast::Expr, span: Span) -> Checked<Frame> {
    let preceding = match start {
        ast::Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.to_string().parse().ok(),
            _ => None,
        },
        _ => None,
    };
    preceding.map(|preceding| Frame::Rows { preceding }).ok_or_else(|| {
        unsupported(span_of(start, span), "a ROWS frame begins a constant number of rows back")
            .help("e.g. ROWS BETWEEN 9 PRECEDING AND CURRENT ROW")
    })
}

fn range(start: &ast::Expr, hop: Hop, span: Span) -> Checked<Frame> {
    let here = span_of(start, span);
    let ast::Expr::Interval(interval) = start else {
        return Err(unsupported(here, "a RANGE frame begins a constant interval back")
            .help("e.g. RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW"));
    };
    let parts = literals::interval(interval, here)?;
    if parts.months != 0 {
        return Err(Refusal::new("interval", here, "months and years have no fixed length")
            .help("write days: INTERVAL '30 days'"));
    }
    match u64::try_from(parts.micros_with_days()) {
        Ok(preceding_us) if preceding_us > 0 => {
            Ok(Frame::Range { preceding_us, hop_us: hop.of(preceding_us) })
        }
        _ => Err(Refusal::new("interval", here, "a window has a positive length")
            .help("e.g. INTERVAL '5 minutes'")),
    }
}
