//! What a producer hands over to one reader.

use std::time::{Duration, Instant};

use kvrail::session::handover::{EndedHandover, HandoverId, RequestId};
use kvrail::{KeyTag, Publisher};

use super::rng::Rng;
use super::{BLOCKS, LAYERS, PART, REQUESTS, pattern};

/// Tags of pages that overwrite a request's pages have this bit.
const OVERWRITES: u128 = 1 << 127;

/// The hand-overs of one producer to one reader. There are [`REQUESTS`] requests; each is opened
/// again as soon as its last hand-over has ended.
pub(crate) struct Requests {
    /// The number of the round.
    round: u64,
    free: Vec<u32>,
    open: Vec<Open>,
    opened: u64,
}

/// A request that is being handed over.
struct Open {
    id: HandoverId,
    request: RequestId,
    slots: Vec<u32>,
    /// How many of these slots are in the list.
    listed: usize,
    /// Layers that are ready.
    layers: u32,
    /// When it grows.
    grows: Instant,
    /// It is aborted when it has so many layers.
    aborts_at: Option<u32>,
}

/// The request of round `round` at this place.
pub(crate) const fn request(round: u64, place: u32) -> RequestId {
    RequestId(((round as u128) << 8) | place as u128)
}

/// The round of a request.
pub(crate) const fn round_of(request: RequestId) -> u64 {
    (request.0 >> 8) as u64
}

impl Requests {
    /// Those of round `round`, in these slots.
    pub(crate) fn new(round: u64, free: Vec<u32>) -> Self {
        assert_eq!(free.len(), (REQUESTS * BLOCKS) as usize);
        Self { round, free, open: Vec::new(), opened: 0 }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// The slots, when no request is open.
    pub(crate) fn into_slots(self) -> Vec<u32> {
        assert!(self.is_idle() && self.free.len() == (REQUESTS * BLOCKS) as usize);
        self.free
    }

    /// Opens requests, writes parts and says that they are ready, aborts.
    pub(crate) fn turn(&mut self, publisher: &Publisher, rng: &mut Rng, now: Instant, opens: bool) {
        for place in 0..REQUESTS {
            let request = request(self.round, place);
            if opens && self.open.iter().all(|open| open.request != request) {
                let open = self.begin(publisher, request, rng, now);
                self.open.push(open);
            }
        }
        for open in &mut self.open {
            if open.aborts_at == Some(open.layers) {
                // The reader may have ended it.
                let _ = publisher.handovers().abort(open.id);
                open.aborts_at = None;
                open.layers = LAYERS;
            } else if open.layers < LAYERS && open.grows <= now {
                open.grow(publisher);
                open.grows = now + Duration::from_millis(5 + rng.below(25));
            }
        }
    }

    fn begin(&mut self, publisher: &Publisher, request: RequestId, rng: &mut Rng, now: Instant) -> Open {
        self.opened += 1;
        let handovers = publisher.handovers();
        let id = handovers.open(request).unwrap();
        let slots = self.free.split_off(self.free.len() - BLOCKS as usize);
        let tag = |slot: u32| u128::from(self.round) << 80 | u128::from(self.opened) << 32 | u128::from(slot);
        let mut listed = 0;
        // The list comes in two pieces.
        for half in slots.chunks(BLOCKS as usize / 2) {
            let blocks: Vec<_> = half
                .iter()
                .map(|&slot| {
                    publisher.begin(slot, KeyTag(tag(slot))).unwrap();
                    publisher.block(slot).unwrap().unwrap()
                })
                .collect();
            // It may be over already: the reader is dead, or this process was stopped.
            if handovers.append(id, &blocks).is_ok() {
                listed += blocks.len();
            }
        }
        let aborts_at = (rng.below(4) == 0).then(|| 1 + rng.below(u64::from(LAYERS)) as u32);
        Open { id, request, slots, listed, layers: 0, grows: now, aborts_at }
    }

    /// Takes a hand-over's slots back, and overwrites them.
    pub(crate) fn take_back(&mut self, publisher: &Publisher, ended: &EndedHandover) {
        let at = self.open.iter().position(|open| open.id == ended.id).expect("each ends once");
        let open = self.open.swap_remove(at);
        let slots: Vec<_> = ended.blocks.iter().map(|block| block.slot).collect();
        assert_eq!(slots, open.slots[..open.listed], "every block comes back");
        for block in &ended.blocks {
            assert_eq!(publisher.location(block.slot).unwrap(), None, "a block that is back is valid");
            let tag = KeyTag(block.expected.tag.0 | OVERWRITES);
            let overwrite = |page: &mut [u8]| {
                for (part, layer) in page.chunks_mut(PART).zip(0..) {
                    pattern::fill(part, tag, layer);
                }
            };
            publisher.write(block.slot, tag, overwrite).unwrap();
        }
        self.free.extend(open.slots);
    }
}

impl Open {
    /// Writes the next layer of each block, and says that it is ready.
    fn grow(&mut self, publisher: &Publisher) {
        let layer = self.layers;
        for &slot in &self.slots {
            let tag = publisher.location(slot).unwrap().unwrap().expected.tag;
            let fill =
                |page: &mut [u8]| pattern::fill(&mut page[layer as usize * PART..][..PART], tag, layer);
            if layer + 1 == LAYERS {
                publisher.finish(slot, fill).unwrap();
            } else {
                publisher.set_ready(slot, layer + 1, fill).unwrap();
            }
        }
        self.layers += 1;
        let handovers = publisher.handovers();
        // The reader may have ended it.
        let parts = if self.layers == LAYERS { u32::MAX } else { self.layers };
        if handovers.set_ready(self.id, 0..BLOCKS, parts).is_ok()
            && self.layers == LAYERS
            && self.aborts_at != Some(LAYERS)
        {
            let _ = handovers.complete(self.id);
        }
    }
}
