#[allow(unused_braces, unused_parens)]
const _: () = {
    const __KVRAIL_BUILT: ::core::result::Result<
        kv::layouts::Geometry,
        kv::layouts::DeclarationErrors,
    > = kv::layouts::Declaration {
        axes: &[
            kv::layouts::Axis::whole(kv::layouts::AxisKind::Part, 2u64),
            kv::layouts::Axis::whole(kv::layouts::AxisKind::Layer, 4u64),
            kv::layouts::Axis::whole(kv::layouts::AxisKind::Token, 16u64),
            kv::layouts::Axis::whole(kv::layouts::AxisKind::Head, 8u64),
        ],
        order: &[
            kv::layouts::Level::Regions(kv::layouts::AxisKind::Part),
            kv::layouts::Level::Pad(4096u64),
            kv::layouts::Level::Strided(kv::layouts::AxisKind::Layer),
            kv::layouts::Level::Planes,
            kv::layouts::Level::Axis(kv::layouts::AxisKind::Token),
            kv::layouts::Level::Pad(64u64),
            kv::layouts::Level::Axis(kv::layouts::AxisKind::Head),
        ],
        planes: &[
            kv::layouts::PlaneDecl {
                fields: &[
                    kv::layouts::FieldDecl::of::<E4m3>("first", N + 1),
                    kv::layouts::FieldDecl::of::<F32>("scale", 1),
                ],
                order: ::core::option::Option::None,
            },
            kv::layouts::PlaneDecl {
                fields: &[kv::layouts::FieldDecl::of::<u8>("footer", 3)],
                order: ::core::option::Option::Some(
                    &[
                        kv::layouts::Level::Pad(576u64),
                        kv::layouts::Level::Axis(kv::layouts::AxisKind::Token),
                    ],
                ),
            },
        ],
        tokens_per_state: 4u64,
        align: 4096u64,
        bytes: ::core::option::Option::Some(1000u64),
        version: 1u32,
        swizzle: 2u32,
    }
        .build();
    /// `order(regions(part), pad(4096), strided(layer), planes, token, pad(64), head)`,
    /// `parts = 2`, `layers = 4`, `tokens = 64`, `heads = 8`, `tokens_per_state = 4`,
    /// `align = 4096`, `version = 1`, `swizzle = 2`,
    /// from `footer` on `order(pad(576), token)`.
    #[automatically_derived]
    impl kv::layouts::KvLayout for Everything {
        const NAME: &'static ::core::primitive::str = "everything";
        const GEOMETRY: &'static kv::layouts::Geometry = &kv::layouts::macro_support::geometry_or_stub(
            &__KVRAIL_BUILT,
        );
    }
    const _: () = kv::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        kv::layouts::Spot::Order,
    );
    const _: () = kv::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        kv::layouts::Spot::TokensPerState,
    );
    const _: () = kv::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        kv::layouts::Spot::Align,
    );
    const _: () = kv::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        kv::layouts::Spot::Bytes,
    );
    const _: () = kv::layouts::macro_support::accept_axis(
        &__KVRAIL_BUILT,
        0usize,
        "part",
    );
    const _: () = kv::layouts::macro_support::accept_axis(
        &__KVRAIL_BUILT,
        1usize,
        "layer",
    );
    const _: () = kv::layouts::macro_support::accept_axis(
        &__KVRAIL_BUILT,
        2usize,
        "token",
    );
    const _: () = kv::layouts::macro_support::accept_axis(
        &__KVRAIL_BUILT,
        3usize,
        "head",
    );
    const _: () = kv::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        kv::layouts::Spot::Level(0usize),
    );
    const _: () = kv::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        kv::layouts::Spot::Level(1usize),
    );
    const _: () = kv::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        kv::layouts::Spot::Level(2usize),
    );
    const _: () = kv::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        kv::layouts::Spot::Level(3usize),
    );
    const _: () = kv::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        kv::layouts::Spot::Level(4usize),
    );
    const _: () = kv::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        kv::layouts::Spot::Level(5usize),
    );
    const _: () = kv::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        kv::layouts::Spot::Level(6usize),
    );
    const _: () = kv::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        kv::layouts::Spot::Plane(0usize),
    );
    const _: () = kv::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        kv::layouts::Spot::Field(0usize),
    );
    const _: () = kv::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        kv::layouts::Spot::Field(1usize),
    );
    const _: () = kv::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        kv::layouts::Spot::Plane(1usize),
    );
    const _: () = kv::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        kv::layouts::Spot::PlaneLevel(1usize, 0usize),
    );
    const _: () = kv::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        kv::layouts::Spot::PlaneLevel(1usize, 1usize),
    );
    const _: () = kv::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        kv::layouts::Spot::Field(2usize),
    );
    const _: () = kv::layouts::macro_support::cross_check(
        &__KVRAIL_BUILT,
        &[
            ::core::mem::size_of::<[E4m3; N + 1]>(),
            ::core::mem::size_of::<F32>(),
            ::core::mem::size_of::<[u8; 3]>(),
        ],
    );
    #[allow(dead_code)]
    impl Everything {
        /// Field `first` of a row: N + 1 × `E4m3`.
        const FIRST: kv::layouts::FieldOf<Self, E4m3> = kv::layouts::macro_support::field(
            0usize,
        );
        /// Field `scale` of a row: one `F32`.
        const SECOND: kv::layouts::FieldOf<Self, F32> = kv::layouts::macro_support::field(
            1usize,
        );
        /// Field `footer` of a row: 3 × `u8`.
        const FOOTER: kv::layouts::FieldOf<Self, u8> = kv::layouts::macro_support::field(
            2usize,
        );
    }
    #[allow(dead_code)]
    fn __kvrail_reads(row: &Everything) {
        let _ = (&row.first, &row.second, &row.footer);
    }
};
