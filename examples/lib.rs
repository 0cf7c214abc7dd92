//! Small programs, each runnable with one command from the workspace's root:
//!
//! - `cargo run --example read_pages`: declare a page, publish some, read them over two rails.
//! - `cargo run --example declare_a_page`: declare pages of every kind; see where bytes are.
//! - `cargo run --example several_threads`: several threads feed one reader.
//! - `cargo run --release --example reshard_heads`: read one rank's half of the heads of a page.
//! - `cargo run --release --example layer_pool_to_page`: read a pool of layers into one page.
