//! Names of Fluvio topics: readable, and different for different Falaj topics.
//!
//! Fluvio allows `a-z`, `0-9` and `-`, at most 63 characters, and no `-` at either end.

use falaj_event::TopicId;
use falaj_event::ids::hex;

/// Fluvio's bound on a name's length.
const MAX_BYTES: usize = 63;

/// The topic of epoch entries.
pub fn epochs_name(deployment: &str) -> String {
    format!("{deployment}-epochs")
}

/// The topic of blocks of a Falaj topic.
pub fn log_name(deployment: &str, topic: &str) -> String {
    name(deployment, topic, "log")
}

/// The topic where any Fluvio producer writes JSON events for a Falaj topic.
pub fn inbox_name(deployment: &str, topic: &str) -> String {
    name(deployment, topic, "inbox")
}

/// `_` becomes `-` and `.` becomes `--`. A name that is too long, or that another one could be turned
/// into as well, ends in the beginning of its topic id.
fn name(deployment: &str, topic: &str, suffix: &str) -> String {
    let mut slug = String::with_capacity(topic.len());
    for character in topic.chars() {
        match character {
            '_' => slug.push('-'),
            '.' => slug.push_str("--"),
            other => slug.push(other.to_ascii_lowercase()),
        }
    }
    let ambiguous = topic.contains("__") || topic.chars().any(|of| of.is_ascii_uppercase());
    let room = MAX_BYTES.saturating_sub(deployment.len() + suffix.len() + 2);
    if ambiguous || slug.len() > room {
        slug.truncate(room.saturating_sub(9));
        slug = format!("{slug}-{}", &hex(&TopicId::of(topic).0)[..8]);
    }
    format!("{deployment}-{slug}-{suffix}")
}

/// What is wrong with a deployment's name.
pub(crate) fn check_deployment(name: &str) -> Result<(), &'static str> {
    let allowed = |of: char| of.is_ascii_lowercase() || of.is_ascii_digit() || of == '-';
    match name {
        "" => Err("it is empty"),
        name if name.len() > 20 => Err("it has more than 20 characters"),
        name if !name.chars().all(allowed) => Err("use a to z, 0 to 9 and -"),
        name if name.starts_with('-') || name.ends_with('-') => Err("it begins or ends with -"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_fluvio_allows_and_differ() {
        let long = "a_topic_with_a_name_of_more_than_sixty_characters_that_nobody_would_choose";
        let topics = ["payments", "payments.rejected", "payments__rejected", "a_b", "a.b", long];
        let mut names: Vec<String> = topics.iter().map(|of| log_name("falaj", of)).collect();
        names.extend(topics.iter().map(|of| inbox_name("falaj", of)));
        names.push(epochs_name("falaj"));
        for name in &names {
            assert!(name.len() <= MAX_BYTES, "{name}");
            assert!(
                name.chars().all(|of| of.is_ascii_lowercase() || of.is_ascii_digit() || of == '-')
            );
        }
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        assert_eq!(log_name("falaj", "payments"), "falaj-payments-log");
        assert_eq!(log_name("falaj", "falaj.definitions"), "falaj-falaj--definitions-log");
    }

    #[test]
    fn deployments_are_checked() {
        assert!(check_deployment("falaj-2").is_ok());
        for wrong in ["", "Falaj", "-a", "a-", "a_b", "a-name-that-is-too-long"] {
            assert!(check_deployment(wrong).is_err(), "{wrong}");
        }
    }
}
