//! The configuration file of a node and of the tools, in TOML.
//!
//! [`NodeFile::read`] checks all of it: a key that is not known is refused with its name and line,
//! and so is a value that cannot be. docs/node.toml has every key with its meaning.

mod check;
mod error;
mod file;
mod raw;

pub use error::NodeFileError;
pub use file::{DirectoryFile, NodeFile, NodeTransport, PoolFile, PoolSize};
