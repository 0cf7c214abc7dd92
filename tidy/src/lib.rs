//! Reads the source tree of this workspace and finds what its rules forbid.
//!
//! Each module answers one question and gives its findings as lines of text; `tests/tree.rs` asks
//! all of them of this tree and fails with the findings. The rules themselves stand in
//! CONTRIBUTING.md.
//!
//! | module | question |
//! |---|---|
//! | [`workspace`] | which packages, crate roots and files are there |
//! | [`lexer`] | which parts of a Rust file are comments, and which are string literals |
//! | [`modules`] | which module and which file defines the item that a path names |
//! | [`circles`] | do files of one crate name each other in a circle |
//! | [`text`] | is a file too long, a comment too wide or two in one, a word banned |
//! | [`threads`] | is a thread without a name, or with one that Linux cuts off |
//! | [`names`] | is a public type name declared twice, or a banned name declared |
//! | [`codes`] | are error codes unique, in their crate's range, and listed |
//! | [`links`] | does a page of the docs point at something that is not there |
//! | [`packages`] | where dependencies come from, and what published packages lack |
//! | [`testing`] | does docs/testing.md name a test that is not in the tree |
//! | [`unsafety`] | are the files with unsafe code those that docs/safety.md lists |

#![allow(clippy::exhaustive_enums, reason = "no crate depends on this one but its own tests")]

pub mod circles;
pub mod codes;
pub mod lexer;
pub mod links;
pub mod modules;
pub mod names;
pub mod packages;
pub mod testing;
pub mod text;
pub mod threads;
pub mod unsafety;
pub mod workspace;
