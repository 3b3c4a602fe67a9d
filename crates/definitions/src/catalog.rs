//! The catalog: everything that a directory of definitions declares, checked together.
//!
//! Does not know where the catalog is used, nor how a view's SQL is planned.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::topics::TopicDefinition;

/// Topics by name, in name order.
#[derive(Clone, Debug, Default)]
pub struct Topics {
    by_name: BTreeMap<String, Arc<TopicDefinition>>,
}

impl Topics {
    /// No topics.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a topic; returns the one that had its name.
    pub fn insert(&mut self, topic: Arc<TopicDefinition>) -> Option<Arc<TopicDefinition>> {
        self.by_name.insert(topic.schema.name.clone(), topic)
    }

    /// The topic called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<TopicDefinition>> {
        self.by_name.get(name)
    }

    /// All topics in name order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TopicDefinition>> {
        self.by_name.values()
    }

    /// All names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Number of topics.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}
