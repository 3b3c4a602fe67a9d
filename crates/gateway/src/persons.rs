//! Persons beside the local user: one token each, in a file that is called after its person.
//!
//! Why it exists: an approval counts by person, and whoever holds the node's own token is one person
//! only. A file that is added or removed counts within a second. It knows no request and no transport.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::backend::Identity;
use crate::token::{Token, TokenError};

/// How long what was read counts.
const FRESH: Duration = Duration::from_secs(1);

/// Whether this is a person's name: a to z, 0 to 9, `.`, `-` and `_`, beginning with a letter, and not
/// the local user's.
pub fn is_name(name: &str) -> bool {
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(fits)
        && name.len() <= 63
        && name != "local"
        && !name.ends_with(".new")
}

/// The token of the person called `name` in `directory`, made there where there is none; and its file.
///
/// # Errors
/// When the name is none, or the file cannot be read or written.
pub fn token_of(directory: &Path, name: &str) -> Result<(Token, PathBuf), TokenError> {
    if !is_name(name) {
        return Err(TokenError::Name(name.to_owned()));
    }
    let path = directory.join(name);
    Ok((Token::load_or_create(&path)?, path))
}

#[derive(Default)]
struct Known {
    read: Option<Instant>,
    all: Vec<(Token, Identity)>,
}

/// The persons of one node.
#[derive(Clone)]
pub(crate) struct Persons {
    directory: PathBuf,
    known: Arc<RwLock<Known>>,
}

impl Persons {
    /// Those with a file in `directory`, which need not be there.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, known: Arc::default() }
    }

    /// Whose token an `authorization` header carries.
    pub fn admit(&self, authorization: &[u8]) -> Option<Identity> {
        self.refresh();
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let found = known.all.iter().find(|(token, _)| token.admits(authorization));
        found.map(|(_, identity)| identity.clone())
    }

    fn refresh(&self) {
        let fresh = |known: &Known| known.read.is_some_and(|read| read.elapsed() < FRESH);
        if fresh(&self.known.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if fresh(&known) {
            return;
        }
        known.read = Some(Instant::now());
        known.all = self.read();
    }

    /// A file that holds no token, or that others may read, admits nobody.
    fn read(&self) -> Vec<(Token, Identity)> {
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let token = |name: String| {
            let token = is_name(&name).then(|| Token::load(&self.directory.join(&name)))?;
            Some((token.ok()??, Identity { name: name.into() }))
        };
        names.filter_map(token).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_who_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("persons");
        let persons = Persons::new(directory.clone());
        let (amal, path) = token_of(&directory, "amal").unwrap();
        let header = format!("Bearer {}", amal.reveal());
        assert_eq!(&*persons.admit(header.as_bytes()).unwrap().name, "amal");
        assert_eq!(persons.admit(b"Bearer 00"), None);
        assert!(token_of(&directory, "local").is_err() && token_of(&directory, "../x").is_err());

        std::fs::remove_file(path).unwrap();
        persons.known.write().unwrap().read = None;
        assert_eq!(persons.admit(header.as_bytes()), None, "taken back");
    }
}
