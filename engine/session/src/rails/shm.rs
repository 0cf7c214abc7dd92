//! Shared memory: [`kvrail_local::shm`].

use std::error::Error;

use kvrail_local::Region;
use kvrail_local::shm::{Address, Exporter, Peer};

use super::{Reach, Serves};
use crate::offer::{RailAddress, TransportKind};

impl Reach for Peer {
    const KIND: TransportKind = TransportKind::Shm;

    fn reach(address: &RailAddress) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(Self::connect(&Address::parse(&address.0)?)?)
    }
}

impl Serves for Exporter {
    const KIND: TransportKind = TransportKind::Shm;

    fn address(&self) -> RailAddress {
        RailAddress(self.address().to_bytes())
    }

    fn regions(&self) -> &[Region] {
        self.regions()
    }
}
