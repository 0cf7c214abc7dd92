//! Tests that concern several modules.

mod heap;
