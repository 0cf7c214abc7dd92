/// Pulls pages of `Mla` out of peers' memory:
/// a `Reader` whose maxima are known at compile time.
///
/// | maximum | |
/// |---|---|
/// | `max_rails` | 8 |
/// | `max_peers` | 256 |
/// | `max_batch` | 64 |
///
/// Its whole state is in a `Storage`. How much of it is in use is set at run time.
pub struct Reader<N: ::kvrail::Network = ::kvrail::shm::ShmRails> {
    reader: ::kvrail::Reader<N>,
}
#[allow(dead_code)]
impl<N: ::kvrail::Network> Reader<N> {
    /// Starts a reader over `rails` in the state of a `Storage`. For a page whose rank is
    /// known only at run time it does not compile: use `start_as`.
    ///
    /// # Errors
    ///
    /// More rails than declared, or numbers in `config` that cannot work or contradict the
    /// declaration. The storage can be taken again.
    pub fn start(
        state: ::kvrail::TakenStorage<<Self as ::kvrail::declared::Declared>::State>,
        rails: N,
        config: ::kvrail::Config,
    ) -> ::core::result::Result<Self, ::kvrail::StartError> {
        Self::start_as(state, ::kvrail::PageLayout::of::<Mla>(), rails, config)
    }
    /// As `start`, for the declared page at a rank: `PageLayout::at_rank`.
    ///
    /// # Errors
    ///
    /// As `start`, or the pages of another layout.
    pub fn start_as(
        state: ::kvrail::TakenStorage<<Self as ::kvrail::declared::Declared>::State>,
        layout: ::kvrail::PageLayout,
        rails: N,
        config: ::kvrail::Config,
    ) -> ::core::result::Result<Self, ::kvrail::StartError> {
        match ::kvrail::declared::start::<Self, N>(state, layout, rails, config) {
            ::core::result::Result::Ok(reader) => {
                ::core::result::Result::Ok(Self { reader })
            }
            ::core::result::Result::Err(error) => ::core::result::Result::Err(error),
        }
    }
    /// The deadline of a batch that is submitted now: the declared time from now.
    #[must_use]
    pub fn deadline(&self) -> ::kvrail::core::time::Time {
        let milliseconds = <Self as ::kvrail::declared::Declared>::MAXIMA.deadline_ms;
        ::kvrail::clock::within(
            ::core::time::Duration::from_millis(milliseconds as ::core::primitive::u64),
        )
    }
}
#[automatically_derived]
impl<N: ::kvrail::Network> ::core::ops::Deref for Reader<N> {
    type Target = ::kvrail::Reader<N>;
    fn deref(&self) -> &Self::Target {
        &self.reader
    }
}
#[automatically_derived]
impl<N: ::kvrail::Network> ::core::ops::DerefMut for Reader<N> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.reader
    }
}
#[automatically_derived]
impl<N: ::kvrail::Network> ::core::fmt::Debug for Reader<N> {
    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
        ::core::fmt::Debug::fmt(&self.reader, f)
    }
}
const _: () = {
    impl Reader<::kvrail::shm::ShmRails> {
        #[doc(hidden)]
        const __MAXIMA: ::kvrail::declared::Maxima = ::kvrail::declared::Maxima {
            rails: 8,
            peers: 256,
            regions: ::kvrail::declared::regions(256),
            lanes: ::kvrail::declared::lanes(256, 8),
            depth: 128,
            batch: 64,
            batches: 64,
            submitters: 0,
            chunk: ::core::option::Option::None,
            rail_bytes: ::core::option::Option::None,
            rail_wrs: ::core::option::Option::None,
            deadline_ms: 1000,
            page: <Mla as ::kvrail::layouts::KvLayout>::PAGE_BYTES
                as ::core::primitive::usize,
        };
        /// Bytes of a reader's whole state, without the rails' own: the size of its
        /// `Storage`.
        pub const STATE_BYTES: ::core::primitive::usize = ::core::mem::size_of::<
            ::kvrail::Storage<Reader>,
        >();
    }
    #[automatically_derived]
    impl<N: ::kvrail::Network> ::kvrail::declared::Declared for Reader<N> {
        type State = ::kvrail::declared::State<
            { Reader::<::kvrail::shm::ShmRails>::__MAXIMA.peers },
            { Reader::<::kvrail::shm::ShmRails>::__MAXIMA.regions },
            { Reader::<::kvrail::shm::ShmRails>::__MAXIMA.lanes },
            { Reader::<::kvrail::shm::ShmRails>::__MAXIMA.depth },
            { Reader::<::kvrail::shm::ShmRails>::__MAXIMA.batches },
            { Reader::<::kvrail::shm::ShmRails>::__MAXIMA.batch },
            { Reader::<::kvrail::shm::ShmRails>::__MAXIMA.submitters },
            {
                ::kvrail::declared::mail(
                    Reader::<::kvrail::shm::ShmRails>::__MAXIMA.submitters,
                    Reader::<::kvrail::shm::ShmRails>::__MAXIMA.batches,
                )
            },
        >;
        const PAGE: ::kvrail::declared::Page = ::kvrail::declared::Page::of::<Mla>();
        const MAXIMA: ::kvrail::declared::Maxima = Reader::<
            ::kvrail::shm::ShmRails,
        >::__MAXIMA;
    }
    const _: () = ::kvrail::declared::accept_rails(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::declared::accept_peers(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::declared::accept_regions(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::declared::accept_lanes(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::declared::accept_depth(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::declared::accept_batch(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::declared::accept_batches(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::declared::accept_submitters(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::declared::accept_rail_bytes(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::declared::accept_rail_wrs(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::declared::accept_deadline(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::declared::accept_page(
        <Mla as ::kvrail::layouts::KvLayout>::GEOMETRY,
    );
    const _: () = ::kvrail::declared::accept_chunk(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
        1 << 30,
    );
};
