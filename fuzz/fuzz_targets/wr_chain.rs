//! A device finds in a chain what the engine posted: arbitrary commits through the chain encoder,
//! and arbitrary batches through an engine over it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kvrail_fuzz::targets::wr_chain::run(bytes));
