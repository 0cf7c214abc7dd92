//! Bytes from a stranger: a block list that encodes to the same bytes, or an error that can be printed. And any
//! pages: a list that says them, in no more bytes than it may be, and is the same after parsing.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kvrail_fuzz::targets::wire_batch::run(bytes));
