//! Spellings that must be read, spellings that must be refused, and round trips.

use super::*;

#[test]
fn durations() {
    for (text, us) in [
        ("30 days", 30 * 86_400_000_000),
        ("5 min", 300_000_000),
        ("1 hour 30 minutes", 5_400_000_000),
        ("250ms", 250_000),
        (" 2 weeks ", 14 * 86_400_000_000),
        ("0 s", 0),
    ] {
        assert_eq!(parse_duration(text), Ok(us), "{text}");
        assert_eq!(parse_duration(&format_duration(us)), Ok(us), "{text}");
    }
    for text in
        ["", "30", "days", "-1 day", "7 years", "1 fortnight", "99999999999999 weeks", "1.5 h"]
    {
        assert!(parse_duration(text).is_err(), "{text}");
    }
    assert!(parse_duration("7 years").unwrap_err().contains("2557 days"));
    assert_eq!(format_duration(5_400_000_001), "1 hour 30 minutes 1 us");
}

#[test]
fn dates_agree_with_counting_days() {
    let (mut year, mut month, mut day) = (1899, 12, 31);
    for days in -25_568..60_000i64 {
        assert_eq!(days_from_date(year, month, day), Some(days), "{year}-{month}-{day}");
        assert_eq!(date_from_days(days), (year, month, day));
        day += 1;
        if day > days_in_month(year, month) {
            (month, day) = (month + 1, 1);
        }
        if month > 12 {
            (year, month) = (year + 1, 1);
        }
    }
    assert_eq!(parse_date("2026-02-29"), None);
    assert_eq!(parse_date("2024-02-29"), Some(19_782));
    assert_eq!(parse_date("2024-2-29"), None);
    assert_eq!(parse_date("2024-02-29x"), None);
    assert_eq!(format_date(-1), "1969-12-31");
}

#[test]
fn timestamps() {
    for (text, us) in [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t04:00:00+04:00", 0),
        ("1969-12-31 23:59:59.999999Z", -1),
        ("2026-01-01T00:00:00.25z", 1_767_225_600_250_000),
        ("2026-01-01T00:00:00.250000000Z", 1_767_225_600_250_000),
        ("2026-01-01T00:00:00-00:30", 1_767_227_400_000_000),
    ] {
        assert_eq!(parse_timestamp(text), Ok(us), "{text}");
        assert_eq!(parse_timestamp(&format_timestamp(us)), Ok(us), "{text}");
    }
    for (text, why) in [
        ("2026-01-01", "RFC 3339"),
        ("2026-01-01T00:00:00", "offset"),
        ("2026-01-01T24:00:00Z", "time of day"),
        ("2026-13-01T00:00:00Z", "RFC 3339"),
        ("2026-01-01T00:00:00.1234567Z", "microseconds"),
        ("2026-01-01T00:00:00.Z", "microseconds"),
        ("2026-01-01T00:00:00+4", "offset"),
        ("é", "RFC 3339"),
    ] {
        assert!(parse_timestamp(text).unwrap_err().contains(why), "{text}");
    }
}

#[test]
fn decimals_are_exact_or_refused() {
    for (text, precision, scale, unscaled) in [
        ("12.50", 12, 2, 1_250),
        ("-0.01", 3, 2, -1),
        ("1.25e3", 12, 2, 125_000),
        ("125e-2", 12, 2, 125),
        ("0.10000", 3, 1, 1),
        ("0e999999999", 3, 1, 0),
        ("99999999999999999999999999999999999999", 38, 0, 10i128.pow(38) - 1),
        ("0.1", 38, 38, 10i128.pow(37)),
        (".5", 3, 1, 5),
        ("+7.", 3, 1, 70),
    ] {
        assert_eq!(parse_decimal(text, precision, scale), Ok(unscaled), "{text}");
    }
    for (text, why) in [
        ("12.505", "more than 2 digits after"),
        ("1e-3", "more than 2 digits after"),
        ("12345678901", "more than 10 digits before"),
        ("1e99999999", "more than 10 digits before"),
        ("", "not a decimal"),
        (".", "not a decimal"),
        ("1,000", "not a decimal"),
        ("NaN", "not a decimal"),
        ("1e", "not a decimal"),
        ("--1", "not a decimal"),
        ("1e2147483648", "not a decimal"),
    ] {
        assert!(parse_decimal(text, 12, 2).unwrap_err().contains(why), "{text}");
    }
    for (unscaled, scale, text) in
        [(0, 2, "0.00"), (-5, 2, "-0.05"), (1_250, 2, "12.50"), (7, 0, "7")]
    {
        assert_eq!(format_decimal(unscaled, scale), text);
        assert_eq!(parse_decimal(text, 38, scale), Ok(unscaled));
    }
    assert_eq!(format_decimal(i128::MIN, 0).len(), 40);
}

#[test]
fn bytes() {
    for (text, bytes) in [
        ("", b"".as_slice()),
        ("Zg==", b"f"),
        ("Zg", b"f"),
        ("Zm8=", b"fo"),
        ("Zm9v", b"foo"),
        ("-_-_", &[0xfb, 0xff, 0xbf]),
        ("0x", b""),
        ("0xFf00", &[0xff, 0]),
        ("hex:0a", b"\n"),
    ] {
        assert_eq!(parse_binary(text).as_deref(), Ok(bytes), "{text}");
    }
    for text in ["Z", "Zh==", "Zg=", "Zm9v=", "Zm 9v", "0xf", "0xgg", "é"] {
        assert!(parse_binary(text).is_err(), "{text}");
    }
    for length in 0..40u8 {
        let bytes: Vec<u8> = (0..length).map(|n| n.wrapping_mul(37)).collect();
        assert_eq!(parse_binary(&format_base64(&bytes)).as_ref(), Ok(&bytes));
    }
}

#[test]
fn messages_show_values_shortly() {
    assert_eq!(show(&Value::String("a\"b\n".into())), r#""a\"b\n""#);
    assert!(show(&Value::String("x".repeat(500).into())).len() < 80);
    assert_eq!(show(&Value::List(vec![Value::Int(1); 9].into())), "[1, 1, 1, 1, …]");
    assert_eq!(show(&Value::Timestamp(1)), "1970-01-01T00:00:00.000001Z");
}
