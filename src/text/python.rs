//! What templates expect of Python: its JSON and its dates.

use minijinja::ErrorKind;
use minijinja::value::{Value, ValueKind};

/// Values nested deeper are not written.
const DEEPEST: usize = 100;

/// JSON as Python's `json.dumps` writes it: a blank after commas and colons, keys in their order, letters as they are.
pub(super) fn write_json(
    value: &Value,
    indent: Option<usize>,
    depth: usize,
    out: &mut String,
) -> Result<(), minijinja::Error> {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let kind = value.kind();
    let plain = match kind {
        ValueKind::Undefined | ValueKind::None => Some("null".into()),
        ValueKind::Bool => Some(value.is_true().to_string()),
        ValueKind::Number => Some(value.to_string()),
        ValueKind::Map | ValueKind::Seq | ValueKind::Iterable => None,
        _ => Some(text(&value.to_string())),
    };
    if let Some(plain) = plain {
        out.push_str(&plain);
        return Ok(());
    }
    if depth == DEEPEST {
        let why = format!("tojson: values are nested more than {DEEPEST} deep");
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, why));
    }
    let is_map = kind == ValueKind::Map;
    let (open, close) = if is_map { ('{', '}') } else { ('[', ']') };
    let line = |depth: usize, out: &mut String| {
        if let Some(indent) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    out.push(open);
    let mut empty = true;
    for item in value.try_iter()? {
        if !empty {
            out.push_str(if indent.is_some() { "," } else { ", " });
        }
        empty = false;
        line(depth + 1, out);
        if is_map {
            out.push_str(&text(&item.to_string()));
            out.push_str(": ");
            write_json(&value.get_item(&item)?, indent, depth + 1, out)?;
        } else {
            write_json(&item, indent, depth + 1, out)?;
        }
    }
    if !empty {
        line(depth, out);
    }
    out.push(close);
    Ok(())
}

/// A time of UTC, in seconds since 1970, by the directives of C's `strftime`.
pub(super) fn strftime(format: &str, seconds: u64) -> Result<String, String> {
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let (days, clock) = (seconds / 86400, seconds % 86400);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let of_year = day + 1;
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    let (day, number, weekday) = (day + 1, month + 1, DAYS[(days % 7) as usize]);
    let hour_12 = (hour + 11) % 12 + 1;
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let mut directive = letters.next();
        // `%-d`: without a zero in front.
        let plain = directive == Some('-');
        if plain {
            directive = letters.next();
        }
        let two = |n: u64| if plain { n.to_string() } else { format!("{n:02}") };
        out.push_str(&match directive {
            Some('Y') => year.to_string(),
            Some('y') => two(year % 100),
            Some('m') => two(number as u64),
            Some('d') => two(day),
            Some('j') => {
                if plain {
                    of_year.to_string()
                } else {
                    format!("{of_year:03}")
                }
            }
            Some('H') => two(hour),
            Some('I') => two(hour_12),
            Some('M') => two(minute),
            Some('S') => two(second),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_string(),
            Some('B') => MONTHS[month].to_string(),
            Some('b') => MONTHS[month][..3].to_string(),
            Some('A') => weekday.to_string(),
            Some('a') => weekday[..3].to_string(),
            Some('F') => format!("{year}-{number:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => "UTC".to_string(),
            Some('%') => "%".to_string(),
            Some(other) => return Err(format!("strftime_now: the directive %{other} is unknown")),
            None => return Err("strftime_now: the format ends with %".to_string()),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let all = "%Y %y %m %d %j %H %I %M %S %p %B %b %A %a %F %T %Z %%";
        let want = "2024 24 02 29 060 15 03 04 05 PM February Feb Thursday Thu 2024-02-29 15:04:05 UTC %";
        assert_eq!(strftime(all, 1_709_219_045).unwrap(), want);
        assert_eq!(strftime("%d %b %Y", 951_782_400).unwrap(), "29 Feb 2000");
        assert_eq!(strftime("%-d.%-m.%Y %I %p", 4_102_444_800).unwrap(), "1.1.2100 12 AM");
        assert_eq!(strftime("%A %d %B %Y", 4_107_542_400).unwrap(), "Monday 01 March 2100");
        assert_eq!(strftime("%F %-j", 0).unwrap(), "1970-01-01 1");
        assert!(strftime("%Q", 0).unwrap_err().contains("%Q is unknown"));
        assert!(strftime("%", 0).is_err());
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let list = Value::from_iter([Value::from("ü\"\n"), Value::from(1.0), Value::from(true), Value::from(())]);
        let map = Value::from_iter([("b", list), ("a", Value::from(-3)), ("c", Value::from_iter(Vec::<Value>::new()))]);
        let json = |indent| {
            let mut out = String::new();
            write_json(&map, indent, 0, &mut out).unwrap();
            out
        };
        assert_eq!(json(None), r#"{"b": ["ü\"\n", 1.0, true, null], "a": -3, "c": []}"#);
        let want =
            "{\n  \"b\": [\n    \"ü\\\"\\n\",\n    1.0,\n    true,\n    null\n  ],\n  \"a\": -3,\n  \"c\": []\n}";
        assert_eq!(json(Some(2)), want);
    }
}
