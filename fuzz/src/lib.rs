//! The fuzz targets, callable without a fuzzer; and what they share: a device that walks work
//! requests, and rails made of it.

pub mod device;
pub mod rails;
pub mod targets;
