//! Text for people: tables with numbers to the right, and quantities with units.

/// A table whose columns are as wide as the widest cell that it was told of.
pub struct Table {
    columns: Vec<Column>,
}

struct Column {
    title: &'static str,
    right: bool,
    width: usize,
}

impl Table {
    /// Columns by title; a title that begins with `>` is of numbers, which are set to the right.
    pub fn new(titles: &[&'static str]) -> Table {
        let column = |title: &'static str| {
            let (title, right) = title.strip_prefix('>').map_or((title, false), |t| (t, true));
            Column { title, right, width: title.chars().count() }
        };
        Table { columns: titles.iter().map(|t| column(t)).collect() }
    }

    /// Widens columns for the cells of a line to come.
    pub fn fit<S: AsRef<str>>(&mut self, cells: &[S]) {
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.width = column.width.max(cell.as_ref().chars().count());
        }
    }

    /// The line of titles.
    pub fn head(&self) -> String {
        let titles: Vec<&str> = self.columns.iter().map(|c| c.title).collect();
        self.line(&titles)
    }

    /// One line, without the line's end.
    pub fn line<S: AsRef<str>>(&self, cells: &[S]) -> String {
        let mut line = String::new();
        for (column, cell) in self.columns.iter().zip(cells) {
            let (cell, width) = (cell.as_ref(), column.width);
            line += &if column.right { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
        }
        line.truncate(line.trim_end().len());
        line
    }

    /// A whole table, each line with its end.
    pub fn render<S: AsRef<str>>(titles: &[&'static str], rows: &[Vec<S>]) -> String {
        let mut table = Table::new(titles);
        rows.iter().for_each(|row| table.fit(row));
        let mut text = table.head() + "\n";
        rows.iter().for_each(|row| text += &(table.line(row) + "\n"));
        text
    }
}

/// Seconds with a unit that keeps four digits: `12.34 us`.
pub fn seconds(s: f64) -> String {
    let (value, unit) = match s {
        s if s < 1e-6 => (s * 1e9, "ns"),
        s if s < 1e-3 => (s * 1e6, "us"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let digits = if value < 10.0 { 3 } else { 2 - usize::from(value >= 100.0) };
    format!("{value:.digits$} {unit}")
}

/// Bytes with a binary unit: `1.50 MiB`.
pub fn bytes(n: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = n as f64;
    let mut name = "B";
    for unit in units {
        if value < 1024.0 {
            break;
        }
        (value, name) = (value / 1024.0, unit);
    }
    if name == "B" { format!("{n} B") } else { format!("{value:.2} {name}") }
}

/// Bytes in units of 2^20, as other libraries' benches give memory.
pub fn megabytes(n: u64) -> f64 {
    n as f64 / f64::from(1 << 20)
}

/// A count with a comma at each thousand.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_and_lines_end_clean() {
        let text = Table::render(&["name", ">size", "note"], &[vec!["a", "1", ""], vec!["bcdef", "1000", "x"]]);
        assert_eq!(text, "name   size  note\na         1\nbcdef  1000  x\n");
    }

    #[test]
    fn quantities() {
        assert_eq!([1e-9, 2.5e-5, 0.1234, 3.0].map(seconds), ["1.000 ns", "25.00 us", "123.4 ms", "3.000 s"]);
        assert_eq!([1023, 1536, 3 << 20].map(bytes), ["1023 B", "1.50 KiB", "3.00 MiB"]);
        assert_eq!([7, 1000, 1234567].map(count), ["7", "1,000", "1,234,567"]);
    }
}
