//! The detectors against river 0.26.1, on streams of a linear congruential generator.

use super::*;

/// `x ← 1103515245 x + 12345 mod 2^31`, as numbers in [0, 1).
struct Congruential(u64);

impl Congruential {
    fn draw(&mut self) -> f64 {
        self.0 = (1_103_515_245 * self.0 + 12_345) % (1 << 31);
        self.0 as f64 / (1_u64 << 31) as f64
    }
}

fn errors(seed: u64, change: usize, before: f64, after: f64) -> Vec<f64> {
    let mut random = Congruential(seed);
    let rate = |index| if index < change { before } else { after };
    (0..4000).map(|index| f64::from(u8::from(random.draw() < rate(index)))).collect()
}

fn steps() -> Vec<f64> {
    let mut random = Congruential(7);
    let levels = [0.0, 0.6, -0.3, 0.2];
    (0..4000).map(|index| random.draw() + levels[index / 1000]).collect()
}

fn signals(mut detector: Detector, stream: &[f64]) -> (Vec<usize>, Vec<usize>, Detector) {
    let (mut drifts, mut warnings) = (Vec::new(), Vec::new());
    for (index, value) in stream.iter().enumerate() {
        match detector.update(*value) {
            Signal::Drift => drifts.push(index),
            Signal::Warning => warnings.push(index),
            Signal::Stable => {}
        }
    }
    (drifts, warnings, detector)
}

fn drifts(detector: Detector, stream: &[f64]) -> Vec<usize> {
    signals(detector, stream).0
}

fn named(name: &str) -> Detector {
    Detector::by_name(name, 1).unwrap()
}

#[test]
fn adwin_cuts_where_river_does() {
    let (found, _, last) = signals(named("adwin"), &errors(12_345, 2000, 0.2, 0.5));
    assert_eq!(found, [2111]);
    let Detector::Adwin(window) = last else { unreachable!() };
    assert_eq!((window.width(), window.total()), (1888, 938.0));
    let variance = window.variance() * window.width() as f64;
    assert!((variance - 471.980_932_203_390_07).abs() < 1e-9, "{variance}");

    let (found, _, last) = signals(named("adwin"), &steps());
    assert_eq!(found, [1023, 2015, 3039]);
    let Detector::Adwin(window) = last else { unreachable!() };
    assert!((window.total() - 659.851_677_671_078_6).abs() < 1e-9);
    let variance = window.variance() * window.width() as f64;
    assert!((variance - 76.803_289_014_286_69).abs() < 1e-9, "{variance}");

    let eager = AdwinParameters {
        delta: 0.01,
        clock: 1,
        max_buckets: 3,
        min_window_length: 8,
        grace_period: 40,
    };
    assert_eq!(drifts(Detector::Adwin(Adwin::new(eager)), &steps()), [1017, 2014, 3029]);
}

#[test]
fn ddm_signals_where_river_does() {
    let (found, warnings, _) = signals(named("ddm"), &errors(12_345, 2000, 0.2, 0.5));
    assert_eq!(found, [87, 2109]);
    assert_eq!((warnings.len(), &warnings[..5]), (100, &[60, 61, 62, 63, 64][..]));
    let eager = DdmParameters { warm_start: 50, warning_threshold: 1.5, drift_threshold: 2.5 };
    let stream = errors(99, 1500, 0.1, 0.3);
    let (found, warnings, _) = signals(Detector::Ddm(Ddm::new(eager)), &stream);
    assert_eq!(found, [112, 913, 1028, 1518]);
    assert_eq!((warnings.len(), &warnings[..5]), (914, &[79, 80, 92, 93, 94][..]));
}

#[test]
fn eddm_signals_where_river_does() {
    let (found, warnings, _) = signals(named("eddm"), &errors(12_345, 2000, 0.2, 0.5));
    let expected = [152, 280, 448, 892, 1036, 1176, 1368, 1536, 1685, 1823, 1990, 2066, 2123];
    assert_eq!(found, expected);
    assert_eq!((warnings.len(), &warnings[..5]), (513, &[599, 600, 601, 602, 603][..]));
    let calm = EddmParameters { warm_start: 30, alpha: 0.8, beta: 0.75 };
    let stream = errors(99, 1500, 0.1, 0.3);
    let (found, warnings, _) = signals(Detector::Eddm(Eddm::new(calm)), &stream);
    assert_eq!(found, [310, 825, 1603]);
    assert_eq!((warnings.len(), &warnings[..5]), (110, &[762, 763, 764, 765, 766][..]));
}

#[test]
fn page_hinkley_alarms_where_river_does() {
    assert_eq!(drifts(named("page_hinkley"), &errors(12_345, 2000, 0.2, 0.5)), [2134]);
    let tight = PageHinkleyParameters {
        threshold: 20.0,
        delta: 0.01,
        min_instances: 50,
        ..PageHinkleyParameters::default()
    };
    let of = |parameters| Detector::PageHinkley(PageHinkley::new(parameters));
    assert_eq!(drifts(of(tight), &steps()), [1026, 2019, 3033]);
    let one_way = |mode| {
        let base = PageHinkleyParameters::default();
        of(PageHinkleyParameters { threshold: 20.0, mode, ..base })
    };
    assert_eq!(drifts(one_way(PageHinkleyMode::Up), &steps()), [1022, 3238]);
    assert_eq!(drifts(one_way(PageHinkleyMode::Down), &steps()), [2029]);
}

/// With a window of twice the tested size the draw is all of the older half, so that river's
/// generator and ours come to the same.
#[test]
fn kswin_alarms_where_river_does() {
    let of = |alpha, stat_size| {
        let parameters = KswinParameters { alpha, window_size: 2 * stat_size, stat_size };
        Detector::Kswin(Kswin::new(parameters, 1))
    };
    let expected = [698, 1012, 2012, 2160, 2376, 3023, 3560];
    assert_eq!(drifts(of(0.005, 30), &steps()), expected);
    assert_eq!(drifts(of(0.0005, 40), &steps()), [1018, 2017, 3033]);
}

#[test]
fn a_draw_is_a_function_of_the_seed() {
    let of = |seed| drifts(Detector::by_name("kswin", seed).unwrap(), &steps());
    assert_eq!(of(1), of(1));
    assert!(of(1).iter().any(|index| (1000..1100).contains(index)), "{:?}", of(1));
}

#[test]
fn a_detector_goes_on_where_it_was_stored() {
    let (bits, levels) = (errors(12_345, 2000, 0.2, 0.5), steps());
    for name in ["adwin", "ddm", "eddm", "page_hinkley", "kswin"] {
        let stream = if name.ends_with("ddm") { &bits } else { &levels };
        let whole = signals(named(name), stream);
        for cut in [1, 777, 2050] {
            let (mut early, _, stored) = signals(named(name), &stream[..cut]);
            let text = serde_json::to_string(&stored).unwrap();
            let restored: Detector = serde_json::from_str(&text).unwrap();
            assert_eq!(restored, stored, "{name}");
            let (late, _, last) = signals(restored, &stream[cut..]);
            early.extend(late.iter().map(|index| index + cut));
            assert_eq!((early, &last), (whole.0.clone(), &whole.2), "{name}");
        }
    }
}

/// The Electricity data set: two columns are constant until row 17,424, and river's ADWIN sees it.
#[test]
fn adwin_dates_the_change_of_the_electricity_market() {
    let above = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let found = above.map(|folder| folder.join("shared/data/electricity/electricity.csv"));
    let Some(path) = found.into_iter().find(|path| path.exists()) else {
        println!("skipped: shared/data/electricity is not there");
        return;
    };
    let text = std::fs::read_to_string(path).unwrap();
    let alarms = |column: usize| {
        let cells = text.lines().skip(1).filter_map(|line| line.split(',').nth(column));
        drifts(named("adwin"), &cells.map(|cell| cell.parse().unwrap()).collect::<Vec<f64>>())
    };
    let price = [767, 1439, 3935, 8479, 14_879, 19_551, 27_359, 35_615, 37_247, 43_263];
    assert_eq!(alarms(1), price);
    let (demand, transfer) = (alarms(4), alarms(5));
    assert_eq!((demand.len(), &demand[..3]), (68, &[17_471, 17_823, 18_143][..]));
    assert_eq!((transfer.len(), &transfer[..3]), (68, &[17_503, 18_815, 19_711][..]));
    assert_eq!(alarms(3), [45_247]);
}

#[test]
fn values_that_are_not_finite_are_passed_over() {
    for name in ["adwin", "ddm", "eddm", "page_hinkley", "kswin"] {
        let mut detector = named(name);
        let before = detector.clone();
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(detector.update(value), Signal::Stable);
        }
        assert_eq!(detector, before, "{name}");
    }
    assert_eq!(Detector::by_name("none", 0), None);
}
