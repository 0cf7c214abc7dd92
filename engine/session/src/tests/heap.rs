//! How much heap a connection holds, by a counting allocator.
#![allow(unsafe_code, reason = "a counting allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use crate::channel::{Channel, MAX_MESSAGE};
use crate::hello::{Answering, Dialling};
use crate::key::{PeerKey, PeerKeys};

thread_local! {
    /// Bytes that this thread has allocated and not freed.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

/// A size of memory is below `isize::MAX`.
fn count(bytes: usize, sign: isize) {
    HELD.with(|held| held.set(held.get() + sign * bytes.cast_signed()));
}

// SAFETY: each call is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promise is the callee's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: the caller's promise is the callee's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `f` returns, and how many bytes of heap are held more than before.
fn held<R>(f: impl FnOnce() -> R) -> (isize, R) {
    let before = HELD.get();
    let out = f();
    (HELD.get() - before, out)
}

/// The two ends of a channel, and the heap that they hold together.
fn ends() -> (isize, Channel, Channel) {
    let keys = PeerKeys::one(PeerKey::from_bytes([1; 32]));
    let (bytes, (here, there)) = held(|| {
        let (mut hello, mut welcome) = (Vec::new(), Vec::new());
        let mut dialling = Dialling::begin(&keys, 0, &mut hello).unwrap();
        let there = Answering::new().received(&keys, &mut &hello[..], &mut welcome).unwrap().unwrap();
        (dialling.received(&mut &welcome[..]).unwrap().unwrap(), there)
    });
    (bytes, here, there)
}

#[test]
fn the_counter_counts() {
    let (bytes, v) = held(|| vec![1_u8; 1000]);
    assert_eq!(bytes, 1000);
    assert_eq!(held(|| drop(v)).0, -1000);
}

#[test]
fn an_idle_channel_holds_two_keys() {
    let (bytes, mut here, mut there) = ends();
    let one = bytes / 2 + size_of::<Channel>().cast_signed();
    println!("heap of a channel: {}, with itself {one}", bytes / 2);
    assert_eq!(bytes / 2, 64);
    assert!(one < 300, "{one}");
    // After its longest message it holds no more.
    let (bytes, ()) = held(|| {
        let mut frame = Vec::new();
        here.seal(&vec![0; MAX_MESSAGE], &mut frame).unwrap();
        for mut piece in frame.chunks(1000) {
            there.open(&mut piece).unwrap();
        }
    });
    assert_eq!(bytes, 0);
}

#[test]
fn a_handshake_under_way_holds_little() {
    let keys = PeerKeys::one(PeerKey::from_bytes([1; 32]));
    let mut hello = Vec::with_capacity(80);
    let (bytes, dialling) = held(|| Dialling::begin(&keys, 0, &mut hello).unwrap());
    println!(
        "heap of a dialling side: {bytes}, with itself {}",
        bytes + size_of_val(&dialling).cast_signed()
    );
    assert!(bytes < 2048, "{bytes}");
    // A producer holds no heap for a peer that has not sent a whole Hello.
    let (bytes, answering) = held(|| {
        let mut answering = Answering::new();
        answering.received(&keys, &mut &hello[..79], &mut Vec::new()).unwrap();
        answering
    });
    assert_eq!(bytes, 0);
    assert!(size_of_val(&answering) < 256);
}

#[test]
fn a_length_alone_reserves_nothing() {
    let (_, _, mut there) = ends();
    let (bytes, ()) = held(|| assert!(there.open(&mut &[0xff, 0xff][..]).unwrap().is_none()));
    assert_eq!(bytes, 0);
    let (bytes, ()) = held(|| assert!(there.open(&mut &[7; 10][..]).unwrap().is_none()));
    assert_eq!(there.partial(), Some((12, 65_537)));
    assert!((10..1024).contains(&bytes), "{bytes}");
}
