#![no_main]

use kvrail_fuzz::targets::look_up;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| look_up::run(bytes));
