//! The scorer's arithmetic against plain loops, and what it refuses.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::network::{Network, Step};
use crate::preprocess::{Column, Encoding};
use crate::random::{Purpose, Stream};
use crate::spec::Trainer;
use crate::table::{InputType, Rows};
use crate::train::tests::{job, payments};
use crate::train::train;

fn number(name: &str, nullable: bool) -> Column {
    let encoding =
        Encoding::Number { mean: 1.0, deviation: 2.0, indicator: nullable, bins: vec![] };
    Column { name: name.to_owned(), input: InputType::Float64, nullable, encoding }
}

/// A model with random parameters over `inputs` numbers.
fn random(trainer: &Trainer, inputs: usize, seed: u64) -> Model {
    let columns = (0..inputs).map(|at| number(&format!("x{at}"), false)).collect();
    let preprocessing = Preprocessing { columns };
    let network = Network::plan(trainer, &preprocessing, 1).expect("a network");
    let stream = Stream::new(seed, Purpose::Parameters, 0);
    let parameters =
        (0..network.parameter_count()).map(|at| stream.uniform(at as u64) - 0.5).collect();
    Model {
        task: Task::Binary,
        preprocessing,
        target: Target::Classes {
            input: InputType::Boolean,
            classes: vec!["false".to_owned(), "true".to_owned()],
        },
        body: Body::Network { network, parameters },
        calibration: CalibrationMap::None,
    }
}

/// The network in plain float32 loops, in the documented order of additions.
fn plain(network: &Network, parameters: &[f32], inputs: &[f32]) -> Vec<f32> {
    let values = |index: usize| &parameters[network.parameters[index].range()];
    let (mut x, mut saved) = (inputs.to_vec(), Vec::new());
    for step in &network.steps {
        match step {
            Step::Dense { weight, bias } => {
                let (rows, columns) = network.parameters[*weight].shape;
                let mut out = values(*bias).to_vec();
                for (column, sum) in out.iter_mut().enumerate() {
                    for (row, value) in x.iter().enumerate().take(rows) {
                        *sum += value * values(*weight)[row * columns + column];
                    }
                }
                x = out;
            }
            Step::Relu => x.iter_mut().filter(|value| **value < 0.0).for_each(|value| *value = 0.0),
            Step::Dropout { .. } => {}
            Step::LayerNorm { gain, shift } => {
                let count = x.len() as f32;
                let mean = x.iter().sum::<f32>() / count;
                let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / count;
                let root = (variance + crate::network::NORM_EPSILON).sqrt();
                for (at, value) in x.iter_mut().enumerate() {
                    *value = (*value - mean) / root * values(*gain)[at] + values(*shift)[at];
                }
            }
            Step::Save => saved.push(x.clone()),
            Step::AddSaved => {
                let before = saved.pop().expect("saved");
                x.iter_mut().zip(before).for_each(|(value, before)| *value += before);
            }
        }
    }
    x
}

fn networks() -> Vec<Model> {
    let mut models = Vec::new();
    for (seed, hidden) in [vec![64, 32], vec![1], vec![7, 40, 33], vec![]].into_iter().enumerate() {
        models.push(random(&Trainer::Mlp { hidden, dropout: 0.0 }, 10, seed as u64));
    }
    models.push(random(&Trainer::resnet(), 10, 9));
    models
}

#[test]
fn scores_are_the_bits_of_plain_loops_alone_and_among_others() {
    for model in networks() {
        let Body::Network { network, parameters } = &model.body else { panic!("a network") };
        let scorer = Scorer::new(&model).expect("a scorer");
        let mut scratch = scorer.scratch();
        let stream = Stream::new(5, Purpose::Shuffle, 0);
        let value = |at: usize| f64::from(stream.uniform(at as u64)) * 8.0 - 3.0;
        let rows = 23;
        let inputs: Vec<Input<'_>> = (0..rows * 10).map(|at| Input::Number(value(at))).collect();
        let mut expected = Vec::new();
        for row in inputs.chunks_exact(10) {
            let mut encoded = vec![0.0; network.numeric_width];
            let numbers: Vec<f64> = row
                .iter()
                .map(|input| if let Input::Number(number) = input { *number } else { 0.0 })
                .collect();
            model.preprocessing.encode(&numbers, &mut encoded);
            expected.push(sigmoid(f64::from(plain(network, parameters, &encoded)[0])).to_bits());
        }
        let mut alone = vec![0.0; 1];
        for (row, expected) in inputs.chunks_exact(10).zip(&expected) {
            scorer.score_into(row, &mut scratch, &mut alone).expect("a score");
            assert_eq!(alone[0].to_bits(), *expected);
        }
        for batch in [1, 2, 3, 4, 5, 23] {
            for (part, inputs) in inputs.chunks(batch * 10).enumerate() {
                let mut out = vec![0.0; inputs.len() / 10];
                let refuse = &mut |_, why| panic!("{why}");
                scorer.score_rows(inputs, &mut scratch, &mut out, refuse).expect("scores");
                for (at, score) in out.iter().enumerate() {
                    assert_eq!(score.to_bits(), expected[part * batch + at]);
                }
            }
        }
    }
}

#[test]
fn a_prediction_has_these_bits_for_ever() {
    let scorer = Scorer::new(&networks()[0]).expect("a scorer");
    let inputs: Vec<Input<'_>> = (0..10).map(|at| Input::Number(f64::from(at) / 3.0)).collect();
    let mut out = [0.0];
    scorer.score_into(&inputs, &mut scorer.scratch(), &mut out).expect("a score");
    assert_eq!(out[0].to_bits(), GOLDEN, "{:#x} {}", out[0].to_bits(), out[0]);
}

const GOLDEN: u64 = 0x3fb8_40ad_c88a_0cca;

#[test]
fn wrong_values_are_errors_and_never_scores() {
    let mut model = random(&Trainer::mlp(), 1, 3);
    model.preprocessing.columns.push(Column {
        name: "kind".to_owned(),
        input: InputType::String,
        nullable: false,
        encoding: Encoding::Category { vocabulary: vec!["a".to_owned(), "b".to_owned()] },
    });
    let network = Network::plan(&Trainer::mlp(), &model.preprocessing, 1).expect("a network");
    let parameters = network.first_values(1);
    model.body = Body::Network { network, parameters };
    let scorer = Scorer::new(&model).expect("a scorer");
    let mut out = [0.0];
    let mut ask = |inputs: &[Input<'_>]| {
        scorer.score_into(inputs, &mut scorer.scratch(), &mut out).map(|()| out[0])
    };
    let (one, a) = (Input::Number(1.0), Input::Text("a"));
    assert!(ask(&[one, a]).is_ok());
    assert_eq!(ask(&[Input::Integer(1), a]), ask(&[one, a]));
    assert_eq!(ask(&[one, Input::Text("c")]), ask(&[one, Input::Text("never seen")]));
    let wrong = |result: Result<f64, ScoreError>| result.expect_err("an error").to_string();
    assert_eq!(wrong(ask(&[one])), "the row has 1 values, the signature 2");
    assert_eq!(wrong(ask(&[a, a])), "`x0` takes float64, and was given text");
    assert_eq!(wrong(ask(&[one, one])), "`kind` takes string, and was given a float");
    assert!(wrong(ask(&[Input::Missing, a])).starts_with("`x0` is missing"));
    assert!(wrong(ask(&[Input::Number(f64::NAN), a])).starts_with("`x0` is missing"));
    assert!(wrong(ask(&[one, Input::Missing])).starts_with("`kind` is missing"));
    assert_eq!(wrong(ask(&[Input::Number(f64::INFINITY), a])), "`x0` is infinite");
    assert_eq!(ask(&[Input::Number(1e300), a]), Err(ScoreError::NotFinite));
    let rows = [one, a, Input::Missing, a, one, Input::Text("b")];
    let mut scores = [0.0; 3];
    let mut refused = Vec::new();
    scorer
        .score_rows(&rows, &mut scorer.scratch(), &mut scores, &mut |row, _| refused.push(row))
        .expect("room");
    assert_eq!((refused, scores[1].is_nan()), (vec![1], true));
    assert_eq!(Ok(scores[2]), ask(&[one, Input::Text("b")]));
}

#[test]
fn batches_of_arrow_are_rows() {
    for trainer in [Trainer::mlp(), Trainer::trees(), Trainer::Linear {}] {
        let mut job = job(Task::Multiclass, trainer);
        job.epochs = 2;
        let folder = tempfile::tempdir().expect("a folder");
        let batch = payments(500, 3);
        let never = AtomicBool::new(false);
        let trained = train(&job, std::slice::from_ref(&batch), folder.path(), &never, &mut |_| {});
        let scorer = Scorer::new(&trained.expect("a model").model).expect("a scorer");
        let names = scorer.preprocessing().columns.iter().map(|column| column.name.as_str());
        let rows = Rows::bind(&batch, names).expect("columns");
        let (mut inputs, mut row_inputs) = (Vec::new(), Vec::new());
        let (mut scratch, mut one) = (scorer.scratch(), vec![0.0; 3]);
        let mut each = Vec::new();
        for row in 0..rows.rows() {
            rows.row(row, &mut row_inputs);
            inputs.extend_from_slice(&row_inputs);
            scorer.score_into(&row_inputs, &mut scratch, &mut one).expect("a score");
            assert!((one.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            each.extend(one.iter().map(|score| score.to_bits()));
        }
        let mut all = vec![0.0; 500 * 3];
        let refuse = &mut |_, why| panic!("{why}");
        scorer.score_rows(&inputs, &mut scratch, &mut all, refuse).expect("scores");
        assert!(all.iter().map(|score| score.to_bits()).eq(each));
    }
}

#[test]
fn trees_walk_as_they_say() {
    let leaf = |value| forest::Node {
        threshold: value,
        feature: forest::LEAF,
        left: 0,
        right: 0,
        missing: 0,
    };
    let split = |threshold, feature, left, right, missing| forest::Node {
        threshold,
        feature,
        left,
        right,
        missing,
    };
    let forest = Forest {
        nodes: vec![
            split(0.5, 0, 1, 2, 2),
            leaf(-1.0),
            split(2.0, 1, 3, 4, 3),
            leaf(1.0),
            leaf(3.0),
        ],
        trees: vec![forest::Tree { root: 0, output: 0 }],
        base: vec![0.25],
        categories: Vec::new(),
        numbers: 2,
    };
    forest.check().expect("sound");
    let logit = |inputs: [f64; 2]| {
        let mut logits = [0.0];
        forest.logits(&inputs, &mut logits);
        logits[0]
    };
    assert_eq!(logit([0.4, 9.0]), -0.75);
    assert_eq!(logit([0.5, 1.9]), 1.25);
    assert_eq!(logit([0.5, 2.0]), 3.25);
    assert_eq!(logit([f64::NAN, 2.0]), 3.25);
    assert_eq!(logit([f64::NAN, f64::NAN]), 1.25);
    let mut circle = forest;
    circle.nodes[2].left = 0;
    assert!(circle.check().is_err());
}
