//! TCP, functional only: [`kvrail_local::tcp`].

use std::error::Error;

use kvrail_local::Region;
use kvrail_local::tcp::{Address, Connection, Server};

use super::{Reach, Serves};
use crate::offer::{RailAddress, TransportKind};

impl Reach for Connection {
    const KIND: TransportKind = TransportKind::Tcp;

    fn reach(address: &RailAddress) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(Self::open(&Address::parse(&address.0)?)?)
    }
}

impl Serves for Server {
    const KIND: TransportKind = TransportKind::Tcp;

    fn address(&self) -> RailAddress {
        RailAddress(self.address().to_bytes())
    }

    fn regions(&self) -> &[Region] {
        self.regions()
    }
}
