//! Values that the configuration gives in the terms of control groups v1, in the terms of v2.

/// The `cpu.weight` (1..10000) of v1 shares (2..262144): the curve of runc 1.4 and crun 1.23, on which the least, the
/// default (1024 is 100) and the most of both sides meet. Before, both used a straight line, which made 39 of the default.
pub fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            // Exact: shares are below 2^18.
            #[expect(clippy::cast_precision_loss, reason = "below 2^18")]
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            // The curve stays within 1..10000 between the ends above.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 1 and 10000"
            )]
            let weight = 10f64.powf(exponent).ceil() as u64;
            weight
        }
    }
}

/// The `io.weight` (1..10000) of a v1 block weight (10..1000), on a straight line as runc and crun have it.
pub fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.clamp(10, 1000) - 10) * 9999 / 990
}

/// The swap alone that v2 limits, of v1's memory plus swap. None is no change. Refused as runc refuses it.
pub fn swap_alone(swap: Option<i64>, limit: Option<i64>) -> Result<Option<i64>, &'static str> {
    match (swap, limit) {
        // Without a limit of memory there is none of both.
        (None | Some(0), Some(-1)) => Ok(Some(-1)),
        (None | Some(0), _) => Ok(None),
        (Some(swap), _) if swap < 0 => Ok(Some(-1)),
        (Some(_), None | Some(0)) => Err("unable to set swap limit without memory limit"),
        (Some(_), Some(limit)) if limit < 0 => {
            Err("a swap limit has no meaning where memory is unlimited")
        }
        (Some(swap), Some(limit)) if swap < limit => {
            Err("memory+swap limit should be >= memory limit")
        }
        (Some(swap), Some(limit)) => Ok(Some(swap - limit)),
    }
}

/// A limit in v2's words, where -1 is `max`.
pub fn or_max(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_of_shares_meets_the_ends_and_the_default_and_never_falls() {
        assert_eq!(
            [0, 1, 2, 1024, 262_144, u64::MAX].map(weight_of_shares),
            [1, 1, 1, 100, 10_000, 10_000]
        );
        let all: Vec<u64> = (2..=262_144).map(weight_of_shares).collect();
        assert!(all.is_sorted() && all.iter().all(|weight| (1..=10_000).contains(weight)));
    }

    #[test]
    fn io_weight_spans_the_range() {
        assert_eq!([10, 750, 1000].map(io_weight), [1, 7475, 10_000]);
    }

    #[test]
    fn swap_alone_is_what_is_above_memory() {
        assert_eq!(swap_alone(Some(150), Some(100)), Ok(Some(50)));
        assert_eq!(swap_alone(Some(100), Some(100)), Ok(Some(0)));
        assert_eq!(swap_alone(Some(-1), Some(100)), Ok(Some(-1)));
        assert_eq!(swap_alone(None, Some(-1)), Ok(Some(-1)));
        assert_eq!(swap_alone(None, Some(5)), Ok(None));
        assert!(swap_alone(Some(5), None).is_err());
        assert!(swap_alone(Some(5), Some(6)).is_err());
        assert!(swap_alone(Some(5), Some(-1)).is_err());
    }
}
