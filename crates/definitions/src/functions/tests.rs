//! The list resolves, is immutable, and its bits are golden.

use datafusion::logical_expr::Volatility;

use super::*;

#[test]
fn every_listed_function_exists_and_is_immutable() {
    for (name, implementation, ..) in LIBRARY {
        let function =
            find(name).unwrap_or_else(|| panic!("{name}: no implementation {implementation}"));
        assert_eq!(function.udf.signature().volatility, Volatility::Immutable, "{name}");
        assert!(function.fewest <= function.most, "{name}");
    }
    assert!(names().count() > 90);
}

#[test]
fn nothing_that_reads_the_world_is_listed() {
    for name in [
        "now",
        "random",
        "uuid",
        "current_date",
        "current_timestamp",
        "version",
        "to_timestamp",
        "repeat",
    ] {
        assert!(find(name).is_none(), "{name}");
    }
    assert!(advice("now").is_some());
}

#[test]
fn near_names_are_found() {
    assert_eq!(nearest("uper", names()), Some("upper"));
    assert_eq!(nearest("regexp", names()), Some("regexp_like"));
    assert_eq!(nearest("qqqqqqqqqq", names()), None);
}

/// Bits of libm 0.2.16. A change here changes features: grow [`FUNCTION_SET_VERSION`].
#[test]
fn transcendental_bits_are_golden() {
    let found = super::libm::golden()
        .into_iter()
        .map(|(name, x, bits)| (bits, super::libm::evaluate(name, x).to_bits(), name, x));
    let wrong: Vec<String> = found
        .filter(|(expected, found, ..)| expected != found)
        .map(|(_, found, name, x)| format!("(\"{name}\", {x:?}, 0x{found:016x}),"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
