//! One layout, moved every way.

use kvrail::layouts::{AxisKind, Geometry, KvLayout, Plan, Selection, Spread};
use kvrail::{PageLayout, PublisherTransport, Reader, ReaderTransport};

use super::image::Page;
use super::packed::packed;
use super::rig::{assert_bytes, bytes_of, clear, key, publish, publisher, run, slots};

const PAGES: u32 = 2;

/// The same page in one region: each field by itself, then axis in axis, and no padding.
pub(crate) struct Packed<L>(std::marker::PhantomData<L>);

impl<L: KvLayout> KvLayout for Packed<L> {
    const NAME: &'static str = "packed";
    const GEOMETRY: &'static Geometry = &packed(L::GEOMETRY);
}

/// The layout, at rank 3 if it leaves its rank to run time.
fn at_rank<L: KvLayout>() -> PageLayout {
    let open = |spread: Spread| matches!(spread, Spread::Sharded { rank: None, .. });
    let open = L::GEOMETRY.axes().iter().any(|axis| open(axis.spread));
    let ranks: &[_] = if open { &[(AxisKind::Head, 3)] } else { &[] };
    PageLayout::at_ranks::<L>(ranks).unwrap()
}

/// Publishes pages of `L`, and reads them whole; those of several regions by plans as well, into
/// slots of one region, and back into slots of several. Compares every byte.
pub(crate) fn moves<L: KvLayout, N: ReaderTransport>(over: impl PublisherTransport, rails: N) {
    let (layout, one) = (at_rank::<L>(), at_rank::<Packed<L>>());
    let several = layout.regions() > 1;
    let layouts = [layout, one];
    let publisher = publisher(&layouts[..1 + usize::from(several)], PAGES, over);
    let mut reader = Reader::start(layout, rails, Default::default()).unwrap();
    if several {
        reader.add_layout(&one).unwrap();
    }
    let mut own = slots(&mut reader, &layout);
    let peer = reader.connect(&publisher.local_addr().into(), key()).unwrap();
    assert_eq!(peer.pools().len(), 1 + usize::from(several));
    let pool = peer.pool_of(&layout).unwrap();
    assert_eq!((pool.slots(), pool.regions().len()), (PAGES.into(), 1));
    assert_eq!(u32::from(pool.regions()[0].regions()), layout.regions());
    let page = |number: u32| Page::new(layout.geometry(), number.into());
    let locations: Vec<_> =
        (0..PAGES).map(|slot| publish(&publisher, 0, slot, &page(slot).bytes())).collect();

    // Whole: padding comes along.
    let mut batch = reader.batch().unwrap();
    for &location in &locations {
        let mut slot = own.pop().unwrap();
        clear(&reader, &mut slot);
        batch.read(pool.page(location).unwrap(), slot).map_err(|(error, _)| error).unwrap();
    }
    for (number, (slot, result)) in (0..).zip(run(&mut reader, batch)) {
        result.unwrap();
        assert_bytes(&bytes_of(&reader, &slot, &layout), &page(number).bytes(), "as it is");
        own.push(slot);
    }
    if !several {
        return;
    }

    // Gathered into one region.
    let gather = Plan::between(layout.geometry(), one.geometry(), Selection::ALL).unwrap();
    let scatter = Plan::between(one.geometry(), layout.geometry(), Selection::ALL).unwrap();
    assert_eq!((gather.regions(), scatter.regions()), ((layout.regions(), 1), (1, layout.regions())));
    let (gather, scatter) = (reader.add_plan(&gather).unwrap(), reader.add_plan(&scatter).unwrap());
    let gathered = slots(&mut reader, &one);
    let mut batch = reader.batch().unwrap();
    for (&location, mut slot) in locations.iter().zip(gathered) {
        clear(&reader, &mut slot);
        batch.read_with(pool.page(location).unwrap(), slot, gather).map_err(|(error, _)| error).unwrap();
    }
    let mut locations = Vec::new();
    for (number, (slot, result)) in (0..).zip(run(&mut reader, batch)) {
        result.unwrap();
        let bytes = bytes_of(&reader, &slot, &one);
        let expected = Page::new(one.geometry(), number.into()).landed(|_| true);
        assert_bytes(&bytes, &expected, "gathered");
        // This node publishes what it has read.
        locations.push(publish(&publisher, 1, number, &bytes));
    }

    // And scattered again: every row is back, and padding is as it was.
    let pool = peer.pool_of(&one).unwrap();
    let mut batch = reader.batch().unwrap();
    for &location in &locations {
        let mut slot = own.pop().unwrap();
        clear(&reader, &mut slot);
        batch.read_with(pool.page(location).unwrap(), slot, scatter).map_err(|(error, _)| error).unwrap();
    }
    for (number, (slot, result)) in (0..).zip(run(&mut reader, batch)) {
        result.unwrap();
        assert_bytes(&bytes_of(&reader, &slot, &layout), &page(number).landed(|_| true), "scattered");
    }
}

/// One test for each layout that is shipped, each a call of `$moves::<Layout>()`, and one that says
/// that none is missing.
macro_rules! each_layout {
    ($moves:ident: $($test:ident $layout:ident,)*) => {
        $(#[test]
        fn $test() {
            $moves::<kvrail::layouts::catalogue::$layout>();
        })*

        #[test]
        fn every_shipped_layout_has_a_test() {
            let tested = [$(stringify!($test)),*];
            let shipped: Vec<_> = kvrail::layouts::catalogue::all().map(|(name, _)| name).collect();
            assert_eq!(shipped, tested);
        }
    };
}
pub(crate) use each_layout;

/// [`each_layout`] with all of them, in the catalogue's order.
macro_rules! all_layouts {
    ($moves:ident) => {
        $crate::moves::each_layout! {
            $moves:
            sgl_mla_page_first SglMlaPageFirst,
            sgl_mla_page_first_direct SglMlaPageFirstDirect,
            sgl_mla_layer_first SglMlaLayerFirst,
            sgl_mla_page_first_kv_split SglMlaPageFirstKvSplit,
            sgl_mla_fp4_layer_first SglMlaFp4LayerFirst,
            sgl_v32_fp8_page_first SglV32Fp8PageFirst,
            sgl_v32_indexer SglV32Indexer,
            sgl_llama3_8b_page_first SglLlama3_8bPageFirst,
            sgl_llama3_8b_page_first_direct SglLlama3_8bPageFirstDirect,
            sgl_llama3_70b_tp8_page_head SglLlama3_70bTp8PageHead,
            sgl_llama3_8b_page_unified SglLlama3_8bPageUnified,
            vllm_fp8_ds_mla VllmFp8DsMla,
            vllm_mla_bf16 VllmMlaBf16,
            vllm_nvfp4_ds_mla VllmNvfp4DsMla,
            vllm_llama3_8b_lbnhc VllmLlama3_8bLbnhc,
            vllm_llama3_8b_lbhnc VllmLlama3_8bLbhnc,
            vllm_llama3_8b_blhnc VllmLlama3_8bBlhnc,
            vllm_fp8_token_head VllmFp8TokenHead,
            vllm_int8_token_head VllmInt8TokenHead,
            vllm_nvfp4_gqa VllmNvfp4Gqa,
            v4_c4 V4C4,
            v4_c128 V4C128,
            vllm_v4_index VllmV4Index,
            vllm_v4_index_mxfp4 VllmV4IndexMxfp4,
            sgl_v4_index SglV4Index,
            sgl_v4_index_mxfp4 SglV4IndexMxfp4,
            vllm_v4_window VllmV4Window,
            sgl_v4_window SglV4Window,
            vllm_v41 VllmV41,
            sgl_v41 SglV41,
            vllm_v41_fp4 VllmV41Fp4,
            sgl_v41_fp4 SglV41Fp4,
            lmc_llama3_8b LmcLlama3_8b,
            lmc_mla LmcMla,
            trtllm_llama3_8b TrtllmLlama3_8b,
        }
    };
}
pub(crate) use all_layouts;
