//! Nothing: this package holds the bench `data_path`, which needs gungraun's runner and valgrind.
