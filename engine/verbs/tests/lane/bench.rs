//! One rail and one lane without an engine: READs are posted by hand.

use std::time::{Duration, Instant};

use kvrail_core::id::{LaneId, RailIndex, WrId};
use kvrail_core::provider::{Commit, MemoryRange, Post as _, Provider as _, ProviderEvent, Read};
use kvrail_core::verbs_abi::Wc;
use kvrail_verbs::{
    AcceptedLane, QpAcceptor, QpDialer, Rights, Side, Verbs, VerbsConfig, VerbsLane, VerbsRegion, rail,
};

use super::{Devices, HANGS};

/// The byte that fills the source.
pub(crate) const SOURCE: u8 = 0x5A;
const RAIL: RailIndex = RailIndex(0);

/// One lane without an engine, and its memory.
pub(crate) struct Bench {
    pub(crate) verbs: Verbs,
    pub(crate) lane: VerbsLane,
    pub(crate) id: LaneId,
    far: Vec<AcceptedLane>,
    dialer: QpDialer,
    acceptor: QpAcceptor,
    source: Option<VerbsRegion>,
    from: MemoryRange,
    pub(crate) to: &'static mut [u8],
    lkey: u32,
    rkey: u32,
    /// Bytes of a READ.
    bytes: u32,
}

fn range(memory: &mut [u8]) -> MemoryRange {
    MemoryRange { addr: memory.as_mut_ptr().expose_provenance() as u64, len: memory.len() as u64 }
}

fn connected(
    verbs: &mut Verbs,
    id: LaneId,
    dialer: &QpDialer,
    acceptor: &QpAcceptor,
) -> (VerbsLane, AcceptedLane) {
    let remote = acceptor.rails()[0].end().unwrap().encode();
    let (pending, ours) = dialer.prepare(0, &remote).unwrap();
    let (accepted, theirs) = acceptor.accept(0, &ours).unwrap();
    (verbs.open(id, RAIL, dialer.connect(pending, &theirs).unwrap()).unwrap(), accepted)
}

impl Bench {
    /// The id of the lane that it begins with.
    pub(crate) const ID: LaneId = LaneId::new(0, 1);

    /// With memory for `reads` READs of `bytes` bytes at each end.
    pub(crate) fn new(fabric: &Devices, reads: u32, bytes: u32) -> Self {
        let first = |rails: &str| if rails == "auto" { rails.into() } else { rails[..3].to_owned() };
        let mut verbs = Verbs::open_rails(&first(&fabric.reader), VerbsConfig::DEFAULT).unwrap();
        let ports = rail::open(&first(&fabric.producer), VerbsConfig::DEFAULT, Side::Producer).unwrap();
        let all = (reads * bytes) as usize;
        let source = kvrail::memory::leaked(all).unwrap();
        source.fill(SOURCE);
        let from = range(source);
        let region = VerbsRegion::new(&ports, from, Rights::RemoteRead).unwrap();
        let to = kvrail::memory::leaked(all).unwrap();
        let lkey = verbs.register(range(to)).unwrap()[0];
        let (dialer, acceptor) = (QpDialer::new(verbs.ports()), QpAcceptor::new(ports).unwrap());
        let (lane, accepted) = connected(&mut verbs, Self::ID, &dialer, &acceptor);
        let (rkey, far) = (region.keys()[0], vec![accepted]);
        Self {
            verbs,
            lane,
            id: Self::ID,
            far,
            dialer,
            acceptor,
            source: Some(region),
            from,
            to,
            lkey,
            rkey,
            bytes,
        }
    }

    /// Another lane of the rail.
    pub(crate) fn another(&mut self, id: LaneId) -> VerbsLane {
        let (lane, accepted) = connected(&mut self.verbs, id, &self.dialer, &self.acceptor);
        self.far.push(accepted);
        lane
    }

    /// Takes another lane for this one, which is closed, with its far end, and waits until it is.
    pub(crate) fn replace_lane(&mut self, id: LaneId) {
        let lane = self.another(id);
        let closed = std::mem::replace(&mut self.id, id);
        self.verbs.close(std::mem::replace(&mut self.lane, lane));
        self.hears(ProviderEvent::LaneClosed(closed));
        self.far.drain(..self.far.len() - 1);
    }

    /// Releases the region of the source: READs of it fail from now on.
    pub(crate) fn deregister(&mut self) {
        self.source = None;
    }

    /// Registers the source again, with another key.
    pub(crate) fn register_again(&mut self) {
        let region = VerbsRegion::new(self.acceptor.rails(), self.from, Rights::RemoteRead).unwrap();
        self.rkey = region.keys()[0];
        self.source = Some(region);
    }

    /// Posts so many READs, the first with sequence number `first`, each to a place of its own, and
    /// asks for the completion of the last one.
    pub(crate) fn post(&mut self, first: u32, reads: u32) {
        self.post_signaled(first, reads, |last| last);
    }

    /// The same. `signaled` says of which of them completions are asked for; it is told whether
    /// they are the last.
    pub(crate) fn post_signaled(&mut self, first: u32, reads: u32, signaled: impl Fn(bool) -> bool) {
        let to = range(self.to);
        let (from, rkey, lkey, len, id) = (self.from, self.rkey, self.lkey, self.bytes, self.id);
        // SAFETY: the destination is looked at only when the lane writes no more.
        let mut post = unsafe { self.verbs.begin(&mut self.lane) };
        for n in 0..reads {
            let offset = u64::from(n * len);
            post.read(Read {
                wr_id: WrId::new(id, first + n),
                remote_addr: from.addr + offset,
                local_addr: to.addr + offset,
                len,
                rkey,
                lkey,
                signaled: signaled(n + 1 == reads),
            });
        }
        assert_eq!(post.commit(), Commit::All);
    }

    /// Polls until the completion of `last`, for `limit` at most, and returns all completions.
    pub(crate) fn completions(&mut self, last: Option<WrId>, limit: Duration) -> Vec<Wc> {
        let (start, mut all) = (Instant::now(), Vec::new());
        while start.elapsed() < limit {
            let mut some = [Wc::default(); 32];
            let n = self.verbs.poll(RAIL, &mut some);
            all.extend_from_slice(&some[..n]);
            if last.is_some_and(|last| all.iter().any(|wc| wc.wr_id() == last)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        all
    }

    /// Waits for the next event, which must be `wanted`.
    pub(crate) fn hears(&mut self, wanted: ProviderEvent) {
        let start = Instant::now();
        loop {
            match self.verbs.next_event() {
                Some(ProviderEvent::RailDown(_) | ProviderEvent::RailUp(_)) => {}
                Some(event) => {
                    assert_eq!(event, wanted);
                    return;
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
            assert!(start.elapsed() < HANGS, "no {wanted:?}");
        }
    }
}
