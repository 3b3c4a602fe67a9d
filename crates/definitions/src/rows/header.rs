//! The header of a CSV file matched with a topic's columns.
//!
//! Does not know values.

use falaj_event::TopicSchema;

use super::{OP_FIELD, unknown};

/// Where each field of a CSV record goes.
#[derive(Clone, Debug)]
pub struct CsvHeader {
    names: Vec<String>,
    places: Vec<Place>,
}

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The topic's column with this index.
    Column(usize),
    /// The operation.
    Op,
}

/// A header that does not fit the topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the header does not fit topic `{topic}`: {}", .problems.join("; "))]
pub struct HeaderError {
    /// The topic.
    pub topic: String,
    /// Everything that is wrong.
    pub problems: Vec<String>,
}

impl CsvHeader {
    /// Matches the names of a header with the topic's columns; columns may be missing.
    ///
    /// # Errors
    /// Every unknown and every repeated name.
    pub fn new<'a>(
        schema: &TopicSchema,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, HeaderError> {
        let mut header = Self { names: Vec::new(), places: Vec::new() };
        let mut problems = Vec::new();
        for name in names.into_iter().map(str::trim) {
            let place = match schema.column_index(name) {
                Some(index) => Place::Column(index),
                None if name == OP_FIELD => Place::Op,
                None => {
                    problems.push(unknown(schema, name));
                    continue;
                }
            };
            if header.places.contains(&place) {
                problems.push(format!("column `{name}` stands there twice"));
            }
            header.names.push(name.to_owned());
            header.places.push(place);
        }
        match problems.is_empty() {
            true => Ok(header),
            false => Err(HeaderError { topic: schema.name.clone(), problems }),
        }
    }

    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    /// A record as JSON: an object, or an array where it has not as many fields as the header.
    pub(super) fn original(&self, fields: &[&str]) -> String {
        use serde_json::Value;
        if fields.len() != self.names.len() {
            return Value::from(fields.to_vec()).to_string();
        }
        let named = self.names.iter().zip(fields);
        let object = named.map(|(name, text)| (name.clone(), Value::from(*text)));
        Value::Object(object.collect()).to_string()
    }
}
