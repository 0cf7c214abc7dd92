//! Pages are read into another layout over real verbs: a READ into several pieces, and a READ for
//! each piece.
#![allow(missing_docs, reason = "tests")]

mod lane;

use kvrail::core::table::KeyTag;
use kvrail::layouts::{Bf16, Plan, Selection};
use kvrail::{Config, KvLayout, PageLayout, Publisher, Reader, clock, memory, verbs};
use lane::{Devices, HANGS, key, said};

/// Four layers of tokens.
#[derive(KvLayout)]
#[kv(order(layer, token), layers = 4, tokens = 16)]
struct ByLayer {
    latent: [Bf16; 576],
}

/// The same, token by token.
#[derive(KvLayout)]
#[kv(order(token, layer), layers = 4, tokens = 16)]
struct ByToken {
    latent: [Bf16; 576],
}

const ROW: usize = 2 * 576;
const PAGES: u32 = 8;

/// The byte that fills a row: it differs between the rows of a page.
fn row(page: u32, layer: usize, token: usize) -> u8 {
    (page as usize * 64 + layer * 16 + token) as u8
}

#[test]
fn pieces_are_written_where_the_plan_says() {
    const TEST: &str = "pieces";
    let Some(fabric) = Devices::find(TEST) else { return };
    for sges in [1, 16] {
        let (from, to) = (PageLayout::of::<ByLayer>(), PageLayout::of::<ByToken>());
        let (name, anywhere) = ("producer".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
        let over = verbs::publish(&fabric.producer).unwrap();
        let producer = Publisher::start(name, from, PAGES, &anywhere, key(), over).unwrap();
        let locations: Vec<_> = (0..PAGES)
            .map(|page| {
                let fill = |bytes: &mut [u8]| {
                    for (at, bytes) in bytes.chunks_mut(ROW).enumerate() {
                        bytes.fill(row(page, at / 16, at % 16));
                    }
                };
                producer.write(page, KeyTag(page.into()), fill).unwrap()
            })
            .collect();
        let rails =
            verbs::rails_with(&fabric.reader, verbs::VerbsConfig { sges, ..verbs::config() }).unwrap();
        let mut reader = Reader::start(from, rails, Config::default()).unwrap();
        let plan = Plan::between(ByLayer::GEOMETRY, ByToken::GEOMETRY, Selection::ALL).unwrap();
        let by = reader.add_plan(&plan).unwrap();
        // 64 rows; neighbours in the source are not in the destination.
        assert_eq!(by.wrs(), if sges == 1 { 64 } else { 4 });
        let slots = reader.register_for(&to, memory::leaked(PAGES as usize * 64 * ROW).unwrap()).unwrap();
        let peer = reader.connect(&producer.local_addr().into(), key()).unwrap();
        let mut batch = reader.batch().unwrap();
        for (&location, slot) in locations.iter().zip(slots) {
            batch.read_with(peer.page(location).unwrap(), slot, by).unwrap();
        }
        let deadline = clock::within(HANGS);
        reader.submit(batch, deadline).unwrap();
        let mut done = loop {
            reader.poll();
            match reader.next_done() {
                Some(done) => break done,
                None => reader.wait(deadline),
            }
        };
        for page in done.pages() {
            page.result.unwrap();
            for (at, bytes) in page.slot.bytes().unwrap().chunks(ROW).enumerate() {
                let want = row(page.index as u32, at % 4, at / 4);
                assert!(
                    bytes.iter().all(|&byte| byte == want),
                    "page {}, row {at}, {sges} pieces",
                    page.index
                );
            }
        }
        said(&format!(
            "{TEST}: {PAGES} pages in another layout, {} READs each, every byte compared",
            by.wrs()
        ));
    }
}
