//! The trait that the author of a provider implements for the suite.

use kvrail_core::id::RailIndex;
use kvrail_core::provider::{Provider, RailKeys, Wake as _};
use kvrail_core::time::{Nanos, Time};

use crate::destination::Destination;

/// The memory that READs take bytes from: [`BYTES`](crate::BYTES) bytes, of which byte `i` is
/// [`pattern(i)`](crate::pattern).
#[derive(Clone, Copy, Debug)]
pub struct RemoteBytes {
    /// The address of the first byte, for the counterpart.
    pub base: u64,
    /// The counterpart's key for the memory, on each of its rails.
    pub rkeys: RailKeys,
}

/// What a provider can do. Cases that need another ability are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// READs move bytes.
    pub moves_bytes: bool,
    /// A READ by a wrong remote key, or of other bytes than were published, fails.
    pub checks_remote: bool,
    /// A READ into memory that is not registered with the key that it names fails.
    pub checks_local: bool,
}

impl Abilities {
    /// Everything: the abilities of a provider that moves pages.
    pub const ALL: Self = Self { moves_bytes: true, checks_remote: true, checks_local: true };
}

/// A provider under test, a counterpart with memory to read, and a clock.
///
/// The suite makes one for each case; some cases make two.
pub trait Rig: Sized {
    /// The provider under test.
    type Provider: Provider;

    /// What the provider can do.
    const ABILITIES: Abilities;

    /// The most READs outstanding on a lane, the drain wr not counted: 4 to 64. The suite is
    /// quicker with fewer. Every rail must have room for four lanes of this depth.
    const DEPTH: u32;

    /// How long a case waits for something that must come, before it fails; a `wait` that is to end
    /// for a reason may take a quarter of it. An emulated device needs more than a real one.
    const TIME_LIMIT: Nanos = Nanos::from_secs(20);

    /// Makes a rig, whose counterpart has memory to read.
    fn new() -> Self;

    /// As [`new`](Self::new), with a provider whose control thread is slow: `LaneFailed` and
    /// `LaneClosed` come long after the calls of `fail` and `close`. `None` if there is no such
    /// thread, or it cannot be slowed.
    fn slow() -> Option<Self> {
        None
    }

    /// Makes the provider. The suite calls it once.
    fn provider(&mut self) -> Self::Provider;

    /// Connects a lane from `rail` of `provider` to the counterpart's memory.
    fn connect(
        &mut self,
        provider: &mut Self::Provider,
        rail: RailIndex,
    ) -> <Self::Provider as Provider>::Unopened;

    /// The counterpart's memory.
    fn remote(&self) -> RemoteBytes;

    /// Memory to read into: [`Destination::new`] over memory that is never freed.
    fn destination(&mut self) -> Destination;

    /// The time of the clock that the provider's `wait` uses.
    fn now(&self) -> Time;

    /// Lets time pass without calling the provider, which may have been dropped already.
    fn pass(&mut self, time: Nanos);

    /// Whether the provider's descriptor is readable, by poll(2). `None`, the default, if it has no
    /// descriptor: then the cases about [arming](Provider::arm) are skipped.
    fn readable(&self, provider: &Self::Provider) -> Option<bool> {
        let _ = provider;
        None
    }

    /// Wakes `provider`'s present or next `wait`; from another thread, where there are threads.
    fn wake(&mut self, provider: &Self::Provider) {
        provider.waker().wake();
    }
}
