#![no_main]

use kvrail_fuzz::targets::handover;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| handover::run(bytes));
