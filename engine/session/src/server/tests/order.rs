//! What a session says first where several things are to be said.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use kvrail_core::table::{EntryValue, Generation};
use kvrail_host::reactor::Connection as _;

use super::bench::Bench;
use super::rig::{known, pool};
use crate::handover::{Block, Class, HandoverMessage, HandoverNumber, PoolId, RequestId};
use crate::message::{Message, MessageKind};
use crate::server::ServerConfig;

/// Otherwise a reader would get blocks of a pool that it cannot read, although it soon could.
#[test]
fn a_pool_is_told_before_blocks_that_name_it() {
    let (bench, now) = (Bench::new(ServerConfig::default(), vec![pool(0, 1, 1)]), Instant::now());
    let mut talk = bench.session(now, &known(1));
    let (request, number) = (RequestId(7), HandoverNumber(NonZeroU32::MIN));
    let take = HandoverMessage::Take { number, request, class: Class::Urgent, wait: Duration::ZERO };
    let owner = bench.shared().handovers.clone();
    let id = owner.open(request).unwrap();
    talk.say(now, &Message::Handover(take));
    let block = |pool| Block {
        pool: PoolId(pool),
        slot: 0,
        expected: EntryValue { generation: Generation(1), ..EntryValue::default() },
        ready: 0,
    };
    owner.append(id, &[block(0)]).unwrap();
    bench.shared().pools.add(pool(1, 1, 70)).unwrap();
    owner.append(id, &[block(1)]).unwrap();
    talk.connection.notified(now);
    let said = talk.hear(now);
    let known = said.iter().position(|message| message.kind() == Some(MessageKind::Regions)).unwrap();
    let named = said.iter().position(|message| message.kind() == Some(MessageKind::Blocks)).unwrap();
    assert!(known < named, "{said:?}");
    // A pool that has gone is not kept from the reader by what there is to say of hand-overs.
    bench.shared().pools.remove(PoolId(1));
    owner.append(id, &[block(0)]).unwrap();
    talk.connection.notified(now);
    let kinds: Vec<_> = talk.hear(now).iter().map(Message::kind).collect();
    assert_eq!(kinds, [MessageKind::Gone, MessageKind::Blocks].map(Some));
}
