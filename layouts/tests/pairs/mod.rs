//! Random pairs of layouts, and an oracle for the plan between them, which works element by
//! element, from names and indices, with nothing of the plan's own arithmetic. The fuzz target
//! `plan` includes this file.

use std::collections::BTreeMap;

use kvrail_layouts::plan::{Cut, CutList, Limits, Plan, PlanError, Wr};
use kvrail_layouts::{
    Axis, AxisKind, AxisStep, Declaration, ElementKind, FieldDecl, Geometry, Level, Place, PlaneDecl,
    Selection,
};

const KINDS: [AxisKind; 4] = [AxisKind::Layer, AxisKind::Token, AxisKind::Head, AxisKind::Other(3)];
const ELEMENTS: [ElementKind; 3] = [ElementKind::U8, ElementKind::Bf16, ElementKind::F32];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Farther than anything dense reaches.
const FAR: u64 = 1 << 16;

/// Random choices, read from bytes. When the bytes are used up, every choice is 0.
pub struct Dice<'b>(pub &'b [u8]);

impl Dice<'_> {
    fn below(&mut self, n: u64) -> u64 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        u64::from(*first) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == n - 1
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// How one axis of the whole is held by the two sides: extents, and where each begins in the whole.
#[derive(Clone, Copy, Debug)]
struct Along {
    kind: AxisKind,
    extents: [u64; 2],
    origins: [u64; 2],
    ranks: Option<[u32; 2]>,
    block: Option<u64>,
    /// Both sides are stages of a whole of so many.
    of: Option<u64>,
}

fn along(dice: &mut Dice<'_>, kind: AxisKind) -> Along {
    let extent = 1 + dice.below(4);
    let same = Along { kind, extents: [extent; 2], origins: [0; 2], ranks: None, block: None, of: None };
    let ratio = 1 + dice.below(3);
    let larger = dice.below(2) as usize;
    let mut extents = [extent; 2];
    extents[larger] *= ratio;
    match dice.below(4) {
        0 => {
            let ranks = 1 + dice.below(3) as u32;
            let ranks = [0, 1].map(|side| if side == larger { ranks } else { ranks * ratio as u32 });
            let origins = [0, 1].map(|side: usize| dice.below(u64::from(ranks[side])) * extents[side]);
            Along { extents, origins, ranks: Some(ranks), ..same }
        }
        1 if ratio > 1 => {
            let block = dice.below(ratio);
            let mut origins = [0; 2];
            origins[1 - larger] = block * extent;
            Along { extents, origins, block: Some(block), ..same }
        }
        2 => {
            let of = 1 + dice.below(6);
            let origins = [0, 1].map(|_| dice.below(of));
            let extents = origins.map(|first| 1 + dice.below(of - first));
            Along { extents, origins, of: Some(of), ..same }
        }
        _ => same,
    }
}

/// A page of these axes and fields, in an order of its own.
fn page(
    dice: &mut Dice<'_>,
    all: &[Along],
    side: usize,
    mut fields: Vec<FieldDecl>,
    part: bool,
) -> Option<Geometry> {
    let mut axes: Vec<_> = all
        .iter()
        // An axis of one index may be left out.
        .filter(|along| {
            along.extents[side] > 1 || along.ranks.is_some() || along.of.is_some() || dice.below(2) == 0
        })
        .map(|along| match (along.ranks, along.of) {
            (Some(ranks), _) => Axis::sharded(along.kind, along.extents[side], ranks[side]),
            (_, Some(of)) => Axis::stage(along.kind, along.origins[side], along.extents[side], of),
            _ => Axis::whole(along.kind, along.extents[side]),
        })
        .collect();
    if part {
        axes.push(Axis::whole(AxisKind::Part, 2));
    }
    dice.shuffle(&mut axes);
    dice.shuffle(&mut fields);
    let kinds: Vec<_> = axes.iter().map(|axis| axis.kind).collect();
    let regions = if dice.one_in(3) { dice.below(kinds.len() as u64 + 1).min(2) as usize } else { 0 };
    let mut order: Vec<_> = kinds[regions..].iter().map(|kind| Level::Axis(*kind)).collect();
    for _ in 0..dice.below(3) {
        let at = dice.below(order.len() as u64 + 1) as usize;
        order.insert(at, Level::Pad(1 + dice.below(20)));
    }
    let mut planes = vec![(fields.clone(), None)];
    let mut far = None;
    if fields.len() > 1 && dice.below(2) == 0 {
        let (first, second) = fields.split_at(1 + dice.below(fields.len() as u64 - 1) as usize);
        planes = vec![(first.to_vec(), None), (second.to_vec(), None)];
        let at = if dice.one_in(3) {
            order.insert(0, Level::RegionPlanes);
            0
        } else {
            let at = dice.below(order.len() as u64 + 1) as usize;
            order.insert(at, Level::Planes);
            at
        };
        if dice.one_in(3) {
            // Its own order, perhaps without some axes.
            let mut levels = order[at + 1..].to_vec();
            levels.reverse();
            levels.truncate(2);
            planes[1].1 = Some(levels);
        }
    } else if regions == 0
        && let Some(Level::Axis(kind)) = order.first().copied()
        && dice.one_in(4)
    {
        order[0] = Level::Strided(kind);
        far = Some(kind);
    }
    order.splice(0..0, kinds[..regions].iter().map(|kind| Level::Regions(*kind)));
    let planes: Vec<_> =
        planes.iter().map(|(fields, order)| PlaneDecl { fields, order: order.as_deref() }).collect();
    let declaration = Declaration { axes: &axes, order: &order, planes: &planes, ..Declaration::EMPTY };
    let mut geometry = declaration.build().ok()?;
    if let Some(kind) = far {
        geometry = geometry.place().stride(0, kind, FAR + dice.below(9)).finish().ok()?;
    }
    for along in all {
        if let Some(ranks) = along.ranks {
            let rank = (along.origins[side] / along.extents[side]) as u32;
            assert!(rank < ranks[side]);
            geometry = geometry.at_rank(along.kind, rank).unwrap();
        }
    }
    Some(geometry)
}

/// Two pages, how they belong together, and the wanted part of the second.
pub struct Pair {
    source: Geometry,
    destination: Geometry,
    all: Vec<Along>,
    /// Along each axis of the destination: first and length.
    wanted: Vec<(AxisKind, u64, u64)>,
    /// By place in the destination.
    fields: Vec<bool>,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { source, destination, all, wanted, fields } = self;
        write!(f, "from {source}\ninto {destination}\nheld as {all:#?}\nwanted {wanted:?}, fields {fields:?}")
    }
}

impl Pair {
    /// A pair, unless the choices make no legal page.
    pub fn draw(dice: &mut Dice<'_>) -> Option<Self> {
        let mut kinds = KINDS.to_vec();
        dice.shuffle(&mut kinds);
        kinds.truncate(dice.below(4) as usize + 1);
        let all: Vec<_> = kinds.iter().map(|kind| along(dice, *kind)).collect();
        let mut fields: Vec<_> = (0..=dice.below(3) as usize)
            .map(|i| FieldDecl::new(NAMES[i], ELEMENTS[dice.below(3) as usize], 1 + dice.below(3)))
            .collect();
        let (mut from, mut into) = (fields.clone(), fields.clone());
        // K and V: as two fields on both sides, or as an axis on one or on both.
        let (mut part_from, mut part_into) = (false, false);
        if dice.one_in(3) {
            let shape = (ElementKind::F16, 1 + dice.below(3));
            let named = |name| FieldDecl::new(name, shape.0, shape.1);
            let held = dice.below(4);
            (part_from, part_into) = (held & 1 != 0, held & 2 != 0);
            if part_from || part_into {
                // Other fields would have the axis, too.
                fields.clear();
                (from, into) = (Vec::new(), Vec::new());
            }
            let kv = |part: bool| if part { vec![named("kv")] } else { vec![named("k"), named("v")] };
            from.extend(kv(part_from));
            into.extend(kv(part_into));
        }
        let source = page(dice, &all, 0, from, part_from)?;
        let destination = page(dice, &all, 1, into, part_into)?;
        let wanted = destination.axes().iter().map(|axis| {
            let first = if dice.one_in(3) { dice.below(axis.extent) } else { 0 };
            let len = if dice.one_in(3) { 1 + dice.below(axis.extent - first) } else { axis.extent - first };
            (axis.kind, first, len)
        });
        let wanted = wanted.collect();
        let some = dice.one_in(4);
        let mut fields: Vec<_> = destination.fields().iter().map(|_| !some || dice.below(2) == 0).collect();
        if !fields.contains(&true) {
            fields[0] = true;
        }
        Some(Self { source, destination, all, wanted, fields })
    }

    fn selection(&self) -> Selection {
        let mut selection = Selection::ALL;
        for (kind, first, len) in &self.wanted {
            selection = selection.along(*kind, *first, *len);
        }
        if self.fields.contains(&false) {
            for (field, wanted) in self.destination.fields().iter().zip(&self.fields) {
                if *wanted {
                    selection = selection.field(field.name());
                }
            }
        }
        selection
    }

    /// The source's index for one of the destination's, or `None` if the source has it not.
    fn index(&self, kind: AxisKind, index: u64) -> Option<u64> {
        let Some(along) = self.all.iter().find(|along| along.kind == kind) else { return Some(index) };
        let index = (along.origins[1] + index).checked_sub(along.origins[0])?;
        (index < along.extents[0]).then_some(index)
    }

    /// Every wanted byte of the destination with the byte of the source that goes there; `None`
    /// where two go to one place.
    fn oracle(&self) -> Option<BTreeMap<(u32, u64), (u32, u64)>> {
        let (s, d) = (&self.source, &self.destination);
        let mut map = BTreeMap::new();
        let mut single = true;
        for (f, field) in d.fields().iter().enumerate().filter(|(f, _)| self.fields[*f]) {
            let mut at: Vec<u64> = self.wanted.iter().map(|(_, first, _)| *first).collect();
            'indices: loop {
                // The source's indices for these, and the index of K and V.
                let mut part = None;
                let mut named = BTreeMap::new();
                let mut there = true;
                for ((kind, ..), index) in self.wanted.iter().zip(&at) {
                    if *kind == AxisKind::Part {
                        part = Some(*index);
                        continue;
                    }
                    match self.index(*kind, *index) {
                        Some(index) => _ = named.insert(kind.number(), index),
                        None => there = false,
                    }
                }
                // Of an axis that the destination lacks the source holds one index, the whole's 0.
                for along in &self.all {
                    if named.contains_key(&along.kind.number()) {
                        continue;
                    }
                    match self.index(along.kind, 0) {
                        Some(index) => _ = named.insert(along.kind.number(), index),
                        None => there = false,
                    }
                }
                if there {
                    let name = match (field.name(), part) {
                        ("kv", Some(0)) if s.field_named("kv").is_none() => "k",
                        ("kv", Some(_)) if s.field_named("kv").is_none() => "v",
                        ("k" | "v", None) if s.field_named("kv").is_some() => {
                            part = Some(u64::from(field.name() == "v"));
                            "kv"
                        }
                        (name, _) => name,
                    };
                    let from = s.field_named(name).unwrap();
                    let indices: Vec<_> = s
                        .axes()
                        .iter()
                        .map(|axis| match axis.kind {
                            AxisKind::Part => part.unwrap(),
                            kind => named[&kind.number()],
                        })
                        .collect();
                    for element in 0..field.count() {
                        let a = s.offset_of_element(from, &indices, element).unwrap();
                        let b = d.offset_of_element(f, &at, element).unwrap();
                        for byte in 0..field.kind().bytes() {
                            let from = (a.region, a.offset + byte);
                            let before = map.insert((b.region, b.offset + byte), from);
                            single &= before.is_none_or(|before| before == from);
                        }
                    }
                }
                for ((_, first, len), index) in self.wanted.iter().zip(&mut at).rev() {
                    *index += 1;
                    if *index < first + len {
                        continue 'indices;
                    }
                    *index = *first;
                }
                break;
            }
        }
        single.then_some(map)
    }

    /// Makes the plan and compares it with the oracle. Returns whether there was a plan.
    pub fn check(&self, dice: &mut Dice<'_>) -> bool {
        let blocks: Vec<_> = self.all.iter().filter_map(|along| Some((along.kind, along.block?))).collect();
        let made = Plan::between_blocks(&self.source, &self.destination, &blocks, self.selection());
        let oracle = self.oracle();
        let plan = match made {
            Ok(plan) => plan,
            Err(PlanError::Apart { .. }) => {
                assert!(oracle.is_some_and(|map| map.is_empty()), "{self:#?}");
                return false;
            }
            Err(PlanError::Merged { field, axis, .. }) => {
                let a = self.destination.axis_index(axis).unwrap();
                let f = self.destination.field_named(field).unwrap();
                let plane = self.destination.fields()[f].plane();
                assert_eq!(self.destination.step(plane, a), Some(AxisStep::Shared));
                assert_eq!(oracle, None, "{self:#?}");
                return false;
            }
            Err(error) => panic!("{error}: {self:#?}"),
        };
        // It knows whose pages it moves, and between which regions.
        assert_eq!(
            (*plan.source(), *plan.destination()),
            (self.source.identity(), self.destination.identity())
        );
        let regions: std::collections::BTreeSet<_> =
            plan.iter().map(|piece| (piece.source.region, piece.destination.region)).collect();
        let only = if regions.len() == 1 { regions.first().copied() } else { None };
        assert_eq!(plan.between_regions(), only, "{self:#?}");
        let oracle = oracle.expect("no two bytes go to one place");
        let mut map = BTreeMap::new();
        let mut pieces = 0;
        for piece in plan.iter() {
            pieces += 1;
            for i in 0..piece.len {
                let from = (piece.source.region, piece.source.offset + i);
                let to = (piece.destination.region, piece.destination.offset + i);
                assert_eq!(map.insert(to, from), None, "a byte is written twice: {self:#?}");
            }
        }
        assert_eq!(map, oracle, "{self:#?}\n{plan}");
        assert_eq!((plan.pieces(), plan.bytes()), (pieces, map.len() as u64));
        check_runs(&plan);

        let limits = Limits { sges: 1 + dice.below(5) as u32, bytes: 1 + dice.below(250) as u32 };
        let mut seen = 0;
        for source in 0..plan.regions().0 {
            for destination in 0..plan.regions().1 {
                let only: BTreeMap<_, _> =
                    map.iter().filter(|(to, from)| (to.0, from.0) == (destination, source)).collect();
                match plan.only(source, destination) {
                    Some(plan) => seen += check_cut(&plan.cut(limits).unwrap(), limits, &only, dice),
                    None => assert!(only.is_empty()),
                }
            }
        }
        assert_eq!(seen, map.len());
        true
    }
}

/// Runs are pieces that follow each other at the source, and any one of them can be had by its
/// number.
fn check_runs(plan: &Plan) {
    let mut pieces = plan.iter();
    for number in 0..plan.runs() {
        let run = plan.run(number).unwrap();
        let Place { region, mut offset } = run.source();
        for i in 0..run.pieces() {
            let piece = run.piece(i).unwrap();
            assert_eq!(Some(piece), pieces.next());
            assert_eq!(piece.source, Place { region, offset });
            offset += piece.len;
        }
        assert_eq!((run.bytes(), run.piece(run.pieces())), (offset - run.source().offset, None));
    }
    assert_eq!((pieces.next(), plan.run(plan.runs())), (None, None));
}

/// A walk by rows of any length gives the same work requests as a walk one by one.
fn check_rows(cut: &Cut, begin: u32, all: &[(Wr, Vec<(u32, u32)>)], dice: &mut Dice<'_>) {
    let (mut cursor, mut at) = (cut.cursor(begin), 0);
    while at < all.len() {
        let most = dice.below(9) as u32;
        let Some(row) = cursor.row(most) else {
            // Where there is no row, the next work request comes alone.
            let mut pieces = Vec::new();
            assert_eq!(cursor.next(|to, len| pieces.push((to, len))), Some(all[at].0));
            assert_eq!(pieces, all[at].1);
            at += 1;
            continue;
        };
        assert!(row.count >= 1 && row.count <= most);
        for i in 0..row.count {
            let source = row.source.wrapping_add(row.source_step.wrapping_mul(i));
            let to = row.destination.wrapping_add(row.destination_step.wrapping_mul(i));
            assert_eq!(Wr { source, len: row.len, pieces: 1 }, all[at].0);
            assert_eq!(all[at].1, [(to, row.len)]);
            at += 1;
        }
    }
    assert_eq!(cursor.row(1), None);
}

/// The work requests write the right bytes within the limits, wherever a walk begins.
fn check_cut(
    cut: &Cut,
    limits: Limits,
    map: &BTreeMap<&(u32, u64), &(u32, u64)>,
    dice: &mut Dice<'_>,
) -> usize {
    let mut all = Vec::new();
    let mut cursor = cut.cursor(0);
    let mut written = BTreeMap::new();
    loop {
        let mut pieces = Vec::new();
        let Some(wr) = cursor.next(|to, len| pieces.push((to, len))) else { break };
        assert_eq!(pieces.len(), wr.pieces as usize);
        assert!(wr.pieces >= 1 && wr.pieces <= limits.sges && wr.len >= 1 && wr.len <= limits.bytes);
        let mut from = wr.source;
        for (to, len) in &pieces {
            for i in 0..*len {
                assert_eq!(written.insert(u64::from(to + i), u64::from(from + i)), None);
            }
            from += len;
        }
        assert_eq!(from - wr.source, wr.len);
        assert!(from <= cut.source_end());
        all.push((wr, pieces));
    }
    for at in 0..all.len() {
        let (bytes, n) = CutList::equal_wrs(cut.lists(), at as u32);
        assert!(n >= 1 && all[at..][..n as usize].iter().all(|(wr, _)| wr.len == bytes), "{n} from {at}");
    }
    assert_eq!(CutList::equal_wrs(cut.lists(), cut.wrs()), (0, 0));
    assert_eq!((all.len(), written.len()), (cut.wrs() as usize, cut.bytes() as usize));
    assert!(written.iter().all(|(to, from)| map.iter().any(|(b, a)| (b.1, a.1) == (*to, *from))));
    assert_eq!(written.len(), map.len());
    assert_eq!(written.keys().max().map_or(0, |to| to + 1), u64::from(cut.destination_end()));
    let begin = dice.below(cut.wrs().into()) as u32;
    let mut cursor = cut.cursor(begin);
    for (wr, pieces) in &all[begin as usize..] {
        let mut again = Vec::new();
        assert_eq!(cursor.next(|to, len| again.push((to, len))), Some(*wr));
        assert_eq!(&again, pieces);
    }
    assert_eq!(cursor.next(|_, _| ()), None);
    assert_eq!(cut.cursor(cut.wrs()).next(|_, _| ()), None);
    check_rows(cut, begin, &all[begin as usize..], dice);
    // Moved to byte 0 of both sides, the work requests are the same.
    let (based, source, destination) = cut.rebased();
    let mut cursor = based.cursor(0);
    for (wr, pieces) in &all {
        let mut again = Vec::new();
        let moved = cursor.next(|to, len| again.push((to + destination, len))).unwrap();
        assert_eq!((moved.source + source, moved.len, &again), (wr.source, wr.len, pieces));
    }
    assert_eq!(
        (based.source_end() + source, based.destination_end() + destination),
        (cut.source_end(), cut.destination_end())
    );
    written.len()
}
