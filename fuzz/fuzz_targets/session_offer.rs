#![no_main]

use kvrail_fuzz::targets::session_offer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| session_offer::run(bytes));
