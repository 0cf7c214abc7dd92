#![no_main]

use kvrail_fuzz::targets::wr_chain;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: wr_chain::Input| wr_chain::run(&input));
