#![no_main]

use kvrail_fuzz::targets::record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| record::run(bytes));
