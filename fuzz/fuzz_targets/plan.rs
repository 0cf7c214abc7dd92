#![no_main]

use kvrail_fuzz::targets::plan;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| plan::run(bytes));
