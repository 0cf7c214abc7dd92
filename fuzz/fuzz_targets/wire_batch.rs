#![no_main]

use kvrail_fuzz::targets::wire_batch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| wire_batch::run(bytes));
