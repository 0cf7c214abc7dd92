//! A model of a ConnectX, as far as READs go: the device behind kvrail-mlx5 in its tests.
//!
//! [`Device`] has queue pairs and completion queues in ordinary memory. It walks a send queue as
//! the programmer's manual of the device has it: a write to the doorbell register names the QP and
//! its last entry, the doorbell record says how far the queue was posted, and the entries between
//! are carried out in order, over as many blocks as their size says. Signaled READs and failed ones
//! are answered by completion queue entries. Any syndrome can be injected, and what follows an
//! error is flushed. Whatever a device would not understand is a panic, since it is a fault of the
//! code under test.
//!
//! Its numbers are its own: it shares no constant with kvrail-mlx5.
//!
//! [`Mlx5Rails`] is a provider over kvrail-mlx5 and this device. The conformance suite, the fuzz
//! target `mlx5_entries` and the benchmarks use it. It has not been compared with a real device.

mod device;
mod entry;
mod memory_map;
mod provider;
mod shared;

pub use device::{Device, Fate};
pub use entry::{Found, FoundPiece};
pub use memory_map::MemoryMap;
pub use provider::{Mlx5Lane, Mlx5NoRoom, Mlx5Post, Mlx5Rails, NeverAsleep, SGES};
