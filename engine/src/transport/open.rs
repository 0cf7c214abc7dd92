//! Rails whose lanes need no exchange with the producer: a reader connects to the address in a
//! rail's description, and each of its lanes is one more user of that address.
//!
//! The address may hold the secret that opens the memory. It travels authenticated and not
//! encrypted: a listener between the peers can read it.

use std::fmt;

use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_session::{
    LaneAcceptor, LaneBlob, LaneDialer, LaneEndError, Name, RailAddress, RailDescription, RailList,
    TransportKind,
};

use super::TransportError;

/// The acceptor of a producer whose lanes need no exchange: it grants every request for a lane.
#[derive(Clone, Debug)]
pub struct OpenRails(pub RailList);

impl OpenRails {
    /// `count` rails of one kind at one address.
    ///
    /// # Errors
    ///
    /// No rails, or more than [`MAX_RAILS`].
    pub(crate) fn new(
        kind: TransportKind,
        address: [u8; 64],
        nominal_bytes_per_sec: u64,
        count: usize,
    ) -> Result<Self, TransportError> {
        if count == 0 {
            return Err("no rails: give 1 to 16".into());
        }
        if count > MAX_RAILS {
            return Err(format!("{count} rails: give 1 to {MAX_RAILS}").into());
        }
        Ok(Self(describe(kind, RailAddress(address), nominal_bytes_per_sec, count)))
    }
}

impl LaneAcceptor for OpenRails {
    type Lane = ();

    fn rails(&self) -> RailList {
        self.0.clone()
    }

    fn accept(&self, _: RailIndex, _: &LaneBlob) -> Result<((), LaneBlob), LaneEndError> {
        Ok(((), LaneBlob::EMPTY))
    }

    fn release(&self, (): ()) {}
}

/// The dialer for [`OpenRails`]. The connection to a rail's address is the unopened lane, `L`.
pub struct OpenDialer<L> {
    kind: TransportKind,
    rails: RailList,
    reach: fn(&RailAddress) -> Result<L, TransportError>,
}

impl<L> OpenDialer<L> {
    /// A dialer for `count` rails of the reader. `reach` connects to an address of the producer,
    /// and may block for some seconds.
    pub(crate) fn new(
        kind: TransportKind,
        nominal_bytes_per_sec: u64,
        count: usize,
        reach: fn(&RailAddress) -> Result<L, TransportError>,
    ) -> Self {
        let nowhere = RailAddress([0; 64]);
        Self { kind, rails: describe(kind, nowhere, nominal_bytes_per_sec, count), reach }
    }
}

impl<L> LaneDialer for OpenDialer<L> {
    type UnopenedLane = L;
    type Pending = L;

    fn rails(&self) -> RailList {
        self.rails.clone()
    }

    fn prepare(&mut self, rail: RailIndex, remote: &RailDescription) -> Result<(L, LaneBlob), LaneEndError> {
        if rail.get() >= self.rails.len() {
            return Err(LaneEndError::new(rail, format!("there are {} rails", self.rails.len())));
        }
        if remote.kind != self.kind {
            let text = format!("the producer's rail {} is {}, not {}", remote.name, remote.kind, self.kind);
            return Err(LaneEndError::new(rail, text));
        }
        let lane = (self.reach)(&remote.address).map_err(|error| LaneEndError::new(rail, error))?;
        Ok((lane, LaneBlob::EMPTY))
    }

    fn connect(&mut self, pending: L, _: &RailDescription, _: &LaneBlob) -> Result<L, LaneEndError> {
        Ok(pending)
    }
}

impl<L> fmt::Debug for OpenDialer<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenDialer").field("rails", &self.rails).finish_non_exhaustive()
    }
}

/// The first `count` rails of one kind, all at one address.
fn describe(kind: TransportKind, address: RailAddress, nominal_bytes_per_sec: u64, count: usize) -> RailList {
    let rail = |index| {
        let name = Name::lossy(&format!("{kind}{index}"));
        RailDescription { name, kind, address, nominal_bytes_per_sec, numa: None, lanes: 0 }
    };
    (0..count.min(MAX_RAILS)).map(rail).collect()
}
