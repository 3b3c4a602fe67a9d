//! The local user's token: a random secret in a file that only its owner reads.
//!
//! Why it exists: whoever can read the file is the local user; everyone else is told where to look.
//! It knows no request and no transport.

use std::hint::black_box;
use std::path::Path;

use crate::files::{FileError, read_secret_if_there, write_whole};

const TOKEN_BYTES: usize = 32;

/// A token that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds something else.
    #[error("{0} does not hold a token (64 hexadecimal digits); delete it to have a new one made")]
    Malformed(String),
    /// Not a person's name.
    #[error("`{0}` is no person's name: use a to z, 0 to 9, . - and _, beginning with a letter")]
    Name(String),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}

/// A bearer token of 256 random bits, as 64 hexadecimal digits.
#[derive(Clone)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// Reads the token in `path`, or makes a new one there (mode 0600).
    ///
    /// # Errors
    /// When the file cannot be read or written, is readable by others or holds no token.
    pub fn load_or_create(path: &Path) -> Result<Self, TokenError> {
        if let Some(token) = Self::load(path)? {
            return Ok(token);
        }
        let token = Self(hex(&random::<TOKEN_BYTES>()?));
        write_whole(path, format!("{}\n", token.0).as_bytes(), true)?;
        Ok(token)
    }

    /// Reads the token in `path`; `None` where there is no file.
    ///
    /// # Errors
    /// When the file cannot be read, is readable by others or holds no token.
    pub fn load(path: &Path) -> Result<Option<Self>, TokenError> {
        let Some(text) = read_secret_if_there(path)? else { return Ok(None) };
        let token = Self::parse(&text);
        token.map(Some).ok_or_else(|| TokenError::Malformed(path.display().to_string()))
    }

    /// The token in `text`, surrounding white space ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let whole = text.len() == 2 * TOKEN_BYTES && text.bytes().all(|b| b.is_ascii_hexdigit());
        whole.then(|| Self(text.to_ascii_lowercase()))
    }

    /// What a client sends.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether an `authorization` header carries this token. Takes the same time for every header
    /// of the right length.
    pub fn admits(&self, authorization: &[u8]) -> bool {
        let Some((scheme, offered)) = authorization.split_at_checked(7) else { return false };
        if !scheme.eq_ignore_ascii_case(b"bearer ") || offered.len() != self.0.len() {
            return false;
        }
        let differing = self
            .0
            .bytes()
            .zip(offered)
            .fold(0, |all, (ours, theirs)| black_box(all | (ours ^ theirs)));
        differing == 0
    }
}

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], TokenError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| TokenError::Random(error.to_string()))?;
    Ok(bytes)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_kept_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/token");
        let token = Token::load_or_create(&path).unwrap();
        assert_eq!(token.reveal().len(), 64);
        assert_eq!(Token::load_or_create(&path).unwrap().reveal(), token.reveal());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{token:?}").contains(token.reveal()));

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Token::load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(Token::load_or_create(&path), Err(TokenError::Malformed(_))));
    }

    #[test]
    fn only_the_whole_token_is_admitted() {
        let token = Token::parse(&"ab".repeat(32)).unwrap();
        let header = format!("Bearer {}", token.reveal());
        assert!(token.admits(header.as_bytes()));
        assert!(token.admits(header.replace("Bearer", "bearer").as_bytes()));
        for wrong in ["", "Bearer", "Bearer ", &header[..70], &format!("{header}0"), token.reveal()]
        {
            assert!(!token.admits(wrong.as_bytes()), "{wrong}");
        }
        for position in 7..header.len() {
            let mut other = header.clone().into_bytes();
            other[position] ^= 1;
            assert!(!token.admits(&other));
        }
    }
}
