#![no_main]

use kvrail_fuzz::targets::declaration;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: declaration::Draft| declaration::run(&input));
