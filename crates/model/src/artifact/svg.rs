//! Line and bar charts as SVG text, the same bytes for the same numbers.
//!
//! Does not know what is drawn.

use std::fmt::Write;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 130.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 45.0;
const TICKS: usize = 5;
const COLOURS: [&str; 5] = ["#1f77b4", "#d62728", "#7f7f7f", "#2ca02c", "#9467bd"];

/// A line of a chart.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Its points; those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// Whether it is dashed.
    pub dashed: bool,
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// Below the horizontal axis.
    pub x_name: String,
    /// Beside the vertical axis.
    pub y_name: String,
    /// The lines.
    pub lines: Vec<Line>,
}

/// Text that may stand in SVG.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn tick_text(value: f64) -> String {
    let text = match value.abs() {
        size if size >= 1000.0 || (size > 0.0 && size < 0.001) => format!("{value:.2e}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    };
    let trimmed = if text.contains('.') && !text.contains('e') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    trimmed.to_owned()
}

struct Frame {
    x: (f64, f64),
    y: (f64, f64),
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.filter(|value| value.is_finite()) {
        (low, high) = (low.min(value), high.max(value));
    }
    match low.partial_cmp(&high) {
        Some(std::cmp::Ordering::Less) => (low, high),
        Some(std::cmp::Ordering::Equal) => (low - 0.5, high + 0.5),
        _ => (0.0, 1.0),
    }
}

impl Frame {
    fn at(&self, point: (f64, f64)) -> (f64, f64) {
        let share = |value: f64, (low, high): (f64, f64)| (value - low) / (high - low);
        let x = LEFT + share(point.0, self.x) * (WIDTH - LEFT - RIGHT);
        let y = HEIGHT - BOTTOM - share(point.1, self.y) * (HEIGHT - TOP - BOTTOM);
        (x, y)
    }

    fn axes(&self, out: &mut String) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"#333\"/>"
        );
        for tick in 0..=TICKS {
            let share = tick as f64 / TICKS as f64;
            let value = |(low, high): (f64, f64)| low + (high - low) * share;
            let (x, y) = self.at((value(self.x), value(self.y)));
            let (below, beside) = (bottom + 16.0, LEFT - 6.0);
            let (across, up) = (tick_text(value(self.x)), tick_text(value(self.y)));
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{across}</text>\n\
                 <text x=\"{beside:.1}\" y=\"{:.1}\" text-anchor=\"end\">{up}</text>\n\
                 <path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\" stroke-width=\"0.5\"/>",
                y + 4.0
            );
        }
    }
}

fn head(title: &str, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"{:.1}\" y=\"18\" font-size=\"13\" text-anchor=\"middle\">{}</text>\n",
        LEFT + (WIDTH - LEFT - RIGHT) / 2.0,
        escaped(title)
    )
}

impl Chart {
    /// The chart as SVG.
    pub fn to_svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let frame =
            Frame { x: bounds(points().map(|point| point.0)), y: bounds(points().map(|p| p.1)) };
        let mut out = head(&self.title, HEIGHT);
        frame.axes(&mut out);
        let middle = (LEFT + (WIDTH - LEFT - RIGHT) / 2.0, TOP + (HEIGHT - TOP - BOTTOM) / 2.0);
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n\
             <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            middle.0,
            HEIGHT - 10.0,
            escaped(&self.x_name),
            middle.1,
            escaped(&self.y_name)
        );
        for (number, line) in self.lines.iter().enumerate() {
            self.line(&frame, number, line, &mut out);
        }
        out.push_str("</svg>\n");
        out
    }

    fn line(&self, frame: &Frame, number: usize, line: &Line, out: &mut String) {
        let colour = COLOURS[number % COLOURS.len()];
        let dash = if line.dashed { " stroke-dasharray=\"4 3\"" } else { "" };
        let finite = line.points.iter().filter(|point| point.0.is_finite() && point.1.is_finite());
        let mut path = String::new();
        for (at, point) in finite.enumerate() {
            let (x, y) = frame.at(*point);
            let _ = write!(path, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
        }
        let (x, y) = (WIDTH - RIGHT + 10.0, TOP + 14.0 * number as f64 + 6.0);
        let _ = writeln!(
            out,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"{dash}/>\n\
             <path d=\"M{x:.1} {y:.1}h16\" stroke=\"{colour}\" stroke-width=\"1.5\"{dash}/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x + 20.0,
            y + 4.0,
            escaped(&line.name)
        );
    }
}

/// Horizontal bars from 0, one per row: a name, a value, and the text beside it.
pub fn bars(title: &str, rows: &[(String, f64, String)]) -> String {
    const STEP: f64 = 18.0;
    const NAMES: f64 = 170.0;
    let height = 40.0 + STEP * rows.len() as f64;
    let greatest = rows.iter().map(|row| row.1).filter(|v| v.is_finite()).fold(0.0, f64::max);
    let mut out = head(title, height);
    for (number, (name, value, text)) in rows.iter().enumerate() {
        let y = 30.0 + STEP * number as f64;
        let share = if greatest > 0.0 { (value / greatest).clamp(0.0, 1.0) } else { 0.0 };
        let length = share * (WIDTH - NAMES - 110.0);
        let short: String = name.chars().take(28).collect();
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{NAMES}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"12\" fill=\"{}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            NAMES - 6.0,
            y + 10.0,
            escaped(&short),
            COLOURS[0],
            NAMES + length + 5.0,
            y + 10.0,
            escaped(text)
        );
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_drawing() {
        let rows = [("<script>\"&".to_owned(), 0.5, "0.5".to_owned())];
        let drawn = bars("t", &rows);
        assert!(drawn.contains("&lt;script&gt;&quot;&amp;") && !drawn.contains("<script>"));
    }

    #[test]
    fn charts_without_points_and_with_one_value_are_drawn() {
        for points in [vec![], vec![(1.0, 2.0)], vec![(0.0, f64::NAN), (1.0, 1.0)]] {
            let line = Line { name: "a".to_owned(), points, dashed: false };
            let (x_name, y_name) = ("x".to_owned(), "y".to_owned());
            let chart = Chart { title: "t".to_owned(), x_name, y_name, lines: vec![line] };
            let drawn = chart.to_svg();
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        }
    }
}
