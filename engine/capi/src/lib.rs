//! kvrail for engines in C and C++.
//!
//! The interface is `include/kvrail.h`, which is made of the files in `abi` by cbindgen and is
//! checked into the tree; docs/c.md is its chapter of the book.
//!
//! | file | what |
//! |---|---|
//! | `abi/` | what the header has: constants, structures, a thin function for each one of C |
//! | `border.rs` | pointers of C become references and values here, and panics become statuses |
//! | `error.rs` | why a call failed, beside the errors of the other crates |
//! | `status.rs` | the text of a thread's last error, and the names of statuses |
//! | `keys.rs`, `transport.rs` | keys and transports, as texts of a configuration name them |
//! | `layout/` | layouts that are declared at run time, and live as long as the process |
//! | `publisher/` | a publisher, its pools, and the slots that are being written |
//! | `node/` | a node: pages by key |
//! | `reader/` | a reader in the caller's memory, of any transport and size |
//!
//! docs/safety.md lists the files that are not safe Rust.

pub mod abi;
mod border;
mod error;
mod keys;
mod layout;
mod node;
mod publisher;
mod reader;
mod registry;
mod status;
mod transport;
