//! The list resolves, is immutable, and its bits are golden.
