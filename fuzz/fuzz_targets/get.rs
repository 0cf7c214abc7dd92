#![no_main]

use kvrail_fuzz::targets::get;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| get::run(bytes));
