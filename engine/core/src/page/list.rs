//! Doubly linked lists of pages, whose links are inside the pages.
//!
//! A page has two links. One is for the list of segments that wait to be posted ([`Queued`]). The
//! other is for the list of pages that wait for their validating READ ([`Validating`]), and once a
//! page is retired for that of pages whose results the caller is told ([`Reported`]).

use core::marker::PhantomData;

/// A page in flight: its place among all pages of the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageRef(pub(crate) u32);

/// In links: no page.
pub(crate) const NIL: PageRef = PageRef(u32::MAX);

/// In links: the page is in no list.
const NO_LIST: PageRef = PageRef(u32::MAX - 1);

/// In links: the page is in no list itself, but the page before it is, and stands for both.
const BEHIND: PageRef = PageRef(u32::MAX - 2);

/// A page's neighbours in a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageLink {
    next: PageRef,
    prev: PageRef,
}

impl PageLink {
    /// In no list.
    pub(crate) const OUT: Self = Self { next: NO_LIST, prev: NIL };

    /// In no list itself; the page before it stands for both.
    pub(crate) const BEHIND: Self = Self { next: BEHIND, prev: NIL };

    pub(crate) fn is_in(self) -> bool {
        self.next != NO_LIST && self.next != BEHIND
    }

    /// Neither in a list nor behind a page that is.
    pub(crate) fn is_out(self) -> bool {
        self.next == NO_LIST
    }

    #[inline]
    pub(crate) fn is_behind(self) -> bool {
        self.next == BEHIND
    }
}

/// The list of segments that wait to be posted, by their first page.
#[derive(Debug)]
pub(crate) struct Queued;

/// The list of pages that wait for their validating READ to be posted.
#[derive(Debug)]
pub(crate) struct Validating;

/// The list of retired pages whose results the caller has not been told.
#[derive(Debug)]
pub(crate) struct Reported;

/// A table of pages, each with a link for the list `Which`.
pub(crate) trait Linked<Which> {
    fn link(&mut self, page: PageRef) -> &mut PageLink;
}

/// A doubly linked list through pages: all operations are O(1), none allocates.
#[derive(Debug)]
pub(crate) struct List<Which> {
    head: PageRef,
    tail: PageRef,
    which: PhantomData<Which>,
}

impl<Which> List<Which> {
    pub(crate) const EMPTY: Self = Self { head: NIL, tail: NIL, which: PhantomData };

    #[inline]
    pub(crate) fn first(&self) -> Option<PageRef> {
        (self.head != NIL).then_some(self.head)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head == NIL
    }

    /// Whether `page`, which is in the list, is its last.
    #[inline]
    pub(crate) fn is_last(&self, page: PageRef) -> bool {
        self.tail == page
    }

    #[inline]
    pub(crate) fn push_back(&mut self, pages: &mut impl Linked<Which>, page: PageRef) {
        let link = pages.link(page);
        debug_assert!(!link.is_in(), "the page is in this list already");
        *link = PageLink { next: NIL, prev: self.tail };
        match self.tail {
            NIL => self.head = page,
            tail => pages.link(tail).next = page,
        }
        self.tail = page;
    }

    #[inline]
    pub(crate) fn push_front(&mut self, pages: &mut impl Linked<Which>, page: PageRef) {
        let link = pages.link(page);
        debug_assert!(!link.is_in(), "the page is in this list already");
        *link = PageLink { next: self.head, prev: NIL };
        match self.head {
            NIL => self.tail = page,
            head => pages.link(head).prev = page,
        }
        self.head = page;
    }

    /// Removes a page from any place of the list, and returns whether it was in the list.
    #[inline]
    pub(crate) fn remove(&mut self, pages: &mut impl Linked<Which>, page: PageRef) -> bool {
        let link = core::mem::replace(pages.link(page), PageLink::OUT);
        if !link.is_in() {
            return false;
        }
        match link.prev {
            NIL => self.head = link.next,
            prev => pages.link(prev).next = link.next,
        }
        match link.next {
            NIL => self.tail = link.prev,
            next => pages.link(next).prev = link.prev,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    impl Linked<Queued> for Vec<PageLink> {
        fn link(&mut self, page: PageRef) -> &mut PageLink {
            &mut self[page.0 as usize]
        }
    }

    fn order(list: &List<Queued>, pages: &mut Vec<PageLink>) -> Vec<u32> {
        let (mut at, mut out) = (list.head, Vec::new());
        while at != NIL {
            out.push(at.0);
            at = pages.link(at).next;
        }
        out
    }

    #[test]
    fn a_page_can_leave_a_list_from_any_place() {
        for gone in 0..4_u32 {
            let mut pages = vec![PageLink::OUT; 4];
            let mut list = List::<Queued>::EMPTY;
            for i in 0..4 {
                list.push_back(&mut pages, PageRef(i));
            }
            list.remove(&mut pages, PageRef(gone));
            list.remove(&mut pages, PageRef(gone));
            let want: Vec<u32> = (0..4).filter(|&i| i != gone).collect();
            assert_eq!(order(&list, &mut pages), want);
            list.push_back(&mut pages, PageRef(gone));
            assert_eq!(order(&list, &mut pages).last(), Some(&gone));
            list.remove(&mut pages, PageRef(gone));
            list.push_front(&mut pages, PageRef(gone));
            assert_eq!(order(&list, &mut pages), [&[gone], &want[..]].concat());
        }
    }
}
