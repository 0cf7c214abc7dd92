//! TCP, functional only: [`kvrail_local::tcp`].

use std::error::Error;

use kvrail_local::ExportedRegion;
use kvrail_local::tcp::{TcpAddress, TcpConnection, TcpServer};

use super::{Reach, Serves};
use crate::offer::{RailAddress, TransportKind};

impl Reach for TcpConnection {
    const KIND: TransportKind = TransportKind::Tcp;

    fn reach(address: &RailAddress) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(Self::open(&TcpAddress::parse(&address.0)?)?)
    }
}

impl Serves for TcpServer {
    const KIND: TransportKind = TransportKind::Tcp;

    fn address(&self) -> RailAddress {
        RailAddress(self.address().to_bytes())
    }

    fn regions(&self) -> &[ExportedRegion] {
        self.regions()
    }
}
