//! Hand-overs of requests over real sessions: what the owner says reaches the reader, and the owner
//! gets its blocks back whatever becomes of the reader.
#![allow(missing_docs, reason = "tests")]

mod one_rail;

use std::time::{Duration, Instant};

use kvrail_core::table::{EntryValue, Generation, KeyTag, Ready};
use kvrail_session::handover::{
    Block, Class, EndReason, GiveUpReason, HandoverConfig, HandoverError, HandoverNumber, HandoverOutcome,
    MAX_MESSAGE_BLOCKS, PoolId, RequestId, TakingEvent, WHOLE_PAGE,
};
use kvrail_session::{
    Cause, ConnectedSession, Fingerprint, Layout, OpenHandoverError, PeerKey, ProducerDescription,
    ReaderDescription, Server, ServerConfig, SharedHandovers, connect,
};

use one_rail::OneRail;

/// Long enough for a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(30);

fn layout() -> Layout {
    Layout {
        name: "page".parse().unwrap(),
        fingerprint: Fingerprint::from_bytes([1; 16]),
        any_rank: Fingerprint::from_bytes([2; 16]),
        page_bytes: 4096.try_into().unwrap(),
        parts: 1.try_into().unwrap(),
    }
}

fn key() -> PeerKey {
    PeerKey::from_bytes([7; 32])
}

fn serve(handovers: HandoverConfig) -> (Server, SharedHandovers) {
    let producer = ProducerDescription { node: "prefill-1".parse().unwrap(), pools: Vec::new() };
    let config = ServerConfig { handovers, ..ServerConfig::default() };
    let server = Server::start(&"127.0.0.1:0".parse().unwrap(), key(), producer, OneRail, config).unwrap();
    let handovers = server.handovers();
    (server, handovers)
}

fn reader(server: &Server) -> ConnectedSession {
    let address = server.local_addr().to_string().parse().unwrap();
    let reader = ReaderDescription::new("decode-1".parse().unwrap(), layout());
    connect(&address, key(), reader, Instant::now() + SOON).unwrap()
}

fn block(slot: u32, ready: u32) -> Block {
    let (generation, ready) = (Generation(u64::from(slot) << 32 | 3), Ready(ready));
    let expected = EntryValue { generation, ready, tag: KeyTag(u128::from(slot) << 64 | 5) };
    Block { pool: PoolId(0), slot, expected, ready: ready.0 }
}

/// The next event of the reader.
#[track_caller]
fn event(reader: &mut ConnectedSession) -> TakingEvent {
    let until = Instant::now() + SOON;
    loop {
        if let Some(event) = reader.next_taking_event() {
            return event;
        }
        assert!(Instant::now() < until, "no event");
        assert!(reader.is_alive(), "{:?}", reader.closed());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the reader knows this much of its blocks.
#[track_caller]
fn wait_for(reader: &mut ConnectedSession, number: HandoverNumber, what: impl Fn(&[Block]) -> bool) {
    while !what(reader.blocks(number)) {
        event(reader);
    }
}

#[test]
fn a_request_is_handed_over_part_by_part() {
    let (server, owner) = serve(HandoverConfig::default());
    let mut reader = reader(&server);
    let request = RequestId(u128::MAX - 5);
    let number = reader.take(request, Class::Urgent, SOON).unwrap();
    let id = owner.open(request).unwrap();
    assert_eq!(event(&mut reader), TakingEvent::Taken { number });
    // More blocks than one message carries.
    let blocks: Vec<_> = (0..3 * MAX_MESSAGE_BLOCKS as u32).map(|slot| block(slot, 0)).collect();
    owner.append(id, &blocks).unwrap();
    wait_for(&mut reader, number, |known| known.len() == blocks.len());
    assert_eq!(reader.blocks(number), blocks);
    for parts in 1..=61 {
        owner.set_ready(id, 0..blocks.len() as u32, parts).unwrap();
        wait_for(&mut reader, number, |known| known.iter().all(|block| block.ready == parts));
    }
    owner.append(id, &[block(9_000, WHOLE_PAGE)]).unwrap();
    owner.complete(id).unwrap();
    while event(&mut reader) != (TakingEvent::Complete { number }) {}
    assert_eq!(reader.blocks(number).last(), Some(&block(9_000, WHOLE_PAGE)));
    reader.done(number).unwrap();
    let ended = owner.wait_outcome(Instant::now() + SOON).unwrap();
    assert_eq!((ended.id, ended.outcome, ended.blocks.len()), (id, HandoverOutcome::Done, blocks.len() + 1));
    assert_eq!((ended.blocks[0].ready, owner.open_count()), (61, 0));
    assert_eq!(owner.next_outcome(), None);
}

#[test]
fn the_owner_ends_requests_and_says_why() {
    let (server, owner) = serve(HandoverConfig::default());
    let mut reader = reader(&server);
    let number = reader.take(RequestId(1), Class::Background, SOON).unwrap();
    let id = owner.open(RequestId(1)).unwrap();
    owner.append(id, &[block(4, 1)]).unwrap();
    wait_for(&mut reader, number, |known| known.len() == 1);
    owner.abort(id).unwrap();
    let ended = owner.next_outcome().unwrap();
    assert_eq!((ended.outcome, ended.blocks), (HandoverOutcome::Aborted, vec![block(4, 1)]));
    let mut last = event(&mut reader);
    if matches!(last, TakingEvent::Grown { .. }) {
        last = event(&mut reader);
    }
    assert_eq!(last, TakingEvent::Ended { number, reason: EndReason::Aborted });
    assert!(reader.blocks(number).is_empty());

    let number = reader.take(RequestId(2), Class::Urgent, SOON).unwrap();
    owner.reject(RequestId(2)).unwrap();
    assert_eq!(event(&mut reader), TakingEvent::Ended { number, reason: EndReason::Rejected });

    let number = reader.take(RequestId(3), Class::Urgent, Duration::ZERO).unwrap();
    assert_eq!(event(&mut reader), TakingEvent::Ended { number, reason: EndReason::Unknown });
    assert!(owner.next_outcome().is_none());
}

#[test]
fn a_reader_that_gives_up_or_goes_leaves_the_blocks_to_the_owner() {
    let (server, owner) = serve(HandoverConfig::default());
    let mut reader_1 = reader(&server);
    for (request, leaves) in [(RequestId(1), false), (RequestId(2), true)] {
        let number = reader_1.take(request, Class::Urgent, SOON).unwrap();
        let id = owner.open(request).unwrap();
        owner.append(id, &[block(1, 0), block(2, 3)]).unwrap();
        wait_for(&mut reader_1, number, |known| known.len() == 2);
        let outcome = if leaves {
            drop(reader_1);
            reader_1 = reader(&server);
            HandoverOutcome::SessionLost
        } else {
            reader_1.give_up(number, GiveUpReason::NoRoom).unwrap();
            HandoverOutcome::GivenUp(GiveUpReason::NoRoom)
        };
        let ended = owner.wait_outcome(Instant::now() + SOON).unwrap();
        assert_eq!((ended.outcome, ended.blocks), (outcome, vec![block(1, 0), block(2, 3)]));
    }
}

#[test]
fn a_lease_ends_without_a_call_of_the_owner_and_a_renewal_keeps_it() {
    let lease = Duration::from_millis(600);
    let config =
        HandoverConfig { lease, renew_every: Duration::from_millis(100), ..HandoverConfig::default() };
    let (server, owner) = serve(config);
    // No reader takes this one.
    let id = owner.open(RequestId(1)).unwrap();
    let mut reader = reader(&server);
    let number = reader.take(RequestId(2), Class::Urgent, SOON).unwrap();
    let taken = owner.open(RequestId(2)).unwrap();
    assert_eq!(event(&mut reader), TakingEvent::Taken { number });
    let renews_until = Instant::now() + 3 * lease;
    while Instant::now() < renews_until {
        assert_eq!(reader.next_taking_event(), None);
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = owner.wait_outcome(Instant::now() + SOON).unwrap();
    assert_eq!((ended.id, ended.outcome), (id, HandoverOutcome::Expired));
    assert_eq!(owner.next_outcome(), None, "the other one is renewed");
    // The reader says nothing any more: its lease ends, and later it is told so.
    let ended = owner.wait_outcome(Instant::now() + SOON).unwrap();
    assert_eq!((ended.id, ended.outcome), (taken, HandoverOutcome::Expired));
    let mut last = event(&mut reader);
    if last == (TakingEvent::LeaseRanOut { number }) {
        last = event(&mut reader);
    }
    assert_eq!(last, TakingEvent::Ended { number, reason: EndReason::Expired });
}

#[test]
fn one_reader_of_several_gets_a_request() {
    let (server, owner) = serve(HandoverConfig::default());
    let mut readers = [reader(&server), reader(&server)];
    let first = readers[0].take(RequestId(1), Class::Urgent, SOON).unwrap();
    let id = owner.open(RequestId(1)).unwrap();
    assert_eq!(event(&mut readers[0]), TakingEvent::Taken { number: first });
    let second = readers[1].take(RequestId(1), Class::Urgent, SOON).unwrap();
    let refused = TakingEvent::Ended { number: second, reason: EndReason::TakenByOther };
    assert_eq!(event(&mut readers[1]), refused);
    owner.append(id, &[block(1, 1)]).unwrap();
    wait_for(&mut readers[0], first, |known| known.len() == 1);
}

#[test]
fn a_server_that_stops_gives_all_blocks_back() {
    let (mut server, owner) = serve(HandoverConfig::default());
    let mut reader = reader(&server);
    let number = reader.take(RequestId(1), Class::Urgent, SOON).unwrap();
    let id = owner.open(RequestId(1)).unwrap();
    let untaken = owner.open(RequestId(2)).unwrap();
    owner.append(id, &[block(1, 1)]).unwrap();
    wait_for(&mut reader, number, |known| known.len() == 1);
    assert_eq!(server.stop(Instant::now() + SOON), 0);
    let mut ended: Vec<_> = std::iter::from_fn(|| owner.next_outcome()).map(|e| (e.id, e.outcome)).collect();
    ended.sort_by_key(|&(id, _)| id);
    assert_eq!(ended, [(id, HandoverOutcome::Stopped), (untaken, HandoverOutcome::Stopped)]);
    let refused = owner.open(RequestId(3)).unwrap_err();
    assert!(matches!(refused, OpenHandoverError::Handover(HandoverError::Stopping { .. })), "{refused}");
    let until = Instant::now() + SOON;
    while reader.is_alive() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(matches!(reader.closed().unwrap().cause, Cause::Bye(_)), "{:?}", reader.closed());
    assert!(reader.blocks(number).is_empty());
    let refused = reader.take(RequestId(4), Class::Urgent, SOON).unwrap_err();
    assert!(refused.to_string().contains("it is stopping"), "{refused}");
}
