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
pub struct Reader<T: ::kvrail::ReaderTransport = ::kvrail::shm::ShmRails> {
    reader: ::kvrail::Reader<T>,
}
#[allow(dead_code)]
impl<T: ::kvrail::ReaderTransport> Reader<T> {
    /// Starts a reader over `rails` in the state of a `Storage`. For a page whose rank is
    /// known only at run time it does not compile: use `start_as`.
    ///
    /// # Errors
    ///
    /// More rails than declared, or numbers in `config` that cannot work or contradict the
    /// declaration. The storage can be taken again.
    pub fn start(
        state: ::kvrail::TakenStorage<
            <Self as ::kvrail::macro_support::Declared>::State,
        >,
        rails: T,
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
        state: ::kvrail::TakenStorage<
            <Self as ::kvrail::macro_support::Declared>::State,
        >,
        layout: ::kvrail::PageLayout,
        rails: T,
        config: ::kvrail::Config,
    ) -> ::core::result::Result<Self, ::kvrail::StartError> {
        match ::kvrail::macro_support::start::<
            Self,
            T,
        >(state, layout, &[], rails, config) {
            ::core::result::Result::Ok(reader) => {
                ::core::result::Result::Ok(Self { reader })
            }
            ::core::result::Result::Err(error) => ::core::result::Result::Err(error),
        }
    }
    /// The deadline of a batch that is submitted now: the declared time from now.
    #[must_use]
    pub fn deadline(&self) -> ::kvrail::core::time::Time {
        let milliseconds = <Self as ::kvrail::macro_support::Declared>::MAXIMA
            .deadline_ms;
        ::kvrail::clock::within(
            ::core::time::Duration::from_millis(milliseconds as ::core::primitive::u64),
        )
    }
}
#[automatically_derived]
impl<T: ::kvrail::ReaderTransport> ::core::ops::Deref for Reader<T> {
    type Target = ::kvrail::Reader<T>;
    fn deref(&self) -> &Self::Target {
        &self.reader
    }
}
#[automatically_derived]
impl<T: ::kvrail::ReaderTransport> ::core::ops::DerefMut for Reader<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.reader
    }
}
#[automatically_derived]
impl<T: ::kvrail::ReaderTransport> ::core::fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
        ::core::fmt::Debug::fmt(&self.reader, f)
    }
}
const _: () = {
    impl Reader<::kvrail::shm::ShmRails> {
        #[doc(hidden)]
        const __MAXIMA: ::kvrail::macro_support::Maxima = ::kvrail::macro_support::Maxima {
            rails: 8,
            peers: 256,
            regions: ::kvrail::macro_support::regions(
                ::kvrail::macro_support::pools(256),
                ::kvrail::macro_support::most_regions(
                    &[<Mla as ::kvrail::layouts::KvLayout>::REGIONS],
                ),
            ),
            lanes: ::kvrail::macro_support::lanes(256, 8),
            depth: 128,
            batch: 64,
            batches: 64,
            submitters: 0,
            plans: ::kvrail::macro_support::MAX_PLANS,
            chunk: ::core::option::Option::None,
            rail_bytes: ::core::option::Option::None,
            rail_wrs: ::core::option::Option::None,
            deadline_ms: 1000,
            page: <Mla as ::kvrail::layouts::KvLayout>::PAGE_BYTES
                as ::core::primitive::usize,
            page_regions: <Mla as ::kvrail::layouts::KvLayout>::REGIONS
                as ::core::primitive::usize,
        };
        /// Bytes of a reader's whole state, without the rails' own: the size of its
        /// `Storage`.
        pub const STATE_BYTES: ::core::primitive::usize = ::core::mem::size_of::<
            ::kvrail::Storage<Reader>,
        >();
    }
    #[automatically_derived]
    impl<T: ::kvrail::ReaderTransport> ::kvrail::macro_support::Declared for Reader<T> {
        type State = ::kvrail::macro_support::State<
            { Reader::<::kvrail::shm::ShmRails>::__MAXIMA.peers },
            { Reader::<::kvrail::shm::ShmRails>::__MAXIMA.regions },
            { Reader::<::kvrail::shm::ShmRails>::__MAXIMA.lanes },
            { Reader::<::kvrail::shm::ShmRails>::__MAXIMA.depth },
            { Reader::<::kvrail::shm::ShmRails>::__MAXIMA.batches },
            { Reader::<::kvrail::shm::ShmRails>::__MAXIMA.batch },
            { Reader::<::kvrail::shm::ShmRails>::__MAXIMA.submitters },
            {
                ::kvrail::macro_support::mail(
                    Reader::<::kvrail::shm::ShmRails>::__MAXIMA.submitters,
                    Reader::<::kvrail::shm::ShmRails>::__MAXIMA.batches,
                )
            },
            {
                let mail = ::kvrail::macro_support::mail(
                    Reader::<::kvrail::shm::ShmRails>::__MAXIMA.submitters,
                    Reader::<::kvrail::shm::ShmRails>::__MAXIMA.batches,
                );
                ::kvrail::macro_support::news(
                    mail,
                    Reader::<::kvrail::shm::ShmRails>::__MAXIMA.submitters,
                    Reader::<::kvrail::shm::ShmRails>::__MAXIMA.batches,
                    Reader::<::kvrail::shm::ShmRails>::__MAXIMA.batch,
                )
            },
        >;
        const PAGE: ::kvrail::macro_support::DeclaredPage = ::kvrail::macro_support::DeclaredPage::of::<
            Mla,
        >();
        const MAXIMA: ::kvrail::macro_support::Maxima = Reader::<
            ::kvrail::shm::ShmRails,
        >::__MAXIMA;
    }
    const _: () = ::kvrail::macro_support::accept_rails(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::macro_support::accept_peers(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::macro_support::accept_regions(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::macro_support::accept_lanes(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::macro_support::accept_depth(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::macro_support::accept_batch(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::macro_support::accept_batches(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::macro_support::accept_submitters(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::macro_support::accept_plans(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::macro_support::accept_rail_bytes(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::macro_support::accept_rail_wrs(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::macro_support::accept_deadline(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
    );
    const _: () = ::kvrail::macro_support::accept_page(
        <Mla as ::kvrail::layouts::KvLayout>::GEOMETRY,
    );
    const _: () = ::kvrail::macro_support::accept_chunk(
        &Reader::<::kvrail::shm::ShmRails>::__MAXIMA,
        1 << 30,
    );
};
