#![no_main]

use kvrail_fuzz::targets::session_frames;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| session_frames::run(bytes));
