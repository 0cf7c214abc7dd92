//! Arbitrary bytes are a block list that encodes to the same bytes, or an error that can be
//! printed. Arbitrary pages give a block list within its limit of bytes, which holds the same pages
//! after parsing.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kvrail_fuzz::targets::wire_batch::run(bytes));
