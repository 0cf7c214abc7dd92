#![no_main]

use kvrail_fuzz::targets::session_message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| session_message::run(bytes));
