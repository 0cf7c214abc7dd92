//! The linker gets no C library and none of its start files, at fixed addresses: a program that
//! moves itself while it starts would need a loader.

fn main() {
    for flag in ["-nostdlib", "-nostartfiles", "-static", "-no-pie"] {
        println!("cargo:rustc-link-arg-bins={flag}");
    }
}
