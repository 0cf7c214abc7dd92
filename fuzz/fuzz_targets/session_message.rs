//! Arbitrary bytes are a message that encodes to the same bytes, or an error that can be printed.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kvrail_fuzz::targets::session_message::run(bytes));
