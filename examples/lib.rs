//! Small programs, each runnable with one command from the workspace's root:
//!
//! - `cargo run --example read_pages` – declare a page, publish some, pull them over two rails, look at them.
//! - `cargo run --example declare_a_page` – declare pages of every kind, and see where their bytes are.
