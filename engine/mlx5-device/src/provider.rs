//! A provider over kvrail-mlx5 and the model of a device.
#![allow(unsafe_code, reason = "implements the engine's contract")]

use std::collections::VecDeque;

use kvrail_core::id::{LaneId, MAX_RAILS, ProviderId, RailIndex, WrId};
use kvrail_core::provider::{
    Commit, Ends, KeyedEnds, KeyedReads, MemoryRange, Piece, Post, Provider, ProviderEvent, RailInfo,
    RailKeys, Read, RegisterError, UniformReads, WaitFor, Wake,
};
use kvrail_core::verbs_abi::Wc;
use kvrail_mlx5::{DirectPost, DirectQueueError, DirectRails, Distrusted, QueuePlace, QueueRef};

use crate::device::Device;

/// The most READs in one commit.
const CHAIN: usize = 32;
/// The most pieces of a READ.
pub const SGES: u32 = 16;
/// The errno for a lane of another provider.
const EINVAL: i32 = 22;

/// Rails over a [`Device`].
#[derive(Debug)]
pub struct Mlx5Rails {
    // Dropped before the device, whose memory it uses.
    direct: DirectRails<Box<[QueuePlace]>>,
    device: Device,
    rails: usize,
    cq_entries: u32,
    /// Blocks of a lane's send queue.
    blocks: u32,
    /// Entries that a rail carries out in one poll.
    pace: usize,
    events: VecDeque<ProviderEvent>,
    id: ProviderId,
}

/// A lane: a QP of the device.
#[derive(Debug)]
pub struct Mlx5Lane {
    queue: QueueRef,
    qp_num: u32,
    rail: usize,
    provider: ProviderId,
    id: LaneId,
}

/// There is no such rail, or no place for another lane.
pub type Mlx5NoRoom = DirectQueueError;

impl Mlx5Rails {
    /// Rails over a device, with send queues of `blocks` basic blocks for at most `lanes` lanes.
    ///
    /// # Errors
    ///
    /// The numbers are out of their ranges.
    ///
    /// # Panics
    ///
    /// Unless `cq_entries` is a power of two.
    pub fn new(
        device: Device,
        rails: usize,
        cq_entries: u32,
        (lanes, blocks): (usize, u32),
    ) -> Result<Self, DirectQueueError> {
        let places = (0..(2 * lanes).next_power_of_two()).map(|_| QueuePlace::EMPTY).collect();
        let mut direct = DirectRails::<Box<[QueuePlace]>>::new(places)?;
        for rail in 0..rails {
            let memory = device.completion_queue(rail);
            // SAFETY: the device's memory, which lives until `direct` has been dropped and which
            // only the two of them use.
            unsafe { direct.add_rail(RailIndex(rail as u8), memory)? };
        }
        let (events, id, pace) = (VecDeque::new(), ProviderId::new(), usize::MAX);
        Ok(Self { direct, device, rails, cq_entries, blocks, pace, events, id })
    }

    /// The device, to plan faults and to see what it has found.
    pub const fn device(&mut self) -> &mut Device {
        &mut self.device
    }

    /// From now on each poll carries out at most so many entries of its rail.
    pub const fn set_pace(&mut self, entries: usize) {
        self.pace = entries;
    }

    /// The first QP whose device wrote what cannot be right, since the last call.
    pub fn take_distrusted(&mut self) -> Option<Distrusted> {
        self.direct.take_distrusted()
    }
}

impl Mlx5Lane {
    /// The number of its QP.
    #[must_use]
    pub const fn qp_num(&self) -> u32 {
        self.qp_num
    }
}

/// A commit.
#[derive(Debug)]
pub struct Mlx5Post<'a> {
    post: DirectPost<'a>,
    device: &'a mut Device,
    rail: usize,
}

impl Post for Mlx5Post<'_> {
    #[inline]
    fn read(&mut self, read: Read) {
        self.post.read(read);
    }

    #[inline]
    fn read_uniform(&mut self, reads: UniformReads, ends: impl ExactSizeIterator<Item = Ends>) {
        self.post.read_uniform(reads, ends);
    }

    #[inline]
    fn read_keyed(&mut self, reads: KeyedReads, ends: impl Iterator<Item = KeyedEnds>) {
        self.post.read_keyed(reads, ends);
    }

    #[inline]
    fn scatter(&mut self, read: Read, pieces: &[Piece]) {
        self.post.scatter(read, pieces);
    }

    #[inline]
    fn commit(self) -> Commit {
        let Self { post, device, rail } = self;
        let commit = post.commit();
        device.doorbell(rail);
        commit
    }
}

/// A waker that does nothing, since `wait` never sleeps.
#[derive(Clone, Copy, Debug)]
pub struct NeverAsleep;

impl Wake for NeverAsleep {
    fn wake(&self) {}
}

// SAFETY: the promises of `Provider`:
// 1. and 2. The device writes what the entry of a READ names, in `run`, before it writes the
//    entry's completion; and kvrail-mlx5 writes the pieces of the descriptor into the entry.
// 3. and 4. The device flushes in order, and a QP that was destroyed is not there any more.
// 5. The device runs in calls of this provider only.
// 6. A commit's prefix is what kvrail-mlx5 has rung the doorbell for.
// 7. Lanes carry the provider's id and their own.
unsafe impl Provider for Mlx5Rails {
    const CHAIN: usize = CHAIN;
    type Unopened = ();
    type Lane = Mlx5Lane;
    type OpenError = DirectQueueError;
    type Post<'a> = Mlx5Post<'a>;
    type Waker = NeverAsleep;

    fn rails(&self) -> usize {
        self.rails
    }

    fn rail(&self, _: RailIndex) -> RailInfo {
        RailInfo { nominal_bytes_per_sec: 49_000_000_000, numa: None, cq_entries: self.cq_entries }
    }

    fn sges(&self) -> u32 {
        SGES
    }

    /// The same as for rails over hardware.
    fn read_overhead(&self) -> u32 {
        512
    }

    fn register(&mut self, range: MemoryRange) -> Result<RailKeys, RegisterError> {
        Ok([self.device.memory.register(range.addr, range.len); MAX_RAILS])
    }

    fn deregister(&mut self, _: MemoryRange, keys: &RailKeys) {
        self.device.memory.deregister(keys[0]);
    }

    fn open(&mut self, id: LaneId, rail: RailIndex, (): ()) -> Result<Mlx5Lane, DirectQueueError> {
        if rail.get() >= self.rails {
            return Err(DirectQueueError::Rail { rail: rail.0 });
        }
        let memory = self.device.create(rail.get(), self.blocks);
        let qp_num = memory.qp_num;
        // SAFETY: memory of a QP of the device, made just now, which lives until `close` has closed
        // the queue, or until `direct` has been dropped.
        match unsafe { self.direct.open(rail, memory) } {
            Ok(queue) => Ok(Mlx5Lane { queue, qp_num, rail: rail.get(), provider: self.id, id }),
            Err(error) => {
                self.device.destroy(qp_num);
                Err(error)
            }
        }
    }

    /// # Panics
    ///
    /// For a lane of another provider.
    #[inline]
    unsafe fn begin<'a>(&'a mut self, lane: &'a mut Mlx5Lane) -> Mlx5Post<'a> {
        // SAFETY: our caller's promise.
        let post = unsafe { self.direct.begin(&lane.queue) };
        Mlx5Post { post: post.expect("a lane of this provider"), device: &mut self.device, rail: lane.rail }
    }

    #[inline]
    fn poll(&mut self, rail: RailIndex, out: &mut [Wc]) -> usize {
        self.device.run(rail.get(), self.pace);
        self.direct.poll(rail, out)
    }

    fn fail(&mut self, lane: &mut Mlx5Lane) {
        if lane.provider == self.id {
            self.device.fail(lane.qp_num);
            self.events.push_back(ProviderEvent::LaneFailed(lane.id));
        }
    }

    fn drain(&mut self, lane: &mut Mlx5Lane, wr_id: WrId) -> Result<(), i32> {
        if lane.provider != self.id {
            return Err(EINVAL);
        }
        // SAFETY: the QP is destroyed by `close`, which consumes the lane.
        unsafe { self.direct.drain(&lane.queue, wr_id)? };
        self.device.doorbell(lane.rail);
        Ok(())
    }

    fn close(&mut self, lane: Mlx5Lane) {
        if lane.provider == self.id {
            let Mlx5Lane { queue, qp_num, id, .. } = lane;
            self.direct.close(queue);
            self.device.destroy(qp_num);
            self.events.push_back(ProviderEvent::LaneClosed(id));
        }
    }

    fn next_event(&mut self) -> Option<ProviderEvent> {
        self.events.pop_front()
    }

    /// Returns at once, since the device works when it is polled.
    fn wait(&mut self, _: WaitFor) {}

    fn waker(&self) -> NeverAsleep {
        NeverAsleep
    }
}
