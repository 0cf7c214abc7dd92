/// Pulls.
///
/// Pulls pages of `pages::Mla`, `pages::Indexer` and `Window` out of peers' memory:
/// a `Reader` whose maxima are known at compile time.
///
/// | maximum | |
/// |---|---|
/// | `max_rails` | 2 |
/// | `max_peers` | PEERS |
/// | `max_pools` | 5 |
/// | `max_regions` | 8 |
/// | `max_lanes` | 8 |
/// | `max_depth` | 64 |
/// | `max_batch` | 1 + 1 |
/// | `max_batches` | 3 |
/// | `max_submitters` | 4 |
/// | `max_plans` | 100 |
/// | `chunk` | 4096 |
/// | `rail_bytes` | 1 << 20 |
/// | `rail_wrs` | 99 |
/// | `deadline_ms` | 50 |
/// | `max_message` | 1 << 24 |
/// | `max_cq` | 4096 |
/// | `max_sges` | 30 |
///
/// Its whole state is in a `Storage`. How much of it is in use is set at run time.
pub(crate) struct Pull<T: kv::ReaderTransport = kv::shm::ShmRails> {
    reader: kv::Reader<T>,
}
#[allow(dead_code)]
impl<T: kv::ReaderTransport> Pull<T> {
    /// Starts a reader over `rails` in the state of a `Storage`. For a page whose rank is
    /// known only at run time it does not compile: use `start_as`.
    ///
    /// # Errors
    ///
    /// More rails than declared, or numbers in `config` that cannot work or contradict the
    /// declaration. The storage can be taken again.
    pub(crate) fn start(
        state: kv::TakenStorage<<Self as kv::macro_support::Declared>::State>,
        rails: T,
        config: kv::Config,
    ) -> ::core::result::Result<Self, kv::StartError> {
        Self::start_as(state, kv::PageLayout::of::<pages::Mla>(), rails, config)
    }
    /// As `start`, for the declared page at a rank: `PageLayout::at_rank`.
    ///
    /// # Errors
    ///
    /// As `start`, or the pages of another layout.
    pub(crate) fn start_as(
        state: kv::TakenStorage<<Self as kv::macro_support::Declared>::State>,
        layout: kv::PageLayout,
        rails: T,
        config: kv::Config,
    ) -> ::core::result::Result<Self, kv::StartError> {
        match kv::macro_support::start::<
            Self,
            T,
        >(
            state,
            layout,
            &[kv::PageLayout::of::<pages::Indexer>(), kv::PageLayout::of::<Window>()],
            rails,
            config,
        ) {
            ::core::result::Result::Ok(reader) => {
                ::core::result::Result::Ok(Self { reader })
            }
            ::core::result::Result::Err(error) => ::core::result::Result::Err(error),
        }
    }
    /// The deadline of a batch that is submitted now: the declared time from now.
    #[must_use]
    pub(crate) fn deadline(&self) -> kv::core::time::Time {
        let milliseconds = <Self as kv::macro_support::Declared>::MAXIMA.deadline_ms;
        kv::clock::within(
            ::core::time::Duration::from_millis(milliseconds as ::core::primitive::u64),
        )
    }
}
#[automatically_derived]
impl<T: kv::ReaderTransport> ::core::ops::Deref for Pull<T> {
    type Target = kv::Reader<T>;
    fn deref(&self) -> &Self::Target {
        &self.reader
    }
}
#[automatically_derived]
impl<T: kv::ReaderTransport> ::core::ops::DerefMut for Pull<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.reader
    }
}
#[automatically_derived]
impl<T: kv::ReaderTransport> ::core::fmt::Debug for Pull<T> {
    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
        ::core::fmt::Debug::fmt(&self.reader, f)
    }
}
const _: () = {
    impl Pull<kv::shm::ShmRails> {
        #[doc(hidden)]
        const __MAXIMA: kv::macro_support::Maxima = kv::macro_support::Maxima {
            rails: 2,
            peers: PEERS,
            regions: 8,
            lanes: 8,
            depth: 64,
            batch: 1 + 1,
            batches: 3,
            submitters: 4,
            plans: 100,
            chunk: ::core::option::Option::Some(4096),
            rail_bytes: ::core::option::Option::Some(1 << 20),
            rail_wrs: ::core::option::Option::Some(99),
            deadline_ms: 50,
            page: <pages::Mla as kv::layouts::KvLayout>::PAGE_BYTES
                as ::core::primitive::usize,
            page_regions: <pages::Mla as kv::layouts::KvLayout>::REGIONS
                as ::core::primitive::usize,
        };
        /// Bytes of a reader's whole state, without the rails' own: the size of its
        /// `Storage`.
        pub(crate) const STATE_BYTES: ::core::primitive::usize = ::core::mem::size_of::<
            kv::Storage<Pull>,
        >();
    }
    #[automatically_derived]
    impl<T: kv::ReaderTransport> kv::macro_support::Declared for Pull<T> {
        type State = kv::macro_support::State<
            { Pull::<kv::shm::ShmRails>::__MAXIMA.peers },
            { Pull::<kv::shm::ShmRails>::__MAXIMA.regions },
            { Pull::<kv::shm::ShmRails>::__MAXIMA.lanes },
            { Pull::<kv::shm::ShmRails>::__MAXIMA.depth },
            { Pull::<kv::shm::ShmRails>::__MAXIMA.batches },
            { Pull::<kv::shm::ShmRails>::__MAXIMA.batch },
            { Pull::<kv::shm::ShmRails>::__MAXIMA.submitters },
            {
                kv::macro_support::mail(
                    Pull::<kv::shm::ShmRails>::__MAXIMA.submitters,
                    Pull::<kv::shm::ShmRails>::__MAXIMA.batches,
                )
            },
            {
                let mail = kv::macro_support::mail(
                    Pull::<kv::shm::ShmRails>::__MAXIMA.submitters,
                    Pull::<kv::shm::ShmRails>::__MAXIMA.batches,
                );
                kv::macro_support::news(
                    mail,
                    Pull::<kv::shm::ShmRails>::__MAXIMA.submitters,
                    Pull::<kv::shm::ShmRails>::__MAXIMA.batches,
                    Pull::<kv::shm::ShmRails>::__MAXIMA.batch,
                )
            },
        >;
        const PAGE: kv::macro_support::DeclaredPage = kv::macro_support::DeclaredPage::of::<
            pages::Mla,
        >();
        const MAXIMA: kv::macro_support::Maxima = Pull::<kv::shm::ShmRails>::__MAXIMA;
    }
    const _: () = kv::macro_support::accept_rails(&Pull::<kv::shm::ShmRails>::__MAXIMA);
    const _: () = kv::macro_support::accept_peers(&Pull::<kv::shm::ShmRails>::__MAXIMA);
    const _: () = kv::macro_support::accept_regions(
        &Pull::<kv::shm::ShmRails>::__MAXIMA,
    );
    const _: () = kv::macro_support::accept_lanes(&Pull::<kv::shm::ShmRails>::__MAXIMA);
    const _: () = kv::macro_support::accept_depth(&Pull::<kv::shm::ShmRails>::__MAXIMA);
    const _: () = kv::macro_support::accept_batch(&Pull::<kv::shm::ShmRails>::__MAXIMA);
    const _: () = kv::macro_support::accept_batches(
        &Pull::<kv::shm::ShmRails>::__MAXIMA,
    );
    const _: () = kv::macro_support::accept_submitters(
        &Pull::<kv::shm::ShmRails>::__MAXIMA,
    );
    const _: () = kv::macro_support::accept_plans(&Pull::<kv::shm::ShmRails>::__MAXIMA);
    const _: () = kv::macro_support::accept_rail_bytes(
        &Pull::<kv::shm::ShmRails>::__MAXIMA,
    );
    const _: () = kv::macro_support::accept_rail_wrs(
        &Pull::<kv::shm::ShmRails>::__MAXIMA,
    );
    const _: () = kv::macro_support::accept_deadline(
        &Pull::<kv::shm::ShmRails>::__MAXIMA,
    );
    const _: () = kv::macro_support::accept_page(
        <pages::Mla as kv::layouts::KvLayout>::GEOMETRY,
    );
    const _: () = kv::macro_support::accept_page(
        <pages::Indexer as kv::layouts::KvLayout>::GEOMETRY,
    );
    const _: () = kv::macro_support::accept_page(
        <Window as kv::layouts::KvLayout>::GEOMETRY,
    );
    const _: () = kv::macro_support::accept_chunk(
        &Pull::<kv::shm::ShmRails>::__MAXIMA,
        1 << 24,
    );
    const _: () = kv::macro_support::accept_cq(
        &Pull::<kv::shm::ShmRails>::__MAXIMA,
        4096,
    );
    const _: () = kv::macro_support::accept_plan_of(
        <pages::Mla as kv::layouts::KvLayout>::GEOMETRY,
        &PLAN,
    );
    const _: () = kv::macro_support::accept_plan(
        &Pull::<kv::shm::ShmRails>::__MAXIMA,
        &PLAN,
        30,
    );
};
