//! An arbitrary declaration is refused with a reason, or gives a geometry whose elements lie apart
//! and inside their regions.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kvrail_fuzz::targets::declaration::run(bytes));
