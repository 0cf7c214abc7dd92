//! Null rails, the first of which can break: what completes there is an error then.

use std::cell::Cell;

use kvrail::core::id::{LaneId, RailIndex, WrId};
use kvrail::core::provider::{
    MemoryRange, Provider, ProviderEvent, RailInfo, RailKeys, RegisterError, WaitFor,
};
use kvrail::core::verbs_abi::{ChainStorage, Wc, WcStatus};
use kvrail_sim::null::{
    Cq, Cqe, NullLane, NullLaneError, NullParts, NullPost, NullRails, NullWaker, Qp, Wqe,
};

const CHAIN: usize = 32;

pub(crate) struct Breaking {
    null: NullRails<'static, CHAIN>,
    /// Whether what the first rail completes has failed.
    pub(crate) broken: Cell<bool>,
}

impl Breaking {
    pub(crate) fn new(rails: usize, lanes: usize, depth: usize) -> Self {
        let parts = NullParts {
            cqs: vec![Cq::NEW; rails].leak(),
            cqes: vec![Cqe::NEW; rails * (lanes * depth).next_power_of_two()].leak(),
            qps: vec![Qp::NEW; lanes].leak(),
            wqes: vec![Wqe::NEW; lanes * depth].leak(),
        };
        let chain = Box::leak(Box::new(ChainStorage::new()));
        Self { null: NullRails::new(parts, chain).expect("parts that fit"), broken: Cell::new(false) }
    }
}

// SAFETY: the null rails keep the promises. A completion that is turned into an error says less
// than it did: the engine may not believe that the READ has written anything.
unsafe impl Provider for Breaking {
    const CHAIN: usize = CHAIN;
    type Unopened = ();
    type Lane = NullLane<'static>;
    type OpenError = NullLaneError;
    type Post<'a> = NullPost<'a, 'static, CHAIN>;
    type Waker = NullWaker;

    fn rails(&self) -> usize {
        self.null.rails()
    }
    fn rail(&self, rail: RailIndex) -> RailInfo {
        self.null.rail(rail)
    }
    fn register(&mut self, range: MemoryRange) -> Result<RailKeys, RegisterError> {
        self.null.register(range)
    }
    fn deregister(&mut self, range: MemoryRange, keys: &RailKeys) {
        self.null.deregister(range, keys);
    }
    fn open(&mut self, id: LaneId, rail: RailIndex, (): ()) -> Result<NullLane<'static>, NullLaneError> {
        self.null.open(id, rail, ())
    }
    #[inline]
    unsafe fn begin<'a>(&'a mut self, lane: &'a mut NullLane<'static>) -> NullPost<'a, 'static, CHAIN> {
        // SAFETY: the caller's promise.
        unsafe { self.null.begin(lane) }
    }
    #[inline]
    fn poll(&mut self, rail: RailIndex, out: &mut [Wc]) -> usize {
        let count = self.null.poll(rail, out);
        if self.broken.get() && rail.0 == 0 {
            for (place, wc) in out[..count].iter_mut().enumerate() {
                let status = if place == 0 { WcStatus::RETRY_EXC_ERR } else { WcStatus::WR_FLUSH_ERR };
                *wc = Wc::new(wc.wr_id(), status, 0, wc.qp_num());
            }
        }
        count
    }
    fn fail(&mut self, lane: &mut NullLane<'static>) {
        self.null.fail(lane);
    }
    fn drain(&mut self, lane: &mut NullLane<'static>, wr_id: WrId) -> Result<(), i32> {
        self.null.drain(lane, wr_id)
    }
    fn close(&mut self, lane: NullLane<'static>) {
        self.null.close(lane);
    }
    #[inline]
    fn next_event(&mut self) -> Option<ProviderEvent> {
        self.null.next_event()
    }
    fn wait(&mut self, wait: WaitFor) {
        self.null.wait(wait);
    }
    fn waker(&self) -> NullWaker {
        self.null.waker()
    }
}
