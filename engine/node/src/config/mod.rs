//! The configuration file of a node and of the tools, in TOML.
//!
//! [`NodeFile::read`] checks all of it: a key that is not known is refused with its name and line,
//! and so is a value that cannot be. docs/node.toml has every key with its meaning.
//! [`Node::start_from_file`](crate::Node::start_from_file) starts the node that a file describes.

mod check;
mod error;
mod file;
mod raw;
mod start;

pub use error::NodeFileError;
pub use file::{DirectoryFile, NodeFile, NodeTransport, PoolFile, PoolSize};
pub use start::StartedNode;
