use super::*;
use std::rc::Rc;

#[test]
fn a_full_ring_gives_the_item_back() {
    let mut ring = Ring::<u32, 4>::new();
    let (mut put, mut take) = ring.split();
    for round in 0..10 {
        for i in 0..4 {
            assert_eq!(put.push(round + i), Ok(()));
        }
        assert_eq!(put.push(99), Err(99));
        for i in 0..4 {
            assert_eq!(take.pop(), Some(round + i));
        }
        assert_eq!(take.pop(), None);
    }
}

#[test]
fn staged_items_are_published_together_or_dropped() {
    let count = Rc::new(());
    let mut ring = Ring::<Rc<()>, 4>::new();
    let (mut put, mut take) = ring.split();
    put.stage(count.clone()).unwrap();
    put.stage(count.clone()).unwrap();
    assert!(take.is_empty() && take.pop().is_none());
    put.publish();
    assert!(!take.is_empty() && take.pop().is_some());
    for _ in 0..3 {
        put.stage(count.clone()).unwrap();
    }
    assert!(put.stage(count.clone()).is_err(), "staged items take room");
    put.discard();
    assert_eq!(Rc::strong_count(&count), 2, "one item is published, the staged ones are dropped");
    put.push(count.clone()).unwrap();
    assert!(take.pop().is_some() && take.pop().is_some() && take.pop().is_none());
    assert_eq!(Rc::strong_count(&count), 1);
}

#[test]
fn items_left_in_a_ring_are_dropped_with_it() {
    let item = Rc::new(());
    let mut ring = Ring::<Rc<()>, 4>::new();
    let (mut put, mut take) = ring.split();
    for _ in 0..3 {
        put.push(item.clone()).unwrap();
    }
    drop(take.pop());
    assert_eq!(Rc::strong_count(&item), 3);
    drop(ring);
    assert_eq!(Rc::strong_count(&item), 1);
}

#[test]
fn a_ring_works_when_its_indices_overflow() {
    let mut ring = Ring::<u32, 2>::new();
    ring.head.0.store(usize::MAX, Ordering::Relaxed);
    ring.tail.0.store(usize::MAX, Ordering::Relaxed);
    let (mut put, mut take) = ring.split();
    for i in 0..5 {
        put.push(i).unwrap();
        put.push(i).unwrap();
        assert_eq!(put.push(i), Err(i));
        assert_eq!((take.pop(), take.pop(), take.pop()), (Some(i), Some(i), None));
    }
}
