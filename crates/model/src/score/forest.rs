//! Trees as one flat array of nodes.
//!
//! A row's logits are the base plus its leaves, added in the order of the trees in float64. Does not
//! know who grew the trees.

use serde::{Deserialize, Serialize};

/// `feature` of a leaf.
pub const LEAF: u32 = u32::MAX;

/// A split (`value < threshold` goes left), or a leaf whose `threshold` is its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Node {
    /// Threshold or leaf value.
    pub threshold: f64,
    /// Position in the inputs, or [`LEAF`].
    pub feature: u32,
    /// Where smaller values go, as an index into all nodes.
    pub left: u32,
    /// Where other values go.
    pub right: u32,
    /// Where missing (NaN) values go.
    pub missing: u32,
}

/// One tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Index of its first node.
    pub root: u32,
    /// The logit it adds to.
    pub output: u32,
}

/// An ensemble.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forest {
    /// Nodes of all trees; children come after their parents.
    pub nodes: Vec<Node>,
    /// The trees, in the order of addition.
    pub trees: Vec<Tree>,
    /// First value of each logit.
    pub base: Vec<f64>,
    /// For each categorical column the numbers that stand for each of its codes.
    pub categories: Vec<Vec<Vec<f64>>>,
    /// Inputs that come from numbers.
    pub numbers: usize,
}

/// What is wrong with an ensemble.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the trees are not sound: node {node}: {why}")]
pub struct ForestError {
    /// The offending node or tree.
    pub node: usize,
    /// What is wrong.
    pub why: &'static str,
}

impl Forest {
    /// Number of inputs.
    pub fn width(&self) -> usize {
        let values = |codes: &Vec<Vec<f64>>| codes.first().map_or(0, Vec::len);
        self.numbers + self.categories.iter().map(values).sum::<usize>()
    }

    /// Checks that every walk ends, within bounds.
    ///
    /// # Errors
    /// [`ForestError`].
    pub fn check(&self) -> Result<(), ForestError> {
        let width = self.width() as u32;
        for (at, node) in self.nodes.iter().enumerate() {
            let wrong = |why| Err(ForestError { node: at, why });
            if node.feature == LEAF {
                continue;
            }
            if node.feature >= width {
                return wrong("it reads an input that does not exist");
            }
            for child in [node.left, node.right, node.missing] {
                if child as usize <= at || child as usize >= self.nodes.len() {
                    return wrong("a child does not come after its parent");
                }
            }
        }
        for (at, tree) in self.trees.iter().enumerate() {
            if tree.root as usize >= self.nodes.len() || tree.output as usize >= self.base.len() {
                return Err(ForestError { node: at, why: "a tree starts or ends nowhere" });
            }
        }
        for codes in &self.categories {
            let width = codes.first().map_or(0, Vec::len);
            if codes.iter().any(|values| values.len() != width) {
                return Err(ForestError { node: 0, why: "categories have unequal widths" });
            }
        }
        Ok(())
    }

    /// The inputs of a row: its numbers, then the numbers of its codes. `inputs` has
    /// [`Forest::width`] entries; a code beyond the table counts as unknown.
    pub fn inputs(&self, numbers: &[f64], codes: &[u32], inputs: &mut [f64]) {
        inputs[..self.numbers].copy_from_slice(numbers);
        let mut at = self.numbers;
        for (table, code) in self.categories.iter().zip(codes) {
            let Some(values) = table.get(*code as usize).or_else(|| table.first()) else {
                continue;
            };
            inputs[at..at + values.len()].copy_from_slice(values);
            at += values.len();
        }
    }

    /// Logits of a row into `logits`, one per base value.
    pub fn logits(&self, inputs: &[f64], logits: &mut [f64]) {
        logits.copy_from_slice(&self.base);
        for tree in &self.trees {
            logits[tree.output as usize] += self.leaf(tree.root, inputs);
        }
    }

    fn leaf(&self, root: u32, inputs: &[f64]) -> f64 {
        let mut node = &self.nodes[root as usize];
        while node.feature != LEAF {
            let value = inputs[node.feature as usize];
            let next = if value < node.threshold {
                node.left
            } else if value.is_nan() {
                node.missing
            } else {
                node.right
            };
            node = &self.nodes[next as usize];
        }
        node.threshold
    }
}
