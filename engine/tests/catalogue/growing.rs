//! A last page that is filled token by token, with the tokens as its parts.

use kvrail::core::table::Miss;
use kvrail::layouts::{AxisKind, Bf16, Plan, Selection};
use kvrail::{KeyTag, KvLayout, Location, PageError, PageLayout, Ready, shm};

use super::image::Page;
use super::rig::{Reads, assert_bytes, key, publisher};

/// 64 tokens, K and V apart, layer by layer: a token has rows all over the page.
#[derive(KvLayout)]
#[kv(order(regions(planes), layer, token), layers = 3, tokens = 64)]
#[allow(dead_code, reason = "a declaration")]
struct Apart {
    k: [Bf16; 16],
    #[kv(plane)]
    v: [Bf16; 24],
}

/// The same, token by token in one object.
#[derive(KvLayout)]
#[kv(order(token, layer), layers = 3, tokens = 64)]
#[allow(dead_code, reason = "a declaration")]
struct Together {
    k: [Bf16; 16],
    v: [Bf16; 24],
}

#[test]
fn the_filled_part_of_a_last_page_is_read_while_it_grows() {
    let (apart, together) = (PageLayout::of::<Apart>(), PageLayout::of::<Together>());
    let publisher = publisher(&[apart], 1, shm::publish(1));
    let mut reads = Reads::of(together, shm::rails(1).unwrap());
    let peer = reads.reader.connect_to(&publisher.local_addr().into(), key(), &apart).unwrap();
    let pool = peer.pool_of(&apart).unwrap();
    let (from, to) = (Page::new(apart.geometry(), 4), Page::new(together.geometry(), 4));
    let mut read = |location: Location, tokens: u32| {
        let some = Selection::ALL.tokens(0, tokens.into());
        let plan = Plan::between(apart.geometry(), together.geometry(), some).unwrap();
        reads.gather(&[(pool.page(location).unwrap().needs(tokens), plan)])
    };
    let begun = publisher.begin(0, KeyTag(11)).unwrap();
    assert_eq!(begun.expected.ready, Ready::NONE);
    let mut filled = 0;
    for tokens in [5_u32, 17, 63] {
        let more = |page: &mut [u8]| {
            from.write(page, |row| (filled..tokens.into()).contains(&row.along(AxisKind::Token)));
        };
        let location = publisher.set_ready(0, tokens, more).unwrap();
        assert_eq!(location.expected.ready, Ready(tokens));
        let expected = to.landed(|row| row.along(AxisKind::Token) < tokens.into());
        assert_bytes(&read(location, tokens).unwrap(), &expected, &format!("{tokens} tokens"));
        filled = tokens.into();
    }
    let last = |page: &mut [u8]| from.write(page, |row| row.along(AxisKind::Token) >= filled);
    let whole = publisher.finish(0, last).unwrap();
    assert_bytes(&read(whole, 64).unwrap(), &to.landed(|_| true), "all tokens");
    // A location says more than is there: the entry has the last word.
    let next = publisher.begin(0, KeyTag(12)).unwrap();
    let grown = publisher.set_ready(0, 5, |_| ()).unwrap();
    let too_early =
        Location { expected: kvrail::core::table::EntryValue { ready: Ready(6), ..next.expected }, ..next };
    let error = read(too_early, 6).unwrap_err();
    assert!(matches!(error, PageError::Miss(Miss::NotReady { .. })), "{error}");
    assert!(read(grown, 5).is_ok());
    // And the page before is a miss, whichever part of it is read.
    assert!(matches!(read(whole, 5), Err(PageError::Miss(Miss::Generation { .. }))));
}
