//! Programs are total, checked and independent of batching.

use super::*;
