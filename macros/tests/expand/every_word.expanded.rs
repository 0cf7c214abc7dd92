#[allow(unused_braces, unused_parens)]
const _: () = {
    const __KVRAIL_BUILT: ::core::result::Result<layouts::Geometry, layouts::Refusals> = layouts::Declaration {
        axes: &[
            layouts::Axis::whole(layouts::AxisKind::Part, 2u64),
            layouts::Axis::whole(layouts::AxisKind::Layer, 4u64),
            layouts::Axis::whole(layouts::AxisKind::Token, 16u64),
            layouts::Axis::whole(layouts::AxisKind::Head, 8u64),
        ],
        order: &[
            layouts::Level::Regions(layouts::AxisKind::Part),
            layouts::Level::Pad(4096u64),
            layouts::Level::Strided(layouts::AxisKind::Layer),
            layouts::Level::Planes,
            layouts::Level::Axis(layouts::AxisKind::Token),
            layouts::Level::Pad(64u64),
            layouts::Level::Axis(layouts::AxisKind::Head),
        ],
        planes: &[
            layouts::PlaneDecl {
                fields: &[
                    layouts::FieldDecl::of::<E4m3>("first", N + 1),
                    layouts::FieldDecl::of::<F32>("scale", 1),
                ],
                order: ::core::option::Option::None,
            },
            layouts::PlaneDecl {
                fields: &[layouts::FieldDecl::of::<u8>("footer", 3)],
                order: ::core::option::Option::Some(
                    &[
                        layouts::Level::Pad(576u64),
                        layouts::Level::Axis(layouts::AxisKind::Token),
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
    /// `order(regions(part), pad(4096), strided(layer), planes, token, pad(64), head)`, `parts = 2`, `layers = 4`, `tokens = 64`, `heads = 8`, `tokens_per_state = 4`, `align = 4096`, `version = 1`, `swizzle = 2`; from `footer` on `order(pad(576), token)`.
    #[automatically_derived]
    impl layouts::KvLayout for Everything {
        const NAME: &'static ::core::primitive::str = "everything";
        const GEOMETRY: &'static layouts::Geometry = &layouts::expand::geometry_or_stub(
            &__KVRAIL_BUILT,
        );
    }
    const _: () = layouts::expand::accept(&__KVRAIL_BUILT, layouts::Spot::Order);
    const _: () = layouts::expand::accept(
        &__KVRAIL_BUILT,
        layouts::Spot::TokensPerState,
    );
    const _: () = layouts::expand::accept(&__KVRAIL_BUILT, layouts::Spot::Align);
    const _: () = layouts::expand::accept(&__KVRAIL_BUILT, layouts::Spot::Bytes);
    const _: () = layouts::expand::accept_axis(&__KVRAIL_BUILT, 0usize, "part");
    const _: () = layouts::expand::accept_axis(&__KVRAIL_BUILT, 1usize, "layer");
    const _: () = layouts::expand::accept_axis(&__KVRAIL_BUILT, 2usize, "token");
    const _: () = layouts::expand::accept_axis(&__KVRAIL_BUILT, 3usize, "head");
    const _: () = layouts::expand::accept(&__KVRAIL_BUILT, layouts::Spot::Level(0usize));
    const _: () = layouts::expand::accept(&__KVRAIL_BUILT, layouts::Spot::Level(1usize));
    const _: () = layouts::expand::accept(&__KVRAIL_BUILT, layouts::Spot::Level(2usize));
    const _: () = layouts::expand::accept(&__KVRAIL_BUILT, layouts::Spot::Level(3usize));
    const _: () = layouts::expand::accept(&__KVRAIL_BUILT, layouts::Spot::Level(4usize));
    const _: () = layouts::expand::accept(&__KVRAIL_BUILT, layouts::Spot::Level(5usize));
    const _: () = layouts::expand::accept(&__KVRAIL_BUILT, layouts::Spot::Level(6usize));
    const _: () = layouts::expand::accept(&__KVRAIL_BUILT, layouts::Spot::Plane(0usize));
    const _: () = layouts::expand::accept(&__KVRAIL_BUILT, layouts::Spot::Field(0usize));
    const _: () = layouts::expand::accept(&__KVRAIL_BUILT, layouts::Spot::Field(1usize));
    const _: () = layouts::expand::accept(&__KVRAIL_BUILT, layouts::Spot::Plane(1usize));
    const _: () = layouts::expand::accept(
        &__KVRAIL_BUILT,
        layouts::Spot::PlaneLevel(1usize, 0usize),
    );
    const _: () = layouts::expand::accept(
        &__KVRAIL_BUILT,
        layouts::Spot::PlaneLevel(1usize, 1usize),
    );
    const _: () = layouts::expand::accept(&__KVRAIL_BUILT, layouts::Spot::Field(2usize));
    const _: () = layouts::expand::cross_check(
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
        const FIRST: layouts::FieldOf<Self, E4m3> = layouts::expand::field(0usize);
        /// Field `scale` of a row: one `F32`.
        const SECOND: layouts::FieldOf<Self, F32> = layouts::expand::field(1usize);
        /// Field `footer` of a row: 3 × `u8`.
        const FOOTER: layouts::FieldOf<Self, u8> = layouts::expand::field(2usize);
    }
    #[allow(dead_code)]
    fn __kvrail_reads(row: &Everything) {
        let _ = (&row.first, &row.second, &row.footer);
    }
};
