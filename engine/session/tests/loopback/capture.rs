//! What someone on the way between the two sides can see, and what changed bytes do.

use std::io::{Read as _, Write as _};
use std::sync::Mutex;
use std::time::Duration;

use kvrail_core::id::RailIndex;
use kvrail_core::table::{EntryValue, Generation, KeyTag, Ready};
use kvrail_session::handover::{Block, Class, HandoverOutcome, PoolId, RequestId, TakingEvent};
use kvrail_session::{
    ByeReason, Cause, ConnectedSession, LaneDialer as _, OfferChange, ReaderDescription, ServerConfig,
    ServerEvent, Step, connect,
};
use proptest::prelude::*;

use super::proxy::*;
use super::rig::*;

const SHORT: Duration = Duration::from_millis(300);

/// A reader and a producer that wait for each other no longer than needed.
fn impatient() -> (ReaderDescription, ServerConfig) {
    let reader = ReaderDescription { silence: SHORT, ..reader() };
    (reader, ServerConfig { silence: SHORT, handshake: 3 * SHORT, ..ServerConfig::default() })
}

const REQUEST: RequestId = RequestId(0x1f2e_3d4c_5b6a_7988_9788_6a5b_4c3d_2e1f);

fn block(slot: u32) -> Block {
    let tag = KeyTag(0xfeed_f00d_dead_beef_0000_0000_0000_0000 | u128::from(slot));
    let expected = EntryValue { generation: Generation(u64::from(slot) << 32 | 3), ready: Ready(1), tag };
    Block { pool: PoolId(1), slot, expected, ready: 1 }
}

/// Connects through a proxy, makes a lane, learns of another pool, and takes a request. `Err` if
/// anything went wrong.
fn whole_exchange(rig: &Rig, way: Way, change: Change) -> (Result<(), String>, [Vec<u8>; 2]) {
    let (address, thread) = proxy(rig.address(), way, change);
    let session = connect(&address.into(), key(5), impatient().0, soon());
    let result = session.map_err(|e| e.to_string()).and_then(|session| talk(rig, session));
    (result, thread.join().unwrap())
}

fn talk(rig: &Rig, mut session: ConnectedSession) -> Result<(), String> {
    let mut dial = Dial::new(&rig.ends);
    dial.races = true;
    let lane = session.attach(&mut dial, &pairs(&[(0, 1)]), soon()).remove(0);
    lane.map_err(|e| e.to_string())?;
    rig.server.add_pool(pool(2, 1, 1)).map_err(|e| e.to_string())?;
    let change = poll(&mut session, ConnectedSession::next_change)?;
    assert_eq!(change, OfferChange::Came(pool(2, 1, 1)));

    let owner = rig.server.handovers();
    let id = owner.open(REQUEST).map_err(|e| e.to_string())?;
    owner.append(id, &[block(0xabc), block(0xdef)]).unwrap();
    owner.complete(id).unwrap();
    let number = session.take(REQUEST, Class::Urgent, SHORT).map_err(|e| e.to_string())?;
    loop {
        match poll(&mut session, ConnectedSession::next_taking_event)? {
            TakingEvent::Complete { .. } => break,
            TakingEvent::Ended { reason, .. } => return Err(reason.to_string()),
            _ => {}
        }
    }
    assert_eq!(session.blocks(number), [block(0xabc), block(0xdef)]);
    session.done(number).map_err(|e| e.to_string())?;
    let outcome = poll(&mut session, |_| owner.next_outcome())?.outcome;
    if outcome == HandoverOutcome::Done { Ok(()) } else { Err(format!("{outcome:?}")) }
}

/// Waits for something that a session brings, or for its end.
fn poll<T>(
    session: &mut ConnectedSession,
    mut next: impl FnMut(&mut ConnectedSession) -> Option<T>,
) -> Result<T, String> {
    loop {
        if let Some(item) = next(session) {
            return Ok(item);
        }
        if let Some(why) = session.closed() {
            return Err(why.to_string());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn rig() -> Rig {
    Rig::with(impatient().1, vec![pool(1, 1, 70), pool(9, 9, 1)])
}

/// Whether `bytes` contain `part`.
fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_recorded_session_shows_neither_names_nor_keys_nor_layouts_nor_block_lists() {
    let rig = rig();
    let (result, [there, back]) = whole_exchange(&rig, Way::ToProducer, Change::Nothing);
    result.unwrap();
    let all = [&there[..], &back].concat();
    let epoch = rig.server.epoch().0.get().to_le_bytes();
    let blob = Dial::new(&rig.ends).prepare(RailIndex(0), &rails(1)[0]).unwrap().1;
    let mut secrets: Vec<Vec<u8>> = ["decode-3", "prefill-1", "layout-1", "layout-9", "mlx5_0", "mlx5_1"]
        .map(|name| name.as_bytes().to_vec())
        .into();
    // The block list of a request.
    secrets.push(REQUEST.0.to_le_bytes().to_vec());
    for value in [block(0xabc), block(0xdef)].map(|block| block.expected) {
        secrets.extend([value.generation.0.to_le_bytes().to_vec(), value.tag.0.to_le_bytes().to_vec()]);
    }
    secrets.extend([epoch.to_vec(), blob.0[..32].to_vec(), reversed(&blob).0[32..].to_vec()]);
    secrets.extend([1, 9].map(|byte| layout(byte).fingerprint.to_bytes().to_vec()));
    for region in [pool(1, 1, 70), pool(9, 9, 1), pool(2, 1, 1)].iter().flat_map(|pool| pool.regions()) {
        let offer = region.offer();
        secrets.push(offer.base.to_le_bytes().to_vec());
        secrets.extend(offer.keys[..2].iter().map(|key| key.to_le_bytes().to_vec()));
    }
    for secret in secrets {
        assert!(!has(&all, &secret), "{secret:02x?}");
    }
    // What is in clear: that it is kvrail, and which key is used.
    for (way, greeting) in [(&there, 80), (&back, 104)] {
        assert!(has(&way[..32], b"kvrail\r\n") && has(&way[..32], &key(5).id().0));
        assert!(!has(&way[32..], b"kvrail\r\n") && !has(&way[32..], &key(5).id().0), "{greeting}");
    }
}

#[test]
fn two_sessions_with_the_same_content_have_no_frame_in_common() {
    let sessions = [(); 2].map(|()| whole_exchange(&rig(), Way::ToProducer, Change::Nothing).1);
    for way in WAYS {
        let [one, other] = [&sessions[0][way as usize], &sessions[1][way as usize]];
        assert_eq!(frames(one, way), frames(other, way));
        // 16 bytes that are equal are the same plain text under the same key, or a tag.
        for at in (32..one.len() - 16).step_by(16) {
            assert!(!has(other, &one[at..at + 16]), "{way:?} {at}");
        }
    }
}

/// Changes one direction of a whole exchange, and checks that nothing came of it.
fn refuses(way: Way, change: Change) {
    let rig = rig();
    let (result, seen) = whole_exchange(&rig, way, change);
    let back = &seen[1];
    if let Change::Flip { at, .. } = change
        && at >= seen[way as usize].len()
    {
        // This time there were fewer bytes.
        return;
    }
    assert!(result.is_err(), "{way:?} {change:?} was accepted");
    // No session and no lane remains.
    until("the session ends", || rig.server.sessions() == 0);
    assert_eq!(rig.server.lanes(), [0, 0], "{way:?} {change:?}");
    if let (Way::ToProducer, Change::Flip { at, .. }) = (way, change)
        && at < introduced()
    {
        // The producer has told nothing: its greeting, or a refusal, and the frame of a refusal.
        assert!(back.len() <= GREETING[1] + 64, "{at}: {} bytes", back.len());
        assert!(matches!(rig.event(), ServerEvent::Failed { .. }));
    }
}

/// The bytes that each side sends in a whole exchange, without those of the goodbye.
fn lengths() -> [usize; 2] {
    static LENGTHS: Mutex<Option<[usize; 2]>> = Mutex::new(None);
    let mut lengths = LENGTHS.lock().unwrap();
    *lengths.get_or_insert_with(|| {
        let (result, seen) = whole_exchange(&rig(), Way::ToProducer, Change::Nothing);
        result.unwrap();
        // The last frame says goodbye, and ends the session in any case.
        let last = frames(&seen[0], Way::ToProducer).pop_back().unwrap();
        [seen[0].len() - last, seen[1].len()]
    })
}

/// The bytes that a reader sends until it has introduced itself.
fn introduced() -> usize {
    let seen = whole_exchange(&rig(), Way::ToProducer, Change::Nothing).1;
    GREETING[0] + frames(&seen[0], Way::ToProducer)[0]
}

#[test]
fn no_byte_of_the_greetings_can_be_changed() {
    for way in WAYS {
        for at in 0..GREETING[way as usize] {
            refuses(way, Change::Flip { at, mask: 1 << (at % 8) });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn no_byte_of_any_message_can_be_changed(
        to_reader: bool,
        place in any::<prop::sample::Index>(),
        mask in 1_u8..,
    ) {
        let way = if to_reader { Way::ToReader } else { Way::ToProducer };
        refuses(way, Change::Flip { at: place.index(lengths()[way as usize]), mask });
    }
}

#[test]
fn frames_cannot_be_left_out_repeated_or_reordered() {
    // The reader sends: Introduction, Lanes, Take, Done. The producer: the offer in six frames,
    // LanesReady, the other pool in two, and what it says about the request in three.
    for (way, frames) in [(Way::ToProducer, 0..4), (Way::ToReader, 0..12)] {
        let last = frames.end - 1;
        for frame in frames {
            refuses(way, Change::Drop(frame));
            // The exchange may be over before the second of two last frames comes.
            if frame < last {
                refuses(way, Change::Repeat(frame));
            }
            // The reader waits for an answer before it sends the next frame.
            if way == Way::ToReader && frame < 5 {
                refuses(way, Change::Swap(frame));
            }
        }
    }
}

#[test]
fn a_replayed_reader_is_told_nothing() {
    let first = rig();
    let (result, [there, _]) = whole_exchange(&first, Way::ToProducer, Change::Nothing);
    result.unwrap();
    first.closed();
    for rig in [&first, &rig()] {
        let mut stream = rig.raw();
        stream.write_all(&there).unwrap();
        let error = rig.failure();
        assert!(matches!(error.cause, Cause::Forged), "{error}");
        assert_eq!(error.step, Step::Offer);
        let mut told = Vec::new();
        let _ = stream.read_to_end(&mut told);
        assert!((GREETING[1]..=GREETING[1] + 64).contains(&told.len()), "{} bytes", told.len());
        assert_eq!((rig.server.sessions(), rig.server.lanes()), (0, vec![0, 0]));
        // The greeting alone is answered, and nothing else.
        let mut stream = rig.raw();
        stream.write_all(&there[..GREETING[0]]).unwrap();
        assert!(matches!(rig.failure().cause, Cause::Silence(_)));
        told.clear();
        let _ = stream.read_to_end(&mut told);
        assert_eq!(told.len(), GREETING[1]);
    }
}

#[test]
fn a_replayed_producer_is_refused() {
    let (result, [_, back]) = whole_exchange(&rig(), Way::ToProducer, Change::Nothing);
    result.unwrap();
    let (address, thread) = impostor(move |mut stream| {
        stream.read_exact(&mut [0; 80]).unwrap();
        stream.write_all(&back).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert_eq!(rest, [], "the reader has not introduced itself");
    });
    let error = connect(&address.into(), key(5), reader(), soon()).unwrap_err();
    assert!(matches!(error.cause, Cause::Forged), "{error}");
    assert_eq!(error.step, Step::Handshake);
    thread.join().unwrap();
}

#[test]
fn a_reader_refuses_its_own_bytes_sent_back() {
    let (address, thread) = impostor(|mut stream| {
        let mut hello = [0; 80];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(&hello).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let error = connect(&address.into(), key(5), reader(), soon()).unwrap_err();
    assert!(matches!(error.cause, Cause::Greeting(_)), "{error}");
    thread.join().unwrap();
}

/// A relay between a reader and a producer cannot take over the session, since it has no key.
#[test]
fn a_session_cannot_be_taken_over() {
    let rig = Rig::new();
    let (address, thread) = proxy(rig.address(), Way::ToProducer, Change::Nothing);
    let session = connect(&address.into(), key(5), reader(), soon()).unwrap();
    drop(session);
    assert!(matches!(rig.closed().cause, Cause::Bye(ByeReason::Finished)));
    thread.join().unwrap();
    // The relay knows everything but the key: a frame of its own ends the session.
    let (relay, thread) = impostor({
        let producer = rig.address();
        move |mut reader| {
            let mut producer = raw(producer);
            let pass = |from: &mut std::net::TcpStream, to: &mut std::net::TcpStream, count: usize| {
                let mut bytes = vec![0; count];
                from.read_exact(&mut bytes).unwrap();
                to.write_all(&bytes).unwrap();
            };
            pass(&mut reader, &mut producer, GREETING[0]);
            pass(&mut producer, &mut reader, GREETING[1]);
            producer.write_all(&[40, 0]).unwrap();
            producer.write_all(&[7; 40]).unwrap();
            let _ = producer.read_to_end(&mut Vec::new());
        }
    });
    connect(&relay.into(), key(5), reader(), soon()).unwrap_err();
    thread.join().unwrap();
    let why = rig.failure();
    assert!(matches!(why.cause, Cause::Forged), "{why}");
    assert_eq!(rig.server.sessions(), 0);
}
