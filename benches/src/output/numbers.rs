//! Numbers as people read them.

/// Groups digits by thousands: 1234567 is 1,234,567.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds in the unit that fits.
pub(crate) fn time(us: f64) -> String {
    if us < 1e3 {
        format!("{us:.0} us")
    } else if us < 1e6 {
        format!("{:.2} ms", us / 1e3)
    } else {
        format!("{:.2} s", us / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        let numbers = [0, 999, 1000, 1_234_567, 4_497_408];
        assert_eq!(numbers.map(grouped), ["0", "999", "1,000", "1,234,567", "4,497,408"]);
        assert_eq!([0.4, 999.0, 1500.0, 2e6].map(time), ["0 us", "999 us", "1.50 ms", "2.00 s"]);
    }
}
