//! What the targets share: a device that walks work requests, and rails made of it.

pub mod device;
pub mod rails;
