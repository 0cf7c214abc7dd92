//! What `kvrail.h` has: each file here becomes a part of the header, in this order.
//!
//! A function of C is a few lines: it turns its arguments into values by
//! [`border`](crate::border), and calls safe code. Everything that the documentation of an item
//! says is said to a programmer in C.

pub mod constants;
pub mod handover;
pub mod handover_types;
pub mod layout;
pub mod layout_types;
pub mod node;
pub mod node_pages;
pub mod node_types;
pub mod publisher;
pub mod publisher_types;
pub mod reader;
pub mod reader_flight;
pub mod reader_peers;
pub mod reader_types;
pub mod status;
