#![no_main]

use kvrail_fuzz::targets::completions;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| completions::run(bytes));
