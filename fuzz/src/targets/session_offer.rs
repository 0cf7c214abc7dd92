//! Messages of an offer in any order: either a session ends, or its reader knows exactly the pools
//! that were sent. Pools that are sent in order are never refused.

use std::collections::BTreeSet;
use std::num::{NonZeroU16, NonZeroU64};

use kvrail_core::id::MAX_RAILS;
use kvrail_core::remote::{RegionOffer, TableOffer};
use kvrail_session::fuzzing::{OfferMessages, OfferResult};
use kvrail_session::{
    Epoch, Fingerprint, Layout, MAX_OFFERED_REGIONS, MAX_POOLS, MAX_REGIONS, MESSAGE_REGIONS, Message, Offer,
    OfferChange, OfferHead, OfferedRegion, PoolHead, PoolId, PoolRegions, RailList, parse,
};

use crate::bytes::Bytes;

/// Bytes of each part of a page.
const PART_BYTES: u64 = 64;
/// Layouts 0 to 2 are known to the reader.
const KNOWN: u8 = 3;

/// Layout number `n`: a page has one part, two, or as many as there may be.
fn layout(n: u8) -> Layout {
    let parts = [1, 2, MAX_REGIONS as u16][usize::from(n % 3)];
    Layout {
        name: "fuzzed".parse().expect("a name"),
        fingerprint: Fingerprint::from_bytes([n; 16]),
        any_rank: Fingerprint::from_bytes([9; 16]),
        page_bytes: NonZeroU64::new(PART_BYTES * u64::from(parts)).expect("not 0"),
        parts: NonZeroU16::new(parts).expect("not 0"),
    }
}

/// A region of part `part`, which has a table if it is the first one. `wrong` is what is wrong with
/// it: 0 for nothing.
fn region(part: u16, wrong: u8) -> OfferedRegion {
    let page_bytes = PART_BYTES + u64::from(wrong == 1);
    let table = (part == 0) != (wrong == 2);
    let offer = RegionOffer {
        base: 0,
        page_bytes,
        stride: page_bytes,
        slots: 1 + u32::from(wrong == 3),
        keys: [0; MAX_RAILS],
        table: table.then_some(TableOffer { base: 0, keys: [0; MAX_RAILS] }),
    };
    OfferedRegion::new(offer).expect("a region").of_part(part)
}

/// The oracle: it knows what was sent and accepted, and not how the reader decides.
#[derive(Default)]
struct Sent {
    /// Whether the offer has begun, and whether its end was sent.
    begun: bool,
    complete: bool,
    /// The pools that have come and not gone, in their order, and their regions.
    pools: Vec<(PoolId, Layout, Vec<OfferedRegion>)>,
    used: BTreeSet<PoolId>,
    unknown: Vec<Layout>,
    /// The last pool, until all of its regions have come.
    next: Option<(PoolHead, Vec<OfferedRegion>)>,
}

impl Sent {
    /// Takes a message that the reader accepted, and compares the news with it.
    fn accepted(&mut self, message: Message, news: Option<OfferResult>) {
        let news = match message {
            Message::Offer(_) => {
                assert!(!self.begun, "one session has one offer");
                self.begun = true;
                news
            }
            Message::Pool(head) => {
                assert!(self.begun && self.next.is_none());
                assert!(head.layout.fingerprint.to_bytes()[0] < KNOWN);
                assert!(self.used.insert(head.id), "a number names one pool");
                self.next = Some((head, Vec::new()));
                self.whole(news)
            }
            Message::Regions(PoolRegions { pool, first, regions }) => {
                let (head, have) = self.next.as_mut().expect("a pool's regions");
                assert_eq!((pool, first as usize), (head.id, have.len()));
                have.extend(regions);
                self.whole(news)
            }
            Message::Unknown(layout) => {
                assert!(self.begun && self.next.is_none());
                if self.unknown.contains(&layout) {
                    news
                } else {
                    self.unknown.push(layout);
                    self.change(&OfferChange::Unknown(layout), news)
                }
            }
            Message::Gone(id) => {
                let place = self.pools.iter().position(|(other, ..)| *other == id).expect("an offered pool");
                self.pools.remove(place);
                self.change(&OfferChange::Gone(id), news)
            }
            Message::Offered => {
                assert!(self.begun && !self.complete && self.next.is_none());
                self.complete = true;
                let Some(OfferResult::Complete(offer)) = news else { panic!("{news:?}") };
                self.compare(&offer);
                None
            }
            other => {
                assert!(other.kind().is_none(), "{other:?} is no message of an offer");
                news
            }
        };
        assert!(news.is_none(), "{news:?}");
        let regions: usize = self.pools.iter().map(|(.., regions)| regions.len()).sum();
        assert!(self.pools.len() <= MAX_POOLS && regions <= MAX_OFFERED_REGIONS);
    }

    /// The last pool, if it is whole, is the news.
    fn whole(&mut self, news: Option<OfferResult>) -> Option<OfferResult> {
        let all = |next: &mut (PoolHead, Vec<OfferedRegion>)| next.0.regions as usize == next.1.len();
        let Some((head, regions)) = self.next.take_if(all) else { return news };
        let news = match news {
            Some(OfferResult::Change(OfferChange::Came(pool))) if self.complete => {
                assert_eq!((pool.id(), pool.layout(), pool.regions()), (head.id, &head.layout, &regions[..]));
                None
            }
            None if !self.complete => None,
            other => panic!("{other:?}"),
        };
        self.check(&head, &regions);
        self.pools.push((head.id, head.layout, regions));
        news
    }

    /// A pool that a reader accepts has each part of its layout once, and one table.
    fn check(&self, head: &PoolHead, regions: &[OfferedRegion]) {
        assert_eq!(regions.len(), usize::from(head.layout.parts.get()));
        for (part, region) in (0..).zip(regions) {
            assert_eq!((region.part(), region.offer().table.is_some()), (part, part == 0));
            assert_eq!(region.offer().slots, regions[0].offer().slots);
        }
    }

    /// Takes the change from the news, if the first offer is complete.
    fn change(&self, want: &OfferChange, news: Option<OfferResult>) -> Option<OfferResult> {
        match news {
            Some(OfferResult::Change(change)) if self.complete && change == *want => None,
            None if !self.complete => None,
            other => panic!("{other:?}"),
        }
    }

    fn compare(&self, offer: &Offer) {
        assert_eq!(offer.unknown, self.unknown);
        assert_eq!(offer.pools.len(), self.pools.len());
        for (pool, (id, layout, regions)) in offer.pools.iter().zip(&self.pools) {
            assert_eq!((pool.id(), pool.layout(), pool.regions()), (*id, layout, &regions[..]));
        }
    }
}

/// Sends a message. Returns whether the session goes on.
fn send(reader: &mut OfferMessages, sent: &mut Sent, message: Message) -> bool {
    match reader.received(message.clone()) {
        Ok(news) => {
            sent.accepted(message, news);
            true
        }
        Err(cause) => {
            assert!(!cause.to_string().is_empty());
            false
        }
    }
}

/// Sends a pool that is right in all respects, in messages of `piece` regions. A reader refuses it
/// only for the bounds of all pools.
fn send_pool(reader: &mut OfferMessages, sent: &mut Sent, head: PoolHead, piece: usize) -> bool {
    let (bound_pools, bound_regions) =
        (sent.pools.len(), sent.pools.iter().map(|(.., r)| r.len()).sum::<usize>());
    let possible = sent.begun
        && sent.next.is_none()
        && !sent.used.contains(&head.id)
        && bound_pools < MAX_POOLS
        && bound_regions + head.regions as usize <= MAX_OFFERED_REGIONS;
    let regions: Vec<_> = (0..head.regions).map(|part| region(part as u16, 0)).collect();
    let mut goes_on = send(reader, sent, Message::Pool(head));
    let mut first = 0;
    for piece in regions.chunks(piece) {
        if !goes_on {
            break;
        }
        let message = PoolRegions { pool: head.id, first, regions: piece.to_vec() };
        goes_on = send(reader, sent, Message::Regions(message));
        first += piece.len() as u32;
    }
    assert!(goes_on || !possible, "a pool that is right was refused: {head:?}");
    goes_on
}

/// Does the next step of the input. Returns whether the session goes on.
fn step(input: &mut Bytes<'_>, reader: &mut OfferMessages, sent: &mut Sent) -> bool {
    let message = match input.byte() {
        0 => {
            let (node, epoch) = ("fuzzed".parse().expect("a name"), Epoch(NonZeroU64::MIN));
            Message::Offer(OfferHead { node, epoch, rails: RailList::new() })
        }
        1 | 2 => {
            let (id, layout) = (PoolId(input.byte().into()), layout(input.byte() % KNOWN));
            let regions = layout.parts.get().into();
            let piece = usize::from(input.byte()) % MESSAGE_REGIONS + 1;
            return send_pool(reader, sent, PoolHead { id, layout, regions }, piece);
        }
        3 => {
            let (id, layout) = (PoolId(input.byte().into()), layout(input.byte() % 5));
            Message::Pool(PoolHead { id, layout, regions: u32::from(input.short()) % 1200 })
        }
        4 => {
            let (pool, first) = (PoolId(input.byte().into()), input.short().into());
            let (count, kind) = (usize::from(input.byte()) % MESSAGE_REGIONS + 1, input.byte());
            // Most are the parts that are due.
            let part = |at: usize| (first as usize + at + usize::from(kind & 31 == 1)) as u16;
            let regions = (0..count).map(|at| region(part(at), kind >> 5)).collect();
            Message::Regions(PoolRegions { pool, first, regions })
        }
        5 => Message::Unknown(layout(input.byte())),
        6 => Message::Offered,
        7 => Message::Gone(PoolId(input.byte().into())),
        _ => match parse(input.sized()) {
            Ok(message) => message,
            Err(_) => return true,
        },
    };
    send(reader, sent, message)
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Bytes::new(bytes);
    let mut reader = OfferMessages::new((0..KNOWN).map(layout).collect());
    let mut sent = Sent::default();
    while !input.is_empty() && step(&mut input, &mut reader, &mut sent) {}
}
