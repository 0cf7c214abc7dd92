/// Pulls pages of `Mla` out of peers' memory:
/// an engine, without a reader around it, whose maxima are known at compile time.
///
/// | maximum | |
/// |---|---|
/// | `max_rails` | 1 |
/// | `max_batch` | 64 |
///
/// Its whole state is in a `bare::BareStorage`. How much of it is in use is set at run time.
#[derive(Clone, Copy, Debug)]
pub struct Puller;
const _: () = {
    #[allow(dead_code)]
    impl Puller {
        #[doc(hidden)]
        const __MAXIMA: ::kvrail::macro_support::Maxima = ::kvrail::macro_support::Maxima {
            rails: 1,
            peers: 64,
            regions: ::kvrail::macro_support::regions(
                ::kvrail::macro_support::pools(64),
                ::kvrail::macro_support::most_regions(
                    &[<Mla as ::kvrail::layouts::KvLayout>::REGIONS],
                ),
            ),
            lanes: ::kvrail::macro_support::lanes(64, 1),
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
        /// Bytes of an engine's whole state, without the rails' own: the size of its
        /// `bare::BareStorage`.
        pub const STATE_BYTES: ::core::primitive::usize = ::core::mem::size_of::<
            ::kvrail::bare::BareStorage<Puller>,
        >();
        /// Room for one engine, for a `static` of the type `bare::BareStorage`.
        #[must_use]
        pub const fn storage() -> ::kvrail::bare::BareStorage<Puller> {
            ::kvrail::core::storage::StaticStorage::new(
                ::kvrail::core::storage::EngineStorage::new(),
            )
        }
        /// Starts an engine over the rails of `provider` in `storage`. The declared numbers
        /// replace those of `config`.
        ///
        /// # Errors
        ///
        /// More rails than declared, a storage that has been taken, or numbers in `config`
        /// that cannot work. Unless it was taken, the storage can be taken again.
        pub fn start<P: ::kvrail::core::provider::Provider>(
            storage: &'static ::kvrail::bare::BareStorage<Puller>,
            provider: P,
            config: ::kvrail::core::config::EngineConfig,
        ) -> ::core::result::Result<
            ::kvrail::core::engine::Engine<'static, P>,
            ::kvrail::bare::BareStartError,
        > {
            let config = ::kvrail::macro_support::bare_config(
                &Self::__MAXIMA,
                &provider,
                config,
            )?;
            ::core::result::Result::Ok(storage.start(provider, config)?)
        }
        /// The deadline of a batch that is submitted at `now`: the declared time from then.
        #[must_use]
        pub fn deadline(now: ::kvrail::core::time::Time) -> ::kvrail::core::time::Time {
            now
                + ::kvrail::core::time::Nanos::from_millis(
                    Self::__MAXIMA.deadline_ms as ::core::primitive::u64,
                )
        }
    }
    #[automatically_derived]
    impl ::kvrail::bare::DeclaredEngine for Puller {
        type State = ::kvrail::core::storage::EngineStorage<
            { Puller::__MAXIMA.peers },
            { Puller::__MAXIMA.regions },
            { Puller::__MAXIMA.lanes },
            { Puller::__MAXIMA.depth },
            { Puller::__MAXIMA.batches },
            { Puller::__MAXIMA.batch },
        >;
    }
    const _: () = ::kvrail::macro_support::accept_rails(&Puller::__MAXIMA);
    const _: () = ::kvrail::macro_support::accept_peers(&Puller::__MAXIMA);
    const _: () = ::kvrail::macro_support::accept_regions(&Puller::__MAXIMA);
    const _: () = ::kvrail::macro_support::accept_lanes(&Puller::__MAXIMA);
    const _: () = ::kvrail::macro_support::accept_depth(&Puller::__MAXIMA);
    const _: () = ::kvrail::macro_support::accept_batch(&Puller::__MAXIMA);
    const _: () = ::kvrail::macro_support::accept_batches(&Puller::__MAXIMA);
    const _: () = ::kvrail::macro_support::accept_submitters(&Puller::__MAXIMA);
    const _: () = ::kvrail::macro_support::accept_plans(&Puller::__MAXIMA);
    const _: () = ::kvrail::macro_support::accept_rail_bytes(&Puller::__MAXIMA);
    const _: () = ::kvrail::macro_support::accept_rail_wrs(&Puller::__MAXIMA);
    const _: () = ::kvrail::macro_support::accept_deadline(&Puller::__MAXIMA);
    const _: () = ::kvrail::macro_support::accept_page(
        <Mla as ::kvrail::layouts::KvLayout>::GEOMETRY,
    );
    const _: () = ::kvrail::macro_support::accept_chunk(&Puller::__MAXIMA, 1 << 30);
};
