//! A producer's transport that has one rail and grants every lane: for tests that are not about
//! lanes.

use kvrail_core::id::RailIndex;
use kvrail_session::{
    LaneAcceptor, LaneBlob, LaneEndError, Name, RailAddress, RailDescription, RailList, TransportKind,
};

pub(crate) struct OneRail;

impl LaneAcceptor for OneRail {
    type Lane = ();

    fn rails(&self) -> RailList {
        let rail = RailDescription {
            name: Name::lossy("rail"),
            kind: TransportKind::Verbs,
            address: RailAddress([0; 64]),
            nominal_bytes_per_sec: 1,
            numa: None,
            lanes: 0,
        };
        [rail].into_iter().collect()
    }

    fn accept(&self, _: RailIndex, _: &LaneBlob) -> Result<((), LaneBlob), LaneEndError> {
        Ok(((), LaneBlob::EMPTY))
    }

    fn release(&self, (): ()) {}
}
