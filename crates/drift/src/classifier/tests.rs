//! The domain classifier: silent without drift, loud with it, the same bits each time.

use super::*;

fn normal(random: &mut CounterRandom) -> f64 {
    (0..12).map(|_| random.uniform()).sum::<f64>() - 6.0
}

fn rows(seed: u64, count: usize, make: impl Fn(&mut CounterRandom) -> Vec<f64>) -> Vec<Vec<f64>> {
    let mut random = CounterRandom::new(seed, 77);
    (0..count).map(|_| make(&mut random)).collect()
}

fn plain(random: &mut CounterRandom) -> Vec<f64> {
    (0..4).map(|_| normal(random)).collect()
}

#[test]
fn it_is_silent_without_drift() {
    let mut alarms = 0;
    for seed in 0..60 {
        let (left, right) = (rows(seed, 120, plain), rows(seed + 1_000, 80, plain));
        let test = domain_test(&left, &right, 99, seed).unwrap();
        alarms += u32::from(test.p_value <= 0.05);
    }
    // Three expected; more than nine has a probability below 0.1 %.
    assert!(alarms <= 9, "{alarms} of 60 alarms without drift");
}

#[test]
fn it_sees_shifts_of_mean_spread_and_missingness() {
    let reference = rows(1, 400, plain);
    let shifted = |change: fn(&mut Vec<f64>, &mut CounterRandom)| {
        let current = rows(2, 400, |random| {
            let mut row = plain(random);
            change(&mut row, random);
            row
        });
        domain_test(&reference, &current, 199, 3).unwrap()
    };
    let mean = shifted(|row, _| row[2] += 1.0);
    assert!(mean.auc > 0.7 && mean.p_value == 0.005, "{mean:?}");
    let widest = (0..4).max_by(|a, b| mean.weights[*a].total_cmp(&mean.weights[*b]));
    assert_eq!(widest, Some(2));
    let spread = shifted(|row, _| row[1] *= 2.0);
    assert!(spread.auc > 0.6 && spread.p_value <= 0.01, "{spread:?}");
    let missing = shifted(|row, random| {
        if random.uniform() < 0.3 {
            row[0] = f64::NAN;
        }
    });
    assert!(missing.auc > 0.58 && missing.p_value <= 0.01, "{missing:?}");
    assert_eq!((mean.train_rows, mean.test_rows), (400, 400));
}

#[test]
fn it_is_the_same_each_time_and_by_seed() {
    let (left, right) = (rows(1, 60, plain), rows(2, 60, plain));
    let test = |seed| domain_test(&left, &right, 50, seed).unwrap();
    assert_eq!(test(4), test(4));
    assert_ne!(test(4).auc, test(5).auc);
}

#[test]
fn a_constant_column_that_moves_is_perfectly_told() {
    let constant = |value: f64| move |random: &mut CounterRandom| vec![value, normal(random)];
    let (left, right) = (rows(1, 100, constant(3.0)), rows(2, 100, constant(3.5)));
    let test = domain_test(&left, &right, 99, 1).unwrap();
    assert!(test.auc > 0.999, "{test:?}");
    let same = domain_test(&left, &rows(2, 100, constant(3.0)), 99, 1).unwrap();
    assert!(same.p_value > 0.01, "{same:?}");
}

#[test]
fn bad_input_is_refused() {
    let few = rows(1, 3, plain);
    let many = rows(1, 10, plain);
    assert!(matches!(domain_test(&few, &many, 9, 1), Err(DriftError::Empty(_))));
    let mut ragged = many.clone();
    ragged[4].pop();
    assert!(matches!(
        domain_test(&many, &ragged, 9, 1),
        Err(DriftError::DifferentLengths { left: 4, right: 3, .. })
    ));
}

#[test]
fn auc_counts_pairs() {
    let scores = [0.1, 0.4, 0.35, 0.8];
    assert_eq!(auc(&scores, &[false, false, true, true]), Some(0.75));
    assert_eq!(auc(&[0.5, 0.5], &[false, true]), Some(0.5));
    assert_eq!(auc(&[0.5], &[true]), None);
}

#[test]
fn the_fit_is_scikit_learns() {
    // LogisticRegression(C = 1.0, penalty = "l2", tol = 1e-12) on one standardised column.
    let rows: Vec<Vec<f64>> =
        [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5].iter().map(|x| vec![1.0, *x]).collect();
    let labels = [0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0];
    let found = fit(&rows, &labels);
    assert!((found[0] - FIT[0]).abs() < 1e-4, "{found:?}");
    assert!((found[1] - FIT[1]).abs() < 1e-4, "{found:?}");
}

const FIT: [f64; 2] = [0.355_851_972_989_224_2, 0.997_917_219_340_448_7];
