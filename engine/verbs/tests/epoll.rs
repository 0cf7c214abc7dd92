//! A reader over real verbs in an event loop that sleeps in epoll(7) on its descriptor.
#![allow(missing_docs, reason = "tests")]

mod lane;

use kvrail::core::table::KeyTag;
use kvrail::layouts::Bf16;
use kvrail::{Config, KvLayout, PageLayout, Publisher, Reader, clock, memory, verbs};
use lane::{Devices, HANGS, key, said};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// A megabyte, so that READs are under way when the loop arms the reader.
#[derive(KvLayout)]
#[kv(order(layer, token), layers = 61, tokens = 16)]
struct Page {
    latent: [Bf16; 576],
}

const PAGES: u32 = 8;
const BATCHES: u32 = 12;

#[test]
fn a_loop_that_is_told_of_changes_only_misses_no_completion() {
    const TEST: &str = "epoll";
    let Some(fabric) = Devices::find(TEST) else { return };
    let page = PageLayout::of::<Page>();
    let (name, anywhere) = ("producer".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let over = verbs::publish(&fabric.producer).unwrap();
    let producer = Publisher::start(name, page, PAGES, &anywhere, key(), over).unwrap();
    let locations: Vec<_> = (0..PAGES)
        .map(|slot| producer.write(slot, KeyTag(slot.into()), |bytes| bytes.fill(slot as u8 + 1)).unwrap())
        .collect();
    let mut reader = Reader::start(page, verbs::rails(&fabric.reader).unwrap(), Config::default()).unwrap();
    let memory = memory::leaked(PAGES as usize * page.page_bytes() as usize).unwrap();
    let mut slots: Vec<_> = reader.register(memory).unwrap().collect();
    let peer = reader.connect(&producer.local_addr().into(), key()).unwrap();
    let events = epoll::create(CreateFlags::CLOEXEC).unwrap();
    epoll::add(&events, &reader, EventData::new_u64(0), EventFlags::IN | EventFlags::ET).unwrap();

    let (mut good, mut polls, mut sleeps, mut told) = (0, 0_u32, 0_u32, 0);
    for _ in 0..BATCHES {
        let mut batch = reader.batch().unwrap();
        for &location in &locations {
            batch.read(peer.page(location).unwrap(), slots.pop().unwrap()).unwrap();
        }
        reader.submit(batch, clock::within(HANGS)).unwrap();
        let mut done = loop {
            reader.poll();
            polls += 1;
            if let Some(done) = reader.next_done() {
                break done;
            }
            if let Some(most) = reader.arm() {
                let mut found = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
                sleeps += 1;
                told += epoll::wait(&events, &mut found, Some(&Timespec::try_from(most).unwrap())).unwrap();
            }
        };
        for page in done.pages() {
            page.result().unwrap();
            let want = page.index as u8 + 1;
            assert!(page.slot.bytes().unwrap().iter().all(|&byte| byte == want), "page {}", page.index);
            good += 1;
            slots.push(page.slot);
        }
    }
    assert_eq!(good, PAGES * BATCHES);
    let text = format!(
        "{good} pages, all right; {polls} polls, {sleeps} sleeps, {told} of them ended by the descriptor"
    );
    said(&format!("{TEST}: {text}"));
    assert!(sleeps == 0 || told > 0, "{text}");
}
