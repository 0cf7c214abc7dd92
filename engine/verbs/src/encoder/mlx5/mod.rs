//! The encoder for ConnectX: it writes work queue entries by itself, with kvrail-mlx5.
//!
//! **It has met no ConnectX yet.** What kvrail-mlx5 writes has been compared with rdma-core's
//! entries and carried out by a model of the device; the calls of libmlx5 here have never run.
#![allow(unsafe_code, reason = "queues of a device")]

mod library;
mod unsuitable;

use std::ptr::NonNull;
use std::sync::Arc;

use kvrail_core::id::{RailIndex, WrId};
use kvrail_core::provider::{Commit, Ends, KeyedEnds, KeyedReads, Piece, Post, Read, UniformReads};
use kvrail_core::verbs_abi::Wc;
use kvrail_mlx5::{DirectPost, DirectRails, PostedWr, QueuePlace, QueueRef, SendQueueMemory};

use self::library::Mlx5Library;
use self::unsuitable::Unsuitable;
use super::contract::{Encoder, EncoderPost};
use super::templates::{CHAIN, SGES};
use crate::cq::CqHandle;
use crate::device::Driver;
use crate::error::{Errno, VerbsLaneError};
use crate::qp::handle::QpHandle;
use crate::qp::states::{Qp, Reset};
use crate::rail::Rail;

const LIBRARY: &str = "libmlx5.so.1";

/// The notes of a send queue. They move while a queue has a pointer to them. Moving a `Vec` leaves
/// that pointer valid, whereas moving a `Box` invalidates every other pointer to its content.
type Notes = Vec<PostedWr>;

fn notes(count: u32) -> Notes {
    vec![PostedWr::EMPTY; count as usize]
}

/// Encodes READs as mlx5 work queue entries, and reads completion queue entries.
#[derive(Debug)]
pub struct Mlx5Encoder {
    direct: DirectRails<Box<[QueuePlace]>>,
    /// The notes of open queues, beside the numbers of their QPs. They outlive their queues.
    notes: Vec<(u32, Notes)>,
    rails: Vec<Arc<Rail>>,
    library: Mlx5Library,
}

/// A lane's place in the encoder.
#[derive(Debug)]
pub struct Mlx5Queue {
    place: QueueRef,
    qp_num: u32,
    rail: RailIndex,
}

impl Mlx5Encoder {
    /// Takes the completion queues of rails over, after a QP and a CQ that are destroyed again have
    /// shown that their devices are as this encoder needs them.
    pub(super) fn new(rails: &[Arc<Rail>]) -> Result<Self, Unsuitable> {
        for rail in rails {
            let name = || rail.name().to_owned();
            if rail.driver() != Driver::Mlx5 {
                return Err(Unsuitable::Driver { rail: name() });
            }
            if !rail.has_thread_domain() {
                return Err(Unsuitable::NoThreadDomain { rail: name() });
            }
        }
        let library = Mlx5Library::open(LIBRARY)?;
        rails.iter().try_for_each(|rail| probe(&library, rail))?;
        let lanes: usize =
            rails.iter().map(|rail| (rail.cq().entries() / rail.depth().max(1)) as usize).sum();
        let places = (2 * lanes).next_power_of_two().max(2);
        let mut direct = DirectRails::new((0..places).map(|_| QueuePlace::EMPTY).collect())?;
        for (rail, index) in rails.iter().zip(0..) {
            // SAFETY: a live CQ of an mlx5 device. No rail drives two engines, and this one has not
            // begun: it was never polled.
            let memory = unsafe { library.completion_queue(rail.cq().raw())? };
            // SAFETY: the queue's own memory, which lives as long as the rail, of which the encoder
            // has an Arc; libmlx5 leaves it alone now.
            unsafe { direct.add_rail(RailIndex(index), memory)? };
        }
        Ok(Self { direct, notes: Vec::with_capacity(lanes), rails: rails.to_vec(), library })
    }

    #[cold]
    fn log_distrusted(&mut self) {
        if let Some(found) = self.direct.take_distrusted() {
            let rail = self.rails.get(found.rail.get()).map_or("?", |rail| rail.name());
            let (qp, code) = (found.qp_num, found.error.code());
            tracing::error!(rail, qp, code, error = %found.error, "a lane is given up: the device's completion cannot be right");
        }
    }
}

/// Makes a QP and a CQ on the rail, looks where their queues lie, and destroys them.
fn probe(library: &Mlx5Library, rail: &Arc<Rail>) -> Result<(), Unsuitable> {
    let failed = |reason: String| Unsuitable::Probe { reason };
    let cq = CqHandle::new(rail.context(), None, 16).map_err(|error| failed(error.to_string()))?;
    // SAFETY: a live CQ of an mlx5 device, made just now.
    unsafe { library.completion_queue(cq.raw())? }.check()?;
    let qp = Qp::<Reset>::new(rail).map_err(|error| failed(error.to_string()))?;
    // SAFETY: a live QP of an mlx5 device.
    let memory = unsafe { library.send_queue(qp.handle().raw(), |_| NonNull::dangling())? };
    check(&memory, rail)
}

fn check(memory: &SendQueueMemory, rail: &Rail) -> Result<(), Unsuitable> {
    memory.check()?;
    // Control and remote address, and a segment for each piece: four segments to a block.
    let (depth, sges) = (rail.depth(), rail.sges().min(SGES as u32));
    let wanted = u64::from(depth) * u64::from((2 + sges).div_ceil(4));
    if u64::from(memory.count) < wanted {
        return Err(Unsuitable::Short { blocks: memory.count, depth, sges });
    }
    Ok(())
}

// SAFETY: the promises of `Encoder`:
// - A READ is one entry with its descriptor's local range as one data segment, or its pieces as
//   several (kvrail-mlx5). An RC QP executes entries in order and completes them in order, and a
//   completion is in the queue after its data (IBTA vol. 1, 9.5, 10.8.3).
// - `drain` posts a signaled entry behind all others.
// - kvrail-mlx5 rings the doorbell for the entries that it says are accepted, and in `commit`
//   alone.
// - A queue is the place of the QP that it was opened on. Dropping it touches nothing.
unsafe impl Encoder for Mlx5Encoder {
    const CHAIN: usize = CHAIN;
    const SGES: usize = SGES;
    type Queue = Mlx5Queue;
    type Post<'a> = Mlx5Post<'a>;

    fn open(&mut self, qp: &QpHandle) -> Result<Mlx5Queue, VerbsLaneError> {
        let refused = |error: Unsuitable| {
            tracing::error!(?qp, %error, "a QP cannot be posted to by mlx5 entries");
            qp.rail().context().error("mlx5dv_init_obj", Errno(libc::EOPNOTSUPP))
        };
        let place = self.rails.iter().position(|rail| Arc::ptr_eq(rail, qp.rail()));
        // Rails are at most 16.
        let rail = RailIndex(place.unwrap_or(usize::from(u8::MAX)) as u8);
        let mut kept = None;
        let keep = |count| {
            let notes = kept.insert(notes(count));
            NonNull::from(notes.as_mut_slice()).cast()
        };
        // SAFETY: a live QP of an mlx5 device: `new` has looked at the driver of each rail, and
        // `open` below refuses a rail of another driver.
        let memory = unsafe { self.library.send_queue(qp.raw(), keep) }.map_err(refused)?;
        check(&memory, qp.rail()).map_err(refused)?;
        // SAFETY: the QP's own memory, which lives until it is destroyed, and `close` comes before;
        // notes that are kept until `close`, too, and that nothing else looks at; the register is
        // that of the rail's thread domain, which lives as long as the rail. Nothing was posted to
        // the QP, and only this encoder posts to it. Two QPs that are alive have different numbers.
        let opened = unsafe { self.direct.open(rail, memory) };
        let place = opened.map_err(|error| refused(error.into()))?;
        if let Some(notes) = kept {
            self.notes.push((u32::from(rail.0) << 24 | memory.qp_num, notes));
        }
        Ok(Mlx5Queue { place, qp_num: memory.qp_num, rail })
    }

    #[inline]
    unsafe fn begin<'a>(&'a mut self, queue: &'a mut Mlx5Queue) -> Mlx5Post<'a> {
        // SAFETY: our caller's promise.
        Mlx5Post(unsafe { self.direct.begin(&queue.place) })
    }

    unsafe fn drain(&mut self, queue: &mut Mlx5Queue, wr_id: WrId) -> Result<(), i32> {
        // SAFETY: our caller's promise.
        unsafe { self.direct.drain(&queue.place, wr_id) }
    }

    fn close(&mut self, queue: Mlx5Queue) {
        let Mlx5Queue { place, qp_num, rail } = queue;
        self.direct.close(place);
        let key = u32::from(rail.0) << 24 | qp_num;
        if let Some(at) = self.notes.iter().position(|(known, _)| *known == key) {
            self.notes.swap_remove(at);
        }
    }

    #[inline]
    fn poll(&mut self, rail: RailIndex, _: &CqHandle, out: &mut [Wc]) -> Result<usize, i32> {
        let n = self.direct.poll(rail, out);
        if self.direct.has_distrusted() {
            self.log_distrusted();
        }
        Ok(n)
    }

    fn arm(&mut self, rail: RailIndex, _: &CqHandle) -> bool {
        self.direct.arm(rail)
    }
}

/// A commit. `None` where the queue is not open, which the provider does not let happen.
#[derive(Debug)]
pub struct Mlx5Post<'a>(Option<DirectPost<'a>>);

impl Post for Mlx5Post<'_> {
    #[inline]
    fn read(&mut self, read: Read) {
        if let Some(post) = &mut self.0 {
            post.read(read);
        }
    }

    #[inline]
    fn read_uniform(&mut self, reads: UniformReads, ends: impl ExactSizeIterator<Item = Ends>) {
        if let Some(post) = &mut self.0 {
            post.read_uniform(reads, ends);
        }
    }

    #[inline]
    fn read_keyed(&mut self, reads: KeyedReads, ends: impl Iterator<Item = KeyedEnds>) {
        if let Some(post) = &mut self.0 {
            post.read_keyed(reads, ends);
        }
    }

    #[inline]
    fn scatter(&mut self, read: Read, pieces: &[Piece]) {
        if let Some(post) = &mut self.0 {
            post.scatter(read, pieces);
        }
    }

    #[inline]
    fn commit(self) -> Commit {
        match self.0 {
            Some(post) => post.commit(),
            None => Commit::Prefix { accepted: 0, errno: libc::EINVAL },
        }
    }
}

impl EncoderPost for Mlx5Post<'_> {
    #[inline]
    fn wrs(&self) -> usize {
        self.0.as_ref().map_or(0, DirectPost::wrs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_or_function_is_a_reason() {
        for library in ["libno_such_library.so.1", "libc.so.6"] {
            let error = Mlx5Library::open(library).expect_err("no mlx5dv_init_obj");
            assert!(error.to_string().starts_with("libmlx5 cannot be used: "), "{error}");
        }
    }
}
