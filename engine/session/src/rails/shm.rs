//! Shared memory: [`kvrail_local::shm`].

use std::error::Error;

use kvrail_local::ExportedRegion;
use kvrail_local::shm::{ShmAddress, ShmExporter, ShmPeer};

use super::{Reach, Serves};
use crate::offer::{RailAddress, TransportKind};

impl Reach for ShmPeer {
    const KIND: TransportKind = TransportKind::Shm;

    fn reach(address: &RailAddress) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(Self::connect(&ShmAddress::parse(&address.0)?)?)
    }
}

impl Serves for ShmExporter {
    const KIND: TransportKind = TransportKind::Shm;

    fn address(&self) -> RailAddress {
        RailAddress(self.address().to_bytes())
    }

    fn regions(&self) -> &[ExportedRegion] {
        self.regions()
    }
}
