//! Any pair of layouts: a plan that writes every wanted byte of the destination once, from the right place of the
//! source, and nothing else, whole and cut into work requests; or none, for a reason that the oracle sees.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kvrail_fuzz::targets::plan::run(bytes));
