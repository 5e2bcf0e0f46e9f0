//! Bad input is a typed error: never a panic, never an endless loop.

use proptest::collection::vec;
use proptest::prelude::*;
use waypost::hash::{
    BlockHrw, BoundedLoad, HashRing, Jump, Maglev, MultiProbe, Rendezvous, Table, TableError,
};

fn weight() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..4u32, 1 => 0..200u32, 1 => any::<u32>()]
}

fn nodes() -> impl Strategy<Value = Vec<(String, u32)>> {
    vec(("[a-e\u{0}é]{0,3}", weight()), 0..20)
}

/// What every table must say about these nodes; `None` if they are good.
fn fault(nodes: &[(String, u32)]) -> Option<TableError> {
    if nodes.is_empty() {
        return Some(TableError::NoNodes);
    }
    if nodes.iter().all(|node| node.1 == 0) {
        return Some(TableError::AllWeightsZero);
    }
    None
}

fn check<T: Table>(
    nodes: &[(String, u32)],
    built: Result<T, TableError>,
    hash: u64,
) -> Result<(), TestCaseError> {
    let twins = (1..nodes.len()).any(|i| nodes[..i].iter().any(|node| node.0 == nodes[i].0));
    match built {
        Ok(table) => {
            prop_assert!(fault(nodes).is_none() && !twins);
            let owner = table.lookup(hash);
            prop_assert!(owner.is_some_and(|node| nodes[node as usize].1 > 0));
            prop_assert_eq!(table.find(hash, &mut |_| true), owner);
            prop_assert_eq!(table.find(hash, &mut |_| false), None);
        }
        Err(TableError::DuplicateNode { name }) => {
            prop_assert!(nodes.iter().filter(|node| node.0 == name).count() > 1);
        }
        Err(TableError::TooManyPoints { points, limit }) => prop_assert!(points > limit),
        Err(error) => prop_assert_eq!(Some(error), fault(nodes)),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn tables_take_or_refuse(nodes in nodes(), hash: u64) {
        let ring = HashRing::builder().max_points(1 << 17);
        check(&nodes, ring.build(nodes.clone()), hash)?;
        check(&nodes, Maglev::with_size(1_009, nodes.clone()), hash)?;
        check(&nodes, Rendezvous::new(nodes.clone()), hash)?;
        if nodes.iter().map(|node| u64::from(node.1)).sum::<u64>() < 1 << 16 {
            check(&nodes, MultiProbe::new(nodes.clone()), hash)?;
        }
        let equal: Vec<_> = nodes.iter().map(|node| (node.0.clone(), 1)).collect();
        check(&equal, BlockHrw::new(equal.iter().map(|node| &node.0)), hash)?;
    }

    #[test]
    fn ring_settings_never_break_it(
        vnodes: u32, unit: u32, nodes in nodes(), hash: u64, more in weight(),
    ) {
        let builder = HashRing::builder().vnodes(vnodes).unit_weight(unit).max_points(1 << 14);
        let built = builder.build(nodes.clone());
        if let Ok(ring) = &built {
            let changed = ring.with_node_changed(0, more);
            if let Ok(changed) = changed {
                let mut nodes = nodes.clone();
                nodes[0].1 = more;
                match builder.build(nodes) {
                    Ok(fresh) => prop_assert!(changed == fresh),
                    Err(error) => {
                        prop_assert_eq!(error, TableError::AllWeightsZero);
                        prop_assert_eq!(changed.lookup(hash), None);
                    }
                }
            }
        }
        check(&nodes, built, hash)?;
    }

    #[test]
    fn maglev_sizes(size in prop_oneof![0..3_000u64, any::<u64>()]) {
        let built = Maglev::with_size(size, [("a", 1), ("b", 7)]);
        let prime = size > 2 && size < 3_000 && (2..size).all(|d| size % d != 0);
        if size < 3_000 {
            prop_assert_eq!(built.is_ok(), prime);
        } else if size > Maglev::MAX_SIZE {
            let refused = matches!(built, Err(TableError::BadTableSize { .. }));
            prop_assert!(refused);
        }
    }

    #[test]
    fn jump_takes_any_number(buckets: u32, hash: u64) {
        match Jump::new(buckets) {
            Ok(jump) => prop_assert!(jump.lookup(hash).is_some_and(|bucket| bucket < buckets)),
            Err(_) => prop_assert!(buckets == 0 || buckets > 1 << 31),
        }
    }

    #[test]
    fn maglev_needs_a_slot_for_each_node(
        size in prop::sample::select(vec![3u64, 5, 7, 11, 13]), count in 1..30u64,
    ) {
        let built = Maglev::with_size(size, (0..count).map(|node| (node.to_string(), 1)));
        if count > size {
            let refused = TableError::TooManyNodes { nodes: count, limit: size };
            prop_assert_eq!(built.unwrap_err(), refused);
        } else {
            prop_assert!(built.is_ok());
        }
    }

    /// NaN and the infinities included.
    #[test]
    fn capacities_suffice(epsilon in prop::num::f64::ANY, weights in vec(any::<u32>(), 1..9), load: u64) {
        let bound = BoundedLoad::new(epsilon);
        let total = weights.iter().map(|&weight| u64::from(weight)).sum::<u64>();
        let room: u128 = weights
            .iter()
            .map(|&weight| u128::from(bound.capacity(weight, total, load)))
            .sum();
        prop_assert!(total == 0 || room >= u128::from(load));
    }
}
