//! What integration tests share.

pub mod hub;
