//! What is accepted, what is refused, and where.
