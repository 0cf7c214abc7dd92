#![no_main]

use kvrail_fuzz::targets::mlx5_entries;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| mlx5_entries::run(bytes));
