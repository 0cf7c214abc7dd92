//! The rails that need no NIC, plugged in.
//!
//! Both are one-sided in the same way: the producer serves memory at an address of 64 bytes, which its
//! rail's description carries, and a lane is one more user of that address. So a lane needs no exchange
//! of its own: the ends are [`LaneBlob::EMPTY`].
//!
//! A lane here is what a provider ([`kvrail_local::LocalProvider`]) opens, not yet a lane of one: making it
//! blocks, and so belongs on a control thread, while the provider belongs to its engine, which
//! opens the lane as part of `Engine::attach`.
//!
//! The address holds the secrets that open the memory. It travels authenticated, and not encrypted: who
//! can listen between the peers can read it.

mod shm;
mod tcp;

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;

use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::provider::RailKeys;
use kvrail_local::{ExportedRegion, LocalConfig};

use crate::fabric::{Fabric, FabricError, Responder};
use crate::list::List;
use crate::name::Name;
use crate::offer::{LaneBlob, RailAddress, RailDescription, Rails, TransportKind};

/// Shared memory, as a reader uses it.
pub type ShmFabric = LocalFabric<kvrail_local::shm::ShmPeer>;
/// TCP, as a reader uses it. Functional only.
pub type TcpFabric = LocalFabric<kvrail_local::tcp::TcpConnection>;
/// Shared memory, as a producer serves it.
pub type ShmResponder = LocalResponder<kvrail_local::shm::ShmExporter>;
/// TCP, as a producer serves it. Functional only.
pub type TcpResponder = LocalResponder<kvrail_local::tcp::TcpServer>;

/// A reader's way to a producer's memory.
pub trait Reach: Sized {
    /// What it is.
    const KIND: TransportKind;

    /// Gets there, within ten seconds for each step of it.
    ///
    /// # Errors
    ///
    /// The transport's.
    fn reach(address: &RailAddress) -> Result<Self, Box<dyn Error + Send + Sync>>;
}

/// What makes a producer's memory readable for as long as it lives.
pub trait Serves: Send + Sync + 'static {
    /// What it is.
    const KIND: TransportKind;

    /// Where readers get at it.
    fn address(&self) -> RailAddress;

    /// What it serves.
    fn regions(&self) -> &[ExportedRegion];
}

fn describe(
    kind: TransportKind,
    index: usize,
    address: RailAddress,
    nominal_bytes_per_sec: u64,
) -> RailDescription {
    let name = Name::lossy(&format!("{kind}{index}"));
    RailDescription { name, kind, address, nominal_bytes_per_sec, numa: None, lanes: 0 }
}

/// The reader's side of shared memory or TCP. Its lanes are `T`s.
pub struct LocalFabric<T> {
    rails: Rails,
    reach: PhantomData<fn() -> T>,
}

impl<T: Reach> LocalFabric<T> {
    /// For rails that are started with `config`.
    #[must_use]
    pub fn new(config: &LocalConfig) -> Self {
        let nowhere = RailAddress([0; 64]);
        let rail = |index| describe(T::KIND, index, nowhere, config.nominal_bytes_per_sec);
        let rails = (0..config.rails.min(MAX_RAILS)).map(rail).collect();
        Self { rails: List::new(rails).unwrap_or_default(), reach: PhantomData }
    }
}

impl<T> fmt::Debug for LocalFabric<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalFabric").field("rails", &self.rails).finish()
    }
}

impl<T: Reach> Fabric for LocalFabric<T> {
    type Lane = T;
    type Pending = T;

    fn rails(&self) -> Rails {
        self.rails.clone()
    }

    fn prepare(&mut self, rail: RailIndex, remote: &RailDescription) -> Result<(T, LaneBlob), FabricError> {
        if rail.get() >= self.rails.len() {
            return Err(FabricError::new(rail, format!("there are {} rails", self.rails.len())));
        }
        if remote.kind != T::KIND {
            let text = format!("the producer's rail {} is {}, not {}", remote.name, remote.kind, T::KIND);
            return Err(FabricError::new(rail, text));
        }
        let lane = T::reach(&remote.address).map_err(|error| FabricError::new(rail, error))?;
        Ok((lane, LaneBlob::EMPTY))
    }

    fn connect(&mut self, pending: T, _: &RailDescription, _: &LaneBlob) -> Result<T, FabricError> {
        Ok(pending)
    }
}

/// The producer's side of shared memory or TCP: one rail. Keeps its `S` alive.
#[derive(Debug)]
pub struct LocalResponder<S> {
    serves: S,
    nominal_bytes_per_sec: u64,
}

impl<S: Serves> LocalResponder<S> {
    /// Readers may read what `serves` serves, at `nominal_bytes_per_sec` at best.
    pub const fn new(serves: S, nominal_bytes_per_sec: u64) -> Self {
        Self { serves, nominal_bytes_per_sec }
    }

    /// What it serves, to make region offers of: see [`keys`].
    pub fn regions(&self) -> &[ExportedRegion] {
        self.serves.regions()
    }
}

/// The keys of a region of one of these transports, for a [`RegionOffer`](kvrail_core::remote::RegionOffer): the
/// same on every rail.
#[must_use]
pub const fn keys(region: &ExportedRegion) -> RailKeys {
    [region.rkey; MAX_RAILS]
}

impl<S: Serves> Responder for LocalResponder<S> {
    type Lane = ();

    fn rails(&self) -> Rails {
        let rail = describe(S::KIND, 0, self.serves.address(), self.nominal_bytes_per_sec);
        List::new(vec![rail]).unwrap_or_default()
    }

    /// Who serves is always ready.
    fn accept(&self, rail: RailIndex, remote_lane: &LaneBlob) -> Result<((), LaneBlob), FabricError> {
        if *remote_lane != LaneBlob::EMPTY {
            return Err(FabricError::new(rail, format!("a {} lane has no ends to exchange", S::KIND)));
        }
        Ok(((), LaneBlob::EMPTY))
    }

    /// A lane has nothing of its own here.
    fn release(&self, (): ()) {}
}
