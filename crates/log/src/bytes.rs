//! Reading and writing the fixed fields of permanent bytes, with errors that name the byte.
//!
//! Integers are big-endian everywhere. Does not know what any field means.

/// Bytes that are not what their format says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}, byte {at}: {why}")]
pub struct FormatError {
    /// The structure that was being read.
    pub what: &'static str,
    /// Offset in its bytes.
    pub at: usize,
    /// What does not fit.
    pub why: String,
}

/// Reads fields one after the other and never beyond the end.
pub(crate) struct Cursor<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn fail(&self, why: impl Into<String>) -> FormatError {
        FormatError { what: self.what, at: self.at, why: why.into() }
    }

    pub(crate) fn slice(&mut self, length: usize) -> Result<&'a [u8], FormatError> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return Err(self.fail(format!("{length} bytes expected, {} left", self.left())));
        };
        let slice = &self.bytes[self.at..end];
        self.at = end;
        Ok(slice)
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut out = [0; N];
        out.copy_from_slice(self.slice(N)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.take::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_be_bytes(self.take()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_be_bytes(self.take()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    /// A length or count field that says how many items of at least `item_bytes` follow.
    pub(crate) fn count(&mut self, item_bytes: usize) -> Result<usize, FormatError> {
        let start = self.at;
        let count = self.u32()? as usize;
        if count.saturating_mul(item_bytes.max(1)) > self.left() {
            self.at = start;
            return Err(self.fail(format!("count {count} does not fit the bytes that follow")));
        }
        Ok(count)
    }

    /// Checks magic and format version.
    pub(crate) fn magic(&mut self, magic: &[u8; 4], newest: u8) -> Result<(), FormatError> {
        let found = self.take::<4>()?;
        if &found != magic {
            self.at -= 4;
            return Err(self.fail(format!("magic {found:02x?} is not {magic:02x?}")));
        }
        let version = self.u8()?;
        if version == 0 || version > newest {
            self.at -= 1;
            return Err(self.fail(format!(
                "format version {version} is unknown here (newest: {newest}); upgrade this program"
            )));
        }
        Ok(())
    }

    /// Refuses bytes that nothing accounts for.
    pub(crate) fn end(&self) -> Result<(), FormatError> {
        match self.left() {
            0 => Ok(()),
            left => Err(self.fail(format!("{left} bytes too many"))),
        }
    }
}

/// Fields that this version does not know, kept as they are so that hashes stay the same.
///
/// Their bytes are a sequence of `tag (u16) ‖ length (u16) ‖ length bytes`, tags ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extensions(Vec<u8>);

/// The most bytes that the extensions of one structure may take.
pub const MAX_EXTENSION_BYTES: usize = 4096;

impl Extensions {
    /// Checks `bytes` and keeps them.
    ///
    /// # Errors
    /// When a length points beyond the end, tags do not ascend, or it is all too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("extension fields", bytes);
        if bytes.len() > MAX_EXTENSION_BYTES {
            return Err(cursor.fail(format!("{} bytes exceed {MAX_EXTENSION_BYTES}", bytes.len())));
        }
        let mut previous = None;
        while cursor.left() > 0 {
            let tag = cursor.u16()?;
            if previous.is_some_and(|previous| previous >= tag) {
                return Err(cursor.fail(format!("tag {tag} does not ascend")));
            }
            previous = Some(tag);
            let length = usize::from(cursor.u16()?);
            cursor.slice(length)?;
        }
        Ok(Self(bytes.to_vec()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The payload of the field with this tag.
    pub fn get(&self, tag: u16) -> Option<&[u8]> {
        let mut cursor = Cursor::new("extension fields", &self.0);
        while cursor.left() > 0 {
            let found = cursor.u16().ok()?;
            let length = usize::from(cursor.u16().ok()?);
            let payload = cursor.slice(length).ok()?;
            if found == tag {
                return Some(payload);
            }
        }
        None
    }

    /// The `u16` length that precedes them.
    pub(crate) fn length(&self) -> u16 {
        // Decoding admits no more than MAX_EXTENSION_BYTES.
        u16::try_from(self.0.len()).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn extensions_are_kept_and_found() {
        let bytes = [0, 1, 0, 2, 7, 8, 0, 9, 0, 0];
        let extensions = Extensions::decode(&bytes).unwrap();
        assert_eq!(extensions.as_bytes(), bytes);
        assert_eq!(extensions.get(1), Some([7, 8].as_slice()));
        assert_eq!(extensions.get(9), Some([].as_slice()));
        assert_eq!(extensions.get(2), None);
        assert!(Extensions::decode(&bytes[..5]).is_err());
        assert!(Extensions::decode(&[0, 1, 0, 0, 0, 1, 0, 0]).is_err());
        assert!(Extensions::decode(&[0; MAX_EXTENSION_BYTES + 4]).is_err());
    }

    #[test]
    fn a_cursor_names_the_byte() {
        let mut cursor = Cursor::new("thing", &[0, 0, 0, 9, 1]);
        let error = cursor.count(2).unwrap_err();
        assert_eq!(error.to_string(), "thing, byte 0: count 9 does not fit the bytes that follow");
        assert_eq!(cursor.u32().unwrap(), 9);
        assert_eq!(cursor.u64().unwrap_err().at, 4);
        assert!(cursor.end().is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>()) {
            if let Ok(extensions) = Extensions::decode(&bytes) {
                let _ = extensions.get(3);
            }
        }
    }
}
