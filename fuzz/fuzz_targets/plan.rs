//! An arbitrary pair of layouts has a plan that writes every wanted byte of the destination once,
//! from the right place of the source, and no other byte, whole and cut into work requests; or it
//! has none, for a reason that the oracle confirms.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kvrail_fuzz::targets::plan::run(bytes));
