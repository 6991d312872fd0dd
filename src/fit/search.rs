//! The search for the first number that fits, in as few looks as a straight line needs.

/// Returns the first number in `from..=to` where nothing is exceeded; from there on nothing is.
/// `before` is by how much it is exceeded just below `from`.
///
/// What is exceeded falls nearly in a straight line, so that three looks usually do; every third
/// one halves the range, whatever the line.
pub(super) fn first_without_excess(before: i64, from: u32, to: u32, mut excess: impl FnMut(u32) -> i64) -> Option<u32> {
    if from > to {
        return None;
    }
    // Exceeded at `low`, which is counted from one below `from`, and not at `high`.
    let (mut low, mut high) = (0, to - from + 1);
    let (mut above, mut below) = (before.max(1), excess(to));
    if below > 0 {
        return None;
    }
    let mut looks = 0_u32;
    while high - low > 1 {
        looks += 1;
        let middle = low + (high - low) / 2;
        let look = if looks.is_multiple_of(3) { middle } else { crossing((low, above), (high, below)) };
        match excess(from + look - 1) {
            left if left > 0 => (low, above) = (look, left),
            left => (high, below) = (look, left),
        }
    }
    Some(from + high - 1)
}

/// Returns where a straight line from above zero to below comes to zero, rounded up, strictly
/// between its ends.
fn crossing((low, above): (u32, i64), (high, below): (u32, i64)) -> u32 {
    let (above, below) = (i128::from(above), i128::from(below));
    let steps = (i128::from(high - low) * above + (above - below) - 1) / (above - below);
    let look = i128::from(low) + steps;
    u32::try_from(look).unwrap_or(high).clamp(low + 1, high - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_straight_line_takes_few_looks() {
        for slope in [1, 7, 440_000_000] {
            for zero in 1..=80 {
                let mut looks = 0;
                let excess = |number: u32| slope * (i64::from(zero) - i64::from(number));
                let found = first_without_excess(excess(0), 1, 80, |number| {
                    looks += 1;
                    excess(number)
                });
                assert_eq!(found, u32::try_from(zero).ok());
                assert!(looks <= 4, "{looks} looks for {zero}");
            }
        }
    }

    #[test]
    fn nothing_is_found_where_all_is_exceeded_or_nothing_is_asked() {
        assert_eq!(first_without_excess(9, 1, 80, |_| 1), None);
        assert_eq!(first_without_excess(9, 2, 1, |_| 0), None);
        assert_eq!(first_without_excess(9, 1, 1, |_| 0), Some(1));
        assert_eq!(first_without_excess(i64::MAX, 0, u32::MAX - 1, |number| i64::from(number < 5)), Some(5));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_falling_line_is_followed_to_its_first_fit_in_bounded_looks(
            mut line in prop::collection::vec(any::<i64>(), 2..300),
            from in 1_u32..1_000,
        ) {
            line.sort_by(|one, other| other.cmp(one));
            let excess = |number: u32| line[(number - from) as usize + 1];
            let to = from + u32::try_from(line.len()).unwrap() - 2;
            let mut looks = 0;
            let found = first_without_excess(line[0], from, to, |number| { looks += 1; excess(number) });
            prop_assert_eq!(found, (from..=to).find(|number| excess(*number) <= 0));
            prop_assert!(looks <= 3 * 9 + 1, "{} looks", looks);
        }
    }
}
