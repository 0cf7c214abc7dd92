//! Views refuse wrong bytes, and read and write where the geometry says.

use kvrail_layouts::catalogue::{SglV32Indexer, VllmFp8DsMla};
use kvrail_layouts::{
    Bf16, E4m3, E5m2, Element, ElementKind, F16, F32, Fingerprint, Fp4x2, KvLayout, RunError, Selection,
};
use kvrail_layouts::{Ue8m0, View, ViewError, ViewMut};
use kvrail_macros::KvLayout;

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(regions(planes), layer, token, head))]
#[kv(layers = 2, tokens = 3, heads = 2, align = 4, name = "two objects")]
struct Objects {
    k: [Bf16; 4],
    #[kv(plane)]
    v: [Bf16; 4],
}

#[repr(align(64))]
struct Aligned([u8; 128]);

#[test]
fn wrong_bytes_are_refused_with_both_numbers() {
    let print = VllmFp8DsMla::FINGERPRINT;
    let bytes = vec![0; 41_984];
    assert!(View::<VllmFp8DsMla>::new(&bytes, print).is_ok());
    // Elements have alignment 1: a page may begin anywhere unless its declaration says otherwise.
    let shifted = vec![0; 41_985];
    assert!(View::<VllmFp8DsMla>::new(&shifted[1..], print).is_ok());

    let error = View::<VllmFp8DsMla>::new(&shifted, print).unwrap_err();
    assert_eq!(
        error,
        ViewError::Length { layout: "vllm_fp8_ds_mla", region: 0, expected: 41_984, found: 41_985 }
    );
    assert_eq!(
        error.to_string(),
        "region 0 of vllm_fp8_ds_mla has 41984 bytes, the slice has 41985: give exactly one page's"
    );
    let error = View::<VllmFp8DsMla>::new(&bytes, SglV32Indexer::FINGERPRINT).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&print.to_string()) && text.contains(&SglV32Indexer::FINGERPRINT.to_string()));
    let error = View::<Objects>::new(&bytes, Objects::FINGERPRINT).unwrap_err();
    assert_eq!(
        error.to_string(),
        "two objects has its bytes in 2 regions, and got 1 slices: give one for each, in order"
    );
}

#[test]
fn misalignment_is_refused() {
    let memory = Aligned([0; 128]);
    let (k, v) = (&memory.0[..96], &memory.0[2..98]);
    assert!(View::<Objects>::of_regions(&[k, k], Objects::FINGERPRINT).is_ok());
    let error = View::<Objects>::of_regions(&[k, v], Objects::FINGERPRINT).unwrap_err();
    assert_eq!(error, ViewError::Misaligned { layout: "two objects", region: 1, align: 4, over: 2 });
    assert!(error.to_string().contains("align = 4") && error.to_string().contains("2 bytes past"));
}

#[test]
fn runs_are_where_the_geometry_says() {
    let print = SglV32Indexer::FINGERPRINT;
    let mut bytes = vec![0; SglV32Indexer::PAGE_BYTES as usize];
    let mut view = ViewMut::<SglV32Indexer>::new(&mut bytes, print).unwrap();
    let (keys, scale) = (0, 1);
    view.run_mut::<F32>(scale, &[2, 5]).unwrap()[0] = F32::from_bits(1.5f32.to_bits());
    view.bytes_mut(keys, &[60, 63]).unwrap().fill(7);
    assert_eq!(view.run::<u8>(keys, &[60, 63]).unwrap(), [7; 128]);
    assert_eq!(view.geometry(), SglV32Indexer::GEOMETRY);

    assert_eq!(bytes[2 * 8_448 + 8_192 + 20..][..4], 1.5f32.to_le_bytes());
    assert_eq!(bytes[60 * 8_448 + 63 * 128..][..128], [7; 128]);
    assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 2 + 128);

    let view = View::<SglV32Indexer>::new(&bytes, print).unwrap();
    assert_eq!(f32::from_bits(view.run::<F32>(scale, &[2, 5]).unwrap()[0].to_bits()), 1.5);
    assert_eq!(view.bytes(scale, &[2, 5]).unwrap(), 1.5f32.to_le_bytes());
    let error = view.run::<Bf16>(scale, &[2, 5]).unwrap_err();
    assert_eq!(
        error,
        RunError::ElementKind { field: "scale", actual: ElementKind::F32, asked: ElementKind::Bf16 }
    );
    assert_eq!(error.to_string(), "`scale` is declared as F32, and was requested as Bf16");
    assert_eq!(
        view.run::<F32>(scale, &[61, 0]).unwrap_err().to_string(),
        "`scale`: layer 61 is out of range, the page has 61"
    );
}

#[test]
fn fields_are_found_by_their_constants() {
    let (mut k, mut v) = (Aligned([0; 128]), Aligned([0; 128]));
    let mut regions = [&mut k.0[..96], &mut v.0[..96]];
    let mut view = ViewMut::<Objects>::of_regions(&mut regions, Objects::FINGERPRINT).unwrap();
    view.get_mut(Objects::V, &[1, 2, 1]).unwrap()[3] = Bf16::from_bits(0x3f80);
    assert_eq!(view.get(Objects::V, &[1, 2, 1]).unwrap()[3].to_bits(), 0x3f80);
    assert_eq!(view.bytes(1, &[1, 2, 1]).unwrap(), [0, 0, 0, 0, 0, 0, 0x80, 0x3f]);
    assert_eq!(
        view.get(Objects::K, &[2, 0, 0]).unwrap_err().to_string(),
        "`k`: layer 2 is out of range, the page has 2"
    );
    assert_eq!(v.0[94..96], [0x80, 0x3f]);

    assert_eq!((Objects::K.index(), Objects::V.index()), (0, 1));
    assert_eq!(Objects::V.description().map(|field| field.name()), Some("v"));
    assert_eq!(Objects::V.place(&[0, 1, 0]), Objects::GEOMETRY.offset_of(1, &[0, 1, 0]));
    assert_eq!(format!("{:?}", Objects::V), "two objects::v: Bf16");
}

#[test]
fn regions_and_selections_are_slices() {
    let (mut k, mut v) = (Aligned([0; 128]), Aligned([0; 128]));
    let mut regions = [&mut k.0[..96], &mut v.0[..96]];
    let mut view = ViewMut::<Objects>::of_regions(&mut regions, Objects::FINGERPRINT).unwrap();
    assert!(view.region_mut(2).is_none());
    view.region_mut(0).unwrap().fill(1);
    // A token of two heads of 8 bytes, in both layers of V.
    let part = Selection::ALL.field("v").tokens(1, 1);
    let mut pieces = 0;
    view.select_mut(part, |piece| {
        pieces += 1;
        piece.fill(pieces);
    })
    .unwrap();
    assert_eq!(pieces, 2);
    assert!(view.select_mut(Selection::ALL.tokens(3, 1), |_| panic!("called")).is_err());
    assert_eq!(k.0[..96], [1; 96]);

    let regions = [&k.0[..96], &v.0[..96]];
    let view = View::<Objects>::of_regions(&regions, Objects::FINGERPRINT).unwrap();
    assert_eq!(view.region(1), Some(&v.0[..96]));
    assert_eq!(view.region(2), None);
    let pieces: Vec<_> = view.select(part).unwrap().collect();
    assert_eq!(pieces, [&[1; 16], &[2; 16]]);
    assert_eq!(v.0[16..32], [1; 16]);
    assert_eq!(v.0[64..80], [2; 16]);
    assert_eq!(v.0.iter().filter(|byte| **byte != 0).count(), 32);
    // All of both objects.
    assert_eq!(view.select(Selection::ALL).unwrap().map(<[u8]>::len).collect::<Vec<_>>(), [96, 96]);
}

#[test]
fn regions_are_written_apart() {
    let (mut k, mut v) = (Aligned([0; 128]), Aligned([0; 128]));
    let mut regions = [&mut k.0[..96], &mut v.0[..96]];
    let mut view = ViewMut::<Objects>::of_regions(&mut regions, Objects::FINGERPRINT).unwrap();
    view.run_mut::<Bf16>(1, &[1, 2, 1]).unwrap()[3] = Bf16::from_bits(0x3f80);
    assert_eq!(k.0, [0; 128]);
    assert_eq!(v.0[94..96], [0x80, 0x3f]);
    assert_eq!(v.0.iter().filter(|byte| **byte != 0).count(), 2);
}

#[test]
fn elements_are_little_endian_and_unaligned() {
    fn bytes<E: Element>(element: E) -> Vec<u8> {
        assert_eq!((size_of::<E>() as u64, align_of::<E>()), (E::KIND.bytes(), 1));
        zerocopy::IntoBytes::as_bytes(&element).to_vec()
    }
    assert_eq!(bytes(F32::from_bits(0x0102_0304)), [4, 3, 2, 1]);
    assert_eq!(bytes(F16::from_bits(0x0102)), [2, 1]);
    assert_eq!(bytes(Bf16::from_bits(0x0102)), [2, 1]);
    assert_eq!(bytes(E4m3::from_bits(3)), [3]);
    assert_eq!(bytes(E5m2::from_bits(3)), [3]);
    assert_eq!(bytes(Ue8m0::from_bits(3)), [3]);
    assert_eq!(bytes(Fp4x2::from_bits(0x21)), [0x21]);
    assert_eq!(bytes(3u8), [3]);
    assert_eq!(bytes(-1i8), [255]);
    // The bytes of a fingerprint, which never change.
    let codes = [u8::KIND, i8::KIND, F32::KIND, F16::KIND, Bf16::KIND, E4m3::KIND, E5m2::KIND];
    assert_eq!(codes.map(|kind| kind as u8), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!((Ue8m0::KIND as u8, Fp4x2::KIND as u8), (8, 9));
}

#[test]
fn fingerprints_travel_as_bytes_and_print_as_hex() {
    let print = VllmFp8DsMla::FINGERPRINT;
    assert_eq!(Fingerprint::from_bytes(print.to_bytes()), print);
    let hex: String = print.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(print.to_string(), hex);
}
