#[allow(unused_braces, unused_parens)]
const _: () = {
    /// `order(regions(planes), layer, tile, token, head)`, `axis(tile = 4, tag = 7)`,
    /// `layers = LAYERS`, `tokens = 2 * T`, `heads = H`, `replicated(layer, ranks = 2)`,
    /// `sharded(head, ranks = RANKS, rank = 3)`, `tokens_per_state = P`, `version = V`.
    #[automatically_derived]
    impl<const H: usize, const T: usize, E> ::kvrail::layouts::KvLayout for Gqa<H, T, E>
    where
        E: Copy + ::kvrail::layouts::Element,
    {
        const NAME: &'static ::core::primitive::str = "Gqa";
        const GEOMETRY: &'static ::kvrail::layouts::Geometry = &{
            #[allow(non_snake_case)]
            let __KVRAIL_0: ::core::primitive::usize = P;
            #[allow(non_snake_case)]
            let __KVRAIL_1: ::core::primitive::usize = V;
            #[allow(non_snake_case)]
            let __KVRAIL_2: ::core::primitive::usize = LAYERS;
            #[allow(non_snake_case)]
            let __KVRAIL_3: ::core::primitive::usize = 2 * T;
            #[allow(non_snake_case)]
            let __KVRAIL_4: ::core::primitive::usize = H;
            #[allow(non_snake_case)]
            let __KVRAIL_5: ::core::primitive::usize = RANKS;
            #[allow(non_snake_case)]
            let __KVRAIL_BUILT = ::kvrail::layouts::Declaration {
                axes: &[
                    ::kvrail::layouts::Axis::whole(
                        ::kvrail::layouts::AxisKind::Other(7u8),
                        4u64,
                    ),
                    ::kvrail::layouts::Axis::replicated(
                        ::kvrail::layouts::AxisKind::Layer,
                        ::kvrail::layouts::macro_support::number(__KVRAIL_2),
                        2u32,
                    ),
                    ::kvrail::layouts::Axis::whole(
                        ::kvrail::layouts::AxisKind::Token,
                        ::kvrail::layouts::macro_support::states(
                            ::kvrail::layouts::macro_support::number(__KVRAIL_3),
                            ::kvrail::layouts::macro_support::number(__KVRAIL_0),
                        ),
                    ),
                    ::kvrail::layouts::Axis {
                        kind: ::kvrail::layouts::AxisKind::Head,
                        extent: ::kvrail::layouts::macro_support::number(__KVRAIL_4),
                        spread: ::kvrail::layouts::Spread::Sharded {
                            ranks: ::kvrail::layouts::macro_support::small(__KVRAIL_5),
                            rank: ::core::option::Option::Some(3u32),
                        },
                    },
                ],
                order: &[
                    ::kvrail::layouts::Level::RegionPlanes,
                    ::kvrail::layouts::Level::Axis(::kvrail::layouts::AxisKind::Layer),
                    ::kvrail::layouts::Level::Axis(
                        ::kvrail::layouts::AxisKind::Other(7u8),
                    ),
                    ::kvrail::layouts::Level::Axis(::kvrail::layouts::AxisKind::Token),
                    ::kvrail::layouts::Level::Axis(::kvrail::layouts::AxisKind::Head),
                ],
                planes: &[
                    ::kvrail::layouts::PlaneDecl {
                        fields: &[::kvrail::layouts::FieldDecl::of::<E>("k", 128)],
                        order: ::core::option::Option::None,
                    },
                    ::kvrail::layouts::PlaneDecl {
                        fields: &[::kvrail::layouts::FieldDecl::of::<E>("v", 128)],
                        order: ::core::option::Option::None,
                    },
                ],
                tokens_per_state: ::kvrail::layouts::macro_support::number(__KVRAIL_0),
                align: 1u64,
                bytes: ::core::option::Option::None,
                version: ::kvrail::layouts::macro_support::small(__KVRAIL_1),
                swizzle: 0u32,
            }
                .build();
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Order,
            );
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::TokensPerState,
            );
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Align,
            );
            ::kvrail::layouts::macro_support::accept_axis(
                &__KVRAIL_BUILT,
                0usize,
                "tile",
            );
            ::kvrail::layouts::macro_support::accept_axis(
                &__KVRAIL_BUILT,
                1usize,
                "layer",
            );
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Spread(1usize),
            );
            ::kvrail::layouts::macro_support::accept_axis(
                &__KVRAIL_BUILT,
                2usize,
                "token",
            );
            ::kvrail::layouts::macro_support::accept_states(
                ::kvrail::layouts::macro_support::number(__KVRAIL_3),
                ::kvrail::layouts::macro_support::number(__KVRAIL_0),
            );
            ::kvrail::layouts::macro_support::accept_axis(
                &__KVRAIL_BUILT,
                3usize,
                "head",
            );
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Spread(3usize),
            );
            ::kvrail::layouts::macro_support::accept_small(__KVRAIL_1);
            ::kvrail::layouts::macro_support::accept_small(__KVRAIL_5);
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Level(0usize),
            );
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Level(1usize),
            );
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Level(2usize),
            );
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Level(3usize),
            );
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Level(4usize),
            );
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Plane(0usize),
            );
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Field(0usize),
            );
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Plane(1usize),
            );
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Field(1usize),
            );
            ::kvrail::layouts::macro_support::cross_check(
                &__KVRAIL_BUILT,
                &[::core::mem::size_of::<[E; 128]>(), ::core::mem::size_of::<[E; 128]>()],
            );
            ::kvrail::layouts::macro_support::geometry_or_stub(&__KVRAIL_BUILT)
        };
    }
    #[allow(dead_code)]
    impl<const H: usize, const T: usize, E> Gqa<H, T, E>
    where
        E: Copy + ::kvrail::layouts::Element,
    {
        /// Keys.
        ///
        /// Field `k` of a row: 128 × `E`.
        pub const K: ::kvrail::layouts::FieldOf<Self, E> = ::kvrail::layouts::macro_support::field(
            0usize,
        );
        /// Field `v` of a row: 128 × `E`.
        pub const V: ::kvrail::layouts::FieldOf<Self, E> = ::kvrail::layouts::macro_support::field(
            1usize,
        );
    }
    #[allow(dead_code)]
    fn __kvrail_reads<const H: usize, const T: usize, E>(row: &Gqa<H, T, E>)
    where
        E: Copy + ::kvrail::layouts::Element,
    {
        let _ = (&row.k, &row.v);
    }
};
