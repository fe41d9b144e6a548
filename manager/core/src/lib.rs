//! The services behind every API.

pub mod images;
