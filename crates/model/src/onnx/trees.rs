//! Tree ensembles as ONNX Runtime evaluates them: float32 comparisons and sums, its rules for two
//! classes with one score, its post transforms.

use std::collections::HashMap;

use super::OnnxError;
use super::tensor::{Attributes, Data, Tensor};

/// How a node compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Leaf,
    AtMost,
    Below,
    AtLeast,
    Above,
    Equal,
    Unequal,
}

impl Mode {
    fn parse(operator: &str, text: &str) -> Result<Self, OnnxError> {
        Ok(match text {
            "LEAF" => Self::Leaf,
            "BRANCH_LEQ" => Self::AtMost,
            "BRANCH_LT" => Self::Below,
            "BRANCH_GTE" => Self::AtLeast,
            "BRANCH_GT" => Self::Above,
            "BRANCH_EQ" => Self::Equal,
            "BRANCH_NEQ" => Self::Unequal,
            other => return Err(wrong(operator, format!("node mode `{other}` is not supported"))),
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Node {
    mode: Mode,
    feature: u32,
    value: f32,
    when_true: u32,
    when_false: u32,
    missing_is_true: bool,
    /// Run of [`Trees::weights`], of a leaf.
    weights: (u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Average,
    Minimum,
    Maximum,
}

/// What is done to scores at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PostTransform {
    None,
    Logistic,
    Softmax,
    SoftmaxZero,
    Probit,
}

impl PostTransform {
    pub(super) fn parse(operator: &str, text: &str) -> Result<Self, OnnxError> {
        Ok(match text {
            "NONE" => Self::None,
            "LOGISTIC" => Self::Logistic,
            "SOFTMAX" => Self::Softmax,
            "SOFTMAX_ZERO" => Self::SoftmaxZero,
            "PROBIT" => Self::Probit,
            other => {
                return Err(OnnxError::Attribute {
                    operator: operator.to_owned(),
                    attribute: "post_transform".to_owned(),
                    why: format!("`{other}` is none that is defined"),
                });
            }
        })
    }

    /// Transforms the scores of one row.
    pub(super) fn apply(self, scores: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Logistic => scores.iter_mut().for_each(|score| *score = logistic(*score)),
            Self::Probit => scores.iter_mut().for_each(|score| *score = probit(*score)),
            Self::Softmax | Self::SoftmaxZero => softmax(scores, self == Self::SoftmaxZero),
        }
    }
}

pub(super) fn logistic(x: f32) -> f32 {
    let value = 1.0 / (1.0 + libm::expf(-x.abs()));
    if x < 0.0 { 1.0 - value } else { value }
}

/// The inverse normal distribution by Winitzki's approximation of the inverse error function, which
/// is what ONNX Runtime computes.
#[allow(clippy::approx_constant)]
fn probit(p: f32) -> f32 {
    let x = 2.0 * p - 1.0;
    let sign = if x < 0.0 { -1.0f32 } else { 1.0 };
    let logarithm = libm::logf((1.0 - x) * (1.0 + x));
    let v = 2.0 / (3.14159 * 0.147) + 0.5 * logarithm;
    let w = 1.0 / 0.147 * logarithm;
    1.414_213_6 * sign * (-v + (v * v - w).sqrt()).sqrt()
}

/// Softmax; with `keep_zeros`, scores that are zero stay out of the sum.
fn softmax(scores: &mut [f32], keep_zeros: bool) {
    const ZERO: f32 = 0.000_000_1;
    let greatest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        if keep_zeros && score.abs() <= ZERO {
            *score *= libm::expf(-greatest);
        } else {
            *score = libm::expf(*score - greatest);
            sum += *score;
        }
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}

/// Class labels of a classifier.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Labels {
    /// Integers.
    Integers(Vec<i64>),
    /// Texts.
    Texts(Vec<String>),
}

impl Labels {
    /// Number of classes.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Integers(labels) => labels.len(),
            Self::Texts(labels) => labels.len(),
        }
    }

    /// The labels of the classes at `chosen`.
    pub(super) fn pick(&self, chosen: &[usize]) -> Tensor {
        let data = match self {
            Self::Integers(labels) => Data::Integer(chosen.iter().map(|at| labels[*at]).collect()),
            Self::Texts(labels) => {
                Data::Text(chosen.iter().map(|at| labels[*at].clone()).collect())
            }
        };
        Tensor { shape: vec![chosen.len()], data }
    }
}

/// An ensemble.
#[derive(Clone, Debug)]
pub(super) struct Trees {
    nodes: Vec<Node>,
    roots: Vec<u32>,
    weights: Vec<(u32, f32)>,
    base: Vec<f32>,
    targets: usize,
    width: usize,
    aggregate: Aggregate,
    transform: PostTransform,
    /// Labels, of a classifier.
    pub(super) labels: Option<Labels>,
    one_score_for_two: bool,
    all_positive: bool,
}

fn wrong(operator: &str, why: impl Into<String>) -> OnnxError {
    OnnxError::Trees { operator: operator.to_owned(), why: why.into() }
}

impl Trees {
    /// Reads a `TreeEnsembleClassifier` or `TreeEnsembleRegressor`.
    pub(super) fn read(operator: &str, attributes: &Attributes<'_>) -> Result<Self, OnnxError> {
        attributes.refuse(&[
            "nodes_values_as_tensor",
            "base_values_as_tensor",
            "class_weights_as_tensor",
            "target_weights_as_tensor",
        ])?;
        let classifier = operator == "TreeEnsembleClassifier";
        let labels = classifier
            .then(|| read_labels(attributes, "classlabels_int64s", "classlabels_strings"));
        let targets = match &labels {
            Some(labels) => labels.count(),
            None => usize::try_from(attributes.int("n_targets", 1)).unwrap_or(0),
        };
        if targets == 0 {
            return Err(wrong(operator, "it has no classes or targets"));
        }
        let (mut nodes, index, roots) = read_nodes(operator, attributes)?;
        let kind = if classifier { "class" } else { "target" };
        let weights = read_weights(operator, attributes, kind, targets, &index, &mut nodes)?;
        let base = attributes.floats("base_values").to_vec();
        let base_fits = base.is_empty() || base.len() == targets || (classifier && base.len() == 1);
        if !base_fits {
            return Err(wrong(operator, "it has neither one base value nor one per target"));
        }
        let aggregate = match attributes.text("aggregate_function", "SUM").as_str() {
            "SUM" => Aggregate::Sum,
            "AVERAGE" => Aggregate::Average,
            "MIN" => Aggregate::Minimum,
            "MAX" => Aggregate::Maximum,
            other => return Err(wrong(operator, format!("aggregate `{other}` is not defined"))),
        };
        let first = weights.first().map(|weight| weight.0);
        let single = weights.iter().all(|weight| Some(weight.0) == first);
        let splits = nodes.iter().filter(|node| node.mode != Mode::Leaf);
        Ok(Self {
            width: splits.map(|node| node.feature as usize + 1).max().unwrap_or(0),
            transform: PostTransform::parse(operator, &attributes.text("post_transform", "NONE"))?,
            one_score_for_two: targets == 2 && single,
            all_positive: weights.iter().all(|weight| weight.1 >= 0.0),
            nodes,
            roots,
            weights,
            base,
            targets,
            aggregate,
            labels,
        })
    }

    fn leaf(&self, root: u32, row: &[f32]) -> &[(u32, f32)] {
        let mut node = &self.nodes[root as usize];
        loop {
            let is_true = match node.mode {
                Mode::Leaf => {
                    return &self.weights[node.weights.0 as usize..node.weights.1 as usize];
                }
                _ => {
                    let value = row[node.feature as usize];
                    let holds = match node.mode {
                        Mode::AtMost => value <= node.value,
                        Mode::Below => value < node.value,
                        Mode::AtLeast => value >= node.value,
                        Mode::Above => value > node.value,
                        Mode::Equal => value == node.value,
                        _ => value != node.value,
                    };
                    holds || (node.missing_is_true && value.is_nan())
                }
            };
            node = &self.nodes[(if is_true { node.when_true } else { node.when_false }) as usize];
        }
    }

    /// Scores and which of them any leaf gave.
    fn aggregate(&self, row: &[f32]) -> (Vec<f32>, Vec<bool>) {
        let mut scores = vec![0.0f32; self.targets];
        let mut given = vec![false; self.targets];
        for root in &self.roots {
            for (target, weight) in self.leaf(*root, row) {
                let (score, given) = (&mut scores[*target as usize], &mut given[*target as usize]);
                *score = match self.aggregate {
                    Aggregate::Minimum if *given => score.min(*weight),
                    Aggregate::Maximum if *given => score.max(*weight),
                    Aggregate::Minimum | Aggregate::Maximum => *weight,
                    Aggregate::Sum | Aggregate::Average => *score + weight,
                };
                *given = true;
            }
        }
        if self.aggregate == Aggregate::Average {
            let trees = self.roots.len().max(1) as f32;
            scores.iter_mut().for_each(|score| *score /= trees);
        }
        (scores, given)
    }

    fn check(&self, input: &Tensor) -> Result<(), String> {
        let (_, columns) = input.matrix();
        if columns < self.width {
            return Err(format!("its trees read {} columns, there are {columns}", self.width));
        }
        Ok(())
    }

    /// `rows × targets` numbers.
    pub(super) fn regress(&self, input: &Tensor) -> Result<Tensor, String> {
        self.check(input)?;
        let (rows, columns) = input.matrix();
        let mut out = Vec::with_capacity(rows * self.targets);
        for row in input.as_floats()?.chunks_exact(columns.max(1)) {
            let (mut scores, _) = self.aggregate(row);
            for (score, base) in scores.iter_mut().zip(&self.base) {
                *score += base;
            }
            self.transform.apply(&mut scores);
            out.extend(scores);
        }
        Ok(Tensor::floats(vec![rows, self.targets], out))
    }

    /// Chosen classes and `rows × classes` scores.
    pub(super) fn classify(&self, input: &Tensor) -> Result<(Vec<usize>, Tensor), String> {
        self.check(input)?;
        let (rows, columns) = input.matrix();
        let (mut chosen, mut out) = (Vec::with_capacity(rows), Vec::new());
        for row in input.as_floats()?.chunks_exact(columns.max(1)) {
            let (mut scores, given) = self.aggregate(row);
            if self.targets == 2 && !given[1] {
                chosen.push(self.one_score(&mut scores));
            } else {
                if self.base.len() == self.targets {
                    for (score, base) in scores.iter_mut().zip(&self.base) {
                        *score += base;
                    }
                } else if let Some(base) = self.base.first() {
                    scores[0] += base;
                }
                chosen.push(self.best(&scores, &given));
                self.transform.apply(&mut scores);
            }
            out.extend(scores);
        }
        let classes = out.len().checked_div(rows).unwrap_or(self.targets);
        Ok((chosen, Tensor::floats(vec![rows, classes], out)))
    }

    fn best(&self, scores: &[f32], given: &[bool]) -> usize {
        if self.one_score_for_two {
            let limit = if self.all_positive { 0.5 } else { 0.0 };
            return usize::from(scores[1] > limit);
        }
        let mut best: Option<usize> = None;
        for (at, score) in scores.iter().enumerate().filter(|(at, _)| given[*at]) {
            if best.is_none_or(|best| *score > scores[best]) {
                best = Some(at);
            }
        }
        best.unwrap_or(0)
    }

    /// Two classes of which the leaves know one: its score stands for the second class.
    fn one_score(&self, scores: &mut [f32]) -> usize {
        let base = if self.base.len() == 2 {
            self.base[1]
        } else {
            self.base.first().copied().unwrap_or(0.0)
        };
        let score = scores[0] + base;
        let chosen =
            if self.one_score_for_two && self.all_positive { score > 0.5 } else { score > 0.0 };
        let pair = match self.transform {
            PostTransform::Logistic if !self.all_positive => [logistic(-score), logistic(score)],
            PostTransform::Probit => [1.0 - probit(score), probit(score)],
            _ if self.all_positive => [1.0 - score, score],
            _ => [-score, score],
        };
        scores.copy_from_slice(&pair);
        usize::from(chosen)
    }
}

pub(super) fn read_labels(attributes: &Attributes<'_>, integers: &str, texts: &str) -> Labels {
    let texts = attributes.texts(texts);
    if texts.is_empty() {
        Labels::Integers(attributes.ints(integers).to_vec())
    } else {
        Labels::Texts(texts)
    }
}

type Index = HashMap<(i64, i64), u32>;

fn read_nodes(
    operator: &str,
    attributes: &Attributes<'_>,
) -> Result<(Vec<Node>, Index, Vec<u32>), OnnxError> {
    let trees = attributes.ints("nodes_treeids");
    let ids = attributes.ints("nodes_nodeids");
    let features = attributes.ints("nodes_featureids");
    let values = attributes.floats("nodes_values");
    let trues = attributes.ints("nodes_truenodeids");
    let falses = attributes.ints("nodes_falsenodeids");
    let missing = attributes.ints("nodes_missing_value_tracks_true");
    let modes = attributes.texts("nodes_modes");
    let count = ids.len();
    let lengths =
        [trees.len(), features.len(), values.len(), trues.len(), falses.len(), modes.len()];
    if lengths.iter().any(|length| *length != count) || count > u32::MAX as usize {
        return Err(wrong(operator, "the columns of its nodes have unequal lengths"));
    }
    let keys = trees.iter().copied().zip(ids.iter().copied());
    let index: Index = keys.clone().zip(0..).collect();
    if index.len() != count {
        return Err(wrong(operator, "a node occurs twice"));
    }
    let mut nodes = Vec::with_capacity(count);
    let mut is_child = vec![false; count];
    for (at, (tree, _)) in keys.enumerate() {
        let mode = Mode::parse(operator, &modes[at])?;
        let mut child = |id: i64| match index.get(&(tree, id)) {
            _ if mode == Mode::Leaf => Ok(0),
            Some(child) => {
                // A node that two lead to, or that leads to itself, could be walked for ever.
                if std::mem::replace(&mut is_child[*child as usize], true) {
                    return Err(wrong(operator, "two branches lead to one node"));
                }
                Ok(*child)
            }
            None => Err(wrong(operator, format!("tree {tree} has no node {id}"))),
        };
        nodes.push(Node {
            mode,
            feature: u32::try_from(features[at])
                .map_err(|_| wrong(operator, "a column is negative"))?,
            value: values[at],
            when_true: child(trues[at])?,
            when_false: child(falses[at])?,
            missing_is_true: missing.get(at).is_some_and(|flag| *flag != 0),
            weights: (0, 0),
        });
    }
    let roots: Vec<u32> = (0..count as u32).filter(|at| !is_child[*at as usize]).collect();
    let mut distinct = trees.to_vec();
    distinct.dedup();
    // Every node has at most one parent, so what no root reaches lies on a circle.
    let (mut open, mut reached) = (roots.clone(), 0);
    while let Some(at) = open.pop() {
        reached += 1;
        let node = &nodes[at as usize];
        if node.mode != Mode::Leaf {
            open.extend([node.when_true, node.when_false]);
        }
    }
    if roots.len() != distinct.len() || reached != count {
        return Err(wrong(operator, "a tree has not exactly one root, or runs in a circle"));
    }
    Ok((nodes, index, roots))
}

fn read_weights(
    operator: &str,
    attributes: &Attributes<'_>,
    kind: &str,
    targets: usize,
    index: &Index,
    nodes: &mut [Node],
) -> Result<Vec<(u32, f32)>, OnnxError> {
    let trees = attributes.ints(&format!("{kind}_treeids"));
    let ids = attributes.ints(&format!("{kind}_nodeids"));
    let classes = attributes.ints(&format!("{kind}_ids"));
    let weights = attributes.floats(&format!("{kind}_weights"));
    if [trees.len(), ids.len(), classes.len()].iter().any(|length| *length != weights.len()) {
        return Err(wrong(operator, "the columns of its leaves have unequal lengths"));
    }
    let mut entries = Vec::with_capacity(weights.len());
    for (at, weight) in weights.iter().enumerate() {
        let node = index.get(&(trees[at], ids[at]));
        let class = u32::try_from(classes[at]).ok().filter(|class| (*class as usize) < targets);
        match (node, class) {
            (Some(node), Some(class)) => entries.push((*node, class, *weight)),
            _ => return Err(wrong(operator, "a weight is of no leaf or of no class")),
        }
    }
    // Stable, so that weights of one leaf keep their order.
    entries.sort_by_key(|entry| entry.0);
    let mut flat = Vec::with_capacity(entries.len());
    for run in entries.chunk_by(|a, b| a.0 == b.0) {
        let start = flat.len() as u32;
        flat.extend(run.iter().map(|entry| (entry.1, entry.2)));
        nodes[run[0].0 as usize].weights = (start, flat.len() as u32);
    }
    Ok(flat)
}
