//! What people and machines read: tables, reports, progress, pictures.

pub(crate) mod artifact;
pub(crate) mod churn;
pub(crate) mod drive_line;
pub(crate) mod environment;
pub(crate) mod error_text;
pub(crate) mod grid;
pub(crate) mod host;
pub(crate) mod json;
pub(crate) mod numbers;
pub(crate) mod picture;
pub(crate) mod progress;
pub(crate) mod report;
pub(crate) mod rungs;
pub(crate) mod table;
pub(crate) mod verdict;
pub(crate) mod write;
